"""Moshi's parts on MLX against those of the reference package moshi_mlx, in turns, in one process on one mlx.

pip install --no-deps --target REFERENCE moshi_mlx==0.3.0
.venv/bin/python benchmarks/against_mlx.py REFERENCE          a table, about a minute on two slow cores
.venv/bin/python benchmarks/against_mlx.py REFERENCE --json   the same for programs

Both sides have the same random weights at full size, in float32, and the device that MLX takes by itself.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from rich.console import Console
from rich.table import Table

from voice_bridge.engines.base import FRAME
from voice_bridge.engines.moshi.checkpoint import Weights
from voice_bridge.engines.moshi.config import model as configured
from voice_bridge.engines.moshi.mlx.mimi import Mimi
from voice_bridge.engines.moshi.names import Shape, mimi_tensors

CODEBOOKS = 8  # that Moshi speaks and hears
BATCHES = (2, 4, 8)
WARM = 2  # frames that do not count
AT_LEAST = 3.0  # times as fast must our codec be
LOUDNESS = 0.1
# Published names that differ from ours.
RENAMED = {"in_projs.0.weight": "in_proj_weight", "out_projs.0.weight": "out_proj.weight"}


@dataclass(frozen=True)
class Row:
    """Seconds are the best of all runs."""

    what: str
    calls: int = 1
    ours: float | None = None
    theirs: float | None = None
    passed: bool | None = None


def interleave(works: Mapping[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """The least that each gives in so many turns; the first ones do not count."""
    best = dict.fromkeys(works, math.inf)
    for turn in range(WARM + runs):
        for name, work in works.items():
            taken = work()
            if turn >= WARM:
                best[name] = min(best[name], taken)
    return best


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        mx.eval(work())
        return time.perf_counter() - began

    return run


class Ours:
    """Our codec with the state of so many calls."""

    def __init__(self, weights: Path, calls: int) -> None:
        config = configured({}, {}).mimi
        self._mimi = Mimi(config, Weights(weights, mimi_tensors(config, CODEBOOKS), "mlx"), CODEBOOKS)
        self._state = self._mimi.state(calls)
        self._slots = mx.arange(calls)
        self._frame = 0

    def encode(self, pcm: mx.array) -> mx.array:
        """[n, 1920] to [n, codebooks]"""
        codes = self._mimi.encode(pcm, self._state, self._slots, self._frames())
        mx.eval(codes, self._state.encoder)
        return codes

    def decode(self, codes: mx.array) -> mx.array:
        """The frame that was encoded last, and the last of its turn."""
        pcm = self._mimi.decode(codes, self._state, self._slots, self._frames())
        mx.eval(pcm, self._state.decoder)
        self._frame += 1
        return pcm

    def _frames(self) -> mx.array:
        return mx.full(self._slots.shape, self._frame, mx.int32)


class Theirs:
    """Theirs, for one call."""

    def __init__(self, weights: Path) -> None:
        package: Any = importlib.import_module("moshi_mlx.models.mimi")
        self._mimi = package.Mimi(package.mimi_202407(CODEBOOKS))
        self._mimi.load_pytorch_weights(str(weights))

    def encode(self, pcm: mx.array) -> mx.array:
        return self._mimi.encode_step(pcm[:, None]).squeeze(2)

    def decode(self, codes: mx.array) -> mx.array:
        return self._mimi.decode_step(codes[..., None]).squeeze(1)


def random_weights(path: Path) -> None:
    """A codec as it is published, of numbers that keep the loudness as it is."""
    mx.random.seed(0)
    tensors = {}
    for name, shape in mimi_tensors(configured({}, {}).mimi, CODEBOOKS).items():
        for ours, published in RENAMED.items():
            name = name.replace(ours, published)  # noqa: PLW2901
        tensors[name] = _random(name, shape)
        if name.endswith("embedding_sum"):
            tensors[name.replace("embedding_sum", "_initialized")] = mx.ones(1)
    mx.save_safetensors(str(path), tensors)


def _random(name: str, shape: Shape) -> mx.array:
    if len(shape) == 1:
        return mx.zeros(shape) if name.endswith("bias") else mx.ones(shape)
    return mx.random.normal(shape) * math.prod(shape[1:]) ** -0.5


def codec(runs: int, most: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mimi.safetensors"
        random_weights(weights)
        ours, theirs = Ours(weights, 1), Theirs(weights)
        pcm = _sound(1)
        codes = theirs.encode(pcm)
        works = {
            "encode": timed(lambda: ours.encode(pcm)),
            "decode": timed(lambda: ours.decode(codes)),
            "their encode": timed(lambda: theirs.encode(pcm)),
            "their decode": timed(lambda: theirs.decode(codes)),
        }
        best = interleave(works, runs)
        for way in ("encode", "decode"):
            yield Row(f"Mimi, {way}", 1, best[way], best[f"their {way}"])
        mine = best["encode"] + best["decode"]
        other = best["their encode"] + best["their decode"]
        yield Row("Mimi, both", 1, mine, other, passed=other >= AT_LEAST * mine)
        for calls in (count for count in BATCHES if count <= most):
            yield Row("Mimi, both", calls, _batch(weights, calls, runs))


def _batch(weights: Path, calls: int, runs: int) -> float:
    ours, pcm = Ours(weights, calls), _sound(calls)
    return interleave({"both": timed(lambda: ours.decode(ours.encode(pcm)))}, runs)["both"]


def _sound(calls: int) -> mx.array:
    pcm = mx.random.normal((calls, FRAME)) * LOUDNESS
    mx.eval(pcm)
    return pcm


def shown(rows: list[Row]) -> Table:
    table = Table("", "calls", "ours", "moshi_mlx", "times", "verdict")
    for row in rows:
        ours, theirs = (f"{1000 * part:.1f} ms" if part else "" for part in (row.ours, row.theirs))
        times = f"{row.theirs / row.ours:.1f} x" if row.theirs and row.ours else ""
        verdict = "" if row.passed is None else "passed" if row.passed else "missed"
        table.add_row(row.what, str(row.calls), ours, theirs, times, verdict)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="the folder into which moshi_mlx was installed")
    parser.add_argument("--runs", type=int, default=10, help="turns, of which the best one counts")
    parser.add_argument("--calls", type=int, default=1, help="batches of ours up to so many")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not (asked.reference / "moshi_mlx").is_dir():
        parser.error(
            f"no moshi_mlx in {asked.reference}: pip install --no-deps --target {asked.reference} moshi_mlx==0.3.0"
        )
    sys.path.append(str(asked.reference))
    rows = list(codec(asked.runs, asked.calls))
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(shown(rows))
    sys.exit(any(row.passed is False for row in rows))


if __name__ == "__main__":
    main()
