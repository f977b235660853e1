"""Of which thing a sentence tells something, and what: rules that rather say nothing than name the wrong thing."""

from __future__ import annotations

import re

from .english import DAYS, MONTHS, RELATIONS, STOP_WORDS, VERBS, listed, words

LONGEST_SUBJECT = 7  # words: what stands before the verb beyond that is a clause of its own
LONGEST_VALUE = 12  # words
LONGEST_NAME = 3  # words before "is my sister"
LONGEST_LIKED = 3  # words of what is liked: more is a story

# Of these a person has one at a time: a new name means that the old one is gone. Of sisters one may have two.
ONE_OF_EACH = frozenset(
    listed("""
    wife husband partner girlfriend boyfriend fiance fiancee boss manager landlord landlady doctor gp dentist vet
    cleaner lawyer solicitor accountant hairdresser gardener mechanic nanny childminder therapist physio carer sitter
    mother mum mom mam dad father supplier insurer
    """)
)
ATTRIBUTES = frozenset(
    listed("""
    code pin password passcode combination number address postcode email name nickname birthday anniversary colour color
    size age weight height job salary rent plate registration extension contact username account iban reference supplier
    """)
)
EVENTS = frozenset(
    listed("""
    appointment meeting wedding party flight train surgery operation interview exam concert trip holiday visit dinner
    lunch breakfast delivery deadline checkup match lesson funeral graduation conference reservation booking service
    session birthday anniversary test class course ceremony christening reunion collection viewing move inspection
    rehearsal scan hearing date
    """)
)
COLOURS = frozenset(
    listed("red blue green yellow black white grey gray brown orange purple pink silver gold beige turquoise navy")
)
PLACES = frozenset(
    listed("""
    in at on under underneath behind beside by near next inside outside above below beneath with between opposite around
    """)
)
TIMES = (
    DAYS
    | MONTHS
    | frozenset(
        listed("""
        mondays tuesdays wednesdays thursdays fridays saturdays sundays weekend weekends week month year morning
        mornings afternoon afternoons evening evenings night noon midday midnight o'clock am pm spring summer autumn
        winter christmas easter
        """)
    )
)
SEASONS = frozenset(listed("spring summer autumn winter christmas easter"))
PRONOUNS = frozenset(
    listed("i we you he she it they this that these those there here what who which where when everything everyone one")
)
FILLING = frozenset(listed("now currently still actually also always only really usually just finally then both all"))
DETERMINERS = frozenset(listed("my our the a an this that these those new current latest other own very old"))
JUDGING = frozenset(
    listed("""
    not very too so quite really pretty rather getting being going good bad great nice fine terrible awful hard easy
    wrong right broken working secure always never about like as
    """)
)
BE = frozenset(listed("is are am"))
CHANGED = (
    r"(?:changed|switched|moved|rescheduled|postponed|updated|corrected|rebooked|renamed|put (?:back|off|forward)"
    r"|brought"
    r" forward|set|reset|shifted)"
)

_EXPANDED = (
    (re.compile(r"\b(i)'m\b"), r"\1 am"),
    (re.compile(r"\b(\w+)'ve\b"), r"\1 have"),
    (re.compile(r"\b(we|you|they)'re\b"), r"\1 are"),
    (re.compile(r"\b(he|she|it|that|there|what|who|where)'s\b"), r"\1 is"),
    (re.compile(r"\b(\w+)'ll\b"), r"\1 will"),
    (re.compile(r"\b(\w+)'d\b"), r"\1 would"),
    (re.compile(r"\b(?:can't|cannot)\b"), "can not"),
    (re.compile(r"\b(\w+)n't\b"), r"\1 not"),
)
_ENDS = frozenset(listed("so but not since his her after before though although from"))
_IS_AFTER = frozenset(listed("called named a an the in at on under getting not now my our dr mr mrs ms miss still due"))

