"""What the core needs of a model, whatever the framework; numbers go in and out as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .config import ModelConfig

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]

INCREMENT = 0x9E3779B97F4A7C15  # splitmix64's, from one draw to the next
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # its shifts and factors


class Place(NamedTuple):
    """Where one call stands at a step."""

    slot: int
    row: int
    """Its row of keys and values."""
    position: int
    """How many rows of tokens the model has read of it."""
    frame: int
    """How many frames its streams have gone."""
    encoded: int
    decoded: int
    forced: int
    """The text token to write, or -1."""
    text_top_k: int
    audio_top_k: int


class Heard(NamedTuple):
    """What comes of a step, for each of its calls."""

    row: Ints
    """The tokens that were read [n, 1 + streams]."""
    text: Ints
    """The text token that was written [n]."""
    complete: Ints
    """Text and own codes of the newest frame whose delayed codes are all there [n, 1 + own_streams]."""
    sound: Floats  # [n, 1920]
    pauses: Floats
    """How likely the caller has come to a pause, by each of the model's extra heads [n, heads]."""


class Model(Protocol):
    """A model on a device, with the state of every slot. Only `collect` waits for the device."""

    config: ModelConfig

    def tick(self, pcm: Floats, places: Ints, chances: Floats, given: Ints | None) -> Any:
        """Start one frame of each call: `pcm` [n, 1920], `places` [n, fields of Place].

        `chances` [n, 2 + 1 + own_streams] are the temperatures of text and sound and the noise of each token;
        `given` [n, 1 + streams] replaces the rows to read where it is not negative.
        """

    def collect(self, pending: Any) -> Heard: ...

    def read(self, row: int, position: int, tokens: Ints, vector: Floats | None) -> None:
        """Give rows of tokens [t, 1 + streams] to a row of keys and values, from `position` on, in one pass.

        `vector` [dim] goes onto each of them.
        """

    def fill(self, slot: int, tokens: Ints) -> None:
        """Let every frame that waits for its delay in this slot be `tokens` [1 + streams]."""

    def add(self, slot: int, vector: Floats) -> None:
        """Add `vector` [dim] to the slot's input from now on."""

    def condition(self, name: str, value: str) -> Floats:
        """The vector [dim] of a condition."""

    def embed(self, text: Ints) -> Floats:
        """The mean [dim] of what the text tokens [n] are on the input."""

    def encode(self, pcm: Floats) -> Ints:
        """Codes [frames, codebooks] of a piece of sound [frames * 1920] by itself."""

    def memory(self) -> int:
        """Bytes that it takes of its device, with what is kept for the next step; 0 for the process's own memory."""


def noise(seeds: Sequence[int], frames: Sequence[int], count: int) -> Floats:
    """Numbers from 0 to 1 [n, count] that depend on seed, frame and column only: a call draws the same anywhere."""
    seed: NDArray[np.uint64] = np.array([seed % (1 << 64) for seed in seeds], np.uint64)[:, None]
    drawn: Any = np.array(frames, np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    mixed = _mix(_mix(seed) + drawn * np.uint64(INCREMENT))
    return (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64's mixing: numbers that are alike become numbers that are not."""
    for shift, factor in MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
