"""What only the MLX program does: its codes, what it compiles, its one thread, and that it stands by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx: Any = pytest.importorskip("mlx.core")

from tests.cores import HERE  # noqa: E402
from voice_bridge.engines.base import FRAME, Opening, Sound  # noqa: E402
from voice_bridge.engines.host import HostEngine  # noqa: E402
from voice_bridge.engines.moshi import names  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint, Groups, Plain, Rows8, Weights  # noqa: E402
from voice_bridge.engines.moshi.config import ModelError  # noqa: E402
from voice_bridge.engines.moshi.mlx import engine  # noqa: E402
from voice_bridge.engines.moshi.mlx.lm import Draw, Lm, sample  # noqa: E402
from voice_bridge.engines.moshi.mlx.load import Loader, WeightKind  # noqa: E402
from voice_bridge.engines.moshi.mlx.model import MlxModel  # noqa: E402
from voice_bridge.engines.moshi.model import Place  # noqa: E402

ORACLE = Path(__file__).parent / "data" / "oracle"
FOLDER = ORACLE / "quantizable"
FRAMES = 40


def quantised(file: str, kind: WeightKind) -> Lm:
    config = Checkpoint.open(FOLDER).config.lm
    renamed = names.mlx_names(config)
    weights = Weights(FOLDER / file, names.lm_tensors(config), "mlx", renamed=renamed, strict=True)
    return Lm(config, Loader(weights, kind))


def greedy(lm: Lm) -> Iterator[tuple[int, list[int]]]:
    """The text written and what is complete, frame by frame, of the oracle's first stream."""
    codes = mx.load(str(FOLDER / "expected.safetensors"))["mimi_codes"][:1, : lm.config.heard_streams]
    state = lm.state(1, 1, mx.float32)
    none, all_of_them = mx.zeros(1), mx.zeros(1, mx.int32)
    draw = Draw(none, all_of_them, none, all_of_them, mx.zeros((1 + lm.config.own_streams, 1)), (0, 0))
    for frame in range(FRAMES):
        at, heard = mx.array([frame]), codes[:, :, frame].astype(mx.int32)
        step, state.streams, state.temporal = lm.step(
            state.streams, state.temporal, mx.array([0]), at, at, frame + 1, heard, mx.array([-1]), draw
        )
        yield step.text.item(), step.complete[0, 1:].tolist()


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [
        ("model.q4.safetensors", "int4", "q4"),
        ("model.q8.safetensors", "int8", "q8"),
        ("model.q4.safetensors", "int8", "q4"),  # nothing is won by more bits
        ("model.safetensors", "float32", "f32"),
    ],
)
def test_codes_as_mlx_repositories_have_them_give_the_tokens_of_the_reference(
    file: str, kind: WeightKind, expected: str
) -> None:
    tokens = mx.load(str(FOLDER / "expected_mlx.safetensors"))
    text, sound = zip(*greedy(quantised(file, kind)), strict=True)
    assert list(text) == tokens[f"{expected}_text"].tolist()
    assert np.array_equal(np.array(sound).T[:, 1:], np.array(tokens[f"{expected}_audio"])[:, 1:])


@pytest.mark.parametrize(("kind", "bits", "group"), [("int8", 8, 64), ("int4", 4, 32)])
def test_other_layouts_become_codes_of_the_same_weights(kind: WeightKind, bits: int, group: int) -> None:
    weight = mx.random.normal((8, 128), key=mx.random.key(0))
    scale = mx.abs(weight).max(1) / 127
    rows = Rows8(mx.round(weight / scale[:, None]).astype(mx.int8), scale)
    coarse = Groups(*mx.quantize(weight, group_size=64, bits=8), 8, 64)
    x = mx.eye(128)
    step = float((weight.max() - weight.min()).item()) / (2**bits - 1)
    for stored in (Plain(weight), Plain(weight.astype(mx.bfloat16)), rows, coarse):
        product = Loader(lambda name, stored=stored: stored, kind).linear("w")
        assert mx.abs(product(x).T - weight).max().item() < step


def test_rows_that_are_no_whole_groups_are_refused_with_what_to_take() -> None:
    with pytest.raises(ModelError, match="weights = int4 wants rows of whole groups of 32, not 48: take bf16"):
        Loader(lambda name: Plain(mx.zeros((4, 48))), "int4").linear("w")


def test_sampling_draws_each_token_as_often_as_it_is_likely_and_none_beyond_top_k() -> None:
    logits = mx.array([2.0, -1.0, 1.0, 0.0, 1.5])
    n = 4000
    many = mx.broadcast_to(logits, (n, 5))
    noise = (mx.arange(n) + 0.5) / n
    drawn = sample(many, mx.full((n,), 0.5), mx.full((n,), 3, mx.int32), noise, 4)
    counts = np.bincount(np.array(drawn), minlength=5) / n
    chances = np.where([1, 0, 1, 0, 1], np.exp(np.array(logits) / 0.5), 0)
    np.testing.assert_allclose(counts, chances / chances.sum(), atol=1e-3)
    assert sample(many, mx.zeros(n), mx.zeros(n, mx.int32), noise, 0).tolist() == [0] * n


