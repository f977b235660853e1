"""How a voice's sound is made fit for a call: as loud as every other, without silence around it, without clicks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias

import numpy as np

from ...codecs.framing import RATE
from .base import PCM

Speak: TypeAlias = Callable[[str], Generator[PCM, None, None]]
"""What a voice does: a sentence in, the pieces of its sound out as they are made. It may be closed between two."""

LEVEL = 0.1  # root mean square of speech: -20 dBFS, which leaves its peaks room below full scale
PEAK = 0.95  # that nothing goes beyond: filters on the way overshoot a little
STEP = RATE // 100  # samples over which loudness is taken
VOICED = 0.1  # of the loudest step, below which nobody speaks: pauses say nothing about a level
QUIET = 0.005  # what no ear hears on a telephone: 26 dB below speech at its peaks
LEAD = RATE // 100  # samples to leave before speech, for what begins softly
GAP = round(0.15 * RATE)  # samples after speech: what people leave between two sentences said in one breath
FADE = RATE // 200  # samples over which sound begins and ends

_RAMP = np.linspace(0, 1, FADE, dtype=np.float32)


def gain(pcm: PCM) -> np.float32:
    """What brings speech to `LEVEL`, or to `PEAK` if that is less."""
    peak = np.abs(pcm).max(initial=0)
    if len(pcm) < STEP or not peak:
        return np.float32(1)
    steps = pcm[: len(pcm) // STEP * STEP].reshape(-1, STEP)
    power = np.mean(steps**2, axis=1)
    voiced = power[power >= VOICED**2 * power.max()]
    return np.float32(min(LEVEL / np.sqrt(voiced.mean()), PEAK / peak))


class Trim:
    """One sentence, levelled, in pieces of any size: out comes its speech, and `GAP` behind it."""

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)
        self._begun = False

    def push(self, pcm: PCM) -> PCM:
        """What can be heard now. Silence is held back, since it may turn out to be the end."""
        held = np.concatenate((self._held, pcm))
        loud = np.flatnonzero(np.abs(held) > QUIET)
        if not len(loud):
            self._held = held if self._begun else held[-LEAD:]
            return np.zeros(0, np.float32)
        start = 0
        if not self._begun:
            self._begun = True
            start = max(0, int(loud[0]) - LEAD)
            fading = held[start : start + FADE]
            fading *= _RAMP[: len(fading)]
        stop = max(start, min(int(loud[-1]) + 1, len(held) - FADE))
        self._held = held[stop:]
        return held[start:stop]

    def end(self) -> PCM:
        """The rest; nothing if there was no speech."""
        if not self._begun:
            return np.zeros(0, np.float32)
        rest = self._held[:GAP]
        fading = rest[-FADE:]
        fading *= _RAMP[: len(fading)][::-1]
        return np.pad(rest, (0, GAP - len(rest)))
