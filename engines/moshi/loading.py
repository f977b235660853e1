"""What every program does on the way from a model's name to one that computes: opens it, and says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from .checkpoint import Checkpoint, Stored, Weights
from .config import Kind, ModelError

TOLD = 0.5  # seconds between two words about progress
Known = TypeVar("Known", bound=str)


def opened(model: str, progress: Callable[[str], None], only: Kind | None = None) -> Checkpoint:
    """A model, of that kind if one is named, fetched if it is not here. Raises `ModelError`."""
    checkpoint = Checkpoint.open(
        model, report=lambda what, done, total: progress(f"{what}: {done / max(1, total):.0%}")
    )
    if only not in (None, checkpoint.config.kind):
        raise ModelError(f"{model} is a model of type {checkpoint.config.kind}: take one of type {only}")
    return checkpoint


class Progress:
    """Says how much has been read, not more often than is worth reading."""

    def __init__(self, progress: Callable[[str], None], what: str, checkpoint: Checkpoint) -> None:
        self._progress = progress
        self._what = what
        self._total = sum(path.stat().st_size for path in (checkpoint.weights, checkpoint.codec))
        self._done = 0
        self._told = 0.0

    def watch(self, weights: Weights) -> Callable[[str], Stored]:
        def read(name: str) -> Stored:
            self._done += weights.size(name)
            if time.monotonic() - self._told > TOLD:
                self._told = time.monotonic()
                self._progress(f"{self._what}: {min(1.0, self._done / self._total):.0%}")
            return weights(name)

        return read


def one_of(name: str, value: str, known: Iterable[Known]) -> Known:
    for one in known:
        if one == value:
            return one
    raise ModelError(f"{name} = {value!r}: take one of {', '.join(known)}")
