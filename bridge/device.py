"""The computer's own microphone and loudspeaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BLOCK = 0.020  # seconds that go in and out at once: what a telephone carries, and calm enough for Python

Pcm = NDArray[np.int16]
Exchange = Callable[[Pcm], Pcm]  # a block of the microphone -> as much for the loudspeaker


class NoSound(Exception):
    """There is no microphone or no loudspeaker. Its text says why, in one line, and what to do."""


class Device:
    """Both at once, on the clock of the hardware. Use as a context manager.

    `exchange` is called in a thread of the device's, so it must be quick and lock nothing for long. The first of
    `rates` that the device takes is used. `gone` is called, in that thread too, when the device stops by itself.
    """

    def __init__(self, exchange: Exchange, rates: Sequence[int], gone: Callable[[], None] | None = None) -> None:
        self._exchange = exchange
        self._gone = gone
        self.rate, self._stream = self._open(rates)
        self.slips = 0  # blocks that the hardware played or took without us, because we were late

    @property
    def delay(self) -> tuple[float, float]:
        """Seconds from the microphone to us, and from us to the loudspeaker."""
        into, out_of = self._stream.latency
        return float(into), float(out_of)

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone = None
        self._stream.close()

    def _open(self, rates: Sequence[int]) -> tuple[int, Any]:
        try:
            import sounddevice
        except ImportError as error:
            raise NoSound("sounddevice is not installed; get it with: pip install 'voice-bridge[talk]'") from error
        except OSError as error:
            raise NoSound(f"{error}; on Linux get it with: apt install libportaudio2") from error
        why: Exception | None = None
        for rate in rates:
            try:
                return rate, sounddevice.RawStream(
                    samplerate=rate,
                    channels=1,
                    dtype="int16",
                    blocksize=round(BLOCK * rate),
                    callback=self._callback,
                    finished_callback=self._finished,
                )
            except sounddevice.PortAudioError as error:
                why = why or error
        raise NoSound(f"no microphone and loudspeaker to be had: {why}") from why

    def _callback(self, said: Any, heard: Any, _frames: int, _time: Any, status: Any) -> None:
        if status:
            self.slips += 1
        heard[:] = self._exchange(np.frombuffer(said, np.int16).copy()).tobytes()

    def _finished(self) -> None:
        if self._gone:
            self._gone()
