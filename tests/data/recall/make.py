"""Makes facts.jsonl and questions.jsonl from topics/*.toml, values.toml and unanswered.toml: run it as a program.

The wording is written by hand in those files. This draws the values, deals the questions out to the callers and fills
every caller up with other facts. No model has a hand in it. The same files give the same set, byte for byte.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = "recall 1"
CALLERS = 30
FACTS = 200  # of every caller
SAME_TOPIC = 4  # unanswerable questions of every caller about things of which its memories speak
GENERAL = 2  # of every caller
SMALL_TALK = 45  # of all callers
INJECTIONS = 15
OTHERS = 2  # people of whom the same is known
FRESH = 300  # days within which the newest value was said, unless the topic says otherwise
LONG_AGO = 700  # days
CHANGED = 0.6  # of the newest values are told as a change
FRAMED = 0.2  # of the facts begin as people begin
POLITE = 0.3  # of the questions have an opening or a closing

PEOPLE = ("sister", "brother", "mum", "dad", "aunt", "cousin", "friend", "neighbour", "colleague")
FRAMES = ("By the way, ", "Just so you know, ", "Oh, and ", "As I said, ", "One more thing, ", "You should know that ")
OPENINGS = (
    "Hello, it's me again. ",
    "Okay, next thing. ",
    "Um, ",
    "Sorry, quick question. ",
    "Oh, and another thing. ",
    "So, ",
    "Listen, ",
)
CLOSINGS = (" Thank you.", " Sorry to ask.", " There's no rush.", " If you don't mind.", " Can you help me there?")
PROPER = re.compile(r"(I|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday)\b")

# Words of grammar: they carry no meaning that two sentences could share.
STOP_WORDS = """
a about after again all also always am an and any anybody anyone anything are as at away back be because been before
being below between both but by can can't come could couldn't did didn't do does doesn't doing don't down each else
ever every few for from further get gets give go goes going gone got had has hasn't have haven't having he he'd he'll
he's her here hers him his how how's i i'd i'll i'm i've if in into is isn't it it's its just know let like made make
many may me might mine more most much must my need needs never no nobody not now of off often on once one only or
other our ours out over own please put rather same say says see shall she she'd she's should so some somebody someone
something sorry still such tell than thank that that's the their them then there there's these they they'd they're
they've thing things this those through till to too told under until up us use used usually very was wasn't we we'd
we'll we're we've well went were what what's when when's where where's which while who who's whom whose why will with
won't would you you'd you're you've your
"""
STOP = frozenset(STOP_WORDS.split())


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)?", text.lower())


def stem(word: str) -> str:
    """Without the endings that grammar brings: tiles, tiled and tile's are tile."""
    word = re.sub(r"'\w+$", "", word)
    for ending, instead in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + instead
    return word


def stems(text: str) -> set[str]:
    """Stems of the words that carry the meaning."""
    return {stem(word) for word in words(text) if word not in STOP}


@dataclass(frozen=True)
class Fact:
    text: str
    topic: str
    attribute: str
    person: str
    values: tuple[str, ...]
    days_ago: int
    supersedes: Fact | None = None


@dataclass
class Family:
    """What one caller may know of one topic. `thread` holds the values of the caller's own, oldest first."""

    thread: list[Fact]
    others: list[Fact]
    near: list[Fact]

    @property
    def facts(self) -> list[Fact]:
        return [*self.thread, *self.others, *self.near]


@dataclass
class Caller:
    name: str
    cast: dict[str, str]
    families: dict[str, Family] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Values:
    """Draws values for one topic of one caller, different ones as long as there are any."""

    def __init__(self, topic: dict[str, Any], lists: dict[str, list[str]], cast: dict[str, str], rng: random.Random):
        self.topic, self.lists, self.cast, self.rng = topic, lists, cast, rng
        self.drawn: dict[str, list[str]] = {}
        self.taken = ""  # the caller's own value, which nobody else may have

    def pool(self, slot: str) -> list[str]:
        source = self.topic[slot]
        if isinstance(source, list):
            return source
        if source == "@date":
            return [f"the {day} of {month}" for day in self.lists["ordinal"] for month in self.lists["month"]]
        if source == "@fullname":
            return [f"{first} {last}" for first in self.lists["first"] for last in self.lists["surname"]]
        if source.startswith("@"):
            return self.lists[source[1:]]
        return [self.pattern(source) for _ in range(20)]

    def pattern(self, source: str) -> str:
        """`#` is a digit, `?` a letter."""
        text = re.sub(r"#", lambda _: self.rng.choice("123456789"), source)
        return re.sub(r"\?", lambda _: self.rng.choice("ABCDEFGHJKLMNPRSTUVWXY"), text)

    def draw(self, slot: str) -> str:
        drawn = self.drawn.setdefault(slot, [])
        pool = self.pool(slot)
        free = [value for value in pool if value not in drawn]
        value = self.rng.choice(free or [value for value in pool if value != self.taken])
        drawn.append(value)
        return value

    def fill(self, template: str, **more: str) -> tuple[str, tuple[str, ...]]:
        """The sentence, and the values in it."""
        slots = dict.fromkeys(re.findall(r"\{([vwu])\}", template))
        values = {slot: self.draw(slot) for slot in slots}
        text = template.format(**(self.cast | more | values))
        return text[0].upper() + text[1:], tuple(values.values())


