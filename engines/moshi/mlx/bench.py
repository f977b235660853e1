"""How long a step takes on MLX, and what of, as `torch/bench.py` has it for torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from ... import hardware
from ...base import FRAME
from ...hardware import GB
from ..checkpoint import Checkpoint, Plain, Stored
from ..config import ModelError, Sampling
from ..config import model as configured
from ..fit import Fit, fit
from ..loading import one_of
from ..measure import READ, READS, SETTLED, SHAPES, Setting, Step, Work, sweep, timed
from ..model import Place
from ..names import Shape, lm_tensors, mimi_tensors
from . import memory
from .engine import DTYPES
from .load import KINDS, Loader
from .model import MlxModel, compiles
from .transformer import Caches


class Random:
    """Weights as a checkpoint would give them: what comes out is as large as what went in."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes

    def __call__(self, name: str) -> Stored:
        shape = self._shapes[name]
        if len(shape) == 1:
            return Plain(mx.zeros(shape) if name.endswith("bias") else mx.ones(shape))
        return Plain(mx.random.normal(shape) * math.prod(shape[1:]) ** -0.5)


def load(setting: Setting, most: int) -> tuple[MlxModel, Fit]:
    """The model with room for `most` calls or as many as fit, and how it fits. Raises `ModelError`."""
    checkpoint = Checkpoint.open(setting.model) if setting.model else None
    config = checkpoint.config if checkpoint else configured(dict(SHAPES[setting.shape]), {})
    form = fit(hardware.detect(), "mlx", setting.weights, setting.keys, lm=config.lm)
    if not form.room:
        raise ModelError(
            f"one call needs {form.needed / GB:.1f} GB and {form.free / GB:.1f} GB are free: "
            "take smaller --weights or another --shape"
        )
    weights: Callable[[str], Stored] = Random(lm_tensors(config.lm))
    codec: Callable[[str], Stored] = Random(mimi_tensors(config.mimi, config.lm.codebooks))
    if checkpoint:
        weights, codec = checkpoint.lm("mlx"), checkpoint.mimi("mlx")
    memory.limit()
    kind, keys = one_of("weights", setting.weights, KINDS), DTYPES[one_of("keys", setting.keys, DTYPES)]
    made = MlxModel(config, Loader(weights, kind), codec, min(most, form.room), keys)
    memory.settle()
    return made, form


class Stand:
    """`calls` calls that have all gone `context` frames, at the next of which they stand for as long as one likes."""

    def __init__(self, model: MlxModel, calls: int, context: int) -> None:
        self._model = model
        config = model.config.lm
        self.speaks = config.own_streams > 0
        usual = Sampling()
        where = (context - 1, SETTLED, SETTLED, SETTLED, -1, usual.text_top_k, usual.audio_top_k)
        self._places = np.array([Place(call, call, *where) for call in range(calls)])
        self._chances = np.random.default_rng(0).random((calls, 3 + config.own_streams), np.float32)
        self._chances[:, :2] = usual.text_temperature, usual.audio_temperature
        self._pcm = np.zeros((calls, FRAME), np.float32)
        self._slots = mx.arange(calls)
        self._frames = mx.full((calls,), SETTLED)
        self._positions = mx.full((calls,), context - 1)
        self._rows = mx.zeros((calls, 1, 1 + config.streams), mx.int32)
        self._heard, self._codes = (
            mx.zeros((calls, streams), mx.int32) for streams in (config.heard_streams, config.own_streams)
        )

        def read(caches: list[Caches], rows: mx.array, positions: mx.array) -> tuple[mx.array, list[Caches]]:
            return model._lm.read(caches, rows, positions, context)

        self._read = mx.compile(read) if compiles() else read

    def tick(self) -> None:
        """All of a step: sound in, sound out."""
        self._model.collect(self._model.tick(self._pcm, self._places, self._chances, None))

    def encode(self) -> None:
        sound = self._model._sound
        mx.eval(self._model._mimi.encode(mx.array(self._pcm), sound, self._slots, self._frames), sound.encoder)

    def decode(self) -> None:
        sound = self._model._sound
        mx.eval(self._model._mimi.decode(self._codes, sound, self._slots, self._frames), sound.decoder)

    def temporal(self) -> None:
        caches = self._model._state.temporal[: len(self._slots)]
        out, self._model._state.temporal[: len(self._slots)] = self._read(caches, self._rows, self._positions)
        mx.eval(out, self._model._state.temporal)

    def step(self) -> None:
        """What is between Mimi's two parts, sampling included."""
        mx.eval(self._model.think(self._heard, self._places, self._chances, None))


def measure(
    setting: Setting, most: int, contexts: Sequence[int], runs: int, say: Callable[[str], None]
) -> tuple[list[Step], float]:
    """As `measure.sweep` says, of MLX's device. Raises `ModelError`."""
    say("loading" if setting.model else "making weights")
    model, form = load(setting, most)

    def works(calls: int, context: int) -> dict[str, Callable[[], float]]:
        stand = Stand(model, calls, context)
        works: dict[str, Work] = {"encode": stand.encode, "lm": stand.step, "temporal": stand.temporal}
        works |= {"decode": stand.decode} if stand.speaks else {}
        return {name: timed(work) for name, work in (works | {"all": stand.tick}).items()}

    return sweep(model.config, form, most, contexts, runs, say, works, bandwidth)


def bandwidth() -> float:
    """Bytes a second of a copy on MLX's device, which reads and writes."""
    here = mx.zeros(READ // 4)
    mx.eval(here)
    best = math.inf
    for _ in range(READS):
        began = time.perf_counter()
        mx.eval(here + 1)
        best = min(best, time.perf_counter() - began)
    return 2 * here.nbytes / best
