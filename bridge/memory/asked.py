"""What a sentence asks for and of whom, and what sorts of answer a memory holds: rules of English."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from .about import names_in
from .english import STOP_WORDS, VERBS, content_words, listed, plain, words
from .kinds import Moment

Kin = Mapping[str, str]
"""Names of the caller's people, in lower case: "anna" is his "sister"."""

TIME = frozenset({"date", "weekday", "clock", "year"})
NAMED = frozenset({"person", "name"})

PEOPLE = {
    alias: line.split()[0]
    for line in """
        mother mum mom mam mummy mommy|father dad daddy papa|parents folks|sister sis|brother|son boy|daughter girl|
        child children kid kids|baby|wife|husband|partner|grandmother grandma gran granny nan nana|
        grandfather grandad granddad grandpa|grandson|granddaughter|grandchildren grandchild|aunt auntie aunty|uncle|
        niece|nephew|cousin|friend mate pal|neighbour neighbor neighbours neighbors|colleague coworker workmate|
        girlfriend|boyfriend|fiance fiancé|fiancee fiancée|flatmate roommate housemate|lodger tenant
    """.strip().split("|")
    for alias in line.split()
}
PROPER = frozenset(
    listed("mum mom mam mummy mommy dad daddy papa grandma gran granny nan nana grandad granddad grandpa")
)
THEIRS = frozenset(listed("my our your his her their"))
BETWEEN = frozenset(
    listed("own best good old older elder eldest younger youngest big little twin late dear poor new second")
)
TITLES = frozenset(listed("mr mrs ms miss dr"))
OWNING = frozenset(listed("of for does do did is are was were has have had can will would should"))
PRONOUNS = frozenset(listed("he she him her his hers"))

_WHO = rf"(?:{'|'.join(sorted(PEOPLE, key=len, reverse=True))})"
_INTRODUCES = re.compile(  # "my sister Anna", "my sister is called Anna", "Anna is my sister"
    rf"\b(?:[Mm]y|[Oo]ur) (?:[\w-]+ ){{0,2}}?(?P<who>{_WHO})(?:'s name is|'s called| is called| called| named|,| is)?"
    r" (?:(?:Mr|Mrs|Ms|Dr)\.? )?(?P<name>[A-Z][\w-]+)"
    rf"|\b(?P<first>[A-Z][\w-]+)(?:,| is) (?:my|our) (?:[\w-]+ )?(?P<whose>{_WHO})\b"
)
KEPT = 20_000  # texts that are known by heart: the memories that questions come near to

# Words that say which sort of thing is asked for, and nothing of what.
SORT_WORDS = frozenset(listed("name title number date day time place word thing kind sort type age address price sum"))

_CLAUSE = re.compile(r"(?<=[.?!;,:])\s+")
_VERB = (
    r"(?:is|are|was|were|do|does|did|has|have|had|can|can't|could|will|would|should|shall|am|might|must|mustn't|ought)"
)
# A question word asks at the beginning of a clause, before a verb, and after "tell me"; elsewhere it joins clauses.
_BEGINS = (
    r"(?:^|[,.;:] |\b(?:and|so|but|or|then|know|remember|forgot|forgotten|asks?|tell me|remind me|say|see|sure|on|in|at"
    r"|to|by|from|for|until|till|with|of) )"
)
_ASKING = re.compile(
    rf"\b(?:what|which|whose|how|why)(?:'s)?\b|\b(?:when|where|who|whom)(?:'s| {_VERB}\b)"
    rf"|{_BEGINS}(?:when|where|who|whom|whereabouts)\b|\?"
)
_WANTING = re.compile(
    r"\b(?:remind me|tell me|i need|i want|i forgot|i've forgotten|can't (?:remember|recall|think of)|give me"
    r"|let me know|looking for|please \w|asks?|asked|wants?|needs?|order|book)\b"
)
_CALLER = re.compile(
    r"\b(?:i|i'm|i've|i'd|i'll|my|we|we're|we've|we'd|we'll|our|ours|mine|us|myself)\b|\b(?:of|on|to) me\b"
)

_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
_NUMBER = (
    r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety|hundred|thousand|dozen)"
)
_HOUR = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+teenth|twentieth"
    r"|thirtieth|(?:twenty|thirty)[ -]\w+|\d+(?:st|nd|rd|th))"
)
_UNIT = r"(?:minutes?|hours?|days?|weeks?|months?|years?|nights?|fortnights?)"