_CHANGE = (
    re.compile(
        rf"^(?:i|we|they|\w+) (?:have |had )?(?:had to )?(?:change|{CHANGED}) (?P<thing>.+?) (?:to"
        rf"|it is) (?P<value>.+)$"
    ),
    re.compile(
        rf"^(?P<thing>.+?) (?:has|have|was|is|are|were) (?:now |been |all )*{CHANGED} (?:from .+ )?(?:to"
        rf"|it is) (?P<value>.+)$"
    ),
)
_DOES = (
    ("home", re.compile(r"^(?P<who>.+?) (?:live|lives) in (?P<value>.+)$")),
    ("home", re.compile(r"^(?P<who>.+?) (?:have |has )?moved to (?P<value>.+)$")),
    ("address", re.compile(r"^(?P<who>.+?) (?:live|lives|are|am) at (?P<value>\d.+)$")),
    (
        "employer",
        re.compile(r"^(?P<who>.+?) (?:work|works|working) (?:for|at) (?:a (?:firm|company) called )?(?P<value>.+)$"),
    ),
    ("employer", re.compile(r"^(?P<who>.+?) (?:have |has )?got a job at (?P<value>.+)$")),
    ("employer", re.compile(r"^(?P<who>.+?) (?:am|is|are) employed by (?P<value>.+)$")),
    ("job", re.compile(r"^(?P<who>.+?) (?:work|works) as (?P<value>.+)$")),
    ("birthday", re.compile(r"^(?P<who>.+?) (?:was|were) born on (?P<value>.+)$")),
    ("children", re.compile(r"^(?P<who>.+?) (?:have|has)(?: got)? (?P<value>\w+) (?:children|kids)\b.*$")),
)
_ALLERGIC = re.compile(r"^(?P<who>.+?) (?:am|is|are) (?P<no>not )?(?:\w+ )?allergic to (?P<what>.+)$")
_ALLERGY = re.compile(r"^(?P<who>.+?) (?:have|has) (?P<no>no )?(?:\w+ ){0,3}allergy to (?P<what>.+)$")
_LIKES = re.compile(
    r"^(?P<who>i|we)(?: really| also| always| still)* (?P<verb>(?:do not |can not )?(?:like|love|hate|enjoy|stand|bear"
    r"|dislike|adore|detest|mind)) (?P<what>.+)$"
)
_HAS_EVENT = re.compile(
    r"^(?:i|we) (?:have|have got|got|am having|are having) (?:an?|my|our|the) (?P<thing>.+?) (?:on|at|in|next|this"
    r"|tomorrow)"
    r" (?P<value>.+)$"
)
_KEEPS = re.compile(
    rf"^(?:.*, )?(?:(?:i|we) (?:keep|hide|left|put|have)|there is) (?:an?|the|my"
    rf"|our) (?P<thing>(?:\w+ )?\w*key\w*) (?P<value>(?:{'|'.join(sorted(PLACES))}) .+)$"
)
_COMES = re.compile(
    r"^(?P<thing>.+?) (?P<verb>comes?|leaves?|starts?|opens?|closes?|arrives?|departs?|ends?|expires?|runs out"
    r"|takes off"
    r"|collected|emptied|due)(?: every| on| at| in| until| by) (?P<value>.+)$"
)
_HAS_ONE = re.compile(
    r"^(?:i|we) (?:have|have got) (?:an?|\w+) (?P<thing>(?:\w+ )?(?P<relation>\w+)) (?:called|named"
    r"|whose name is) (?P<value>.+)$"
)


def tells(text: str) -> tuple[str, str]:
    """(about, value) of a sentence; ("", "") when unsure."""
    said = _spoken(text)
    joined = " ".join(said)
    for reading in (_change, _allergy, _likes, _has, _does, _comes):
        if (found := reading(joined)) and found[0]:
            return found
    return _is(said) or ("", "")


def owners(text: str) -> frozenset[str]:
    """Of whose things a text speaks: the relations in it, and the names next to them or that own something."""
    found = {word.removesuffix("'s") for word in re.findall(r"[\w'-]+", text.lower())} & RELATIONS
    first = re.match(r"[\w-]+", text)
    for name in names_in(text):
        owns = re.search(rf"\b{re.escape(name)}'s?\b", text) or (first and name.startswith(first[0]))
        if owns or any(introduces(text, name)):
            found.add(name.lower())
    return frozenset(found)


def introduces(text: str, name: str) -> frozenset[str]:
    """As what of the caller's a text says who somebody is: "sister" of "my sister Anna" and "Anna is my sister"."""
    who = re.escape(name.lower())
    plain = text.lower()
    before = re.findall(
        rf"\b(?:my|our|have an?|got an?|has an?) (?:[\w-]+ ){{0,2}}?([\w-]+)"
        rf"(?:'s name is|'s called| is called| called| named| is named|,| is)? (?:mr |mrs |ms |dr )?{who}\b",
        plain,
    )
    after = re.findall(rf"\b{who}(?:,| is) (?:my|our) (?:[\w-]+ )?([\w-]+)", plain)
    return frozenset(word for word in [*before, *after] if word in RELATIONS)


