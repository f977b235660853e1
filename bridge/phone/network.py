"""A road that is late, loses things and stands still, the same way every time for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """How bad the road between Twilio and the bridge is.

    `jitter_ms`: each chunk is up to this late, in order, as TCP delivers. `loss`: the share of chunks (0 to 1)
    that the caller's own network never brings to Twilio, seen as jumps of the timestamp. `stalls`: (at, for) in
    seconds from the start of the stream; nothing passes either way, then everything does.
    """

    jitter_ms: float = 0.0
    loss: float = 0.0
    stalls: Sequence[tuple[float, float]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss is {self.loss:g}; give a share of chunks between 0 and 1")
        if self.jitter_ms < 0:
            raise ValueError(f"jitter is {self.jitter_ms:g} ms; give 0 or more")
        if any(at < 0 or length <= 0 for at, length in self.stalls):
            raise ValueError(f"stalls are {list(self.stalls)}; give (at, for) in seconds, `for` above 0")


class Path:
    """One stream's way over a network, from `start` on a clock of seconds."""

    def __init__(self, network: Network, start: float) -> None:
        self.stalls = sorted((start + at, start + at + length) for at, length in network.stalls)
        self._jitter = network.jitter_ms / 1000
        self._loss = network.loss
        # Two dice, so that turning one knob leaves what the other does as it was.
        self._late = random.Random(f"{network.seed} jitter")
        self._lost = random.Random(f"{network.seed} loss")
        self._last = 0.0

    def stall(self, now: float, seconds: float) -> None:
        """Nothing passes for a while; `float("inf")` for a peer that has silently gone."""
        self.stalls = sorted([*self.stalls, (now, now + seconds)])

    def loses(self) -> bool:
        """Whether the next chunk is lost."""
        return self._loss > 0 and self._lost.random() < self._loss

    def leaves(self, now: float, *, jitter: bool = False) -> float:
        """When a message of `now` gets through: never before the one ahead of it, never in a stall."""
        at = max(self._last, now + self._late.uniform(0, self._jitter) if jitter and self._jitter else now)
        for begins, ends in self.stalls:
            if begins <= at < ends:
                at = ends
        self._last = at
        return at
