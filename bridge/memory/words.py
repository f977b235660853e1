"""Memories by their words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .database import Database, Value

WORDS = 32  # looked for at most: a long sentence, and what SQL takes in one question
LOOKED_AT = 10_000  # rows that a search ranks, those of the rarest words first: some six milliseconds
TOKEN = re.compile(r"[^\W_]+")  # what the index takes for a word, or less: it means nothing in the index's own language

# The index holds active memories only. No caller has the id 0: who is not known finds nothing.
MATCH = """FROM memory_fts WHERE memory_fts MATCH
    'caller:c' || coalesce((SELECT id FROM caller WHERE key = ?), 0) || ' AND text:"' || ? || '"'"""


def search(database: Database, caller: str, words: Sequence[str], limit: int) -> list[tuple[int, float]]:
    """Ids of the caller's active memories that have these words, and which share of the words' weight."""
    tokens = list(dict.fromkeys(token for word in words for token in TOKEN.findall(word.lower())))[:WORDS]
    if not tokens:
        return []
    counts = ["SELECT count(*) FROM memory WHERE caller = ?"] + [f"SELECT count(*) {MATCH}"] * len(tokens)
    wanted: list[Value] = [value for token in tokens for value in (caller, token)]
    (memories,), *found = database.query(" UNION ALL ".join(counts), (caller, *wanted))
    weights: list[tuple[float, str]] = []
    looked_at = 0
    for (count,), token in sorted(zip(found, tokens, strict=True)):
        looked_at += count
        if weights and looked_at > LOOKED_AT:
            break  # so many memories have this word that it tells none from the others
        weights.append((math.log(1 + memories / (count + 0.5)), token))
    having = " UNION ALL ".join([f"SELECT rowid AS id, ? AS weight {MATCH}"] * len(weights))
    rows = database.query(
        f"SELECT id, sum(weight) FROM ({having}) GROUP BY id ORDER BY 2 DESC, id DESC LIMIT ?",
        (*(value for weight, token in weights for value in (weight, caller, token)), limit),
    )
    whole = sum(weight for weight, _ in weights)
    return [(id, min(1.0, score / whole)) for id, score in rows]
