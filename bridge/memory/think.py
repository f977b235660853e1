"""What of that which comes to mind is worth saying now: the interface, the rules, and the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from .agree import Vocabulary, telling
from .asked import PEOPLE, Asked, Kin, Told, ask, context, kin_in, tell
from .english import content_words, stem, words
from .kinds import Candidate, Judged, Memory, Moment

ENOUGH = 0.7  # of relevance and of importance, both
MOST = 3  # memories at a time: more would push what is said out of the model's mind

WEIGHTS = {
    "similarity": 1.0,
    "words": 1.0,
    "own": 1.0,
    "asks": 1.0,
    "telling": 1.0,
    "wants": 0.8,
    "off topic": -1.4,
    "other thing": -0.9,
    "rank": -0.8,
}
"""What each piece of evidence counts for relevance, found on the dev half of the made set."""
EVEN = 2.4  # the sum of evidence at which relevance is one half
PARTIAL = 0.5  # more is needed while the sentence goes on
TELLING = 3  # words that tell something are evidence enough of what is meant
TOPIC = 0.25  # share of the words without which a memory of the right person is about something else
LAST = 3  # places behind the first; whatever comes later is as far behind
RULED_OUT = 0.2  # the most relevance that is left to what cannot be the answer


class Thinker(Protocol):
    name: str

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        """Every candidate with its scores."""
        ...


class Rules:
    """Scores by words, meaning, sort of answer and people; no model, no waiting."""

    name = "rules"

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        kin = kin_in(one.memory.text for one in candidates)
        asked = ask(moment.said, kin, context(moment))
        told = [tell(one.memory.text, kin) for one in candidates]
        evidence = self._evidence(moment, asked, told, candidates, kin)
        heard = {word for text in _by_the_caller(moment) for word in content_words(text)}
        return [
            _judged(moment, asked, its, one, each, heard)
            for its, one, each in zip(told, candidates, evidence, strict=True)
        ]

    def _evidence(
        self, moment: Moment, asked: Asked, told: Sequence[Told], candidates: Sequence[Candidate], kin: Kin
    ) -> list[dict[str, float]]:
        without = PEOPLE.keys() | kin.keys()
        said = telling(f"{context(moment)} {moment.said}", without)
        clause, noun, *bags = self._vocabulary.bags(
            [telling(asked.clause, without), telling(" ".join(asked.noun), without)]
            + [telling(one.memory.text, without) for one in candidates]
        )
        in_clause, in_noun = self._vocabulary.cover(clause, bags), self._vocabulary.cover(noun, bags)
        return [
            {
                "similarity": one.similarity,
                "words": one.words,
                "own": asked.own,
                "asks": asked.asks,
                "telling": min(len(said), TELLING) / TELLING,
                "wants": bool(asked.wants),
                "off topic": bool(asked.owners & its.people) and in_clause[at] < TOPIC,
                "other thing": 1 - in_noun[at] if asked.named and len(noun) else 0.0,
                "rank": min(at, LAST),
            }
            for at, (one, its) in enumerate(zip(candidates, told, strict=True))
        ]


def choose(judged: Sequence[Judged], limit: int = MOST) -> list[Judged]:
    """Those worth injecting, best first, marked so."""
    worth = [one for one in judged if one.relevance > ENOUGH and one.importance > ENOUGH]
    worth.sort(key=lambda one: one.relevance * one.importance, reverse=True)
    return [replace(one, injected=True) for one in worth[:limit]]


def _judged(
    moment: Moment, asked: Asked, told: Told, one: Candidate, evidence: dict[str, float], heard: set[str]
) -> Judged:
    memory = one.memory
    score = sum(WEIGHTS[name] * value for name, value in evidence.items())
    relevance = 1 / (1 + math.exp((EVEN if moment.final else EVEN + PARTIAL) - score))
    importance = (1 + memory.importance) / 2 if asked.asks else memory.importance
    if because := _ruled_out(moment, asked, told, memory):
        relevance *= RULED_OUT
    elif memory.id in moment.known:
        importance, because = 0.0, "known already"
    elif heard.issuperset(content_words(memory.text)):
        importance, because = 0.0, "the caller has just said so"
    else:
        least, most = sorted(evidence, key=lambda name: WEIGHTS[name] * evidence[name])[:: len(evidence) - 1]
        because = f"for it: {most}" if relevance > ENOUGH else f"too little for it; least: {least}"
    return Judged(memory, one.similarity, one.words, relevance, importance, because)


def _ruled_out(moment: Moment, asked: Asked, told: Told, memory: Memory) -> str:
    """Why a memory cannot be what is asked for; empty if it can."""
    spoken_of = asked.owners | asked.people
    sorts = told.sorts
    if asked.counted and stem(asked.counted) not in map(stem, words(memory.text)):
        sorts -= {"count"}
    if (asked.owners and not asked.owners & told.people) or (asked.about_others(told) and not spoken_of & told.people):
        return "of somebody else"
    if asked.wants and not asked.wants & sorts:
        return f"tells no {' or '.join(sorted(asked.wants))}"
    if "person" in asked.wants and not (told.names - set(words(moment.said))) | (told.people - spoken_of):
        return "names nobody"
    return ""


def _by_the_caller(moment: Moment) -> list[str]:
    return [moment.said, *(text for speaker, text in moment.before if speaker == "caller")]
