"""What a caller wants with a clause: rules over its words, forgiving where a small ear often errs."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from .alike import alike, sounds
from .english import has_verb, one_of
from .numbers import figures

Kind: TypeAlias = Literal[
    "remember", "forget", "overview", "repeat", "echo", "time", "date", "name", "question", "order", "fact", "statement"
]


class Want(NamedTuple):
    kind: Kind
    what: str = ""
    """The words that it is about."""
    asks: str = ""
    """Of a question, what it asks for: "where", "when", "who", "how", "what", "whether"."""


SAME = 0.6  # words that sound so much like "what" or "where" stand for it where one is expected
BARE = 4  # words without a verb that ask: "my gate code?"
ASK_LATE = 8  # words that may stand before "remember that": more is a story of somebody who remembers


def want(clause: str) -> Want:
    """What is wanted, by the first rule that fits. The clause has no small talk at its ends."""
    if (kept := asked_to_keep(clause)) is not None:
        return Want("remember", kept)
    if found := _FORGET.fullmatch(clause):
        return Want("forget", found["what"])
    for kind, pattern in _ASKED.items():
        if pattern.fullmatch(clause):
            return Want(kind, clause)
    if name := _name(clause):
        return Want("name", name)
    if asked := _question(clause):
        return asked
    if _ORDER.match(clause):
        return Want("order", clause)
    return Want("fact" if " " in clause and _FACT.fullmatch(figures(clause)) else "statement", clause)


# -- to remember --

_SO = "(?:please |can you |could you |would you |will you |you |then |,)*"
_ASK = re.compile(
    r"(?i)\b(?P<verb>"
    + one_of(r"""
        re ?member(?:ed|s)?
        (?:(?:a|are|we're|were|be|re|of) )?members?(?= that)
        memori[sz]e
        (?:don't|do not|never) forget
        (?:make|take)(?: me)? an? (?:\w+ )?note
        note down
        note
        jot down
        (?:w?right|write|rite|where i|where) (?:this |that |it )?(?:down|found)
        (?:keep|deep|teeth|bear)(?: it| this)? in (?:mind|line)
        save
        store
        remind me
    """)
    + r")\b(?P<rest>.*)"
)
_AT_START = re.compile(rf"(?i){_SO}(?:i (?:want|need|would like) you to |i'd like you to |try to )?{_SO}\W*$")
_OWN = re.compile(
    "(?i)"
    + one_of(r"""
        \b(?:i|we|he|she|they)(?: \w+){0,2} $
        \b(?:do|did|don't|didn't) you (?:still )?$
        \b(?:my|the|a|have you|you've) $
    """)
)
_THAT = re.compile(
    r"(?i)(?:[ ,]*\b(?:for me|please|this|down|of|the fact)\b)*(?P<that>[ ,:]+(?:that(?:'s)?|at)\b)?[ ,:]*"
)
_ASKED_ABOUT = re.compile(r"(?i)(?:what|where|when|who|how|why|me\b|you\b|some ?things?\b|it\b)")
_THING = re.compile(r"(?i)(?:my|our|the|your)\b")
_HANGING = re.compile(r"(?i)\b(?:is|are|was|remember|that|called|named|my|number|at|on|in)\W*$")


def asked_to_keep(clause: str) -> str | None:
    """What is to be remembered: empty if that was not said; None if nothing is to be."""
    found = _ASK.search(clause)
    if not found:
        return None
    before, verb, rest = clause[: found.start()], found["verb"].lower(), found["rest"]
    gap = _THAT.match(rest)
    that = bool(gap and gap["that"])
    rest = rest[gap.end() :] if gap else rest
    sure = that and ("member" in verb or "forget" in verb)
    if _OWN.search(before) or len(before.split()) > ASK_LATE or not (sure or _AT_START.match(before)):
        return None
    if not that and not _to_keep(verb, rest):
        return None
    return re.sub(r"(?i)^to (?!me\b)", "I have to ", rest)


def _to_keep(verb: str, rest: str) -> bool:
    """Whether what follows is to be kept, where no "that" says so: "remember my code" asks for it."""
    if verb.startswith(("where", "right")) or (
        "forget" in verb and re.fullmatch(r"(?i)(?:about )?(?:it|me)?\W*", rest)
    ):
        return False
    if verb == "remind me":
        return rest.lower().startswith("to ")
    tells = has_verb(rest) or bool(_DIGIT.search(rest))
    return not _ASKED_ABOUT.match(rest) and (tells or not _THING.match(rest))


def left_open(clause: str) -> bool:
    """Whether something was to be told and its end is missing: "remember that my gate code is"."""
    tells = asked_to_keep(clause) is not None or _THING.match(clause)
    return bool(tells and _HANGING.search(clause))


# -- to forget, and what is asked for in a few ways only --

_POLITE = r"(?:(?:please|can you|could you|would you|will you|do you know|i want to know|tell me|say) )*"
_FORGET = re.compile(rf"(?i){_POLITE}(?:you (?:should|must) )?(?:forget|delete|erase|remove|cross out)(?P<what>\b.*)")
_NOW = "(?: (?:is it|it is|please|now|right now|have you got|do you have|here))*"
_ABOUT_ME = "(?: (?:about|of) (?:me|us|myself))?"
_RULES: dict[Kind, str] = {
    "overview": rf"""
        what (?:else )?(?:do|did|have|could|can) (?:you|i) (?:all |already )?(?:know|tell|told)(?: you)?{_ABOUT_ME}
        what (?:else )?(?:do|did|have|can) you (?:all |already )?(?:remember|note|keep|wr[io]te)(?: down)?{_ABOUT_ME}
        what (?:else )?have you (?:all |already )?(?:remembered|noted|kept|written)(?: down)?{_ABOUT_ME}
        (?:what are |read )?(?:me )?(?:all )?my notes
        do you (?:know|remember) (?:me|(?:any|some)thing{_ABOUT_ME})
        (?:everything|what|all) (?:that )?you know{_ABOUT_ME}
    """,
    "repeat": r"""
        (?:ten,? you )?(?:say|repeat)(?: (?:that|it|this|yourself))?(?:,? (?:once more|again|one more time|place))*
        that again
        what did (?:you|he) (?:just )?say
        what was that
        pardon(?: me)?
        sorry
        come again
        once more
        again
        what
    """,
    "echo": r"""
        what (?:did|have) i (?:just )?(?:say|said)(?: just now| before| to you)?
        what was it (?:that )?i said
    """,
    "time": rf"""
        (?:have you got |do you have )?(?:what(?:'s| is)? )?(?:the )?(?:current )?time{_NOW}(?: in (?:\w+ ?){{1,3}})?
    """,
    "date": r"""
        what(?:'s| is) (?:today|tomorrow)
        (?:(?:what|which)(?:'s| is)? )?(?:the |a |our )?(?:today's |current )?(?:date|day|year|month)"""
    r"""(?: of the (?:week|month))?(?: (?:is it|it is|is|do we have|have we got|will it be|was it|was|be))?"""
    r"""(?: (?:the )?(?:today|a day|now|tomorrow|morrow|yesterday))?(?: is)?
    """,
}
_ASKED: dict[Kind, re.Pattern[str]] = {
    kind: re.compile(rf"(?i){_POLITE}{one_of(rules)}(?: so far| today| before)?\W*") for kind, rules in _RULES.items()
}

# -- a name --

_NAME = re.compile(
    r"(?:(?i:my (?:first )?name(?:'s| is)|i am called|i'm called|(?:you can |people )?call me) (?P<name>[^\W\d_][\w']*"
    r"(?: [A-Z][\w']*)?)|(?:(?i:i am|i'm)|(?i:this is)) (?P<cased>[A-Z][a-z]+(?: [A-Z][a-z]+)?))"
    r"(?: (?i:speaking|here|calling|again))?\W*"
)
_NO_NAME = re.compile(
    r"(?i)(?:not|\w+ish|\w+(?:ic|ian|can|ese)|german|french|dutch|here|back|sorry|fine|good|ok|called|no|what|the|a)\b"
)


def _name(clause: str) -> str:
    found = _NAME.fullmatch(clause)
    name = (found["name"] or found["cased"]) if found else ""
    if not name or _NO_NAME.match(name):
        return ""
    return " ".join(word[:1].upper() + word[1:] for word in name.split())


# -- questions --

_FOR_IT = re.compile(
    "(?i)"
    + one_of(
        r"""
        (?:do|did|can|could|would|will|don't|didn't|and|then|have) (?:you|he|they) (?:please )?(?:still )?"""
        r"""(?:know|tell me|remember(?:ed)?|give me|remind me of|noted?)
        (?:please |you )*(?:tell|give) me(?! an? )
        i(?:'ve| have)? (?:want to know|need to know|forgot|forgotten|don't know|do not know|don't remember)
        (?:remember|remind me of)(?= (?:my|our|where|when|what|who|how))
    """
    )
    + r"\b[ ,]*"
)
_WHEN = re.compile(r"(?i)(?:what|which) (?:time|day|date|month|year)\b")
_WH = re.compile(r"(?i)(?P<word>what|when|where|who|which|why|how|whose|wot|watt)(?:'s|'re)?\b[ ,]*")
_TELLING = re.compile(r"(?i)(?:when|while|what|where|how) (?:i|we|my)\b(?! am\b)")
_AUX = re.compile(
    r"(?i)(?:is|are|am|was|were|do|does|did|can|could|will|would|have|has|should|shall|aren't|isn't"
    r"|(?:don't|didn't)(?= (?:i|you|we|they)\b)) (?!not\b)"
)
_MYSELF = re.compile(r"(?i)\b(?:who am i|who i am)\W*$")
_DIGIT = re.compile(r"\d")
_OLD = re.compile(r"(?i)\bold am i\W*$")
_ENDS_ASKING = re.compile(r"(?i)\b(?:am i|do i have)\W*$")
_GARBLED = re.compile(r"(?i)(?P<word>[a-z]+)(?:'s)? (?:is|are|was|as|do|did) (?=(?:my|our)\b|i\b)")
_HEARD_FOR = {"one": "when", "then": "when", "there": "where", "why": "where", "boy": "what", "waff": "what"}
_HEARD_FOR |= {"t": "who", "to": "who", "two": "who", "blind": "when"}


def _question(clause: str) -> Want | None:
    if _MYSELF.search(clause):
        return Want("question", "my name", "what")
    said = _FOR_IT.sub("", clause, count=1) if _FOR_IT.match(clause) else clause
    asked = said != clause
    if when := _WHEN.match(said):
        return Want("question", said[when.end() :], "when")
    if (odd := _GARBLED.match(said)) and (word := _meant(odd["word"].lower())):
        return Want("question", said[odd.end() :], word)
    if (wh := _WH.match(said)) and (asked or clause.endswith("?") or not _TELLING.match(said)):
        return Want("question", said[wh.end() :], wh["word"].lower())
    if asked:
        return Want("question", said, "what")
    if aux := _AUX.match(said):
        return Want("question", said[aux.end() :], "whether")
    if (
        re.match(r"(?i)(?:my|our)\b", said)
        and len(said.split()) <= BARE
        and not has_verb(said)
        and not _DIGIT.search(said)
    ):
        return Want("question", said, "what")
    if _OLD.search(said):
        return Want("question", "old", "how")
    if _ENDS_ASKING.search(said) or (said.endswith("?") and not _FACT.fullmatch(said)):
        return Want("question", said, "what")
    return None


def _meant(word: str) -> str:
    """The question word that the ear wrote as another; empty if it is rather a name, or is one itself."""
    if word in _HEARD_FOR or _WH.fullmatch(word):
        return _HEARD_FOR.get(word, "")
    likeness = {wh: alike(sounds(word), sounds(wh)) for wh in ("what", "when", "where", "who")}
    best = max(likeness, key=likeness.__getitem__)
    return best if likeness[best] >= SAME else ""


# -- the rest --

_TALKS = (
    "see|think|said|mean|guess|know|hope|don't|do not|can't|cannot|didn't|want|love you|would|will|could|told|hear"
    "|heard|understand|just|wonder"
)
_AM = "fine|good|ok|okay|well|here|sorry|not|sure|going to|ready|back|great|calling|afraid"
_FACT = re.compile(
    "(?i)"
    + one_of(rf"""
        (?:my|our)\b.*
        (?:i|we)(?:'m|'ve|'re)?\b(?! (?:{_TALKS})\b)(?!(?: am)? (?:{_AM})\b).*
        [\w' ]{{1,40}}? (?:is|are) (?:my|our)\b.*
        the\b.*\b(?:is|are)\b.*(?:\d|\b(?:on|at|in|called|under|number)\b).*
    """)
)
_ORDER = re.compile(
    r"(?i)(?:(?:can|could|would|will) you )?(?:please )?(?:tell|say|sing|play|call|give|show|send|open|close|turn|order"
    r"|book|connect|put|ring|ignore|read|transfer|translate|let's|speak|explain|buy|find|search|look|switch|print)\b"
)
