"""The store of memories, over a libSQL file and over a real server."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from tests.sqld import Sqld
from voice_bridge.bridge.memory.kinds import Entities, Judged, Link, Memory, Thought, new_id
from voice_bridge.bridge.memory.store import Store, StoreError

pytest.importorskip("libsql")

Open: TypeAlias = Callable[[], Store]

DIM = 8
KILLS = 8  # of a writing process; the stages of a write are gone through one by one in another test
WRITERS = 50  # calls that write at once

_clock = itertools.count(1_700_000_000)


@pytest.fixture(params=["local", "remote"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Another store on the same memory with every call."""
    opened: list[Store] = []

    def open_store() -> Store:
        opened.append(Store.open(where))
        opened[-1].set_embedder("letters", DIM)
        return opened[-1]

    if request.param == "local":
        where = str(tmp_path / "memory.db")
        yield open_store
    else:
        with Sqld(tmp_path / "sqld", request.getfixturevalue("unused_port")) as server:
            where = server.url
            yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Open) -> Store:
    return reopen()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    """A store in a file, for what only a file can show."""
    with closing(Store.open(str(tmp_path / "memory.db"))) as store:
        store.set_embedder("letters", DIM)
        yield store


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


def check(store: Store) -> None:
    """The tables are sound, and the index of words holds exactly the active memories."""
    if store.query("PRAGMA integrity_check") != [("ok",)]:
        raise AssertionError
