"""The tiny checkpoints on MLX, driven as those on torch are: torch's tensors go in and come out."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import torch
from torch import Tensor

from tests.oracle import Streams
from voice_bridge.engines.moshi.checkpoint import Checkpoint, Stored
from voice_bridge.engines.moshi.config import LmConfig
from voice_bridge.engines.moshi.mlx.lm import Draw, Lm
from voice_bridge.engines.moshi.mlx.load import Loader, WeightKind
from voice_bridge.engines.moshi.mlx.model import MlxModel, _Table
from voice_bridge.engines.moshi.torch.lm import Step

DTYPES = {torch.float32: mx.float32, torch.bfloat16: mx.bfloat16}


def model(checkpoint: Checkpoint, slots: int) -> MlxModel:
    return MlxModel(checkpoint.config, Loader(checkpoint.lm("mlx")), checkpoint.mimi("mlx"), slots, mx.float32)


class MlxStreams(Streams):
    def __init__(self, lm: Lm, keys: mx.Dtype, added: mx.array | None) -> None:
        self.mlx = lm
        self.config = lm.config
        self.mlx_state = lm.state(2, 2, keys)
        self.frames = [0, 0]
        self.mlx_added = added

    def step(
        self, heard: Tensor, streams: list[int], forced: dict[int, int] | None = None, given: Tensor | None = None
    ) -> Step:
        state, n = self.mlx_state, len(streams)
        slots, at = mx.array(streams), mx.array([self.frames[stream] for stream in streams])
        none, all_of_them = mx.zeros(n), mx.zeros(n, mx.int32)
        noise = mx.zeros((1 + self.config.own_streams, n))
        step, state.streams, caches = self.mlx.step(
            state.streams,
            [state.temporal[stream] for stream in streams],
            slots,
            at,
            at,
            max(self.frames) + 1,
            to_mlx(heard[:, : self.config.heard_streams]),
            mx.array([(forced or {}).get(stream, -1) for stream in streams]),
            Draw(none, all_of_them, none, all_of_them, noise, (0, 0)),
            None if self.mlx_added is None else self.mlx_added[slots],
            None if given is None else to_mlx(given),
        )
        for stream, written in zip(streams, caches, strict=True):
            state.temporal[stream] = written
            self.frames[stream] += 1
        row, text, complete, logits, heads = (to_torch(values) for values in step)
        return Step(row.long(), text.long(), complete.long(), logits, heads)

    def read(self, stream: int, rows: Tensor) -> Tensor:
        caches, first = self.mlx_state.temporal, self.frames[stream]
        self.frames[stream] += len(rows)
        out, (caches[stream],) = self.mlx.read(
            [caches[stream]], to_mlx(rows)[None], mx.array([first]), self.frames[stream]
        )
        return to_torch(out)[0]


def streams(
    config: LmConfig,
    weights: Callable[[str], Stored],
    kind: WeightKind = "float32",
    keys: torch.dtype = torch.float32,
) -> MlxStreams:
    load = Loader(weights, kind)
    added = None
    if config.conditions:
        added = mx.broadcast_to(_Table(load, "description").vector(0), (2, config.temporal.dim))
    return MlxStreams(Lm(config, load), DTYPES[keys], added)


def to_mlx(values: Tensor) -> mx.array:
    return mx.array(values.numpy().astype(np.int32))


def to_torch(values: mx.array) -> Tensor:
    return torch.from_numpy(np.array(values.astype(mx.float32) if values.dtype == mx.bfloat16 else values))
