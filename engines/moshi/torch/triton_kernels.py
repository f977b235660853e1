# mypy: ignore-errors
# A kernel is Triton's own language in Python's clothes: there is nothing in it for a type checker.
"""The CUDA kernels, in Triton: each is one launch, takes nothing from the host but sizes, and so fits in a graph.

`plain` says what each means. Numbers that only cost or save time stand on top.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BUSY = 2048  # programs that keep all of a large GPU's processors reading
ENTRIES = 64  # of a ring, looked at together
CHUNK = 8192  # logits looked at together
FLOOR = tl.constexpr(-1e30)  # below any score, and yet a number: what has seen nothing weighs nothing
NEAREST = tl.constexpr(12582912.0)  # 1.5 * 2^23: added and taken away, it rounds to the nearest integer, ties to even


def rms_norm(x, alpha, eps):
    n, dim = x.shape
    y = torch.empty_like(x)
    _rms_norm[(n,)](x, alpha, y, eps, dim, triton.next_power_of_2(dim), num_warps=8 if dim > 2048 else 4)
    return y


@triton.jit
def _rms_norm(x_at, alpha_at, y_at, eps, DIM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * DIM
    d = tl.arange(0, BLOCK)
    x = tl.load(x_at + row + d, mask=d < DIM, other=0.0).to(tl.float32)
    alpha = tl.load(alpha_at + d, mask=d < DIM, other=0.0)
    y = x * (alpha * tl.rsqrt(tl.sum(x * x) / DIM + eps))
    tl.store(y_at + row + d, y.to(y_at.dtype.element_ty), mask=d < DIM)


def gate(x):
    n, wide = x.shape
    y = x.new_empty(n, wide // 2)
    _gate[(n, triton.cdiv(wide // 2, 1024))](x, y, wide // 2, 1024)
    return y


@triton.jit
def _gate(x_at, y_at, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    opened = tl.load(x_at + row * 2 * WIDE + d, mask=d < WIDE, other=0.0).to(tl.float32)
    passed = tl.load(x_at + row * 2 * WIDE + WIDE + d, mask=d < WIDE, other=0.0).to(tl.float32)
    y = opened * tl.sigmoid(opened) * passed
    tl.store(y_at + row * WIDE + d, y.to(y_at.dtype.element_ty), mask=d < WIDE)


def attend(qkv, cache, tokens, turn, pairs):
    """As `plain.attend`, for single tokens and those that come together. A token of row -1 is nobody's."""
    _, kv_heads, context, head_dim = cache.keys.shape
    scales = (None, None) if cache.scales is None else cache.scales.unbind()
    n, heads = len(qkv), qkv.shape[1] // head_dim - 2 * kv_heads
    splits = min(BUSY // (n * heads), context // (2 * ENTRIES))
    splits = 1 << (splits.bit_length() - 1) if splits > 1 else 1
    out = qkv.new_empty(n, heads * head_dim)
    seen = torch.empty(n * heads, splits, head_dim, device=qkv.device) if splits > 1 else out
    weights = torch.empty(2, n * heads, splits, device=qkv.device) if splits > 1 else out
    _attend[(heads, n, splits)](
        *(qkv, cache.keys, cache.values, *scales, tokens.rows, tokens.positions, turn, seen, weights),
        *(heads, kv_heads, context, head_dim, tokens.per_row, pairs, splits),
        min(ENTRIES, triton.next_power_of_2(context)),
    )
    if splits > 1:
        _merge[(n * heads,)](seen, weights, out, n * heads, head_dim, splits)
    return out


@triton.jit
def _attend(
    qkv_at,
    keys_at,
    values_at,
    key_scales_at,
    value_scales_at,
    rows_at,
    positions_at,
    turn_at,
    seen_at,
    weights_at,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    CONTEXT: tl.constexpr,
    DIM: tl.constexpr,
    TOGETHER: tl.constexpr,
    PAIRS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of one token over one part of the ring. What is new comes from `qkv`, and nobody reads the entries that
    it goes into: so it does not matter which program comes first."""
    head, token, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = token - token % TOGETHER
    row = tl.load(rows_at + token)
    position = tl.load(positions_at + first).to(tl.int32)
    kv_head = head // (HEADS // KV_HEADS)
    ring = (tl.maximum(row, 0) * KV_HEADS + kv_head) * CONTEXT
    wide: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    d = tl.arange(0, DIM)
    q = _turned(qkv_at + token * wide + head * DIM, turn_at, token, d, DIM, PAIRS) * DIM**-0.5
    held = tl.where(row < 0, 0, tl.minimum(position, CONTEXT))
    part = tl.cdiv(held, SPLITS)
    stores = (keys_at, values_at, key_scales_at, value_scales_at)
    begin, low, high = position % CONTEXT, split * part, tl.minimum(split * part + part, held)
    top, total, seen = _past(q, stores, ring, begin, low, high, d, CONTEXT, DIM, TOGETHER, BLOCK)
    if split == 0:
        for new in tl.static_range(TOGETHER):
            other = first + new
            k_at = qkv_at + other * wide + (HEADS + kv_head) * DIM
            k = _turned(k_at, turn_at, other, d, DIM, PAIRS)
            v = tl.load(k_at + KV_HEADS * DIM + d).to(tl.float32)
            score = tl.where(other <= token, tl.sum(k * q), float("-inf"))
            higher = tl.maximum(top, score)
            weight, less = tl.exp(score - higher), tl.exp(top - higher)
            top, total, seen = higher, total * less + weight, seen * less + weight * v
            writes = (other == token) & (head % (HEADS // KV_HEADS) == 0) & (row >= 0)
            at = ring + (position + new) % CONTEXT
            _write(keys_at, key_scales_at, at, k, writes, d, DIM)
            _write(values_at, value_scales_at, at, v, writes, d, DIM)

    at = (token * HEADS + head) * SPLITS + split
    if SPLITS == 1:
        seen /= total
    else:
        tl.store(weights_at + at, top)
        tl.store(weights_at + tl.num_programs(0) * tl.num_programs(1) * SPLITS + at, total)
    tl.store(seen_at + at * DIM + d, seen.to(seen_at.dtype.element_ty))


@triton.jit
def _past(
    q,
    stores,
    ring,
    begin,
    low,
    high,
    d,
    CONTEXT: tl.constexpr,
    DIM: tl.constexpr,
    TOGETHER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The highest score of the entries from `low` to `high`, their weights' sum, and the sum of their values by weight.

    The new tokens go into the entries from `begin` on.
    """
    keys_at, values_at, key_scales_at, value_scales_at = stores
    top = tl.full([], FLOOR, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    seen = tl.zeros([DIM], tl.float32)
    for start in range(low, high, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        here = (entry < high) & ((entry - begin + CONTEXT) % CONTEXT >= TOGETHER)
        at = ring + entry
        k = tl.load(keys_at + at[:, None] * DIM + d, mask=here[:, None], other=0).to(tl.float32)
        v = tl.load(values_at + at[:, None] * DIM + d, mask=here[:, None], other=0).to(tl.float32)
        score = tl.sum(k * q, 1)
        if key_scales_at is not None:
            score *= tl.load(key_scales_at + at, mask=here, other=0.0)
        score = tl.where(here, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score))
        weight, less = tl.exp(score - higher), tl.exp(top - higher)
        top, total = higher, total * less + tl.sum(weight)
        if value_scales_at is not None:
            weight *= tl.load(value_scales_at + at, mask=here, other=0.0)
        seen = seen * less + tl.sum(weight[:, None] * v, 0)
    return top, total, seen


@triton.jit
def _turned(x_at, turn_at, token, d, DIM: tl.constexpr, PAIRS: tl.constexpr):
    """One head of one token, turned by where the token stands, and rounded as it will be kept."""
    x = tl.load(x_at + d).to(tl.float32)
    if turn_at is not None:
        mate = d ^ 1 if PAIRS else (d + DIM // 2) % DIM
        mates = tl.load(x_at + mate).to(tl.float32)
        angle = turn_at + token * DIM + 2 * (d // 2 if PAIRS else d % (DIM // 2))
        x = x * tl.load(angle) + tl.where(d < mate, -mates, mates) * tl.load(angle + 1)
        x = x.to(x_at.dtype.element_ty).to(tl.float32)
    return x


@triton.jit
def _write(store_at, scales_at, at, x, writes, d, DIM: tl.constexpr):
    """Put x [DIM] into one entry of the ring, if `writes`."""
    if scales_at is not None:
        scale = tl.max(tl.abs(x)) / 127.0
        tl.store(scales_at + at, scale, mask=writes)
        x = (x / tl.maximum(scale, 1e-12) + NEAREST) - NEAREST
    tl.store(store_at + at * DIM + d, x.to(store_at.dtype.element_ty), mask=(d >= 0) & writes)


@triton.jit
def _merge(seen_at, weights_at, out_at, count, DIM: tl.constexpr, SPLITS: tl.constexpr):
    at = tl.program_id(0) * SPLITS + tl.arange(0, SPLITS)
    d = tl.arange(0, DIM)
    top = tl.load(weights_at + at)
    weight = tl.exp(top - tl.max(top))
    total = tl.sum(weight * tl.load(weights_at + count * SPLITS + at))
    seen = tl.sum(weight[:, None] * tl.load(seen_at + at[:, None] * DIM + d), 0) / total
    tl.store(out_at + tl.program_id(0) * DIM + d, seen.to(out_at.dtype.element_ty))


def sample(logits, temperature, top_k, noise):
    n, card = logits.shape
    token = torch.empty(n, dtype=torch.int64, device=logits.device)
    block = min(CHUNK, triton.next_power_of_2(card))
    _sample[(n,)](logits, temperature, top_k, noise, token, card, block, num_warps=max(4, block // 512))
    return token


@triton.jit
def _sample(logits_at, temperature_at, top_k_at, noise_at, token_at, CARD: tl.constexpr, BLOCK: tl.constexpr):
    """Finds the least logit that counts by halving where it may lie: nothing need be sorted, however many count."""
    row = tl.program_id(0)
    logits_at += row.to(tl.int64) * CARD
    temperature = tl.load(temperature_at + row)
    cold = temperature <= 0
    top_k = tl.load(top_k_at + row)
    keep = tl.where((top_k <= 0) | (top_k > CARD), CARD, top_k).to(tl.int32)
    d = tl.arange(0, BLOCK)

    top = tl.full([], float("-inf"), tl.float32)
    for start in range(0, CARD, BLOCK):
        x = tl.load(logits_at + start + d, mask=start + d < CARD, other=float("-inf"))
        top = tl.maximum(top, tl.max(x))

    high = tl.full([], 2**31 - 1, tl.int64)  # of logits as integers that stand in the same order
    low = tl.where(cold, high, -(2**31))
    while low < high:
        middle = (low + high + 1) >> 1
        count = tl.full([], 0, tl.int32)
        for start in range(0, CARD, BLOCK):
            x = tl.load(logits_at + start + d, mask=start + d < CARD, other=float("-inf"))
            bits = x.to(tl.int32, bitcast=True)
            count += tl.sum(((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >= middle).to(tl.int32))
        low = tl.where(count >= keep, middle, low)
        high = tl.where(count > keep, high, tl.where(count == keep, middle, middle - 1))
    bits = low.to(tl.int32)
    least = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)

    by = 1.0 / tl.where(cold, 1.0, temperature)
    total = tl.full([], 0.0, tl.float64)
    likeliest = tl.full([], CARD, tl.int32)
    for start in range(0, CARD, BLOCK):
        x = tl.load(logits_at + start + d, mask=start + d < CARD, other=float("-inf"))
        total += tl.sum(tl.where(x >= least, tl.exp((x - top) * by), 0.0).to(tl.float64))
        likeliest = tl.minimum(likeliest, tl.min(tl.where(x == top, start + d, CARD)))

    target = total * tl.load(noise_at + row).to(tl.float64)
    reached = tl.full([], 0.0, tl.float64)
    drawn = tl.full([], CARD, tl.int32)
    last = tl.full([], 0, tl.int32)  # rounding must not go past what may be drawn
    for start in range(0, CARD, BLOCK):
        x = tl.load(logits_at + start + d, mask=start + d < CARD, other=float("-inf"))
        chance = tl.where(x >= least, tl.exp((x - top) * by), 0.0)
        wide = chance.to(tl.float64)
        past = (chance > 0) & (reached + tl.cumsum(wide) > target)
        drawn = tl.minimum(drawn, tl.min(tl.where(past, start + d, CARD)))
        last = tl.maximum(last, tl.max(tl.where(chance > 0, start + d, 0)))
        reached += tl.sum(wide)
    token = tl.where(cold, likeliest, tl.minimum(drawn, last))
    tl.store(token_at + row, tl.minimum(token, CARD - 1).to(tl.int64))


def product(x, weight, scale, bias=None):
    """x [n, k] by weights that are widened on the way: int8, float8 [m, k] with a scale [m], or words of eight codes
    [m, k / 8] with a scale and a bias for each group of a row [m, groups]. So it reads few bytes, and rounds no x."""
    n, k = x.shape
    m = len(weight)
    block_n = min(64, max(16, triton.next_power_of_2(n)))
    block_m, block_k, stages = (16, 256, 4) if n <= 16 else (64, 128, 3)
    y = x.new_empty(n, m)
    _product[(triton.cdiv(m, block_m), triton.cdiv(n, block_n))](
        *(x.contiguous(), weight, scale, bias, y, n, m, k, 0 if bias is None else k // bias.shape[1]),
        *(block_m, block_n, block_k),
        num_stages=stages,
    )
    return y


@triton.jit(do_not_specialize=["n"])
def _product(
    x_at,
    weight_at,
    scale_at,
    bias_at,
    y_at,
    n,
    m,
    k,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    out = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, k, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        if GROUP == 0:
            weight = tl.load(weight_at + out * k + at, mask=(out < m) & (at < k), other=0.0)
        else:
            word = start // 8 + tl.arange(0, BLOCK_K // 8)
            words = tl.load(weight_at + out * (k // 8) + word, mask=(out < m) & (word < k // 8), other=0)
            codes = (words[:, :, None] >> (4 * tl.arange(0, 8))) & 15  # [BLOCK_M, words, 8]
            codes = codes.reshape(BLOCK_M, BLOCK_K // GROUP, GROUP)
            group = start // GROUP + tl.arange(0, BLOCK_K // GROUP)
            here = (out < m) & (group < k // GROUP)
            scale = tl.load(scale_at + out * (k // GROUP) + group, mask=here, other=0.0).to(tl.float32)
            bias = tl.load(bias_at + out * (k // GROUP) + group, mask=here, other=0.0).to(tl.float32)
            weight = (codes * scale[:, :, None] + bias[:, :, None]).reshape(BLOCK_M, BLOCK_K)
        x = tl.load(x_at + row * k + at[:, None], mask=(row < n) & (at < k)[:, None], other=0.0)
        y = tl.dot(weight.to(x.dtype), x, y)
    if GROUP == 0:
        y *= tl.load(scale_at + out, mask=out < m, other=0.0)
    tl.store(y_at + row * m + out, y.to(y_at.dtype.element_ty), mask=(out < m) & (row < n))


def float8(x, rows):
    """x [n, k] as float8 with a scale for each row [rows, 1]; there are zeros in the rows that x has not."""
    n, k = x.shape
    codes = torch.empty(rows, k, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, 1, device=x.device)
    _float8[(rows,)](x.contiguous(), codes, scale, n, k, triton.next_power_of_2(k), num_warps=8)
    return codes, scale


@triton.jit(do_not_specialize=["n"])
def _float8(x_at, codes_at, scale_at, n, DIM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    x = tl.load(x_at + row * DIM + d, mask=(d < DIM) & (row < n), other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x)), 1e-12) / 448.0
    tl.store(codes_at + row * DIM + d, (x / scale).to(codes_at.dtype.element_ty), mask=d < DIM)
    tl.store(scale_at + row, scale)
