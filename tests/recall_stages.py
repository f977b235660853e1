"""What of the made set is remembered, recalled and injected, stage by stage; for the tests and benchmarks/recall.py."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from voice_bridge.bridge.memory.embed import Embedder
from voice_bridge.bridge.memory.kinds import Judged, Memory, Moment, new_id
from voice_bridge.bridge.memory.notice import notice
from voice_bridge.bridge.memory.recall import Recall
from voice_bridge.bridge.memory.scribe import Scribe
from voice_bridge.bridge.memory.store import Store
from voice_bridge.bridge.memory.think import ENOUGH, Thinker, choose

from . import recall_set

NOW = 1_800_000_000.0
DAY = 86400.0
STAGES = ("noticed", "kept", "in 15", "in 3", "over 0.7", "injected")

Ids = dict[str, set[int]]
"""The memories that were made of a fact."""


@dataclass
class Report:
    """Of how many questions with an answer the right memory got how far, and what was injected without one."""

    answered: int = 0
    reached: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    by_chance: float = 0.0
    """In 15 if they were drawn."""
    unanswered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    false: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    misses: list[tuple[str, str]] = field(default_factory=list)
    """(the last stage that was reached, the question)"""

    def share(self, stage: str) -> float:
        return self.reached[stage] / self.answered

    @property
    def false_share(self) -> float:
        return sum(self.false.values()) / sum(self.unanswered.values())


def tell(callers: Iterable[recall_set.Caller], scribe: Scribe) -> Ids:
    """Everything that the callers said, as calls would bring it."""
    ids: Ids = {}
    for caller in callers:
        for fact in caller.facts:
            written = scribe.write(caller.name, f"call {fact.id}", fact.text, NOW - fact.days_ago * DAY)
            ids[fact.id] = {memory.id for memory in written}
    return ids


def add(callers: Iterable[recall_set.Caller], store: Store, embedder: Embedder) -> Ids:
    """The same, faster: nothing is merged, so that older values stand beside the newer ones."""
    ids: Ids = {}
    for caller in callers:
        memories = []
        for fact in caller.facts:
            when = NOW - fact.days_ago * DAY
            made = [
                Memory(
                    id=new_id(when),
                    caller=caller.name,
                    text=noted.text,
                    timestamp=when,
                    entities=noted.entities,
                    importance=noted.importance,
                )
                for noted in notice(fact.text)
            ]
            ids[fact.id] = {memory.id for memory in made}
            memories += made
        vectors = embedder.embed([memory.text for memory in memories])
        store.add(list(zip(memories, vectors, strict=True)))
    return ids


def ask(callers: Iterable[recall_set.Caller], ids: Ids, store: Store, recall: Recall, thinker: Thinker) -> Report:
    """Every question of the callers, as the first words of a call."""
    report = Report()
    for caller in callers:
        active = set(store.vectors(caller.name).ids.tolist())
        for question in caller.questions:
            moment = Moment(question.text, True, (), frozenset(), NOW)
            judged = asyncio.run(thinker.judge(moment, recall.candidates(caller.name, moment)))
            chosen = choose(judged)
            if question.answer is None:
                report.unanswered[question.kind] += 1
                report.false[question.kind] += bool(chosen)
                continue
            report.answered += 1
            report.by_chance += min(1.0, 15 / len(active))
            _follow(report, question.text, ids[question.answer], active, judged, chosen)
    return report


def _follow(
    report: Report, text: str, right: set[int], active: set[int], judged: list[Judged], chosen: list[Judged]
) -> None:
    reached = {
        "noticed": bool(right),
        "kept": bool(right & active),
        "in 15": any(one.memory.id in right for one in judged),
        "in 3": any(one.memory.id in right for one in judged[:3]),
        "over 0.7": any(one.memory.id in right and min(one.relevance, one.importance) > ENOUGH for one in judged),
        "injected": any(one.memory.id in right for one in chosen),
    }
    for stage, got_there in reached.items():
        report.reached[stage] += got_there
    if not reached["injected"]:
        report.misses.append((next(stage for stage, got_there in reached.items() if not got_there), text))
