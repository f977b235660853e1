"""A whole tick as one CUDA graph: there is one for each of a few sizes of batch, and who is missing is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...base import FRAME
from ..config import LmConfig
from ..model import Floats, Heard, Ints, Place

# Sizes of batches, besides one with all slots: finer where a call more costs more of the step than the step itself.
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
ALIGNED = 16  # bytes: kernels read four numbers at once

Shape: TypeAlias = tuple[torch.dtype, tuple[int, ...]]
Run: TypeAlias = Callable[[], None]
Frame: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]


class Packed:
    """Arrays on the host and tensors on the device that are their twins: one copy moves all."""

    def __init__(self, shapes: Sequence[Shape], device: torch.device) -> None:
        sizes = [prod(shape) * dtype.itemsize for dtype, shape in shapes]
        rooms = [size + -size % ALIGNED for size in sizes]
        self._here = torch.zeros(sum(rooms), dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._there = torch.zeros(sum(rooms), dtype=torch.uint8, device=device)
        here, there = (
            [
                part[:size].view(dtype).view(shape)
                for part, size, (dtype, shape) in zip(parts, sizes, shapes, strict=True)
            ]
            for parts in (self._here.split(rooms), self._there.split(rooms))
        )
        self.here: list[NDArray[Any]] = [tensor.numpy() for tensor in here]
        self.there = there

    def send(self) -> None:
        self._there.copy_(self._here, non_blocking=True)

    def fetch(self) -> None:
        self._here.copy_(self._there, non_blocking=True)


class Batch(NamedTuple):
    inputs: Packed
    outputs: Packed
    run: Run


class Launched(NamedTuple):
    batch: Batch
    calls: int


class Graphs:
    """Runs `frame` for batches of any size. What is launched must be collected before the next launch."""

    def __init__(self, frame: Frame, config: LmConfig, slots: int, nobody: Place, device: torch.device) -> None:
        """`frame` makes of pcm [n, 1920], places [fields of Place, n], chances [3 + own_streams, n] and given
        [n, 1 + streams], -1 where nothing is, what `Heard` holds. `nobody` is the place of who is made up."""
        self.sizes = [*(size for size in SIZES if size < slots), slots]
        self._frame = frame
        self._config = config
        self._nobody = np.array(nobody)[:, None]
        self._device = device
        self._batches: dict[int, Batch] = {}
        self._cuda = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._cuda else None
        self._done = torch.cuda.Event() if self._cuda else None

    def prepare(self, on_progress: Callable[[int], None]) -> None:
        """Capture every size, the largest first, so that the others find their memory in its."""
        for size in reversed(self.sizes):
            on_progress(size)
            self._batch(size)

    def launch(self, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> Launched:
        batch = self._batch(next(size for size in self.sizes if size >= len(pcm)))
        self._fill(batch.inputs, pcm, places, chances, given)
        batch.inputs.send()
        batch.run()
        batch.outputs.fetch()
        if self._done:
            self._done.record()
        return Launched(batch, len(pcm))

    def collect(self, launched: Launched) -> Heard:
        if self._done:
            self._done.synchronize()
        return Heard(*(part[: launched.calls].copy() for part in launched.batch.outputs.here))

    def _batch(self, size: int) -> Batch:
        if size not in self._batches:
            self._batches[size] = self._made(size)
        return self._batches[size]

    def _made(self, n: int) -> Batch:
        fields, streams, own = len(Place._fields), 1 + self._config.streams, self._config.own_streams
        sound, row = (torch.float32, (n, FRAME)), (torch.int64, (n, streams))
        text, complete = (torch.int64, (n,)), (torch.int64, (n, 1 + own))
        pauses = torch.float32, (n, self._config.extra_heads)
        inputs = Packed([sound, (torch.int64, (fields, n)), (torch.float32, (3 + own, n)), row], self._device)
        outputs = Packed([row, text, complete, sound, pauses], self._device)

        def run() -> None:
            for there, value in zip(outputs.there, self._frame(*inputs.there), strict=True):
                there.copy_(value)

        none: Floats = np.zeros((0, FRAME), np.float32)
        self._fill(inputs, none, np.zeros((0, fields), np.int64), none[:, : 3 + own], None)
        inputs.send()
        return Batch(inputs, outputs, self._captured(run) if self._cuda else run)

    def _fill(self, inputs: Packed, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> None:
        n = len(pcm)
        sound, where, chance, rows = inputs.here
        sound[:n], sound[n:] = pcm, 0
        where[:, :n], where[:, n:] = places.T, self._nobody
        chance[:, :n], chance[:, n:] = chances.T, 0
        rows[:] = -1
        if given is not None:
            rows[:n] = given

    def _captured(self, run: Run) -> Run:
        """One launch of all that `run` launches. The graphs share their memory: only one may run at a time."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            run()  # what is made at first use, kernels and workspaces, cannot be made in a capture
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        return graph.replay
