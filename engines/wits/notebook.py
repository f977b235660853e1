"""Wits without any model: fixed rules that keep notes, say them back, and know the time. Instant, and honest about it.

They work on what a small ear makes of a telephone line: words are often nearly right, numbers come as digits or as
words, marks mean little.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import datetime, timedelta

from ..base import HangUp, Remember
from . import notes, numbers, phrases
from .base import Reply, Talk
from .english import clauses, has_verb, listed, one_of, plain, sentence, turned
from .wants import Kind, Want, left_open, want

GREETING = "Hello, I am a small notebook program. Say: remember that I parked on level three."
AGAIN = "Sorry, I did not catch that. Please say it again."
TELL = "You can say: remember that, and then what it is."
HINT = "I can keep that if you say: remember that."
HELLO = 2  # words with which a call begins and that mean nothing else: a greeting, misheard
ANSWERED = 3  # clauses of a turn: nobody listens to more answers at a time
LONGEST_NOTE = 200  # letters that are kept of one thing, or said back: two sentences
LONGEST_ECHO = 20  # words that are said back: enough to hear whether it was understood
FIRST = 8  # words that the first sentence of an answer may have: the caller waits for all of its sound
TOPIC = 5  # words of what was asked for that are repeated; more is a sentence of its own
SHOWN = 3  # notes that are told when all are asked for
SCRAP = 3  # words that are no sentence unless there is a verb among them
RECENT = 6  # lines within which what can be done is not told again
GOES_ON = 8  # words that may be the missing end of a clause

_EVERYTHING = re.compile(r"(?i)\b(?:everything|all|anything)\b")
_LAST = re.compile(
    r"(?i)\W*"
    + one_of(r"""
        (?:about )?(?:it|that|this|the last (?:one|note|thing)|that note)
        what i (?:just )?(?:said|say|told you)
    """)
    + r"?\W*"
)
_TOPIC = re.compile(
    r"(?i)\b(?P<topic>(?:my|our) [\w' ]+?)(?: (?:again|please|now|then|called|is|was|parked|for|of|to|at|in|on))*\W*$"
)
_AFTERTHOUGHT = re.compile(r"(?i)(?:in|on|at|under|near|behind|next to|with|for|from|of)\b")
_OPEN = ("where", "when", "who")  # of a thing these ask what is not its name
_DOES = re.compile(r"(?i)(?P<verb>do|am) (?P<who>i|we)\b(?P<rest>.*?)\W*$")
_LOWERED = frozenset(
    listed("""
        who what when where how don't do please it that's the a an my your we he she they this that there these those
        today yesterday tomorrow in on at if some
    """)
)


def _here() -> datetime:
    return datetime.now().astimezone()


class Notebook:
    """Keeps what callers ask it to in their `Talk`, and answers from there and from what memory gave."""

    name = "notebook"

    def __init__(self, now: Callable[[], datetime] = _here) -> None:
        """`now` is the local time."""
        self._now = now

    async def greet(self, talk: Talk) -> AsyncGenerator[Reply, None]:
        yield GREETING

    async def answer(self, talk: Talk) -> AsyncGenerator[Reply, None]:
        for reply in self._answer(talk):
            yield numbers.spoken(reply) + " " if isinstance(reply, str) else reply

    async def start(self) -> None: ...

    async def close(self) -> None:
        pass

    def _answer(self, talk: Talk) -> Iterator[Reply]:
        """In whole sentences, with digits as they are written."""
        small: list[phrases.Small] = []
        asked: list[str] = []
        for clause in _heard(talk):
            found, rest = phrases.peel(clause)
            small += found
            if rest and not phrases.senseless(rest):
                asked.append(rest)
        if len(asked) > 1:  # a word by itself among others was hardly one
            asked = [one for one in asked if " " in one or want(one).kind != "statement"]
        if _is_hello(asked, talk):
            asked, small = [], ["hello"]
        for clause in asked[:ANSWERED]:
            yield from self._one(clause, talk)
        if "bye" in small or {"done", "thanks"} <= set(small):
            yield "Goodbye."
            yield HangUp("goodbye")
        elif not asked:
            kind = phrases.weightiest(small)
            yield from [phrases.SMALL_ANSWERS[kind]] if kind else _cut(AGAIN)

    def _one(self, clause: str, talk: Talk) -> Iterator[Reply]:
        said = re.sub(r"[^\w\s'+*/\u00d7-]", "", clause).lower()
        if (result := numbers.reckon(said)) is not None:
            yield f"That is {result}."
            return
        if answer := phrases.fixed(clause):
            yield from _cut(answer)
            return
        wanted = want(clause)
        if wanted.kind == "time":
            yield f"It is {numbers.clock(self._now())}."
        elif wanted.kind == "date":
            yield self._date(wanted.what.lower())
        else:
            yield from _ANSWERS[wanted.kind](wanted, talk)

    def _date(self, asked: str) -> str:
        today = self._now()
        if "year" in asked:
            return f"It is {today.year}."
        if "month" in asked:
            return f"It is {numbers.MONTHS[today.month - 1]}."
        if "morrow" in asked:
            return f"Tomorrow is {numbers.day(today + timedelta(days=1))}."
        if "yesterday" in asked:
            return f"Yesterday was {numbers.day(today - timedelta(days=1))}."
        return f"Today is {numbers.day(today)}."


def _heard(talk: Talk) -> list[str]:
    """The clauses of the caller's turn. What was left open, even a turn before, goes on: "my code is", "4417"."""
    lines = [line.text for line in talk.lines if line.speaker == "caller"][-2:]
    if not lines:
        return []
    *before, now = (clauses(plain(text)) for text in lines)
    parts = [*(before[0][-1:] if before else []), *now]
    joined: list[str] = []
    for part in parts:
        if joined and (whole := _one_thing(joined[-1], part)):
            joined[-1] = whole
        else:
            joined.append(part)
    return joined[1:] if before and joined and before[0] and joined[0] == before[0][-1] else joined


