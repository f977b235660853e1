"""Writes down what is worth remembering, and joins it to what is known: merged, superseded, hung on."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .about import PLACES, SEASONS, TIMES, introduces, names_in, owners
from .embed import Embedder
from .english import RELATIONS, STOP_WORDS, content_words, listed, stem, words
from .kinds import Link, Memory, new_id
from .notice import Noted, correction, keep, notice
from .store import Store

NEAR = 20  # memories that are looked at for a merge: those of the same thing share its rare words
SAME = 0.97  # cosine above which two sentences with the same numbers and names say the same
MORE = 2  # words that a repetition may add and still be one
ENOUGH = 3  # words that make a sentence the same without a look at its vector
TOPIC = 2  # words that two sentences must share to be of one thing without saying so
LINKS = 3  # memories that one may hang on: more would crowd out what was asked for
RECENT = 20  # memories among which those of a call are looked for: what was just said is meant

_DENIES = re.compile(r"(?i)\b(?:not|never|no|nothing|\w+n't|cannot)\b")
_CHANGES = re.compile(
    r"(?i)\b(?:now|nowadays|new|changed?|moved?|switched|instead|no longer|any ?more|another|postponed|put (?:off|back)"
    r"|put forward|rescheduled|rebooked|corrected|from now on|after all|renamed|replaced)\b"
)
_OF_CHANGE = frozenset(
    stem(word)
    for word in listed("""
    nowadays new change move switch instead long more anymore another postpone put back forward reschedule rebook
    correct rename replace old week month weekend book day buy
    """)
)
_OF_TIME = frozenset(stem(word) for word in TIMES - SEASONS)


class Scribe:
    """Keeps what callers say. Not for two threads at a time, as its store is not."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    def write(self, caller: str, call: str, text: str, now: float) -> list[Memory]:
        """Keep what an utterance tells; what is new is on the disk when this returns."""
        if (meant := correction(text)) and (corrected := self._correct(caller, call, *meant, now)):
            return corrected
        return [memory for one in notice(text) if (memory := self._keep(caller, call, one, now))]

    def remember(self, caller: str, call: str, text: str, now: float) -> list[Memory]:
        """Keep what an engine asks to keep, unless it is an order, or was kept when the caller said it in this call."""
        one = keep(text)
        if not one or self._known(one, self._of_call(caller, call), enough=1):
            return []
        told = notice(text)  # by sentences, as they are kept of a caller's words
        words_told = {word for each in told for word in content_words(each.text)}
        if len(told) < 2 or not words_told.issuperset(content_words(one.text)):
            told = [one]
        return [memory for each in told if (memory := self._keep(caller, call, each, now))]

    def _keep(self, caller: str, call: str, noted: Noted, now: float) -> Memory | None:
        about = noted.entities.about
        of_it = self._store.about(caller, about) if about else []
        near = self._near(caller, content_words(noted.text))
        if self._known(noted, [*of_it, *near]):
            return None
        void = [old for old in of_it if _flat(old.entities.value) != _flat(noted.entities.value)]
        void = void or [old for old in near if old not in of_it and _replaces(noted, old)]
        if len(void) > 1 and not of_it:
            void = []  # it could be any of them
        memory = _memory(caller, call, noted, now)
        return self._add(memory, void, self._introduced(caller, noted))

    def _of_call(self, caller: str, call: str) -> list[Memory]:
        """What was kept of a call of late, the last first."""
        return [memory for memory in self._store.page(caller, RECENT) if memory.source_call == call]

    def _near(self, caller: str, wanted: Sequence[str]) -> list[Memory]:
        return self._store.get(id for id, _ in self._store.search(caller, wanted, NEAR))

    def _add(self, memory: Memory, void: Sequence[Memory], hung: Sequence[Memory]) -> Memory:
        links = [Link(memory.id, old.id, "supersedes") for old in void]
        links += [Link(memory.id, old.id, "hangs_on") for old in hung if old not in void]
        self._store.add([(memory, self._embedder.embed([memory.text])[0])], links)
        return memory

    def _known(self, noted: Noted, known: Sequence[Memory], enough: int = ENOUGH) -> bool:
        """Whether one of these says the same already. With `enough` words it may be a part of one."""
        told = content_words(noted.text)
        alike = []
        for old in known:
            if bool(_DENIES.search(noted.text)) != bool(_DENIES.search(old.text)):
                continue
            added = set(told) - set(content_words(old.text))
            new, was = noted.entities, old.entities
            same_thing = new.about != "" and new.about == was.about
            if same_thing and _flat(new.value) != _flat(was.value):
                continue
            if not same_thing and _placed(noted) != _placed(old):  # "on the shed" and "in the shed"
                continue
            if (same_thing and len(added) <= MORE) or (not added and len(told) >= enough):
                return True
            if _exact(noted.text) == _exact(old.text):
                alike.append(old.text)
        if not alike:
            return False
        vectors = self._embedder.embed([noted.text, *alike])
        return bool(np.max(vectors[1:] @ vectors[0]) >= SAME)

    def _introduced(self, caller: str, noted: Noted) -> list[Memory]:
        """Earlier memories that say who somebody is of whom this one speaks by name, or by relation only."""
        hung: list[Memory] = []
        first = noted.text.split(" ", 1)[0].removesuffix("'s")
        for name in dict.fromkeys([*names_in(noted.text), first]):
            told_here = name.isupper() or name.lower() in STOP_WORDS or any(introduces(noted.text, name))
            if not told_here:  # all in capitals it is "GP" or "MOT"
                hung += [old for old in self._near(caller, words(name)) if any(introduces(old.text, name))][:1]
        for relation in RELATIONS & set(re.findall(r"\b(?:my|our) ([\w-]+)", noted.text.lower())):
            if not any(relation in introduces(noted.text, name) for name in names_in(noted.text)):
                told = [old for old in self._near(caller, [relation]) if _says_who(old, relation)]
                hung += told if len(told) == 1 else []
        return list({old.id: old for old in hung}.values())[:LINKS]

    def _correct(self, caller: str, call: str, right: str, wrong: str, now: float) -> list[Memory]:
        """The last memory of this call in which the wrong word stands, told anew with the right one."""
        for old in self._of_call(caller, call):
            text, changed = re.subn(rf"(?i)\b{re.escape(wrong)}\b", lambda _: right, old.text)
            if not changed:  # "four four one seven" was said, and "4417" meant
                said, bad = " ".join(words(old.text)), " ".join(words(wrong))
                text, changed = re.subn(rf"\b{re.escape(bad)}\b", lambda _: " ".join(words(right)), said)
            noted = keep(text) if changed else None
            if noted:
                return [self._add(_memory(caller, call, noted, now), [old], [])]
        return []


