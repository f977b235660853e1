"""Moshi in an engine process: from a checkpoint's name to a core that is ready for calls."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ...hardware import this_host
from ..config import Kind, ModelError
from ..core import MoshiCore
from ..loading import Progress, one_of, opened
from ..tokenizer import Tokenizer
from . import cuda, native, plain
from .load import KINDS, Loader, Ops
from .model import TorchModel

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}  # of keys and values


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
    kind = one_of("weights", weights or ("bf16" if where.type == "cuda" else "int8"), KINDS)
    dtype = DTYPES[one_of("keys", keys or "bf16", DTYPES)]
    checkpoint = opened(model, progress, only)
    ops: Ops = cuda if where.type == "cuda" else native if native.available() else plain
    began = time.monotonic()
    shown = Progress(progress, f"loading {model}", checkpoint)
    lm = Loader(shown.watch(checkpoint.lm("pt", str(where))), where, kind, ops)
    mimi = Loader(shown.watch(checkpoint.mimi("pt", str(where))), where, "float32", ops)
    loaded = TorchModel(checkpoint.config, lm, mimi, slots, dtype)
    progress(f"loaded {model} in {time.monotonic() - began:.1f} s as {kind}")
    loaded.prepare(lambda n: progress(f"preparing steps of {n} calls"))
    return loaded, Tokenizer.load(checkpoint.tokenizer)


def _device(asked: str) -> torch.device:
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device = cuda, but torch sees no NVIDIA GPU: install its driver, or take device = cpu")
    return torch.device(one_of("device", device, ("cuda", "cpu")))