def _one_thing(begun: str, end: str) -> str:
    """Both as one clause, where the one needs the other; else empty."""
    begun, end = phrases.peel(begun)[1], re.sub(r"(?i)^(?:(?:um|uh|so|yes|okay|ok|it is|it's)\b[, ]*)+", "", end)
    if end.endswith("?") or not 0 < len(end.split()) <= GOES_ON or not phrases.peel(end)[1] or phrases.fixed(end):
        return ""
    if left_open(begun):
        goes_on = want(end).kind in ("fact", "statement", "name")
    else:
        goes_on = want(begun).kind in ("remember", "fact") and _afterthought(end)
    return f"{begun.rstrip(' .,?!')} {end}" if goes_on else ""


def _afterthought(end: str) -> bool:
    """Whether it cannot stand by itself: a place, or more of a number."""
    digits = numbers.figures(f"number {end}").removeprefix("number ").rstrip(".").isdecimal()
    return digits or (bool(_AFTERTHOUGHT.match(end)) and not has_verb(end))


def _cut(text: str) -> list[str]:
    """Its sentences one by one, so that the first is spoken at once."""
    return re.split(r"(?<=[.?!]) ", text)


def _note(said: str) -> str:
    """What is kept of what was said: without what surrounds it, and with its digits as digits."""
    said = re.sub(r"(?i)^((?:my|our|the) [\w' ]+?),? (?:it's|it is|that's|that is) ", r"\1 is ", said[:LONGEST_NOTE])
    said = re.sub(r"(?i)(?:[ ,]+(?:please|thank you|thanks|okay|ok|now|for me))+\W*$", "", said)
    return sentence(numbers.figures(said))


def _back(note: str) -> str:
    """What was understood, as it is said back."""
    return sentence(_short(turned(note)))


def _short(text: str) -> str:
    words = text[:LONGEST_NOTE].split()
    return " ".join(words) if len(words) <= LONGEST_ECHO else f"{' '.join(words[:LONGEST_ECHO])}, and so on"


def _as_is(note: str, prefix: str) -> Iterator[str]:
    """A note told back, behind a few words if it is too long to be the first sentence."""
    back = _back(note)
    if len(back.split()) > FIRST:
        yield prefix
    yield back


def _remember(wanted: Want, talk: Talk) -> Iterator[Reply]:
    if not re.search(r"\w", wanted.what):
        yield "Yes, tell me."
        yield TELL
        return
    if left_open(wanted.what):
        yield "Yes, go on."
        return
    note = _note(wanted.what)
    notes.keep(talk, note)
    yield Remember(note)
    yield "I will remember that."
    yield _back(note)


def _fact(wanted: Want, talk: Talk) -> Iterator[Reply]:
    if left_open(wanted.what):
        yield "Yes, go on."
        return
    note = _note(wanted.what)
    notes.keep(talk, note)
    yield "I have noted that."
    yield _back(note)


def _forget(wanted: Want, talk: Talk) -> Iterator[Reply]:
    if _EVERYTHING.search(wanted.what):
        talk.notes.clear()
        yield "I have cleared my notes of this call."
        yield phrases.MEMORY
    elif not talk.notes:
        yield "I have no notes from this call."
    else:
        found = None if _LAST.fullmatch(wanted.what) else notes.find(talk, wanted.what)
        gone = talk.notes[-1] if _LAST.fullmatch(wanted.what) else found.text if found and found.sure else ""
        if gone not in talk.notes:
            yield "I have no such note from this call."
            return
        talk.notes.remove(gone)
        yield "I have taken that note away."
        yield f"It said: {turned(gone)}"


