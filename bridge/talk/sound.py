"""Sound in and out, block by block: from the microphone or a file to the bridge, and to the ear and the recording."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import log10
from pathlib import Path

import numpy as np

from ...codecs import wav
from ..device import BLOCK, Pcm
from .gate import Gate, level
from .playback import Playback

FRAME = 0.080  # seconds sent in one message: what an engine steps by
QUIETEST = -54.0  # dBFS at the lower end of a meter
HISTORY = 400  # blocks (8 s) of levels: as far back as a wide screen shows
LAG = 1.0  # seconds behind which time is let go: the computer slept, and nobody wants that caught up


class Mouth:
    """What is said where there is no microphone: a recording, then silence."""

    def __init__(self, rate: int, path: Path | None = None) -> None:
        self._block = round(BLOCK * rate)
        sound = wav.load(path, rate) if path else np.zeros(0, np.float32)
        self._pcm: Pcm = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
        self._at = 0

    @property
    def finished(self) -> bool:
        return self._at >= len(self._pcm)

    def next(self) -> Pcm:
        block = self._pcm[self._at : self._at + self._block]
        self._at += self._block
        return np.pad(block, (0, self._block - len(block)))


class Recording:
    """Both sides on one clock, as a stereo WAV: what went to the bridge left, what was heard right."""

    def __init__(self, path: Path, rate: int) -> None:
        self._file = wav.Writer(path, rate, 2)
        self._waiting: deque[Pcm] = deque()  # since the last flush; filled on the device's thread, which must not wait

    def add(self, said: Pcm, heard: Pcm) -> None:
        self._waiting.append(np.stack([said, heard], axis=1))

    def flush(self) -> None:
        """Write what has come; a file that cannot be written raises OSError."""
        while self._waiting:
            self._file.write(self._waiting.popleft())
        self._file.flush()

    def close(self) -> None:
        self.flush()
        self._file.close()


class Levels:
    """How loud one side has been, block by block, from 0 (silent) to 1."""

    def __init__(self) -> None:
        self.history: deque[float] = deque([0.0] * HISTORY, maxlen=HISTORY)

    @property
    def now(self) -> float:
        """The loudest of the last 100 ms."""
        return max(self.history[-number] for number in range(1, 6))

    def add(self, pcm: Pcm) -> None:
        loud = level(pcm)
        self.history.append(max(0.0, 1 - 20 * log10(loud) / QUIETEST) if loud else 0.0)


class Exchange:
    """One block from the mouth, one for the ear: `heard = exchange(said)`, on whatever thread the sound comes.

    `send` gets what goes to the bridge, a frame at a time, and `played` the position up to which a piece of the
    bridge's has gone to the ear, on that thread too.
    """

    def __init__(
        self,
        playback: Playback,
        send: Callable[[Pcm], None],
        played: Callable[[int], None],
        recording: Recording | None = None,
    ) -> None:
        self.muted = False
        self.loudspeaker = False
        self.said, self.heard = Levels(), Levels()
        self._playback = playback
        self._send = send
        self._played = played
        self._reached = 0
        self._recording = recording
        self._gate = Gate(BLOCK)
        self._frame: list[Pcm] = []

    def __call__(self, said: Pcm) -> Pcm:
        heard = self._playback.take(len(said))
        if self.muted:
            said = np.zeros_like(said)
        elif self.loudspeaker:
            said = self._gate.hear(said, heard)
        self.said.add(said)
        self.heard.add(heard)
        if self._recording:
            self._recording.add(said, heard)
        self._frame.append(said)
        if len(self._frame) * BLOCK >= FRAME:
            self._send(np.concatenate(self._frame))
            self._frame.clear()
        if self._playback.reached != self._reached:
            self._reached = self._playback.reached
            self._played(self._reached)
        return heard


async def pace(exchange: Exchange, mouth: Mouth) -> None:
    """Exchange blocks in real time, for as long as it is let."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        exchange(mouth.next())
        due += BLOCK
        if loop.time() - due > LAG:
            due = loop.time()
        await asyncio.sleep(max(0.0, due - loop.time()))
