"""One clock for every call: ticks of 20 ms at absolute times, on one timer."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable

TICK = 0.020
PHASES = 10  # calls fall into ten phases of 2 ms: not all at one instant, yet at most 500 wake-ups a second
STEP = TICK / PHASES
EARLY = 0.001  # event loops keep time in milliseconds; a tick may come this much before its time

Tick = Callable[[float], None]


class Clock:
    """Ticks for calls. Every tick is at `start + n * 20 ms`; what was late is caught up, never moved."""

    def __init__(self) -> None:
        self._phases: dict[int, dict[Tick, int]] = {}  # who ticks in a phase, and from which step on
        self._due: list[int] = []  # a heap of the next step of every phase in use
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return time.monotonic()

    def at(self, when: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), do)

    def join(self, tick: Tick) -> float:
        """Call `tick(due)` every 20 ms from the time that is returned, which is the next free of 2 ms steps."""
        first = math.ceil(self.now() / STEP)
        phase = first % PHASES
        if phase in self._phases:  # where its tick came early, this step is over
            first = max(first, *(step for step in self._due if step % PHASES == phase))
        else:
            self._phases[phase] = {}
            heapq.heappush(self._due, first)
        self._phases[phase][tick] = first
        self._arm()
        return first * STEP

    def leave(self, tick: Tick) -> None:
        for ticks in self._phases.values():
            ticks.pop(tick, None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.at(self._due[0] * STEP, self._run) if self._due else None

    def _run(self) -> None:
        reached = self.now() + EARLY
        while self._due and self._due[0] * STEP <= reached:
            step = self._due[0]
            ticks = self._phases[step % PHASES]
            if not ticks:
                del self._phases[step % PHASES]
                heapq.heappop(self._due)
                continue
            heapq.heapreplace(self._due, step + PHASES)
            for tick, first in tuple(ticks.items()):
                if step >= first:
                    tick(step * STEP)
        self._arm()
