"""The tiny checkpoints in tests/data/oracle, and what the reference computes from them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from voice_bridge.engines.base import FRAME
from voice_bridge.engines.moshi.checkpoint import Checkpoint
from voice_bridge.engines.moshi.core import MoshiCore
from voice_bridge.engines.moshi.tokenizer import Tokenizer
from voice_bridge.engines.moshi.torch import native, plain
from voice_bridge.engines.moshi.torch.lm import Draw, Lm, LmState, Step
from voice_bridge.engines.moshi.torch.load import Loader, Ops, WeightKind
from voice_bridge.engines.moshi.torch.model import TorchModel
from voice_bridge.engines.moshi.torch.plain import Tokens

FOLDER = Path(__file__).parent / "data" / "oracle"
NAMES = ("moshi", "stt", "conditioned", "quantizable")
CPU = torch.device("cpu")
BACKENDS: dict[str, Ops] = {"plain": plain, **({"kernels": native} if native.available() else {})}
"""What computes: plain torch, and our kernels where they can be built."""
Program: TypeAlias = Ops | Literal["mlx"]
PROGRAMS: dict[str, Program] = {**BACKENDS, **({"mlx": "mlx"} if find_spec("mlx") else {})}
"""And MLX, where it is installed."""


def expected(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / name / "expected.safetensors")


def loaders(name: str, kind: WeightKind = "float32", ops: Ops = plain) -> tuple[Loader, Loader]:
    checkpoint = Checkpoint.open(FOLDER / name)
    return Loader(checkpoint.lm(), CPU, kind, ops), Loader(checkpoint.mimi(), CPU, "float32", ops)


def core(name: str, slots: int = 4, ops: Program = plain, **options: Any) -> MoshiCore:
    checkpoint = Checkpoint.open(FOLDER / name)
    if ops == "mlx":
        from tests import oracle_mlx

        return MoshiCore(oracle_mlx.model(checkpoint, slots), Tokenizer.load(checkpoint.tokenizer), slots, **options)
    model = TorchModel(checkpoint.config, *loaders(name, ops=ops), slots, torch.float32)
    return MoshiCore(model, Tokenizer.load(checkpoint.tokenizer), slots, **options)


def stored(core: MoshiCore, row: int, count: int) -> NDArray[np.float32]:
    """The first entries of a row, all layers, keys and then values [layers, 2, heads, count, head_dim]."""
    caches: Any = core._model._state.temporal  # type: ignore[attr-defined]
    if isinstance(core._model, TorchModel):
        return np.array([[store[row, :, :count].numpy() for store in cache[:2]] for cache in caches])
    return np.array([[np.array(store)[0, :, :count] for store in cache] for cache in caches[row]])


def talk(frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Something to hear [frames, 1920]."""
    return (np.random.default_rng(seed).standard_normal((frames, FRAME)) * 0.1).astype(np.float32)


class Streams:
    """Two streams of a language model, driven step by step without any sampling."""

    def __init__(self, lm: Lm, keys: torch.dtype = torch.float32, added: Tensor | None = None) -> None:
        self.lm = lm
        self.config = lm.config
        self.state: LmState = lm.state(2, 2, keys)
        self.frames = [0, 0]
        self.added = added

    def step(
        self, heard: Tensor, streams: list[int], forced: dict[int, int] | None = None, given: Tensor | None = None
    ) -> Step:
        """One frame of the named streams; `heard` [n, codebooks] are the caller's codes."""
        where = torch.tensor(streams)
        at = torch.tensor([self.frames[stream] for stream in streams])
        n, none = len(streams), torch.zeros(len(streams))
        draw = Draw(none, none.long(), none, none.long(), torch.zeros(1 + self.config.own_streams, n))
        tokens = Tokens(where, at, 1, int(at.max()))
        force = torch.tensor([(forced or {}).get(stream, -1) for stream in streams])
        added = None if self.added is None else self.added[where]
        heard = heard[:, : self.config.heard_streams]
        with torch.no_grad():
            step = self.lm.step(self.state, where, at, tokens, heard, force, draw, added, given)
        for stream in streams:
            self.frames[stream] += 1
        return step

    def read(self, stream: int, rows: Tensor) -> Tensor:
        """What follows from rows of tokens [t, 1 + streams] that a stream reads at once [t, dim]."""
        first = self.frames[stream]
        self.frames[stream] += len(rows)
        positions = torch.arange(first, first + len(rows))
        with torch.no_grad():
            return self.lm.read(
                self.state, rows, Tokens(torch.full_like(positions, stream), positions, len(rows), first)
            )

    def complete(self, step: Step, streams: list[int]) -> Tensor:
        """The complete tokens of a step [n, 1 + own_streams], -2 where the delays still fill."""
        ready = torch.tensor([self.frames[stream] > self.config.max_delay for stream in streams])
        return torch.where(ready[:, None], step.complete, -2)


def streams(
    name: str, kind: WeightKind = "float32", ops: Program = plain, keys: torch.dtype = torch.float32
) -> Streams:
    checkpoint = Checkpoint.open(FOLDER / name)
    if ops == "mlx":
        from tests import oracle_mlx

        return oracle_mlx.streams(checkpoint.config.lm, checkpoint.lm("mlx"), kind, keys)
    load, _ = loaders(name, kind, ops)
    lm = Lm(checkpoint.config.lm, load)
    if not lm.config.conditions:
        return Streams(lm, keys)
    words = load.tensor("condition_provider.conditioners.description.embed.weight")
    widen = load.tensor("condition_provider.conditioners.description.output_proj.weight")
    return Streams(lm, keys, (words[0] @ widen.t()).expand(2, -1).contiguous())
