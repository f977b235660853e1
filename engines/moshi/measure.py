"""What is measured of a model, and how, whatever computes: shapes without anybody's weights, and steps in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import numpy as np

from .config import MOSHI_7B, Json, ModelConfig
from .fit import WEIGHT_BYTES, Device, Fit, Weights
from .names import mimi_tensors

SPAN = 0.05  # seconds that one timing should take, so that the clock's grain does not count
MOST = 20  # steps in it at most
READ = 256 << 20  # bytes read to find the bandwidth: far more than any cache holds
READS = 3  # times, the best counts
SETTLED = 500  # frames that Mimi has gone: its windows are full

# The 7B; a model of a twentieth that fits the reference's patience; and the 7B's layers with next to nothing in them,
# so that what remains is the framework.
SHAPES: Mapping[str, Json] = {
    "7b": MOSHI_7B,
    "small": MOSHI_7B
    | {"dim": 1024, "num_heads": 16, "num_layers": 8, "depformer_dim": 512, "depformer_num_heads": 8}
    | {"depformer_dim_feedforward": int(4.125 * 512)},
    "tiny": MOSHI_7B
    | {"dim": 64, "num_heads": 2, "hidden_scale": 4.5, "context": 64, "text_card": 64}
    | {"depformer_dim": 64, "depformer_num_heads": 2, "depformer_dim_feedforward": 288},
}

Work: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what."""

    shape: str = "7b"
    model: str = ""
    """A folder or repository; empty is random weights of that shape."""
    weights: Weights = "int8"
    keys: str = "bf16"
    device: Device = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Step:
    """One size of step. Seconds; parts are of the best run, and add up to about `best`."""

    calls: int
    context: int
    best: float
    median: float
    parts: Mapping[str, float]
    bytes: float
    """What must be read for it."""

    def share(self, bandwidth: float) -> float:
        """Of the bandwidth, if nothing were read twice."""
        return self.bytes / self.best / bandwidth


def step(calls: int, context: int, taken: Mapping[str, Sequence[float]], read: float) -> Step:
    best = {name: min(seconds) for name, seconds in taken.items()}
    decode = best.get("decode", 0.0)
    parts = {
        "Mimi encode": best["encode"],
        "temporal": best["temporal"],
        "depth": max(0.0, best["lm"] - best["temporal"]),
        "Mimi decode": decode,
        "rest": max(0.0, best["all"] - best["encode"] - best["lm"] - decode),
    }
    return Step(calls, context, best["all"], median(taken["all"]), parts, read)


def sweep(
    config: ModelConfig,
    form: Fit,
    most: int,
    contexts: Sequence[int],
    runs: int,
    say: Callable[[str], None],
    works: Callable[[int, int], Mapping[str, Callable[[], float]]],
    bandwidth: Callable[[], float],
) -> tuple[list[Step], float]:
    """A step of 1, 2, 4 and up to `most` calls or as many as there is memory for, at each context.

    `works` gives what takes how long, for so many calls of that age. Gives too how many bytes a second the device read
    meanwhile, at its best.
    """
    most = min(most, form.room)
    codec = sum(map(math.prod, mimi_tensors(config.mimi, config.lm.codebooks).values()))
    longest = config.lm.temporal.context
    steps, byte = [], math.inf
    for context in sorted({min(context, longest) for context in contexts}):
        for calls in sorted({most, *(1 << n for n in range(most.bit_length()))}):
            say(f"{calls} call{'s' * (calls > 1)}, {context} frames of context")
            taken = interleave({**works(calls, context), "byte": lambda: 1 / bandwidth()}, runs)
            byte = min(byte, *taken["byte"])
            read = form.read + codec * WEIGHT_BYTES["float32"] + calls * form.ring * context / longest
            steps.append(step(calls, context, taken, read))
    return steps, 1 / byte


def timed(work: Work, sync: Callable[[], None] = lambda: None) -> Callable[[], float]:
    """A function that gives the seconds that `work` takes, after once that does not count."""
    work()
    sync()
    began = time.perf_counter()
    work()
    sync()
    steps = max(1, min(MOST, round(SPAN / (time.perf_counter() - began))))

    def run() -> float:
        work()
        sync()
        began = time.perf_counter()
        for _ in range(steps):
            work()
        sync()
        return (time.perf_counter() - began) / steps

    return run


def interleave(works: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """What each takes, in turns: whatever else the machine does meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            taken[name].append(work())
    return taken


def host_bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read of the host's memory."""
    parts = np.ones((threads, READ // threads // 4), np.float32)
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(READS):
            began = time.perf_counter()
            list(pool.map(np.max, parts))
            best = min(best, time.perf_counter() - began)
    return parts.nbytes / best