def test_a_step_bakes_nothing_in_when_it_is_compiled(tmp_path: Path) -> None:
    """Replayed from its graph, at another place and with other input, it does what it does when it is run.

    The graph is what `mx.compile` is given; its own replay would call a C++ compiler a hundred times here.
    """
    checkpoint = Checkpoint.open(FOLDER)
    model = MlxModel(checkpoint.config, Loader(checkpoint.lm("mlx")), checkpoint.mimi("mlx"), 2, mx.float32)
    step = model._compile(256, (32, 256))

    def flat(*given: Any) -> Any:
        streams, places, heard, chances, added, taken, *stores = given
        caches = [[stores[0:2]], [stores[2:4]]]  # two calls, one layer
        written, streams, caches = step(streams, caches, places, heard, chances, added, taken)
        return [*written, streams, *(store for call in caches for layer in call for store in layer)]

    def given(seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        places = [Place(slot, slot, 3 + 9 * seed + slot, 20 + seed + slot, 9, 9, -1, 25, 250) for slot in (0, 1)]
        shape = model._state.temporal[0][0][0].shape
        return [
            mx.array(rng.integers(0, 64, model._state.streams.shape).astype(np.int32)),
            mx.array(np.array(places).T.astype(np.int32)),
            mx.array(rng.integers(0, 64, (2, 8)).astype(np.int32)),
            mx.array(rng.uniform(0.1, 1, (11, 2)).astype(np.float32)),
            mx.zeros((2, 256)),
            mx.full((2, 17), -1),
            *(mx.array(rng.standard_normal(shape, np.float32)) for _ in range(4)),
        ]

    graph = str(tmp_path / "step.mlxfn")
    mx.export_function(graph, flat, *given(0))
    replay = mx.import_function(graph)
    for seed in (0, 1, 2):
        for replayed, run in zip(replay(*given(seed)), flat(*given(seed)), strict=True):
            np.testing.assert_allclose(np.array(replayed), np.array(run), atol=1e-5)


def test_a_step_and_a_stretch_write_into_keys_and_values_where_they_lie() -> None:
    """A copy of one of them would be more memory than all else that a step makes here."""
    checkpoint = Checkpoint.open(FOLDER)
    model = MlxModel(checkpoint.config, Loader(checkpoint.lm("mlx")), checkpoint.mimi("mlx"), 2, mx.float32)
    store = model._state.temporal[0][0][0].nbytes
    places = np.array([Place(slot, slot, 40, 40, 9, 9, -1, 25, 250) for slot in (0, 1)])
    chances = np.full((2, 11), 0.5, np.float32)

    def step() -> None:
        model.collect(model.tick(np.zeros((2, FRAME), np.float32), places, chances, None))

    def stretch() -> None:
        model.read(2, 7, np.zeros((64, 17), np.int64), None)

    for work in (step, stretch):
        work()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        work()
        assert mx.get_peak_memory() - before < store


def test_moshi_runs_where_there_is_no_torch() -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from voice_bridge.engines.moshi.mlx import engine
core = engine.core(1, lambda text: None, model={str(ORACLE / "moshi")!r}, keys="float32")
assert core.step_time(1) > 0 and core.device_memory() > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keys": "int8"}, "keys = int8: MLX has no such numbers here, take bf16"),
        ({"weights": "fp8"}, "weights = fp8: MLX has no such numbers here, take int8"),
        ({"weights": "int7"}, "weights = 'int7': take one of float32, bf16, int8, int4"),
    ],
)
def test_what_mlx_does_not_have_is_one_line_with_the_remedy(options: dict[str, str], said: str) -> None:
    with pytest.raises(ModelError) as refused:
        engine.core(1, lambda text: None, model=str(ORACLE / "moshi"), **options)  # type: ignore[arg-type]
    assert str(refused.value) == said


async def test_all_of_a_call_is_computed_on_the_main_thread_of_the_engines_process() -> None:
    """MLX's arrays belong to the thread that made them."""
    made = HostEngine("moshi", f"{HERE}:watched_mlx", 1, model=str(ORACLE / "moshi"), keys="float32")
    await made.start()
    try:
        conversation = await made.open(Opening(persona="hello", greeting="hello"), made.reserve(10))
        conversation.inject("hello")
        conversation.inject("hello", how="add_to_input")
        for frame in range(3):
            conversation.send(np.zeros(FRAME, np.float32), frame * FRAME)
            async for event in conversation:
                if isinstance(event, Sound):
                    break
        assert made.restarts == 0
        await conversation.close()
    finally:
        await made.stop()
