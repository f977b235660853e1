"""What of that which comes to mind is worth saying now: the interface, the rules, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from .kinds import Candidate, Judged, Moment

ENOUGH = 0.7  # of relevance and of importance, both
MOST = 3  # memories at a time: more would push what is said out of the model's mind


class Thinker(Protocol):
    name: str

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        """Every candidate with its scores."""
        ...


class Rules:
    """Scores by words, meaning and sort of answer; no model, no waiting."""

    name = "rules"

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        return [
            Judged(
                memory=one.memory,
                similarity=one.similarity,
                words=one.words,
                relevance=0.0 if one.memory.id in moment.known else min(1.0, one.similarity + one.words * 0.5),
                importance=0.5 + one.memory.importance / 2,
                why="words and meaning agree",
            )
            for one in candidates
        ]


def choose(judged: Sequence[Judged], limit: int = MOST) -> list[Judged]:
    """Those worth injecting, best first, marked so."""
    worth = [one for one in judged if one.relevance > ENOUGH and one.importance > ENOUGH]
    worth.sort(key=lambda one: one.relevance * one.importance, reverse=True)
    return [replace(one, injected=True) for one in worth[:limit]]
