"""A conversation with a recording: a core in this process, frame by frame, as fast as the machine goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..codecs import wav
from ..codecs.resample import FULL_SCALE, RATIO, Up, resample
from .base import FRAME, RATE, Core, Ended, Event, Opening

SLOT = 0  # there is one conversation
SLICE = 1.0  # seconds of work between two looks at whether there is more; nobody waits for a frame
LINE = RATE // RATIO  # Hz of a telephone line


class Cue(NamedTuple):
    """Something to give the core at a frame."""

    frame: int
    text: str


def frames(path: str | PathLike[str], tail: float) -> NDArray[np.float32]:
    """A WAV as the frames [n, 1920] that a call would give, with `tail` seconds of silence behind it.

    Sound of 8 kHz goes through the filter of the telephone line, so that a recording of a line gives to the last
    bit what its call gave. Raises ValueError for what is not a WAV, or is empty.
    """
    sound, rate = wav.read(path)
    if not len(sound):
        raise ValueError(f"{path} holds no sound: take another recording")
    if rate != LINE:
        return _cut(resample(sound, rate, RATE).clip(-1, 1), FRAME, tail)
    steps = np.rint(_cut(sound, FRAME // RATIO, tail).ravel() * FULL_SCALE)
    return Up().push(steps.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)).reshape(-1, FRAME)


def _cut(sound: NDArray[np.float32], frame: int, tail: float) -> NDArray[np.float32]:
    count = -(-len(sound) // frame) + -(-round(tail * RATE) // FRAME)
    return np.pad(sound, (0, count * frame - len(sound))).reshape(count, frame)


def talk(
    core: Core,
    heard: NDArray[np.float32],
    opening: Opening,
    says: Sequence[Cue] = (),
    injects: Sequence[Cue] = (),
) -> Iterator[list[Event]]:
    """What the core makes of each frame that it hears [n, 1920]; ends early if the core does.

    A say begins before its frame, a context is read behind it. Raises ValueError for an opening, a say or a context
    that the core refuses.
    """
    core.open(SLOT, opening)
    try:
        _finish(core)
        for number, frame in enumerate(heard):
            for id, cue in enumerate(says, 1):
                if cue.frame == number:
                    core.say(SLOT, id, cue.text, False)
            events = [event for _, event in core.collect(core.launch([SLOT], frame[None], [number * FRAME]))]
            for id, cue in enumerate(injects, 1 + len(says)):
                if cue.frame == number:
                    core.inject(SLOT, id, cue.text, "silent", None)
            _finish(core)
            yield events
            if any(isinstance(event, Ended) for event in events):
                return
    finally:
        core.close(SLOT)


def _finish(core: Core) -> None:
    while core.work(SLICE):
        pass