# The sorts of things that a memory may tell, by the words that give them away.
SORTS = {
    sort: re.compile(pattern)
    for sort, pattern in {
        "clock": r"o'?clock|\bhalf past\b|\bnoon\b|\bmid(?:day|night)\b|\d[:.]\d\d|\d ?[ap]\.?m\b|\blunchtime\b"
        rf"|\b(?:past|to|at|after|before|until|till|between|by|from) (?:about )?{_HOUR}\b"
        rf"|\bin the (?:morning|afternoon|evening)\b|\b(?:morning|afternoon|evening)s\b|, {_HOUR}\.?$",
        "weekday": rf"\b(?:{_DAY}|weekends?|weekdays?|every day)\b",
        "date": rf"\b{_ORDINAL} (?:of )?{_MONTH}|\b{_MONTH} (?:{_ORDINAL}|\d+|next)\b"
        r"|\b(?:tomorrow|christmas|easter)\b|\bend of\b"
        rf"|\b(?:in|by|until|till|since|next|last|this|after|before|to|from|for) {_MONTH}\b"
        r"|\b(?:next|last) (?:week|month|year|spring|summer|autumn|winter|weekend)\b"
        r"|\bthis (?:week|weekend|spring|summer|autumn|winter)\b"
        r"|\b(?:in|of) (?:the )?(?:spring|summer|autumn|winter)\b",
        "year": r"\b(?:19|20)\d\d\b",
        "span": rf"\b(?:{_NUMBER}|half an?|(?:for|takes?|lasts?|about) an?|a few|several) (?:and a half )?{_UNIT}\b"
        r"|\bfortnight\b",
        "often": r"\b(?:every|once|twice|daily|weekly|monthly|yearly)\b|\btimes an?\b",
        "money": r"[£$€]|\b(?:pounds?|euros?|dollars?|pence|quid|cents?|per cent)\b",
        "measure": rf"\b{_NUMBER} (?:per ?cent|kilos?|kilograms?|kg|grams?|stone|met(?:re|er)s?|centimet(?:re|er)s?|cm"
        r"|feet|foot|inch(?:es)?|miles?|kilomet(?:re|er)s?|km|lit(?:re|er)s?|square|degrees)\b",
        "age": rf"\byears? old\b|\bturns?\b|\bborn\b|\bbirthday\b|\baged?\b|\bwill be {_NUMBER}\b",
        "count": rf"\b{_NUMBER}\b",
        "place": r"\b(?:in|at|under|underneath|beneath|behind|beside|next to|near|above|inside|between|opposite|by"
        r"|below|outside|over|on) (?:the|my|our|an?|his|her|its|their|that|this)\b|\bat home\b|\b(?:up|down)stairs\b"
        r"|\b\d+ \w+ (?:road|street|lane|avenue|close|drive|way|square|crescent|gardens|terrace|hill|yard|court|row)\b",
        "email": r"@|\w dot \w",
        "name": r"\b(?:name|called|named|nickname|call me)\b",
    }.items()
}
_DATED = re.compile("|".join(SORTS[sort].pattern for sort in ("date", "clock", "year", "measure")))
_DIGITS = re.compile(r"\d[\d ]*\d|\d")
_THE_THING = re.compile(r"\bwhat(?:'s| is| are| was)\b")
_POINTING = re.compile(
    r"^(?:and|but|or|what about|how about)\b|\b(?:it|that|there|he|she|him|her|his|hers|they|them|their)\b"
)
LONGEST_THING = 4  # words
ENOUGH = 2  # words that tell something make a question that stands by itself
TURNS = 2  # the caller's words and the reply: older ones drown the question
SPELLED = 3  # digits said one by one are a code: "seven, three, nine"; "two" and "twenty" are counts
PHONE_DIGITS = 5  # and more are not the number of a house or a code

