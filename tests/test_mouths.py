"""Mouths: the process that speaks, who is spoken for first, and what the sound is like."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytest_asyncio

from voice_bridge.codecs.framing import RATE
from voice_bridge.engines import wire as process
from voice_bridge.engines.mouths import mouth, piper, pocket, wire
from voice_bridge.engines.mouths import process as inside
from voice_bridge.engines.mouths.base import PCM, NoVoice
from voice_bridge.engines.mouths.mouth import Mouth, missing
from voice_bridge.engines.mouths.sound import FADE, GAP, LEAD, LEVEL, PEAK, QUIET, Trim, gain
from voice_bridge.engines.wire import Kind

LOOP = "module"
SPEAKS = pytest.mark.skipif(bool(missing("piper")), reason="no voice without voice-bridge[piper]")
PATIENCE = 30.0  # seconds for what takes one on a machine with nothing else to do
LONG = (
    "I can look that up for you if you tell me your name, and the street where you live, and the number of the house."
)
SPEECH = 0.3 * np.sin(np.arange(1, RATE + 1) / 20, dtype=np.float32)  # a second, loud from its first sample on


@pytest_asyncio.fixture(scope="module", loop_scope=LOOP)
async def one() -> AsyncIterator[Mouth]:
    """A mouth that speaks one sentence at a time."""
    made = Mouth("piper")
    await made.start()
    yield made
    await made.stop()


async def said(speaker: Mouth, text: str, due: float = 0) -> PCM:
    async with asyncio.timeout(PATIENCE):
        return np.concatenate([np.zeros(0, np.float32), *[piece async for piece in speaker.say(text, due)]])


@pytest.fixture
def asked(one: Mouth, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process is asked to speak, in this order."""
    texts: list[str] = []
    send = one._child.send

    def watch(data: bytes) -> bool:
        for packet in process.Unpacker().feed(data):
            tell = wire.decode_tell.decode(packet.payload) if packet.kind == Kind.TELL else None
            texts.extend([tell.text] if isinstance(tell, wire.Say) else [])
        return send(data)

    monkeypatch.setattr(one._child, "send", watch)
    return texts


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
@pytest.mark.parametrize(
    ("text", "least", "most"), [("Okay.", 0.4, 1.2), ("Your gate code is four four one seven.", 1.5, 3.5)]
)
async def test_a_sentence_lasts_as_long_as_it_takes_to_say_and_is_as_loud_as_others(
    one: Mouth, text: str, least: float, most: float
) -> None:
    pcm = await said(one, text)
    assert pcm.dtype == np.float32
    assert least < len(pcm) / RATE < most
    assert np.abs(pcm).max() <= PEAK
    assert LEVEL / 1.15 < LEVEL / gain(pcm) < LEVEL * 1.15  # within 1.2 dB
    loud = np.flatnonzero(np.abs(pcm) > QUIET)
    assert loud[0] <= LEAD
    assert len(pcm) - loud[-1] - 1 == GAP


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_what_is_no_speech_is_no_sound(one: Mouth) -> None:
    assert not len(await said(one, ""))
    assert not len(await said(one, " ... "))


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_brackets_and_half_characters_do_not_stop_a_sentence(one: Mouth) -> None:
    """In double brackets piper would take letters for phonemes, and half a surrogate has no bytes."""
    assert len(await said(one, "[[ ABRACADABRA \ud83d ABRACADABRA ]]")) > RATE


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_who_is_due_first_is_spoken_first(one: Mouth, asked: list[str]) -> None:
    texts = {"The first one.": 5.0, "Due in the end.": 9.0, "Due very soon.": 1.0, "Due after that.": 2.0}
    await asyncio.gather(*(said(one, text, due) for text, due in texts.items()))
    assert asked == ["The first one.", "Due very soon.", "Due after that.", "Due in the end."]


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_what_nobody_wants_any_more_before_its_turn_is_never_spoken(one: Mouth, asked: list[str]) -> None:
    first = asyncio.create_task(said(one, "Somebody speaks."))
    unwanted = asyncio.create_task(said(one, "Nobody hears this.", due=1))
    last = asyncio.create_task(said(one, "And somebody else.", due=2))
    await asyncio.sleep(0)  # they take their places
    unwanted.cancel()
    assert len(await first)
    assert len(await last)
    assert asked == ["Somebody speaks.", "And somebody else."]


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_what_is_broken_off_makes_way_for_the_next(one: Mouth) -> None:
    broken = asyncio.create_task(said(one, LONG))
    await asyncio.sleep(0)
    broken.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await broken
    assert len(await said(one, "Here I am.")) < 2 * RATE


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_a_sentence_that_was_said_before_is_not_spoken_anew(one: Mouth, asked: list[str]) -> None:
    first = await said(one, "I did not catch that.")
    again = await said(one, " I did not  catch that.")
    assert np.array_equal(first, again)
    assert asked == ["I did not catch that."]


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_only_short_sentences_that_were_said_to_their_end_are_kept(
    one: Mouth, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mouth, "KEPT_LENGTH", 15)
    for _ in range(2):
        await said(one, "This is too long.")
    half = one.say("First. Second.", 0)
    first = await anext(half)
    await half.aclose()
    assert len(await said(one, "First. Second.")) > 1.5 * len(first)
    assert asked == ["This is too long.", "This is too long.", "First. Second.", "First. Second."]


