"""How well the words of two texts agree: the same stem, or near in meaning by wordllama's vectors of words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .asked import TITLES, plain
from .embed import Vectors, unit, wordllama_model
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
    said = (word.removesuffix("'s") for word in words(plain(text)))
    return [word for word in said if word not in STOP_WORDS and word not in TITLES and word not in without]


class Vocabulary:
    """Vectors of words, made when a word is first met. Not for two threads at a time."""

    def __init__(self) -> None:
        self._model = wordllama_model()
        self._vectors: Vectors
        self._weights: Vectors  # [words]
        self._stems: NDArray[np.intp]
        self._clear()

    def bags(self, texts: Sequence[Sequence[str]]) -> list[Bag]:
        """Bags of these words, which hold until the next ones are made."""
        if len(self._rows) > KEPT:
            self._clear()
        new = list(dict.fromkeys(word for text in texts for word in text if word not in self._rows))
        if new:
            self._learn(new)
        return [Bag(np.array([self._rows[word] for word in text], np.intp)) for text in texts]

    def cover(self, wanted: Bag, bags: Sequence[Bag]) -> NDArray[np.float32]:
        """Which share of the wanted words is in each bag, 0 to 1; a word that tells more counts more."""
        if not len(wanted):
            return np.zeros(len(bags), np.float32)
        weights = self._weights[wanted.rows]
        shares = [self._best(wanted, bag) @ weights for bag in bags]
        return np.asarray(np.array(shares, np.float32) / weights.sum())

    def _best(self, wanted: Bag, bag: Bag) -> NDArray[np.float32]:
        """[wanted]: how well the best word of the bag agrees with each."""
        if not len(bag):
            return np.zeros(len(wanted), np.float32)
        near = self._vectors[wanted.rows] @ self._vectors[bag.rows].T
        same = self._stems[wanted.rows][:, None] == self._stems[bag.rows]
        return np.asarray(np.where(same, 1, np.clip((near - APART) / (ALIKE - APART), 0, 1)).max(1), np.float32)

    def _learn(self, new: Sequence[str]) -> None:
        raw = self._model.embed(list(new))
        start = len(self._rows)
        for at, word in enumerate(new, start):
            self._rows[word] = at
            self._numbers.setdefault(stem(word), len(self._numbers))
        stems = np.array([self._numbers[stem(word)] for word in new], np.intp)
        self._vectors: Vectors = np.concatenate([self._vectors, unit(raw)])
        # The lengths of wordllama's vectors grow with what a word tells: "the" 1.6, "number" 9.7, "gate" 19.7.
        self._weights = np.concatenate([self._weights, np.linalg.norm(raw, axis=1).astype(np.float32)])
        self._stems = np.concatenate([self._stems, stems])

    def _clear(self) -> None:
        self._rows: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._vectors = np.zeros((0, self._model.embedding.shape[1]), np.float32)
        self._weights = np.zeros(0, np.float32)
        self._stems = np.zeros(0, np.intp)
