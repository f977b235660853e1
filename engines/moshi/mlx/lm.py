"""The language model: every 80 ms it reads a row of tokens, text and sound of both sides, and writes the next.

The temporal transformer goes from frame to frame, the depth transformer from codebook to codebook within one. Nothing
here changes what it is given: new state comes back, so that MLX can compile a step as one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..config import LmConfig
from .load import Linear, Loader
from .transformer import STRETCH, Caches, Frame, Norm, Rings, Transformer, new_caches, put


@dataclass
class LmState:
    """What every slot carries from step to step. A slot is as new when its frames and positions begin at 0 again."""

    streams: mx.array
    """Tokens that wait for their delay, a ring of `max_delay + 2` frames [slots, 1 + streams, ring]."""
    temporal: list[Caches]
    """By rows, which are not slots: a step says which row a slot has."""


class Draw(NamedTuple):
    """How each slot's tokens are chosen."""

    text_temperature: mx.array  # [n]
    text_top_k: mx.array
    audio_temperature: mx.array
    audio_top_k: mx.array
    noise: mx.array
    """For the text, then for each codebook [1 + own_streams, n]."""
    kept: tuple[int, int]
    """The largest of both top k in use, or more; 0 is all tokens."""


class Step(NamedTuple):
    row: mx.array
    """The tokens that were read [n, 1 + streams]."""
    text: mx.array
    """The text token that was written now [n]."""
    complete: mx.array
    """Text and own codes of the newest frame whose delayed codes are all there [n, 1 + own_streams]."""
    logits: mx.array  # [n, text_card]
    heads: mx.array
    """What the extra heads say, as probabilities [n, heads, extra_dim]."""


class Lm:
    def __init__(self, config: LmConfig, load: Loader) -> None:
        self.config = config
        self.activations = load.activations
        names = ["text_emb", *(f"emb.{i}" for i in range(config.streams))]
        self._embeddings = _Embeddings(load, names, [config.text_card + 1, *[config.card + 1] * config.streams])
        self._temporal = Transformer(config.temporal, load, "transformer")
        self._norm = Norm(load, "out_norm", config.temporal.norm)
        self._text = load.linear("text_linear.weight")
        self._text_bias = load.tensor("text_linear.bias") if config.biased else None
        self._heads: Linear | None = None
        if config.extra_heads:
            self._heads = load.linear(*(f"extra_heads.{i}.weight" for i in range(config.extra_heads)))
        self._depth = Depth(config, load) if config.depth else None
        self._first = mx.array([config.text_card, *[config.card] * config.streams])
        self._delays = mx.array(config.delays)
        self._ring = config.max_delay + 2

    def state(self, slots: int, rows: int, keys: mx.Dtype) -> LmState:
        """State of `slots` calls over a cache of `rows`, with keys and values of that type."""
        streams = mx.zeros((slots, 1 + self.config.streams, self._ring), mx.int32)
        state = LmState(streams, [new_caches(self.config.temporal, keys) for _ in range(rows)])
        mx.eval(state.streams, state.temporal)
        return state

    def read(
        self,
        caches: Sequence[Caches],
        rows: mx.array,
        positions: mx.array,
        reach: int,
        added: mx.array | None = None,
    ) -> tuple[mx.array, list[Caches]]:
        """Take in rows of tokens [n, t, 1 + streams] of n calls, each from its position [n] on, at most `STRETCH`.

        Gives what follows from each [n, t, dim], and the new caches. `added` [n, dim] goes onto their embeddings.
        No call has more than `reach` rows then.
        """
        t = rows.shape[1]
        assert t <= STRETCH
        x = self._embeddings(rows)
        if added is not None:
            x = x + added[:, None].astype(x.dtype)
        past = Rings(caches, positions, t, self.config.temporal.context, reach)
        return self._norm(self._temporal(x, past)), past.caches

    def embed(self, text: mx.array) -> mx.array:
        """The mean embedding [dim] of text tokens [n]."""
        return self._embeddings.first(text).astype(mx.float32).mean(0)

    def step(
        self,
        streams: mx.array,
        caches: Sequence[Caches],
        slots: mx.array,
        frames: mx.array,
        positions: mx.array,
        reach: int,
        heard: mx.array,
        forced: mx.array,
        draw: Draw,
        added: mx.array | None = None,
        given: mx.array | None = None,
    ) -> tuple[Step, mx.array, list[Caches]]:
        """One frame for each of `slots` [n], which is its frame number `frames` [n], at `positions` [n] of its caches.

        `heard` [n, heard_streams] are the caller's codes of now; `forced` [n] is the text token to write, or -1.
        `given` [n, 1 + streams] is read instead of what waits, where it is not negative. Gives the step, and what
        becomes of `streams` and `caches`.
        """
        config, ring = self.config, self._ring
        own = 1 + config.own_streams
        slot, frame = slots[:, None], frames[:, None]
        stream = mx.arange(1 + config.streams)
        streams = put(streams, (slot, stream[own:], (frame + self._delays[own:]) % ring), heard)
        waiting = streams[slot, stream, frame % ring]
        row = mx.where(frame <= self._delays, self._first, waiting)  # [n, 1 + streams]
        if given is not None:
            row = mx.where(given >= 0, given, row)
        out, caches = self.read(caches, row[:, None], positions, reach, added)
        out = out[:, 0]  # [n, dim]
        logits = self._text(out)
        if self._text_bias is not None:
            logits = logits + self._text_bias
        sampled = sample(logits, draw.text_temperature, draw.text_top_k, draw.noise[0], draw.kept[0])
        text = mx.where(forced >= 0, forced, sampled)
        written = text[:, None]
        if self._depth:
            written = mx.concatenate([written, self._depth(out, text, draw)], axis=1)
        streams = put(streams, (slot, stream[:own], (frame + 1) % ring), written)
        # The ring has gone round at least once less max_delay: a frame before the first is not looked at by anyone.
        complete = streams[slot, stream[:own], (frame + 1 + ring - config.max_delay + self._delays[:own]) % ring]
        return Step(row, text, complete, logits, self._extra(out)), streams, caches

    def _extra(self, out: mx.array) -> mx.array:
        if self._heads is None:
            return mx.zeros((out.shape[0], 0, 0))
        heads = self._heads(out).reshape(out.shape[0], self.config.extra_heads, -1)
        return mx.softmax(heads.astype(mx.float32), axis=-1)


