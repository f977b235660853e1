"""A transformer that streams: the temporal and the depth one of the language model, and the two of Mimi."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import TransformerConfig
from .load import Linear, Loader
from .plain import Cache, Tokens, new_cache, rotation

EPS = {"rms_norm": 1e-5, "rms_norm_f32": 1e-8, "layer_norm": 1e-5, "layer_norm_f32": 1e-8}

Caches: TypeAlias = list[Cache]
"""A cache for each layer."""


class Norm:
    def __init__(self, load: Loader, name: str, kind: str) -> None:
        self._ops = load.ops
        self._eps = EPS[kind]
        self._rms = kind.startswith("rms")
        self._weight = load.tensor(f"{name}.alpha" if self._rms else f"{name}.weight").flatten().float()
        self._bias = None if self._rms else load.tensor(f"{name}.bias").float()

    def __call__(self, x: Tensor) -> Tensor:
        if self._bias is None:
            return self._ops.rms_norm(x, self._weight, self._eps)
        return self._ops.layer_norm(x, self._weight, self._bias, self._eps)


class Layer:
    """One layer, with one set of weights."""

    def __init__(self, config: TransformerConfig, load: Loader, prefix: str, weights: int, norms: tuple[Norm, Norm]):
        several = len(config.hidden) > 1
        self._ops = load.ops
        self._pairs = config.rope == "pairs"
        self._gated = config.gated
        self._norm_1, self._norm_2 = norms
        self._qkv = load.linear(f"{prefix}.self_attn.in_projs.{weights}.weight")
        self._out = load.linear(f"{prefix}.self_attn.out_projs.{weights}.weight")
        gating = f"{prefix}.gating.{weights}" if several else f"{prefix}.gating"
        names = ("linear_in", "linear_out") if config.gated else ("linear1", "linear2")
        wide, narrow = (f"{gating if config.gated else prefix}.{name}.weight" for name in names)
        self._wide: Linear = load.linear(wide)
        self._narrow: Linear = load.linear(narrow)
        self._scale_1 = load.tensor(f"{prefix}.layer_scale_1.scale") if config.scaled else None
        self._scale_2 = load.tensor(f"{prefix}.layer_scale_2.scale") if config.scaled else None

    def __call__(self, x: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None) -> Tensor:
        """`x` [n, dim] is changed in place and given back."""
        qkv = self._qkv(self._norm_1(x))
        seen = self._ops.attend(qkv, cache, tokens, turn, self._pairs)
        self._out.add(x, seen, self._scale_1)
        wide = self._wide(self._norm_2(x))
        self._narrow.add(x, self._ops.gate(wide) if self._gated else F.gelu(wide), self._scale_2)
        return x


class Transformer:
    """Layers with as many sets of weights as the configuration has; a call says which set it goes through."""

    def __init__(self, config: TransformerConfig, load: Loader, prefix: str) -> None:
        self.config = config
        self._device = load.device
        self._layers: list[list[Layer]] = [[] for _ in config.hidden]  # [weights][layer]
        for index in range(config.layers):
            name = f"{prefix}.layers.{index}"
            norms = Norm(load, f"{name}.norm1", config.norm), Norm(load, f"{name}.norm2", config.norm)
            for weights, layers in enumerate(self._layers):
                layers.append(Layer(config, load, name, weights, norms))

    def cache(self, rows: int, dtype: torch.dtype) -> Caches:
        config = self.config
        return [
            new_cache(rows, config.kv_heads, config.context, config.head_dim, dtype, self._device)
            for _ in range(config.layers)
        ]

    def __call__(self, x: Tensor, caches: Caches, tokens: Tokens, weights: int = 0) -> Tensor:
        """`x` [n, dim], a row for each of the tokens, gives as much; it may be changed in place."""
        config = self.config
        x = x.contiguous()
        turn = rotation(tokens.positions, config.head_dim, config.max_period) if config.rope else None
        for layer, cache in zip(self._layers[weights], caches, strict=True):
            x = layer(x, cache, tokens, turn)
        return x
