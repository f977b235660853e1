"""What the core keeps of a call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .config import Sampling
from .model import Floats, Ints
from .script import Script


@dataclass
class Renewal:
    """A call on its way to a fresh row of keys and values."""

    row: int
    position: int = 0
    taken: int = 0
    """Rows of the slot's talk that the new row has, counted from the call's beginning."""
    later: list[Ints] = field(default_factory=list)
    """What was injected meanwhile."""
    waiting: bool = False
    """Whether it has caught up and waits for a pause."""


class Added(NamedTuple):
    """What is known of the call for a while, as a vector on the model's input."""

    vector: Floats
    until: int
    """The slot's steps by then."""


@dataclass(eq=False)
class Slot:
    """One call."""

    index: int
    call: str
    row: int
    script: Script
    sampling: Sampling
    seed: int
    persona: Ints
    known: Ints
    """What is known of the caller, read behind the persona."""
    vector: Floats
    room: int
    """Rows that may still be given to it in the call."""
    live: bool = False
    given: Ints | None = None
    """The row to read in the first step, when it is not the model's own beginning."""
    position: int = 0
    frame: int = 0
    steps: int = 0
    spoken: int = 0  # frames got of Mimi
    at: int = 0  # the caller's clock at the newest frame
    voiced: int = 0  # frames of the caller's voice in a row
    added: list[Added] = field(default_factory=list)
    memories: list[Ints] = field(default_factory=list)
    talk: deque[Ints] = field(default_factory=deque)
    """The rows that were read last, without what was injected."""
    talked: int = 0
    """Rows that went through `talk` since the call began."""
    renewal: Renewal | None = None
    jobs: deque[Iterator[None]] = field(default_factory=deque)
    early: list[Iterator[None]] = field(default_factory=list)
    """Jobs for after the first step: nothing comes before the row that a call begins with."""
