"""The CPU kernels against plain torch, for sizes that fit nothing, and for equal bits in any batch."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from voice_bridge.engines.moshi.torch import native  # noqa: E402
from voice_bridge.engines.moshi.torch.plain import Cache, Tokens  # noqa: E402

needs_kernels = pytest.mark.skipif(not native.available(), reason="the kernels cannot be built here; the log says why")

SHAPES = [(1, 16), (5, 33), (64, 64), (70, 96), (129, 100), (33, 2048)]  # m, k
BATCHES = [1, 2, 3, 5, 7, 9, 17, 40, 130]
GROUPS = [(5, 32, 32), (70, 96, 32), (129, 192, 64), (33, 2048, 64), (16, 48, 16)]  # m, k, group


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def int8_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = values.abs().amax(-1) / 127
    return (values / scale[..., None]).round(), scale


def on_codes(n: int, k: int, group: int) -> Tensor:
    """Activations that eight bits hold exactly: the largest of each group is 127 steps."""
    x = torch.randint(-127, 128, (n, k // group, group)).float()
    x[..., group // 2] = 127
    return (x * 2.0 ** torch.randint(-8, 1, (n, k // group, 1))).view(n, k)


def words(codes: Tensor) -> Tensor:
    """Codes of four bits [m, k] as MLX packs them."""
    shifted = codes.view(len(codes), -1, 8).long() << (4 * torch.arange(8))
    return shifted.sum(-1).to(torch.uint32)


def four_bits(m: int, k: int, group: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Words, scales and biases that float16 holds, and the weights that they mean."""
    codes = torch.randint(0, 16, (m, k))
    scales = torch.rand(m, k // group).half().float()
    biases = torch.randn(m, k // group).half().float() - 7.5 * scales.half().float()
    biases = biases.half().float()
    weights = (codes.view(m, -1, group) * scales[..., None] + biases[..., None]).view(m, k)
    return words(codes), scales, biases, weights


def close(actual: Tensor, expected: Tensor, terms: int, size: float = 1.0) -> None:
    """Within what float32 rounding does to a sum of so many terms of that size."""
    torch.testing.assert_close(actual.double(), expected.double(), atol=2e-7 * terms * size, rtol=1e-6)


# ---- linear


@needs_kernels
@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize(("m", "k"), SHAPES)
def test_a_product_is_that_of_torch(m: int, k: int, n: int) -> None:
    x, weight = torch.randn(n, k), torch.randn(m, k)
    close(native.dense(weight)(x), x.double() @ weight.double().T, k)

    half = weight.bfloat16()
    close(native.dense(half)(x), x.bfloat16().double() @ half.double().T, k)

    codes, scale = int8_codes(weight)
    eight, x = native.int8(codes.to(torch.int8), scale), on_codes(n, k, k)
    close(eight(x), x.double() @ (codes * scale[:, None]).double().T, k, size=127)


@needs_kernels
@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize(("m", "k", "group"), GROUPS)
def test_a_product_with_four_bit_weights_is_that_of_the_weights_they_mean(m: int, k: int, group: int, n: int) -> None:
    x = on_codes(n, k, group)
    packed, scales, biases, weights = four_bits(m, k, group)
    close(native.int4(packed, scales, biases)(x), x.double() @ weights.double().T, k, size=127 * 16)


@needs_kernels
def test_activations_are_rounded_to_the_nearest_of_eight_bits() -> None:
    """So the error of one product is at most half a step of each."""
    x = torch.randn(40, 64)
    rounded = native.int8(127 * torch.eye(64, dtype=torch.int8), torch.full((64,), 1 / 127))(x)
    step = x.abs().amax(1, keepdim=True) / 127
    assert ((rounded - x).abs() <= step * 0.5001).all()
    words_of_ones = words(torch.eye(64, dtype=torch.int64))
    by_groups = native.int4(words_of_ones, torch.ones(64, 2), torch.zeros(64, 2))(x)
    step = x.view(40, 2, 32).abs().amax(2, keepdim=True) / 127
    assert ((by_groups - x).view(40, 2, 32).abs() <= step * 0.5001).all()


@needs_kernels
@pytest.mark.parametrize(("m", "k", "group"), GROUPS)
def test_four_bit_weights_may_come_as_signed_words(m: int, k: int, group: int) -> None:
    x = torch.randn(3, k)
    packed, scales, biases, _ = four_bits(m, k, group)
    signed = native.int4(packed.view(torch.int32), scales, biases)
    assert torch.equal(signed(x), native.int4(packed, scales, biases)(x))


def linears() -> dict[str, tuple[int, Callable[[], native.Linear]]]:
    """Of every kind one, 70 rows by as many columns as it says."""
    return {
        "float32": (100, lambda: native.dense(torch.randn(70, 100))),
        "bf16": (100, lambda: native.dense(torch.randn(70, 100).bfloat16())),
        "int8": (100, lambda: native.int8(torch.randint(-127, 128, (70, 100), dtype=torch.int8), torch.rand(70))),
        "int4": (96, lambda: native.int4(*four_bits(70, 96, 32)[:3])),
    }


@needs_kernels
@pytest.mark.parametrize("kind", linears())
def test_a_product_is_added_in_place_and_scaled(kind: str) -> None:
    k, make = linears()[kind]
    linear, x, to, scale = make(), torch.randn(5, k), torch.randn(5, 70), torch.randn(70)
    product = linear(x)
    added, scaled = to.clone(), to.clone()
    linear.add(added, x)
    linear.add(scaled, x, scale)
    close(added, to + product, 1, size=float(product.abs().max()))
    close(scaled, to + scale * product, 2, size=float(product.abs().max()))


@needs_kernels
@pytest.mark.parametrize("kind", linears())
def test_a_row_of_a_product_has_the_same_bits_in_any_company(kind: str) -> None:
    k, make = linears()[kind]
    linear, x = make(), torch.randn(17, k)
    order = torch.randperm(17)
    together = linear(x)
    assert all(torch.equal(together[first:], linear(x[first:])) for first in range(17))
    assert torch.equal(together[order], linear(x[order]))
    assert torch.equal(together, linear(torch.cat([x] * 9))[-17:])


@needs_kernels
def test_threads_do_not_change_a_bit() -> None:
    m, k = 3000, 1000
    linear = native.int8(torch.randint(-127, 128, (m, k), dtype=torch.int8), torch.rand(m))
    dense, x = native.dense(torch.randn(m, k)), torch.randn(9, k)
    cache, tokens, qkv = new_cache(torch.bfloat16, 9, 8, 600, 64), at(list(range(9)), [599] * 9), torch.randn(9, 1536)

    def all_of_it() -> list[Tensor]:
        copy = Cache(cache.keys.clone(), cache.values.clone(), None)
        return [linear(x), dense(x), native.attend(qkv, copy, tokens, None, True), copy.keys]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = all_of_it()
        torch.set_num_threads(2)
        assert all(torch.equal(a, b) for a, b in zip(alone, all_of_it(), strict=True))
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_rows_of_zeros_give_zeros() -> None:
    for k, make in linears().values():
        assert not make()(torch.zeros(2, k)).any()


# ---- norms and gate


@needs_kernels
@pytest.mark.parametrize(("n", "k"), [(1, 5), (3, 16), (17, 100), (2, 4096)])
def test_norms_and_gate_are_those_of_torch(n: int, k: int) -> None:
    x, weight, bias = torch.randn(n, k) * 3 + 1, torch.randn(k), torch.randn(k)
    close(native.rms_norm(x, weight, 1e-5), F.rms_norm(x.double(), (k,), weight.double(), 1e-5), 10)
    close(native.layer_norm(x, weight, bias, 1e-5), F.layer_norm(x.double(), (k,), weight.double(), bias.double()), 20)
    h = torch.randn(n, 2 * k) * 20
    close(native.gate(h), F.silu(h[:, :k].double()) * h[:, k:].double(), 1)
    alone = torch.cat([native.rms_norm(row[None], weight, 1e-5) for row in x])
    assert torch.equal(alone, native.rms_norm(x, weight, 1e-5))


@needs_kernels
def test_the_gate_holds_at_the_ends_of_float32() -> None:
    h = torch.tensor([[-1e4, -200.0, -80.0, 0.0, 80.0, 200.0, 1e30, 1.0] + [1.0] * 8])
    torch.testing.assert_close(native.gate(h), F.silu(h[:, :8]), rtol=1e-6, atol=1e-30)


@needs_kernels
def test_elu_goes_into_the_last_steps_and_is_exact_where_it_is_small() -> None:
    x, to = torch.randn(3, 2, 21) * torch.tensor(10.0) ** torch.randint(-6, 2, (3, 2, 21)), torch.randn(3, 5, 21)
    before = to.clone()
    native.elu(x, to)
    torch.testing.assert_close(to[:, 3:].double(), F.elu(x.double()), atol=0, rtol=1e-6)
    assert torch.equal(to[:, :3], before[:, :3])


# ---- attention


def new_cache(dtype: torch.dtype, rows: int, kv_heads: int, capacity: int, size: int) -> Cache:
    keys, values = torch.randn(2, rows, kv_heads, capacity, size)
    if dtype != torch.int8:
        return Cache(keys.to(dtype), values.to(dtype), None)
    (keys, key_scale), (values, value_scale) = int8_codes(keys), int8_codes(values)
    return Cache(keys.to(dtype), values.to(dtype), torch.stack([key_scale, value_scale]))


def at(rows: list[int], positions: list[int]) -> Tokens:
    return Tokens(torch.tensor(rows), torch.tensor(positions), 1, max(positions))


def turned(x: Tensor, turn: Tensor | None, pairs: bool) -> Tensor:
    """x [heads, size] by turn [size / 2, 2]."""
    if turn is None:
        return x
    cos, sin = turn.double().unbind(-1)
    a, b = (x[:, 0::2], x[:, 1::2]) if pairs else x.chunk(2, dim=1)
    both = (a * cos - b * sin, a * sin + b * cos)
    return torch.stack(both, -1).flatten(1) if pairs else torch.cat(both, 1)


def attended(qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor:
    """What `attend` means, token by token in float64; `cache` is float64 and moves on."""
    _, kv_heads, capacity, size = cache.keys.shape
    results = []
    for i, (row, position) in enumerate(zip(tokens.rows.tolist(), tokens.positions.tolist(), strict=True)):
        heads = qkv[i].double().view(-1, size)
        q, k, v = heads[: -2 * kv_heads], heads[-2 * kv_heads : -kv_heads], heads[-kv_heads:]
        angle = None if turn is None else turn[i]
        cache.keys[row, :, position % capacity] = turned(k, angle, pairs)
        cache.values[row, :, position % capacity] = v
        held = min(position + 1, capacity)
        shared = len(q) // kv_heads
        keys, values = (x[row, :, :held].repeat_interleave(shared, 0) for x in (cache.keys, cache.values))
        weights = torch.softmax((turned(q, angle, pairs)[:, None] @ keys.transpose(1, 2)) / size**0.5, -1)
        results.append((weights @ values).flatten())
    return torch.stack(results)


def turns(n: int, size: int) -> Tensor:
    angles = torch.randn(n, size // 2) * 10
    return torch.stack([angles.cos(), angles.sin()], -1)


def exact(cache: Cache) -> Cache:
    """The cache's contents in float64."""
    scales = 1.0 if cache.scales is None else cache.scales.double()[..., None]
    keys, values = torch.stack([cache.keys.double(), cache.values.double()]) * scales
    return Cache(keys, values, None)


TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 0.02, torch.int8: 0.04}
"""Rounding of the keys and values that were just written; what was there before is the same for both."""


@needs_kernels
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "capacity"),
    [(4, 4, 64, 8), (4, 2, 64, 300), (4, 1, 128, 20), (2, 2, 24, 5), (3, 1, 6, 33), (2, 1, 200, 17)],
)
def test_attention_is_that_of_torch(
    heads: int, kv_heads: int, size: int, capacity: int, dtype: torch.dtype, pairs: bool
) -> None:
    cache = new_cache(dtype, 3, kv_heads, capacity, size)
    for step in (0, 1, 2, 3, 7, 15, 16, 17, 40, 299, 301):  # before, at and beyond the ring's end
        tokens = at([2, 0, 1], [step, step // 2, step + 3])
        turn = None if step == 7 else turns(3, size)
        qkv = torch.randn(3, (heads + 2 * kv_heads) * size)
        expected = attended(qkv, exact(cache), tokens, turn, pairs)
        actual = native.attend(qkv, cache, tokens, turn, pairs)
        torch.testing.assert_close(actual.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@needs_kernels
@pytest.mark.parametrize("size", [64, 128, 24])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_reading_a_stored_ring_adds_next_to_no_error(dtype: torch.dtype, size: int) -> None:
    """The token's own key and value are zeros, which any type holds: only the arithmetic is left."""
    cache, tokens = new_cache(dtype, 1, 2, 700, size), at([0], [699])
    qkv = torch.cat([torch.randn(1, 2 * size), torch.zeros(1, 4 * size)], 1)
    expected = attended(qkv, exact(cache), tokens, None, True)
    actual = native.attend(qkv, cache, tokens, None, True)
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("size", [64, 6])
def test_what_is_stored_in_eight_bits_is_the_nearest_code(size: int) -> None:
    cache = new_cache(torch.int8, 2, 2, 10, size)
    before = [x.clone() for x in (cache.keys, cache.values)]
    qkv = torch.randn(1, 4 * size + 2 * size)
    native.attend(qkv, cache, at([1], [13]), None, True)
    assert cache.scales is not None
    for which, (stored, old) in enumerate(zip((cache.keys, cache.values), before, strict=True)):
        new = qkv[0, (1 + which) * 2 * size :][: 2 * size].view(2, size)
        codes, scale = int8_codes(new)
        torch.testing.assert_close(cache.scales[which, 1, :, 3], scale)
        assert torch.equal(stored[1, :, 3].float(), codes)
        stored[1, :, 3] = old[1, :, 3]
        assert torch.equal(stored, old)  # and nothing else was touched


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [64, 10])
def test_a_stretch_has_the_bits_of_its_tokens_given_one_by_one(dtype: torch.dtype, size: int) -> None:
    """Two streams, mixed, of which one wraps around its ring twice."""
    one, other = (new_cache(dtype, 2, 2, 12, size) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        if a is not None:
            b.copy_(a)
    rows, positions = [0, 1] * 30, [x for i in range(30) for x in (i, 5 + i)]
    qkv, turn = torch.randn(60, 8 * size), turns(60, size)
    at_once = native.attend(qkv, one, at(rows, positions), turn, True)
    steps = [
        native.attend(qkv[i : i + 1], other, at(rows[i : i + 1], positions[i : i + 1]), turn[i : i + 1], True)
        for i in range(60)
    ]
    assert torch.equal(at_once, torch.cat(steps))
    assert all(a is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))


@needs_kernels
def test_tokens_that_enter_together_push_out_the_oldest_first() -> None:
    """Each then sees itself and what is before it, as far as the ring holds it after the last has entered."""
    capacity, stretch = 7, 3
    cache, qkv = Cache(*torch.zeros(2, 1, 1, capacity, 64), None), torch.randn(21, 3 * 64)
    q, k, v = (x.double() for x in qkv.chunk(3, dim=1))
    for first in range(0, 21, stretch):
        entering = range(first, first + stretch)
        tokens = at([0] * stretch, list(entering))._replace(per_row=stretch, together=True)
        actual = native.attend(qkv[first : first + stretch], cache, tokens, None, True)
        oldest = max(0, entering[-1] + 1 - capacity)
        for i, position in enumerate(entering):
            seen = slice(oldest, position + 1)
            weights = torch.softmax(k[seen] @ q[position] / 8, 0)
            torch.testing.assert_close(actual[i].double(), weights @ v[seen], atol=2e-6, rtol=2e-6)


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_token_has_the_same_bits_in_any_company(dtype: torch.dtype) -> None:
    cache = new_cache(dtype, 17, 2, 40, 64)
    positions = torch.randint(0, 90, (17,))
    qkv, turn, order = torch.randn(17, 8 * 64), turns(17, 64), torch.randperm(17)

    def alone(i: int) -> Tensor:
        return native.attend(qkv[i : i + 1], cache, at([i], [int(positions[i])]), turn[i : i + 1], True)

    together = native.attend(qkv, cache, Tokens(torch.arange(17), positions, 1, 90), turn, True)
    shuffled = native.attend(qkv[order], cache, Tokens(order, positions[order], 1, 90), turn[order], True)
    assert torch.equal(together, torch.cat([alone(i) for i in range(17)]))
    assert torch.equal(together[order], shuffled)


# ---- sampling


def draw(logits: Tensor, temperature: float, top_k: int, noise: Tensor) -> Tensor:
    n = len(noise)
    return native.sample(
        logits.expand(n, -1).contiguous(), torch.full((n,), temperature), torch.full((n,), top_k), noise
    )


@needs_kernels
@pytest.mark.parametrize("card", [3, 2048, 2049, 32000])
@pytest.mark.parametrize("top_k", [0, 1, 25, 250, 1500, 10**6])
def test_a_choice_is_the_first_whose_cumulative_probability_exceeds_the_noise(card: int, top_k: int) -> None:
    logits, noise = torch.randn(6, card) * 3, torch.rand(6)
    keep = top_k if 0 < top_k < card else card
    kept = logits.masked_fill(logits < logits.topk(keep).values[:, -1:], -torch.inf)
    cumulative = torch.softmax(kept.double() / 0.7, -1).cumsum(-1)
    chosen = native.sample(logits, torch.full((6,), 0.7), torch.full((6,), top_k), noise)[:, None]
    assert (kept.gather(1, chosen) > -torch.inf).all()
    assert (cumulative.gather(1, chosen)[:, 0] > noise - 1e-6).all()
    before = torch.where(chosen > 0, cumulative.gather(1, (chosen - 1).clamp_min(0)), 0.0)
    assert (before[:, 0] <= noise + 1e-6).all()


@needs_kernels
def test_choices_come_as_often_as_their_probability_says() -> None:
    logits, count = torch.randn(1, 500), 20000
    drawn = draw(logits, 0.8, 20, (torch.arange(count) + 0.5) / count)
    likely = torch.softmax(logits[0].masked_fill(logits[0] < logits[0].topk(20).values[-1], -torch.inf) / 0.8, 0)
    assert (torch.bincount(drawn, minlength=500) - likely * count).abs().max() <= 1.5  # a grid has no chance in it


@needs_kernels
def test_temperature_zero_takes_the_first_of_the_largest() -> None:
    logits = torch.zeros(1, 100)
    logits[0, [17, 40, 99]] = 2.0
    assert draw(logits, 0.0, 5, torch.rand(3)).tolist() == [17, 17, 17]
    assert draw(-logits, 0.0, 5, torch.rand(1)).tolist() == [0]


@needs_kernels
def test_what_equals_the_last_that_counts_counts_too() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    assert set(draw(logits, 1.0, 2, torch.linspace(0, 0.999, 200)).tolist()) == {1, 2, 3, 4}
    zeros = torch.tensor([[0.0, -0.0, -1.0]])
    assert set(draw(zeros, 1.0, 1, torch.linspace(0, 0.999, 50)).tolist()) == {0, 1}


@needs_kernels
def test_the_ends_of_the_noise_choose_the_first_and_the_last() -> None:
    logits = torch.randn(1, 2048)
    kept = (logits[0] >= logits[0].topk(250).values[-1]).nonzero()[:, 0]
    noise = torch.tensor([0.0, 1.0 - 2.0**-24])
    assert draw(logits, 0.8, 250, noise).tolist() == [int(kept[0]), int(kept[-1])]


@needs_kernels
def test_rows_are_drawn_each_with_its_own_setting_and_alone_as_together() -> None:
    logits, settings = torch.randn(17, 2048), torch.rand(17, 2)
    top_k = torch.randint(0, 300, (17, 3))
    temperature, noise, keep = settings[:, 0], settings[:, 1], top_k[:, 1]  # columns of wider tensors
    together = native.sample(logits, temperature, keep, noise)
    each = [native.sample(logits[i : i + 1], temperature[i, None], keep[i, None], noise[i, None]) for i in range(17)]
    assert torch.equal(together, torch.cat(each))


# ---- what does not fit


@needs_kernels
def test_what_does_not_fit_is_refused_in_a_line() -> None:
    linear, cache = native.dense(torch.randn(8, 32)), new_cache(torch.float32, 2, 1, 4, 16)
    with pytest.raises(ValueError, match="x has 48 columns"):
        linear(torch.randn(1, 48))
    with pytest.raises(ValueError, match="x is not contiguous"):
        linear(torch.randn(32, 2).T)
    with pytest.raises(ValueError, match="x has the wrong dtype"):
        linear(torch.randn(2, 32).double())
    with pytest.raises(ValueError, match="add_to is not"):
        linear.add(torch.randn(2, 7), torch.randn(2, 32))
    with pytest.raises(ValueError, match="no such row or position"):
        native.attend(torch.randn(1, 48), cache, at([2], [0]), None, True)
    with pytest.raises(ValueError, match="multiple of 16"):
        native.int4(torch.zeros(4, 3, dtype=torch.int32), torch.rand(4, 3), torch.rand(4, 3))


def test_without_a_compiler_plain_torch_is_used_and_a_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native, "_cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    with caplog.at_level(logging.WARNING):
        assert native._module.__wrapped__() is None
    assert "no C++ compiler 'no-such-compiler': install g++" in caplog.text


def test_another_kind_of_cpu_is_told_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(native, "_cpu_flags", frozenset)
    with caplog.at_level(logging.WARNING):
        assert native._module.__wrapped__() is None
    assert "an x86 CPU with AVX2" in caplog.text


@needs_kernels
def test_two_processes_may_build_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that takes its time to copy what was built before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\nfor made; do :; done\ncp '{native._module().__file__}' \"$made\"\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    code = "from voice_bridge.engines.moshi.torch import native; print(native.available())"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in said] == ["True", "True"], said
    assert any("built the CPU kernels in" in err for _, err in said)
    assert len(list((tmp_path / "voice-bridge").iterdir())) == 1
