"""Moshi's parts on MLX against those of the reference package moshi_mlx, in turns, in one process on one mlx.

pip install --no-deps --target REFERENCE moshi_mlx==0.3.0
.venv/bin/python benchmarks/against_mlx.py REFERENCE               a table, after some minutes on two slow cores
.venv/bin/python benchmarks/against_mlx.py REFERENCE --what codec  of Mimi only; step: of the model step only
.venv/bin/python benchmarks/against_mlx.py REFERENCE --json        the same for programs

Both sides have random weights and the device that MLX takes by itself. Mimi has its full size and the same weights on
both, in float32. The step is without Mimi, of a model of dim 1024 with 8 layers and a depth transformer of 512 x 6 x 8,
with keys and values in float32; of several calls ours is one step, theirs as many.
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
import numpy as np
from mlx import nn
from rich.console import Console
from rich.table import Table

from voice_bridge.engines.base import FRAME
from voice_bridge.engines.moshi.checkpoint import Plain, Weights
from voice_bridge.engines.moshi.config import model as configured
from voice_bridge.engines.moshi.measure import SHAPES
from voice_bridge.engines.moshi.mlx.lm import Draw, Lm
from voice_bridge.engines.moshi.mlx.load import PACKED, Loader, WeightKind
from voice_bridge.engines.moshi.mlx.mimi import Mimi
from voice_bridge.engines.moshi.names import Shape, lm_tensors, mimi_tensors

CODEBOOKS = 8  # that Moshi speaks and hears
BATCHES = (2, 4, 8)
WARM = 2  # frames that do not count
AT_LEAST = 3.0  # times as fast must our codec be
STEP_AT_LEAST = {1: 1.3, 4: 2.5}  # times as fast must a step of so many calls be as so many steps of theirs
YOUNG = 49  # frames of a call that has just begun
TEXT_K, AUDIO_K = 25, 250  # likeliest tokens that are drawn among, as in use
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


class OurStep:
    """Our language model with calls that have all come so far."""

    def __init__(self, lm: Lm, calls: int, age: int) -> None:
        config = self._config = lm.config
        self._lm, self._age = lm, age
        self._state = lm.state(calls, calls, mx.float32)
        for cache in (cache for caches in self._state.temporal for cache in caches):
            cache[:] = [_noise(store.shape) for store in cache]
        mx.eval(self._state.temporal)
        self._slots, self._frames = mx.arange(calls), mx.full((calls,), age, mx.int32)
        self._heard = mx.zeros((calls, config.heard_streams), mx.int32)
        warm, text, audio = mx.full((calls,), 0.8), mx.full((calls,), TEXT_K), mx.full((calls,), AUDIO_K)
        noise = mx.random.uniform(shape=(1 + config.own_streams, calls))
        self._draw = Draw(warm, text, warm, audio, noise, (TEXT_K, AUDIO_K))

    def __call__(self) -> tuple[Any, ...]:
        state, free = self._state, mx.full(self._slots.shape, -1)
        where = (self._slots, self._frames, self._frames, self._age + 1)
        step, state.streams, state.temporal = self._lm.step(
            state.streams, state.temporal, *where, self._heard, free, self._draw
        )
        return step, state.streams, state.temporal


class TheirStep:
    """Theirs, one call of that age."""

    def __init__(self, shape: dict[str, Any], kind: WeightKind) -> None:
        models, sampling = (importlib.import_module(f"moshi_mlx.{name}") for name in ("models", "utils.sampling"))
        self._made = models.Lm(models.LmConfig.from_config_dict(shape | {"layer_scale": None, "causal": True}))
        if kind in PACKED:
            bits, group = PACKED[kind]
            nn.quantize(self._made, bits=bits, group_size=group)
        mx.eval(self._made.parameters())
        samplers = [sampling.Sampler(temp=0.8, top_k=top_k) for top_k in (TEXT_K, AUDIO_K)]
        self._generator = models.LmGen(self._made, 4000, *samplers)
        self._heard = mx.zeros((1, self._made.cfg.other_codebooks), mx.int32)
        for cache in self._made.transformer_cache:
            own = cache.self_attn
            own.max_size = shape["context"]
            size = (1, own.n_kv_heads, own.max_size, own.k_head_dim)
            own.keys, own.values = _noise(size), _noise(size)
        self._ages = [cache.self_attn for cache in self._made.transformer_cache]

    def stand(self, age: int) -> None:
        for own in self._ages:
            own.offset = own._idx = age

    def __call__(self) -> tuple[Any, ...]:
        text = self._generator.step(self._heard)
        return text, self._generator.gen_sequence, [(own.keys, own.values) for own in self._ages]


def steps(kind: WeightKind, runs: int) -> Iterator[Row]:
    """The model step of one call, young and of full age, and of four against four runs of theirs."""
    shape = dict(SHAPES["small"])
    config = configured(shape, {}).lm
    shapes = lm_tensors(config)
    lm = Lm(config, Loader(lambda name: Plain(_random(name, shapes[name])), kind))
    theirs = TheirStep(shape, kind)
    for age, calls in ((YOUNG, 1), (config.temporal.context - 1, 1), (config.temporal.context - 1, 4)):

        def other(age: int = age) -> tuple[Any, ...]:
            theirs.stand(age)
            return theirs()

        best = interleave({"ours": timed(OurStep(lm, calls, age)), "theirs": timed(other)}, runs)
        at_least = STEP_AT_LEAST[calls]
        mine, all_of_them = best["ours"], calls * best["theirs"]
        yield Row(f"step, {kind}, {age + 1} frames", calls, mine, all_of_them, passed=all_of_them >= at_least * mine)


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
    return _noise(shape) * math.prod(shape[1:]) ** -0.5


def _noise(shape: Shape) -> mx.array:
    """NumPy makes it ten times as fast as MLX on a CPU."""
    return mx.array(np.random.default_rng(0).standard_normal(shape, np.float32))


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
    parser.add_argument("--what", choices=("both", "codec", "step"), default="both")
    parser.add_argument("--weights", default="float32", help="of the step")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not (asked.reference / "moshi_mlx").is_dir():
        parser.error(
            f"no moshi_mlx in {asked.reference}: pip install --no-deps --target {asked.reference} moshi_mlx==0.3.0"
        )
    sys.path.append(str(asked.reference))
    rows = list(codec(asked.runs, asked.calls)) if asked.what != "step" else []
    if asked.what != "codec":
        rows += [row for kind in asked.weights.split(",") for row in steps(kind, asked.runs)]
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(shown(rows))
    sys.exit(any(row.passed is False for row in rows))


if __name__ == "__main__":
    main()
