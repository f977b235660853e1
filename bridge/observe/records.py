"""Call records: one JSON line a call, in a file a day, kept for the operator.

A thread writes them: a slow or full disk costs records, which are counted, and never a call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Full, Queue
from typing import Any

import msgspec

from . import logs
from .metrics import CallStats, Histogram

WAITING = 1000  # records that wait for the disk: minutes of the busiest bridge, a megabyte
CLOSE_SECONDS = 5.0  # how long a stop waits for a disk that hangs
MODE = 0o640  # records hold telephone numbers: they are not for every user of the machine

log = logs.get()


class CallRecord(msgspec.Struct, kw_only=True):
    """What is left of a call. Times are in the unit of the field's name, `started` in UTC."""

    call: str
    line: str
    direction: str
    caller: str
    number: str
    engine: str
    started: datetime
    seconds: float
    end: str
    answered_after: float | None = None
    error: str | None = None
    recording: str | None = None
    frames: int = 0
    gap_fill_ms: int = 0
    dropped_ms: int = 0
    underruns: int = 0
    recoveries: int = 0
    deadline_misses: int = 0
    engine_losses: int = 0
    digits: int = 0
    memories: int = 0
    first_audio_ms: float | None = None
    mouth_to_ear_ms: dict[str, float] | None = None
    frame_ms: dict[str, float] | None = None


def measured(stats: CallStats) -> dict[str, Any]:
    """The fields of a `CallRecord` that a call's counters hold."""
    first = stats.first_audio
    return {
        "frames": stats.frames,
        "gap_fill_ms": stats.gap_fill_samples * 1000 // stats.rate,
        "dropped_ms": (stats.late_samples + stats.dropped_samples) * 1000 // stats.rate,
        "underruns": stats.underruns,
        "recoveries": stats.recoveries,
        "deadline_misses": stats.deadline_misses,
        "engine_losses": stats.engine_losses,
        "digits": stats.digits,
        "first_audio_ms": None if first is None else round(first * 1000, 1),
        "mouth_to_ear_ms": _percentiles(stats.mouth_to_ear, 50, 95),
        "frame_ms": _percentiles(stats.frame_time, 50, 95, 99),
    }


def _percentiles(values: Histogram, *percents: int) -> dict[str, float] | None:
    found = {f"p{percent}": values.quantile(percent / 100) for percent in percents}
    return {name: round(value * 1000, 1) for name, value in found.items() if value is not None} or None


def _utcnow() -> datetime:
    return datetime.now(UTC)


class Records:
    """Appends records to `folder`/calls-YYYY-MM-DD.jsonl. Raises `OSError` when that cannot work."""

    def __init__(self, folder: str, clock: Callable[[], datetime] = _utcnow) -> None:
        self.lost = 0
        self._folder = Path(folder)
        self._clock = clock
        self._queue: Queue[CallRecord | None] = Queue(WAITING)
        self._failing = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(self._open())
        except OSError as error:
            raise OSError(
                f"cannot write call records to {folder!r}: {error.strerror}; name a folder that this user may write to"
            ) from error
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def add(self, record: CallRecord) -> None:
        """Take a record to be written; never waits and never raises."""
        try:
            self._queue.put_nowait(record)
        except Full:
            self.lost += 1

    def close(self) -> None:
        """Write what still waits. Nothing may be added afterwards."""
        with suppress(Full):  # a queue still full after so long is a disk that hangs
            self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._append(msgspec.json.encode(record) + b"\n")
            except OSError as error:
                self.lost += 1
                if not self._failing:
                    log.warning("call records cannot be written", folder=str(self._folder), reason=str(error))
                self._failing = True
            else:
                if self._failing:
                    log.info("call records are written again", lost=self.lost)
                self._failing = False

    def _open(self) -> int:
        path = self._folder / f"calls-{self._clock().astimezone(UTC):%Y-%m-%d}.jsonl"
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, MODE)

    def _append(self, line: bytes) -> None:
        """Add a whole line or nothing. The file is opened each time, so that it may be moved away."""
        file = self._open()
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash left half a line
            try:
                while line:
                    line = line[os.write(file, line) :]
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
