"""The language model: every 80 ms it reads a row of tokens, text and sound of both sides, and writes the next.

The temporal transformer goes from frame to frame, the depth transformer from codebook to codebook within one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import LmConfig
from .load import Linear, Loader
from .plain import Tokens
from .transformer import Caches, Norm, Transformer


@dataclass(frozen=True)
class LmState:
    """What every slot carries from step to step. A slot is as new when its frames and positions begin at 0 again."""

    streams: Tensor
    """Tokens that wait for their delay, a ring of `max_delay + 2` frames [slots, 1 + streams, ring]."""
    temporal: Caches
    """Rows of these are not slots: a step says which row a slot has."""
    depth: Caches


class Draw(NamedTuple):
    """How each slot's tokens are chosen."""

    text_temperature: Tensor  # [n]
    text_top_k: Tensor
    audio_temperature: Tensor
    audio_top_k: Tensor
    noise: Tensor
    """For the text, then for each codebook [1 + own_streams, n]."""


class Step(NamedTuple):
    row: Tensor
    """The tokens that were read [n, 1 + streams]."""
    text: Tensor
    """The text token that was written now [n]."""
    complete: Tensor
    """Text and own codes of the newest frame whose delayed codes are all there [n, 1 + own_streams]."""
    logits: Tensor  # [n, text_card]
    heads: Tensor
    """What the extra heads say, as probabilities [n, heads, extra_dim]."""


class Lm:
    def __init__(self, config: LmConfig, load: Loader) -> None:
        self.config = config
        self.device = load.device
        self._ops = load.ops
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
        first = [config.text_card, *[config.card] * config.streams]
        self._first = torch.tensor(first, device=self.device)
        self._delays = torch.tensor(config.delays, device=self.device)
        self._ring = config.max_delay + 2

    def state(self, slots: int, rows: int, keys: torch.dtype) -> LmState:
        """State of `slots` calls over a cache of `rows`, with keys and values of that type."""
        streams = torch.zeros(slots, 1 + self.config.streams, self._ring, dtype=torch.int64, device=self.device)
        depth = self._depth.cache(slots) if self._depth else []
        return LmState(streams, self._temporal.cache(rows, keys), depth)

    def read(self, state: LmState, rows: Tensor, tokens: Tokens, added: Tensor | None = None) -> Tensor:
        """Take in rows of tokens [n, 1 + streams]; gives what follows from each [n, dim].

        `added` [n, dim] goes onto their embeddings. All of a silent stretch may come at once.
        """
        x = self._embeddings(rows)
        if added is not None:
            x += added
        return self._norm(self._temporal(x, state.temporal, tokens))

    def embed(self, text: Tensor) -> Tensor:
        """The mean embedding [dim] of text tokens [n]."""
        return self._embeddings.first(text).float().mean(0)

    def step(
        self,
        state: LmState,
        slots: Tensor,
        frames: Tensor,
        tokens: Tokens,
        heard: Tensor,
        forced: Tensor,
        draw: Draw,
        added: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Step:
        """One frame for each of `slots` [n], which is its frame number `frames` [n].

        `heard` [n, heard_streams] are the caller's codes of now; `forced` [n] is the text token to write, or -1.
        `given` [n, 1 + streams] is read instead of what waits, where it is not negative.
        """
        config, ring = self.config, self._ring
        own = 1 + config.own_streams
        slot, frame = slots[:, None], frames[:, None]
        stream = torch.arange(1 + config.streams, device=self.device)
        state.streams[slot, stream[own:], (frame + self._delays[own:]) % ring] = heard
        waiting = state.streams[slot, stream, frame % ring]
        row = torch.where(frame <= self._delays, self._first, waiting)  # [n, 1 + streams]
        if given is not None:
            row = torch.where(given >= 0, given, row)
        out = self.read(state, row, tokens, added)  # [n, dim]
        logits = self._text(out)
        if self._text_bias is not None:
            logits += self._text_bias
        sampled = self._ops.sample(logits.float(), draw.text_temperature, draw.text_top_k, draw.noise[0])
        text = torch.where(forced >= 0, forced, sampled)
        written = text[:, None]
        if self._depth:
            codes = self._depth(out, text, state.depth, draw)
            written = torch.cat([written, codes], dim=1)
        state.streams[slot, stream[:own], (frame + 1) % ring] = written
        complete = state.streams[slot, stream[:own], (frame + 1 - config.max_delay + self._delays[:own]) % ring]
        return Step(row, text, complete, logits, self._extra(out))

    def _extra(self, out: Tensor) -> Tensor:
        if self._heads is None:
            return out.new_zeros(len(out), 0, 0)
        return self._heads(out).view(len(out), self.config.extra_heads, -1).float().softmax(-1)


class Depth:
    """Writes the codes of one frame, each codebook with the knowledge of those before it."""

    def __init__(self, config: LmConfig, load: Loader) -> None:
        depth = config.depth
        assert depth
        self.config = depth
        self._ops = load.ops
        self._device = load.device
        self._dtype = load.activations
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

    def cache(self, slots: int) -> Caches:
        return self._transformer.cache(slots, self._dtype)

    def __call__(self, out: Tensor, text: Tensor, caches: Caches, draw: Draw) -> Tensor:
        """From what the temporal transformer says [n, dim] and the text token [n] to codes [n, codebooks]."""
        n = len(out)
        rows = torch.arange(n, device=self._device)
        starts = self._project(out).view(n, -1, self.config.transformer.dim)  # [n, projections, depth dim]
        token, codes = text, []
        for k, weights in enumerate(self.config.schedule):
            x = self._embeddings[k](token[:, None])
            x += starts[:, self._projection[k]]
            tokens = Tokens(rows, torch.full_like(rows, k), 1, k)
            x = self._transformer(x, caches, tokens, weights)
            norm, bias = self._norms[k], self._biases[k]
            logits = self._codes[k](x if norm is None else norm(x))
            if bias is not None:
                logits += bias
            token = self._ops.sample(logits.float(), draw.audio_temperature, draw.audio_top_k, draw.noise[1 + k])
            codes.append(token)
        return torch.stack(codes, dim=1)


class _Embeddings:
    """Several tables as one; looked up in each, and summed."""

    def __init__(self, load: Loader, names: list[str], cards: list[int], low_rank: bool = False) -> None:
        """`names` are the tables', and `cards` how many rows each has."""
        self._table = load.table(*(f"{name}.weight" for name in names))
        self._offsets = torch.tensor([0, *cards[:-1]], device=load.device).cumsum(0)
        self._widen = load.linear(f"{names[0]}.low_rank.weight") if low_rank else None
        self._dtype = load.activations

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens [n, tables] to [n, dim]."""
        x = F.embedding(tokens + self._offsets, self._table).to(self._dtype).sum(1)
        return self._widen(x) if self._widen else x

    def first(self, tokens: Tensor) -> Tensor:
        """tokens [n] of the first table to [n, dim]."""
        return F.embedding(tokens, self._table)
