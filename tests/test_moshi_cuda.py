"""The CUDA side of Moshi, on a GPU if there is one; else without capture, and the kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tests import oracle  # noqa: E402
from tests.oracle import BACKENDS, CPU, talk  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint, Plain  # noqa: E402
from voice_bridge.engines.moshi.config import ModelError  # noqa: E402
from voice_bridge.engines.moshi.model import Heard, Place  # noqa: E402
from voice_bridge.engines.moshi.torch import cuda, plain  # noqa: E402
from voice_bridge.engines.moshi.torch.graphs import Graphs  # noqa: E402
from voice_bridge.engines.moshi.torch.load import Loader, Ops, WeightKind, float8_rows  # noqa: E402
from voice_bridge.engines.moshi.torch.model import TorchModel  # noqa: E402
from voice_bridge.engines.moshi.torch.plain import Tokens, new_cache  # noqa: E402

GPU = torch.cuda.is_available()
HERE = torch.device("cuda" if GPU else "cpu")
HALF = torch.bfloat16 if GPU else torch.float32  # the interpreter cannot multiply matrices of bfloat16
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
SLOTS = 5


@pytest.fixture
def kernels() -> Any:
    pytest.importorskip("triton")
    from voice_bridge.engines.moshi.torch import triton_kernels

    return triton_kernels


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def made(name: str, ops: Ops, kind: WeightKind = "float32", device: Any = CPU, keys: Any = torch.float32) -> TorchModel:
    checkpoint = Checkpoint.open(oracle.FOLDER / name)
    lm = Loader(checkpoint.lm("pt", str(device)), device, kind, ops)
    mimi = Loader(checkpoint.mimi("pt", str(device)), device, "float32", ops)
    return TorchModel(checkpoint.config, lm, mimi, SLOTS, keys)


def in_graphs(model: TorchModel, row: int = -1) -> TorchModel:
    """The same, its ticks in filled up batches as on a GPU; `row` is where who is made up leaves keys and values."""
    if model._graphs is None:
        nobody = Place(SLOTS, row, 0, 0, 0, 0, -1, 0, 0)
        model._graphs = Graphs(model._captured, model.config.lm, SLOTS, nobody, CPU)
    return model


class Calls:
    """Calls on some slots of a model, that draw by themselves."""

    def __init__(self, model: TorchModel, temperature: float = 0.0) -> None:
        self.model, self.temperature = model, temperature
        self.frames = [0] * SLOTS

    def step(self, pcm: Any, slots: list[int], given: Any = None) -> Heard:
        at = [self.frames[slot] for slot in slots]
        places = [Place(slot, slot, n, n, n, n, -1, 25, 50) for slot, n in zip(slots, at, strict=True)]
        own = self.model.config.lm.own_streams
        chances = np.full((len(slots), 3 + own), self.temperature, np.float32)
        chances[:, 2:] = [np.random.default_rng((slot, n)).random(1 + own) for slot, n in zip(slots, at, strict=True)]
        for slot in slots:
            self.frames[slot] += 1
        pending = self.model.tick(pcm, np.array(places), chances, given)
        return Heard(*(part.copy() for part in self.model.collect(pending)))


def assert_same(one: Heard, other: Heard, sound: float) -> None:
    for name, a, b in zip(Heard._fields[:3], one, other, strict=False):
        np.testing.assert_array_equal(a, b, name)
    np.testing.assert_allclose(one.sound, other.sound, atol=sound, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_get_the_same_in_a_batch_that_is_filled_up(backend: str) -> None:
    ops = BACKENDS[backend]
    alone, filled = Calls(made("moshi", ops), 0.8), Calls(in_graphs(made("moshi", ops), row=SLOTS), 0.8)
    for frame in range(20):
        slots = [0, 3] if frame % 5 == 4 else [3, 0, 1]  # one pauses: a batch of two needs nobody
        pcm, given = talk(len(slots), seed=frame), None
        if frame == 7:
            given = np.full((len(slots), 1 + alone.model.config.lm.streams), -1)
            given[1, 2:5] = 9
        for calls in (alone, filled):
            if frame == 9:
                calls.model.add(1, np.full(64, 0.3, np.float32))
        assert_same(alone.step(pcm, slots, given), filled.step(pcm, slots, given), 0 if backend == "kernels" else 1e-5)


def test_who_is_made_up_leaves_every_slot_as_it_was() -> None:
    model = in_graphs(made("moshi", plain), row=SLOTS)
    calls = Calls(model)
    for frame in range(3):
        calls.step(talk(SLOTS, frame), list(range(SLOTS)))
    sides = (model._sound.encoder, model._sound.decoder)
    rings = [*model._state.temporal, *sides[0].caches, *sides[1].caches]
    of_slots = [model._state.streams, *(side.tails for side in sides), *(ring.keys for ring in rings)]
    before = [tensor[:SLOTS].clone() for tensor in of_slots]
    calls.step(talk(3), [0, 1, 2])
    for tensor, was in zip(of_slots, before, strict=True):
        assert torch.equal(tensor[3:SLOTS], was[3:])
        assert not torch.equal(tensor[:3], was[:3])


@pytest.mark.parametrize(("slots", "expected"), [(1, [1]), (5, [1, 2, 4, 5]), (20, [1, 2, 4, 8, 12, 16, 20])])
def test_there_is_a_graph_for_each_of_a_few_sizes(slots: int, expected: list[int]) -> None:
    shown: list[int] = []
    config = Checkpoint.open(oracle.FOLDER / "moshi").config.lm
    nobody = Place(slots, -1, 0, 0, 0, 0, -1, 0, 0)

    def frame(pcm: Tensor, places: Tensor, chances: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        return given, places[0], given[:, :9], pcm, pcm[:, :0]

    graphs = Graphs(frame, config, slots, nobody, CPU)
    graphs.prepare(shown.append)
    assert shown == expected[::-1]
    places = np.array([Place(slot, slot, 0, 0, 0, 0, -1, 0, 0) for slot in range(slots)])
    launched = graphs.launch(talk(slots), places, np.zeros((slots, 11), np.float32), None)
    assert graphs.collect(launched).text.tolist() == list(range(slots))


class Waiting(TorchDispatchMode):
    """Refuses whatever makes the host wait for the device, or a graph impossible."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "repeat_interleave.Tensor", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(str(func).startswith(f"aten.{name}") for name in self.WAITS), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", oracle.NAMES)
