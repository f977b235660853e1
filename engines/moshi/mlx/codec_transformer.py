"""The transformers of Mimi, which stream: a few tokens a frame, rings of keys and values with a row for each slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import mlx.core as mx

from ..config import ModelError, TransformerConfig
from .product import Product
from .transformer import put

EPSILON = 1e-5  # of the norms, as it was trained

Read: TypeAlias = Callable[[str], mx.array]
"""A tensor of the checkpoint, by name, in 32 bits."""


class Ring(NamedTuple):
    """Keys and values of one layer [slots, heads, context, head_dim]: position p stands at p % context."""

    keys: mx.array
    values: mx.array


class Stand(NamedTuple):
    """Where the tokens of a frame stand, for each of its slots [n]."""

    slots: mx.array
    first: mx.array
    """Position of the first of them."""
    entries: mx.array
    """Of the ring, for each of them [n, t]."""
    seen: mx.array
    """Which entries each of them looks at [n, 1, t, context]."""


class Transformer:
    def __init__(self, config: TransformerConfig, read: Read, prefix: str) -> None:
        if config.gated or config.norm != "layer_norm" or config.rope == "halves" or config.kv_heads != config.heads:
            raise ModelError("mimi_config.json: MLX knows codecs with layer_norm, no gating and rope only")
        self._config = config
        self._layers = [Layer(config, read, f"{prefix}.layers.{index}") for index in range(config.layers)]

    def rings(self, slots: int) -> list[Ring]:
        config = self._config
        shape = (slots, config.heads, config.context, config.head_dim)
        return [Ring(mx.zeros(shape), mx.zeros(shape)) for _ in self._layers]

    def __call__(
        self, x: mx.array, rings: Sequence[Ring], slots: mx.array, frames: mx.array
    ) -> tuple[mx.array, list[Ring]]:
        """x [n, t, dim], the frame's tokens, gives as much, and the rings as they are then."""
        stand = self._stand(slots, frames, x.shape[1])
        after = []
        for layer, ring in zip(self._layers, rings, strict=True):
            x, moved = layer(x, ring, stand)
            after.append(moved)
        return x, after

    def _stand(self, slots: mx.array, frames: mx.array, t: int) -> Stand:
        """All tokens of a frame enter the rings before any of them looks back, as the reference has it."""
        context = self._config.context
        positions = frames[:, None] * t + mx.arange(t)  # [n, t]
        last = positions[:, -1:]
        held = last - (last - mx.arange(context)) % context  # the position in each entry; negative: none   [n, context]
        seen = (held >= 0)[:, None] & (held[:, None] <= positions[..., None])  # [n, t, context]
        return Stand(slots, positions[:, 0], positions % context, seen[:, None])


class Layer:
    def __init__(self, config: TransformerConfig, read: Read, name: str) -> None:
        self._heads, self._head_dim = config.heads, config.head_dim
        self._max_period = config.max_period if config.rope else None
        self._norms = [(read(f"{name}.norm{i}.weight"), read(f"{name}.norm{i}.bias")) for i in (1, 2)]
        self._qkv = Product(read(f"{name}.self_attn.in_projs.0.weight"))
        self._wide = Product(read(f"{name}.linear1.weight"))
        out, narrow = read(f"{name}.self_attn.out_projs.0.weight"), read(f"{name}.linear2.weight")
        if config.scaled:
            out = out * read(f"{name}.layer_scale_1.scale")[:, None]
            narrow = narrow * read(f"{name}.layer_scale_2.scale")[:, None]
        self._out, self._narrow = Product(out), Product(narrow)

    def __call__(self, x: mx.array, ring: Ring, stand: Stand) -> tuple[mx.array, Ring]:
        first, second = self._norms
        seen, ring = self._attend(self._qkv(mx.fast.layer_norm(x, *first, EPSILON)), ring, stand)
        x = x + self._out(seen)
        wide = self._wide(mx.fast.layer_norm(x, *second, EPSILON))
        return x + self._narrow(_gelu(wide)), ring

    def _attend(self, qkv: mx.array, ring: Ring, stand: Stand) -> tuple[mx.array, Ring]:
        n, t, _ = qkv.shape
        heads, head_dim = self._heads, self._head_dim
        qk, v = mx.split(qkv.reshape(n, t, 3 * heads, head_dim), [2 * heads], axis=2)
        qk = qk.swapaxes(1, 2)  # [n, 2 * heads, t, head_dim]
        if self._max_period is not None:
            qk = mx.fast.rope(qk, head_dim, traditional=True, base=self._max_period, scale=1.0, offset=stand.first)
        q, k = mx.split(qk, 2, axis=1)
        at = (stand.slots[:, None], slice(None), stand.entries)  # [n, t, heads, head_dim]
        ring = Ring(put(ring.keys, at, k.swapaxes(1, 2)), put(ring.values, at, v))
        keys, values = (store[stand.slots] for store in ring)  # [n, heads, context, head_dim]
        out = mx.fast.scaled_dot_product_attention(q, keys, values, scale=head_dim**-0.5, mask=stand.seen)
        return out.swapaxes(1, 2).reshape(n, t, -1), ring


def _gelu(x: mx.array) -> mx.array:
    return x * (1 + mx.erf(x * 2**-0.5)) * 0.5
