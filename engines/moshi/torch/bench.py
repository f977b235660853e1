"""How long a step takes, and what of: Mimi, the temporal and the depth transformer, at any number of calls and age."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...base import FRAME
from ..config import Sampling
from ..measure import READ, READS, SETTLED, Setting, Step, Work, host_bandwidth, sweep, timed
from ..model import Place
from .lm import Draw
from .model import TorchModel
from .plain import Tokens
from .specimen import load


class Stand:
    """`calls` calls that have all gone `context` frames, at the next of which they stand for as long as one likes."""

    def __init__(self, model: TorchModel, calls: int, context: int) -> None:
        self._model, self._lm, self._mimi = model, model._lm, model._mimi
        config, device = model.config.lm, model._lm.device
        self.speaks = config.own_streams > 0
        usual = Sampling()
        where = (context - 1, SETTLED, SETTLED, SETTLED, -1, usual.text_top_k, usual.audio_top_k)
        self._places = np.array([Place(call, call, *where) for call in range(calls)])
        noise = np.random.default_rng(0).random((calls, 3 + config.own_streams), np.float32)
        noise[:, :2] = usual.text_temperature, usual.audio_temperature
        self._chances = noise
        self._pcm = np.zeros((calls, FRAME), np.float32)
        self._sound = torch.zeros(calls, FRAME, device=device)
        self._slots = torch.arange(calls, device=device)
        self._frames = torch.full_like(self._slots, SETTLED)
        self._tokens = Tokens(self._slots, torch.full_like(self._slots, context - 1), 1, context - 1)
        self._row, self._heard, self._codes = (
            torch.zeros(calls, streams, dtype=torch.int64, device=device)
            for streams in (1 + config.streams, config.heard_streams, config.own_streams)
        )
        self._free = torch.full_like(self._slots, -1)
        chances = torch.from_numpy(noise.T.copy()).to(device)
        top_k = [torch.full_like(self._slots, k) for k in (usual.text_top_k, usual.audio_top_k)]
        self._draw = Draw(chances[0], top_k[0], chances[1], top_k[1], chances[2:])

    def tick(self) -> None:
        """All of a step: sound in, sound out."""
        self._model.collect(self._model.tick(self._pcm, self._places, self._chances, None))

    @torch.no_grad()
    def encode(self) -> None:
        self._mimi.encode(self._sound, self._model._sound, self._slots, self._frames)

    @torch.no_grad()
    def decode(self) -> None:
        self._mimi.decode(self._codes, self._model._sound, self._slots, self._frames)

    @torch.no_grad()
    def temporal(self) -> None:
        self._lm.read(self._model._state, self._row, self._tokens)

    @torch.no_grad()
    def step(self) -> None:
        """What is between Mimi's two parts, sampling included."""
        where = (self._slots, self._frames, self._tokens)
        self._lm.step(self._model._state, *where, self._heard, self._free, self._draw)


def measure(
    setting: Setting, most: int, contexts: Sequence[int], runs: int, say: Callable[[str], None]
) -> tuple[list[Step], float]:
    """As `measure.sweep` says. Raises `ModelError` for what cannot be loaded."""
    say("loading" if setting.model else "making weights")
    model, fit = load(setting, most)

    def works(calls: int, context: int) -> dict[str, Callable[[], float]]:
        return _runners(Stand(model, calls, context), setting.device == "cuda")

    return sweep(model.config, fit, most, contexts, runs, say, works, lambda: bandwidth(setting))


def _runners(stand: Stand, cuda: bool) -> dict[str, Callable[[], float]]:
    works = {"encode": stand.encode, "lm": stand.step, "temporal": stand.temporal, "decode": stand.decode}
    if not stand.speaks:
        del works["decode"]
    if not cuda:
        return {name: timed(work) for name, work in (works | {"all": stand.tick}).items()}
    captured = {name: _captured(work) for name, work in works.items()}
    return {name: timed(work, torch.cuda.synchronize) for name, work in (captured | {"all": stand.tick}).items()}


def _captured(work: Work) -> Work:
    """The same as one launch, as it is in a tick: by itself each operation would wait for its own launch."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()  # what is made at first use must not be made within a graph
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay() -> None:
        graph.replay()

    return replay


def bandwidth(setting: Setting) -> float:
    """Bytes a second that can be read where the model computes, with as many threads."""
    if setting.device == "cuda":
        return _cuda_bandwidth()
    return host_bandwidth(setting.threads)


def _cuda_bandwidth() -> float:
    """Of a copy, which reads and writes."""
    here = torch.ones(READ, device="cuda")
    there = torch.empty_like(here)
    best = math.inf
    for _ in range(READS + 1):  # the first is slow
        torch.cuda.synchronize()
        began = time.perf_counter()
        there.copy_(here)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * here.nbytes / best