def test_what_was_not_said_for_longest_is_forgotten_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth, "KEPT", 2 * SPEECH.nbytes)
    kept = mouth._Kept()
    for text in ("one", "two"):
        kept.put(text, [SPEECH])
    assert kept.get("one")
    kept.put("three", [SPEECH[:5], SPEECH[5:]])
    assert (kept.get("two"), len(kept.get("one") or []), len(kept.get("three") or [])) == (None, 1, 2)


@SPEAKS
@pytest.mark.asyncio(loop_scope=LOOP)
async def test_when_the_process_dies_the_sentence_is_lost_and_others_wait_for_its_return(
    one: Mouth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mouth, "RESTART", PATIENCE)
    monkeypatch.setattr(mouth, "PATIENCE", PATIENCE)
    speaking = asyncio.create_task(said(one, LONG))
    waiting = asyncio.create_task(said(one, "I waited for this.", due=1))
    await asyncio.sleep(0)
    os.kill(one._child.pid, signal.SIGKILL)
    with pytest.raises(NoVoice, match="went away"):
        await speaking
    assert len(await said(one, "I came while you were away."))
    assert len(await waiting)


@SPEAKS
async def test_while_it_is_away_a_sentence_waits_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth, "RESTART", 0.05)
    away = Mouth("piper")  # never started: as one that does not come back
    with pytest.raises(NoVoice, match="away"):
        await said(away, "Is anybody there?")
    assert not away._waiting


@SPEAKS
async def test_two_are_spoken_at_once_and_the_shorter_is_done_before() -> None:
    two = Mouth("piper", threads=2)
    await two.start()
    done: list[str] = []

    async def say(text: str) -> None:
        assert len(await said(two, text))
        done.append(text)

    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(say(LONG), say("Okay."))
    finally:
        await two.stop()
    assert done == ["Okay.", LONG]


@SPEAKS
async def test_it_works_on_a_loop_in_any_thread_and_stops_what_waits() -> None:
    """Of an engine process, the main thread steps."""

    async def speak() -> None:
        made = Mouth("piper")
        await made.start()
        assert len(await said(made, "Okay."))
        late = asyncio.create_task(said(made, LONG))
        await asyncio.sleep(0)
        await made.stop()
        with pytest.raises(NoVoice, match="stopped"):
            await late

    await asyncio.to_thread(asyncio.run, speak())


def forge(real: Path, forged: Path) -> None:
    """A package with one bit changed in its model, whose code must not run."""
    forged.mkdir(parents=True)
    (forged.parent / "__init__.py").write_text("raise SystemExit('its code has run')")
    data = bytearray((real / piper.VOICE).read_bytes())
    data[len(data) // 2] ^= 1
    (forged / piper.VOICE).write_bytes(data)
    (forged / f"{piper.VOICE}.json").write_bytes((real / f"{piper.VOICE}.json").read_bytes())


@SPEAKS
async def test_a_voice_that_is_not_the_one_we_know_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec(piper.PACKAGE)
    assert spec
    assert spec.submodule_search_locations
    forge(Path(spec.submodule_search_locations[0]) / "data", tmp_path / piper.PACKAGE / "data")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="is not the file that this version knows: pip install"):
        await Mouth("piper").start()


