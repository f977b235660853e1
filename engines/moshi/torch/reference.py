"""The reference package's side of a comparison: a process of its own, in the environment where that package is.

    NO_TORCH_COMPILE=1 HF_HUB_OFFLINE=1 path/to/python -I reference.py

A line of JSON asks, a line of JSON answers. Nothing of ours is imported here, and of theirs only `moshi.models`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib import metadata
from typing import Any

import torch

SETTLED = 500  # frames that Mimi has gone when it is timed


class Lm:
    """Their language model, as their server steps it: sampling, but for `calls` conversations."""

    def __init__(self, models: Any, shape: dict[str, Any], dtype: str, calls: int) -> None:
        made = models.loaders.get_moshi_lm(
            None, models.loaders._lm_kwargs | shape, device="cpu", dtype=getattr(torch, dtype)
        )
        self._made = models.LMGen(made, use_sampling=True)
        self._made.streaming_forever(calls)
        self._heard = torch.randint(0, made.card, (calls, made.n_q - made.dep_q, 1))
        for module in made.modules():
            cache = getattr(getattr(module, "_streaming_state", None), "kv_cache", None)
            if cache is not None:
                cache.cache.normal_()  # memory that was never written would take no time to read

    def stand(self, position: int) -> None:
        """As if so many frames had gone."""
        state = self._made._streaming_state
        state.cache.zero_()
        state.offsets.fill_(position)
        state.offset_cpu = position
        for module in self._made.lm_model.modules():
            own: Any = getattr(module, "_streaming_state", None)
            if getattr(own, "kv_cache", None) is not None:
                own.offset.fill_(position)
                own.kv_cache.end_offset.fill_(position)

    def __call__(self) -> None:
        self._made.step(self._heard)


class Mimi:
    """Their codec: a frame there and back for `calls` conversations."""

    def __init__(self, models: Any, calls: int) -> None:
        torch.manual_seed(0)  # every time the same weights
        self._made = models.loaders.get_mimi(None)
        for name, values in self._made.state_dict().items():
            if name.endswith("embedding_sum"):  # which are zeros until they are trained
                values.normal_(std=0.5)
            if name.endswith("_initialized"):
                values.fill_(1)
        self._calls = calls
        self._made.streaming_forever(calls)
        self._pcm = torch.randn(calls, 1, 1920) * 0.1

    def stand(self, position: int) -> None:
        """Its windows are full soon enough, and it always reads all of them."""

    @torch.no_grad()
    def __call__(self) -> None:
        self._made.decode(self._made.encode(self._pcm))

    @torch.no_grad()
    def values(self, frames: int) -> dict[str, torch.Tensor]:
        """What it makes of noise: sound in, codes, and the sound of those codes."""
        pcm = torch.randn(self._calls, 1, frames * 1920, generator=torch.Generator().manual_seed(1)) * 0.1
        heard = [self._made.encode(frame) for frame in torch.split(pcm, 1920, dim=2)]
        sound = [self._made.decode(codes) for codes in heard]
        self._made.reset_streaming()
        return {"pcm": pcm[:, 0], "codes": torch.cat(heard, 2), "sound": torch.cat(sound, 2)[:, 0]}

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: values.contiguous() for name, values in self._made.state_dict().items()}


class Reference:
    """What can be asked for, by name."""

    def __init__(self) -> None:
        self._models: Any = importlib.import_module("moshi.models")
        self._made: dict[str, Any] = {}

    def threads(self, count: int) -> str:
        """How many to use; gives the version of their package."""
        torch.set_num_threads(count)
        return metadata.version("moshi")

    def lm(self, name: str, shape: dict[str, Any], dtype: str, calls: int) -> None:
        self._made[name] = Lm(self._models, shape, dtype, calls)

    def mimi(self, name: str, calls: int) -> None:
        self._made[name] = Mimi(self._models, calls)

    def forget(self) -> None:
        self._made.clear()

    def run(self, name: str, position: int, steps: int) -> float:
        """Seconds a step, after one that does not count."""
        work = self._made[name]
        work.stand(position)
        work()
        began = time.perf_counter()
        for _ in range(steps):
            work()
        return (time.perf_counter() - began) / steps

    def values(self, name: str, frames: int, weights: str, values: str) -> None:
        """Write Mimi's weights and what it computes with them into two files."""
        save: Any = importlib.import_module("safetensors.torch").save_file
        save(self._made[name].weights(), weights)
        save(self._made[name].values(frames), values)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not stand between the answers
    reference = Reference()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(reference, asked.pop("do"))(**asked)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
