"""The made set in tests/data/recall on which recall is judged: what callers said, and what they ask later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

FOLDER = Path(__file__).parent / "data" / "recall"

Split: TypeAlias = Literal["dev", "test"]
Kind: TypeAlias = Literal["shared word", "other words", "same topic", "general", "small talk", "injection"]
"""The first two are of questions with an answer: whether they share a stem of content with it."""


@dataclass(frozen=True)
class Fact:
    id: str
    caller: str
    text: str
    days_ago: int
    supersedes: str | None
    """Id of the older fact of the same caller that no longer holds."""
    topic: str
    """This and what follows is for reference: no part under test may see it."""
    attribute: str
    """Empty for what the topic is named after."""
    person: str
    """Empty for the caller."""
    values: tuple[str, ...]
    """What was drawn into the sentence: the gate code."""


@dataclass(frozen=True)
class Question:
    id: str
    caller: str
    split: Split
    """Rules may be tuned on "dev"; "test" is only measured."""
    text: str
    answer: str | None
    """Id of the one fact that answers it, or nothing does."""
    near: tuple[str, ...]
    """Ids of the caller's other facts on the same thing."""
    kind: Kind


@dataclass(frozen=True)
class Caller:
    name: str
    split: Split
    facts: tuple[Fact, ...]
    """In the order in which they were said."""
    questions: tuple[Question, ...]


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / file).read_text(encoding="utf-8").splitlines()]


def load() -> list[Caller]:
    facts = [Fact(**{**row, "values": tuple(row["values"])}) for row in rows("facts.jsonl")]
    questions = [Question(**{**row, "near": tuple(row["near"])}) for row in rows("questions.jsonl")]
    callers = []
    for name in dict.fromkeys(fact.caller for fact in facts):
        asked = tuple(question for question in questions if question.caller == name)
        told = tuple(fact for fact in facts if fact.caller == name)
        callers.append(Caller(name, asked[0].split, told, asked))
    return callers