def _memory(caller: str, call: str, noted: Noted, now: float) -> Memory:
    return Memory(
        id=new_id(now),
        caller=caller,
        text=noted.text,
        timestamp=now,
        entities=noted.entities,
        emotions=noted.emotions,
        importance=noted.importance,
        source_call=call,
    )


def _says_who(memory: Memory, relation: str) -> bool:
    known = memory.entities
    return known.kind == "person" and known.about in (f"{relation} name", f"{relation} {known.value.lower()}")


def _placed(told: Noted | Memory) -> frozenset[str]:
    return PLACES.intersection(words(told.text))


def _flat(value: str) -> str:
    return " ".join(words(value))


def _exact(text: str) -> tuple[list[str], list[str]]:
    """The numbers and names of a text: where they differ, it says something else."""
    return sorted(word for word in words(text) if word[0].isdigit()), sorted(names_in(text))


def _replaces(noted: Noted, old: Memory) -> bool:
    """Whether a sentence is of the same thing as an older one, in other words and with another value.

    Of the same people's same thing, with a value of the same sort: and either every word about it is the same, or it
    says that something has changed and adds no word, or leaves none out.
    """
    if owners(noted.text) != owners(old.text) or _sorts(noted.text) != _sorts(old.text) or not any(_sorts(old.text)):
        return False
    if _exact(noted.text) == _exact(old.text) or (noted.entities.about and old.entities.about):
        return False
    topic, before = _topic(noted.text), _topic(old.text)
    if min(len(topic), len(before)) < TOPIC:
        return False
    if _CHANGES.search(noted.text):
        return topic <= before or before <= topic
    return topic == before and re.match(r"(?i)(?:my|our|the)\b", noted.text) is not None


def _sorts(text: str) -> tuple[bool, bool, bool]:
    """Whether there are numbers, times and names in it."""
    said = words(text)
    timed = any(word in TIMES or re.match(r"\d+(?:st|nd|rd|th)$", word) for word in said)
    return any(word.isdecimal() for word in said), timed, bool(names_in(text))


def _topic(text: str) -> frozenset[str]:
    """The words that say of what a text speaks: no numbers, names and times, and not that it has changed."""
    named = {stem(word) for name in names_in(text) for word in words(name)}
    told = content_words(text)
    return frozenset(word for word in told if not word[0].isdigit() and word not in named | _OF_CHANGE | _OF_TIME)
