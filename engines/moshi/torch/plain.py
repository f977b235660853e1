"""The operations of the models in plain torch: what they mean, and what runs where there is no kernel of ours."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EIGHT_BITS = 127.0  # symmetric: -128 is left out


class Tokens(NamedTuple):
    """Where the tokens of a batch stand. Those of one row come together, in order."""

    rows: Tensor
    """Row of the cache, for each token [n]."""
    positions: Tensor
    """Place in the stream of that row [n]."""
    per_row: int
    reach: int
    """No row has as many tokens in the cache yet: as much of it is looked at."""
    together: bool = False
    """Whether those of one row enter the ring together, so that the first no longer sees what the last pushes out."""


class Cache(NamedTuple):
    """Keys and values of one layer, a ring of `context` entries a row: position p stands at p % context."""

    keys: Tensor  # [rows, heads, context, head_dim]
    values: Tensor
    scales: Tensor | None  # [2, rows, heads, context] for 8 bits: of keys and of values


def new_cache(rows: int, heads: int, context: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Cache:
    keys, values = torch.zeros(2, rows, heads, context, head_dim, dtype=dtype, device=device)
    if dtype != torch.int8:
        return Cache(keys, values, None)
    return Cache(keys, values, torch.zeros(2, rows, heads, context, device=device))


class Dense:
    """Weights as they are."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self._weight.dtype), self._weight).to(x.dtype)

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        product = self(x)
        to += product if scale is None else scale * product


dense = Dense


def int8(codes: Tensor, scale: Tensor) -> Dense:
    """Torch has no product for these that is right for every size on every device: they are widened to 16 bits."""
    return Dense((codes * scale[:, None]).bfloat16())


def int4(words: Tensor, scales: Tensor, biases: Tensor) -> Dense:
    codes = unpack(words, 4).view(*scales.shape, -1)
    return Dense((codes * scales[..., None] + biases[..., None]).flatten(1).bfloat16())


def unpack(words: Tensor, bits: int) -> Tensor:
    """The codes [m, k] in words of 32 bits [m, k * bits / 32], the first in the lowest bits."""
    codes = words.view(torch.uint8)
    return codes if bits == 8 else torch.stack([codes & 15, codes >> 4], dim=-1).flatten(1)


def rms_norm(x: Tensor, alpha: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * (alpha * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps))).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x.float(), weight.shape, weight, bias, eps).to(x.dtype)


def gate(x: Tensor) -> Tensor:
    opened, passed = x.chunk(2, dim=-1)
    return F.silu(opened) * passed


def elu(x: Tensor, to: Tensor) -> None:
    """Put x [n, steps, k], and e^x - 1 where it is negative, into the last steps of `to` [n, more + steps, k]."""
    torch.ops.aten.elu.out(x, out=to[:, to.shape[1] - x.shape[1] :])


def rotation(positions: Tensor, head_dim: int, max_period: float) -> Tensor:
    """Cosine and sine for each position and pair [n, head_dim / 2, 2]."""
    pairs = torch.arange(head_dim // 2, device=positions.device, dtype=torch.float32)
    speeds = torch.exp(pairs * (-math.log(max_period) * 2 / head_dim))
    angles = positions.float()[:, None] * speeds
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, turn: Tensor, pairs: bool) -> Tensor:
    """x [n, heads, head_dim] turned by `turn` [n, head_dim / 2, 2]."""
    wide = x.float()
    real, imaginary = wide.view(*x.shape[:-1], -1, 2).unbind(-1) if pairs else wide.chunk(2, dim=-1)
    cos, sin = turn[:, None].unbind(-1)
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return (torch.stack(turned, dim=-1).flatten(-2) if pairs else torch.cat(turned, dim=-1)).to(x.dtype)


