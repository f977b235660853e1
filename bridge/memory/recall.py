"""Which memories of a caller may have to do with what he says: a matrix of their vectors, beside it their words."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .agree import Vocabulary, telling
from .asked import PEOPLE, TIME, Asked, Told, ask, clear, context, kin_in, tell
from .embed import Embedder, Vectors
from .kinds import DAY, Candidate, Memory, Moment
from .shelf import Shelf
from .store import Store

Column = NDArray[np.float32]

LIMIT = 15  # candidates
POOL = 200  # nearest by meaning: a question in other words is far from its answer
CLOSER = 100  # of them whose words are looked at: with the memories near to them these are the nearest
FOUND = 20  # by words, beside them
RARE = 0.3  # share of what is rare in what is said with which a memory comes along, whatever its meaning
BY_WORDS = 3  # its place: behind those that would be injected, before those that have less of everything
NEIGHBOURS = 14  # memories that speak for one: about as many as people tell of a thing
SAME_THING = 0.25  # cosine from which two memories are of the same thing
FEW = 0.05  # sum of weights below which there are hardly any neighbours, and they count less
OWN = 0.2  # what a memory's own nearness counts beside that of its neighbours
KEPT = 512 << 20  # bytes of vectors in memory: five callers of 100,000 memories, or thousands of usual ones

WEIGHTS = {
    "similarity": 2.0,
    "asking": 2.0,
    "neighbours": 14.0,
    "rare words": 0.5,
    "words": 3.5,
    "noun": 0.7,
    "importance": 2.2,
    "age": -0.4,
    "time": 2.0,
    "sort": 1.5,
    "other time": -1.7,
    "value": 1.1,
    "theirs": 3.9,
    "stranger": -2.2,
    "old": -1.4,
    "anew": 3.9,
}
"""What each piece of evidence counts in the order of the candidates, found on the dev half of the made set."""

VALUES = ("name", "code", "clock", "weekday", "date", "money", "measure", "phone", "email", "place", "span")
"""Sorts of which a newer memory may tell another one."""

_CHANGED = re.compile(
    r"\b(?:now|nowadays|instead|after all|changed?|moved|switched|swapped|new|another|no longer|any ?more|put back"
    r"|delayed|from (?:now|this|today))\b"
)


@dataclass
class _Copy:
    """The vectors of one caller, with room to grow."""

    revision: int
    ids: NDArray[np.int64]  # [room]
    matrix: Vectors  # [room, dim]
    rows: dict[int, int]

    @classmethod
    def of(cls, shelf: Shelf) -> _Copy:
        rows = {id: row for row, id in enumerate(shelf.ids.tolist())}
        return cls(shelf.revision, shelf.ids.copy(), shelf.matrix.copy(), rows)

    def take(self, shelf: Shelf) -> None:
        """Bring what changed."""
        for id in shelf.gone.tolist():
            self._drop(id)
        for id, vector in zip(shelf.ids.tolist(), shelf.matrix, strict=True):
            row = self.rows.setdefault(id, len(self.rows))
            if row == len(self.ids):
                self._grow()
            self.ids[row], self.matrix[row] = id, vector
        self.revision = shelf.revision

    def _grow(self) -> None:
        room = len(self.ids) + 16
        self.ids = np.concatenate([self.ids, np.zeros(room, np.int64)])
        self.matrix = np.concatenate([self.matrix, np.zeros((room, self.matrix.shape[1]), np.float32)])

    def _drop(self, id: int) -> None:
        """The last row takes the place of the one that goes."""
        row = self.rows.pop(id, None)
        last = len(self.rows)
        if row is not None and row != last:
            self.ids[row], self.matrix[row] = self.ids[last], self.matrix[last]
            self.rows[int(self.ids[row])] = row


class Recall:
    """Keeps a copy of the vectors of the callers of late, in step with the store. Not for two threads at a time."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._vocabulary = Vocabulary()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    def load(self, caller: str) -> None:
        """Have the copy ready before it is needed."""
        self._copy(caller)

    def forget(self, caller: str) -> None:
        """Keep nothing of a caller in mind: neither vectors nor words."""
        self._copies.pop(caller, None)
        self._vocabulary = Vocabulary()
        clear()

    def candidates(self, caller: str, moment: Moment) -> list[Candidate]:
        """At most 15 memories that may matter now, best first; those that the model knows are among them."""
        copy = self._copy(caller)
        if not copy.rows or not moment.said.strip():
            return []
        before = context(moment)
        clause = ask(moment.said, {}).clause
        pool, evidence, alike = self._nearest(caller, copy, f"{before} {moment.said}".strip(), clause)
        if not pool:  # another bridge has just taken them away
            return []
        evidence |= self._by_words(pool, moment, before, alike)
        order = np.argsort(-_weighed(evidence), kind="stable").tolist()
        by_words = int(np.argmax(evidence["rare words"]))
        if evidence["rare words"][by_words] >= RARE:
            order.insert(BY_WORDS, by_words)
        found = [
            Candidate(pool[at], float(evidence["similarity"][at]), float(evidence["words"][at]))
            for at in list(dict.fromkeys(order))[:LIMIT]
        ]
        return self._with_what_they_hang_on(found, copy)

    def _nearest(
        self, caller: str, copy: _Copy, said: str, clause: str
    ) -> tuple[list[Memory], dict[str, Column], Column]:
        """The memories that are nearest in meaning or words, what speaks for each, and how near they are to each other
        ([pool, pool])."""
        count = len(copy.rows)
        near = copy.matrix[:count] @ self._embedder.embed([said, clause]).T  # [count, 2]
        by_words = {
            copy.rows[id]: share for id, share in self._store.search(caller, telling(said), FOUND) if id in copy.rows
        }
        found = np.array(list(by_words), np.intp)
        rows = np.union1d(np.argpartition(-near[:, 0], min(POOL, count) - 1)[:POOL], found)
        alike = np.maximum(copy.matrix[rows] @ copy.matrix[rows].T, 0)
        evidence = {
            "similarity": near[rows, 0],
            "asking": near[rows, 1],
            "neighbours": _neighbours(alike, near[rows, 0]),
            "rare words": np.array([by_words.get(row, 0.0) for row in rows.tolist()], np.float32),
        }
        best = np.argsort(-_weighed(evidence), kind="stable")[:CLOSER]
        places = {
            int(copy.ids[rows[place]]): place for place in {*best.tolist(), *np.searchsorted(rows, found).tolist()}
        }
        pool = self._store.get(places)
        kept = np.array([places[memory.id] for memory in pool], np.intp)
        return pool, {name: column[kept] for name, column in evidence.items()}, alike[np.ix_(kept, kept)]

    def _by_words(self, pool: Sequence[Memory], moment: Moment, before: str, alike: Column) -> dict[str, Column]:
        kin = kin_in(memory.text for memory in pool)
        asked, told = ask(moment.said, kin, before), [tell(memory.text, kin) for memory in pool]
        without = PEOPLE.keys() | kin.keys()
        wanted, noun, *bags = self._vocabulary.bags(
            [telling(f"{before} {moment.said}", without), telling(" ".join(asked.noun), without)]
            + [telling(memory.text, without) for memory in pool]
        )
        cover = self._vocabulary.cover
        age = np.array([moment.now - memory.timestamp for memory in pool], np.float32) / DAY
        return {
            "words": cover(wanted, bags),
            "noun": cover(noun, bags) if len(noun) else np.full(len(pool), 0.5, np.float32),
            "importance": np.array([memory.importance for memory in pool], np.float32),
            "age": np.log1p(np.maximum(age, 0)),
            **_fits(asked, told),
            **_ages(pool, told, alike),
        }

    def _with_what_they_hang_on(self, found: list[Candidate], copy: _Copy) -> list[Candidate]:
        """The candidates, and right after each the memories without which it cannot be understood."""
        there = {one.memory.id for one in found}
        links = [link for link in self._store.linked(there) if link.relation == "hangs_on" and link.parent_id in there]
        missing = {link.child_id: link.parent_id for link in links if link.child_id in copy.rows.keys() - there}
        brought: dict[int, list[Candidate]] = {}
        by_id = {one.memory.id: one for one in found}
        for memory in self._store.get(missing):
            one = by_id[missing[memory.id]]
            child = Candidate(memory, one.similarity, one.words, via=one.memory.id)
            brought.setdefault(one.memory.id, []).append(child)
        return [each for one in found for each in (one, *brought.get(one.memory.id, ()))][:LIMIT]

    def _copy(self, caller: str) -> _Copy:
        copy = self._copies.get(caller)
        if copy is None or self._store.revision(caller) != copy.revision:
            shelf = self._store.vectors(caller, copy.revision if copy else 0)
            if copy is None or shelf.whole:
                copy = self._copies[caller] = _Copy.of(shelf)
            else:
                copy.take(shelf)
        self._copies.move_to_end(caller)
        while len(self._copies) > 1 and sum(other.matrix.nbytes for other in self._copies.values()) > KEPT:
            self._copies.popitem(last=False)
        return copy