def own_voice(folder: Path) -> Path:
    """The package's voice, which has forgotten how to say S."""
    own = folder / "own.onnx"
    own.symlink_to(piper.find(""))
    config = json.loads(Path(f"{piper.find('')}.json").read_text())
    del config["phoneme_id_map"]["s"]
    Path(f"{own}.json").write_text(json.dumps(config))
    return own


@SPEAKS
async def test_an_operator_s_own_voice_is_taken_as_it_is_and_no_log_has_what_it_cannot_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Mouth("piper", str(own_voice(tmp_path)))
    await made.start()
    assert len(await said(made, "A secret."))
    await made.stop()
    assert not caplog.records


@SPEAKS
async def test_a_voice_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no voice for piper in .*missing\.onnx: name an \.onnx file"):
        await Mouth("piper", str(tmp_path / "missing.onnx")).start()


async def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mouth.NEEDED, "pocket", ("pocket_tts_of_nobody", "asyncio"))
    assert missing("pocket") == ["pocket_tts_of_nobody"]
    with pytest.raises(ValueError, match=r"pocket_tts_of_nobody not installed: pip install 'voice-bridge\[pocket\]'"):
        await Mouth("pocket").start()
    with pytest.raises(ValueError, match="take piper or pocket"):
        await Mouth("flute").start()


def test_an_operator_s_own_voice_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth, "VOICE", "a_voice_of_nobody")
    assert "a_voice_of_nobody" in missing("piper")
    assert "a_voice_of_nobody" not in missing("piper", "own.onnx")


class Far(NamedTuple):
    """The other end of a process that runs in this one."""

    sock: socket.socket
    packets: Iterator[process.Packet]

    def tell(self, id: int, tell: wire.Tell) -> None:
        self.sock.sendall(process.pack_struct(Kind.TELL, tell, id))

    def ping(self) -> None:
        self.sock.sendall(process.pack(Kind.PING))


@contextlib.contextmanager
def served(speak: inside.Speak) -> Iterator[Far]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    unpacker = process.Unpacker()

    def packets() -> Iterator[process.Packet]:
        while data := ours.recv(1 << 16):
            yield from unpacker.feed(data)

    serving = threading.Thread(target=inside.Server(theirs, [speak]).serve)
    serving.start()
    with ours, theirs:
        far = Far(ours, packets())
        assert next(far.packets).kind == Kind.READY
        yield far
        ours.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE)
        assert not serving.is_alive()


def test_a_process_answers_while_it_speaks_unless_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(text: str) -> Generator[PCM, None, None]:
        begun.set()
        go_on.wait(PATIENCE)
        yield SPEECH

    with served(slow) as far:
        far.tell(1, wire.Say("Hello."))
        begun.wait(PATIENCE)
        far.ping()
        assert next(far.packets).kind == Kind.HEALTH
        monkeypatch.setattr(inside, "HANG", 0.0)
        far.ping()  # unanswered: the engine's side will kill it
        go_on.set()
        assert next(far.packets).kind == Kind.SOUND


def test_between_two_pieces_a_sentence_may_be_dropped() -> None:
    within, dropped, over = threading.Event(), threading.Event(), threading.Event()

    def endless(text: str) -> Generator[PCM, None, None]:
        try:
            while True:
                yield SPEECH
                within.set()
                dropped.wait(PATIENCE)
        finally:
            over.set()

    with served(endless) as far:
        far.tell(1, wire.Say("Hello."))
        assert next(far.packets).kind == Kind.SOUND
        within.wait(PATIENCE)
        far.tell(1, wire.Drop())
        far.ping()
        assert next(far.packets).kind == Kind.HEALTH  # by now it has read the other
        dropped.set()
        last = next(far.packets)  # not the piece that was under way
        assert (last.kind, wire.decode_event.decode(last.payload)) == (Kind.EVENT, wire.Spoken())
        assert over.is_set()