def names_in(text: str) -> tuple[str, ...]:
    """Names, as far as capitals or "called" tell."""
    found: dict[str, None] = {}
    starts = True
    run: list[str] = []
    for piece in [*re.findall(r"[\w'-]+|[.,;:]", text), "."]:
        word = re.sub(r"'s$", "", piece)
        plain = word.lower()
        capital = word[:1].isupper() and plain not in TIMES and plain not in STOP_WORDS
        if capital and (not starts or _surely_a_name(piece, text)):
            run.append(word)
        elif run:
            found[" ".join(run)] = None
            run = []
        if piece != word and run:
            found[" ".join(run)] = None
            run = []
        starts = False
    for match in re.finditer(r"\b(?:called|named) ([a-z][\w'-]+)", text):
        if match[1] not in STOP_WORDS:
            found[match[1].capitalize()] = None
    return tuple(found)


def _surely_a_name(first: str, text: str) -> bool:
    """Of a capital at the start of a sentence: when a verb of people follows, or the word owns something."""
    rest = text[len(first) :].split()
    word = first.lower()
    if word in VERBS or word in RELATIONS or word in DETERMINERS or word in PLACES or word in STOP_WORDS:
        return False
    return bool(rest) and (first.endswith("'s") or rest[0] in ("is", "has", "lives", "works", "was", "and"))


def _spoken(text: str) -> list[str]:
    """The words with contractions undone, "my sister's called" too, and numbers as digits."""
    plain = text.lower()
    for short, whole in _EXPANDED:
        plain = short.sub(whole, plain)
    said = [word for word in words(plain) if word not in FILLING]
    opened: list[str] = []
    for at, word in enumerate(said):
        after = said[at + 1 : at + 2]
        verb_later = any(w in BE or w in VERBS for w in said[at + 1 :])
        is_verb = after and (after[0] in _IS_AFTER or after[0][:1].isdigit() or (at > 0 and not verb_later))
        if word.endswith("'s") and is_verb:
            opened += [word.removesuffix("'s"), "is"]
        else:
            opened.append(word)
    return opened


def _key(thing: list[str]) -> str:
    """ "the code of my brother's gate" is "brother gate code"; empty when it is nobody's known thing."""
    if not thing or len(thing) > LONGEST_SUBJECT:
        return ""
    for at, word in enumerate(thing):
        if at and word in ("of", "for", "to"):
            owner, owned = _key(thing[at + 1 :]), _key(thing[:at])
            return f"{owner} {owned}".strip() if owned and owner else ""
    if any(
        w in PRONOUNS or w in VERBS or w in PLACES or w in ("his", "her", "their", "your", "its", "and", "or")
        for w in thing
    ):
        return ""
    return " ".join(w.removesuffix("'s").removesuffix("'") for w in thing if w not in DETERMINERS)


def _who(subject: str) -> str | None:
    """The key of who does something: "" for the caller, None for nobody that is known."""
    subject = re.sub(r" (?:have|has|been|am|is|are)\b", "", subject)
    subject = re.sub(r"^.* (?=(?:i|we)$)", "", subject)  # "since May I", "I've changed jobs, I"
    if subject in ("i", "we", "my wife and i", "my husband and i", "me and my wife"):
        return ""
    return _key(subject.split()) or None


def _about(thing: list[str], value: list[str]) -> str:
    """The key of a thing together with which of its properties the value is."""
    key = _key(thing)
    if not key or not value or len(value) > LONGEST_VALUE or {"because", "while", "if", "until", "when"} & set(value):
        return ""
    head = key.split()[-1]
    timed = _timed(value)
    if value[0] in ("called", "named") and len(value) > 1:
        return f"{key} name" if head in ONE_OF_EACH else f"{key} {' '.join(value[1:3])}"
    if head == "name" and len(key.split()) > 1:
        owner = key.removesuffix(" name")
        owner_head = owner.split()[-1]
        one = owner_head in ONE_OF_EACH or owner_head not in RELATIONS
        return key if one else f"{owner} {' '.join(value[:2])}"
    if value[0] in JUDGING:
        return ""
    if "favourite" in key or "favorite" in key:
        return key.replace("favorite", "favourite")
    if head in EVENTS and timed:
        return key
    if value[0] in PLACES:
        if value[1:2] == ["year"]:
            return ""
        return "" if timed and head in RELATIONS else f"{key} where"
    if head in ATTRIBUTES:
        return key
    if head in ONE_OF_EACH and value[0] in ("mr", "mrs", "ms", "miss", "dr", "doctor"):
        return f"{key} name"
    if value[-1] in COLOURS and len(value) <= 2:
        return f"{key} colour"
    if value[0].isdecimal() and (len(value) == 1 or value[1:3] == ["years", "old"]) and head in RELATIONS:
        return f"{key} age"
    return ""


