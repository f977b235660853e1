"""Mouth to ear, to the sample: each sound that the caller made is looked for in what the caller heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .protocol import RATE
from .sound import Pcm

FURTHEST = 3.0  # seconds: an echo later than this is no conversation, and the test signal repeats after four
ALIKE = 0.5  # correlation from which two sounds are the same; mu-law twice and a telephone filter leave over 0.9
BLOCK = RATE // 100  # 10 ms, in which loudness is judged
LOUD = 300  # RMS of 32768 (-41 dBFS): above the noise of a quiet room
JOINED = 0.10  # seconds: a shorter pause does not part two sounds
LONGEST = 0.5  # seconds: longer sounds are cut, so that a change of the delay within them shows
SHORTEST = 0.03  # seconds: less than that is a click and could be anything
AT_FIRST = 5.0  # seconds: "at first" in a report
SETTLED = 10.0  # seconds: after these a call counts as steady


@dataclass(frozen=True)
class Echo:
    """A sound of the caller: when it began (in samples), how long it was, and how much later it was heard."""

    at: int
    length: int
    delay: int | None  # in samples; None where it never came back

    @property
    def delay_ms(self) -> float | None:
        return None if self.delay is None else self.delay * 1000 / RATE


@dataclass(frozen=True)
class Delays:
    """Mouth to ear in milliseconds over some sounds."""

    count: int
    median: float
    p95: float
    least: float
    most: float


def echoes(spoken: Pcm, heard: Pcm, *, since: int = 0) -> list[Echo]:
    """Every sound that was spoken from sample `since` on, and its echo. Both recordings begin at the same moment.

    A sound so near the end that its echo could still be on its way is left out, unless it is already there.
    """
    found = []
    for begins, length in _sounds(spoken[since:]):
        at = since + begins
        delay = _find(spoken[at : at + length], heard[at : at + length + int(FURTHEST * RATE)])
        if delay is not None or at + length + FURTHEST * RATE <= len(heard):
            found.append(Echo(at, length, delay))
    return found


def is_echo(found: Sequence[Echo]) -> bool:
    """Whether the far end says back what it hears: a few chance likenesses in speech are no echo."""
    return sum(echo.delay is not None for echo in found) * 2 > len(found)


def delays(found: Sequence[Echo], begins: float = 0.0, ends: float = np.inf) -> Delays | None:
    """Statistics over the sounds spoken between two times, in seconds; None when none came back."""
    values = [e.delay_ms for e in found if e.delay_ms is not None and begins <= e.at / RATE < ends]
    if not values:
        return None
    return Delays(len(values), float(np.median(values)), float(np.percentile(values, 95)), min(values), max(values))


def _sounds(pcm: Pcm) -> list[tuple[int, int]]:
    """Where something is to be heard: (first sample, length)."""
    blocks = pcm[: len(pcm) // BLOCK * BLOCK].astype(np.float64).reshape(-1, BLOCK)
    loud = np.flatnonzero(np.sqrt(np.mean(np.square(blocks), axis=1)) >= LOUD)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > JOINED * RATE / BLOCK)
    begins = loud[np.concatenate(([0], breaks + 1))] * BLOCK
    ends = (loud[np.concatenate((breaks, [-1]))] + 1) * BLOCK
    longest, shortest = int(LONGEST * RATE), int(SHORTEST * RATE)
    return [
        (int(at), int(min(longest, end - at)))
        for begin, end in zip(begins, ends, strict=True)
        for at in range(begin, end, longest)
        if end - at >= shortest
    ]


def _find(sound: Pcm, heard: Pcm) -> int | None:
    """How far into `heard` the sound is, to the sample."""
    if len(heard) < len(sound):
        return None
    template = sound.astype(np.float64) / 32768
    template -= template.mean()
    signal = heard.astype(np.float64) / 32768
    size = 1 << (len(signal) + len(template)).bit_length()
    spectrum = np.fft.rfft(signal, size) * np.conj(np.fft.rfft(template, size))
    product = np.fft.irfft(spectrum, size)[: len(signal) - len(template) + 1]
    energy = np.concatenate(([0.0], np.cumsum(np.square(signal))))
    local = energy[len(template) :] - energy[: -len(template)]
    # An echo may be quieter than the sound, but not so quiet that the noise floor decides.
    floor = len(template) * (LOUD / 4 / 32768) ** 2
    likeness = product / np.sqrt(np.maximum(local, floor) * np.sum(np.square(template)))
    best = int(np.argmax(likeness))
    return best if likeness[best] >= ALIKE else None
