"""Whether words sound alike: what an ear writes down is often another word with nearly the same sounds."""

from __future__ import annotations

import re
from string import ascii_lowercase

# From letters to sounds, roughly and in this order: x is "sh", j is "ch" and "j".
_SOUNDS = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"[^a-z]", ""),
        (r"tion|sion|sh", "x"),
        (r"t?ch|dge", "j"),
        (r"ph|gh(?=$|s)", "f"),
        (r"igh", "i"),
        (r"gh", ""),
        (r"^(?:kn|gn)", "n"),
        (r"^wr", "r"),
        (r"wh", "w"),
        (r"th", "t"),
        (r"ng$", "n"),
        (r"qu", "kw"),
        (r"c(?=[eiy])", "s"),
        (r"ck|c|q", "k"),
        (r"x(?=$)", "x"),
        (r"z", "s"),
        (r"(?<=[bcdfgjklmnprstvwx])y", "i"),
        (r"(?<=[^aeiou])e$", ""),
        (r"([aeiou])[aeiouyw]+", r"\1"),
        (r"(?<=.)h", ""),
        (r"(.)\1+", r"\1"),
    )
)
VOWELS = frozenset("aeiou")
PAIRS = tuple(map(frozenset, ("bp", "bv", "dt", "gk", "fv", "sx", "jx", "mn", "lr")))  # hard to tell on any line
FAMILIES = tuple(map(frozenset, ("bdgkpt", "fhsvxj", "lmnrw")))  # stops, hisses, hums: hard to tell in noise

PAIR, FAMILY, VOWEL = 0.3, 0.6, 0.4  # what one for another costs; anything else costs 1
LIGHT = 0.5  # what a vowel too many or too few costs; a consonant costs 1


def sounds(word: str) -> str:
    """What a word, or several written as one, sounds like, in letters of this module's own."""
    word = word.lower()
    for pattern, sound in _SOUNDS:
        word = pattern.sub(sound, word)
    return word


def alike(ours: str, theirs: str, *, beginning: bool = False) -> float:
    """How much two sounds agree: 1 when they are the same, 0 or less when nothing is.

    With `beginning` it is enough that the other begins like ours.
    """
    if not ours or not theirs:
        return 0.0
    if ours == theirs:
        return 1.0
    longest = len(ours) if beginning else max(len(ours), len(theirs))
    if not beginning and LIGHT * abs(len(ours) - len(theirs)) > longest / 2:
        return 0.0
    row = [0.0]
    for their in theirs:
        row.append(row[-1] + _WEIGHT[their])
    for our in ours:
        weight, instead = _WEIGHT[our], _INSTEAD[our]
        left = row[0] + weight
        now = [left]
        for j, their in enumerate(theirs):
            left = min(row[j + 1] + weight, left + _WEIGHT[their], row[j] + instead[their])
            now.append(left)
        row = now
    return 1 - (min(row) if beginning else row[-1]) / longest


def _instead(ours: str, theirs: str) -> float:
    if ours == theirs:
        return 0.0
    if ours in VOWELS and theirs in VOWELS:
        return VOWEL
    if any(ours in pair and theirs in pair for pair in PAIRS):
        return PAIR
    return FAMILY if any(ours in family and theirs in family for family in FAMILIES) else 1.0


_WEIGHT = {sound: LIGHT if sound in VOWELS else 1.0 for sound in ascii_lowercase}
_INSTEAD = {ours: {theirs: _instead(ours, theirs) for theirs in ascii_lowercase} for ours in ascii_lowercase}