class Depth:
    """Writes the codes of one frame, each codebook with the knowledge of those before it."""

    def __init__(self, config: LmConfig, load: Loader) -> None:
        depth = config.depth
        assert depth
        self.config = depth
        projections = sorted(set(depth.projections))
        self._project = load.linear(*(f"depformer_in.{i}.weight" for i in projections))
        self._projection = [projections.index(i) for i in depth.projections]
        names = ["depformer_text_emb", *(f"depformer_emb.{i}" for i in range(depth.codebooks - 1))]
        self._embeddings = [_Embeddings(load, [name], [0], low_rank=bool(depth.low_rank)) for name in names]
        self._transformer = Transformer(depth.transformer, load, "depformer")
        self._norms = [
            Norm(load, f"depformer_norms.{i}", depth.norm) if depth.norm else None for i in range(depth.codebooks)
        ]
        self._codes = [load.linear(f"linears.{i}.weight") for i in range(depth.codebooks)]
        self._biases = [load.tensor(f"linears.{i}.bias") if config.biased else None for i in range(depth.codebooks)]

    def __call__(self, out: mx.array, text: mx.array, draw: Draw) -> mx.array:
        """From what the temporal transformer says [n, dim] and the text token [n] to codes [n, codebooks]."""
        starts = self._project(out).reshape(len(out), -1, self.config.transformer.dim)  # [n, projections, depth dim]
        past = Frame()
        token, codes = text, []
        for k, weights in enumerate(self.config.schedule):
            start = self._projection[k]
            past.offset = k
            x = self._embeddings[k](token[:, None, None]) + starts[:, start : start + 1]  # [n, 1, depth dim]
            x = self._transformer(x, past, weights)[:, 0]
            norm, bias = self._norms[k], self._biases[k]
            logits = self._codes[k](x if norm is None else norm(x))
            if bias is not None:
                logits = logits + bias
            token = sample(logits, draw.audio_temperature, draw.audio_top_k, draw.noise[1 + k], draw.kept[1])
            codes.append(token)
        return mx.stack(codes, axis=1)


class _Embeddings:
    """Several tables as one; looked up in each, and summed."""

    def __init__(self, load: Loader, names: list[str], cards: list[int], low_rank: bool = False) -> None:
        """`names` are the tables', and `cards` how many rows each has."""
        self._table = load.table(*(f"{name}.weight" for name in names))
        self._offsets = mx.array(np.cumsum([0, *cards[:-1]]).astype(np.int32))
        self._widen = load.linear(f"{names[0]}.low_rank.weight") if low_rank else None
        self._dtype = load.activations

    def __call__(self, tokens: mx.array) -> mx.array:
        """tokens [..., tables] to [..., dim]."""
        x = self._table(tokens + self._offsets).astype(self._dtype).sum(-2)
        return self._widen(x) if self._widen else x

    def first(self, tokens: mx.array) -> mx.array:
        """tokens [n] of the first table to [n, dim]."""
        return self._table(tokens)


def sample(logits: mx.array, temperature: mx.array, top_k: mx.array, noise: mx.array, kept: int) -> mx.array:
    """A token for each row of `logits` [n, card], drawn by `noise` [n] from 0 to 1; temperature 0 takes the likeliest.

    Only the `top_k` likeliest count, all of them when it is 0; `kept` is the largest top k of all rows, or more, and 0
    when one of them is. The noise is given, so that a call draws the same alone and among others.
    """
    card = logits.shape[-1]
    kept = kept if 0 < kept < card else card
    wide = logits.astype(mx.float32)
    likely = mx.argpartition(-wide, kept - 1, axis=-1)[:, :kept] if kept < card else mx.arange(card)[None]
    values = mx.take_along_axis(wide, likely, axis=-1) if kept < card else wide
    order = mx.argsort(-values, axis=-1)  # the likeliest first
    values = mx.take_along_axis(values, order, axis=-1)
    counts = mx.where(top_k <= 0, card, top_k)[:, None]
    cold = temperature <= 0
    scaled = values / mx.where(cold, 1.0, temperature)[:, None]
    chances = mx.exp(scaled - scaled[:, :1]) * (mx.arange(kept) < counts)
    below = mx.cumsum(chances, axis=-1)
    drawn = (below <= noise[:, None] * below[:, -1:]).sum(axis=-1, keepdims=True)
    # Rounding must not go past what may be drawn, nor may a likely token be lost to an unlikely one.
    last = (chances > 0).sum(axis=-1, keepdims=True) - 1
    place = mx.where(cold[:, None], 0, mx.minimum(drawn, last))
    at = mx.take_along_axis(order, place, axis=-1)
    return (mx.take_along_axis(likely, at, axis=-1) if kept < card else at)[:, 0].astype(mx.int32)
