"""What is judged, as pure functions: levels and beginnings of sound, numbers and times in any spelling, repetitions.

Sound is int16 at 8 kHz here, as the caller's phone has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

RATE = 8000
PIECE = 160  # samples in 20 ms, over which a level is taken
FLOOR = -90.0  # dB of full scale, for nothing at all
AUDIBLE = 200  # of 32768: what the phone calls audible
SILENT = -50.0  # dB of full scale: a piece below that is not heard as a voice
LEVEL_WITHIN = 2 * RATE  # before an interruption, in which the agent's level is taken
DOWN = 12.0  # dB that an agent has to fall by when the caller speaks
DUCKED = 10.0  # dB below its usual level that count as ducked, when it should not be
LASTING = 8  # pieces, 160 ms: in sentences that are even enough the voice itself is seldom softer for so long

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = {word: value for value, word in enumerate(_UNITS + _TEENS)} | {"oh": 0, "o": 0}
TENS = {word: 10 * value for value, word in enumerate(_TENS, start=2)}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
REPEATS = {"double": 2, "triple": 3}
TIMES = {"hundred": 100, "thousand": 1000}
NUMERALS = SMALL.keys() | TENS.keys() | ORDINALS.keys() | REPEATS.keys()


def levels(pcm: Pcm) -> NDArray[np.float64]:
    """The loudness of each 20 ms, in dB of full scale."""
    pieces = pcm[: len(pcm) // PIECE * PIECE].reshape(-1, PIECE).astype(np.float64)
    found: NDArray[np.float64] = np.maximum(FLOOR, 20 * np.log10(np.sqrt(np.mean(pieces**2, axis=1)) / 32768 + 1e-9))
    return found


def first_audible(pcm: Pcm, since: int = 0) -> int | None:
    """The first sample from `since` on that a person could hear."""
    loud = np.flatnonzero(np.abs(pcm[since:].astype(np.int32)) >= AUDIBLE)
    return since + int(loud[0]) if len(loud) else None


def last_audible(pcm: Pcm) -> int | None:
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) >= AUDIBLE)
    return int(loud[-1]) if len(loud) else None


class Yielded(NamedTuple):
    """How an agent gave way. Milliseconds from the caller's first audible sample."""

    level: float
    """Of the agent before, in dB of full scale: that which its loudest twentieth exceeds."""
    down: float
    """From when on it was `DOWN` dB below that, for as long as the caller spoke."""
    gone: float
    """From when on it was not heard at all, for as long as the caller spoke."""


def yielded(heard: Pcm, onset: int, end: int) -> Yielded | None:
    """What the agent did when the caller spoke from `onset` to `end`; None if it had not been talking."""
    before = levels(heard[max(0, onset - LEVEL_WITHIN) : onset])
    before = before[before > SILENT]
    if not len(before):
        return None
    level = float(np.percentile(before, 95))
    after = levels(heard[onset:end])
    return Yielded(level, _until(after > level - DOWN), _until(after > SILENT))


def _until(loud: NDArray[np.bool_]) -> float:
    """Milliseconds to the end of the last piece that is loud."""
    found = np.flatnonzero(loud)
    return 1000 * PIECE / RATE * (int(found[-1]) + 1 if len(found) else 0)


def ducked(heard: Pcm, start: int, end: int, level: float) -> bool:
    """Whether between two samples the agent was softer than its level, for longer than its own words make it.

    Its sentence has to be an even one, without pauses.
    """
    soft = levels(heard[start:end]) < level - DUCKED
    runs = np.convolve(soft, np.ones(LASTING), "valid") if len(soft) >= LASTING else np.zeros(1)
    return bool(runs.max() >= LASTING)


def usual(heard: Pcm) -> float:
    """The level of a voice where it is loud, in dB of full scale; `FLOOR` where there is none."""
    loud = levels(heard)
    loud = loud[loud > SILENT]
    return float(np.percentile(loud, 75)) if len(loud) else FLOOR


