"""Moshi in an engine process: from a checkpoint's name to a core that is ready for calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from ...hardware import this_host
from ..checkpoint import Checkpoint, Stored, Weights
from ..config import Kind, ModelError
from ..core import MoshiCore
from ..tokenizer import Tokenizer
from . import cuda, native, plain
from .load import KINDS, Loader, Ops
from .model import TorchModel

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}  # of keys and values
Known = TypeVar("Known", bound=str)
TOLD = 0.5  # seconds between two words about progress


def core(
    slots: int,
    progress: Callable[[str], None],
    model: str = "",
    device: str = "",
    weights: str = "",
    keys: str = "",
    threads: int = 0,
    voice: str = "",
    trace: str = "",
) -> MoshiCore:
    """Load `model`, a folder or a repository, and warm it up for `slots` calls. Raises `ModelError`."""
    loaded, tokenizer = load(slots, progress, model, device, weights, keys, threads)
    made = MoshiCore(loaded, tokenizer, slots, voice=voice, trace=trace)
    made.rehearse(lambda n: progress(f"warming up: {n} of {slots} calls"))
    return made


def load(
    slots: int,
    progress: Callable[[str], None],
    model: str,
    device: str = "",
    weights: str = "",
    keys: str = "",
    threads: int = 0,
    only: Kind | None = None,
) -> tuple[TorchModel, Tokenizer]:
    """A model, of that kind if one is named, with room for `slots` calls, and its tokenizer. Raises `ModelError`."""
    where = _device(device)
    cores = this_host().cores  # more threads than these wait for one another
    torch.set_num_threads(min(threads, cores) or max(1, cores - 1))  # one is left to the event loop
    kind = _one_of("weights", weights or ("bf16" if where.type == "cuda" else "int8"), KINDS)
    dtype = DTYPES[_one_of("keys", keys or "bf16", DTYPES)]
    checkpoint = Checkpoint.open(
        model, report=lambda what, done, total: progress(f"{what}: {done / max(1, total):.0%}")
    )
    if only not in (None, checkpoint.config.kind):
        raise ModelError(f"{model} is a model of type {checkpoint.config.kind}: take one of type {only}")
    ops: Ops = cuda if where.type == "cuda" else native if native.available() else plain
    began = time.monotonic()
    shown = _Progress(progress, f"loading {model}", checkpoint)
    lm = Loader(shown.watch(checkpoint.lm("pt", str(where))), where, kind, ops)
    mimi = Loader(shown.watch(checkpoint.mimi("pt", str(where))), where, "float32", ops)
    loaded = TorchModel(checkpoint.config, lm, mimi, slots, dtype)
    progress(f"loaded {model} in {time.monotonic() - began:.1f} s as {kind}")
    loaded.prepare(lambda n: progress(f"preparing steps of {n} calls"))
    return loaded, Tokenizer.load(checkpoint.tokenizer)


class _Progress:
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


def _device(asked: str) -> torch.device:
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device = cuda, but torch sees no NVIDIA GPU: install its driver, or take device = cpu")
    return torch.device(_one_of("device", device, ("cuda", "cpu")))


def _one_of(name: str, value: str, known: Iterable[Known]) -> Known:
    for one in known:
        if one == value:
            return one
    raise ModelError(f"{name} = {value!r}: take one of {', '.join(known)}")
