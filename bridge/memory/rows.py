"""What a memory is in the tables, and the pieces of SQL that several questions share."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .database import Row, Value
from .kinds import Entities, Memory

FIELDS = "id, caller, text, timestamp, speaker, entities, emotions, importance, source_call"
IDS = "(SELECT value FROM json_each(?))"
"""A set of ids: any number of them in one argument, made by `ids`."""

CHANGE = "(SELECT value FROM meta WHERE key = 'change')"
EMBEDDER = "(SELECT value FROM meta WHERE key = 'embedder')"


def ids(of: Iterable[int]) -> str:
    return msgspec.json.encode(list(of)).decode()


def cells(memory: Memory) -> tuple[Value, ...]:
    """The values of `FIELDS`."""
    return (
        memory.id,
        memory.caller,
        memory.text,
        memory.timestamp,
        memory.speaker,
        msgspec.json.encode(memory.entities).decode(),
        msgspec.json.encode(memory.emotions).decode(),
        memory.importance,
        memory.source_call,
    )


def memory(row: Row) -> Memory:
    """The memory of which these are the `FIELDS`."""
    id, caller, text, timestamp, speaker, entities, emotions, importance, source_call = row
    return Memory(
        id,
        caller,
        text,
        timestamp,
        speaker,
        msgspec.json.decode(entities, type=Entities),
        msgspec.json.decode(emotions, type=tuple[str, ...]),
        importance,
        source_call,
    )
