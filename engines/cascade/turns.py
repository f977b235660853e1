"""When the caller has finished: by silence, by his pace, and by how finished his words sound.

Pure: the ear's events in, turns out. Times are samples of the caller's 24 kHz clock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..base import FRAME, RATE
from ..ears.base import Heard
from ..ears.voice import EARLY
from .finished import Finish, finish


def _samples(seconds: float) -> int:
    return round(seconds * RATE)


# Silence behind the last word after which a turn is over, and the agent's first sound may come.
DECIDE = {Finish.DONE: EARLY, Finish.MAYBE: _samples(0.5), Finish.OPEN: _samples(1.0)}
SOUND = {Finish.DONE: _samples(0.64), Finish.MAYBE: _samples(0.77), Finish.OPEN: _samples(1.2)}
"""Pauses within a sentence last up to 0.7 s; a caller who goes on before the agent is heard has lost nothing."""
MOST = {Finish.DONE: _samples(0.5), Finish.MAYBE: _samples(0.9), Finish.OPEN: _samples(2.0)}
"""As far as a slow caller draws out the former."""
SLOWER = 1.2  # times the longest of the caller's last pauses: the next may be a little longer
PAUSES = 4  # pauses and turns that tell the caller's pace: of now, not of a minute ago
PAUSE, LONGEST = _samples(0.3), _samples(1.6)  # what counts as one: not a closure, and not a new thought


class Said(NamedTuple):
    """What the caller said in a turn."""

    text: str
    start: int
    end: int
    sound: int
    """When the agent may be heard, on the caller's clock."""


class Turns:
    def __init__(self) -> None:
        self.text = ""
        """What the caller has said in the turn under way, as far as it is known."""
        self.start = 0
        self.end = 0
        """Of that."""
        self._heard: dict[int, Heard] = {}  # utterances of the turn under way
        self._taken = 0  # what ends before this belongs to turns that are over
        self._pauses: deque[int] = deque(maxlen=PAUSES)
        self._voiced_to = 0
        self._silent = False  # what comes after the last sound is the caller's own silence

    def heard(self, heard: Heard) -> bool:
        """Take what the ear made of an utterance so far; False if it says nothing new."""
        if heard.end <= self._taken:
            return False
        if heard.start < self._taken:  # it goes on after a turn that seemed over
            words = [word for word in heard.words if (word.start + word.end) / 2 >= self._taken]
            heard = heard._replace(text=" ".join(word.text for word in words), start=self._taken)
        if not heard.text:
            return False
        self._heard[heard.id] = heard
        told = list(self._heard.values())
        self.text = " ".join(one.text for one in told)
        self.start, self.end = told[0].start, told[-1].end
        return True

    def pace(self, voiced_to: int, now: int) -> None:
        """Note, once a frame, where the caller's last sound ended."""
        if self._voiced_to < voiced_to:
            pause = now - FRAME - self._voiced_to
            if self._silent and PAUSE <= pause <= LONGEST:
                self._pauses.append(pause)
            self._voiced_to, self._silent = voiced_to, True

    def answered(self) -> None:
        """The agent is heard: the silence before the caller's next words is no pause of his."""
        self._silent = False

    def over(self, voiced_to: int, now: int) -> Said | None:
        """The turn, if it is over; to be asked when the ear has told all that it has heard."""
        if not self.text:
            return None
        finished = finish(self.text)
        slow = round(SLOWER * max(self._pauses, default=0))
        wait = max(DECIDE[finished], min(slow, MOST[finished]))
        if now - voiced_to < wait:
            return None
        said = Said(self.text, self.start, self.end, voiced_to + max(SOUND[finished], wait))
        self._taken = max(self.end, voiced_to)
        self.text = ""
        self._heard.clear()
        self._pauses.append(0)
        return said
