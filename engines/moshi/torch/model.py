"""The model on torch: codec and language model with the state of all slots, behind the core's `Model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base import FRAME
from ..config import ModelConfig
from ..model import Floats, Heard, Ints, Place
from .graphs import Graphs, Launched
from .lm import Draw, Lm
from .load import Loader
from .mimi import Mimi
from .plain import Tokens

STRETCHES = (1, 17, 64)  # rows: for these lengths and up a GPU needs kernels of their own, which take a second to make


class Ticked(NamedTuple):
    row: Tensor
    text: Tensor
    complete: Tensor
    sound: Tensor
    pauses: Tensor


class TorchModel:
    def __init__(self, config: ModelConfig, lm: Loader, mimi: Loader, slots: int, keys: torch.dtype) -> None:
        self.config = config
        self._device = lm.device
        self._lm = Lm(config.lm, lm)
        self._mimi = Mimi(config.mimi, mimi, config.lm.codebooks)
        self._state = self._lm.state(slots + 1, slots + 1, keys)  # the last slot is nobody's
        self._sound = self._mimi.state(slots + 1)  # the last is for sound that is no call's
        self._added = torch.zeros(slots + 1, config.lm.temporal.dim, device=self._device)
        self._plain = [True] * slots  # whether nothing is added
        self._conditions = {name: _Table(lm, name) for name in config.lm.conditions}
        self._graphs: Graphs | None = None
        if self._device.type == "cuda":
            nobody = Place(slots, -1, 0, 0, 0, 0, -1, 0, 0)
            self._graphs = Graphs(self._captured, config.lm, slots, nobody, self._device)

    def prepare(self, on_progress: Callable[[int], None]) -> None:
        """Make ready for batches of every size, and for stretches, before there is any call."""
        if self._graphs:
            self._graphs.prepare(on_progress)
            for length in STRETCHES:
                self.read(0, 0, np.zeros((length, 1 + self.config.lm.streams), np.int64), None)

    @torch.no_grad()
    def tick(self, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> Ticked | Launched:
        if self._graphs:
            return self._graphs.launch(pcm, places, chances, given)
        reach = int(places[:, 2].max())
        added = not all(self._plain[slot] for slot in places[:, 0])
        sound, where, chance = (torch.from_numpy(x) for x in (pcm, places.T.copy(), chances.T.copy()))
        rows = None if given is None else torch.from_numpy(given)
        return self._frame(sound, where, chance, rows, added, reach)

    def collect(self, pending: Ticked | Launched) -> Heard:
        if isinstance(pending, Launched):
            assert self._graphs
            return self._graphs.collect(pending)
        return Heard(*(tensor.numpy() for tensor in pending))

    def _captured(self, pcm: Tensor, places: Tensor, chances: Tensor, given: Tensor) -> Ticked:
        """A frame of any calls at any age: nothing of it is decided here."""
        return self._frame(pcm, places, chances, given, added=True, reach=self.config.lm.temporal.context)

    def _frame(
        self, sound: Tensor, places: Tensor, chances: Tensor, given: Tensor | None, added: bool, reach: int
    ) -> Ticked:
        config = self.config.lm
        slots, row, position, frame, encoded, decoded, forced, text_top_k, audio_top_k = places
        heard = self._mimi.encode(sound, self._sound, slots, encoded)[:, : config.heard_streams]
        step = self._lm.step(
            self._state,
            slots,
            frame,
            Tokens(row, position, 1, reach),
            heard,
            forced,
            Draw(chances[0], text_top_k, chances[1], audio_top_k, chances[2:]),
            self._added[slots] if added else None,
            given,
        )
        if config.own_streams:
            sound = self._mimi.decode(step.complete[:, 1:], self._sound, slots, decoded)
        else:
            sound = torch.zeros_like(sound)  # it listens and does not speak
        return Ticked(step.row, step.text, step.complete, sound, step.heads[..., :1].flatten(1))

    @torch.no_grad()
    def read(self, row: int, position: int, tokens: Ints, vector: Floats | None) -> None:
        t = len(tokens)
        positions = torch.arange(position, position + t, device=self._device)
        where = Tokens(torch.full_like(positions, row), positions, t, position)
        added = None if vector is None or not vector.any() else torch.from_numpy(vector).to(self._device)
        self._lm.read(self._state, torch.from_numpy(tokens).to(self._device), where, added)
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def fill(self, slot: int, tokens: Ints) -> None:
        self._state.streams[slot] = torch.from_numpy(tokens).to(self._device)[:, None]

    def add(self, slot: int, vector: Floats) -> None:
        self._plain[slot] = not vector.any()
        self._added[slot] = torch.from_numpy(vector).to(self._device)

    def condition(self, name: str, value: str) -> Floats:
        return self._conditions[name].vector(self.config.lm.conditions[name].values.index(value)).cpu().numpy()

    @torch.no_grad()
    def embed(self, text: Ints) -> Floats:
        return self._lm.embed(torch.from_numpy(text).to(self._device)).cpu().numpy()

    @torch.no_grad()
    def encode(self, pcm: Floats) -> Ints:
        spare = torch.tensor([len(self._plain)], device=self._device)
        frames = torch.from_numpy(pcm).to(self._device).view(-1, 1, FRAME)
        codes = [
            self._mimi.encode(frame, self._sound, spare, torch.full_like(spare, index))
            for index, frame in enumerate(frames)
        ]
        return torch.cat(codes).cpu().numpy()

    def memory(self) -> int:
        return torch.cuda.memory_reserved() if self._device.type == "cuda" else 0


class _Table:
    """A condition's words as vectors."""

    def __init__(self, load: Loader, name: str) -> None:
        prefix = f"condition_provider.conditioners.{name}"
        self._words = load.tensor(f"{prefix}.embed.weight")
        self._widen = load.tensor(f"{prefix}.output_proj.weight")

    def vector(self, index: int) -> Tensor:
        return self._widen @ self._words[index]
