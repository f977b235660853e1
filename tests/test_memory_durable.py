"""What is left in the files of the memory after a kill, a power cut, and after somebody was forgotten."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.memories import DIM, add, check, found, said, supersedes
from tests.sqld import Sqld
from voice_bridge.bridge.memory.database import Local
from voice_bridge.bridge.memory.kinds import Entities, Judged, Memory, Thought
from voice_bridge.bridge.memory.store import Store, StoreError

pytest.importorskip("libsql")

KILLS = 8  # of a writing process; the stages of a write are gone through one by one in another test


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    """A store in a file, for what only a file can show."""
    with closing(Store.open(str(tmp_path / "memory.db"))) as store:
        store.set_embedder("letters", DIM)
        yield store


def test_what_was_forgotten_is_not_in_the_files(file: Store, tmp_path: Path) -> None:
    dice = random.Random(1)
    for _ in range(40):  # in any order and of any length, so that rows move between pages
        some = []
        for caller in ("anna", "bert", "carl"):
            text = f"{caller}word{dice.getrandbits(30)} " * dice.randint(1, 30)
            about = Entities(about=f"{caller}word thing")
            some += [said(text, caller, id=dice.getrandbits(60), entities=about, source_call=f"{caller}word")]
        add(file, *some)
        for memory in some:
            thought = Thought(f"{memory.caller}word", memory.caller, 1.0, 1.0, memory.text, True, "rules", {}, ())
            file.log(replace(thought, judged=(Judged(memory, 1, 1, 1, 1),)))
    file.forget_memories(memory.id for memory in file.page("bert"))
    file.forget("anna")
    remnants = _bytes(tmp_path)
    file.scrub()
    rest = _bytes(tmp_path)
    for gone in (b"annaword", b"bertword", b"anna"):
        assert gone in remnants
        assert gone not in rest
    assert rest.count(b"carlword") > 80
    check(tmp_path / "memory.db")


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_power_cut_at_any_stage_of_a_write_loses_nothing_acknowledged(file: Store, tmp_path: Path) -> None:
    """Every state in which the disk may be left: some of the log is written, or some of it is in the file already."""
    path, log = tmp_path / "memory.db", tmp_path / "memory.db-wal"
    old, new = said("the code is 1"), said("the code is 2")
    add(file, old)
    safe = log.stat().st_size
    add(file, new, links=[supersedes(new, old)])
    before, written = path.read_bytes(), log.read_bytes()
    states = [(before, written[:size], size == len(written)) for size in range(safe, len(written) + 1, 1000)]
    states.append((before, written, True))
    with closing(Local(path)) as database:
        database.query("PRAGMA wal_checkpoint")
    after = path.read_bytes()
    states += [(after[:size] + before[size:], written, True) for size in range(0, len(after), 4096)]
    seen = set()
    for number, (main, rest, whole) in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "memory.db").write_bytes(main)
        (folder / "memory.db-wal").write_bytes(rest)
        with closing(Store.open(str(folder / "memory.db"))) as store:
            active = store.standing("anna", 9)
            assert active in ([old], [new])
            assert active == [new] or not whole
            assert found(store, "code") == {active[0].id}
            assert len(store.page()) == 1 + len(store.linked([old.id])) == (2 if active == [new] else 1)
        check(folder / "memory.db")
        shutil.rmtree(folder)
        seen.add(active[0].id)
    assert seen == {old.id, new.id}


WRITER = """
import sys
from voice_bridge.bridge.memory.kinds import Link, Memory
from voice_bridge.bridge.memory.store import Store
store = Store.open(sys.argv[1])
last = int(sys.argv[2])
while True:
    store.add([(Memory(last + 1, "anna", "the code", 1.0), None)], [Link(last + 1, last, "supersedes")])
    last += 1
    print(last, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with closing(Store.open(str(path))) as store:
        store.add([(Memory(1, "anna", "the code", 1.0), None)])
    last, dice = 1, random.Random(2)
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(path), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randint(1, 20)):
                last = int(writer.stdout.readline())
            time.sleep(dice.uniform(0, 0.01))  # anywhere in the writes that follow
            writer.kill()
            last = int((writer.stdout.read().split() or [last])[-1])
        with closing(Store.open(str(path))) as store:
            there = store.page("anna", 10_000)
            assert len(there) in {last, last + 1}
            assert found(store, "code") == {there[0].id} == {len(there)}
        check(path)
        last = len(there)


def test_a_primary_that_is_killed_loses_nothing_acknowledged(tmp_path: Path, unused_port: int) -> None:
    with Sqld(tmp_path / "sqld", unused_port) as server, closing(Store.open(server.url)) as store:
        store.set_embedder("letters", DIM)
        kept: list[int] = []
        for _ in range(3):
            killer = threading.Timer(0.15, server.kill)
            killer.start()
            kept += _add_until_it_fails(store)
            killer.join()
            server.start()
            assert {memory.id for memory in store.page("", 100_000)} >= set(kept)
            assert found(store, "fact") >= set(kept[-90:])  # it gives the newest hundred
        assert kept


def _add_until_it_fails(store: Store) -> list[int]:
    kept = []
    try:
        while True:
            memory = said("fact")
            add(store, memory)
            kept.append(memory.id)
    except StoreError:
        return kept
