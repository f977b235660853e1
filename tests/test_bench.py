"""`voice-bridge bench`: that it measures what it says. No time is asserted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner, Result

from voice_bridge.bridge.cli import app
from voice_bridge.bridge.cli.chart import as_svg
from voice_bridge.engines.moshi.config import MIMI, ModelError, model
from voice_bridge.engines.moshi.measure import SHAPES, Setting, interleave
from voice_bridge.engines.moshi.names import lm_tensors
from voice_bridge.engines.moshi.torch import against, specimen
from voice_bridge.engines.moshi.torch.against import Reference, Row
from voice_bridge.engines.moshi.torch.load import KINDS, Loader, WeightKind
from voice_bridge.engines.moshi.torch.specimen import Random

ORACLE = Path(__file__).parent / "data" / "oracle"
LINUX = hasattr(os, "sched_setaffinity")
TINY = Setting(shape="tiny", weights="float32")

# Answers as the reference does, without it: a step takes half a second in float32, and a quarter in bfloat16.
FAKE = """
import json, sys
from voice_bridge.engines.moshi.config import MIMI, model
from voice_bridge.engines.moshi.names import mimi_tensors
from voice_bridge.engines.moshi.torch.specimen import Random
from safetensors.torch import save_file
import torch

MIMI["seanet"]["n_filters"], MIMI["transformer"]["num_layers"] = 8, 1

def values(name, frames, weights, values):
    shapes = mimi_tensors(model({}, {}).mimi, 8)
    made = Random(shapes, "float32")
    save_file({name: made(name).values.clone() for name in shapes}, weights)
    pcm = torch.zeros(1, frames * 1920)
    save_file({"pcm": pcm, "codes": torch.zeros(1, 8, frames, dtype=torch.int64), "sound": pcm.clone()}, values)

for line in sys.stdin:
    asked = json.loads(line)
    print(line.strip(), file=sys.stderr)
    match asked.pop("do"):
        case "threads": answer = "0.0"
        case "run": answer = {"float32": 0.5, "bfloat16": 0.25}.get(asked["name"], 1.0)
        case "values": answer = values(**asked)
        case "stop": sys.exit("it broke")
        case _: answer = None
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A benchmark may pin its process and set its threads; the tests after it must not feel it."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if LINUX else set()
    yield
    torch.set_num_threads(threads)
    if LINUX:
        os.sched_setaffinity(0, cores)


@pytest.fixture(autouse=True)
def a_codec_of_little_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes have Mimi at full size, which would take most of the tests' time."""
    monkeypatch.setitem(MIMI["seanet"], "n_filters", 8)
    monkeypatch.setitem(MIMI["transformer"], "num_layers", 1)


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return script


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def oracle(*words: str | Path) -> Result:
    return run("--model", ORACLE / "moshi", "--weights", "float32", "--device", "cpu", "--runs", 1, *words)


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("voice-bridge: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# The verb


@pytest.mark.parametrize("device", ["cpu", "mlx"])
def test_every_size_is_measured_with_its_parts(device: str) -> None:
    pytest.importorskip({"cpu": "torch", "mlx": "mlx"}[device])
    found = oracle("--calls", 3, "--context", "4,16", "--device", device, "--keys", "float32", "--json")
    report = json.loads(found.stdout)
    steps = report["steps"]
    assert [(step["context"], step["calls"]) for step in steps] == [(c, n) for c in (4, 16) for n in (1, 2, 3)]
    for step in steps:
        assert list(step["parts_ms"]) == ["Mimi encode", "temporal", "depth", "Mimi decode", "rest"]
        assert 0 < step["ms"] <= step["median_ms"]
        assert min(step["parts_ms"].values()) >= 0
        assert step["bandwidth_share"] > 0
    assert report["setting"]["weights"] == "float32"
    assert report["bandwidth"] > 1e8


def test_the_table_goes_into_a_file_as_markdown(tmp_path: Path) -> None:
    plot = tmp_path / "steps.svg"
    shown = oracle("--calls", 2, "--context", "16", "--plot", plot).stdout.splitlines()
    assert "float32" in shown[0]
    assert [line.count("|") for line in shown[2:]] == [11] * 4  # headings, a rule, two sizes
    names = {node.text for node in ElementTree.parse(plot).getroot().iter() if node.text}
    assert {"16 frames", "80 ms: a frame", "1", "2"} <= names


def test_a_context_beyond_the_models_is_its_own() -> None:
    report = json.loads(oracle("--calls", 1, "--context", "9999", "--json").stdout)
    assert [step["context"] for step in report["steps"]] == [16]


@pytest.mark.skipif(not LINUX, reason="only Linux keeps a process on a core")
def test_a_pinned_benchmark_stays_on_its_core() -> None:
    core = max(os.sched_getaffinity(0))
    report = json.loads(oracle("--calls", 1, "--context", "16", "--pin", core, "--json").stdout)
    assert os.sched_getaffinity(0) == {core}
    assert report["setting"]["threads"] == 1


def test_what_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    assert ", ".join(KINDS) in one_line(run("--weights", "int9"))
    assert "7b, small, tiny" in one_line(run("--shape", "70b"))
    assert "--pin" in one_line(run("--pin", 4096))
    assert "no such folder" in one_line(run("--model", tmp_path / "model"))
    python = tmp_path / "python"
    assert str(python) in one_line(run("--against", "reference", "--reference-python", python))
    for words in (("--context", "a"), ("--context", "0"), ("--against", "reference"), ("--plot", tmp_path / "a/b.svg")):
        assert run(*words).exit_code == 2, words


def test_calls_for_which_there_is_no_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*given: object, **named: object) -> specimen.Fit:
        found = fit(*given, **named)  # type: ignore[arg-type]
        return replace(found, free=int(found.fixed + 4.5 * found.call) if room else 0)

    room = True
    fit = specimen.fit
    monkeypatch.setattr(specimen, "fit", small)
    monkeypatch.setattr("voice_bridge.engines.moshi.fit.ROOM", 1.0)
    result = oracle("--calls", 16, "--context", "16", "--json")
    assert "there is memory for 3 of the 16 calls" in result.stderr
    assert [step["calls"] for step in json.loads(result.stdout)["steps"]] == [1, 2, 3]
    made, _ = specimen.load(TINY, 16)
    assert len(made._state.temporal[0].keys) == 3 + 1  # and a row for renewals
    room = False
    assert "GB are free" in one_line(oracle())


