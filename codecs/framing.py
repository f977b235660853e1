"""Chunks of any size in, whole frames of 80 ms out, on the sender's own clock.

A line's audio arrives in chunks stamped with the sender's clock. What is missing becomes silence of exactly
its length, what comes twice or after its time was filled is dropped and counted, so that the frames that
come out never drift from the clock that went in.
"""

from __future__ import annotations

RATE = 24_000
FRAME = 1920  # samples of 24 kHz in the 80 ms that the model steps in
FRAME_SECONDS = FRAME / RATE

TOLERANCE = 0.010  # seconds: stamps are whole milliseconds and jitter by one or two; half a chunk is a real hole
MAX_GAP = 1.0  # seconds: a longer jump with no time passed is a clock that was set, not sound that was lost
STALL = 0.240  # seconds without a chunk after which silence is fed, so that the model goes on hearing time pass
DEAD = 5.0  # seconds without a chunk: live audio never pauses, so the far end is gone
REPEATS = 10  # chunks in a row from before what we have (200 ms): the sender's clock was set back


class Framer:
    """Cuts one line's audio into frames.

    `rate` is the line's, `width` the bytes of one of its samples, `silence` that sample when nothing is heard.
    Frames come out as the line's bytes, with the 24 kHz clock of their first sample. `dead` is after how many
    seconds without a chunk the far end must be gone; silence is fed that long.
    """

    def __init__(self, rate: int, width: int, silence: bytes, dead: float = DEAD) -> None:
        self.rate = rate
        self.gap_samples = 0
        self.late_samples = 0
        self._width = width
        self._silence = silence
        self._dead = dead
        self._frame_bytes = FRAME * rate // RATE * width
        self._tolerance = int(TOLERANCE * rate)
        self._max_gap = int(MAX_GAP * rate)
        self._buffer = bytearray()
        self._next = 0  # our clock, in the line's samples, at the end of the buffer
        self._offset: int | None = None  # what to add to the sender's clock to get ours
        self._heard_to = 0  # our clock at the end of the last sound from the sender itself
        self._repeats = 0
        self._heard_when: float | None = None
        self._stalled = 0  # samples of silence fed since then

    def begin(self, now: float) -> None:
        """The stream is open: from now on chunks are due."""
        self._heard_when = now

    def push(self, data: bytes, at: int | None, now: float) -> None:
        """Take a chunk that began at `at` on the sender's clock, in the line's samples; None follows the last."""
        if self._heard_when is not None and now - self._heard_when >= STALL:
            self.fill_stall(now)  # who looks after us may look too late
        self._heard_when = now
        self._stalled = 0
        count = len(data) // self._width
        if at is not None:
            if self._offset is None:
                self._offset = self._next - at
            ahead = at + self._offset - self._next
            if ahead > self._tolerance:
                self._gap(ahead)
            elif ahead < -self._tolerance:
                data = self._late(data, count, at, -ahead)
                count = len(data) // self._width
                if not count:
                    return
        self._repeats = 0
        self._buffer += data[: count * self._width]
        self._next += count
        self._heard_to = self._next

    def fill_stall(self, now: float) -> None:
        """Put in the silence that is due because no chunk has come for `STALL`, a frame at a time."""
        quiet = 0.0 if self._heard_when is None else min(now - self._heard_when, self._dead)
        if quiet < STALL:
            return
        frames = int((quiet - STALL) / FRAME_SECONDS) + 1
        owed = frames * FRAME * self.rate // RATE
        self._fill(owed - self._stalled)
        self._stalled = owed

    def dead(self, now: float) -> bool:
        return self._heard_when is not None and now - self._heard_when > self._dead

    def _fill(self, samples: int) -> None:
        self._buffer += self._silence * samples
        self._next += samples
        self.gap_samples += samples

    def pop(self) -> tuple[bytes, int] | None:
        """The next whole frame and the 24 kHz clock of its first sample."""
        if len(self._buffer) < self._frame_bytes:
            return None
        start = self._next - len(self._buffer) // self._width
        frame = bytes(self._buffer[: self._frame_bytes])
        del self._buffer[: self._frame_bytes]
        return frame, start * RATE // self.rate

    def _gap(self, ahead: int) -> None:
        if ahead > self._max_gap:
            assert self._offset is not None
            self._offset -= ahead - self._max_gap
            ahead = self._max_gap
        self._fill(ahead)

    def _late(self, data: bytes, count: int, at: int, behind: int) -> bytes:
        """What of a chunk that lies behind our clock is still of use."""
        if self._next - behind < self._heard_to - self._tolerance:
            self._repeats += 1
            if self._repeats >= REPEATS:
                self._offset = self._next - at
                return data
        dropped = min(count, behind)
        self.late_samples += dropped
        return data[dropped * self._width :]
