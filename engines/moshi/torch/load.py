"""Weights on their way from a checkpoint to the device: one tensor at a time, in the form in which it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from ..checkpoint import Groups, Plain, Rows8, Stored
from ..config import ModelError
from . import plain
from .plain import EIGHT_BITS, Cache, Tokens

WeightKind: TypeAlias = Literal["float32", "bf16", "fp8", "int8", "int4"]
KINDS: tuple[WeightKind, ...] = get_args(WeightKind)
GROUP = 32  # weights that share a scale in four bits, unless the checkpoint has its own groups
FIFTEEN = 15.0  # the highest code of four bits
FLOAT8 = torch.finfo(torch.float8_e4m3fn).max
LEAST = 1e-12  # a scale: a row of zeros must not be divided by zero
ROWS = 1024  # widened at a time: 16 MB of the 7B


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
    def elu(self, x: Tensor, to: Tensor) -> None: ...
    def attend(self, qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor: ...
    def sample(self, logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor: ...
    def dense(self, weight: Tensor) -> Linear: ...
    def int8(self, codes: Tensor, scale: Tensor) -> Linear: ...  # float8 codes come here as well
    def int4(self, words: Tensor, scales: Tensor, biases: Tensor) -> Linear: ...


class Loader:
    """What the models are built from: canonical names to tensors and products on the device."""

    def __init__(
        self, stored: Callable[[str], Stored], device: torch.device, kind: WeightKind = "float32", ops: Ops = plain
    ) -> None:
        if kind == "fp8" and device.type == "cpu":
            raise ModelError("weights = fp8 are for NVIDIA GPUs: take int8")
        self._stored = stored
        self.device = device
        self.kind = kind
        self.ops = ops

    @property
    def dtype(self) -> torch.dtype:
        """Of what is looked up rather than multiplied."""
        return torch.float32 if self.kind == "float32" else torch.bfloat16

    @property
    def activations(self) -> torch.dtype:
        """Of what flows between the layers."""
        return torch.float32 if self.device.type == "cpu" else self.dtype

    def tensor(self, name: str) -> Tensor:
        return filled(self._stored(name), torch.float32).to(self.device)

    def table(self, *names: str) -> Tensor:
        """The weights under these names, one below the other, to be looked up in."""
        return torch.cat([filled(self._stored(name), self.dtype).to(self.device) for name in names])

    def linear(self, *names: str) -> Linear:
        """The weights under these names, one below the other, to be multiplied by."""
        parts = [self._stored(name) for name in names]
        if self.kind in ("fp8", "int8"):
            eights = [(int8_rows if self.kind == "int8" else float8_rows)(part) for part in parts]
            return self.ops.int8(*(torch.cat(column).to(self.device) for column in zip(*eights, strict=True)))
        if self.kind == "int4":
            fours = [int4_groups(part) for part in parts]
            return self.ops.int4(*(torch.cat(column).to(self.device) for column in zip(*fours, strict=True)))
        return self.ops.dense(torch.cat([filled(part, self.dtype).to(self.device) for part in parts]))


def chunks(stored: Stored) -> Iterator[Tensor]:
    """Some rows at a time, as float32."""
    match stored:
        case Plain(values):
            for part in values.split(ROWS):
                yield part.float()
        case Rows8(codes, scale):
            for part, factor in zip(codes.split(ROWS), scale.split(ROWS), strict=True):
                yield part * factor[:, None]
        case Groups(packed, scales, biases, bits, group):
            columns = (tensor.split(ROWS) for tensor in (packed, scales.float(), biases.float()))
            for words, factor, bias in zip(*columns, strict=True):
                codes = plain.unpack(words, bits).view(*factor.shape, group)
                yield (codes * factor[..., None] + bias[..., None]).flatten(1)


def filled(stored: Stored, dtype: torch.dtype) -> Tensor:
    """As it is where that is right, else filled chunk by chunk: a tensor never lies there twice in 32 bits."""
    if isinstance(stored, Plain):
        values: Tensor = stored.values
        return values.to(dtype)
    return torch.cat([chunk.to(dtype) for chunk in chunks(stored)])


def int8_rows(stored: Stored) -> tuple[Tensor, Tensor]:
    """Codes [m, k] and a scale for each row [m]."""
    if isinstance(stored, Rows8):
        return stored.codes, stored.scale.float()
    codes, scales = [], []
    for chunk in chunks(stored):
        scale = chunk.abs().amax(1).clamp_min(LEAST) / EIGHT_BITS
        codes.append((chunk / scale[:, None]).round().to(torch.int8))
        scales.append(scale)
    return torch.cat(codes), torch.cat(scales)


def float8_rows(stored: Stored) -> tuple[Tensor, Tensor]:
    """Codes [m, k] as float8, and a scale for each row [m]."""
    codes, scales = [], []
    for chunk in chunks(stored):
        scale = chunk.abs().amax(1).clamp_min(LEAST) / FLOAT8
        codes.append((chunk / scale[:, None]).to(torch.float8_e4m3fn))
        scales.append(scale)
    return torch.cat(codes), torch.cat(scales)


def int4_groups(stored: Stored) -> tuple[Tensor, Tensor, Tensor]:
    """Words of eight codes from 0 to 15 [m, k / 8], and a scale and a bias for each group of a row [m, k / group]."""
    if isinstance(stored, Groups) and stored.bits == 4:
        return stored.packed.view(torch.int32), stored.scales.float(), stored.biases.float()
    words, scales, biases = [], [], []
    for chunk in chunks(stored):
        if chunk.shape[1] % GROUP:
            raise ModelError(f"weights = int4 wants rows of whole groups of {GROUP}, not {chunk.shape[1]}: take int8")
        groups = chunk.view(len(chunk), -1, GROUP)
        low, high = groups.aminmax(dim=-1)
        scale = ((high - low) / FIFTEEN).clamp_min(LEAST)
        codes = ((groups - low[..., None]) / scale[..., None]).round().to(torch.uint8).flatten(1)
        words.append((codes[:, ::2] | codes[:, 1::2] << 4).view(torch.int32))
        scales.append(scale)
        biases.append(low)
    return torch.cat(words), torch.cat(scales), torch.cat(biases)
