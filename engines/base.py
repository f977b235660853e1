"""What an engine is: the one interface between a call and whatever answers it.

The asyncio side is `Engine` and `Conversation`; the side inside an engine process is `Core`, which takes
a batch of frames at a time. A frame is always 1920 samples of 24 kHz float32, 80 ms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..codecs.framing import FRAME, RATE

Frame: TypeAlias = NDArray[np.float32]
"""1920 samples of 24 kHz sound between -1 and 1."""

Speaker: TypeAlias = Literal["caller", "agent"]

OPENING = 0
"""The id of what an opening says and brings along; those that a conversation gives begin at 1."""

STEP_LIMIT = 0.8 * FRAME / RATE
"""Seconds that a step may take: four fifths of what a frame lasts, the rest is for the unforeseen."""

__all__ = [
    "FRAME",
    "OPENING",
    "RATE",
    "STEP_LIMIT",
    "Busy",
    "CannotStart",
    "Capacity",
    "Conversation",
    "Core",
    "Engine",
    "Event",
    "Frame",
    "Lease",
    "Opening",
    "in_time",
]


def in_time(calls: int, step: Callable[[int], float]) -> bool:
    """Whether so many calls are answered in time, by the seconds that a step of n calls takes.

    A frame that comes when a step has just begun waits for it, and then takes its own: two steps that serve all the
    calls between them must not last longer than a frame.
    """
    alone = step(calls) <= STEP_LIMIT
    return alone and (calls == 1 or step(1) + step(calls - 1) <= FRAME / RATE)


class Opening(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a conversation starts with."""

    call: str = ""
    greeting: str = ""
    persona: str = ""
    seed: int | None = None
    sampling: dict[str, float] = {}
    conditions: dict[str, str] = {}
    known: str = ""
    """What is known of the caller, given to the model behind the persona: `Injected(0)`; `Refused(0)` without room."""
    interruptible: bool = True
    """Whether a caller who speaks up cuts the greeting short."""
    share: float = 0.25
    """How much of the model's context may be given to it in the call, persona apart; what goes beyond is refused."""


class EngineEvent(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True):
    """The base of everything but sound that a conversation reports."""


class Sound:
    """One frame of the agent's voice. `answers` is the caller's clock at the start of the frame it replies to."""

    __slots__ = ("answers", "pcm")

    def __init__(self, pcm: Frame, answers: int) -> None:
        self.pcm = pcm
        self.answers = answers

    def __repr__(self) -> str:
        return f"Sound({len(self.pcm)} samples, answers={self.answers})"


class Words(EngineEvent, frozen=True, tag="words"):
    """An utterance so far, with times in samples of the caller's clock; `forced` when we made the model say it."""

    id: int
    speaker: Speaker
    text: str
    start: int
    end: int
    final: bool
    forced: bool = False


class Turn(EngineEvent, frozen=True, tag="turn"):
    id: int
    speaker: Speaker
    began: int


class Flush(EngineEvent, frozen=True, tag="flush"):
    """What was sent and not yet heard is void: the caller interrupted."""


class Said(EngineEvent, frozen=True, tag="said"):
    id: int
    heard_to: int


class Injected(EngineEvent, frozen=True, tag="injected"):
    id: int


class Refused(EngineEvent, frozen=True, tag="refused"):
    """What was asked for under this id cannot be said, or read, by this engine."""

    id: int


class Cut(EngineEvent, frozen=True, tag="cut"):
    """What was to be said under this id was broken off, or never begun."""

    id: int


class Remember(EngineEvent, frozen=True, tag="remember"):
    text: str


class HangUp(EngineEvent, frozen=True, tag="hang_up"):
    reason: str


class Lost(EngineEvent, frozen=True, tag="lost"):
    """The engine went away under the conversation; a fresh one begins in about `back_in` seconds."""

    back_in: float


class Back(EngineEvent, frozen=True, tag="back"):
    """A fresh conversation has begun after `Lost`."""


