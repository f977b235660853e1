"""Moshi's own client, as its package has it, in a process of its own: its microphone hums, what it plays is measured.

    python tests/moshi_client.py SECONDS ARGUMENTS...    the arguments are its own; the last line says what it played

Of the package only the client is imported, and not torch. Its sound device is replaced, and nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

PITCH = 440.0  # of the hum
LOUD = 0.05  # above it a block is no silence


class Stream:
    """A sound device that calls back once a block, in time."""

    def __init__(self, samplerate: int, channels: int, blocksize: int, callback: Callable[..., None]) -> None:
        self._rate, self._block, self._callback = samplerate, blocksize, callback
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        at, began = 0, time.monotonic()
        while not self._over.wait(max(0.0, began + (at + self._block) / self._rate - time.monotonic())):
            self.block(at)
            at += self._block

    def block(self, at: int) -> None:
        raise NotImplementedError


class Microphone(Stream):
    def block(self, at: int) -> None:
        hum = 0.3 * np.sin(2 * np.pi * PITCH * (at + np.arange(self._block)) / self._rate)
        self._callback(hum.astype(np.float32)[:, None], self._block, None, None)


class Loudspeaker(Stream):
    """Keeps what is played, and says when enough of it was loud."""

    played: ClassVar[list[NDArray[np.float32]]] = []
    wanted: ClassVar[float] = 0.0
    enough: ClassVar[threading.Event] = threading.Event()

    def block(self, at: int) -> None:
        out = np.zeros((self._block, 1), np.float32)
        self._callback(out, self._block, None, None)
        self.played.append(out[:, 0])
        if np.abs(out).max() > LOUD:
            Loudspeaker.wanted -= self._block / self._rate
        if self.wanted <= 0:
            self.enough.set()


def client() -> Any:
    """The module `moshi.client`."""
    found = importlib.util.find_spec("moshi")
    assert found is not None
    package, device = ModuleType("moshi"), ModuleType("sounddevice")
    package.__path__ = list(found.submodule_search_locations or [])
    device.InputStream, device.OutputStream = Microphone, Loudspeaker  # type: ignore[attr-defined]
    sys.modules.update(moshi=package, sounddevice=device)
    return importlib.import_module("moshi.client")


def main(seconds: float, *arguments: str) -> None:
    """Until so much that is not silent was played."""
    sys.argv = ["moshi.client", *arguments]
    Loudspeaker.wanted = seconds
    threading.Thread(target=client().main, daemon=True).start()
    Loudspeaker.enough.wait()
    last = np.concatenate(Loudspeaker.played)[-12_000:]
    crossings = np.count_nonzero(np.diff(np.signbit(last)))
    print("\n" + json.dumps({"loudest": float(np.abs(last).max()), "pitch": float(crossings)}), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
