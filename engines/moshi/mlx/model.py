"""The model on MLX: codec and language model with the state of all slots, behind the core's `Model`.

A tick is one evaluation: from the caller's samples to the agent's nothing comes back to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ...base import FRAME
from ..checkpoint import Stored
from ..config import ModelConfig
from ..model import Floats, Heard, Ints, Place
from .lm import Draw, Lm
from .load import Loader
from .mimi import Mimi
from .transformer import STRETCH, Caches

REACH = 256  # rows of context that are looked at at least: each doubling is a step to be compiled of its own
KEPT = 32  # likeliest tokens that are looked at at least, for the same reason


class Ticked(NamedTuple):
    row: mx.array
    text: mx.array
    complete: mx.array
    sound: mx.array
    pauses: mx.array


class MlxModel:
    def __init__(
        self, config: ModelConfig, lm: Loader, mimi: Callable[[str], Stored], slots: int, keys: mx.Dtype
    ) -> None:
        self.config = config
        self._slots = slots
        self._lm = Lm(config.lm, lm)
        self._mimi = Mimi(config.mimi, mimi, config.lm.codebooks)
        self._state = self._lm.state(slots, slots + 1, keys)
        self._sound = self._mimi.state(slots + 1)  # the last is for sound that is no call's
        self._added = mx.zeros((slots, config.lm.temporal.dim))
        self._conditions = {name: _Table(lm, name) for name in config.lm.conditions}
        self._compiled = cache(self._compile)

    def prepare(self, on_progress: Callable[[int], None]) -> None:
        """Compile the steps of batches of every size, and of calls of every age, before there is any call."""
        if not compiles():
            return
        longest = self.config.lm.temporal.context
        ages = {min(_doubled(REACH, age), longest) for age in range(1, longest + 1, REACH)}
        sampling = self.config.sampling
        chances = np.zeros((self._slots, 3 + self.config.lm.own_streams), np.float32)
        for n in range(1, self._slots + 1):
            on_progress(n)
            for age in ages:
                where = (age - 1, 9, 9, 9, -1, sampling.text_top_k, sampling.audio_top_k)
                places = np.array([Place(slot, slot, *where) for slot in range(n)])
                self.collect(self.tick(np.zeros((n, FRAME), np.float32), places, chances[:n], None))

    def tick(self, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> Ticked:
        config = self.config.lm
        slots, _, _, _, encoded, decoded, *_ = (mx.array(column.astype(np.int32)) for column in places.T)
        heard = self._mimi.encode(mx.array(pcm), self._sound, slots, encoded)[:, : config.heard_streams]
        row, text, complete, heads = self.think(heard, places, chances, given)
        if config.own_streams:
            sound = self._mimi.decode(complete[:, 1:], self._sound, slots, decoded)
        else:
            sound = mx.zeros(pcm.shape)  # it listens and does not speak
        ticked = Ticked(row, text, complete, sound, heads[..., :1].flatten(1))
        mx.async_eval(ticked, self._state.streams, self._state.temporal, self._sound.encoder, self._sound.decoder)
        return ticked

    def think(self, heard: mx.array, places: Ints, chances: Floats, given: Ints | None) -> tuple[mx.array, ...]:
        """What the language model makes of codes [n, heard_streams]: the row, text, complete and heads of its step."""
        given = np.full((len(places), 1 + self.config.lm.streams), -1) if given is None else given
        rows = places[:, Place._fields.index("row")].tolist()
        step: tuple[mx.array, ...]
        step, self._state.streams, caches = self._compiled(*_sizes(places))(
            self._state.streams,
            [self._state.temporal[row] for row in rows],
            mx.array(places.T.astype(np.int32)),
            heard,
            mx.array(chances.T),
            self._added,
            mx.array(given.astype(np.int32)),
        )
        for row, written in zip(rows, caches, strict=True):
            self._state.temporal[row] = written
        return step

    def collect(self, pending: Ticked) -> Heard:
        row, text, complete, sound, pauses = (np.array(values) for values in pending)
        return Heard(row.astype(np.int64), text.astype(np.int64), complete.astype(np.int64), sound, pauses)

    def read(self, row: int, position: int, tokens: Ints, vector: Floats | None) -> None:
        added = None if vector is None or not vector.any() else mx.array(vector)[None]
        for start in range(0, len(tokens), STRETCH):
            part = mx.array(tokens[None, start : start + STRETCH].astype(np.int32))
            first = position + start
            reach = _doubled(REACH, first + part.shape[1])
            at = mx.array([first])
            _, (self._state.temporal[row],) = self._lm.read([self._state.temporal[row]], part, at, reach, added)
            mx.eval(self._state.temporal[row])

    def fill(self, slot: int, tokens: Ints) -> None:
        self._state.streams[slot] = mx.array(tokens.astype(np.int32))[:, None]

    def add(self, slot: int, vector: Floats) -> None:
        self._added[slot] = mx.array(vector)

    def condition(self, name: str, value: str) -> Floats:
        return np.array(self._conditions[name].vector(self.config.lm.conditions[name].values.index(value)))

    def embed(self, text: Ints) -> Floats:
        return np.array(self._lm.embed(mx.array(text.astype(np.int32))))

    def encode(self, pcm: Floats) -> Ints:
        spare = mx.array([self._slots])
        codes = []
        for index, frame in enumerate(pcm.reshape(-1, 1, FRAME)):
            codes.append(self._mimi.encode(mx.array(frame), self._sound, spare, mx.array([index])))
            mx.eval(codes[-1], self._sound.encoder)
        return np.array(mx.concatenate(codes)).astype(np.int64)

    def memory(self) -> int:
        return mx.get_active_memory() + mx.get_cache_memory()

    def _compile(self, reach: int, kept: tuple[int, int]) -> Callable[..., tuple[Any, mx.array, list[Caches]]]:
        """A step as one function, for calls that reach back so far and draw among so many tokens."""
        step = partial(self._step, reach, kept)
        return mx.compile(step) if compiles() else step

    def _step(
        self,
        reach: int,
        kept: tuple[int, int],
        streams: mx.array,
        caches: list[Caches],
        places: mx.array,
        heard: mx.array,
        chances: mx.array,
        added: mx.array,
        given: mx.array,
    ) -> tuple[tuple[mx.array, ...], mx.array, list[Caches]]:
        slots, _, position, frame, _, _, forced, text_top_k, audio_top_k = places
        draw = Draw(chances[0], text_top_k, chances[1], audio_top_k, chances[2:], kept)
        step, streams, caches = self._lm.step(
            streams, caches, slots, frame, position, reach, heard, forced, draw, added[slots], given
        )
        return (step.row, step.text, step.complete, step.heads), streams, caches


def compiles() -> bool:
    """On a CPU, MLX hands each of some hundred fused operations to a C++ compiler at first use: minutes, in which a
    step could begin at once, and what is gained is a few milliseconds of it."""
    return bool(mx.default_device() == mx.gpu)


def _sizes(places: Ints) -> tuple[int, tuple[int, int]]:
    """What a step is compiled for: how far its calls reach back, and how many tokens they draw among, rounded up."""
    _, _, position, _, _, _, _, text_top_k, audio_top_k = places.T
    return _doubled(REACH, int(position.max()) + 1), (_kept(text_top_k), _kept(audio_top_k))


def _kept(top_k: Ints) -> int:
    return _doubled(KEPT, int(top_k.max())) if top_k.min() > 0 else 0


def _doubled(least: int, wanted: int) -> int:
    while least < wanted:
        least *= 2
    return least


class _Table:
    """A condition's words as vectors."""

    def __init__(self, load: Loader, name: str) -> None:
        prefix = f"condition_provider.conditioners.{name}"
        self._words = load.tensor(f"{prefix}.embed.weight")
        self._widen = load.tensor(f"{prefix}.output_proj.weight")

    def vector(self, index: int) -> mx.array:
        return self._widen @ self._words[index]
