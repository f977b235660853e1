"""What the caller told: which note answers a question, and which takes another's place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .alike import VOWELS, alike, sounds
from .base import Talk
from .english import listed
from .numbers import VALUES

MOST = 100  # notes of a call: nobody dictates more, and each question goes through them all
FACTS = 60  # the latest of what memory gave that are looked at, for the same reason
SURE = 0.62  # a note that agrees so well with a question is its answer
MAYBE = 0.5  # or perhaps it is, and is offered as such
CLEAR = 0.08  # by how much a perhaps must be better than what comes next
WORD = 0.57  # words that sound less alike than this are different words
FRESH = 0.05  # what a note of this call is preferred by
FITS = 0.05  # and one with a place in it, where a place is asked for
UNFIT = 0.65  # what is left of one without
DOUBT = 0.8  # what counts of the likeness of short words that are not so alike
SHORT = 3  # sounds of a word that many others are like
ALONE = 0.72  # how much a word must sound like such a one, or like the only one asked for
BEGINNING = 2  # words of a note without a verb that may be what it speaks of
LONG_ENOUGH = 5  # sounds that such words must have: few agree by chance
JOINED = 0.72  # how much words must sound alike that are compared as one
COMMON = 0.5  # the weight of a word that many things have, like "number"

_STOP = frozenset(
    listed("""
        a about again all also am an and any are aren't as at be been being but by can could did do does don't for from
        had has have he her here him his how i i'd i'll i'm i've if in is isn't it it's its just know let like me mine
        more much many my myself no not now of off oh ok okay on or our please remember remembered said say
        should so some still tell that that's the their them then there these they this those to too um up us very
        was we we're well were what what's when when's where where's which who who's whose why will with would you
        you're your think thing again exactly got give forgotten forgot ever yes hello hi
    """)
)
_COMMON = frozenset(
    listed("""
        name number code color size type kind time day date place line favorite
    """)
)
_SAME = {"colour": "color", "favourite": "favorite", "mum": "mother", "dad": "father", "telephone": "phone"}
_SAME |= {"called": "name", "named": "name"}
_VERB = re.compile(
    r"(?i)(?<=\s)(?:is|are|was|were|be|has|have|had|means|lives?|works?|leaves?|starts?|begins?|ends?|opens?|closes?|goes"
    r"|comes?|arrives?|costs?|needs?|likes?|loves?|hates?|drives?|wants?)(?=\s)"
    r"|(?<=\w)'s(?= (?:called|parked|on|in|at)\b)"
)
_OTHER_WAY = re.compile(r"(?i)^(?P<value>[\w' ]{1,40}?) (?:is|are|was) (?P<subject>(?:my|our) [\w' ]+)$")
_I_DO = re.compile(r"(?i)^(?:i|we) (?:have )?(?P<verb>live|work|park|left|put|was born|was|moved|go|stay)(?:ed|d|s)?\b")
_PLACE = re.compile(r"(?i)\b(?:in|on|at|under|behind|beside|by|near|next to|inside|above|below|level|street|road)\b")
_TIME = re.compile(
    r"(?i)\b(?:\w+day|tomorrow|today|o'clock|past|quarter|noon|midnight|morning|evening|afternoon|january|february"
    r"|march|april|may|june|july|august|september|october|november|december|at \w+)\b"
)
_COUNT = re.compile(r"(?i)\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|no|\w+teen|\w+ty)\b")
_CALLED = re.compile(r"\b(?:called|named|name)\b|\b(?:is|was|are) [A-Z]|^(?!My|Our)[A-Z][\w' ]* is (?:my|our)\b")
_IS_SOMEBODY = re.compile(r"\b(?:is|was|are) [A-Z]|^(?!My|Our|The)[A-Z][\w' ]* is (?:my|our)\b")
_FIT = {"where": _PLACE, "when": _TIME, "how": _COUNT, "who": _CALLED}
_QUOTED = re.compile(r'"([^"]+)"')
PEOPLE = frozenset(
    listed("""
        sister brother mother father wife husband partner girlfriend boyfriend son daughter child baby aunt uncle niece
        nephew cousin grandmother grandfather grandma grandpa friend boss neighbour neighbor colleague landlord
        landlady doctor dentist vet lawyer teacher nurse accountant plumber cleaner manager dog cat horse
    """)
)
"""Whoever has one may have another, of whom something else is true; and no two of them are the same misheard."""


class Found(NamedTuple):
    text: str
    sure: bool


@dataclass(frozen=True)
class _Read:
    """A note, read: what it speaks of and all its words, by their stems."""

    subject: tuple[str, ...]
    words: tuple[str, ...]
    head: tuple[str, ...]
    """What it begins with, before a verb if there is one, word for word."""


def keys(text: str) -> tuple[str, ...]:
    """The words of a text that carry something, by their stems."""
    return tuple(dict.fromkeys(map(stem, _content(text))))


def _content(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower()) if word not in _STOP)


def stem(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("'")
    word = _SAME.get(word, word)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def keep(talk: Talk, note: str) -> None:
    """Add it; what was noted of the same thing before goes, and what the note only goes on with."""
    thing, begun = _thing(note), note.rstrip(".").lower()
    old = [one for one in talk.notes if _thing(one) != thing and not begun.startswith(one.rstrip(".").lower())]
    talk.notes[:] = [*old[-(MOST - 1) :], note]


def known(talk: Talk) -> list[str]:
    """All that the caller told, in calls before and in this one, the latest last, the latest of each thing."""
    told = [fact for text in talk.facts[-FACTS:] for fact in _QUOTED.findall(text)][-FACTS:]
    found: dict[tuple[str, ...], str] = {}
    for one in [*told, *talk.notes]:
        thing = _thing(one)
        found.pop(thing, None)
        found[thing] = one
    return list(found.values())


def find(talk: Talk, question: str, kind: str = "") -> Found | None:
    """What answers a question about `kind` ("where", "when", "who", "how"), if anything does."""
    asked = _Asked(keys(question), _content(question), kind)
    if not asked.keys:
        return None
    scored: list[tuple[float, str]] = []
    fresh = set(talk.notes)
    for text in known(talk):
        score = asked.score(text, _read(text))
        if kind in _FIT:
            score = score + FITS if _FIT[kind].search(text) else score * UNFIT
        elif _sort(_parts(text)[1]) == "place":
            score -= FITS
        score += FRESH * (text in fresh)
        if score >= MAYBE:
            scored.append((score, text))
    if not scored:
        return None
    best, answer = max(reversed(scored), key=lambda one: one[0])
    if best >= SURE:
        return Found(answer, True)
    others = any(score > best - CLEAR and text != answer for score, text in scored)
    return None if others else Found(answer, False)


def _parts(text: str) -> tuple[str, str]:
    """What a note speaks of, and what it says of it; the former is empty if no verb tells."""
    text = text.rstrip(" .!?")
    if (found := _OTHER_WAY.match(text)) and not re.match(r"(?i)(?:my|our|i|it|that|this)\b", text):
        return found["subject"], found["value"]
    if found := _VERB.search(text):
        return text[: found.start()].strip(), text[found.end() :].strip()
    return "", text


def _read(text: str) -> _Read:
    subject, _ = _parts(text)
    return _Read(keys(subject), keys(text), _content(subject or text))


def _weight(word: str) -> float:
    return COMMON if word in _COMMON else 1.0


class _Asked:
    """What is asked for, compared with one note after another."""

    def __init__(self, wanted: tuple[str, ...], said: tuple[str, ...], kind: str) -> None:
        self.keys = wanted
        self._said = said
        self._kind = kind
        self._weight = sum(map(_weight, wanted))
        self._sounds: dict[str, str] = {}
        self._likeness: dict[tuple[str, str], float] = {}

    def score(self, text: str, note: _Read) -> float:
        """How well a note answers: 0 to 1, with 0 for what speaks of somebody else."""
        if self.keys == ("name",) and note.subject != self.keys:
            return 0.0
        if self._kind == "who" and all(word in note.words and word not in note.subject for word in self.keys):
            return SURE
        if self._of_another(note) and not re.search(r"\band I\b|\bI and\b", text):
            return 0.0
        nameless = "name" in self.keys and "name" not in note.words and not _IS_SOMEBODY.search(text)
        return max(self._by_words(note), self._joined(note)) * (UNFIT if nameless else 1)

    def _of_another(self, note: _Read) -> bool:
        """Whether the note, or the question, is of somebody of whom the other is not."""
        about = note.subject or note.words
        least = DOUBT * WORD if note.subject else 1.0
        theirs = any(word in PEOPLE and not self._agree(word, self.keys, ALONE) for word in note.subject)
        return theirs or any(word in PEOPLE and not self._agree(word, about, least) for word in self.keys)

    def _by_words(self, note: _Read) -> float:
        """How many of the words asked for are in the note, and how much of what it speaks of was asked for."""
        left = [word for word in note.subject or note.words[:BEGINNING] if word not in self.keys]
        covered = meant = 0.0
        for word in self.keys:
            if word in note.words:
                covered += _weight(word)
                meant += _weight(word) * (word in note.subject)
            elif left:
                likeness, other = max((self._alike(word, one), one) for one in left)
                if likeness >= (ALONE if len(self.keys) == 1 else DOUBT * WORD):
                    covered += _weight(word) * likeness
                    meant += _weight(other) * likeness
                    left.remove(other)
        covered /= self._weight
        if not note.subject:
            return covered
        return covered * (0.5 + 0.5 * meant / sum(map(_weight, note.subject)))

    def _joined(self, note: _Read) -> float:
        """The same for words that the ear joined or cut: those that differ are compared as one, by their sound."""
        ours = [word for word in self._said if stem(word) not in note.words]
        theirs = [word for word in note.head if stem(word) not in self.keys]
        if not ours or not theirs or len(ours) == len(theirs) == 1:
            return 0.0
        heard, told = sounds("".join(ours)), sounds("".join(theirs))
        consonants = set(heard) - VOWELS
        if len(heard) < LONG_ENOUGH or 2 * len(consonants & set(told)) < len(consonants):  # the latter saves time
            return 0.0
        likeness = alike(heard, told if note.subject else told[: len(heard) + 2], beginning=not note.subject)
        if likeness < JOINED:
            return 0.0
        differing = sum(_weight(stem(word)) for word in ours) / self._weight
        return 1 - min(1.0, differing) * (1 - likeness)

    def _agree(self, word: str, others: Sequence[str], least: float) -> bool:
        """Whether a word is among the others, or sounds like one of them."""
        return word in others or any(self._alike(word, other) >= least for other in others)

    def _alike(self, word: str, other: str) -> float:
        if (word in PEOPLE and other in PEOPLE) or word[0].isdigit() or other[0].isdigit() or other in VALUES:
            return 0.0
        if (known_already := self._likeness.get((word, other))) is not None:
            return known_already
        for one in (word, other):
            if one not in self._sounds:
                self._sounds[one] = sounds(one)
        ours, theirs = self._sounds[word], self._sounds[other]
        likeness = alike(ours, theirs)
        if likeness < ALONE and (len(ours) <= SHORT or word in _COMMON or other in _COMMON):
            likeness *= DOUBT * (likeness >= WORD)
        elif likeness < WORD:
            likeness = 0.0
        self._likeness[word, other] = likeness
        return self._likeness[word, other]


def _thing(text: str) -> tuple[str, ...]:
    """What two notes have in common if the later one says anew what the former said."""
    about, value = _parts(text)
    subject, sort = sorted(keys(about)), _sort(value)
    if subject and not (sort == "value" and subject[-1] in PEOPLE and len(subject) == 1):
        return (sort, *subject)
    if found := _I_DO.match(text):
        return ("i", found["verb"].lower())
    return (text.rstrip(".").lower(),)


def _sort(value: str) -> str:
    """What is said of a thing: its place or time, its name, or anything else."""
    if re.match(r"(?i)(?:parked |now |just )*(?:in|on|at|under|behind|beside|by|near|next)\b", value):
        return "place"
    return "name" if re.match(r"(?i)(?:called|named)\b", value) else "value"
