"""What of a model fits a machine, and how fast it will be there: arithmetic, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias, cast

from ..base import in_time
from ..hardware import GB, Machine
from . import config
from .config import LmConfig, TransformerConfig

Device: TypeAlias = Literal["cuda", "mlx", "cpu"]
Weights: TypeAlias = Literal["bf16", "int8", "int4", "fp8", "float32"]
Keys: TypeAlias = Literal["bf16", "int8", "float32"]

# Bytes of a number. Four bits have a scale and a bias of 16 for each 32; 8-bit keys have a scale for each head.
WEIGHT_BYTES: dict[Weights, float] = {"bf16": 2, "int8": 1, "int4": 0.625, "fp8": 1, "float32": 4}
KEY_BYTES: dict[Keys, float] = {"bf16": 2, "int8": 1 + 1 / 64, "float32": 4}

# What is tried where nothing was asked for, the best first.
WEIGHTS: dict[Device, tuple[Weights, ...]] = {
    "cuda": ("bf16", "int8", "int4"),
    "mlx": ("bf16", "int8", "int4"),
    "cpu": ("int8", "int4"),
}
KEYS: dict[Device, tuple[Keys, ...]] = {"cuda": ("bf16", "int8"), "mlx": ("bf16",), "cpu": ("bf16", "int8")}
SMALLER: dict[Weights, Weights] = {"float32": "bf16", "bf16": "int8", "fp8": "int4", "int8": "int4"}

# The repositories that hold the 7B in about the form that is computed with: the least to download.
MODELS: dict[Weights, str] = {
    "bf16": "kyutai/moshiko-pytorch-bf16",
    "int8": "kyutai/moshiko-pytorch-q8",
    "int4": "kyutai/moshiko-mlx-q4",
    "fp8": "kyutai/moshiko-pytorch-bf16",
    "float32": "kyutai/moshiko-pytorch-bf16",
}
MLX_MODELS: dict[Weights, str] = {
    "bf16": "kyutai/moshiko-mlx-bf16",
    "int8": "kyutai/moshiko-mlx-q8",
    "int4": "kyutai/moshiko-mlx-q4",
}
STORED: dict[str, Weights] = {"-q8": "int8", "-q4": "int4"}  # how such a repository's name ends

ROOM = 0.95  # of the memory that is free: the rest goes to fragments
WORK: dict[Device, float] = {"cuda": 2 * GB, "mlx": 1.5 * GB, "cpu": 1 * GB}  # torch or MLX, buffers, Mimi (0.4 GB)
MIMI_CALL = 24_000_000  # bytes of a call in Mimi: 16 layers of 250 keys and values, and what convolutions carry over
MOST = 128  # calls; more were never measured
SHARE: dict[Device, float] = {"cuda": 0.75, "mlx": 0.8, "cpu": 0.75}  # of the bandwidth; on MLX as others report
# Seconds for Mimi and for everything that does not wait for memory; on a CPU of one core, shared by its cores. MLX's
# are estimates: no Mac has been measured.
STEP: dict[Device, float] = {"cuda": 0.002, "mlx": 0.008, "cpu": 0.030}
CALL: dict[Device, float] = {"cuda": 0.0001, "mlx": 0.003, "cpu": 0.010}


@dataclass(frozen=True)
class Fit:
    """A model on a device. Bytes of memory, and seconds by arithmetic: only a run measures them."""

    device: Device
    weights: Weights
    keys: Keys
    fixed: int
    """Bytes that there must be for any number of calls."""
    call: int
    """Bytes of each call more."""
    free: int
    """Bytes that there are."""
    read: int
    """Bytes of weights that every step reads."""
    ring: int
    """Bytes of keys and values that a step reads of a call of full age."""
    bandwidth: float
    cores: int

    @property
    def room(self) -> int:
        """Calls for which there is memory. One more is taken for the renewal of a long call."""
        return max(0, int((ROOM * self.free - self.fixed) // self.call) - 1)

    @property
    def slots(self) -> int:
        """Calls for which there is memory and, as far as one can tell, time; one at least if it fits."""
        served = next((n for n in range(MOST, 1, -1) if in_time(n, self.step)), 1)
        return min(self.room, served)

    @property
    def needed(self) -> int:
        """Bytes for one call."""
        return math.ceil((self.fixed + 2 * self.call) / ROOM)

    @property
    def holds(self) -> bool:
        """Whether one call is served in time."""
        return in_time(1, self.step)

    def step(self, calls: int) -> float:
        """Seconds that a step of so many calls of full age is expected to take."""
        shared = self.cores if self.device == "cpu" else 1
        return (STEP[self.device] + calls * CALL[self.device]) / shared + (self.read + calls * self.ring) / (
            SHARE[self.device] * self.bandwidth
        )

    @property
    def remedy(self) -> str:
        """What to do when a step takes too long, or when the model does not fit."""
        if smaller := SMALLER.get(self.weights):
            return f"take voice.moshi.weights = {smaller}"
        if self.keys != "int8" and "int8" in KEYS[self.device]:
            return "take voice.moshi.keys = int8"
        return "take a smaller model, a faster machine, or voice.provider = cascade"


def fit(
    machine: Machine, device: Device, weights: str = "", keys: str = "", model: str = "", lm: LmConfig | None = None
) -> Fit:
    """The best form of a model that fits and is fast enough; or else the smallest that fits, or the smallest.

    What was asked for is not changed. Without `lm` it is Moshi 7B.
    """
    lm = lm or config.model({}, {}).lm
    forms = [_fit(machine, device, lm, *form) for form in _forms(device, weights, keys, model)]
    fitting = [form for form in forms if form.room]
    return next((form for form in fitting if form.holds), fitting[-1] if fitting else forms[-1])


def repository(weights: str, device: Device = "cpu") -> str:
    """Where the 7B is published for these weights, in the layout of this device if there is one."""
    form = cast("Weights", weights)
    return MLX_MODELS.get(form, MODELS[form]) if device == "mlx" else MODELS[form]


def _forms(device: Device, weights: str, keys: str, model: str) -> Iterator[tuple[Weights, Keys]]:
    """What may be chosen from, the best first."""
    tried = (cast("Weights", weights),) if weights else WEIGHTS[device]
    stored = next((form for end, form in STORED.items() if model.endswith(end)), None)
    if stored and not weights:  # nothing is won by more bits than the model has
        tried = tuple(form for form in tried if WEIGHT_BYTES[form] <= WEIGHT_BYTES[stored])
    best: tuple[Keys, ...] = ("float32",) if weights == "float32" else KEYS[device]
    yield from product(tried, (cast("Keys", keys),) if keys else best)


def _fit(machine: Machine, device: Device, lm: LmConfig, weights: Weights, keys: Keys) -> Fit:
    multiplied, looked_up = parameters(lm)
    temporal = lm.temporal
    frame = 2 * temporal.layers * temporal.kv_heads * temporal.head_dim * KEY_BYTES[keys]
    ring = int(temporal.context * frame)
    read = int(multiplied * WEIGHT_BYTES[weights])
    tables = int(looked_up * max(2, WEIGHT_BYTES[weights]))
    on_gpu = device == "cuda" or (device == "mlx" and machine.kind == "apple")
    return Fit(
        device=device,
        weights=weights,
        keys=keys,
        fixed=int(read + tables + WORK[device]),
        call=ring + MIMI_CALL,
        free=machine.free if on_gpu else machine.host_free,
        read=read,
        ring=ring,
        bandwidth=machine.bandwidth if on_gpu else machine.host_bandwidth,
        cores=max(1, machine.cores - 1),  # one is left to the event loop
    )


def parameters(lm: LmConfig) -> tuple[int, int]:
    """How many weights every step multiplies with, and how many it only looks up."""
    temporal, depth = lm.temporal, lm.depth
    multiplied = _transformer(temporal) + temporal.dim + temporal.dim * lm.text_card_out
    multiplied += lm.extra_heads * lm.extra_dim * temporal.dim
    looked_up = temporal.dim * (lm.text_card + 1 + lm.streams * (lm.card + 1))
    if depth:
        width = depth.low_rank or depth.transformer.dim
        entries = lm.text_card + 1 + (depth.codebooks - 1) * (lm.card + 1)
        looked_up += entries * width
        multiplied += (max(depth.projections) + 1) * temporal.dim * depth.transformer.dim
        multiplied += _transformer(depth.transformer) + depth.codebooks * depth.transformer.dim * lm.card
        if depth.low_rank:
            multiplied += depth.codebooks * width * depth.transformer.dim
    return multiplied, looked_up


def _transformer(shape: TransformerConfig) -> int:
    """Weights of all layers, of every set of them that a frame goes through."""
    blocks = (3 if shape.gated else 2) * sum(shape.hidden)
    attention = len(shape.hidden) * (shape.qkv_dim + shape.dim)
    return shape.layers * shape.dim * (blocks + attention + 2)