def test_a_tick_asks_nothing_of_the_device(name: str) -> None:
    model = in_graphs(made(name, plain), row=SLOTS)
    assert model._graphs
    batch = model._graphs._batch(2)
    with Waiting():
        model._captured(*batch.inputs.there)


def test_float8_is_for_gpus() -> None:
    with pytest.raises(ModelError, match="take int8"):
        Loader(pytest.fail, CPU, "fp8")


def test_an_old_gpu_is_told_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    with pytest.raises(ModelError, match=r"capability 8\.9 or more, this one has 8\.6: take weights = int8"):
        cuda.int8(torch.zeros(16, 16, dtype=torch.float8_e4m3fn), torch.ones(16))


# The kernels


@pytest.mark.parametrize("name", ["moshi", "stt"])
def test_tokens_through_the_kernels_are_those_of_the_reference(name: str, kernels: Any) -> None:
    expected = oracle.expected(name)
    reference, tried = Calls(made(name, plain)), Calls(in_graphs(made(name, cuda, device=HERE)))
    assert tried.model._graphs
    tried.model._graphs.sizes = [3]  # one is made up
    lag = tried.model.config.lm.max_delay
    for frame in range(40 if GPU else 5):  # the interpreter takes seconds for each
        slots = [0, 1] if frame % 3 else [1, 0]
        pcm = expected["pcm_in"][slots, 0, frame * 1920 : (frame + 1) * 1920].numpy()
        heard = tried.step(pcm, slots)
        assert_same(heard, reference.step(pcm, slots), 1e-4)
        if frame >= lag:
            np.testing.assert_array_equal(heard.complete, expected["greedy_tokens"][slots, :, frame])


