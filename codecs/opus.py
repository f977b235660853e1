"""Opus in Ogg, live: 24 kHz sound of one channel into pages that can be sent at once, and back.

An encoder and a decoder delay sound by 6.5 ms together. The encoder makes pages of 40 ms, so whole frames leave it at
once; of other lengths it holds up to 40 ms back. The decoder holds nothing back. A frame takes the one 1.3 ms and the
other 0.15, on the thread that asks.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .framing import RATE

PCM: TypeAlias = NDArray[np.float32]
"""24 kHz sound between -1 and 1, of any length."""

REMEDY = "Opus needs sphn: `make setup`, or pip install 'voice-bridge[opus]'"
MOST = RATE  # samples in one push: live sound comes in pieces of 20 to 80 ms, and a second takes milliseconds to decode
MAGIC = b"OggS"
PAGE = struct.Struct("<4sBBqIIIB")  # magic, version, flags, position, stream, number, checksum, segments
CONTINUED = 1  # among the flags: the page begins within a packet
FULL = 255  # bytes of a segment that the packet does not end with
HEADERS = (b"OpusHead", b"OpusTags")  # packets that hold no sound
# Samples of one frame by the five bits that begin a packet: SILK, then both, then CELT.
FRAMES = (240, 480, 960, 1440) * 3 + (240, 480) * 2 + (60, 120, 240, 480) * 4
LONGEST = 2880  # samples in one packet: Opus allows 120 ms


def available() -> bool:
    """Whether sound can be encoded and decoded here; if not, `REMEDY` says what to do."""
    return find_spec("sphn") is not None


class Encoder:
    """One stream; its header comes with the first bytes."""

    def __init__(self) -> None:
        self._writer = _sphn().OpusStreamWriter(RATE)

    def push(self, pcm: PCM) -> bytes:
        """What is ready to be sent; empty while less than 40 ms have come."""
        ogg: bytes = self._writer.append_pcm(pcm)
        return ogg


class Decoder:
    """One stream, from its header on. What made it raise ends it."""

    def __init__(self) -> None:
        self._reader = _sphn().OpusStreamReader(RATE)
        self._rest = bytearray()  # of a page that is not whole yet; 64 KB at most

    def push(self, data: bytes) -> PCM:
        """The sound in `data`; empty while a page is not whole. Raises ValueError for what is no live Opus."""
        self._rest += data
        try:
            size = _check(self._rest)
            pages = bytes(self._rest[:size])
            del self._rest[:size]
            pcm: PCM = self._reader.append_bytes(pages)
        except ValueError as error:
            raise ValueError(f"no Opus in Ogg: {error}") from None
        return pcm


def _check(data: bytearray) -> int:
    """How many bytes of `data` are whole pages, which hold no more than one may send at once.

    A few bytes can stand for minutes of sound, and a packet without an end for any amount of memory.
    """
    at = samples = 0
    while at < len(data):
        if data[at : at + len(MAGIC)] != MAGIC[: len(data) - at]:
            raise ValueError("a page does not begin with OggS")
        if len(data) - at < PAGE.size:
            break
        _, version, flags, *_, segments = PAGE.unpack_from(data, at)
        if version or flags & CONTINUED:
            raise ValueError("a page is of another version, or begins within a packet")
        body = at + PAGE.size + segments
        table = data[at + PAGE.size : body]
        end = body + sum(table)
        if len(table) < segments or len(data) < end:
            break
        if table and table[-1] == FULL:
            raise ValueError("a page ends within a packet")
        samples += _samples(data, body, table)
        at = end
    if samples > MOST:
        raise ValueError(f"{samples / RATE:.1f} s of sound at once; at most {MOST / RATE:.0f} s go")
    return at


def _samples(data: bytearray, at: int, table: bytearray) -> int:
    """Samples in the packets of a page whose body begins at `at`."""
    total = size = 0
    for segment in table:
        size += segment
        if segment < FULL:
            total += _packet(data[at : at + size])
            at += size
            size = 0
    return total


def _packet(packet: bytearray) -> int:
    if packet.startswith(HEADERS):
        return 0
    if not packet or (len(packet) == 1 and packet[0] & 3 == 3):
        raise ValueError("a packet ends before its sound begins")
    code = packet[0] & 3
    count = packet[1] & 63 if code == 3 else min(code, 1) + 1
    samples = FRAMES[packet[0] >> 3] * count
    if not 0 < samples <= LONGEST:
        raise ValueError(f"a packet of {samples / RATE * 1000:.0f} ms")
    return samples


def _sphn() -> Any:
    """Imported late: only who speaks Opus needs it."""
    try:
        import sphn
    except ImportError as error:
        raise ImportError(REMEDY) from error
    return sphn