def attend(qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor:
    """Put the tokens' keys and values into the cache, and let each look at its row as far as it goes back.

    `qkv` [n, (heads + 2 * kv_heads) * head_dim] gives [n, heads * head_dim]. A stretch of tokens of one row is
    the same as those tokens one by one.
    """
    _, kv_heads, context, head_dim = cache.keys.shape
    t = tokens.per_row
    q, k, v = _heads(qkv, kv_heads, head_dim)  # [n, heads, head_dim]
    if turn is not None:
        q, k = rotate(q, turn, pairs), rotate(k, turn, pairs)
    row = tokens.rows.view(-1, t)[:, 0]
    position = tokens.positions.view(-1, t)  # [b, t]
    reach = min(tokens.reach, context)
    entry = torch.arange(reach, device=qkv.device)
    last = position[:, :1] - 1
    held = last - (last - entry) % context  # the position that each entry holds; negative: none   [b, reach]
    newest = position[:, -1:].expand_as(position) if tokens.together else position
    pushed = newest - context  # positions up to here are out of the ring
    past = (held >= 0)[:, None] & (held[:, None] > pushed[..., None])  # [b, t, reach]
    order = torch.arange(t, device=qkv.device)
    age = order[:, None] - order
    now = ((age >= 0) & (age < context)).expand(len(row), t, t)
    seen = torch.cat([past, now], dim=-1)[:, None]  # [b, 1, t, reach + t]
    q, new_k, new_v = (x.view(len(row), t, -1, head_dim).transpose(1, 2) for x in (q, k, v))  # [b, heads, t, head_dim]
    old_k, old_v = (_read(cache, which, row, reach).to(q.dtype) for which in (0, 1))
    out = F.scaled_dot_product_attention(
        q,
        torch.cat([old_k, new_k], dim=2),
        torch.cat([old_v, new_v], dim=2),
        seen,
        enable_gqa=q.shape[1] != kv_heads,
    )
    kept = slice(max(0, t - context), t)
    at = (row[:, None].expand_as(position)[:, kept], position[:, kept] % context)
    for which, new in ((0, new_k), (1, new_v)):
        _write(cache, which, at, new[:, :, kept].transpose(1, 2))
    return out.transpose(1, 2).flatten(0, 1).flatten(1)


def _heads(qkv: Tensor, kv_heads: int, head_dim: int) -> tuple[Tensor, ...]:
    wide = kv_heads * head_dim
    q, k, v = qkv[:, : -2 * wide], qkv[:, -2 * wide : -wide], qkv[:, -wide:]
    return tuple(x.reshape(len(qkv), -1, head_dim) for x in (q, k, v))


def _read(cache: Cache, which: int, row: Tensor, reach: int) -> Tensor:
    stored = cache[which][:, :, :reach].index_select(0, row)  # type: ignore[index]
    if cache.scales is None:
        return stored
    return stored * cache.scales[which, :, :, :reach].index_select(0, row)[..., None]


def _write(cache: Cache, which: int, at: tuple[Tensor, Tensor], new: Tensor) -> None:
    """Put `new` [b, t, heads, head_dim] at (row, entry)."""
    row, entry = at
    store = (cache.keys, cache.values)[which]
    if cache.scales is None:
        store[row, :, entry] = new.to(store.dtype)
        return
    wide = new.float()
    scale = wide.abs().amax(-1) / EIGHT_BITS
    store[row, :, entry] = (wide / scale.clamp_min(1e-12)[..., None]).round().to(torch.int8)
    cache.scales[which][row, :, entry] = scale


def sample(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """A token for each row of `logits` [n, card], drawn by `noise` [n] from 0 to 1; temperature 0 takes the likeliest.

    Only the `top_k` likeliest count, all of them when it is 0. The noise is given, so that a call draws the same
    alone and among others.
    """
    card = logits.shape[-1]
    likeliest = logits.argmax(-1)
    keep = torch.where((top_k <= 0) | (top_k > card), card, top_k)
    sorted_logits = logits.sort(-1, descending=True).values
    least = sorted_logits.gather(-1, keep[:, None] - 1)
    cold = temperature <= 0
    scaled = logits.double() / torch.where(cold, 1.0, temperature.double())[:, None]
    chances = torch.softmax(scaled.masked_fill(logits < least, -torch.inf), dim=-1)
    drawn = (chances.cumsum(-1) <= noise.double()[:, None]).sum(-1)
    last = card - 1 - (chances.flip(-1) > 0).int().argmax(-1)  # rounding must not go past what may be drawn
    return torch.where(cold, likeliest, torch.minimum(drawn, last))