# Models without a checkpoint


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_are_alike_in_every_form(kind: WeightKind) -> None:
    shapes = lm_tensors(model(dict(SHAPES["tiny"]), {}).lm)
    load = Loader(Random(shapes, kind), torch.device("cpu"))
    for name in ("transformer.layers.3.self_attn.in_projs.0.weight", "depformer.layers.1.gating.2.linear_out.weight"):
        weights = load.tensor(name)
        assert weights.shape == shapes[name]
        assert float(weights.std() * shapes[name][1] ** 0.5) == pytest.approx(1.0, rel=0.1)
        assert abs(float(weights.mean())) < 0.02
    assert bool((load.tensor("out_norm.alpha") == 1).all())


def test_keys_and_values_are_written_before_they_are_read() -> None:
    """Memory that nobody wrote is one page of zeros, which is read in no time."""
    for keys in ("bf16", "int8"):
        made, _ = specimen.load(replace(TINY, keys=keys), 2)
        for cache in made._state.temporal:
            assert float(cache.keys.float().std(-1).min()) > 0
            assert float(cache.values.float().std(-1).min()) > 0
            assert cache.scales is None or bool((cache.scales > 0).all())


# Against the reference


def test_what_is_compared_takes_turns() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = interleave({"ours": lambda: work("ours"), "theirs": lambda: work("theirs")}, 3)
    assert order == ["ours", "theirs"] * 3
    assert taken == {"ours": [1.0, 3.0, 5.0], "theirs": [2.0, 4.0, 6.0]}


def test_every_figure_stands_beside_its_gate(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ("small", "7b"):
        monkeypatch.setitem(specimen.SHAPES, shape, SHAPES["tiny"])  # type: ignore[arg-type]
    with Reference(Path(sys.executable), fake) as reference:
        rows = list(against.compare(reference, TINY, most=1, runs=1, say=lambda text: None))
    found = {row.what: row for row in rows}
    assert found.keys() >= against.GATES.keys()
    for what in (against.FULL16, against.FULL8, against.YOUNG8, against.OVERHEAD):
        row = found[what]
        assert row.theirs == 0.25  # their faster type
        assert row.ours
        assert row.value == pytest.approx(0.25 / row.ours)
        assert (row.at_least, row.aim) == against.GATES[what][1]
    assert found["- largest difference of its sound"].value > against.CLOSENESS  # the fake one is silent
    assert found["- largest difference of its sound"].passed is False
    assert rows[-1].value > 0


def test_a_gate_is_passed_from_its_own_side() -> None:
    faster = Row("", 1, 2.0, "x", at_least=1.8, aim=3.0)
    assert (faster.passed, faster.reached) == (True, False)
    shorter = Row("", 1, 0.6, "", at_least=0.7, aim=0.5, lower=True)
    assert (shorter.passed, shorter.reached) == (True, False)
    assert replace(shorter, value=0.8).passed is False
    assert Row("", 4, 2.0, "x").passed is None


def test_a_reference_that_ends_says_why(fake: Path) -> None:
    with Reference(Path(sys.executable), fake) as reference:
        assert reference.ask("threads", count=1) == "0.0"
        with pytest.raises(ModelError, match="it broke"):
            reference.ask("stop")


def test_the_reference_script_needs_nothing_of_ours_and_says_what_it_lacks() -> None:
    """It runs in an environment that has the reference package and not this one; here it is the other way round, or
    the package is here without what it imports."""
    lacks = pytest.raises(ModelError, match=r"No module named '(moshi|einops)'")
    with Reference(Path(sys.executable)) as reference, lacks:
        reference.ask("threads", count=1)


# The picture


def test_the_picture_shows_slower_steps_higher_and_the_limit() -> None:
    root = ElementTree.fromstring(as_svg("A <step>", {"50": [(1, 20.0), (2, 40.0), (4, 160.0)]}, 80.0))
    heights = [float(node.attrib["cy"]) for node in root.iter() if node.tag.endswith("circle")]
    [limit] = [float(node.attrib["y1"]) for node in root.iter() if node.attrib.get("class") == "limit"]
    assert heights[0] > heights[1] > limit > heights[2] > 0
    assert "prefers-color-scheme: dark" in ElementTree.tostring(root, "unicode")
