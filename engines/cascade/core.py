"""The cascade: ears, wits and a mouth in place of a speech model, for machines that Moshi is too large for.

The same frames in and out as any other engine. What takes time is done beside the steps: the ear decodes on threads of
its own, the wits think and the mouth is fed on another, and the mouth's voice is a process.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import Event, Opening, Sound
from ..ears.base import EarEvent
from ..ears.moonshine import Moonshine
from ..mouths.base import Voice
from ..wits.base import Wits
from .brain import Brain
from .party import Party
from .trace import Trace

USUAL = 0.0005  # seconds of a step for each slot, before it is measured
CREEP = 0.02  # share of a step's time that is taken for the usual one: a hiccup is not

Posted = Callable[[], Any]


class CascadeCore:
    def __init__(
        self,
        slots: int,
        wits: Wits,
        voice: Voice,
        listen: Callable[[Callable[[int, EarEvent], None]], Moonshine],
        trace: Trace | None = None,
    ) -> None:
        """`listen` makes the ear, which is given where to tell what it hears. Returns when all parts are warm."""
        self._parties: dict[int, Party] = {}
        self._inbox: queue.SimpleQueue[Posted] = queue.SimpleQueue()
        self._trace = trace
        self._slot_seconds = USUAL
        self._ear = listen(self._told)
        self._brain = Brain(wits, voice, self._inbox.put)
        self._brain.start()

    def open(self, slot: int, opening: Opening) -> None:
        self._ear.open(slot)
        self._parties[slot] = Party(slot, self._ear, self._brain, opening, self._trace)

    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None:
        self._parties[slot].say(id, text, interruptible)

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        """However it is asked for, the wits read it."""
        self._parties[slot].inject(id, context, turn)

    def cancel(self, slot: int, id: int) -> None:
        self._parties[slot].cancel(id)

    def forget(self, slot: int) -> None:
        self._parties[slot].forget()

    def played(self, slot: int, at: int) -> None:
        self._parties[slot].played(at)

    def digit(self, slot: int, digit: str) -> None: ...

    def close(self, slot: int) -> None:
        self._ear.close(slot)
        self._parties.pop(slot).close()

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        began = time.monotonic()
        for slot, frame, now in zip(slots, frames, at, strict=True):
            self._parties[slot].hear(frame, now)
        self._read()
        said: list[tuple[int, Event]] = []
        for slot, now in zip(slots, at, strict=True):
            sound = Sound(self._parties[slot].reply(now), now)
            said += [*self._events(slot), (slot, sound)]
        self._slot_seconds += CREEP * ((time.monotonic() - began) / len(slots) - self._slot_seconds)
        return said

    def collect(self, pending: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
        return pending

    def work(self, budget: float) -> bool:
        """There is none: what takes time is done on other threads."""
        return False

    def step_time(self, n: int) -> float:
        return self._slot_seconds * n

    def device_memory(self) -> int:
        return 0

    def stop(self) -> None:
        """End every thread and process of it; for whoever has it in a process that goes on."""
        self._ear.stop()
        self._brain.stop()

    def _told(self, slot: int, event: EarEvent) -> None:
        """Called on the ear's threads."""
        if party := self._parties.get(slot):
            self._inbox.put(partial(party.heard, event))

    def _read(self) -> None:
        """Do what the other threads have put into the inbox."""
        while not self._inbox.empty():
            self._inbox.get_nowait()()

    def _events(self, slot: int) -> list[tuple[int, Event]]:
        party = self._parties[slot]
        events, party.events = party.events, []
        return [(slot, event) for event in events]
