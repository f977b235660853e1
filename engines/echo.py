"""The test line: says back what it hears, one frame later. It takes every step that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .base import OPENING, Event, Injected, Opening, Said, Sound, Words

STEP = 0.00002  # seconds a slot; a copy of a frame


class EchoCore:
    def __init__(self, slots: int) -> None:
        self._now = [0] * slots
        self._events: list[tuple[int, Event]] = []

    def open(self, slot: int, opening: Opening) -> None:
        self._now[slot] = 0
        if opening.known:
            self._events.append((slot, Injected(OPENING)))

    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None:
        """The test line has no voice: the words are reported as said, and nothing is heard."""
        now = self._now[slot]
        self._events.append((slot, Words(id, "agent", text, now, now, final=True, forced=True)))
        self._events.append((slot, Said(id, now)))

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        """The test line does not think: it reports context as taken, and goes on as before."""
        self._events.append((slot, Injected(id)))

    def cancel(self, slot: int, id: int) -> None: ...
    def forget(self, slot: int) -> None: ...
    def played(self, slot: int, at: int) -> None: ...
    def digit(self, slot: int, digit: str) -> None: ...

    def close(self, slot: int) -> None:
        self._events = [said for said in self._events if said[0] != slot]  # the next call there must not hear it

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        for slot, now in zip(slots, at, strict=True):
            self._now[slot] = now
        return [(slot, Sound(frame, now)) for slot, frame, now in zip(slots, frames, at, strict=True)]

    def collect(self, pending: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
        events, self._events = self._events, []
        return events + pending

    def work(self, budget: float) -> bool:
        return False

    def step_time(self, n: int) -> float:
        return STEP * n

    def device_memory(self) -> int:
        return 0


def core(slots: int, progress: Callable[[str], None]) -> EchoCore:
    return EchoCore(slots)