_DAYS = r"(?:date|day|weekday|month|week|evening|night|morning)"
_NAMED = r"(?:firm|company|shop|agency|brand|make|model|supplier|provider|store|bank|team|club)"
# What is asked for, by the words that ask; the first that fits counts.
_WANTS = [
    (re.compile(pattern), frozenset(listed(sorts)))
    for pattern, sorts in [
        (rf"\bhow many (?:more )?{_UNIT}\b(?! of\b)|\bhow much (?:time|longer)\b", "date weekday clock year span"),
        (r"\bhow long(?:er)?\b.*\b(?:left|until|till|stay|still|valid|good|may|can)\b", "date weekday clock year span"),
        (r"\bhow long\b", "span date year"),
        (r"\bhow much\b.*\b(?:cost|pay|paid|charge|earn|price|spend|spent|owe|rent|worth)", "money"),
        (r"\bhow much (?:is|are|was)\b", "money"),
        (r"\bwhat (?:do|does|did|will|may|would)\b.*\b(?:cost|charge|pay|earn)\b", "money"),
        (r"\bhow many\b", "count"),
        (r"\bhow often\b", "often"),
        (r"\bhow old\b", "age"),
        (r"\bhow (?:wide|tall|high|deep|big|far|fast|heavy|large|thick|hot|much)\b", "measure money span"),
        (r"\b(?:what|which) (?:time|hour)\b|\bhow (?:early|late)\b", "clock span"),
        (r"\b(?:what|which) year\b", "year"),
        (rf"\b(?:what|which)(?:'s| is)?(?: the)?(?: exact)? {_DAYS}\b", "date weekday"),
        (rf"\bwhen(?:'s| {_VERB}\b)|{_BEGINS}when\b|\bhow soon\b", "date weekday clock year"),
        (rf"\bwho(?:m|se|'s| {_VERB}\b)|{_BEGINS}who\b", "person name"),
        (rf"\bwhere(?:'s| {_VERB}\b)|{_BEGINS}where(?:abouts)?\b", "place"),
        (r"\be-?mail\b", ""),
        (r"\baddress\b|\b(?:what|which) (?:town|city|place|country|village|street|road|ward|station)\b", "place name"),
        (r"\b(?:phone|telephone|mobile|fax|contact) number\b", "phone"),
        (r"\bwhat(?:'s| is| was) the (?:rent|cost|fee|charge|bill|salary|price|fare|deposit)\b", "money"),
        (rf"\b(?:what|which) (?:\w+ )?{_NAMED}\b", "name"),
        (r"\b(?:digits|number|code|pin|combination|reference|figure)\b", "code measure money"),
        (r"\b(?:what|which)\b.*\bcalled\b|\bname\b", "name"),
    ]
]
_NOUN = re.compile(
    rf"\b(?:what|which|how many)(?:'s)? (?!(?:{_VERB}|i|we|my|the|a|of|time|day|date)\b)"
    r"(?P<noun>(?:[\w-]+ ){0,2}?[\w-]+)"
    rf"(?= (?:{_VERB}|i|we|my|our|the|of|to|in|on|for|from|at|it|you|he|she|they)\b|[?.,!]|$)"
    rf"|\bwhat(?:'s| is| are| was) (?:my|our|the|his|her|their|[\w']+'s) (?P<thing>(?:[\w-]+ ){{0,2}}?[\w-]+)"
    r"(?= (?:of|for|at|in|on|to|from|that|which|i|we|again|called|now)\b|[?.,!]|$)"
)


@dataclass(frozen=True)
class Asked:
    """What a sentence asks for."""

    clause: str
    """The part of it that asks; all of it when none does."""
    asks: bool
    wants: frozenset[str]
    """Sorts of which one must be in an answer; empty when any may."""
    noun: tuple[str, ...]
    """The thing that is asked about: "which blood group"."""
    named: bool
    """Whether it names the thing, as in "what is my blood group"."""
    counted: str
    """Of what a number is asked."""
    owners: frozenset[str]
    """Whose thing it is; empty for the caller's own."""
    people: frozenset[str]
    """Whoever is spoken of besides."""
    own: bool
    """Whether it speaks of the caller or of somebody of his."""

    def about_others(self, told: Told) -> bool:
        """Whether a memory tells of people although nobody was asked about."""
        who = "person" in self.wants and not self.people and not told.owners
        return bool(told.people) and not who


@dataclass(frozen=True)
class Told:
    """What a memory tells."""

    sorts: frozenset[str]
    names: frozenset[str]
    """Of people, places and things, in lower case."""
    people: frozenset[str]
    owners: frozenset[str]
    """Those of them of whose things it tells."""


def context(moment: Moment) -> str:
    """What was said just before, when what is said now means little without; else nothing."""
    if len(content_words(moment.said)) >= ENOUGH and not _POINTING.search(plain(moment.said)):
        return ""
    return " ".join(text for _, text in moment.before[-TURNS:])


