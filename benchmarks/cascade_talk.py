"""Conversations, judged by what the caller heard: a script of thirteen turns, and things to remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import cascade_checks as checks
from cascade_calls import Result, serving, together
from cascade_judge import Judge
from cascade_sets import BETWEEN, THINGS, Thing, shuffled
from cascade_sounds import CLEAR, HUMAN, say, voices
from cascade_turns import CALLS, Talk, hold
from figures import Row

LISTENS = 0.8  # seconds of silence after which the next line of a script is spoken
RIGHT, RIGHT_NOISY = 10, 8  # turns of a conversation
VOICES = 3  # of those that are closest to people, for which that must be so
NOISY = ("white", "wide", "pink")
LINES = {
    "clean": "a good line",
    "white": "white noise 10 dB down",
    "wide": "white noise 10 dB down in 12 kHz, 15 dB in the line's band",
    "pink": "pink noise 10 dB down",
    "babble": "other voices 10 dB down",
}
AT_ONCE = 5


class Answer(NamedTuple):
    text: str
    before: str
    """The answer before."""
    at: datetime
    hung_up: bool


LOST_IT = (
    "i did not understand",
    "i didnt understand",
    "did not catch",
    "didnt catch",
    "say that again",
    "i do not know",
    "i dont know",
    "i have no note",
)


def _sure(answer: Answer) -> bool:
    """Whether there is an answer, and not one that it did not understand or does not know."""
    text = " ".join(checks.words(answer.text))
    return bool(text) and not any(phrase in text for phrase in LOST_IT)


def _says(*wanted: str) -> Callable[[Answer], bool]:
    return lambda answer: checks.has(answer.text, wanted)


def _kept(*wanted: str) -> Callable[[Answer], bool]:
    """Says that it keeps something, or says it back."""
    notes = ("remember", "note", "noted", "keep", "kept", "written", "wrote", "got")
    return lambda answer: _sure(answer) and checks.has(answer.text, (*wanted, *notes))


ANNA = ("anna", "ana", "hannah", "hanna", "annas")  # as the ear may write it
WAYS = ("gpu", "g", "graphics", "card", "nvidia", "apple", "mac", "memory", "gigabyte", "gigabytes", "install", "setup")
SELF = ("program", "computer", "machine", "bridge", "assistant", "notebook", "software", "voice", "robot", "agent")
SCRIPT: tuple[tuple[str, Callable[[Answer], bool]], ...] = (
    ("Hello.", _sure),
    ("What are you?", _says(*SELF)),
    ("Remember that my gate code is four four one seven.", _kept("4417")),
    ("What is my gate code?", _says("4417")),
    ("My sister is called Anna.", lambda answer: _sure(answer) or checks.has(answer.text, ANNA)),
    ("What is my sister's name?", _says(*ANNA)),
    ("What time is it?", lambda answer: checks.tells_time(answer.text, answer.at)),
    ("What day is it?", lambda answer: checks.has(answer.text, (f"{answer.at:%A}".lower(),))),
    ("Remember that the dentist is on Friday.", _kept("friday", "dentist")),
    ("When is the dentist?", _says("friday")),
    ("How do I get Moshi?", _says(*WAYS)),
    ("Can you repeat that?", lambda answer: checks.alike(answer.before, answer.text) >= 0.6),
    ("Thank you, goodbye.", lambda answer: checks.has(answer.text, ("goodbye", "bye")) and answer.hung_up),
)


def _calls(share: float) -> list[Talk]:
    """Whom the script is spoken by, and on which lines; some of them without a limit."""
    human = [voice for voice in voices() if voice in HUMAN]
    if share < 1:
        return [Talk(voice, kind) for voice in (human if share >= 0.5 else human[:1]) for kind in ("clean", "pink")]
    held = [Talk(voice, kind) for voice in human for kind in ("clean", *NOISY)]
    others = [Talk(voice) for voice in voices() if voice not in HUMAN]
    return [*held, *others, Talk("rms", "babble")]


async def talk(engine: str, share: float) -> Result:
    """How many turns of a whole conversation are right, with every voice, on a good line and on noisy ones."""
    talks = _calls(share)
    scripts = [[say(text, one.voice) for text, _ in SCRIPT] for one in talks]
    async with serving(engine) as bridge:
        calls = [hold(bridge, n, one, scripts[n], f"talk {n}", (LISTENS, LISTENS)) for n, one in enumerate(talks)]
        wrong = await together(calls, AT_ONCE)
        wrong += bridge.complaints()
    judge = Judge()
    result = Result("talk", [], wrong)
    right = {(one.voice, one.kind): _judge_talk(one, judge, result) for one in talks}
    for kind in ("clean", *NOISY):
        limit = RIGHT if kind == "clean" else RIGHT_NOISY
        tried = [count for (voice, its), count in right.items() if its == kind and voice in HUMAN]
        good = sum(count >= limit for count in tried)
        what = f"voices with {limit} of {len(SCRIPT)} turns right, of {len(tried)}, {LINES[kind]}"
        result.rows.append(Row(what, str(good), str(VOICES), good >= VOICES if len(tried) >= VOICES else None))
    result.rows += [Row(f"- turns right, {voice}, {LINES[kind]}", str(count)) for (voice, kind), count in right.items()]
    result.rows.append(Row("- calls at once", str(AT_ONCE)))
    return result


def _judge_talk(one: Talk, judge: Judge, result: Result) -> int:
    """How many turns are right; what was heard goes into the result."""
    right, before = 0, ""
    heard = []
    for number in range(len(one.said)):
        text = judge(one.heard(number))
        last = number == len(SCRIPT) - 1
        says, check = SCRIPT[number]
        good = check(Answer(text, before, one.at[number], one.hung_up and last))
        right += good
        heard.append({"said": says, "heard": text, "right": good})
        if not good:
            result.wrong.append(
                f"{one.voice}, {one.kind}: {says!r} heard {text!r}{' and no hanging up' * (last and not one.hung_up)}"
            )
        before = text
    if len(one.said) < len(SCRIPT):
        result.wrong.append(f"{one.voice}, {one.kind}: over after {len(one.said)} turns")
    result.found[f"{one.voice}, {one.kind}"] = heard
    return right


async def remember(engine: str, share: float, memory: bool = False) -> Result:
    """How many things are remembered in eight calls at once, with other talk between."""
    chosen = THINGS[: max(1, round(len(THINGS) * share))]
    shares = [list(chosen[n::CALLS]) for n in range(CALLS) if chosen[n::CALLS]]
    scripts = [_told_and_asked(things, n) for n, things in enumerate(shares)]
    clear = [voice for voice in voices() if voice in CLEAR]
    talks = [Talk(clear[n % len(clear)]) for n in range(len(shares))]
    spoken = [[say(text, one.voice) for text, _ in script] for one, script in zip(talks, scripts, strict=True)]
    async with serving(engine, memory=memory) as bridge:
        calls = [
            hold(bridge, n, one, says, f"remember {n}") for n, (one, says) in enumerate(zip(talks, spoken, strict=True))
        ]
        wrong = await together(calls, CALLS)
    judge, right = Judge(), 0
    for one, script in zip(talks, scripts, strict=True):
        heard = [judge(one.heard(number)) for number in range(len(one.said))]
        for (_, thing), text in zip(script, heard, strict=False):
            if thing is None:
                continue
            good = checks.has(text, thing.wanted)
            right += good
            if not good:
                noted = heard[[told for told, _ in script].index(thing.told)]
                wrong.append(f"{one.voice}: {thing.told!r} heard {noted!r}; {thing.asked!r} heard {text!r}")
    rows = [
        Row(
            f"remembered in {len(shares)} calls at once ({', '.join(clear)}), of {len(chosen)}",
            str(right),
            str(len(chosen)),
            right == len(chosen),
        )
    ]
    return Result("remember", rows, wrong, {"right": right})


def _told_and_asked(things: Sequence[Thing], number: int) -> list[tuple[str, Thing | None]]:
    """All are told, then all asked for in another order, other talk after each; what is asked for comes along."""
    talk = iter(shuffled(BETWEEN, f"between {number}"))
    script: list[tuple[str, Thing | None]] = []
    for thing in things:
        script += [(thing.told, None), (next(talk), None)]
    for thing in reversed(things):
        script += [(thing.asked, thing), (next(talk), None)]
    return script
