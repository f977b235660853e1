"""The messages between the daemon and an engine process, cut in any way."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_bridge.engines import wire
from voice_bridge.engines.base import (
    Back,
    Ended,
    Flush,
    HangUp,
    Injected,
    Lost,
    Opening,
    Remember,
    Said,
    TextEvent,
    Turn,
    Words,
)
from voice_bridge.engines.wire import HEADER, LIMIT, Kind, Packet, Unpacker, pack, pack_struct

numbers = st.integers(-(2**63), 2**63 - 1)
packets = st.builds(Packet, st.sampled_from(Kind), numbers, numbers, st.binary(max_size=100))


@given(st.lists(packets, max_size=8), st.data())
def test_messages_come_out_whole_however_they_are_cut(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(pack(Kind(one.kind), one.conversation, one.at, one.payload) for one in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    unpacker = Unpacker()
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert [packet for piece in pieces for packet in unpacker.feed(piece)] == sent


def test_a_message_is_given_as_soon_as_its_last_byte_is_there() -> None:
    unpacker = Unpacker()
    message = pack(Kind.FRAME, 7, 1920, b"sound")
    *before, last = [list(unpacker.feed(message[at : at + 1])) for at in range(len(message))]
    assert not any(before)
    assert last == [Packet(Kind.FRAME, 7, 1920, b"sound")]


@pytest.mark.parametrize("length", [LIMIT + 1, 2**32 - 1])
def test_a_message_too_long_to_be_one_of_ours_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        list(Unpacker().feed(HEADER.pack(length, Kind.SOUND, 1, 0)))


@pytest.mark.parametrize(
    "tell",
    [
        wire.Open(Opening("CA1", "Hello", "a butler", 7, {"temperature": 0.8}, {"speaker": "two"})),
        wire.Open(Opening()),
        wire.Say(1, "Grüezi", False),
        wire.Inject(2, "likes jazz", "silent", 3),
        wire.Cancel(1),
        wire.Played(1920),
        wire.Digit("#"),
        wire.Close(),
    ],
)
def test_what_the_daemon_tells_arrives_as_it_was(tell: wire.AnyTell) -> None:
    (packet,) = Unpacker().feed(pack_struct(Kind.TELL, tell, 9))
    assert (packet.kind, packet.conversation) == (Kind.TELL, 9)
    assert wire.decode_tell.decode(packet.payload) == tell


@pytest.mark.parametrize(
    "event",
    [
        Words(1, "agent", "Grüezi", 0, 1920, True, forced=True),
        Words(2, "caller", "hello", 1920, 3840, False),
        Turn(1, "caller", 1920),
        Flush(),
        Said(1, 1920),
        Injected(2),
        Remember("likes jazz"),
        HangUp("done"),
        Lost(0.5),
        Back(),
        Ended("closed"),
    ],
)
def test_what_the_engine_reports_arrives_as_it_was(event: TextEvent) -> None:
    (packet,) = Unpacker().feed(pack_struct(Kind.EVENT, event, 9))
    assert (packet.kind, packet.conversation) == (Kind.EVENT, 9)
    assert wire.decode_event.decode(packet.payload) == event


def test_a_word_of_neither_side_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_tell.decode(b'{"tell":"sing"}')
    with pytest.raises(msgspec.ValidationError):
        wire.decode_event.decode(b'{"event":"sang"}')
