"""Moshi on MLX in an engine process: from a checkpoint's name to a core that is ready for calls.

MLX belongs to one thread, the process's main one: whoever calls the core there keeps to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx

from ..config import ModelError
from ..core import MoshiCore
from ..loading import Progress, one_of, opened
from ..tokenizer import Tokenizer
from . import memory
from .load import KINDS, Loader
from .model import MlxModel

DTYPES = {"float32": mx.float32, "bf16": mx.bfloat16}  # of keys and values


def core(
    slots: int,
    progress: Callable[[str], None],
    model: str = "",
    device: str = "mlx",
    weights: str = "",
    keys: str = "",
    threads: int = 0,
    voice: str = "",
    trace: str = "",
) -> MoshiCore:
    """Load `model`, a folder or a repository, and warm it up for `slots` calls. Raises `ModelError`.

    `threads` is for programs that compute on the host.
    """
    one_of("device", device, ("mlx",))
    loaded, tokenizer = load(slots, progress, model, weights, keys)
    made = MoshiCore(loaded, tokenizer, slots, voice=voice, trace=trace)
    made.rehearse(lambda n: progress(f"warming up: {n} of {slots} calls"))
    return made


def load(
    slots: int, progress: Callable[[str], None], model: str, weights: str = "", keys: str = ""
) -> tuple[MlxModel, Tokenizer]:
    """A model with room for `slots` calls, and its tokenizer. Raises `ModelError`."""
    if weights == "fp8" or keys == "int8":
        asked, instead = ("weights = fp8", "int8") if weights == "fp8" else ("keys = int8", "bf16")
        raise ModelError(f"{asked}: MLX has no such numbers here, take {instead}")
    kind = one_of("weights", weights or "bf16", KINDS)
    dtype = DTYPES[one_of("keys", keys or "bf16", DTYPES)]
    memory.limit()
    checkpoint = opened(model, progress)
    began = time.monotonic()
    shown = Progress(progress, f"loading {model}", checkpoint)
    lm = Loader(shown.watch(checkpoint.lm("mlx")), kind)
    loaded = MlxModel(checkpoint.config, lm, shown.watch(checkpoint.mimi("mlx")), slots, dtype)
    memory.settle()
    progress(f"loaded {model} in {time.monotonic() - began:.1f} s as {kind}, {loaded.memory() / 1e9:.1f} GB")
    loaded.prepare(lambda n: progress(f"compiling steps of {n} calls"))
    return loaded, Tokenizer.load(checkpoint.tokenizer)