def person(who: str, cast: dict[str, str], rng: random.Random) -> str:
    """My sister, or my sister Anna."""
    named = who in cast and rng.random() < 0.5
    return f"my {who} {cast[who]}" if named else f"my {who}"


def follows(opening: str, text: str, names: Iterable[str]) -> str:
    """`text` behind an opening that does not end a sentence, if it may be written small."""
    if opening.endswith(". ") or PROPER.match(text) or text.startswith(tuple(names)):
        return opening + text
    return opening + text[0].lower() + text[1:]


def framed(text: str, names: Iterable[str], rng: random.Random) -> str:
    if rng.random() >= FRAMED or text.startswith(("Please", "If")):
        return text
    return follows(rng.choice(FRAMES), text, names)


def polite(text: str, names: Iterable[str], rng: random.Random) -> str:
    if rng.random() >= POLITE:
        return text
    if rng.random() < 0.5 and text.endswith("?"):
        return text + rng.choice(CLOSINGS)
    return follows(rng.choice(OPENINGS), text, names)


def thread(name: str, topic: dict[str, Any], values: Values, rng: random.Random) -> list[Fact]:
    """What the caller said of it over time: up to two old values, then the one that holds."""
    within = topic.get("within", FRESH)
    olds = min(topic.get("old", rng.randint(1, 2)), 1 if len(values.pool("v")) < 4 else 2)
    templates = rng.sample(topic["facts"], olds + 1)
    if olds and rng.random() < CHANGED:
        templates[-1] = rng.choice(topic["changed"])
    ages = [rng.randint(1, within)]
    for _ in range(olds):
        ages.insert(0, ages[0] + rng.randint(15, max(30, within)))
    facts: list[Fact] = []
    for template, age in zip(templates, ages, strict=True):
        text, drawn = values.fill(template)
        text = framed(text, [*values.cast.values(), *drawn], rng)
        facts.append(Fact(text, name, "", "", drawn, age, facts[-1] if facts else None))
    return facts


def family(
    name: str, topic: dict[str, Any], cast: dict[str, str], lists: dict[str, list[str]], rng: random.Random
) -> Family:
    values = Values(topic, lists, cast, rng)
    own = thread(name, topic, values, rng)
    values.taken = own[-1].values[0]
    long_ago = 4 * topic["within"] if "within" in topic else LONG_AGO

    def fact(template: str, attribute: str, about: str, **more: str) -> Fact:
        text, drawn = values.fill(template, **more)
        text = framed(text, [*cast.values(), *drawn], rng)
        return Fact(text, name, attribute, about, drawn, rng.randint(1, long_ago))

    others = []
    for who in rng.sample(topic.get("persons", PEOPLE), topic.get("others", OTHERS)):
        they = person(who, cast, rng)
        others.append(fact(rng.choice(topic["other"]), "", who, who=they, Who=they[0].upper() + they[1:]))
    near = [
        fact(template, f"other {number}", "", same=values.taken) for number, template in enumerate(topic["near"], 1)
    ]
    return Family(own, others, near)


def dealt(topics: dict[str, Any], callers: list[Caller], rng: random.Random) -> Iterator[tuple[Caller, str, str]]:
    """Every question to one caller, each caller at most once a topic, all callers about the same number."""
    count = {caller.name: 0 for caller in callers}
    for name in rng.sample(sorted(topics), len(topics)):
        sentences = rng.sample(topics[name]["ask"], len(topics[name]["ask"]))
        least = sorted(callers, key=lambda caller: (count[caller.name], rng.random()))
        for sentence, caller in zip(sentences, least, strict=False):
            count[caller.name] += 1
            yield caller, name, sentence


def ask_answered(topics: dict[str, Any], callers: list[Caller], rng: random.Random) -> None:
    for caller, name, sentence in dealt(topics, callers, rng):
        known = caller.families[name]
        answer = known.thread[-1]
        text = polite(sentence.format(**caller.cast), caller.cast.values(), rng)
        near = [*known.thread[:-1], *known.others, *known.near]
        kind = "shared word" if stems(text) & stems(answer.text) else "other words"
        caller.asked.append(name)
        caller.questions.append({"text": text, "answer": answer, "near": near, "kind": kind})


