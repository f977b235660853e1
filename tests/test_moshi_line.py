"""The line of Moshi's own clients: what their messages become, what they are told, and that no message does harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_bridge.bridge.lines import notes
from voice_bridge.bridge.lines.base import Heard, In, Out, ProtocolError, Started
from voice_bridge.bridge.lines.client import BURST
from voice_bridge.codecs import opus
from voice_bridge.codecs.framing import FRAME, RATE

pytest.importorskip("sphn", reason=opus.REMEDY)

from voice_bridge.bridge.lines.moshi import MoshiLine, Wishes, goodbye, wishes

CALL, TOKEN = "VB1", "the-token-of-this-call"
SHAKE, SOUND, TEXT, CONTROL, METADATA, ERROR, PING, COLOURED = range(8)
PAGE = {  # what Moshi's page asks for, each time
    "text_temperature": "0.7",
    "text_topk": "25",
    "audio_temperature": "0.8",
    "audio_topk": "250",
    "pad_mult": "0",
    "text_seed": "3",
    "audio_seed": "5",
    "repetition_penalty_context": "64",
    "repetition_penalty": "1",
}


def tone(samples: int) -> opus.PCM:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / RATE)).astype(np.float32)


class Mouth:
    """Encodes what somebody says, as a client does."""

    def __init__(self) -> None:
        self._encoder = opus.Encoder()

    def say(self, samples: int = FRAME) -> bytes:
        return bytes([SOUND]) + self._encoder.push(tone(samples))


def begun(wanted: Wishes | None = None) -> MoshiLine:
    line = MoshiLine(CALL, TOKEN, wanted or Wishes())
    line.receive(b"", 0.0)
    return line


def repeated(line: MoshiLine, message: str | bytes, count: int) -> None:
    for _ in range(count):
        line.receive(message, 0.0)


def frames(events: list[In]) -> list[Heard]:
    return [event for event in events if isinstance(event, Heard)]


def told(line: MoshiLine, *texts: str, id: int = 1, speaker: str = "agent") -> list[str]:
    """What the client is sent of an utterance that grows."""
    sent = [line.tell(notes.Transcript(text, speaker, id, final=False)) for text in texts]
    assert all(out is None or (out.data[0] == TEXT and not out.text) for out in sent)
    return [out.data[1:].decode() if out else "" for out in sent]


def test_the_call_begins_without_a_word_of_the_client_and_with_the_ticket_of_the_handshake() -> None:
    wanted = Wishes("a pirate", {"text_top_k": 3}, 7)
    events = MoshiLine(CALL, TOKEN, wanted).receive(b"", 0.0)
    assert events == [Started(CALL, "", {"token": TOKEN}, "a pirate", {"text_top_k": 3}, 7)]


def test_the_conversation_begins_with_a_handshake_as_their_protocol_has_it() -> None:
    assert begun().tell(notes.Ready(CALL)) == Out(bytes(9), text=False)


def test_sound_comes_in_frames_and_goes_out_as_opus() -> None:
    line, mouth, decoder, heard = begun(), Mouth(), opus.Decoder(), []
    for turn in range(20):
        for frame in frames(line.receive(mouth.say(), turn * 0.08)):
            assert frame.at == len(heard) * FRAME
            out = line.sound(line.render(frame.frame))
            assert out is not None
            assert (out.data[0], out.text) == (SOUND, False)
            heard.append(decoder.push(out.data[1:]))
    back = np.concatenate(heard)
    assert len(back) == 20 * FRAME
    assert np.sqrt(np.mean(back[RATE // 2 :] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_sound_that_fills_no_page_waits_for_more() -> None:
    line = begun()
    line.sound(np.zeros(FRAME, np.int16))
    assert line.sound(np.zeros(480, np.int16)) is None
    assert line.sound(np.zeros(480, np.int16)) is not None


def test_silence_is_heard_when_nothing_comes_and_a_muted_client_stays() -> None:
    line = begun()
    assert [len(frames(line.fill(now))) for now in (0.1, 0.24, 0.32, 0.40)] == [0, 1, 1, 1]
    assert line.gap_samples == 3 * FRAME
    assert not line.dead(3600.0)


def test_of_what_the_agent_says_the_client_gets_each_new_piece_as_these_servers_send_it() -> None:
    line = begun()
    assert told(line, "Hel", "Hello", "Hello", "Hello there.") == [" Hel", "lo", "", " there."]
    assert told(line, "And", "And you?", id=3) == [" And", " you?"]


def test_what_reads_differently_later_goes_on_without_gluing_words_together() -> None:
    line = begun()
    assert told(line, "I see two cats", "I see two", "I see two dogs") == [" I see two cats", "", " dogs"]
    assert told(line, "wor", "there", id=3) == [" wor", " there"]


def test_the_clients_own_words_and_what_it_cannot_read_are_not_sent() -> None:
    line = begun()
    assert told(line, "I said this", speaker="caller") == [""]
    silent = [notes.Status("talking"), notes.Memory(("x",)), notes.Said(1), notes.Asked(1), notes.Flushed()]
    assert [line.tell(note) for note in silent] == [None] * 5
    assert line.flush() is None
    assert line.mark(480) is None


def test_why_a_call_ends_is_told_as_an_error_and_as_text_which_is_what_they_show() -> None:
    line = begun()
    assert line.tell(notes.Over("length")) is None
    trouble = line.tell(notes.Trouble("no engine", "engine"))
    assert (trouble, line.tell(notes.Over("engine"))) == goodbye("no engine")
    assert [out.data for out in goodbye("no engine")] == [b"\x05no engine", b"\x02 [no engine]"]


def test_what_the_engine_would_not_read_is_no_end() -> None:
    line = begun()
    assert line.tell(notes.Trouble("too long", "refused", 0)) is None
    assert line.tell(notes.Over("caller")) is None


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\x00", bytes(9), bytes([TEXT]) + b"hello", bytes([METADATA]) + b"{", bytes([ERROR]), bytes([PING])),
        *(bytes([CONTROL, action]) for action in (0, 1, 2, 3, 9)),
        *(bytes([CONTROL]), bytes([COLOURED, 1]) + b"x", b"\xff", b"\x08" + bytes(5000), "a text", '{"type":"close"}'),
    ],
)
def test_what_means_nothing_in_a_live_conversation_is_dropped(message: str | bytes) -> None:
    line = begun()
    assert line.receive(message, 0.0) == []
    assert len(frames(line.receive(Mouth().say(), 0.08))) == 1


@pytest.mark.parametrize("garbage", [b"x", bytes(100), b"OggS" * 50, b"OggS\0" + bytes(60000)])
def test_garbage_in_place_of_opus_ends_the_call_with_a_reason(garbage: bytes) -> None:
    with pytest.raises(ProtocolError, match="sound that is no Opus in Ogg: a p"):
        repeated(begun(), bytes([SOUND]) + garbage, 3)


def test_what_comes_faster_than_time_is_left_out_and_a_flood_ends_the_call() -> None:
    line, said = begun(), Mouth().say(RATE)[1:]
    taken = len(frames(line.receive(bytes([SOUND]) + said, 0.0)))
    for _ in range(29):
        taken += len(frames(line.receive(bytes([SOUND]) + said, 0.0)))
    assert taken == 12
    assert line.late_samples == 29 * RATE
    with pytest.raises(ProtocolError, match="faster than anybody speaks"):
        repeated(line, bytes([SOUND]) + said, 2)


@pytest.mark.parametrize("message", [b"", b"\x06", "text", bytes([SOUND]), bytes([SOUND]) + b"OggS"])
def test_messages_without_end_and_without_sound_end_the_call(message: str | bytes) -> None:
    line = begun()
    repeated(line, message, 900 if len(message) < 5 else 1)
    with pytest.raises(ProtocolError, match=r"faster than any client|no Opus in Ogg"):
        repeated(line, message, 200)


# -- what is asked for in the address --------------------------------------------------------------------------------


def test_what_their_page_asks_for_is_passed_on_and_what_means_nothing_here_is_not() -> None:
    sampling = {"text_temperature": 0.7, "text_top_k": 25, "audio_temperature": 0.8, "audio_top_k": 250}
    assert wishes(PAGE) == Wishes(None, sampling, 5 + (3 << 32))
    assert wishes({"email": "x", "worker_addr": "y", "image_url": "z"}) == Wishes()


def test_a_text_prompt_is_a_persona_and_an_empty_one_is_none() -> None:
    assert wishes({"text_prompt": "You are wise.", "voice_prompt": "NATF2.pt"}).persona == "You are wise."
    assert wishes({"text_prompt": ""}).persona is None


@pytest.mark.parametrize(
    ("query", "seed"),
    [
        ({"seed": "7"}, 7),
        ({"seed": "-1"}, None),
        ({"text_seed": "9"}, 9),
        ({"audio_seed": str(2**64 - 1), "text_seed": str(2**64 - 1)}, ((2**64 - 1) * (1 + 2**32)) % 2**63),
    ],
)
def test_seeds_become_one_that_the_engine_can_take(query: dict[str, str], seed: int | None) -> None:
    assert wishes(query).seed == seed


@pytest.mark.parametrize(
    "query",
    [
        *({"text_temperature": value} for value in ("", "hot", "nan", "inf", "-0.1", "2.1")),
        *({"audio_topk": value} for value in ("0", "2.5", "1e3", "32001", "9" * 5000)),
        *({"text_seed": value} for value in ("x", "-2", str(2**64))),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(query: dict[str, str]) -> None:
    (name,) = query
    with pytest.raises(ValueError, match=rf"^{name}='.{{0,20}}': take a number from ") as refused:
        wishes(query)
    assert len(str(refused.value)) < 120


def test_no_words_and_no_token_show_in_what_may_be_logged() -> None:
    assert "secret" not in repr(begun(Wishes("secret")).receive(b"", 0.0))
    assert not {"secret", TOKEN} & set(repr(MoshiLine(CALL, TOKEN, Wishes("secret")).receive(b"", 0.0)).split("'"))


# -- hostile clients -------------------------------------------------------------------------------------------------

MESSAGES: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.integers(0, 9), st.binary(max_size=60)).map(lambda parts: bytes([parts[0]]) + parts[1]),
    st.integers(1, 4).map(lambda count: count * 480),  # speak that many samples
    st.binary(max_size=60),
    st.text(max_size=30),
    st.none(),
)
LATER = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.08, 0.08, 0.3, 1.0, 30.0])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(LATER, MESSAGES), max_size=30))
def test_whatever_a_client_sends_what_comes_out_is_whole(steps: list[tuple[float, Any]]) -> None:
    line, mouth, now, count = begun(), Mouth(), 0.0, 0
    for later, what in steps:
        now += later
        events: list[In] = []
        try:
            if what is None:
                events = line.fill(now)
            else:
                events = line.receive(mouth.say(what) if isinstance(what, int) else what, now)
        except ProtocolError as error:
            assert 10 < len(str(error)) <= 120  # noqa: PT017 - most examples raise nothing
            return
        assert len(events) == len(frames(events)) <= BURST
        for heard in frames(events):
            assert heard.at == count * FRAME
            count += 1
            assert (heard.frame.shape, heard.frame.dtype) == ((FRAME,), np.float32)
            assert line.sound(line.render(heard.frame)) is not None
        assert line.gap_samples >= 0
        assert line.late_samples >= 0
