"""What the caller says: a test signal, a recording or a microphone."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
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
MICROPHONE_QUEUE = 5  # chunks (100 ms) before the oldest goes: a call must not fall behind its speaker


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


class Microphone:
    """The computer's microphone as the mouth and its speaker as the ear. Use as a context manager.

    Raises ImportError when sounddevice is not installed, OSError when there is no device.
    """

    def __init__(self) -> None:
        import sounddevice

        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        try:
            self._device: Any = sounddevice.RawStream(
                samplerate=RATE, channels=1, dtype="int16", blocksize=CHUNK, callback=self._exchange
            )
        except sounddevice.PortAudioError as error:
            raise OSError(f"no microphone and speaker to be had: {error}") from error

    def __enter__(self) -> Microphone:
        self._device.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.close()

    def mouth(self, _number: int) -> bytes:
        return _newest(self._said)

    def ear(self, chunk: bytes) -> None:
        self._heard.put(chunk)

    def _exchange(self, said: Any, heard: Any, _frames: int, _time: Any, _status: Any) -> None:
        """Called by the device, in its own thread."""
        self._said.put(g711.encode(np.frombuffer(said, dtype=np.int16)))
        heard[:] = g711.decode(_newest(self._heard)).tobytes()


def _newest(chunks: queue.SimpleQueue[bytes]) -> bytes:
    while chunks.qsize() > MICROPHONE_QUEUE:
        chunks.get_nowait()
    try:
        return chunks.get_nowait()
    except queue.Empty:
        return SILENCE
