"""The right memory comes to mind: measured on the made set, and in step with the store whoever writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libsql")
pytest.importorskip("wordllama")

from tests import recall_set, recall_stages
from voice_bridge.bridge.memory import agree
from voice_bridge.bridge.memory import recall as module
from voice_bridge.bridge.memory.agree import Vocabulary, telling
from voice_bridge.bridge.memory.embed import Embedder, embedder
from voice_bridge.bridge.memory.kinds import Candidate, Link, Memory, Moment
from voice_bridge.bridge.memory.recall import LIMIT, Recall
from voice_bridge.bridge.memory.store import Store
from voice_bridge.bridge.memory.think import Rules

CALLER = "caller"
NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture(scope="module")
def vectors() -> Embedder:
    return embedder("wordllama")


@pytest.fixture
def store(tmp_path: Path, vectors: Embedder) -> Iterator[Store]:
    store = Store.open(str(tmp_path / "memory.db"))
    store.set_embedder(vectors.name, vectors.dim)
    yield store
    store.close()


@pytest.fixture
def recall(store: Store, vectors: Embedder) -> Recall:
    return Recall(store, vectors)


def add(store: Store, *texts: str, caller: str = CALLER, first: int = 1, links: tuple[Link, ...] = ()) -> None:
    """Memories with the ids from `first` on, a day apart."""
    memories = [
        Memory(first + at, caller, text, NOW - DAY * (100 - first - at), importance=0.7)
        for at, text in enumerate(texts)
    ]
    store.add(list(zip(memories, embedder("wordllama").embed(texts), strict=True)), links)


def moment(said: str) -> Moment:
    return Moment(said, True, (), frozenset(), NOW)


def texts(candidates: list[Candidate]) -> list[str]:
    return [one.memory.text for one in candidates]


# -- how well: figures that may only get better --

AMONG_15 = 0.9
LEAST = {"dev": (0.70, 0.55, 0.11), "test": (0.64, 0.50, 0.17)}
"""At least in 3 and injected, and at most injected falsely. What the gates ask for is 0.7 injected."""


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_right_memory_comes_to_mind(split: recall_set.Split, store: Store, vectors: Embedder) -> None:
    callers = [caller for caller in recall_set.load() if caller.split == split]
    ids = recall_stages.add(callers, store, vectors)
    report = recall_stages.ask(callers, ids, store, Recall(store, vectors), Rules())
    in_three, injected, false = LEAST[split]
    assert report.answered > 150
    assert report.by_chance / report.answered < 0.15
    assert report.share("in 15") >= AMONG_15
    assert report.share("in 3") >= in_three
    assert report.share("injected") >= injected
    assert report.false_share <= false
    assert report.false["injection"] == 0


# -- near misses --

KNOWN = (
    "My gate code is 4417.",
    "The code for the alarm is 9902.",
    "My brother's gate code is 2210.",
    "We had the garden gate painted green last spring.",
    "Mrs Miller from next door looks after the roses.",
    "The bus to the office leaves at ten past seven.",
)


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("What's the code for my gate?", "My gate code is 4417."),
        ("What number turns off the alarm?", "The code for the alarm is 9902."),
        ("What's my brother's gate code?", "My brother's gate code is 2210."),
        ("Which colour did we paint the gate?", "We had the garden gate painted green last spring."),
        ("When do I have to catch the bus to work?", "The bus to the office leaves at ten past seven."),
    ],
)
def test_the_answer_comes_before_its_near_misses(store: Store, recall: Recall, said: str, first: str) -> None:
    add(store, *KNOWN)
    assert texts(recall.candidates(CALLER, moment(said)))[0] == first


def test_the_newer_of_two_values_comes_first(store: Store, recall: Recall) -> None:
    add(store, "My gate code is 4417.", "They've changed the gate code, it's 9911 now.", "My alarm code is 3333.")
    found = texts(recall.candidates(CALLER, moment("What's my gate code?")))
    assert found[0] == "They've changed the gate code, it's 9911 now."


def test_a_rare_word_is_found_in_a_sentence_about_other_things(store: Store, recall: Recall) -> None:
    crowd = [f"I was at the dentist with a toothache in the year {1700 + number}." for number in range(300)]
    add(store, "Zaphod eats hay.", *crowd)
    said = "I'm at the dentist with a toothache, so who feeds zaphod?"
    assert "Zaphod eats hay." in texts(recall.candidates(CALLER, moment(said)))


def test_at_most_fifteen_come_and_none_twice(store: Store, recall: Recall) -> None:
    add(store, *(f"My friend number {at} lives in street {at}." for at in range(60)))
    found = recall.candidates(CALLER, moment("Where do my friends live?"))
    assert len(found) == LIMIT
    assert len({one.memory.id for one in found}) == LIMIT


def test_scores_are_those_of_the_memory(store: Store, recall: Recall, vectors: Embedder) -> None:
    add(store, *KNOWN)
    said = "What's the code for my gate?"
    found = {one.memory.text: one for one in recall.candidates(CALLER, moment(said))}
    for text, one in found.items():
        asked, told = vectors.embed([said, text])
        assert one.similarity == pytest.approx(float(asked @ told), abs=1e-4)
    assert found["My gate code is 4417."].words == 1.0
    assert found["Mrs Miller from next door looks after the roses."].words < 0.3


def test_a_memory_brings_what_it_hangs_on(store: Store, recall: Recall) -> None:
    crowd = (f"The surgeon of ward {at} operates on knees and hips." for at in range(30))
    hangs = Link(parent_id=2, child_id=1, relation="hangs_on")
    add(store, "Ottokar plays chess with us.", "Ottokar will operate on my knee.", *crowd, links=(hangs,))
    found = recall.candidates(CALLER, moment("Who will operate on my knee?"))
    via = [(one.memory.id, one.via) for one in found]
    assert via[via.index((2, 0)) + 1] == (1, 2)
    assert len(found) == LIMIT


# -- whose --


def test_nobody_hears_of_another_caller(store: Store, recall: Recall) -> None:
    add(store, "My gate code is 4417.", caller="anna", first=1)
    add(store, "My gate code is 2210.", caller="tom", first=2)
    for said in ("What's my gate code?", "What did the caller before me say?", "4417"):
        assert texts(recall.candidates("tom", moment(said))) == ["My gate code is 2210."]
    assert recall.candidates("nobody", moment("What's my gate code?")) == []


@pytest.mark.parametrize("said", ["", "  ", "?!", "the of and"])
def test_words_that_say_nothing_do_no_harm(store: Store, recall: Recall, said: str) -> None:
    assert recall.candidates(CALLER, moment(said)) == []
    add(store, "My gate code is 4417.")
    assert len(recall.candidates(CALLER, moment(said))) <= 1


# -- in step --


def test_what_is_added_is_found_at_once(store: Store, recall: Recall) -> None:
    for at in range(1, 40):
        add(store, f"My locker {at} opens with {1000 + at}.", first=at)
        found = texts(recall.candidates(CALLER, moment(f"What opens locker {at}?")))
        assert f"My locker {at} opens with {1000 + at}." in found


def test_what_another_bridge_writes_is_found(tmp_path: Path, store: Store, recall: Recall, vectors: Embedder) -> None:
    add(store, "My gate code is 4417.")
    recall.load(CALLER)
    other = Store.open(str(tmp_path / "memory.db"))
    other.set_embedder(vectors.name, vectors.dim)
    add(other, "My alarm code is 9902.", first=2)
    other.close()
    assert len(recall.candidates(CALLER, moment("What's my alarm code?"))) == 2


def test_what_is_superseded_or_forgotten_is_gone(store: Store, recall: Recall) -> None:
    add(store, "My gate code is 4417.", "My alarm code is 9902.", "I like tea.")
    assert len(recall.candidates(CALLER, moment("What's my gate code?"))) == 3
    add(store, "My gate code is 9911.", first=4, links=(Link(4, 1, "supersedes"),))
    found = texts(recall.candidates(CALLER, moment("What's my gate code?")))
    assert set(found) == {"My gate code is 9911.", "My alarm code is 9902.", "I like tea."}
    store.forget_memories([2])
    found = texts(recall.candidates(CALLER, moment("What's my alarm code?")))
    assert set(found) == {"My gate code is 9911.", "I like tea."}
    store.forget(CALLER)
    recall.forget(CALLER)
    assert recall.candidates(CALLER, moment("What's my gate code?")) == []


def test_the_copy_is_that_of_the_store_after_many_changes(store: Store, recall: Recall) -> None:
    for round in range(12):
        first = 10 * round + 1
        links = (Link(first, first - 7, "supersedes"), Link(first + 1, first - 3, "supersedes")) if round else ()
        add(store, *(f"Parcel {first + at} is at shop {at}." for at in range(5)), first=first, links=links)
        recall.load(CALLER)
    copy, shelf = recall._copies[CALLER], store.vectors(CALLER)
    wanted = {id: vector.tolist() for id, vector in zip(shelf.ids.tolist(), shelf.matrix, strict=True)}
    assert {id: copy.matrix[row].tolist() for id, row in copy.rows.items()} == wanted
    assert sorted(copy.rows.values()) == list(range(len(wanted)))
    assert [copy.ids[row] for row in copy.rows.values()] == list(copy.rows)


def test_only_what_changed_is_read_again(store: Store, recall: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, *KNOWN)
    recall.load(CALLER)
    read = []
    vectors = store.vectors

    def watched(caller: str, after: int = 0) -> module.Shelf:
        read.append(vectors(caller, after))
        return read[-1]

    monkeypatch.setattr(store, "vectors", watched)
    recall.load(CALLER)
    assert read == []
    add(store, "I like tea.", first=50)
    recall.load(CALLER)
    assert [len(shelf.ids) for shelf in read] == [1]


def test_few_callers_are_kept_when_they_have_much(
    store: Store, recall: Recall, vectors: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3 * 4 * vectors.dim)
    callers = ("anna", "tom", "lily", "greg")
    for at, caller in enumerate(callers, 1):
        add(store, "I like tea.", caller=caller, first=at)
    for caller in ("anna", "tom", "lily", "anna", "greg"):
        recall.load(caller)
    assert set(recall._copies) == {"anna", "lily", "greg"}


# -- words --


@pytest.mark.parametrize(
    ("wanted", "told", "least", "most"),
    [
        ("parked car", "We parked the car there.", 1.0, 1.0),
        ("parking", "We parked there.", 1.0, 1.0),
        ("movie", "I like the film.", 0.9, 1.0),
        ("dog", "I have a bicycle.", 0.0, 0.1),
        ("zaphod", "Zaphod eats hay.", 1.0, 1.0),
        ("gate code", "The gate is green.", 0.4, 0.8),
        ("", "The gate is green.", 0.0, 0.0),
        ("gate", "", 0.0, 0.0),
    ],
)
def test_words_agree_by_their_stem_or_their_meaning(wanted: str, told: str, least: float, most: float) -> None:
    vocabulary = Vocabulary()
    asked, memory = vocabulary.bags([telling(wanted), telling(told)])
    assert least <= vocabulary.cover(asked, [memory])[0] <= most


def test_a_full_vocabulary_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agree, "KEPT", 4)
    vocabulary = Vocabulary()
    for word in ("gate", "film", "dog", "hay", "car", "tea"):
        asked, memory = vocabulary.bags([[word], [word, "code"]])
        assert vocabulary.cover(asked, [memory])[0] == 1.0
