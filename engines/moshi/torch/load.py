"""Weights on their way from a checkpoint to the device: one tensor at a time, in the form in which it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from . import plain
from .plain import Cache, Tokens

WeightKind: TypeAlias = Literal["float32", "bfloat16", "int8", "int4"]


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """x [n, k] by the weights [m, k]: [n, m]."""

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        """Add the product, times `scale` [m], to `to` [n, m]."""


class Ops(Protocol):
    """What a backend computes; `plain` says what each operation means."""

    def rms_norm(self, x: Tensor, alpha: Tensor, eps: float) -> Tensor: ...
    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor: ...
    def gate(self, x: Tensor) -> Tensor: ...
    def attend(self, qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor: ...
    def sample(self, logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor: ...


class Dense:
    """Weights as they are, multiplied by torch."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self._weight.dtype), self._weight).to(x.dtype)

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        product = self(x)
        to += product if scale is None else scale * product


class Loader:
    """What the models are built from: names to tensors on the device."""

    def __init__(self, tensor: Callable[[str], Tensor], device: torch.device, kind: WeightKind = "float32") -> None:
        self._tensor = tensor
        self.device = device
        self.kind = kind
        self.ops: Ops = plain

    @property
    def dtype(self) -> torch.dtype:
        """Of everything that is not multiplied with."""
        return torch.float32 if self.kind == "float32" else torch.bfloat16

    def tensor(self, name: str) -> Tensor:
        return self._tensor(name).float().to(self.device)

    def linear(self, *names: str) -> Linear:
        """The weights under these names, one below the other."""
        weights: Sequence[Tensor] = [self._tensor(name) for name in names]
        return Dense(torch.cat(list(weights)).to(self.device, self.dtype))
