"""The language model against the reference: greedy tokens equal, logits near, whatever comes and goes."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402

from tests import oracle  # noqa: E402
from tests.oracle import NAMES, PROGRAMS, Program, Streams  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Framework, Weights  # noqa: E402
from voice_bridge.engines.moshi.config import model as configured  # noqa: E402
from voice_bridge.engines.moshi.names import lm_tensors  # noqa: E402
from voice_bridge.engines.moshi.torch.lm import Lm  # noqa: E402
from voice_bridge.engines.moshi.torch.load import Loader, WeightKind  # noqa: E402

FRAMES = 40


@pytest.fixture(params=PROGRAMS)
def ops(request: pytest.FixtureRequest) -> Program:
    return PROGRAMS[request.param]


def run(streams: Streams, codes: Tensor, forced: dict[int, dict[int, int]] | None = None) -> tuple[Tensor, Tensor]:
    """All frames of two streams: complete tokens [2, 1 + own, T] and logits [2, T, card]."""
    tokens, logits = [], []
    for frame in range(FRAMES):
        step = streams.step(codes[:, :, frame], [0, 1], (forced or {}).get(frame))
        tokens.append(streams.complete(step, [0, 1]))
        logits.append(step.logits)
    return torch.stack(tokens, 2), torch.stack(logits, 1)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_are_those_of_the_reference(name: str, ops: Program) -> None:
    expected = oracle.expected(name)
    tokens, logits = run(oracle.streams(name, ops=ops), expected["mimi_codes"])
    assert torch.equal(tokens, expected["greedy_tokens"])
    torch.testing.assert_close(logits, expected["greedy_text_logits"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stt"])
def test_a_forced_text_token_goes_the_way_of_a_sampled_one(name: str, ops: Program) -> None:
    expected = oracle.expected(name)
    forced = {10 + index: {0: int(token)} for index, token in enumerate(expected["forced_ids"])}
    tokens, logits = run(oracle.streams(name, ops=ops), expected["mimi_codes"], forced)
    assert torch.equal(tokens, expected["forced_tokens"])
    torch.testing.assert_close(logits, expected["forced_text_logits"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_streams_come_and_go_as_in_the_reference(name: str, ops: Program) -> None:
    expected = oracle.expected(name)
    streams = oracle.streams(name, ops=ops)
    for frame in range(FRAMES):
        for stream in expected["slots_reset"][frame].nonzero().flatten().tolist():
            streams.frames[stream] = 0
        present = expected["slots_exec"][frame].nonzero().flatten().tolist()
        tokens = torch.full_like(expected["slots_tokens"][:, :, frame], -2)
        if present:
            step = streams.step(expected["mimi_codes"][present, :, frame], present)
            tokens[present] = streams.complete(step, present)
        assert torch.equal(tokens, expected["slots_tokens"][:, :, frame]), frame


def test_the_extra_heads_are_those_of_the_reference(ops: Program) -> None:
    expected = oracle.expected("stt")
    streams = oracle.streams("stt", ops=ops)
    for frame in range(FRAMES):
        step = streams.step(expected["mimi_codes"][:, :, frame], [0, 1])
        heads = expected["extra_heads"][frame, :, :, 0].transpose(0, 1)  # [B, heads, dim]
        torch.testing.assert_close(step.heads, heads, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["moshi", "quantizable"])
@pytest.mark.parametrize("length", [1, 5, 16, 37])
def test_a_stretch_read_at_once_is_the_same_as_row_by_row(name: str, length: int, ops: Program) -> None:
    """Also when it is longer than the context."""
    generator = torch.Generator().manual_seed(length)
    one, other = oracle.streams(name, ops=ops), oracle.streams(name, ops=ops)
    codes = oracle.expected(name)["mimi_codes"]
    for streams in (one, other):
        for frame in range(3):
            streams.step(codes[:, :, frame], [0, 1])
    config = one.config
    rows = torch.randint(config.card, (length, 1 + config.streams), generator=generator)
    at_once, parts = one.read(0, rows), [other.read(0, row[None]) for row in rows]
    torch.testing.assert_close(at_once, torch.cat(parts), atol=1e-5, rtol=1e-5)
    after = [streams.step(codes[:1, :, 3], [0]) for streams in (one, other)]
    torch.testing.assert_close(after[0].logits, after[1].logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["schedule", "grouped"])
def test_models_of_other_shapes_are_those_of_the_reference(name: str, ops: Program) -> None:
    folder = oracle.FOLDER.parent / "variants" / name
    config = configured(json.loads((folder / "config.json").read_text()), {}).lm
    expected = load_file(folder / "expected.safetensors")
    framework: Framework = "mlx" if ops == "mlx" else "pt"
    weights = Weights(folder / "model.safetensors", lm_tensors(config), framework, strict=True)
    if ops == "mlx":
        from tests import oracle_mlx

        streams = oracle_mlx.streams(config, weights)
    else:
        streams = Streams(Lm(config, Loader(weights, oracle.CPU, ops=ops)))
    for frame in range(expected["codes"].shape[2]):
        step = streams.step(expected["codes"][:, :, frame], [0, 1])
        assert torch.equal(streams.complete(step, [0, 1]), expected["tokens"][:, :, frame]), frame
        torch.testing.assert_close(step.logits, expected["logits"][:, frame], atol=1e-4, rtol=0)


def divergence(name: str, kind: WeightKind, ops: Program, keys: torch.dtype) -> tuple[float, Tensor, Tensor]:
    """Mean KL of the text distribution, its logits and the exact ones, both reading the reference's tokens."""
    expected = oracle.expected(name)
    exact, rough = oracle.streams(name, ops=ops), oracle.streams(name, kind, ops, keys=keys)
    found: list[tuple[Tensor, Tensor]] = []
    for frame in range(FRAMES):
        heard = expected["mimi_codes"][:, :, frame]
        one = exact.step(heard, [0, 1])
        other = rough.step(heard, [0, 1], given=one.row)
        found.append((one.logits, other.logits))
    p, q = (torch.cat(column) for column in zip(*found, strict=True))
    kl = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    return float(kl), p, q


@pytest.mark.parametrize("name", ["moshi", "quantizable"])
@pytest.mark.parametrize(
    ("kind", "keys"),
    [("float32", torch.int8), ("float32", torch.bfloat16), ("bf16", torch.bfloat16), ("int8", torch.float32)],
)
def test_fewer_bits_change_little(name: str, kind: WeightKind, keys: torch.dtype, ops: Program) -> None:
    if ops == "mlx" and (keys == torch.int8 or (kind == "int8" and name == "moshi")):
        pytest.skip("MLX keeps keys in 16 bits at least, and wants whole groups of weights")
    kl, exact, rough = divergence(name, kind, ops, keys)
    assert kl <= 0.01
    error = float((exact - rough).abs().max())
    best = exact.topk(2).values
    sure = best[:, 0] - best[:, 1] > 2 * error
    assert sure.any()
    assert torch.equal(exact.argmax(-1)[sure], rough.argmax(-1)[sure])
