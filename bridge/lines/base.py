"""What a conversation arrives on: one interface over every wire, without sockets and without a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray


class ProtocolError(Exception):
    """The peer broke the protocol. Its call ends or the message is left out; nobody else notices."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stream is open. `call` is the peer's own name for it, `parameters` what came with it."""

    call: str
    stream: str
    parameters: dict[str, str] = field(repr=False)


@dataclass(slots=True)
class Heard:
    """One frame of the caller: `frame` for the engine, `pcm` the same at the line's own rate."""

    frame: NDArray[np.float32]
    at: int
    """24 kHz samples on the caller's clock at the start of the frame."""
    pcm: NDArray[np.int16]

    def __repr__(self) -> str:
        return f"Heard(at={self.at})"


@dataclass(frozen=True, slots=True)
class Digit:
    digit: str


@dataclass(frozen=True, slots=True)
class Played:
    """The peer has played our sound up to this position, in line samples since the last flush."""

    position: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The peer has ended the call."""


In: TypeAlias = Started | Heard | Digit | Played | Stopped


class Out(NamedTuple):
    """One message for the wire."""

    data: bytes
    text: bool = True

    def __repr__(self) -> str:
        return f"Out({len(self.data)} bytes)"


class Line(Protocol):
    name: str
    rate: int

    @property
    def gap_samples(self) -> int:
        """Silence put in for sound that never came, in line samples."""

    @property
    def late_samples(self) -> int:
        """Sound dropped because its time had been filled, in line samples."""

    def receive(self, data: str | bytes, now: float) -> list[In]:
        """Take one message; raises `ProtocolError`."""

    def fill(self, now: float) -> list[In]:
        """The frames of silence that are due because nothing has come for too long."""

    def dead(self, now: float) -> bool:
        """Nothing has come for so long that the peer must be gone."""

    def render(self, frame: NDArray[np.float32]) -> NDArray[np.int16]:
        """One frame of the agent at the line's own rate."""

    def sound(self, pcm: NDArray[np.int16]) -> Out: ...
    def mark(self, position: int) -> Out | None:
        """Ask to be told when our sound has been played up to `position` line samples since the last flush."""

    def flush(self) -> Out | None:
        """Void what the peer has not played yet; positions begin at 0 again."""
