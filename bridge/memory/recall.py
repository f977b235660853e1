"""Which memories of a caller may have to do with what he says: a matrix of their vectors, beside it their words."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .agree import Vocabulary, telling
from .asked import NAMED, PEOPLE, TIME, Asked, Told, ask, kin_in, tell
from .embed import Embedder, Vectors
from .kinds import Candidate, Memory, Moment
from .shelf import Shelf
from .store import Store

LIMIT = 15  # candidates
POOL = 200  # nearest by meaning that are looked at more closely: of a made set 98 % of the right ones are among them
FOUND = 20  # by words, beside them
NEIGHBOURS = 14  # memories on the same thing that speak for one: about as many as people tell of a thing
KEPT = 512 << 20  # bytes of vectors in memory: five callers of 100,000 memories, or thousands of usual ones
DAY = 86400.0  # seconds

WEIGHTS = {}


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
        self._copies.pop(caller, None)

    def candidates(self, caller: str, moment: Moment) -> list[Candidate]:
        """At most 15 memories that may matter now, best first; those that the model knows are among them."""
        copy = self._copy(caller)
        if not copy.rows:
            return []
        pool, names, evidence = self.evidence(caller, copy, moment)
        order = np.argsort(-(evidence @ np.array([WEIGHTS[name] for name in names])), kind="stable")[:LIMIT]
        similarity, agree = names.index("similarity"), names.index("words")
        return [Candidate(pool[at], float(evidence[at, similarity]), float(evidence[at, agree])) for at in order]

    def evidence(self, caller: str, copy: _Copy, moment: Moment):
        count = len(copy.rows)
        first = ask(moment.said, {})
        said = self._embedder.embed([moment.said, first.clause])
        near = copy.matrix[:count] @ said.T  # [count, 2]
        top = np.argpartition(-near[:, 0], min(POOL, count) - 1)[:POOL]
        found = [id for id, _ in self._store.search(caller, telling(moment.said), FOUND)]
        ids = dict.fromkeys([*copy.ids[top].tolist(), *(id for id in found if id in copy.rows)])
        pool = self._store.get(ids)
        rows = np.array([copy.rows[memory.id] for memory in pool])
        kin = kin_in(memory.text for memory in pool)
        asked = ask(moment.said, kin)
        told = [tell(memory.text, kin) for memory in pool]
        without = PEOPLE.keys() | kin.keys()
        wanted, clause, noun, *bags = self._vocabulary.bags(
            [
                telling(moment.said, without),
                telling(asked.clause, without),
                [word for word in asked.noun if word not in without],
                *(telling(memory.text, without) for memory in pool),
            ]
        )
        cover = self._vocabulary.cover
        columns = {
            "similarity": near[rows, 0],
            "asking": near[rows, 1],
            "neighbours": neighbours(copy.matrix[rows], near[rows, 0]),
            "words": cover(wanted, bags),
            "asking words": cover(clause, bags),
            "noun": cover(noun, bags) if len(noun) else np.full(len(pool), 0.5),
            "importance": np.array([memory.importance for memory in pool]),
            "age": np.log1p(np.maximum(0, np.array([moment.now - memory.timestamp for memory in pool]) / DAY)),
            **fits(asked, told),
            **ages(pool, told, copy.matrix[rows], np.maximum(0, neighbours(copy.matrix[rows], near[rows, 0]))),
        }
        return pool, list(columns), np.stack(list(columns.values()), 1)

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


def fits(asked: Asked, told: Sequence[Told]) -> dict[str, NDArray[np.float32]]:
    """What speaks for or against each memory by the sorts of things that it tells, and of whom."""
    def flags(of) -> NDArray[np.float32]:
        return np.array([of(one) for one in told], np.float32)
    wants = asked.wants
    return {
        "time": flags(lambda one: bool(wants & one.sorts & TIME)),
        "named": flags(lambda one: bool(wants & one.sorts & NAMED)),
        "sort": flags(lambda one: bool(wants & one.sorts)),
        "no sort": flags(lambda one: bool(wants) and not wants & one.sorts),
        "other time": flags(lambda one: not wants & (TIME | {"span"}) and bool(one.sorts & {"clock", "date"})),
        "value": flags(lambda one: bool(one.sorts & {"name", "code"})),
        "his": flags(lambda one: bool(asked.owners & one.people)),
        "known": flags(lambda one: bool(asked.people & one.people)),
        "stranger": flags(lambda one: bool(one.people) and not (asked.people | asked.owners) & one.people and not ("person" in wants and not asked.people)),
    }


CHANGED = re.compile(r"\b(?:now|nowadays|instead|after all|changed?|moved|switched|swapped|new|another|no longer|any ?more|put back|delayed|from (?:now|this|today))\b")


def ages(pool, told, matrix, near2=0):
    """Whether a newer memory seems to tell the same anew, and whether one does that itself."""
    near = matrix @ matrix.T
    when = np.array([memory.timestamp for memory in pool])
    alike = np.array([[one.people == other.people and bool(one.sorts & other.sorts & VALUES) for other in told] for one in told])
    newer = when[None, :] > when[:, None]
    says = np.array([bool(CHANGED.search(memory.text.lower())) for memory in pool], np.float32)
    near = np.where(alike, np.maximum(near, 0), 0)
    old = np.where(newer, near, 0)
    old_says = np.where(newer, near * says[None, :], 0)
    anew = np.where(newer.T, near, 0).max(1) * says
    return {"old": old.max(1), "old says": old_says.max(1), "anew": anew, "says": says, "n2": near2 ** 0.5, "anewn": anew * near2**0.5, "impn": near2**.5*np.array([m.importance for m in pool])}


VALUES = frozenset({"name", "code", "clock", "weekday", "date", "money", "measure", "phone", "email", "place", "span"})


def neighbours(matrix: Vectors, similarity: Vectors) -> NDArray[np.float32]:
    """How near the question is to the memories that are near each one: what is told of a thing in other words."""
    near = np.maximum(matrix @ matrix.T, 0) ** 2
    np.fill_diagonal(near, 0)
    some = min(NEIGHBOURS, len(near) - 1)
    if not some:
        return np.zeros(len(near), np.float32)
    nearest = np.argpartition(-near, some - 1, axis=1)[:, :some]
    weights = np.take_along_axis(near, nearest, 1)
    return np.asarray((weights * np.maximum(similarity, 0)[nearest]).sum(1) / np.maximum(weights.sum(1), 0.05))
