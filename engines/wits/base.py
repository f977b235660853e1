"""What wits are: from what has been said in a call to what is said next."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from ..base import HangUp, Remember, Speaker

Reply: TypeAlias = str | Remember | HangUp
"""A piece of what is said, in the order in which it is said; something to keep; or that the call is over then."""


class Line(NamedTuple):
    """What was said, as far as the other side heard it."""

    speaker: Speaker
    text: str
    cut: bool = False
    """Whether the caller broke it off."""


@dataclass
class Talk:
    """One call, as far as wits need to know it. They keep nothing of it anywhere else."""

    persona: str = ""
    """Who the agent is, in the operator's words."""
    facts: list[str] = field(default_factory=list)
    """What memory has given, the latest last. The caller's own words stand in double quotes."""
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the caller asked to be remembered in this call, in words of the caller's. For the wits to write and read."""


class Wits(Protocol):
    """Serves all calls, on one event loop. Each answer may be dropped half way: its generator is closed then."""

    name: str

    async def start(self) -> None:
        """Get ready; waits for nobody."""

    def greet(self, talk: Talk) -> AsyncGenerator[Reply, None]:
        """What is said first, where the operator has set no greeting."""

    def answer(self, talk: Talk) -> AsyncGenerator[Reply, None]:
        """What is said to the last of the lines, which is the caller's. Never raises for what was said in a call."""

    async def close(self) -> None: ...
