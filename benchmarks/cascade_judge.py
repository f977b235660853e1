"""What a caller heard, written down after the call by the ear of the bridge. It mishears too: look at what it wrote."""

from __future__ import annotations

import numpy as np
from cascade_checks import AUDIBLE, RATE, Pcm

from voice_bridge.codecs.resample import resample
from voice_bridge.engines.ears.moonshine import MODEL_RATE, PEAK, Library

APART = 0.5  # seconds of silence that part two pieces, each transcribed by itself
LEAST = 0.1  # seconds: less than that is no word
MOST = 20.0  # seconds that are transcribed in one piece
PAD = round(0.3 * MODEL_RATE)  # around each: with less, first and last words suffer


class Judge:
    def __init__(self) -> None:
        self._library = Library()

    def __call__(self, heard: Pcm) -> str:
        """The words in a stretch of what was heard."""
        return " ".join(filter(None, map(self._piece, pieces(heard))))

    def _piece(self, pcm: Pcm) -> str:
        sound = resample((pcm / np.float32(32768)).astype(np.float32), RATE, MODEL_RATE)
        text = self._library(np.pad(sound * np.float32(PEAK / max(1e-3, np.abs(sound).max())), PAD))
        return text if any(map(str.isalnum, text)) else ""


def pieces(heard: Pcm) -> list[Pcm]:
    """What lies between silences."""
    loud = np.flatnonzero(np.abs(heard.astype(np.int32)) >= AUDIBLE)
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > APART * RATE)
    begins, ends = loud[np.concatenate(([0], cuts + 1))], loud[np.concatenate((cuts, [-1]))] + 1
    most = round(MOST * RATE)
    return [
        heard[at : min(at + most, end)]
        for begin, end in zip(begins, ends, strict=True)
        if end - begin >= LEAST * RATE
        for at in range(begin, end, most)
    ]