def test_a_sentence_that_cannot_be_spoken_fails_alone_and_no_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    def fussy(text: str) -> Generator[PCM, None, None]:
        if "secret" in text:
            raise ValueError(f"cannot say {text}")
        yield SPEECH

    caplog.set_level(logging.DEBUG)
    with served(fussy) as far:
        far.tell(1, wire.Say("a secret"))
        failed = next(far.packets)
        assert (failed.conversation, wire.decode_event.decode(failed.payload)) == (1, wire.Failed("ValueError"))
        far.tell(2, wire.Say("Hello."))
        assert np.array_equal(np.frombuffer(next(far.packets).payload, np.float32), SPEECH)
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def cut(pcm: PCM, size: int) -> list[PCM]:
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


@pytest.mark.parametrize("size", [100, 1920, 10**6])
def test_silence_around_speech_is_cut_and_silence_within_stays(size: int) -> None:
    silence = np.zeros(RATE, np.float32)
    trim = Trim()
    given = np.concatenate((silence, SPEECH, silence, SPEECH, silence))
    pcm = np.concatenate([*map(trim.push, cut(given, size)), trim.end()])
    assert np.array_equal(pcm, given[RATE - LEAD : 4 * RATE + GAP])


def test_speech_without_silence_around_it_begins_and_ends_without_a_click() -> None:
    trim = Trim()
    tone = np.full(RATE, 0.5, np.float32)
    pcm = np.concatenate((trim.push(tone), trim.end()))
    assert np.abs(np.diff(pcm, prepend=0, append=0)).max() < 0.01
    assert len(pcm) < RATE + GAP


def test_silence_and_the_shortest_sounds_have_a_gain() -> None:
    assert gain(np.zeros(RATE, np.float32)) == 1
    assert gain(np.ones(5, np.float32)) == 1
    assert gain(np.zeros(0, np.float32)) == 1
    click = np.zeros(RATE, np.float32)
    click[100] = 0.5
    assert gain(click) * 0.5 == pytest.approx(PEAK)


class Model:
    """What `Pocket` needs of pocket-tts: a stream of chunks that are like torch's tensors."""

    sample_rate = RATE

    def __init__(self) -> None:
        self.threads = 0

    def generate_audio_stream(self, state: Any, text: str, stop: threading.Event) -> Iterator[Any]:
        self.threads += 1
        for pcm in cut(SPEECH, 1920):
            if stop.is_set():
                break
            yield Chunk(pcm / 10)
        self.threads -= 1


class Chunk(NamedTuple):
    pcm: PCM

    def numpy(self) -> PCM:
        return self.pcm


def test_pocket_s_pieces_come_while_it_speaks_and_all_are_as_loud() -> None:
    pieces = list(pocket.Pocket(Model(), None)("Hello."))
    assert len(pieces) > 10
    assert 1900 < len(pieces[1]) < 1940
    pcm = np.concatenate(pieces)
    assert LEVEL / gain(pcm) == pytest.approx(LEVEL, rel=0.05)
    assert len(pcm) == RATE - FADE + GAP


def test_pocket_s_threads_are_done_when_a_sentence_is_broken_off() -> None:
    model = Model()
    pieces = pocket.Pocket(model, None)("Hello.")
    assert len(next(pieces))
    pieces.close()
    assert not model.threads


def test_pocket_s_voice_is_a_name_or_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.wav"
    own.touch()
    assert pocket.find("", ["alba"]) == "alba"
    assert pocket.find(str(own), ["alba"]) == own
    with pytest.raises(ValueError, match="no voice nobody: take alba, marius, or"):
        pocket.find("nobody", ["alba", "marius"])
    with pytest.raises(ValueError, match=r"no voice for pocket in .*other\.wav: name"):
        pocket.find(str(tmp_path / "other.wav"), ["alba"])


async def test_pocket_without_its_weights_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pocket_tts")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="mouth = pocket needs its weights: let this machine"):
        await Mouth("pocket").start()