def _cut(value: list[str]) -> list[str]:
    """Without what is said about it: "4417 not 4471", "dr brown she is kind"."""
    end = next((at for at, word in enumerate(value) if at and (word in PRONOUNS or word in _ENDS)), len(value))
    return value[:end]


def _turned(thing: list[str], name: list[str]) -> tuple[str, str] | None:
    """Of "Anna is my sister", "Dr Brown is my dentist", "blue is my favourite colour"."""
    about = _about(thing, ["called", *name] if thing[-1] in RELATIONS else name)
    return (about, " ".join(name)) if about else None


def _timed(value: list[str]) -> bool:
    clock = value[0] == "at" and value[1:] and value[1][:1].isdigit()
    return clock or any(word in TIMES or re.match(r"\d+(?:st|nd|rd|th|am|pm)$", word) for word in value)


def _is(said: list[str]) -> tuple[str, str] | None:
    at = next((at for at, word in enumerate(said) if at and word in BE), 0)
    if not at or len(said) == at + 1:
        return None
    thing, value = said[:at], _cut(said[at + 1 :])
    if not value:
        return None
    if value[0] in ("my", "our") and not {"my", "our", "the"} & set(thing) and len(thing) <= LONGEST_NAME:
        return _turned(value, thing)
    if thing[0] in PLACES or thing[0] in ("since", "after", "for", "from", "before"):
        owner = max((at for at, word in enumerate(thing) if word in ("my", "our")), default=0)
        thing = thing[owner:] if owner else []
    about = _about(thing, value)
    shown = value[1:] if value[0] in ("called", "named", "on", "at", "in") and not about.endswith("where") else value
    return (about, " ".join(shown)) if about else None


def _change(said: str) -> tuple[str, str] | None:
    for pattern in _CHANGE:
        if found := pattern.match(said):
            value = _cut(found["value"].split())
            return _about(found["thing"].split(), value), " ".join(value)
    return None


def _allergy(said: str) -> tuple[str, str] | None:
    found = _ALLERGIC.match(said) or _ALLERGY.match(said)
    who = _who(found["who"]) if found else None
    if not found or who is None:
        return None
    what = _key(found["what"].split()[:LONGEST_LIKED])
    return (f"{who} {what} allergy".strip(), "not allergic" if found["no"] else "allergic") if what else None


def _likes(said: str) -> tuple[str, str] | None:
    found = _LIKES.match(said)
    if not found or len(found["what"].split()) > LONGEST_LIKED:
        return None
    what = _key(found["what"].split())
    return (f"like {what}", found["verb"]) if what else None


def _has(said: str) -> tuple[str, str] | None:
    if found := _HAS_ONE.match(said):
        return _about(found["thing"].split(), ["called", *found["value"].split()]), found["value"]
    if found := _HAS_EVENT.match(said):
        key = _key(found["thing"].split())
        if len(key.split()) > 1 and key.split()[-1] in EVENTS:
            return key, found["value"]
    if found := _KEEPS.match(said):
        return _about(found["thing"].split(), found["value"].split()), found["value"]
    return None


def _does(said: str) -> tuple[str, str] | None:
    for what, pattern in _DOES:
        found = pattern.match(said)
        who = _who(found["who"]) if found else None
        vague = found and what != "job" and re.match(r"an? |home\b|night|\d+ (?:year|month|week)", found["value"])
        if found and who is not None and not vague:
            return f"{who} {what}".strip(), found["value"]
    return None


def _comes(said: str) -> tuple[str, str] | None:
    found = _COMES.match(said)
    if not found or not any(word in TIMES or word[:1].isdigit() for word in found["value"].split()):
        return None
    key = _key(re.sub(r" (?:is|are|being|get|gets)\b", "", found["thing"]).split())
    verb = found["verb"].removesuffix("s") if found["verb"] != "runs out" else "expire"
    return (f"{key} {verb}", found["value"]) if key else None