class Ended(EngineEvent, frozen=True, tag="ended"):
    """The last event of every conversation, sent exactly once."""

    reason: str


TextEvent: TypeAlias = Words | Turn | Flush | Said | Cut | Injected | Refused | Remember | HangUp | Lost | Back | Ended
"""Every event but sound: small, and carried as JSON between processes."""

Event: TypeAlias = Sound | TextEvent


class Busy(Exception):
    """No slot is free."""


class CannotStart(Exception):
    """The engine cannot start; the message is one line with what is wrong."""


class Capacity(msgspec.Struct, frozen=True):
    offered: int
    """Slots that this machine carries at the step time measured now."""
    reserved: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.offered - self.reserved - self.used)


class Lease(Protocol):
    """A slot promised to a call that has not come yet. It expires by itself; giving it back twice is harmless."""

    @property
    def live(self) -> bool: ...
    def release(self) -> None: ...


class Conversation(Protocol):
    align: int
    """Silent samples to put before the first frame, so that calls fall due together."""
    dropped: int
    """Frames lost on the way in or out because somebody did not keep up."""

    def send(self, frame: Frame, at: int) -> None:
        """Give the model one frame that began at `at` on the caller's clock. Never waits."""

    def played(self, at: int) -> None:
        """The peer has heard our replies up to the one that answers `at`."""

    def digit(self, digit: str) -> None: ...
    def say(self, text: str, *, interruptible: bool = True) -> int: ...
    def inject(self, context: str, *, how: str = "silent", turn: int | None = None) -> int: ...
    def cancel(self, id: int) -> None: ...
    def forget(self) -> None:
        """Let nothing that was injected, or is known of the caller, be given to the model again."""

    def __aiter__(self) -> AsyncIterator[Event]: ...
    async def close(self) -> None: ...


class Engine(Protocol):
    name: str

    async def start(self) -> None:
        """Load and warm up; returns once a real step has run. Raises `CannotStart`."""

    @property
    def ready(self) -> bool: ...
    def capacity(self) -> Capacity: ...
    def reserve(self, ttl: float) -> Lease:
        """Promise a slot for `ttl` seconds, or raise `Busy` at once."""

    async def open(self, opening: Opening, lease: Lease) -> Conversation: ...
    async def stop(self) -> None: ...

    @property
    def restarts(self) -> int: ...
    @property
    def queued(self) -> int:
        """Frames that wait for a step."""

    @property
    def dropped(self) -> int:
        """Frames that were left out because steps did not keep up; it only grows, over restarts too."""

    @property
    def step_seconds(self) -> float:
        """What a step is expected to take when every offered slot is used; 0 while that is not known."""

    @property
    def device_memory(self) -> int:
        """Bytes of a GPU, or of what MLX computes in, that it takes; 0 where it has none, or that is not known."""

    @property
    def trouble(self) -> str:
        """Why no call can come in, in a line: how far it has loaded, or what is too slow. Empty when all is well."""


class Core(Protocol):
    """A model inside the engine process, batch first. No method waits for a network, a thread or a lock."""

    def open(self, slot: int, opening: Opening) -> None: ...
    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None: ...
    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None: ...
    def cancel(self, slot: int, id: int) -> None: ...
    def forget(self, slot: int) -> None: ...
    def played(self, slot: int, at: int) -> None: ...
    def digit(self, slot: int, digit: str) -> None: ...
    def close(self, slot: int) -> None: ...

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> Any:
        """Start one step for `frames` [n, 1920], which began at `at`; returns without waiting for the device."""

    def collect(self, pending: Any) -> list[tuple[int, Event]]:
        """Wait for a launched step; may name slots that were not in its batch."""

    def work(self, budget: float) -> bool:
        """Spend at most `budget` seconds on openings, injections and renewals; False when there is none left."""

    def step_time(self, n: int) -> float:
        """Seconds that a step of `n` slots is expected to take."""

    def device_memory(self) -> int:
        """Bytes that it takes of its device; 0 where it computes in its process's own memory."""
