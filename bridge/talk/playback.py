"""What has come from the bridge and has not been heard yet."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

LEAST = 0.020  # seconds in hand; below one block of the device every late packet is heard
FIRST = 0.040  # what a quiet network needs; the bridge puts as much in front of its first sound
MOST = 0.300  # more would be felt as slowness, worse than a rare gap
STEP = 0.020  # by which an underrun raises what is kept in hand, and calm lowers it
CALM = 10.0  # seconds without an underrun after which less is tried
WATCH = 2.0  # seconds over which the least that was in hand tells what is too much
QUIET = 64  # of 32768 (-54 dBFS): what is below may be left out unheard

Pcm = NDArray[np.int16]


class Playback:
    """A buffer that adapts: an underrun raises what is kept in hand, calm lowers it, in the agent's pauses.

    It is filled on one thread and emptied on another. Times are counted in what is taken, so it has no clock.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.aim = FIRST
        self.underruns = 0
        self._lock = threading.Lock()
        self._chunks: deque[Pcm] = deque()
        self._held = 0  # samples in them
        self._position = 0
        self._reached = 0
        self._now = 0  # samples taken, since the beginning
        self._sounding = False  # sound has come since the last flush
        self._dry_at: int | None = None  # since when there has been none
        self._hold_until = 0  # nothing is played before, so that there is something in hand again
        self._calm_since = 0
        self._least: int | None = None  # samples in hand, while this was watched
        self._watched_at = 0

    @property
    def held(self) -> float:
        """Seconds that have come and have not been taken."""
        return self._held / self.rate

    @property
    def position(self) -> int:
        """Samples taken or left out since the last flush; silence of our own is not counted."""
        return self._position

    @property
    def reached(self) -> int:
        """The position at which the last piece ended that was taken whole, as it was put in."""
        return self._reached

    def put(self, pcm: Pcm) -> None:
        if not len(pcm):
            return
        with self._lock:
            if self._dry_at is not None:
                self._end_of_gap(self._now - self._dry_at)
            self._sounding = True
            self._chunks.append(pcm)
            self._held += len(pcm)

    def take(self, count: int) -> Pcm:
        """The next `count` samples for the ear, with silence where there are none."""
        with self._lock:
            self._relax(count)
            played = self._pop(count) if self._now >= self._hold_until else np.zeros(0, np.int16)
            self._now += count
            if len(played) < count and self._sounding and not self._held and self._dry_at is None:
                self._dry_at = self._now - (count - len(played))
            self._least = self._held if self._least is None else min(self._least, self._held)
        return np.pad(played, (0, count - len(played)))

    def flush(self) -> None:
        """Throw away what has not been played; positions begin at 0 again."""
        with self._lock:
            self._chunks.clear()
            self._held = self._position = self._reached = self._hold_until = 0
            self._sounding, self._dry_at, self._least = False, None, None
            self._watched_at = self._now

    def _end_of_gap(self, late: int) -> None:
        """Sound comes, and there had been none for `late` samples. A gap that no aim could bridge teaches nothing."""
        self._dry_at = None
        self.underruns += 1
        self._calm_since = self._watched_at = self._now
        self._least = None
        if late <= MOST * self.rate:
            self.aim = min(MOST, self.aim + STEP)
            # Sound that came late is itself in hand for what follows in time.
            self._hold_until = self._now + max(0, round(self.aim * self.rate) - late)

    def _relax(self, count: int) -> None:
        """Try less after a while without a gap; leave out a silent block where more is in hand than is wanted."""
        if self._now - self._calm_since > CALM * self.rate:
            self.aim = max(LEAST, self.aim - STEP)
            self._calm_since = self._now
        if self._now - self._watched_at < WATCH * self.rate or self._least is None:
            return
        if self._least < round(self.aim * self.rate) + count:
            self._watched_at, self._least = self._now, None
        elif self._is_quiet(count):
            self._pop(count)
            self._least -= count

    def _is_quiet(self, count: int) -> bool:
        if not self._chunks or len(self._chunks[0]) < count:
            return False
        coming = self._chunks[0][:count]
        return bool(coming.max() < QUIET and coming.min() > -QUIET)

    def _pop(self, count: int) -> Pcm:
        parts: list[Pcm] = []
        while count and self._chunks:
            chunk = self._chunks.popleft()
            if len(chunk) > count:
                self._chunks.appendleft(chunk[count:])
                chunk = chunk[:count]
                self._position += count
            else:
                self._position += len(chunk)
                self._reached = self._position
            self._held -= len(chunk)
            parts.append(chunk)
            count -= len(chunk)
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
