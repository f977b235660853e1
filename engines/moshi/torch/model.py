"""The model on torch: codec and language model with the state of all slots, behind the core's `Model`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config import ModelConfig
from ..model import Floats, Heard, Ints
from .lm import Draw, Lm
from .load import Loader
from .mimi import Mimi
from .plain import Tokens


class Ticked(NamedTuple):
    row: Tensor
    text: Tensor
    complete: Tensor
    sound: Tensor


class TorchModel:
    def __init__(self, config: ModelConfig, lm: Loader, mimi: Loader, slots: int, keys: torch.dtype) -> None:
        self.config = config
        self._device = lm.device
        self._lm = Lm(config.lm, lm)
        self._mimi = Mimi(config.mimi, mimi, config.lm.codebooks)
        self._state = self._lm.state(slots, slots + 1, keys)
        self._sound = self._mimi.state(slots + 1)  # the last is for sound that is no call's
        self._added = torch.zeros(slots, config.lm.temporal.dim, device=self._device)
        self._plain = [True] * slots  # whether nothing is added
        self._conditions = {name: _Table(lm, name) for name in config.lm.conditions}

    @torch.no_grad()
    def tick(self, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> Ticked:
        config = self.config.lm
        reach = int(places[:, 2].max())
        added = not all(self._plain[slot] for slot in places[:, 0])
        sound, where, chance = (torch.from_numpy(x).to(self._device) for x in (pcm, places.T.copy(), chances.T.copy()))
        rows = None if given is None else torch.from_numpy(given).to(self._device)
        slots, row, position, frame, encoded, decoded, forced, text_top_k, audio_top_k = where
        heard = self._mimi.encode(sound, self._sound, slots, encoded)[:, : config.heard_streams]
        step = self._lm.step(
            self._state,
            slots,
            frame,
            Tokens(row, position, 1, reach),
            heard,
            forced,
            Draw(chance[0], text_top_k, chance[1], audio_top_k, chance[2:]),
            self._added[slots] if added else None,
            rows,
        )
        if config.own_streams:
            sound = self._mimi.decode(step.complete[:, 1:], self._sound, slots, decoded)
        return Ticked(step.row, step.text, step.complete, sound)

    def collect(self, pending: Ticked) -> Heard:
        return Heard(*(tensor.cpu().numpy() for tensor in pending))

    @torch.no_grad()
    def read(self, row: int, position: int, tokens: Ints, slot: int) -> None:
        t = len(tokens)
        positions = torch.arange(position, position + t, device=self._device)
        where = Tokens(torch.full_like(positions, row), positions, t, position)
        added = None if self._plain[slot] else self._added[slot]
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
    def encode(self, pcm: Floats) -> Ints:
        spare = torch.tensor([len(self._plain)], device=self._device)
        frames = torch.from_numpy(pcm).to(self._device).view(-1, 1, 1920)
        codes = [
            self._mimi.encode(frame, self._sound, spare, torch.full_like(spare, index))
            for index, frame in enumerate(frames)
        ]
        return torch.cat(codes).cpu().numpy()


class _Table:
    """A condition's words as vectors."""

    def __init__(self, load: Loader, name: str) -> None:
        prefix = f"condition_provider.conditioners.{name}"
        self._words = load.tensor(f"{prefix}.embed.weight")
        self._widen = load.tensor(f"{prefix}.output_proj.weight")

    def vector(self, index: int) -> Tensor:
        return self._widen @ self._words[index]
