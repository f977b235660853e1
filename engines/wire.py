"""What goes over the socketpair between the daemon and an engine process: a header of 24 bytes, then bytes.

Frames and sound are raw float32; everything else is JSON.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple, TypeVar

import msgspec

from .base import Opening, TextEvent

HEADER = struct.Struct("<IIqq")  # payload bytes, kind, conversation, samples of the caller's clock
LIMIT = 1 << 24  # bytes; a longer message means that the stream is out of step


Message = TypeVar("Message", bound=msgspec.Struct)


class Kind(IntEnum):
    FRAME = 1
    SOUND = 2
    TELL = 3  # daemon to engine: something for one conversation
    EVENT = 4  # engine to daemon: something of one conversation
    INIT = 5
    READY = 6
    FAILED = 7
    HEALTH = 8  # engine to daemon, on every PING
    PING = 9
    PROGRESS = 10  # engine to daemon, while it loads: a line of text


class Init(msgspec.Struct, frozen=True):
    core: str
    """`module:function` or `file.py:function`, called with `slots`, `progress` and `options`; returns a Core."""
    options: dict[str, str | int | float | bool]
    slots: int
    environment: dict[str, str] = {}
    """Variables set before the core is imported."""


class Health(msgspec.Struct, frozen=True):
    offered: int
    """Slots that this machine carries at the step time measured now; 0 when it does not carry one."""
    step_seconds: float
    """What steps have taken of late."""
    expected: float
    """Seconds that a step of all offered slots, or else of one, is expected to take."""
    queued: int
    dropped: int
    device_memory: int = 0


class Tell(msgspec.Struct, frozen=True, tag_field="tell", omit_defaults=True):
    pass


class Open(Tell, frozen=True, tag="open"):
    opening: Opening


class Say(Tell, frozen=True, tag="say"):
    id: int
    text: str
    interruptible: bool


class Inject(Tell, frozen=True, tag="inject"):
    id: int
    context: str
    how: str
    turn: int | None = None


class Cancel(Tell, frozen=True, tag="cancel"):
    id: int


class Forget(Tell, frozen=True, tag="forget"):
    pass


class Played(Tell, frozen=True, tag="played"):
    at: int


class Digit(Tell, frozen=True, tag="digit"):
    digit: str


class Close(Tell, frozen=True, tag="close"):
    pass


AnyTell = Open | Say | Inject | Cancel | Forget | Played | Digit | Close

encode = msgspec.json.Encoder().encode
decode_tell: msgspec.json.Decoder[AnyTell] = msgspec.json.Decoder(AnyTell)
decode_event: msgspec.json.Decoder[TextEvent] = msgspec.json.Decoder(TextEvent)


def pack(kind: Kind, conversation: int = 0, at: int = 0, payload: bytes | memoryview = b"") -> bytes:
    return HEADER.pack(len(payload), kind, conversation, at) + payload


def pack_struct(kind: Kind, value: msgspec.Struct, conversation: int = 0) -> bytes:
    return pack(kind, conversation, 0, encode(value))


def first(sock: socket.socket, kind: type[Message]) -> Message:
    """The first message to a process of ours; waits for it."""
    length = HEADER.unpack(sock.recv(HEADER.size, socket.MSG_WAITALL))[0]
    return msgspec.json.decode(sock.recv(length, socket.MSG_WAITALL), type=kind)


class Packet(NamedTuple):
    kind: int
    conversation: int
    at: int
    payload: bytes


class Unpacker:
    """Bytes in any pieces to whole messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Packet]:
        if self._rest:
            data = self._rest + data
        start, size = 0, HEADER.size
        while len(data) - start >= size:
            length, kind, conversation, at = HEADER.unpack_from(data, start)
            if length > LIMIT:
                raise ValueError(f"a message of {length} bytes between daemon and engine")
            end = start + size + length
            if end > len(data):
                break
            yield Packet(kind, conversation, at, data[start + size : end])
            start = end
        self._rest = data[start:]