@pytest.mark.parametrize(("kind", "keys"), [("bf16", torch.bfloat16), ("int8", torch.int8), ("int4", torch.bfloat16)])
def test_fewer_bits_say_nearly_the_same(
    kind: WeightKind, keys: Any, kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "bf16" or GPU:
        monkeypatch.setattr(Loader, "activations", property(lambda load: load.dtype))
    exact = oracle.streams("quantizable")
    rough = made("quantizable", cuda, kind, HERE, keys)
    rows = torch.randint(0, 64, (3, 1, 1 + exact.config.streams), generator=torch.Generator().manual_seed(1))
    for position, row in enumerate(rows):
        where = torch.tensor([position])
        outs = [
            lm._text(lm.read(state, row.to(device), Tokens(0 * where.to(device), where.to(device), 1, position))).cpu()
            for lm, state, device in ((exact.lm, exact.state, CPU), (rough._lm, rough._state, HERE))
        ]
        chances = [out.float().log_softmax(-1) for out in outs]
        error = torch.nn.functional.kl_div(chances[1], chances[0], log_target=True, reduction="batchmean")
        assert 0 < error < (0.05 if kind == "int4" else 0.002)
    if kind == "bf16" or GPU:
        assert np.isfinite(Calls(in_graphs(rough)).step(talk(1), [0]).sound).all()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "context", "keys", "together", "rope"),
    [
        (4, 4, 300, torch.float32, 1, "pairs"),  # in two parts, then merged
        (2, 2, 16, torch.float32, 2, "pairs"),
        (4, 2, 300, torch.int8, 1, "halves"),
        (2, 2, 8, torch.bfloat16, 1, ""),
    ],
)
def test_attention_is_that_of_plain_torch(
    heads: int, kv_heads: int, context: int, keys: Any, together: int, rope: str, kernels: Any
) -> None:
    torch.manual_seed(0)
    caches = [new_cache(6, kv_heads, context, 16, keys, HERE) for _ in range(2)]
    begin = torch.tensor([0, context - 2 * together, 2 * context + together], device=HERE)  # new, about to roll, rolled
    for cache in caches:
        for store in (cache.keys, cache.values):
            store.copy_(torch.randint(-9, 9, store.shape, generator=torch.Generator().manual_seed(2)))
        if cache.scales is not None:
            cache.scales.fill_(0.1)
    rows = torch.tensor([4, 0, 2], device=HERE).repeat_interleave(together)
    for step in range(4):
        positions = (begin[:, None] + step * together + torch.arange(together, device=HERE)).flatten()
        tokens = Tokens(rows, positions, together, int(positions.max()), together > 1)
        qkv = torch.randn(len(rows), (heads + 2 * kv_heads) * 16, device=HERE)
        turn = plain.rotation(positions, 16, 10000.0) if rope else None
        tried, meant = (
            ops.attend(qkv, cache, tokens, turn, rope == "pairs")
            for ops, cache in zip((cuda, plain), caches, strict=True)
        )
        torch.testing.assert_close(tried, meant, atol=0.05 if keys == torch.bfloat16 else 1e-5, rtol=0)
    for tried, meant in zip(*caches, strict=True):
        if tried is not None:
            torch.testing.assert_close(tried, meant, atol=1e-6, rtol=0.01 if keys == torch.bfloat16 else 0)


def test_a_token_of_nobody_leaves_the_ring_as_it_was(kernels: Any) -> None:
    cache = new_cache(2, 2, 8, 16, torch.float32, HERE)
    nobody = Tokens(torch.tensor([-1], device=HERE), torch.tensor([0], device=HERE), 1, 0)
    out = cuda.attend(torch.ones(1, 96, device=HERE), cache, nobody, None, True)
    assert out.isfinite().all()
    assert not cache.keys.any()
    assert not cache.values.any()


@pytest.mark.parametrize("card", [64, 2048, 9000])
def test_tokens_are_drawn_as_by_plain_torch(card: int, kernels: Any) -> None:
    torch.manual_seed(0)
    n = 24
    logits = 3 * torch.randn(n, card, device=HERE)
    logits[:12] = logits[:12].round()  # many are equal to the last that counts
    top_k = torch.randint(0, card + 5, (n,), device=HERE)
    top_k[:8] = 25
    temperature = torch.rand(n, device=HERE)
    temperature[::7] = 0
    noise = torch.rand(n, device=HERE)
    noise[1], noise[2] = 0, 1
    drawn = cuda.sample(logits, temperature, top_k, noise)
    assert torch.equal(drawn, plain.sample(logits, temperature, top_k, noise))