def _weighed(evidence: Mapping[str, Column]) -> Column:
    return np.asarray(sum(WEIGHTS[name] * column for name, column in evidence.items()), np.float32)


def _fits(asked: Asked, told: Sequence[Told]) -> dict[str, Column]:
    """What speaks for or against each memory by the sorts of things that it tells, and by of whom it tells."""
    wants, spoken_of = asked.wants, asked.owners | asked.people

    def each(holds: Callable[[Told], bool]) -> Column:
        return np.array([holds(one) for one in told], np.float32)

    return {
        "time": each(lambda one: bool(wants & one.sorts & TIME)),
        "sort": each(lambda one: not wants or bool(wants & one.sorts)),
        "other time": each(lambda one: not wants & (TIME | {"span"}) and bool(one.sorts & {"clock", "date"})),
        "value": each(lambda one: bool(one.sorts & {"name", "code"})),
        "theirs": each(lambda one: bool(asked.owners & one.people)),
        "stranger": each(lambda one: asked.about_others(one) and not spoken_of & one.people),
    }


def _neighbours(alike: Column, similarity: Column) -> Column:
    """How near what is said is to a memory and those on the same thing: one of them may say it in its words."""
    weights = np.where(alike >= SAME_THING, alike, 0) ** 2
    np.fill_diagonal(weights, 0)
    nearest = np.argpartition(-weights, min(NEIGHBOURS, len(weights)) - 1, axis=1)[:, :NEIGHBOURS]
    weights = np.take_along_axis(weights, nearest, 1)
    near = np.maximum(similarity, 0)
    theirs = (weights * near[nearest]).sum(1) / np.maximum(weights.sum(1), FEW)
    return np.asarray(np.sqrt(OWN * near + (1 - OWN) * theirs), np.float32)


def _ages(pool: Sequence[Memory], told: Sequence[Told], alike: Column) -> dict[str, Column]:
    """How far a newer memory tells the same thing of the same people, and how far one says that it is the newer."""
    people = list({one.people: None for one in told})
    whose = np.array([people.index(one.people) for one in told])
    sorts = np.array([sum(1 << at for at, sort in enumerate(VALUES) if sort in one.sorts) for one in told])
    when = np.array([memory.timestamp for memory in pool])
    same = (whose[:, None] == whose) & ((sorts[:, None] & sorts) > 0)
    newer = when > when[:, None]
    says = np.array([_CHANGED.search(memory.text.lower()) is not None for memory in pool], np.float32)
    return {"old": (alike * (same & newer)).max(1), "anew": (alike * (same & newer.T)).max(1) * says}
