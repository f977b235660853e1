"""Keeps the loudspeaker out of the microphone, for talking without headphones."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

REACH = 0.3  # seconds in which what was played may come back: the device's own delay and the room's echo
AUDIBLE = 0.003  # of full scale (-50 dBFS): what is quieter makes no echo that anybody hears
CLEAR = 0.01  # of full scale (-40 dBFS): nobody interrupts more quietly than that
OVER = 2.0  # times as loud as the echo is expected to be: somebody is talking over it
AFTER = 3  # blocks (60 ms) of that in a row: a click is none
OPEN = 25  # blocks (half a second) that it then stays open: words have pauses
RISE, FALL = 0.03, 0.01  # share by which the expected echo follows a louder one, and a quieter one: towards its peaks
WORST = 1.0  # as loud as what was played: expected until it is known better

Pcm = NDArray[np.int16]


class Gate:
    """While the agent is heard, what the microphone gets is its echo and is left out, unless it is clearly louder.

    That is no echo canceller: whoever interrupts must raise their voice a little, and loses their first 60 ms.
    """

    def __init__(self, block: float) -> None:
        self._played: deque[float] = deque([0.0], maxlen=max(1, round(REACH / block)))
        self._echo = WORST  # how loud the room gives back what is played
        self._over = 0
        self._open = 0

    def hear(self, said: Pcm, playing: Pcm) -> Pcm:
        """What goes to the bridge of a block of the microphone, `playing` going to the loudspeaker."""
        loudest = max(self._played)
        self._played.append(level(playing))
        if loudest < AUDIBLE:
            self._over = self._open = 0
            return said
        loud = level(said)
        over = self._talks_over(loud, loudest)
        ratio = loud / loudest
        self._echo += (ratio - self._echo) * (RISE if ratio > self._echo else FALL)
        return said if over else np.zeros_like(said)

    def _talks_over(self, loud: float, loudest: float) -> bool:
        self._over = self._over + 1 if loud > max(CLEAR, OVER * self._echo * loudest) else 0
        if self._over >= AFTER:
            self._open = OPEN
        self._open = max(0, self._open - 1)
        return self._open > 0


def level(pcm: Pcm) -> float:
    """How loud it is, of full scale."""
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float32)))) / 32768 if len(pcm) else 0.0