@pytest.mark.parametrize(("n", "m", "k"), [(1, 48, 64), (5, 200, 96), (40, 100, 320)])
def test_products_widen_their_weights(n: int, m: int, k: int, kernels: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(n, k, device=HERE).to(HALF)
    codes, scale = torch.randint(-127, 128, (m, k), dtype=torch.int8, device=HERE), torch.rand(m, device=HERE) / 500
    eighths = (100 * torch.randn(m, k, device=HERE)).to(torch.float8_e4m3fn)
    words = torch.randint(-(2**31), 2**31, (m, k // 8), device=HERE).int()
    scales, biases = torch.rand(2, m, k // 32, device=HERE) / 100
    for product, wide in (
        (cuda.int8(codes, scale), codes * scale[:, None]),
        (cuda.Widened(eighths, scale), eighths.float() * scale[:, None]),
        (cuda.int4(words, scales, -biases), plain.int4(words, scales, -biases)._weight.float()),
    ):
        meant = x.float() @ wide.t()
        torch.testing.assert_close(product(x).float(), meant, atol=0.02, rtol=0.02)
        to = torch.ones_like(meant)
        product.add(to, x, scale)
        torch.testing.assert_close(to, 1 + meant * scale, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("n", [1, 17, 48])
def test_a_product_in_float8_rounds_rows_and_fills_them_up(n: int, kernels: Any) -> None:
    torch.manual_seed(0)
    x, weight = (torch.randint(-7, 8, size, device=HERE).to(HALF) for size in ((n, 64), (32, 64)))
    x[:, 0], weight[:, 0] = 7, 7  # the scales are powers of two: float8 holds all of these
    product = cuda.Float8(*float8_rows(Plain(weight)))
    torch.testing.assert_close(product(x), x @ weight.t(), atol=0, rtol=2**-8)


def test_norm_and_gate_are_those_of_plain_torch(kernels: Any) -> None:
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.02)):
        x, alpha = torch.randn(3, 176, device=HERE).to(dtype), torch.rand(176, device=HERE)
        for tried, meant in (
            (cuda.rms_norm(x, alpha, 1e-8), plain.rms_norm(x, alpha, 1e-8)),
            (cuda.gate(x), plain.gate(x)),
        ):
            assert tried.dtype == dtype
            torch.testing.assert_close(tried, meant, atol=tolerance, rtol=tolerance)


COMPILE = """
import sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

class Driver:
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0
    get_current_target = lambda self: GPUTarget("cuda", int(sys.argv[1]), 32)

triton.runtime.driver.set_active(Driver())
launch = JITFunction.run
def run(self, *args, grid, warmup, **options):
    print(self.__name__, len(launch(self, *args, grid=grid, warmup=True, **options).asm["cubin"]))
JITFunction.run = run

from voice_bridge.engines.moshi.torch import cuda, plain, triton_kernels
from voice_bridge.engines.moshi.torch.plain import Tokens, new_cache

half, none = torch.bfloat16, torch.zeros(1, dtype=torch.int64)
for keys in (half, torch.int8):
    cache = new_cache(2, 32, 3000, 128, keys, torch.device("cpu"))
    turn = plain.rotation(none, 128, 1e4)
    cuda.attend(torch.zeros(1, 96 * 128, dtype=half), cache, Tokens(none, none, 1, 0), turn, True)
x = torch.zeros(1, 4096, dtype=half)
cuda.rms_norm(x, torch.zeros(4096), 1e-8)
cuda.gate(x)
cuda.sample(torch.zeros(1, 32000), torch.zeros(1), none, torch.zeros(1))
for n in (1, 64):
    x = torch.zeros(n, 4096, dtype=half)
    cuda.int8(torch.zeros(4096, 4096, dtype=torch.int8), torch.zeros(4096))(x)
    cuda.int4(torch.zeros(4096, 512, dtype=torch.int32), torch.zeros(4096, 64), torch.zeros(4096, 64))(x)
if int(sys.argv[1]) >= 89:
    cuda.Widened(torch.zeros(64, 4096).to(torch.float8_e4m3fn), torch.zeros(64))(x)
    triton_kernels.float8(x, 64)
"""


@pytest.mark.parametrize(("capability", "count"), [(80, 11), (90, 13)])
def test_the_kernels_compile_for_gpus_at_the_7b_s_shapes(capability: int, count: int, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability)],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == count, done.stdout
