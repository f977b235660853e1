"""Recordings: a call as a stereo WAV file, the caller left and the agent right.

Sound is laid down by its position on the call's clock, so both sides may come late or ahead of it. One thread
writes for all calls: the event loop only notes what came and hands it over once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...codecs import wav

HOLD = 5  # seconds behind the caller's clock until sound is final: replies and their voiding come within it
WINDOW = 30  # seconds kept in memory at most, when the agent's sound lies far ahead of the caller's
BEHIND = 30  # seconds that may wait for a slow disk before the recording gives up
MODE = 0o640  # what a caller said is not for every user of the machine

CALLER, AGENT = 0, 1
_Op: TypeAlias = tuple[int, int, NDArray[np.int16] | None]  # side, position, sound; None voids from there on

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recordings")


class Recording:
    """Records one call to `path`; to be used on the event loop.

    When the disk fails, `on_error` is called once, on the event loop, and everything after that is ignored;
    the file holds what was written before.
    """

    def __init__(self, path: str, rate: int = 8000, *, on_error: Callable[[Exception], None]) -> None:
        self.path = path
        self._second = 2 * rate  # samples of both sides
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._tape = _Tape(path, rate)
        self._ops: list[_Op] = []
        self._waiting = 0  # samples in `_ops`
        self._stopped = False
        self._closing = False
        self._reported = False
        self._job = _writer.submit(self._write, [])

    def caller(self, pcm: NDArray[np.int16], at: int) -> None:
        """The caller's sound that begins at sample `at` of the call."""
        self._lay(CALLER, at, pcm)

    def agent(self, pcm: NDArray[np.int16], at: int) -> None:
        """The agent's sound that the caller hears from sample `at` of the call on."""
        self._lay(AGENT, at, pcm)

    def void_agent(self, at: int) -> None:
        """The agent's sound so far is not heard from sample `at` on."""
        if not (self._stopped or self._closing):
            self._ops.append((AGENT, at, None))

    async def close(self) -> None:
        """Finish the file; returns when it is on disk."""
        if not self._closing:
            self._closing = True
            self._job = _writer.submit(self._write, self._ops, True)
            self._ops = []
        await asyncio.shield(asyncio.wrap_future(self._job))

    def _lay(self, side: int, at: int, pcm: NDArray[np.int16]) -> None:
        if self._stopped or self._closing:
            return
        self._ops.append((side, at, pcm.copy()))
        self._waiting += len(pcm)
        if self._waiting < self._second:
            return
        if self._job.done():
            ops, self._ops, self._waiting = self._ops, [], 0
            self._job = _writer.submit(self._write, ops)
        elif self._waiting > BEHIND * self._second:
            self._ops = []
            self._fail(OSError(f"the disk of {self.path} is too slow for the call"))

    def _write(self, ops: list[_Op], last: bool = False) -> None:
        """In the writer thread."""
        try:
            if not self._stopped:
                self._tape.write(ops)
            if last:
                self._tape.close()
        except Exception as error:
            self._tape.abandon()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """In either thread."""
        self._stopped = True
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._report, error)

    def _report(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            self._on_error(error)


class _Tape:
    """The writer thread's side of a recording: the seconds that may still change, and the file."""

    def __init__(self, path: str, rate: int) -> None:
        self._path = path
        self._rate = rate
        self._wav: wav.Writer | None = None
        self._window = np.zeros((WINDOW * rate, 2), np.int16)  # pages that were never written take no memory
        self._start = 0  # position of the window's first sample; what lies before is in the file
        self._ends = [0, 0]  # where each side's sound ends

    def write(self, ops: list[_Op]) -> None:
        if self._wav is None:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            Path(self._path).touch(MODE)
            self._wav = wav.Writer(self._path, self._rate, 2)
        for side, at, pcm in ops:
            if pcm is None:
                self._void(side, at)
            else:
                self._lay(side, at, pcm)
        self._settle(self._ends[CALLER] - HOLD * self._rate)
        self._wav.flush()

    def close(self) -> None:
        if self._wav is not None:
            self._settle(max(self._ends))
            self._wav.close()

    def abandon(self) -> None:
        """Leave the file as it is."""
        if self._wav is not None:
            with suppress(Exception):
                self._wav.close()
            self._wav = None

    def _lay(self, side: int, at: int, pcm: NDArray[np.int16]) -> None:
        end = at + len(pcm)
        self._settle(end - len(self._window))
        begin = max(at, self._start)
        if begin < end:
            self._window[begin - self._start : end - self._start, side] = pcm[begin - at :]
            self._ends[side] = max(self._ends[side], end)

    def _void(self, side: int, at: int) -> None:
        begin = max(at, self._start)
        if begin < self._ends[side]:
            self._window[begin - self._start : self._ends[side] - self._start, side] = 0
            self._ends[side] = begin

    def _settle(self, upto: int) -> None:
        """What lies before `upto` is final: move it from the window to the file."""
        while self._start < upto:
            assert self._wav is not None
            count = min(upto - self._start, len(self._window))
            self._wav.write(self._window[:count])
            used = max(max(self._ends) - self._start, 0)
            kept = max(used - count, 0)
            self._window[:kept] = self._window[count : count + kept]
            self._window[kept:used] = 0
            self._start += count
