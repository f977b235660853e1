"""What Twilio has been sent and has not played yet: a buffer turned by a 20 ms tick, with marks and clear."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .protocol import CHUNK

SILENCE = b"\xff" * CHUNK  # mu-law for nothing


@dataclass(frozen=True)
class Gap:
    """A stretch in which the caller heard nothing because the buffer had run dry, in samples of 8 kHz."""

    at: int
    length: int


class Playout:
    """Twilio's playout buffer.

    A gap is counted when sound follows it, for only then had the buffer run dry; silence that a `clear` asked
    for, or that comes before the first sound or after the last, is none.
    """

    def __init__(self) -> None:
        self.gaps: list[Gap] = []
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()  # how many bytes must have left, and the mark's name
        self._received = 0  # bytes put in
        self._taken = 0  # bytes taken out, played or cleared
        self._heard = 0  # bytes whose last sample the caller has heard
        self._now = 0  # samples since the first tick
        self._sounding = False
        self._dry: int | None = None  # since when nothing comes, while sound had been coming

    @property
    def buffered(self) -> int:
        """Samples not yet taken for playing."""
        return len(self._buffer)

    def add(self, audio: bytes) -> None:
        self._buffer += audio
        self._received += len(audio)

    def mark(self, name: str) -> bool:
        """Put a mark behind what is buffered; True when nothing is, so that it goes back at once."""
        if self._received == self._heard:
            return True
        self._marks.append((self._received, name))
        return False

    def clear(self) -> list[str]:
        """Throw away what is buffered; the marks that go back for it."""
        self._buffer.clear()
        self._taken = self._received
        self._sounding, self._dry = False, None
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def tick(self) -> tuple[bytes, list[str]]:
        """The next 20 ms for the ear, and the marks reached by the 20 ms that have just been heard."""
        self._heard = self._taken
        reached = []
        while self._marks and self._marks[0][0] <= self._heard:
            reached.append(self._marks.popleft()[1])
        chunk = bytes(self._buffer[:CHUNK])
        del self._buffer[:CHUNK]
        self._taken += len(chunk)
        if chunk:
            self._sounds()
        if len(chunk) < CHUNK:
            if self._sounding and self._dry is None:
                self._dry = self._now + len(chunk)
            chunk += SILENCE[len(chunk) :]
        self._now += CHUNK
        return chunk, reached

    def _sounds(self) -> None:
        self._sounding = True
        if self._dry is not None:
            self.gaps.append(Gap(self._dry, self._now - self._dry))
            self._dry = None
