"""The store of memories, over a libSQL file and over a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from tests.memories import DIM, add, embed, found, letters, said, supersedes
from tests.sqld import Sqld
from voice_bridge.bridge.memory.kinds import Entities, Judged, Link, Thought
from voice_bridge.bridge.memory.store import Store, StoreError

pytest.importorskip("libsql")

Open: TypeAlias = Callable[[], Store]

WRITERS = 50  # calls that write at once


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


def test_what_was_added_is_what_another_bridge_finds(reopen: Open) -> None:
    one, other = reopen(), reopen()
    about = Entities("preference", "tea", "green", ("Assam",))
    memory = said("I like green tea", entities=about, emotions=("glad",), importance=0.9, source_call="c1")
    add(one, memory)
    assert other.get([memory.id, 5]) == [memory]
    assert other.search("anna", ["teas"], 5) == [(memory.id, pytest.approx(1.0))]
    shelf = other.vectors("anna")
    assert shelf.ids.tolist() == [memory.id]
    assert np.array_equal(shelf.matrix[0], letters(memory.text))
    assert (shelf.importance[0], shelf.timestamp[0]) == (np.float32(0.9), memory.timestamp)
    assert other.about("anna", "tea") == other.standing("anna", 5) == other.page("anna") == [memory]


def test_adding_again_does_no_harm(store: Store) -> None:
    old, new = said("the code is 1"), said("the code is 2")
    for _ in range(2):
        add(store, old, new, links=[supersedes(new, old)])
    assert store.page() == [new, old]
    assert store.linked([new.id]) == store.linked([old.id]) == [supersedes(new, old)]
    assert found(store, "code") == {new.id}


def test_a_superseded_memory_is_kept_and_comes_back_when_the_newer_one_is_forgotten(store: Store) -> None:
    about = Entities(about="code")
    old, new, newest = (said(f"the code is {n}", entities=about, importance=0.9) for n in (1, 2, 3))
    add(store, old, new, newest, links=[supersedes(newest, old), supersedes(newest, new), supersedes(new, old)])
    for active in ([newest], [new], [old]):
        assert store.standing("anna", 9) == store.about("anna", "code") == active
        assert found(store, "code") == set(store.vectors("anna").ids.tolist()) == {active[0].id}
        assert store.forget_memories([active[0].id]) == 1
    assert store.page() == []


def test_nobody_sees_what_another_caller_said(store: Store) -> None:
    mine, theirs = said("my code is 1", "anna", source_call="c1"), said("my code is 2", "anna2", source_call="c2")
    add(store, mine, theirs, links=[supersedes(mine, theirs), Link(theirs.id, mine.id, "hangs_on")])
    assert store.linked([mine.id, theirs.id]) == []
    for caller, memory in (("anna", mine), ("anna2", theirs)):
        assert found(store, "code", "anna", "anna2", caller, caller=caller) == {memory.id}
        assert store.vectors(caller).ids.tolist() == [memory.id]
        assert store.standing(caller, 9) == store.page(caller) == [memory]
        assert [line["memory"]["id"] for line in store.export(caller)] == [memory.id]
    for nobody in ("", "ann", "ann%", "c1", "anna OR 1", '"'):
        assert found(store, "code", caller=nobody) == set()
        assert store.vectors(nobody).ids.size == store.revision(nobody) == len(store.standing(nobody, 9)) == 0
    assert store.forget("anna") == 1
    assert store.page() == [theirs]


@pytest.mark.parametrize(
    "words",
    [
        '" OR caller:c2 OR "',
        "caller:c2",
        "c1",
        "NOT",
        "code*",
        "NEAR(code secret)",
        "(",
        "^secret",
        "c2",
        "\0",
        "_",
        "{}:",
        "'",
    ],
)
def test_what_a_caller_says_is_never_a_query(store: Store, words: str) -> None:
    add(store, said("one thing"), said("my secret code", "bert"))
    assert found(store, words) == set()
    assert store.search("anna", [words, "thing"], 5)[0][0] in store.vectors("anna").ids


def test_rare_words_weigh_more(store: Store) -> None:
    common = [said(f"the dentist said {n}") for n in range(20)]
    rare = said("the appointment is on Friday")
    add(store, *common, rare)
    (best, score), (_, second), *_ = store.search("anna", ["appointments", "dentist"], 9)
    assert best == rare.id
    assert 1 > score > 0.5 > second > 0


def test_words_that_are_everywhere_are_left_out_but_for_the_rarest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [said(f"the dentist said {n}") for n in range(20)]
    rare = said("the appointment is on Friday")
    add(store, *common, rare)
    monkeypatch.setattr("voice_bridge.bridge.memory.words.LOOKED_AT", 10)
    assert found(store, "dentist", "appointment") == {rare.id}
    assert found(store, "dentist", "said") == {memory.id for memory in common}


def test_a_reader_learns_of_every_change(reopen: Open) -> None:
    writer, reader = reopen(), reopen()
    assert reader.revision("anna") == 0
    one, two, three = said("one bad"), said("two bees"), said("three eggs")
    add(writer, one)
    add(writer, said("hello", "bert"))
    shelf = reader.vectors("anna")
    assert (shelf.whole, shelf.ids.tolist(), shelf.revision) == (True, [one.id], reader.revision("anna"))

    add(writer, said("again", "bert"))
    assert reader.revision("anna") == shelf.revision
    add(writer, two, links=[supersedes(two, one)])
    assert reader.revision("anna") > shelf.revision
    shelf = reader.vectors("anna", shelf.revision)
    assert (shelf.whole, shelf.ids.tolist(), shelf.gone.tolist()) == (False, [two.id], [one.id])

    writer.forget_memories([two.id])
    shelf = reader.vectors("anna", shelf.revision)
    assert (shelf.whole, shelf.ids.tolist(), shelf.gone.tolist()) == (True, [one.id], [])

    writer.forget("anna")
    assert reader.revision("anna") == 0
    assert reader.vectors("anna", shelf.revision).whole
    add(writer, three)  # others had a memory too when the reader last looked
    after = reader.vectors("anna", shelf.revision)
    assert (after.whole, after.ids.tolist()) == (True, [three.id])


def test_vectors_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    memories = [said("a" * n) for n in range(50)]
    add(store, *memories)
    monkeypatch.setattr("voice_bridge.bridge.memory.shelf.PAGE_BYTES", 1700)  # seven rows
    shelf = store.vectors("anna")
    assert shelf.ids.tolist() == [memory.id for memory in memories]
    assert shelf.matrix[:, 0].tolist() == list(range(50))


def test_a_vector_of_another_length_is_refused(store: Store) -> None:
    for wrong in (np.zeros(DIM + 1, np.float32), np.zeros((1, DIM), np.float32)):
        with pytest.raises(StoreError, match=f"whose embedder makes {DIM}"):
            store.add([(said("hello"), wrong)])
    assert store.page() == []


def test_another_embedder_makes_all_vectors_anew_and_goes_on_after_a_kill(reopen: Open) -> None:
    one, other = reopen(), reopen()
    memories = [said(f"fact {n}", f"caller{n % 3}") for n in range(450)]
    add(one, *memories)
    steps: list[tuple[int, int]] = []

    def dies(texts: list[str]) -> NDArray[np.float32]:
        if len(steps) == 1:
            raise KeyboardInterrupt
        return np.full((len(texts), 3), 2, np.float32)

    with pytest.raises(KeyboardInterrupt):
        one.reembed("other", 3, dies, lambda *step: steps.append(step))
    assert (one.embedder, one.vectorless()) == (("other", 3), 250)
    assert len(found(one, "fact", caller="caller0")) == 100  # words are found all the while

    other.add([(said("late"), letters("late"))])  # a bridge that does not know yet
    assert other.vectors("caller1").ids.size == 0
    one.reembed("other", 3, lambda texts: np.ones((len(texts), 3), np.float32), lambda *step: steps.append(step))
    assert steps == [(200, 450), (200, 251), (251, 251)]
    assert one.vectorless() == 0
    assert sorted(one.vectors("caller1").matrix[:, 0].tolist()) == [1.0] * 83 + [2.0] * 67
    one.reembed("other", 3, dies, lambda *step: steps.append(step))
    assert len(steps) == 3


def test_vectors_of_two_embedders_are_never_mixed(reopen: Open) -> None:
    one, other = reopen(), reopen()
    memory = said("abc")
    add(one, memory)
    other.set_embedder("other", DIM)
    other.reembed("other", DIM, embed, lambda *_: None)
    assert other.vectors("anna").ids.tolist() == [memory.id]
    assert one.vectors("anna").ids.tolist() == []
    add(one, said("later"))
    assert other.vectors("anna").ids.tolist() == [memory.id]


def test_an_export_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    memories = [said(f"fact {n}", f"caller{n % 2}", source_call="c") for n in range(450)]
    links = [supersedes(memories[9], memories[7]), Link(memories[9].id, memories[5].id, "hangs_on")]
    add(store, *memories, links=links)
    lines = [json.loads(json.dumps(line)) for line in store.export()]
    with closing(Store.open(str(tmp_path / "other.db"))) as other:
        assert [other.import_(lines), other.import_(lines)] == [450, 450]
        assert (other.page("", 1000), other.linked([memories[9].id])) == (store.page("", 1000), sorted_links(links))
        assert found(other, "fact", caller="caller1") == found(store, "fact", caller="caller1")
        with pytest.raises(StoreError, match="line 2 is not from an export"):
            other.import_([lines[0], {"memory": {"id": "x"}}])


def sorted_links(links: Sequence[Link]) -> list[Link]:
    return sorted(links, key=lambda link: link.child_id)


def test_people_see_who_called_and_what_there_is(store: Store) -> None:
    name = Entities("name", "name", "Anna")
    first = said("I am Ann", entities=replace(name, value="Ann"), source_call="c1")
    second = said("I am Anna", entities=name, source_call="c2")
    bert = said("hello", "bert")
    add(store, first, second, bert, links=[supersedes(second, first)])
    newest, older = store.callers()
    assert (newest.key, newest.name, newest.memories) == ("bert", "", 1)
    assert (older.key, older.name, older.memories, older.calls) == ("anna", "Anna", 2, 2)
    assert (older.first, older.last) == (first.timestamp, second.timestamp)
    counts = store.stats()
    assert (counts.callers, counts.memories, counts.superseded, counts.links, counts.vectorless) == (2, 3, 1, 1, 0)
    assert (counts.embedder, counts.dim) == ("letters", DIM)
    assert store.page("", 2) == [bert, second]
    assert store.page("anna", 2, second.id) == [first]


def test_what_was_thought_is_shown_as_long_as_its_memories_are_there(store: Store) -> None:
    one, two = said("one", source_call="call-1"), said("two", source_call="call-1")
    add(store, one, two)
    judged = tuple(Judged(memory, 0.1, 0.2, 0.3, 0.4, "near", True) for memory in (one, two))
    later = Thought("call-2b", "anna", 9.0, 1.0, "what was it", True, "rules", {"recall": 2.0}, judged)
    early = replace(later, timestamp=8.0, said="what")
    for thought in (later, early, replace(later, call="call-3b"), replace(later, call="call-1", said="one")):
        store.log(thought)
    assert store.thoughts("2b") == [early, later]
    assert store.thoughts("") == store.thoughts("x") == store.thoughts("%") == []
    with pytest.raises(StoreError, match="2 calls end in 'b'"):
        store.thoughts("b")
    store.forget_memories([one.id])
    assert [thought.judged for thought in store.thoughts("2b")] == [judged[1:]] * 2
    assert store.thoughts("call-1") == []  # there it was said
    store.expire(9.0, 9.0)
    assert [thought.timestamp for thought in store.thoughts("2b")] == [9.0]


def test_what_is_too_old_goes_with_its_links_words_and_thoughts(store: Store) -> None:
    memories = [said("fact", f"caller{n % 2}", timestamp=float(n)) for n in range(500)]
    add(store, *memories, links=[supersedes(memories[2], memories[0]), supersedes(memories[498], memories[496])])
    assert store.expire(490.0, 490.0) == 490
    assert store.page() == memories[:489:-1]
    assert store.linked(memory.id for memory in memories) == [supersedes(memories[498], memories[496])]
    assert len(found(store, "fact", caller="caller0")) == 4
    assert store.expire(1000.0, 1000.0) == 10
    assert store.callers() == []
    assert store.stats().callers == 0


def test_fifty_calls_write_at_once(reopen: Open) -> None:
    stores = [reopen() for _ in range(WRITERS)]
    failed: list[Exception] = []

    def write(store: Store, caller: str) -> None:
        try:
            for n in range(3):
                add(store, said(f"fact {n}", caller))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(store, f"caller{n}")) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [(one.memories, stores[0].vectors(one.key).ids.size) for one in stores[0].callers()] == [(3, 3)] * WRITERS
