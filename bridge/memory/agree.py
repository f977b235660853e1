"""How well the words of two texts agree: the same stem, or near in meaning by wordllama's vectors of words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .asked import TITLES
from .embed import unit, wordllama_model
from .english import STOP_WORDS, stem, words

APART = 0.15  # cosine of words that have nothing in common, at most
ALIKE = 0.6  # of words that mean about the same, at least
KEPT = 20_000  # words whose vectors are kept: 20 MB, all that people say in a day


@dataclass(frozen=True)
class Bag:
    """The words of a text that carry something, as rows of the vocabulary."""

    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)


def telling(text: str, without: Collection[str] = ()) -> list[str]:
    """The words of a text but for some, and those that say nothing."""
    said = (word.removesuffix("'s") for word in words(text))
    return [word for word in said if word not in STOP_WORDS and word not in TITLES and word not in without]


class Vocabulary:
    """Vectors of words, made when a word is first met. Not for two threads at a time."""

    def __init__(self) -> None:
        self._model = wordllama_model()
        self._rows: dict[str, int] = {}
        self._vectors = np.empty((KEPT, self._model.embedding.shape[1]), np.float32)
        self._weights = np.empty(KEPT, np.float32)
        self._stems = np.empty(KEPT, np.int64)

    def bags(self, texts: Sequence[Sequence[str]]) -> list[Bag]:
        """Bags of these words, which hold until the next ones are made."""
        new = {word for text in texts for word in text} - self._rows.keys()
        if len(self._rows) + len(new) > KEPT:
            self._rows.clear()
            new = {word for text in texts for word in text}
        if new:
            self._learn(sorted(new))
        return [Bag(np.array([self._rows[word] for word in text], np.intp)) for text in texts]

    def cover(self, wanted: Bag, bags: Sequence[Bag]) -> NDArray[np.float32]:
        """Which share of the wanted words is in each bag, 0 to 1; a word that tells more counts more."""
        if not len(wanted) or not bags:
            return np.zeros(len(bags), np.float32)
        weights = self._weights[wanted.rows]
        rows = np.concatenate([bag.rows for bag in bags])
        near = self._vectors[wanted.rows] @ self._vectors[rows].T
        same = self._stems[wanted.rows][:, None] == self._stems[rows]
        agree = np.where(same, 1, np.clip((near - APART) / (ALIKE - APART), 0, 1))  # [wanted, words of all bags]
        ends = np.cumsum([len(bag) for bag in bags])
        best = [agree[:, end - len(bag) : end].max(1, initial=0) for bag, end in zip(bags, ends, strict=True)]
        return np.asarray(np.array(best) @ weights / weights.sum(), np.float32)

    def _learn(self, new: Sequence[str]) -> None:
        raw = self._model.embed(list(new))
        start, end = len(self._rows), len(self._rows) + len(new)
        self._rows.update(zip(new, range(start, end), strict=True))
        self._vectors[start:end] = unit(raw)
        # The lengths of wordllama's vectors grow with what a word tells: "the" 1.6, "number" 9.7, "gate" 19.7.
        self._weights[start:end] = np.linalg.norm(raw, axis=1)
        self._stems[start:end] = [hash(stem(word)) for word in new]
