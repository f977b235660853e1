"""What a conversation arrives on: one interface over every wire, without sockets and without a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .notes import Note


class ProtocolError(Exception):
    """The peer broke the protocol. Its call ends or the message is left out; nobody else notices."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stream is open. `call` is the peer's own name for it, `parameters` what came with it."""

    call: str
    stream: str
    parameters: dict[str, str] = field(repr=False)
    persona: str | None = field(default=None, repr=False)
    """Who the agent is to be, if the peer has a say in that."""


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


@dataclass(frozen=True, slots=True)
class Say:
    text: str = field(repr=False)
    interruptible: bool


@dataclass(frozen=True, slots=True)
class Inject:
    """Let the model know `context`; in a way and for a turn, as engines know them."""

    context: str = field(repr=False)
    how: str = "silent"
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Let nothing that was injected, or is known of the caller, be given to the model again."""


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


class Out(NamedTuple):
    """One message for the wire."""

    data: bytes
    text: bool = True

    def __repr__(self) -> str:
        return f"Out({len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class Reply:
    """The line itself has this to answer."""

    out: Out


In: TypeAlias = Started | Heard | Digit | Played | Stopped | Say | Inject | Cancel | Forget | Reply


class Line(Protocol):
    name: str
    rate: int
    start_limit: float
    """Seconds within which a stream must start."""
    by_carrier: bool
    """Whether a carrier stands behind it, that ends and transfers its calls."""

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

    def tell(self, note: Note) -> Out | None:
        """Tell the peer, if it can read."""
