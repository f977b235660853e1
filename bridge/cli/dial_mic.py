"""The microphone and the loudspeaker as a telephone's mouth and ear, for `voice-bridge dial --mic`."""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Self

from ...codecs import g711
from ..device import Device, Pcm
from ..phone.playout import SILENCE
from ..phone.protocol import RATE

MICROPHONE_QUEUE = 5  # chunks (100 ms) before the oldest goes: a call must not fall behind its speaker


class Microphone:
    """Use as a context manager. Raises `NoSound` when there is no device."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._device = Device(self._exchange, [RATE])

    def __enter__(self) -> Self:
        self._device.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.__exit__(kind, error, trace)

    def mouth(self, _number: int) -> bytes:
        return _newest(self._said)

    def ear(self, chunk: bytes) -> None:
        self._heard.put(chunk)

    def _exchange(self, said: Pcm) -> Pcm:
        self._said.put(g711.encode(said))
        return g711.decode(_newest(self._heard))


def _newest(chunks: queue.SimpleQueue[bytes]) -> bytes:
    while chunks.qsize() > MICROPHONE_QUEUE:
        chunks.get_nowait()
    try:
        return chunks.get_nowait()
    except queue.Empty:
        return SILENCE