def _overview(_: Want, talk: Talk) -> Iterator[Reply]:
    told = notes.known(talk)[-SHOWN:]
    if not told:
        yield "You have not told me anything yet."
        yield TELL
        return
    yield "This is what you told me."
    yield from map(_back, told)


def _is_hello(asked: list[str], talk: Talk) -> bool:
    """Whether these are the first words of a call, and make no other sense."""
    first = sum(line.speaker == "caller" for line in talk.lines) == 1
    short = 0 < sum(len(clause.split()) for clause in asked) <= HELLO
    return first and short and all(want(one).kind in ("statement", "order") and not phrases.fixed(one) for one in asked)


def _repeat(_: Want, talk: Talk) -> Iterator[Reply]:
    last = next((line.text for line in reversed(talk.lines) if line.speaker == "agent" and line.text.strip()), "")
    yield from _cut(last.strip()) if last else ["I have not said anything yet."]


def _echo(_: Want, talk: Talk) -> Iterator[Reply]:
    said = [line for line in talk.lines[:-1] if line.speaker == "caller" and line.text.strip()]
    if not said:
        yield "That was the first that I heard."
        return
    yield "This is what I heard."
    yield f"You said: {_short(_lowered(numbers.figures(turned(plain(said[-1].text)))))}".rstrip(" .?!") + "."


def _recall(wanted: Want, talk: Talk) -> Iterator[Reply]:
    """What was told about it, or that nothing was and how to tell it."""
    if found := notes.find(talk, wanted.what, wanted.asks):
        if found.sure:
            yield from _as_is(found.text, "I have that.")
        else:
            yield "Perhaps you mean this."
            yield _back(found.text)
        return
    yield from _unknown(wanted)


def _unknown(wanted: Want) -> Iterator[Reply]:
    asks, topic, does = wanted.asks, _TOPIC.search(wanted.what), _DOES.match(wanted.what)
    if topic and len(topic["topic"].split()) <= TOPIC and not has_verb(topic["topic"]):
        thing = topic["topic"]
        be = "are" if re.search(r"[^su']s$", thing) else "is"
        if "called" in wanted.what:
            be, asks = f"{be} called", "what"
        named = asks in _OPEN or "called" in be
        yield f"I do not know {asks} {turned(thing)} {be}." if named else f"I do not know {turned(thing)}."
        yield f"You can say: remember that {thing} {be}, and then the rest."
    elif does and asks != "whether":
        am = " am" if does["verb"].lower() == "am" else ""
        yield f"I do not know {asks} {turned(does['who'] + am + does['rest'])}."
        yield TELL
    elif re.search(r"(?i)\b(?:i|my|me|we|our)\b", wanted.what):
        yield "I do not know that yet."
        yield TELL
    else:
        yield "I cannot answer that, I am sorry."
        yield "I know only what you tell me, the time and the date."


def _statement(wanted: Want, talk: Talk) -> Iterator[Reply]:
    said = turned(_lowered(numbers.figures(wanted.what))).rstrip(" .,;:?!")
    if len(said.split()) <= SCRAP and not has_verb(said):
        yield f"I heard: {said}."
        yield "I do not know what to do with that."
    else:
        yield "I heard you."
        yield f"You said that {_short(said)}."
    if not any(HINT in line.text for line in talk.lines[-RECENT:]):
        yield HINT


def _lowered(text: str) -> str:
    """Without the capital of a sentence, unless it may be a name's."""
    return text[:1].lower() + text[1:] if text.split(" ", 1)[0].lower() in _LOWERED else text


def _named(wanted: Want, talk: Talk) -> Iterator[Reply]:
    notes.keep(talk, f"My name is {wanted.what}.")
    yield f"Hello {wanted.what}."
    yield "I will keep your name for this call."


def _order(_: Want, __: Talk) -> Iterator[Reply]:
    yield "I am sorry, I cannot do that."
    yield "I can only keep notes and tell the time and the date."


_ANSWERS: dict[Kind, Callable[[Want, Talk], Iterator[Reply]]] = {
    "remember": _remember,
    "forget": _forget,
    "overview": _overview,
    "repeat": _repeat,
    "echo": _echo,
    "name": _named,
    "question": _recall,
    "order": _order,
    "fact": _fact,
    "statement": _statement,
}