def ask_unanswered(topics: dict[str, Any], callers: list[Caller], rng: random.Random) -> None:
    """Half of them about topics on which something else is asked of the caller."""
    left = {name: rng.sample(topic["none"], len(topic["none"])) for name, topic in topics.items()}
    for caller in callers:
        told = rng.sample([name for name in sorted(caller.asked) if left[name]], SAME_TOPIC // 2)
        rest = sorted(set(topics) - set(caller.asked))
        told += rng.sample([name for name in rest if left[name]], SAME_TOPIC - len(told))
        for name in told:
            sentence = left[name].pop()
            known = {fact.person for fact in caller.families[name].others}
            strangers = set(topics[name].get("persons", PEOPLE)) - known
            who = person(rng.choice(sorted(strangers)), caller.cast, rng)
            text = polite(sentence.format(who=who, **caller.cast), caller.cast.values(), rng)
            near = caller.families[name].facts
            caller.asked.append(name)
            caller.questions.append({"text": text, "answer": None, "near": near, "kind": "same topic"})


def ask_anything(said: dict[str, list[str]], callers: list[Caller], rng: random.Random) -> None:
    """Spread so that no caller says the same twice, and odd and even callers say as much of each kind."""
    odd_and_even = [*callers[::2], *callers[1::2]]
    counts = {"general": GENERAL * len(callers), "small talk": SMALL_TALK, "injection": INJECTIONS}
    for kind, count in counts.items():
        sentences = rng.sample(said[kind], len(said[kind]))
        for number in range(count):
            sentence = sentences[number % len(sentences)]
            caller = odd_and_even[(number * 17 + number // len(callers)) % len(callers)]
            text = polite(sentence, caller.cast.values(), rng) if kind == "general" else sentence
            caller.questions.append({"text": text, "answer": None, "near": [], "kind": kind})


def filled_up(caller: Caller, rng: random.Random) -> list[Fact]:
    """All of the families asked about, and parts of others, oldest first."""
    facts = [fact for name in dict.fromkeys(caller.asked) for fact in caller.families[name].facts]
    rest = sorted(set(caller.families) - set(caller.asked))
    for name in rng.sample(rest, len(rest)):
        known = caller.families[name]
        part = [*known.thread, *rng.sample([*known.others, *known.near], rng.randint(2, 4))]
        facts += part[: FACTS - len(facts)]
    return sorted(facts, key=lambda fact: -fact.days_ago)


def lines(caller: Caller, number: int, rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    facts = filled_up(caller, rng)
    ids = {id(fact): f"{caller.name}-{place:03}" for place, fact in enumerate(facts, 1)}
    told = [
        {
            "id": ids[id(fact)],
            "caller": caller.name,
            "text": fact.text,
            "days_ago": fact.days_ago,
            "supersedes": ids[id(fact.supersedes)] if fact.supersedes else None,
            "topic": fact.topic,
            "attribute": fact.attribute,
            "person": fact.person,
            "values": fact.values,
        }
        for fact in facts
    ]
    split = "dev" if number % 2 else "test"
    asked = [
        {
            "id": f"{caller.name}-q{place:02}",
            "caller": caller.name,
            "split": split,
            "text": question["text"],
            "answer": ids[id(question["answer"])] if question["answer"] else None,
            "near": sorted(ids[id(fact)] for fact in question["near"]),
            "kind": question["kind"],
        }
        for place, question in enumerate(rng.sample(caller.questions, len(caller.questions)), 1)
    ]
    return told, asked


def make() -> dict[str, str]:
    """The files of the set by name."""
    topics: dict[str, Any] = {}
    for path in sorted((HERE / "topics").glob("*.toml")):
        topics |= tomllib.loads(path.read_text(encoding="utf-8"))
    lists = tomllib.loads((HERE / "values.toml").read_text(encoding="utf-8"))
    said = tomllib.loads((HERE / "unanswered.toml").read_text(encoding="utf-8"))
    names = lists.pop("cast")

    rng = random.Random(SEED)
    callers = []
    for number in range(1, CALLERS + 1):
        caller = Caller(f"c{number:02}", {who: rng.choice(names[who]) for who in names})
        caller.families = {name: family(name, topic, caller.cast, lists, rng) for name, topic in topics.items()}
        callers.append(caller)
    ask_answered(topics, callers, rng)
    ask_unanswered(topics, callers, rng)
    ask_anything(said, callers, rng)

    facts: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for number, caller in enumerate(callers, 1):
        told, asked = lines(caller, number, rng)
        facts += told
        questions += asked
    files = {"facts.jsonl": facts, "questions.jsonl": questions}
    return {file: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) for file, rows in files.items()}


if __name__ == "__main__":
    for file, text in make().items():
        (HERE / file).write_text(text, encoding="utf-8")
