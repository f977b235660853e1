"""Which memories of a caller may have to do with what he says: a matrix of their vectors, beside it their words."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .embed import Embedder, Vectors
from .english import STOP_WORDS, words
from .kinds import Candidate, Moment
from .shelf import Shelf
from .store import Store

LIMIT = 15  # candidates
POOL = 60  # nearest by meaning that are looked at more closely
FOUND = 20  # by words, beside them
KEPT = 512 << 20  # bytes of vectors in memory: five callers of 100,000 memories, or thousands of usual ones


@dataclass
class _Copy:
    """The vectors of one caller, with room to grow."""

    revision: int
    ids: NDArray[np.int64]  # [room]
    matrix: Vectors  # [room, dim]
    rows: dict[int, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return int(self.matrix.nbytes)

    def take(self, shelf: Shelf) -> None:
        """Bring what changed."""
        for id in shelf.gone.tolist():
            self._drop(id)
        for id, vector in zip(shelf.ids.tolist(), shelf.matrix, strict=True):
            row = self.rows.setdefault(id, len(self.rows))
            if row == len(self.ids):
                self.ids = np.concatenate([self.ids, np.zeros(row + 16, np.int64)])
                self.matrix = np.concatenate([self.matrix, np.zeros((row + 16, self.matrix.shape[1]), np.float32)])
            self.ids[row], self.matrix[row] = id, vector
        self.revision = shelf.revision

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
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    def load(self, caller: str) -> None:
        """Have the copy ready before it is needed."""
        self._copy(caller)

    def forget(self, caller: str) -> None:
        self._copies.pop(caller, None)

    def candidates(self, caller: str, moment: Moment) -> list[Candidate]:
        """At most 15 memories that may matter now, best first; those that the model knows are among them."""
        copy = self._copy(caller)
        count = len(copy.rows)
        if not count:
            return []
        said = self._embedder.embed([moment.said])[0]
        near = copy.matrix[:count] @ said
        pool = np.argpartition(-near, min(POOL, count) - 1)[:POOL]
        wanted = [word for word in words(moment.said) if word not in STOP_WORDS]
        found = dict(self._store.search(caller, wanted, FOUND))
        ids = dict.fromkeys([*copy.ids[pool].tolist(), *(id for id in found if id in copy.rows)])
        scored = sorted(
            ((float(near[copy.rows[id]]), found.get(id, 0.0), id) for id in ids),
            key=lambda one: one[0] + one[1] / 2,
            reverse=True,
        )[:LIMIT]
        known = {memory.id: memory for memory in self._store.get(id for _, _, id in scored)}
        return [Candidate(known[id], similarity, agree) for similarity, agree, id in scored if id in known]

    def _copy(self, caller: str) -> _Copy:
        copy = self._copies.get(caller)
        if copy is None or self._store.revision(caller) != copy.revision:
            shelf = self._store.vectors(caller, copy.revision if copy else 0)
            if copy is None or shelf.whole:
                rows = {id: row for row, id in enumerate(shelf.ids.tolist())}
                copy = _Copy(shelf.revision, shelf.ids.copy(), shelf.matrix.copy(), rows)
                self._copies[caller] = copy
            else:
                copy.take(shelf)
        self._copies.move_to_end(caller)
        while len(self._copies) > 1 and sum(other.bytes for other in self._copies.values()) > KEPT:
            self._copies.popitem(last=False)
        return copy