def kin_in(texts: Iterable[str]) -> dict[str, str]:
    """The names of the caller's people, as his memories introduce them."""
    return {name: relation for text in texts for name, relation in _introduced(text)}


def ask(text: str, kin: Kin, before: str = "") -> Asked:
    """What a text asks; `before` is what it goes on from."""
    asking = [clause for clause in _CLAUSE.split(text) if _ASKING.search(plain(clause))]
    clause = " ".join(asking) or text
    said, whole = plain(clause), plain(f"{before} {text}")
    wants = next((sorts for pattern, sorts in _WANTS if pattern.search(said)), frozenset())
    noun = _NOUN.search(said)
    things = (noun["noun"] or noun["thing"]).split() if noun else []
    things = [word for word in things if word not in STOP_WORDS | SORT_WORDS]
    found = _people(said, kin)
    if not found and PRONOUNS & set(re.findall(r"\w+", said)):
        found = [(ids, False) for ids, _ in _people(whole, kin)]
    people = _all(ids for ids, _ in found)
    return Asked(
        clause=clause,
        asks=bool(asking) or _WANTING.search(plain(text)) is not None or _names_a_thing(text),
        wants=wants,
        noun=tuple(things),
        named=bool(things) and _THE_THING.search(said) is not None,
        counted=things[-1] if things and wants == {"count"} else "",
        owners=_all(ids for ids, owns in found if owns),
        people=people,
        own=bool(_CALLER.search(whole) or people),
    )


def tell(text: str, kin: Kin) -> Told:
    sorts, names = _sorts(text)
    found = _people(plain(text), kin)
    people = _all(ids for ids, _ in found)
    if names - kin.keys():
        sorts |= {"name", "person", "place"}
    if people:
        sorts |= {"person"}
    return Told(sorts, names, people, _all(ids for ids, owns in found if owns))


def _names_a_thing(text: str) -> bool:
    """ "The gate code." means "what is it?"."""
    said = words(text)
    return len(said) <= LONGEST_THING and not VERBS.intersection(said) and bool(content_words(text))


def clear() -> None:
    """Keep nothing in mind of any text."""
    _introduced.cache_clear()
    _sorts.cache_clear()


def _all(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


@lru_cache(maxsize=KEPT)
def _introduced(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        ((found["name"] or found["first"]).lower(), PEOPLE[(found["who"] or found["whose"]).lower()])
        for found in _INTRODUCES.finditer(text.replace("\u2019", "'"))
    )


@lru_cache(maxsize=KEPT)
def _sorts(text: str) -> tuple[frozenset[str], frozenset[str]]:
    said = plain(text)
    sorts = {sort for sort, pattern in SORTS.items() if pattern.search(said)}
    undated = _DATED.sub(" ", said)
    numbers = [len(re.sub(r"\D", "", digits)) for digits in _DIGITS.findall(undated)]
    numbers += [len(word) for word in words(undated) if word.isdecimal() and len(word) >= SPELLED]
    if numbers and "money" not in sorts:
        sorts.add("code")
    if max(numbers, default=0) >= PHONE_DIGITS:
        sorts.add("phone")
    return frozenset(sorts), frozenset(word for name in names_in(text) for word in words(name) if word not in TITLES)


def _people(said: str, kin: Kin) -> list[tuple[frozenset[str], bool]]:
    """Everyone in a text: relation and name, and whether something is said or asked to be his."""
    pieces = re.findall(r"[\w']+", said)
    found: list[tuple[frozenset[str], bool]] = []
    for at, piece in enumerate(pieces):
        word = piece.removesuffix("'s")
        before = at - 1
        while before >= 0 and pieces[before] in BETWEEN | TITLES:
            before -= 1
        prior = pieces[before] if before >= 0 else ""
        if word in PEOPLE and pieces[at + 1 : at + 3] != ["in", "law"]:
            if word in PROPER or prior in THEIRS or prior.endswith("'s"):
                owns = piece != word or prior in OWNING or (before > 0 and pieces[before - 1] in OWNING)
                found.append((frozenset({PEOPLE[word]}), owns))
        elif word in kin:
            owns = piece != word or prior in OWNING
            if found and prior in PEOPLE and PEOPLE[prior] in found[-1][0]:
                ids, owned = found.pop()
                found.append((ids | {word}, owned or owns))
            else:
                found.append((frozenset({word, kin[word]}), owns))
    return found
