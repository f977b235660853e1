"""Opus: what goes in comes out, a little later; and whatever a stranger sends costs little."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_bridge.codecs import opus
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.opus import PCM, Decoder, Encoder

pytest.importorskip("sphn", reason=opus.REMEDY)

DELAYS = range(150, 161)  # samples (6.3 to 6.7 ms) between a sample that is encoded and the same one decoded
CODED = bytes([31 << 3])  # begins a packet of one frame of 20 ms


def chirp(seconds: float) -> PCM:
    """Sound that is like itself at one place only."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * (200 + 200 * time) * time)).astype(np.float32)


def pieces(pcm: PCM, size: int) -> list[PCM]:
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def through(pcm: PCM, size: int) -> PCM:
    """`pcm` encoded in pieces of `size` and decoded."""
    encoder, decoder = Encoder(), Decoder()
    return np.concatenate([decoder.push(encoder.push(piece)) for piece in pieces(pcm, size)])


def page(packets: Iterable[bytes], flags: int = 0, version: int = 0) -> bytes:
    packets = list(packets)
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = struct.pack("<4sBBqIIIB", b"OggS", version, flags, 0, 1, 2, 0, len(table))
    return header + table + b"".join(packets)


HEAD = page([b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, 48_000, 0, 0)], 2) + page([b"OpusTags" + bytes(8)])


@pytest.mark.parametrize("size", [80, 480, 960, FRAME, 5000])
def test_sound_comes_back_as_it_was_and_six_milliseconds_later(size: int) -> None:
    sound = chirp(2)
    back = through(sound, size)
    assert len(back) >= len(sound) - 960
    likeness = [np.corrcoef(back[lag:], sound[: len(back) - lag])[0, 1] for lag in range(300)]
    assert int(np.argmax(likeness)) in DELAYS
    assert max(likeness) > 0.97


def test_whole_frames_leave_at_once() -> None:
    encoder, decoder = Encoder(), Decoder()
    assert [len(decoder.push(encoder.push(frame))) for frame in pieces(chirp(0.8), FRAME)] == [FRAME] * 10


def test_a_stream_may_be_cut_anywhere() -> None:
    encoder, whole, cut = Encoder(), Decoder(), Decoder()
    ogg = b"".join(encoder.push(frame) for frame in pieces(chirp(0.8), FRAME))
    bytewise = [cut.push(ogg[at : at + 1]) for at in range(len(ogg))]
    assert np.array_equal(np.concatenate(bytewise), whole.push(ogg))


def test_streams_do_not_mix() -> None:
    sound = chirp(0.8)
    alone = through(sound, FRAME)
    others = [(Encoder(), Decoder()) for _ in range(4)]
    encoder, decoder = Encoder(), Decoder()
    back = []
    for frame in pieces(sound, FRAME):
        back.append(decoder.push(encoder.push(frame)))
        for its_encoder, its_decoder in others:
            its_decoder.push(its_encoder.push(-frame))
    assert np.array_equal(np.concatenate(back), alone)


def test_stereo_and_a_missing_header_are_heard_all_the_same() -> None:
    stereo = bytes([31 << 3 | 4]) + bytes(100)
    assert len(Decoder().push(HEAD + page([stereo] * 2))) == 960
    assert len(Decoder().push(page([CODED + bytes(60)]))) == 480


@pytest.mark.parametrize(
    "bad",
    [
        b"x",
        b"Ogg!",
        bytes(1000),
        b"OggS" * 100,
        page([CODED + bytes(60)], version=1),
        page([CODED + bytes(60)], flags=1),
        struct.pack("<4sBBqIIIBB", b"OggS", 0, 0, 0, 1, 2, 0, 1, 255) + CODED + bytes(254),
        page([b""]),
        page([b"\xff"]),
        page([bytes([31 << 3 | 3, 0])]),
        page([bytes([31 << 3 | 3, 63])]),
        page([bytes([31 << 3 | 3, 6, 1, 2])]),
        page([bytes([3 << 3])] * 17),
    ],
    ids=[
        *("one byte", "almost Ogg", "zeros", "only the magic", "version", "continued", "unfinished", "empty packet"),
        *("half a packet", "no frames", "too many frames", "cut packet", "more than a second"),
    ],
)
def test_what_is_no_live_opus_raises_one_error_that_says_so(bad: bytes) -> None:
    decoder = Decoder()
    decoder.push(HEAD)
    with pytest.raises(ValueError, match=r"no Opus in Ogg: .{8}"):
        decoder.push(bad)


def test_a_few_bytes_are_never_made_into_minutes_of_sound() -> None:
    """A packet of one byte stands for 60 ms: 250 of them in a page are 15 s."""
    with pytest.raises(ValueError, match=r"15\.0 s of sound at once"):
        Decoder().push(HEAD + page([bytes([3 << 3])] * 250))
    with pytest.raises(ValueError, match="of sound at once"):
        Decoder().push(HEAD + page([bytes([3 << 3])] * 16) * 2)


def sound_in(parts: Iterable[bytes]) -> PCM:
    """What a decoder makes of a stream; nothing, if it says that this is none."""
    decoder = Decoder()
    try:
        return np.concatenate([decoder.push(part) for part in parts])
    except ValueError:
        return np.zeros(0, np.float32)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_stream_raises_or_gives_no_more_than_it_may(data: st.DataObject) -> None:
    encoder = Encoder()
    ogg = bytearray(b"".join(encoder.push(frame) for frame in pieces(chirp(0.4), FRAME)))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(ogg) - 1), st.integers(0, 255)), max_size=20)):
        ogg[at] = byte
    assert len(sound_in(bytes(ogg[at : at + 400]) for at in range(0, len(ogg), 400))) <= RATE


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_any_packets_raise_or_give_no_more_than_a_second(packets: list[bytes]) -> None:
    assert len(sound_in([HEAD, page(packets)])) <= RATE


def test_without_the_package_the_remedy_is_named() -> None:
    code = (
        "import sys; sys.modules['sphn'] = None\n"
        "from voice_bridge.codecs import opus\n"
        "try: opus.Encoder()\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'voice-bridge[opus]'" in said
