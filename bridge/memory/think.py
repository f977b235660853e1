"""What of that which comes to mind is worth saying now: the interface, the rules, and the choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    "own": 1.2,
    "asks": 1.0,
    "telling": 1.0,
    "wants": 0.6,
    "off topic": -1.4,
    "other thing": -0.9,
    "nothing in common": -0.3,
    "passed over": -1.2,
    "place": -0.15,
}
"""What each piece of evidence counts for relevance, found on the dev half of the made set."""
EVEN = 2.45  # the sum of evidence at which relevance is one half
PARTIAL = 0.25  # more is needed while the sentence goes on
TELLING = 3  # words that tell something are evidence enough of what is meant
TOPIC = 0.25  # share of the words without which a memory of the right person is about something else
COMMON = 0.2  # similarity and share of words below which a memory has next to nothing to do with what is said
RULED_OUT = 0.2  # the most relevance that is left to what cannot be the answer


class Thinker(Protocol):
    name: str

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        """Every candidate with its scores."""
        ...


class Rules:
    """Scores by words, meaning, sort of answer and people; no model, no waiting."""

    name = "rules"

    async def judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged]:
        kin = kin_in(one.memory.text for one in candidates)
        asked = ask(moment.said, kin, context(moment))
        told = [tell(one.memory.text, kin) for one in candidates]
        evidence = _evidence(moment, asked, told, candidates, kin)
        heard = {word for text in _by_the_caller(moment) for word in content_words(text)}
        judged: dict[int, Judged] = {}
        passed_over = 0
        for its, one, each in zip(told, candidates, evidence, strict=True):
            if parent := judged.get(one.via):
                judged[one.memory.id] = replace(parent, memory=one.memory, why="what was found hangs on it")
                continue
            ruled_out = _ruled_out(moment, asked, its, one.memory)
            settled = _settled(moment, one.memory, heard)
            each |= {"passed over": passed_over, "place": len(judged) - passed_over}
            judged[one.memory.id] = _judged(moment, asked, one, each, ruled_out, settled)
            passed_over += bool(ruled_out or settled)
        return list(judged.values())


def choose(judged: Sequence[Judged], limit: int = MOST) -> list[Judged]:
    """Those worth injecting, best first, marked so."""
    worth = [one for one in judged if one.relevance > ENOUGH and one.importance > ENOUGH]
    worth.sort(key=lambda one: (one.relevance, one.importance), reverse=True)
    return [replace(one, injected=True) for one in worth[:limit]]


def _evidence(
    moment: Moment, asked: Asked, told: Sequence[Told], candidates: Sequence[Candidate], kin: Kin
) -> list[dict[str, float]]:
    without = PEOPLE.keys() | kin.keys()
    said = telling(f"{context(moment)} {moment.said}", without)
    vocabulary = Vocabulary()  # a new one: nothing of a caller stays here
    clause, noun, *bags = vocabulary.bags(
        [telling(asked.clause, without), telling(" ".join(asked.noun), without)]
        + [telling(one.memory.text, without) for one in candidates]
    )
    in_clause, in_noun = vocabulary.cover(clause, bags), vocabulary.cover(noun, bags)
    return [
        {
            "similarity": one.similarity,
            "words": one.words,
            "own": asked.own,
            "asks": asked.asks,
            "telling": min(len(said), TELLING) / TELLING,
            "wants": bool(asked.wants),
            "nothing in common": max(one.similarity, one.words) < COMMON,
            "off topic": bool(asked.owners & its.people) and in_clause[at] < TOPIC,
            "other thing": 1 - in_noun[at] if asked.named and len(noun) else 0.0,
        }
        for at, (one, its) in enumerate(zip(candidates, told, strict=True))
    ]


def _judged(
    moment: Moment, asked: Asked, one: Candidate, evidence: Mapping[str, float], ruled_out: str, settled: str
) -> Judged:
    weighed = {name: WEIGHTS[name] * value for name, value in evidence.items()}
    relevance = 1 / (1 + math.exp((EVEN if moment.final else EVEN + PARTIAL) - sum(weighed.values())))
    importance = (1 + one.memory.importance) / 2 if asked.asks else one.memory.importance
    if ruled_out:
        relevance *= RULED_OUT
    if settled:
        importance = 0.0
    best = ", ".join(name for name in sorted(weighed, key=lambda name: -abs(weighed[name]))[:3])
    return Judged(one.memory, one.similarity, one.words, relevance, importance, ruled_out or settled or best)


def _settled(moment: Moment, memory: Memory, heard: set[str]) -> str:
    """Why nobody needs to be reminded of a memory; empty if it may be needed."""
    if memory.id in moment.known:
        return "known already"
    return "the caller has just said so" if heard.issuperset(content_words(memory.text)) else ""


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
