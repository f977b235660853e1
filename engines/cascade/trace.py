"""When each step of an answer was done, for finding out where its time goes: a JSON line a turn, without any words.

Every figure is in milliseconds from the end of the caller's last sound: `heard` when the ear had written it down,
`decided` when it was taken for the end of the turn, `recalled` when memory had answered or was waited for no more,
`thought` when there was a sentence to speak, `spoken` when there was sound of it, `first` when that was sent.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..base import RATE


@dataclass
class Times:
    """Seconds on the monotonic clock, 0 for what has not happened."""

    ended: float
    heard: float
    decided: float
    recalled: float = 0.0
    thought: float = 0.0
    spoken: float = 0.0
    first: float = 0.0

    @classmethod
    def of(cls, silent: int, heard: float) -> Times:
        """Of a turn that is decided now, so many samples after its end."""
        now = time.monotonic()
        return cls(now - silent / RATE, heard, now)

    def mark(self, step: str) -> None:
        """A step is done, if it was not before."""
        if not getattr(self, step):
            setattr(self, step, time.monotonic())


class Trace:
    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._path.touch()  # so that a path that cannot be written is told of at the start

    def write(self, times: Times) -> None:
        steps = {step: round(1000 * (at - times.ended)) for step, at in asdict(times).items() if at and step != "ended"}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(steps) + "\n")
