"""A transformer that streams: the temporal and the depth one of the language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import mlx.core as mx

from ..config import TransformerConfig
from .load import Linear, Loader

EPS = {"rms_norm": 1e-5, "rms_norm_f32": 1e-8, "layer_norm": 1e-5, "layer_norm_f32": 1e-8}
STRETCH = 64  # rows read at once at most: by then even a fast chip computes longer than it reads the weights

Cache: TypeAlias = list[mx.array]
"""Keys and values of one layer and one row [1, kv_heads, ring, head_dim]: position p stands at p % ring."""
Caches: TypeAlias = list[Cache]
"""A cache for each layer."""


def new_caches(config: TransformerConfig, dtype: mx.Dtype) -> Caches:
    """Those of one row. The ring is longer than the context by a stretch: what a stretch writes pushes out nothing
    that its first token still looks at, so a step and a stretch write first and look then."""
    shape = (1, config.kv_heads, config.context + STRETCH - 1, config.head_dim)
    return [[mx.zeros(shape, dtype), mx.zeros(shape, dtype)] for _ in range(config.layers)]


class Past(Protocol):
    """What the tokens of a step look back on."""

    @property
    def offset(self) -> mx.array | int:
        """The position of the first of them, for all calls or for each [n]."""

    def attend(self, layer: int, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        """Queries [n, heads, t, head_dim], with keys and values of the same tokens [n, kv_heads, t, head_dim]."""


class Rings:
    """The rings of some calls, which have come to `positions` [n]; the caches in it are replaced as they are written.

    As much of them is looked at as `reach` says: no call has more tokens in its ring, those of now included.
    """

    def __init__(self, caches: Sequence[Caches], positions: mx.array, t: int, context: int, reach: int) -> None:
        self.offset = positions
        self.caches = [[list(cache) for cache in call] for call in caches]
        ring = caches[0][0][0].shape[2]
        self._reach = min(reach, ring)
        self._written = (positions[:, None] + mx.arange(t)) % ring  # [n, t]
        position = (positions[:, None] + mx.arange(t))[..., None]  # [n, t, 1]
        last = position[:, -1:]
        held = last - (last - mx.arange(self._reach)) % ring  # the position that each entry holds; negative: none
        self._seen = ((held >= 0) & (held <= position) & (held > position - context))[:, None]  # [n, 1, t, reach]

    def attend(self, layer: int, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        out = []
        for i, call in enumerate(self.caches):
            cache = call[layer]
            for which, new in enumerate((k, v)):
                cache[which] = self._write(cache[which], new[i : i + 1].astype(cache[which].dtype), self._written[i])
            keys, values = (store[:, :, : self._reach].astype(q.dtype) for store in cache)
            out.append(attention(q[i : i + 1], keys, values, self._seen[i : i + 1]))
        return out[0] if len(out) == 1 else mx.concatenate(out)

    def _write(self, store: mx.array, new: mx.array, at: mx.array) -> mx.array:
        if at.shape[0] == 1:
            return mx.slice_update(store, new, at, (2,))
        return put(store, (slice(None), slice(None), at), new)


def put(to: mx.array, at: tuple[mx.array | slice, ...], values: mx.array) -> mx.array:
    """`to` with `values` at these places. MLX copies nothing if nobody keeps what was given."""
    changed = mx.array(to)  # a handle of its own: putting into it leaves that of the caller as it is
    changed[at] = values
    return changed


class Frame:
    """The codebooks of one frame that are written already; it begins anew with every frame."""

    def __init__(self) -> None:
        self.offset = 0
        self._layers: dict[int, Cache] = {}

    def attend(self, layer: int, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        before = self._layers.get(layer)
        new = (
            [mx.concatenate([old, one], axis=2) for old, one in zip(before, (k, v), strict=True)] if before else [k, v]
        )
        self._layers[layer] = new
        return attention(q, *new)


def attention(q: mx.array, k: mx.array, v: mx.array, seen: mx.array | None = None) -> mx.array:
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=seen)


class Norm:
    def __init__(self, load: Loader, name: str, kind: str) -> None:
        self._eps = EPS[kind]
        self._rms = kind.startswith("rms")
        stem = f"{name}.alpha" if self._rms else f"{name}.weight"
        self._weight = load.tensor(stem).flatten().astype(load.activations)
        self._bias = None if self._rms else load.tensor(f"{name}.bias").astype(load.activations)

    def __call__(self, x: mx.array) -> mx.array:
        if self._rms:
            return mx.fast.rms_norm(x, self._weight, self._eps)
        return mx.fast.layer_norm(x, self._weight, self._bias, self._eps)


class Layer:
    """One layer, with one set of weights."""

    def __init__(self, config: TransformerConfig, load: Loader, index: int, prefix: str, weights: int) -> None:
        self._config, self._index = config, index
        at = f"{prefix}.layers.{index}"
        self._norm_1, self._norm_2 = (Norm(load, f"{at}.norm{i}", config.norm) for i in (1, 2))
        self._qkv = load.linear(f"{at}.self_attn.in_projs.{weights}.weight")
        self._out = load.linear(f"{at}.self_attn.out_projs.{weights}.weight")
        gating = f"{at}.gating.{weights}" if len(config.hidden) > 1 else f"{at}.gating"
        names = ("linear_in", "linear_out") if config.gated else ("linear1", "linear2")
        wide, narrow = (f"{gating if config.gated else at}.{name}.weight" for name in names)
        self._wide: Linear = load.linear(wide)
        self._narrow: Linear = load.linear(narrow)
        scales = [f"{at}.layer_scale_{i}.scale" for i in (1, 2)] if config.scaled else []
        self._scales = [load.tensor(name).astype(load.activations) for name in scales]

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        """x [n, t, dim] gives as much."""
        x = x + self._scaled(0, self._out(self._attend(self._qkv(self._norm_1(x)), past)))
        wide = self._wide(self._norm_2(x))
        return x + self._scaled(1, self._narrow(gate(wide) if self._config.gated else gelu(wide)))

    def _attend(self, qkv: mx.array, past: Past) -> mx.array:
        config, (n, t, _) = self._config, qkv.shape
        heads = qkv.reshape(n, t, -1, config.head_dim).swapaxes(1, 2)  # [n, heads + 2 * kv_heads, t, head_dim]
        if config.rope:
            turned = config.heads + config.kv_heads
            heads = mx.concatenate([self._turn(heads[:, :turned], past.offset), heads[:, turned:]], axis=1)
        q, k, v = mx.split(heads, (config.heads, config.heads + config.kv_heads), axis=1)
        return past.attend(self._index, q, k, v).swapaxes(1, 2).reshape(n, t, -1)

    def _turn(self, x: mx.array, offset: mx.array | int) -> mx.array:
        pairs, base = self._config.rope == "pairs", self._config.max_period
        return mx.fast.rope(x, x.shape[-1], traditional=pairs, base=base, scale=1.0, offset=offset)

    def _scaled(self, which: int, x: mx.array) -> mx.array:
        return x * self._scales[which] if self._scales else x


def gate(x: mx.array) -> mx.array:
    opened, passed = mx.split(x, 2, axis=-1)
    return opened * mx.sigmoid(opened) * passed


def gelu(x: mx.array) -> mx.array:
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


class Transformer:
    """Layers with as many sets of weights as the configuration has; a call says which set it goes through."""

    def __init__(self, config: TransformerConfig, load: Loader, prefix: str) -> None:
        self.config = config
        self._layers = [
            [Layer(config, load, index, prefix, weights) for index in range(config.layers)]
            for weights in range(len(config.hidden))
        ]  # [weights][layer]

    def __call__(self, x: mx.array, past: Past, weights: int = 0) -> mx.array:
        """x [n, t, dim] gives as much."""
        for layer in self._layers[weights]:
            x = layer(x, past)
        return x
