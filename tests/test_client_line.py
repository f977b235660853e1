"""The client line: what a client's messages become, what it is told, and that no message does harm."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voice_bridge.bridge.lines import notes
from voice_bridge.bridge.lines.base import (
    Cancel,
    Digit,
    Heard,
    In,
    Inject,
    Out,
    Played,
    ProtocolError,
    Reply,
    Say,
    Started,
    Stopped,
)
from voice_bridge.bridge.lines.client import BURST, RATES, ClientLine
from voice_bridge.bridge.lines.texts import MAX_TEXT, MAX_WORDS, State
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.resample import Convert

CALL, TOKEN = "VB1", "the-token-of-this-call"
OPEN = '{"type":"open"}'


def opened(**fields: Any) -> ClientLine:
    line = ClientLine(CALL, TOKEN)
    line.receive(json.dumps({"type": "open", **fields}), 0.0)
    return line


def text(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def noise(samples: int, seed: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-30000, 30000, samples).astype("<i2")


def tone(samples: int, rate: int) -> NDArray[np.int16]:
    return np.rint(8000 * np.sin(2 * np.pi * 1000 * np.arange(samples) / rate)).astype(np.int16)


def complaint(events: list[In]) -> str:
    """The error that a line answers with, and nothing else."""
    (reply,) = events
    assert isinstance(reply, Reply)
    told = json.loads(reply.out.data)
    assert (told["type"], told["code"], reply.out.text) == ("error", "message", True)
    message: str = told["message"]
    return message


def heard(events: list[In]) -> list[Heard]:
    return [event for event in events if isinstance(event, Heard)]


# -- what a client says ----------------------------------------------------------------------------------------------


def test_open_starts_the_call_with_the_ticket_of_the_handshake_and_a_persona_of_its_own() -> None:
    line = ClientLine(CALL, TOKEN)
    assert line.receive(text("open", persona="A pirate.", protocol=1, other="x"), 0.0) == [
        Started(CALL, "", {"token": TOKEN}, "A pirate.")
    ]
    assert line.state is State.STARTED


def test_sound_first_means_the_defaults_and_none_of_it_is_lost() -> None:
    line, said = ClientLine(CALL, TOKEN), noise(2 * FRAME)
    assert line.receive(said[:FRAME].tobytes(), 0.0) == [Started(CALL, "", {"token": TOKEN})]
    frames = heard(line.receive(said[FRAME:].tobytes(), 0.08))
    assert [frame.at for frame in frames] == [0, FRAME]
    assert np.array_equal(np.concatenate([frame.pcm for frame in frames]), said)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (text("played", at=4800), Played(4800)),
        (text("digit", digit="#"), Digit("#")),
        (text("say", text="Hello."), Say("Hello.", True)),
        (text("say", text="Hello.", interruptible=False), Say("Hello.", False)),
        (text("inject", context="It rains."), Inject("It rains.")),
        (text("cancel", id=3), Cancel(3)),
        (text("ping"), Reply(Out(b'{"type":"pong"}'))),
        (text("close"), Stopped()),
        (text("played", at=1, flavour="new"), Played(1)),
    ],
)
def test_what_a_client_may_say(message: str, event: In) -> None:
    assert opened().receive(message, 0.0) == [event]


def test_after_close_nothing_is_taken() -> None:
    line = opened()
    line.receive(text("close"), 0.0)
    assert line.receive(text("ping"), 0.0) == []
    assert line.receive(noise(FRAME).tobytes(), 0.0) == []
    assert line.fill(9.0) == []


def test_nothing_played_yet_is_no_position() -> None:
    assert opened().receive(text("played", at=0), 0.0) == []


@pytest.mark.parametrize("message", ['{"type":"weather","wind":[1,{"deep":null}]}', '{"type":"status","state":"x"}'])
def test_types_that_are_not_known_are_ignored(message: str) -> None:
    assert opened().receive(message, 0.0) == []
    assert ClientLine(CALL, TOKEN).receive(message, 0.0) == []


@pytest.mark.parametrize(
    "message",
    [
        text("played"),
        text("played", at=-1),
        text("played", at="7"),
        text("played", at=10**12),
        text("played", at=10**40),
        text("digit", digit="x"),
        text("digit", digit="12"),
        text("digit", digit="1\n"),
        text("say", text=" "),
        text("say", text="x" * (MAX_WORDS + 1)),
        text("say", text="x", interruptible="yes"),
        text("inject"),
        text("cancel", id=None),
        text("open", rate="8000"),
        text("open", rate=48000),
        "[]",
        "7",
        "{}",
        '{"type":7}',
    ],
)
def test_a_message_with_wrong_fields_is_answered_with_an_error_and_the_call_goes_on(message: str) -> None:
    line = opened()
    assert complaint(line.receive(message, 0.0))
    assert line.receive(text("played", at=5), 0.0) == [Played(5)]


@pytest.mark.parametrize("message", [text("say", text="Hi."), text("played", at=1), text("digit", digit="1")])
def test_before_the_call_has_begun_there_is_nobody_to_be_told(message: str) -> None:
    line = ClientLine(CALL, TOKEN)
    assert "first open" in complaint(line.receive(message, 0.0))
    assert isinstance(line.receive(OPEN, 0.0)[0], Started)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("x" * (MAX_TEXT + 1), f"at most {MAX_TEXT}"),
        ("hello", "no JSON"),
        ("", "no JSON"),
        ("[" * 5000, "no JSON"),
        ('{"type":"ping"', "no JSON"),
        ('{"type":"say","text":"\ud800"}', "no JSON"),
    ],
)
def test_garbage_ends_the_call_with_a_reason(message: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        opened().receive(message, 0.0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"rate": 44100}, "8000, 16000, 24000, 48000"),
        ({"rate": 10**30}, "is not taken"),
        ({"rate": "8000"}, "open: "),
        ({"protocol": 2}, "protocol 2 is not spoken here; 1 is"),
        ({"persona": 7}, "open: "),
    ],
)
def test_an_open_that_is_not_understood_begins_no_call(fields: dict[str, Any], why: str) -> None:
    line = ClientLine(CALL, TOKEN)
    with pytest.raises(ProtocolError, match=why):
        line.receive(text("open", **fields), 0.0)
    assert line.state is State.OPENED


def test_half_a_sample_is_an_error_and_that_sound_is_left_out() -> None:
    line = opened()
    assert "3841 bytes" in complaint(line.receive(bytes(3841), 0.0))
    assert [frame.at for frame in heard(line.receive(bytes(3840), 0.0))] == [0]


def test_more_than_a_second_of_sound_in_a_message_ends_the_call() -> None:
    assert opened().receive(bytes(2 * RATE), 0.0)
    with pytest.raises(ProtocolError, match="at most 48000"):
        opened().receive(bytes(2 * RATE + 2), 0.0)
    with pytest.raises(ProtocolError, match="at most 16000"):
        opened(rate=8000).receive(bytes(16002), 0.0)


# -- sound and time --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=40))
def test_chunks_of_any_size_become_frames_of_the_same_sound(sizes: list[int]) -> None:
    line, said, now = opened(), noise(sum(sizes)), 0.0
    frames: list[Heard] = []
    for size, end in zip(sizes, np.cumsum(sizes), strict=True):
        now += size / RATE
        frames += heard(line.receive(said[end - size : end].tobytes(), now))
    assert [frame.at for frame in frames] == [n * FRAME for n in range(len(said) // FRAME)]
    if frames:
        pcm = np.concatenate([frame.pcm for frame in frames])
        assert np.array_equal(pcm, said[: len(pcm)])
        assert np.array_equal(np.concatenate([frame.frame for frame in frames]), (pcm / 32768).astype(np.float32))


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_is_converted_both_ways_and_nothing_drifts(rate: int) -> None:
    """A tone comes through pure and at its level, and as many samples come out as went in."""
    line, seconds = opened(rate=rate), 4
    said = tone(seconds * rate, rate)
    chunk = rate // 50
    back: list[NDArray[np.int16]] = []
    for n in range(seconds * 50):
        for frame in heard(line.receive(said[n * chunk : (n + 1) * chunk].tobytes(), n / 50)):
            assert (len(frame.pcm), len(frame.frame)) == (FRAME, FRAME)
            assert frame.frame.dtype == np.float32
            out = line.sound(line.render(frame.frame))
            assert not out.text
            back.append(np.frombuffer(out.data, "<i2"))
    heard_back = np.concatenate(back)
    assert len(heard_back) == len(said)
    middle = heard_back[rate : 3 * rate].astype(float)
    phase = 2 * np.pi * 1000 * np.arange(2 * rate) / rate
    basis = np.stack((np.sin(phase), np.cos(phase)), axis=1)
    level = basis.T @ middle / rate
    assert np.hypot(*level) == pytest.approx(8000, rel=0.01)
    assert np.abs(middle - basis @ level).max() < 3


@pytest.mark.parametrize(("rate_in", "rate_out"), [(8000, 24000), (16000, 24000), (24000, 16000), (48000, 24000)])
@given(st.lists(st.integers(0, 700), max_size=12))
def test_conversion_is_the_same_to_the_bit_however_the_sound_is_cut(
    rate_in: int, rate_out: int, sizes: list[int]
) -> None:
    said = noise(sum(sizes))
    whole, cut = Convert(rate_in, rate_out).push(said), Convert(rate_in, rate_out)
    pieces = [cut.push(piece) for piece in np.split(said, np.cumsum(sizes))]
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_what_a_rate_cannot_carry_is_not_heard_as_something_else(rate: int) -> None:
    lower = min(rate, RATE)
    high = 0.9 * max(rate, RATE) / 2
    source, target = (rate, RATE) if rate > RATE else (RATE, rate)
    said = np.rint(16000 * np.sin(2 * np.pi * high * np.arange(source) / source)).astype(np.int16)
    assert high > 0.58 * lower
    assert np.abs(Convert(source, target).push(said)[200:]).max() <= 6  # 70 dB down


def test_silence_is_heard_when_nothing_comes_and_a_muted_client_stays() -> None:
    line = opened()
    assert line.fill(0.2) == []
    frames = [frame for n in range(3, 751) for frame in heard(line.fill(n * 0.08))]
    assert len(frames) == pytest.approx(60 / 0.08, abs=3)
    assert not any(frame.pcm.any() for frame in frames)
    assert line.gap_samples == len(frames) * FRAME
    assert not line.dead(3600.0)


def until_refused(line: ClientLine, message: str | bytes, most: int) -> tuple[int, str]:
    """The frames of a message said again and again at one moment, and why that ends the call."""
    taken = 0
    for _ in range(most):
        try:
            taken += len(heard(line.receive(message, 0.0)))
        except ProtocolError as error:
            return taken, str(error)
    pytest.fail(f"{most} messages at one moment are taken")


def test_what_comes_faster_than_time_is_left_out_and_a_flood_ends_the_call() -> None:
    line = opened()
    assert until_refused(line, noise(FRAME).tobytes(), 1000) == (5, "sound comes faster than anybody speaks")
    assert line.late_samples >= 29 * RATE


def test_after_a_stall_the_sound_of_which_the_time_is_over_is_left_out() -> None:
    line = opened()
    for n in range(26):
        line.fill(n * 0.08)
    late = sum(len(heard(line.receive(noise(FRAME).tobytes(), 2.0))) for _ in range(25))
    assert late == 5
    assert line.late_samples == (25 - late) * FRAME
    assert [len(heard(line.receive(noise(FRAME).tobytes(), 2.2 + n * 0.08))) for n in range(9)] == [1] * 9


def test_a_long_chunk_is_handed_on_by_and_by() -> None:
    """No engine queues more frames than that."""
    line = opened()
    assert len(heard(line.receive(noise(RATE).tobytes(), 0.0))) == BURST
    assert [len(heard(line.fill(n * 0.08))) for n in range(3)] == [BURST, BURST, 0]


def test_texts_without_end_end_the_call() -> None:
    why = "texts come faster than any client has to tell"
    assert until_refused(opened(), text("ping"), 2000) == (0, why)
    assert until_refused(opened(), text("say", text="Hello."), 30) == (0, why)
    assert until_refused(opened(), text("say"), 2000) == (0, why)
    line = opened()
    for n in range(3000):
        line.receive(text("played", at=n), n * 0.02)


@pytest.mark.parametrize(("rate", "position"), [(8000, 14400), (16000, 7200), (24000, 4800), (48000, 2400)])
def test_positions_are_told_in_samples_of_the_clients_rate(rate: int, position: int) -> None:
    assert opened(rate=rate).receive(text("played", at=4800), 0.0) == [Played(position)]


def test_sound_of_an_engine_gone_wrong_is_silence_or_loud_and_no_error() -> None:
    frame = np.array([np.nan, np.inf, -np.inf, 2.0, -2.0, 0.5], np.float32)
    assert opened().render(frame).tolist() == [0, 32767, -32768, 32767, -32768, 16384]


# -- what a client is told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (notes.Ready("VB1"), {"type": "ready", "call": "VB1", "protocol": 1}),
        (notes.Status("listening"), {"type": "status", "state": "listening"}),
        (
            notes.Transcript("Good day", "agent", 3, False),
            {"type": "transcript", "text": "Good day", "speaker": "agent", "id": 3, "final": False},
        ),
        (notes.Memory(("a", "b")), {"type": "memory", "injected": ["a", "b"]}),
        (notes.Asked(7), {"type": "asked", "id": 7}),
        (notes.Said(7), {"type": "said", "id": 7}),
        (notes.Cut(7), {"type": "cut", "id": 7}),
        (notes.Injected(7), {"type": "injected", "id": 7}),
        (notes.Pong(), {"type": "pong"}),
        (notes.Flushed(), {"type": "flush"}),
        (notes.Trouble("no", "busy"), {"type": "error", "message": "no", "code": "busy"}),
        (notes.Trouble("no", "refused", 7), {"type": "error", "message": "no", "code": "refused", "id": 7}),
        (notes.Over("drain"), {"type": "ended", "code": "drain"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_client_is_told(note: notes.Note, message: dict[str, Any]) -> None:
    out = opened().tell(note)
    assert (json.loads(out.data), out.text) == (message, True)


def test_a_flush_is_told_and_marks_are_not() -> None:
    line = opened()
    assert line.flush() == Out(b'{"type":"flush"}')
    assert line.mark(480) is None


def test_no_words_and_no_token_show_in_what_may_be_logged() -> None:
    line = ClientLine(CALL, TOKEN)
    events = line.receive(text("open", persona="secret"), 0.0)
    events += line.receive(text("say", text="secret"), 0.0) + line.receive(text("inject", context="secret"), 0.0)
    assert "secret" not in repr(events)
    assert TOKEN not in repr(events)


# -- hostile clients -------------------------------------------------------------------------------------------------

STRANGE: list[Any] = [None, True, 0, -1, 0.5, 1e308, 10**18, 10**40, [], [[]], {}, "", "x", "\x00", "9" * 5000, "²"]
FIELDS = ["rate", "persona", "protocol", "resume", "at", "digit", "text", "interruptible", "context", "id"]
KINDS = ["open", "played", "digit", "say", "inject", "cancel", "ping", "close", "weather"]
GOOD = [
    *(text("open", rate=rate) for rate in RATES),
    *(text("ping"), text("played", at=9), text("digit", digit="1"), text("say", text="x"), text("cancel", id=1)),
]
MESSAGES = st.one_of(
    st.builds(
        lambda kind, fields: json.dumps({**fields, "type": kind}),
        st.sampled_from([*KINDS, *KINDS, 7, None]),
        st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(STRANGE) | st.integers(-9, 50000), max_size=4),
    ),
    st.sampled_from(GOOD),
    st.text(max_size=30),
    st.binary(max_size=50),
    st.sampled_from([1, 2, 320, 1920, 3840, 7680, 16000, 16002, 48000, 48002, 96002]).map(bytes),
    st.none(),
)
LATER = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.08, 0.08, 0.3, 1.0, 30.0])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(LATER, MESSAGES), max_size=30), st.sampled_from([None, *RATES]))
def test_whatever_a_client_sends_what_comes_out_is_whole(steps: list[tuple[float, Any]], rate: int | None) -> None:
    line, now, frames = (opened(rate=rate) if rate else ClientLine(CALL, TOKEN)), 0.0, 0
    for later, what in steps:
        now += later
        before, refused, events = line.state, "", []
        try:
            events = line.fill(now) if what is None else line.receive(what, now)
        except ProtocolError as error:
            refused = str(error) or "for no reason"
        if refused:
            assert len(refused) <= 120
            assert refused != "for no reason"
            return
        assert len(heard(events)) <= BURST
        for event in events:
            assert len(repr(event)) < 200
            match event:
                case Started():
                    assert before is State.OPENED
                case Heard(frame, at, pcm):
                    assert at == frames * FRAME
                    frames += 1
                    assert (frame.shape, frame.dtype, pcm.shape, pcm.dtype) == (
                        (FRAME,),
                        np.float32,
                        (FRAME,),
                        np.int16,
                    )
                    assert len(line.sound(line.render(frame)).data) % 2 == 0
                case Played(position):
                    assert position >= 0
                case Reply(out):
                    assert json.loads(out.data)["type"] in ("error", "pong")
                case Stopped():
                    assert line.state is State.STOPPED
        assert line.gap_samples >= 0
        assert line.late_samples >= 0
