"""Weights on their way from a checkpoint to MLX: one tensor at a time, in the form in which it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, get_args

import mlx.core as mx

from ..checkpoint import Groups, Plain, Rows8, Stored
from ..config import ModelError
from .product import WORTH, Product, second

WeightKind: TypeAlias = Literal["float32", "bf16", "int8", "int4"]
KINDS: tuple[WeightKind, ...] = get_args(WeightKind)
PACKED = {"int8": (8, 64), "int4": (4, 32)}  # bits, and weights that share a scale, as the MLX repositories have them


class Linear(Protocol):
    def __call__(self, x: mx.array) -> mx.array:
        """x [..., k] by the weights [m, k]: [..., m]."""


class Table(Protocol):
    def __call__(self, tokens: mx.array) -> mx.array:
        """Rows [..., dim] of the weights for tokens [...]."""


class Dense:
    """Weights in 16 bits, whatever flows."""

    def __init__(self, weight: mx.array) -> None:
        self._weight = weight

    def __call__(self, x: mx.array) -> mx.array:
        return (x.astype(self._weight.dtype) @ self._weight.T).astype(x.dtype)


class DenseTable:
    def __init__(self, weight: mx.array) -> None:
        self._weight = weight

    def __call__(self, tokens: mx.array) -> mx.array:
        return self._weight[tokens]


class Packed:
    """Codes of 8 or 4 bits in groups. Of a CPU's cores MLX uses one, so a second one takes half of the rows."""

    def __init__(self, weights: Groups) -> None:
        m, words = weights.packed.shape
        half = m // 2 if mx.default_device() == mx.cpu and m * words * 32 // weights.bits >= WORTH else 0
        self._parts = [part for part in (_rows(weights, 0, half), _rows(weights, half, m)) if len(part.packed)]

    def __call__(self, x: mx.array) -> mx.array:
        streams = (None,) if len(self._parts) == 1 else (second(), None)
        found = [
            mx.quantized_matmul(
                *(x, w.packed, w.scales, w.biases), transpose=True, group_size=w.group, bits=w.bits, stream=stream
            )
            for w, stream in zip(self._parts, streams, strict=True)
        ]
        return found[0] if len(found) == 1 else mx.concatenate(found, axis=-1)


class PackedTable:
    def __init__(self, weights: Groups) -> None:
        self._weights = weights

    def __call__(self, tokens: mx.array) -> mx.array:
        w = self._weights
        return _unpack(Groups(w.packed[tokens], w.scales[tokens], w.biases[tokens], w.bits, w.group))


class Loader:
    """What the models are built from: canonical names to arrays and products on MLX's device."""

    def __init__(self, stored: Callable[[str], Stored], kind: WeightKind = "float32") -> None:
        self._stored = stored
        self.kind = kind

    @property
    def dtype(self) -> mx.Dtype:
        """Of what is looked up rather than multiplied."""
        return mx.float32 if self.kind == "float32" else mx.bfloat16

    @property
    def activations(self) -> mx.Dtype:
        """Of what flows between the layers. MLX has fast products of 16 bits on a GPU only."""
        return self.dtype if mx.default_device() == mx.gpu else mx.float32

    def tensor(self, name: str) -> mx.array:
        return _made(filled(self._stored(name), mx.float32))

    def table(self, *names: str) -> Table:
        """The weights under these names, one below the other, to be looked up in. Codes are kept as they are."""
        parts = [self._stored(name) for name in names]
        if self.kind in PACKED and (alike := _alike(parts)):
            return PackedTable(self._joined(alike))
        return DenseTable(_made(mx.concatenate([filled(part, self.dtype) for part in parts])))

    def linear(self, *names: str) -> Linear:
        """The weights under these names, one below the other, to be multiplied by."""
        parts = [self._stored(name) for name in names]
        if self.kind not in PACKED:
            weight = _made(mx.concatenate([filled(part, self.dtype) for part in parts]))
            return Product(weight) if weight.dtype == self.activations else Dense(weight)
        bits, group = PACKED[self.kind]
        alike = _alike(parts)
        if not alike or alike[0].bits > bits:  # nothing is won by more bits than the checkpoint has
            alike = [self._packed(part, bits, group) for part in parts]
        return Packed(self._joined(alike))

    def _packed(self, stored: Stored, bits: int, group: int) -> Groups:
        weight = filled(stored, mx.float32)
        if weight.shape[1] % group:
            raise ModelError(
                f"weights = {self.kind} wants rows of whole groups of {group}, not {weight.shape[1]}: take bf16"
            )
        packed, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
        mx.eval(packed, scales, biases)  # so that the wide weights go before the next come
        return Groups(packed, scales, biases, bits, group)

    def _joined(self, parts: Sequence[Groups]) -> Groups:
        packed = mx.concatenate([part.packed for part in parts])
        scales = mx.concatenate([part.scales for part in parts]).astype(self.activations)
        biases = mx.concatenate([part.biases for part in parts]).astype(self.activations)
        mx.eval(packed, scales, biases)
        return Groups(packed, scales, biases, parts[0].bits, parts[0].group)


def filled(stored: Stored, dtype: mx.Dtype) -> mx.array:
    match stored:
        case Plain(values):
            wide: mx.array = values
        case Rows8(codes, scale):
            wide = codes * scale[:, None]
        case Groups():
            wide = _unpack(stored)
    return wide.astype(dtype)


def _rows(w: Groups, first: int, end: int) -> Groups:
    return Groups(w.packed[first:end], w.scales[first:end], w.biases[first:end], w.bits, w.group)


def _alike(parts: Sequence[Stored]) -> list[Groups]:
    """The parts, if all are codes of the same form."""
    groups = [part for part in parts if isinstance(part, Groups)]
    same = len({(part.bits, part.group) for part in groups}) == 1
    return groups if same and len(groups) == len(parts) else []


def _unpack(w: Groups) -> mx.array:
    return mx.dequantize(w.packed, w.scales, w.biases, group_size=w.group, bits=w.bits)


def _made(x: mx.array) -> mx.array:
    mx.eval(x)
    return x