ALIKE = {"for": "4", "to": "2", "too": "2", "won": "1", "ate": "8"}
DIGIT_WORDS = ("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def words(text: str) -> list[str]:
    """Lower case, without punctuation; numbers keep their digits, and `7:25` is two words."""
    return re.findall(r"\d+|[a-z]+", re.sub(r"(\d)(?:st|nd|rd|th)\b|['\u2019]", r"\1", text.lower()))


def numbers(text: str) -> list[str]:
    """Every number in a text, in digits, in whatever way it was spelled; those in a row are one, as they are read out.

    `four four one seven`, `44 17`, `forty-four seventeen` and `4,417` are all 4417.
    """
    found: list[str] = []
    row: list[str] = []
    for word in [*_with_digits(words(text)), ""]:
        joins = word in TIMES or (word == "and" and row[-1:] and row[-1] in TIMES)
        if word.isdigit() or word in NUMERALS or (row and joins):
            row.append(word)
        elif row:
            found.append("".join(_spoken(row)))
            row = []
    return [number for number in found if number]


def _with_digits(said: Sequence[str]) -> list[str]:
    """The judge's ear too writes "for" for a four, where single digits are read out; "for four hundred" stays."""
    meant = list(said)
    for at in range(len(meant) - 2, -1, -1):
        follows = meant[at + 1]
        single = (follows.isdigit() and len(follows) == 1) or follows in DIGIT_WORDS
        if meant[at] in ALIKE and single and not (at + 2 < len(meant) and meant[at + 2] in TIMES):
            meant[at] = ALIKE[meant[at]]
    return meant


def _spoken(row: Sequence[str]) -> list[str]:
    """A row of number words, number by number."""
    if any(word in TIMES for word in row):
        return [str(_amount(row))]
    found: list[str] = []
    tens = 0
    again = 1
    for word in row:
        value = _value(word)
        if word in REPEATS:
            again = REPEATS[word]
        elif tens and 0 < value < 10 and not word.isdigit():
            found[-1] = str(tens + value)
            tens = 0
        else:
            found += [word if word.isdigit() else str(value)] * again
            tens, again = (value if word in TENS else 0), 1
    return found


def _amount(row: Sequence[str]) -> int:
    whole = part = 0
    for word in row:
        if word == "hundred":
            part = 100 * (part or 1)
        elif word == "thousand":
            whole, part = 1000 * (part or 1), 0
        else:
            part += _value(word)
    return whole + part


def _value(word: str) -> int:
    if word.isdigit():
        return int(word)
    return SMALL.get(word, TENS.get(word, ORDINALS.get(word, 0)))


def has(text: str, wanted: Iterable[str]) -> bool:
    """Whether one of these words is in it, or one of these numbers in any spelling."""
    said, spelled = set(words(text)), numbers(text)

    def spoken(word: str) -> bool:
        if len(word) == 1 and word.isdigit():  # a single digit is in too many numbers
            return word in spelled
        return any(word in number for number in spelled) if word.isdigit() else word in said

    return any(map(spoken, wanted))


def tells_time(text: str, when: datetime) -> bool:
    """Whether it names this time of day, to a minute, on a clock of 12 or of 24 hours."""
    said = f" {' '.join(_numbered(text))} "
    return any(f" {way} " in said for minutes in (-1, 0, 1) for way in _ways(when + timedelta(minutes=minutes)))


def _numbered(text: str) -> list[str]:
    """Its words, with every number on its own in digits."""
    found: list[str] = []
    row: list[str] = []
    for word in [*words(text), ""]:
        if word in SMALL or word in TENS or word.isdigit():
            row.append(str(int(word)) if word.isdigit() else word)
            continue
        found += _spoken(row)
        row = []
        found.append(word)
    return found


def _ways(when: datetime) -> set[str]:
    """How one says this minute."""
    ways = set()
    for hour, following in ((when.hour, when.hour + 1), ((when.hour - 1) % 12 + 1, when.hour % 12 + 1)):
        minute, left = when.minute, 60 - when.minute
        ways |= {f"{hour} {minute}", f"{minute} past {hour}", f"{minute} minutes past {hour}"}
        ways |= {f"{left} to {following}", f"{left} minutes to {following}"}
        if minute < 10:
            ways.add(f"{hour} 0 {minute}")
        match minute:
            case 0:
                ways |= {f"{hour} {half}" for half in ("oclock", "am", "pm", "a m", "p m")}
            case 15:
                ways.add(f"quarter past {hour}")
            case 30:
                ways.add(f"half past {hour}")
            case 45:
                ways.add(f"quarter to {following}")
    return ways


def alike(text: str, other: str) -> float:
    """The share of the words of the shorter text that the other has too, in the same order."""
    ours, theirs = words(text), words(other)
    same = sum(block.size for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks())
    return same / max(1, min(len(ours), len(theirs)))


def goes_on(heard: str, old: str, run: int = 4) -> bool:
    """Whether what was heard has so many words in a row of an older text."""
    ours, theirs = words(heard), words(old)
    return SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match().size >= run


def to_the_end(heard: str, text: str) -> bool:
    """Whether the end of a text was heard: half of its last six words are among the last words heard."""
    last, tail = words(text)[-6:], set(words(heard)[-12:])
    return sum(word in tail for word in last) * 2 >= len(last)


def longest_silence(heard: Pcm) -> float:
    """Milliseconds of the longest stretch between sounds in which there is nothing to hear."""
    loud = np.flatnonzero(levels(heard) > SILENT)
    return float(np.diff(loud).max() - 1) * 1000 * PIECE / RATE if len(loud) > 1 else 0.0
