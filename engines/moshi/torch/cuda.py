"""The operations on an NVIDIA GPU: Triton kernels where they win, cuBLAS for 16 bits, and `plain` for the rest.

Nothing here asks the device for a number, so that a whole tick can be captured as one graph.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ModelError
from . import plain
from .plain import Cache, Tokens, elu, layer_norm

__all__ = ["attend", "dense", "elu", "gate", "int4", "int8", "layer_norm", "rms_norm", "sample"]

FEW = 16  # rows: up to here a product takes as long as reading its weights, whatever it computes in
FLOAT8_SIZES = 16  # `_scaled_mm` takes whole multiples of this only


@functools.cache
def _kernels() -> Any:
    try:
        from . import triton_kernels
    except ImportError as error:
        raise ModelError(f"device = cuda needs Triton ({error}): pip install triton, or take device = cpu") from None
    _need((8, 0), "device = cuda", "take device = cpu")
    return triton_kernels


def _need(capability: tuple[int, int], what: str, instead: str) -> None:
    """Raise `ModelError` if this GPU is older than that."""
    here = torch.cuda.get_device_capability() if torch.cuda.is_available() else capability
    if here < capability:
        wanted, has = (".".join(map(str, version)) for version in (capability, here))
        raise ModelError(f"{what} needs a GPU of compute capability {wanted} or more, this one has {has}: {instead}")


class Dense:
    """Weights as they are."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight)

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        if scale is None:
            to.addmm_(x, self._weight.t())
        else:
            to.addcmul_(self(x), scale)


dense = Dense


class Widened:
    """Weights of eight or four bits, widened on their way from memory; x keeps its bits."""

    def __init__(self, *weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = _kernels().product(x, *self._weights)
        return y

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        product = self(x)
        to += product if scale is None else scale * product


class Float8(Widened):
    """The same, but of many rows x is rounded to float8 too, each with a scale of its own."""

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__(codes, scale)
        self._operand = codes.t(), scale[None]
        self._whole = all(size % FLOAT8_SIZES == 0 for size in codes.shape)

    def __call__(self, x: Tensor) -> Tensor:
        n = len(x)
        if n <= FEW or not self._whole:
            return super().__call__(x)
        codes, scales = _kernels().float8(x, n + -n % FLOAT8_SIZES)
        weight, scale = self._operand
        return torch._scaled_mm(codes, weight, scales, scale, out_dtype=torch.bfloat16)[:n].to(x.dtype)


def int8(codes: Tensor, scale: Tensor) -> Widened:
    """W = codes * scale: int8 or float8 [m, k], a float32 [m]."""
    if codes.dtype == torch.int8:
        return Widened(codes, scale)
    _need((8, 9), "weights = fp8", "take weights = int8")
    return Float8(codes, scale)


def int4(words: Tensor, scales: Tensor, biases: Tensor) -> Widened:
    """As `plain.int4`; scales and biases are kept in 16 bits."""
    return Widened(words, scales.half(), biases.half())


def rms_norm(x: Tensor, alpha: Tensor, eps: float) -> Tensor:
    y: Tensor = _kernels().rms_norm(x, alpha, eps)
    return y


def gate(x: Tensor) -> Tensor:
    y: Tensor = _kernels().gate(x)
    return y


def attend(qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor:
    """As `plain.attend`, whatever `reach` says of single tokens: they look as far as they go back. Those of row -1 are
    nobody's and leave nothing. A stretch of tokens is not for a graph."""
    if tokens.per_row > 1 and not tokens.together:
        return plain.attend(qkv, cache, tokens, turn, pairs)
    y: Tensor = _kernels().attend(qkv, cache, tokens, turn, pairs)
    return y


def sample(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    token: Tensor = _kernels().sample(logits, temperature, top_k, noise)
    return token
