"""Memories for tests of the store, and whether its tables are sound."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from voice_bridge.bridge.memory.database import Local
from voice_bridge.bridge.memory.kinds import Link, Memory, new_id
from voice_bridge.bridge.memory.store import Store

DIM = 8

_clock = itertools.count(1_700_000_000)


def said(text: str, caller: str = "anna", **fields: object) -> Memory:
    now = float(next(_clock))
    return replace(Memory(new_id(now), caller, text, now), **fields)


def letters(text: str) -> NDArray[np.float32]:
    """An embedder: how often each of the first letters is in it."""
    return np.array([text.count(letter) for letter in "abcdefgh"], np.float32)


def embed(texts: list[str]) -> NDArray[np.float32]:
    return np.stack([letters(text) for text in texts])


def add(store: Store, *memories: Memory, links: Sequence[Link] = ()) -> None:
    store.add([(memory, letters(memory.text)) for memory in memories], links)


def supersedes(newer: Memory, older: Memory) -> Link:
    return Link(newer.id, older.id, "supersedes")


def found(store: Store, *words: str, caller: str = "anna") -> set[int]:
    return {id for id, _ in store.search(caller, words, 100)}


def check(file: Path) -> None:
    """The tables are sound, and the index of words holds exactly the active memories."""
    with closing(Local(file)) as database:
        assert database.query("PRAGMA integrity_check") == [("ok",)]
        assert database.query("PRAGMA foreign_key_check") == []
        database.write([("INSERT INTO memory_fts(memory_fts, rank) VALUES ('integrity-check', 1)", ())])
        indexed = database.query("SELECT count(*) FROM memory_fts_docsize")
        assert indexed == database.query("SELECT count(*) FROM active")
