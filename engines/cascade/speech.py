"""What the agent says at one time: its sound as far as it has been made, and what of it was heard."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..base import HangUp, Remember
from ..mouths.base import PCM
from .trace import Times


@dataclass(eq=False)
class Speech:
    """An answer, a greeting, or what the operator wants said. It grows while it is spoken."""

    words: int
    """The id of its words: that under which it was asked for, or one of its own."""
    id: int | None = None
    """Under which it was asked for, unless it is an answer."""
    interruptible: bool = True
    not_before: int = 0
    """The caller's clock when it may be heard."""
    sentences: list[tuple[int, str]] = field(default_factory=list)
    """Each with the sample at which it begins."""
    brings: list[Remember | HangUp] = field(default_factory=list)
    """What comes with it, once it is heard."""
    whole: bool = False
    """Whether all of it has been made."""
    began: int | None = None
    """The caller's clock when it was first heard of."""
    at: int = 0
    """Samples that were sent."""
    made: int = 0
    """Samples that there are."""
    times: Times | None = None
    """When its steps were done, for the trace."""
    _sound: list[PCM] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        """The sentences that have begun."""
        return " ".join(text for start, text in self.sentences if start < self.at or self.over)

    @property
    def over(self) -> bool:
        """Whether all of it was sent."""
        return self.whole and self.at >= self.made

    def mark(self, step: str) -> None:
        """A step of it is done."""
        if self.times:
            self.times.mark(step)

    def add(self, pcm: PCM, text: str = "") -> None:
        """More sound; with a `text` it is the first of that sentence."""
        if text:
            self.sentences.append((self.made, text))
        self._sound.append(pcm)
        self.made += len(pcm)

    def end(self) -> None:
        """There will be no more."""
        self.whole = True

    def take(self, count: int) -> PCM:
        """The next samples, fewer where there are no more yet."""
        pieces, first, until = [], 0, min(self.at + count, self.made)
        for pcm in self._sound:
            if self.at < first + len(pcm) and first < until:
                pieces.append(pcm[max(0, self.at - first) : until - first])
            first += len(pcm)
        self.at = until
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def heard(self, to: int) -> str:
        """The words up to a sample, as near as letters tell."""
        told = []
        ends = [start for start, _ in self.sentences[1:]] + [self.made]
        for (start, text), end in zip(self.sentences, ends, strict=True):
            if to >= end:
                told.append(text)
            elif to > start:
                letters = round(len(text) * (to - start) / (end - start))
                told.append(text[: letters + 1].rpartition(" ")[0])
        return " ".join(filter(None, told))

    def sentence_at(self, at: int) -> int:
        """The sample at which the sentence around this one begins."""
        return max((start for start, _ in self.sentences if start <= at), default=0)
