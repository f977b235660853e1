"""What the caller says: a test signal or a recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...codecs import g711, wav
from .playout import SILENCE
from .protocol import CHUNK, RATE

Pcm = npt.NDArray[np.int16]
Source = Callable[[int], bytes]  # chunk number, from 0 -> 160 bytes of mu-law

BURST = 0.060  # seconds: long enough to be found under noise, short enough to be one event
BURST_EVERY = 1.0
FIRST_BURST = 0.5


class Recording:
    """Sound at hand, int16 or float32 at 8 kHz; silence after its end, or the beginning again."""

    def __init__(self, pcm: npt.NDArray[Any], *, repeat: bool = False) -> None:
        if pcm.dtype != np.int16:
            pcm = np.clip(np.rint(pcm * 32767), -32768, 32767).astype(np.int16)
        audio = g711.encode(pcm)
        audio += SILENCE[: -len(audio) % CHUNK]
        self.seconds = len(audio) / RATE
        self._chunks = [audio[at : at + CHUNK] for at in range(0, len(audio), CHUNK)]
        self._repeat = repeat

    def __call__(self, number: int) -> bytes:
        if self._repeat and self._chunks:
            number %= len(self._chunks)
        return self._chunks[number] if number < len(self._chunks) else SILENCE


def source(sound: npt.NDArray[Any] | Source | None) -> Source:
    """Samples at 8 kHz, a source as it is, or nothing, as a source."""
    if sound is None:
        return lambda _: SILENCE
    return sound if callable(sound) else Recording(sound)


def tone() -> Recording:
    """The test signal: a chirp of 60 ms every second, four that cannot be taken for one another, for ever."""
    sweeps = ((400, 3200), (3200, 400), (400, 1800), (1800, 400))  # Hz; different slopes, so unlike each other
    signal = np.zeros(int(len(sweeps) * BURST_EVERY * RATE))
    time = np.arange(int(BURST * RATE)) / RATE
    edge = np.minimum(1, np.minimum(time, BURST - time) / 0.005)  # 5 ms in and out, so that nothing clicks
    for number, (low, high) in enumerate(sweeps):
        phase = 2 * np.pi * (low * time + (high - low) / (2 * BURST) * time**2)
        at = int((FIRST_BURST + number * BURST_EVERY) * RATE)
        signal[at : at + len(time)] = 0.35 * np.sin(phase) * np.sin(np.pi / 2 * edge) ** 2
    return Recording(signal, repeat=True)


def recording(path: Path) -> Recording:
    """A WAV file of any rate, as a telephone carries it."""
    return Recording(wav.load(path, RATE))
