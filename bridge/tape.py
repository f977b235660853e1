"""The recording of one call: both sides laid where the caller heard them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..codecs.framing import RATE
from .observe.logs import Logger
from .observe.recording import Recording
from .playout import Playout

CLOSE = 5.0  # seconds a disk may take for the last of a recording


class Tape:
    """Without a folder it does nothing. `origin` is always when the caller spoke sample 0, by the loop's clock."""

    def __init__(self, folder: Path | None, call: str, rate: int, playout: Playout, log: Logger) -> None:
        self.path = str(folder / f"{_file_name(call)}.wav") if folder else None
        self._rate = rate
        self._playout = playout
        self._log = log
        self._recording = Recording(self.path, rate, on_error=self._failed) if self.path else None
        self._to = 0  # where the agent's sound ends in it
        self._breaks = 0  # of the playout, when that was looked up

    def caller(self, pcm: NDArray[np.int16], at: int) -> None:
        """One frame of the caller, which began at `at` of 24 kHz."""
        if self._recording:
            self._recording.caller(pcm, at * self._rate // RATE)

    def agent(self, pcm: NDArray[np.int16], now: float, origin: float) -> None:
        """Lay our sound where the caller hears it; in one piece, but for a gap that the caller heard too."""
        if self._recording:
            if self._breaks != self._playout.breaks:
                self._breaks = self._playout.breaks
                self._to = max(0, self._clock(now + self._playout.lead(now), origin) - len(pcm))
            self._recording.agent(pcm, self._to)
            self._to += len(pcm)

    def void_agent(self, now: float, origin: float) -> None:
        """What the caller has not heard yet he will not hear."""
        if self._recording:
            self._recording.void_agent(self._clock(now, origin))

    async def close(self) -> None:
        if self._recording:
            try:
                async with asyncio.timeout(CLOSE):
                    await self._recording.close()
            except TimeoutError:
                self._log.warning("the disk is slow; the recording is finished behind the call")

    def _clock(self, when: float, origin: float) -> int:
        return max(0, round((when - origin) * self._rate))

    def _failed(self, error: Exception) -> None:
        self._log.error("recording stopped, the call goes on", error=str(error))


def _file_name(call: str) -> str:
    """A peer's own name for its call, made harmless."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in call)[:64]
