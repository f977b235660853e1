"""What is worth remembering of an utterance: rules, no model, and nothing that gives an order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import msgspec

from .about import EVENTS, TIMES, names_in, tells
from .english import RELATIONS, STOP_WORDS, VERBS, content_words, listed
from .kinds import Entities, Kind
from .refuse import any_of, asks, empty_talk, orders

LONGEST = 800  # letters of an utterance that are read: most of a minute of fast speech
LONGEST_NAME = 3  # words: "Mary Ann Smith"


class Noted(msgspec.Struct, frozen=True):
    """A thing worth remembering, in the caller's own words."""

    text: str
    entities: Entities
    emotions: tuple[str, ...] = ()
    importance: float = 0.5


def notice(text: str) -> list[Noted]:
    """What an utterance tells of the caller's world. Questions, orders and small talk give nothing."""
    said = plain(text)
    if orders(said):
        return []
    felt = emotions(said)
    noted: list[Noted] = []
    for sentence in _clauses(said):
        kept, asked = _tidy(sentence)
        if noted and _OF_SOMEBODY.match(kept) and not empty_talk(kept):
            # "She" by itself would mean nobody in the next call.
            noted[-1] = msgspec.structs.replace(noted[-1], text=f"{noted[-1].text} {_written(kept)}")
        elif one := _noted(kept, asked, felt):
            noted.append(one)
    return noted


def keep(text: str) -> Noted | None:
    """What was explicitly asked to be kept: whatever it is, unless it asks something or gives an order."""
    said = plain(text)
    kept, _ = _tidy(said)
    if orders(said) or asks(said) or not content_words(kept):
        return None
    return _entered(kept, True, emotions(said))


def correction(text: str) -> tuple[str, str] | None:
    """(right, wrong) of "no, sorry, it's 4471, not 4417"."""
    said = plain(text).rstrip(".!")
    found = _CORRECTION.search(said)
    if not found or orders(said) or _has_verb(found["right"]):
        return None
    return found["right"].strip(), found["wrong"].strip()


def emotions(said: str) -> tuple[str, ...]:
    """What the speaker feels, as far as the words name it."""
    found: dict[str, None] = {}
    heard = re.findall(r"[\w']+", said.lower())
    for at, word in enumerate(heard):
        denied = any(w in ("not", "never", "no") or w.endswith("n't") for w in heard[max(0, at - 2) : at])
        if word in _FEELINGS and not denied:
            found[_FEELINGS[word]] = None
    return tuple(found)


def plain(text: str) -> str:
    """A text without tags, brackets and what cannot be seen."""
    text = unicodedata.normalize("NFKC", text[:LONGEST]).replace("\u2019", "'")
    text = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text if unicodedata.category(c) != "Cf")
    return " ".join(re.sub(r"[<>\[\]{}|`*#_\\]+", " ", re.sub(r"<[^<>]{0,80}>", " ", text)).split())


# -- sentences --

_SHORT = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Prof|No|a\.m|p\.m|e\.g|i\.e|etc|vs)\.(?=\s+\w)")
_END = re.compile(r"(?<=[.?!;])\s+(?=\S)")
_ME = r"(?:i|i'm|i've|we|we're|we've)"
_ASK = r"(?:please|can you|could you|would you|do you|don't forget|remember)"
# Where a sentence goes on with another: after a conjunction, after a comma, or with nothing between.
_CUT = re.compile(
    rf"(?:,? (?:and|but|so|also|then|oh) |, )(?={_ASK}\b)|,? (?:and|but|so) (?=(?:what|where|when|how|who|any)\b)"
    rf"|,? (?:and|but|so|also|oh) (?={_ME}\b|(?:my|our|the)\b)"
    r"|, (?=(?:my|our) )|(?<=\w) (?=(?:i'm|i am|i live|i have|i've|i work|i love|i hate|we have|we live|can you"
    r"|could you|(?:my|our) (?:[\w']+ ){1,3}?(?:is|are) ))",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:if|when|because|since|after|before|as|while|although|though|whenever|until|once)\b", re.IGNORECASE
)
# What stands before "my" or "I" when they do not begin anything.
_LEADS = re.compile(
    r"(?i)\b(?:that|and|but|or|what|when|where|how|why|if|because|is|are|was|of|with|to|for|from|at|in|on|by|as"
    r"|than|like|love|loves|see|visit|before|after|since|until|while|which|who|says?|said|think|know|whether|do|does|did|have"
    r"|can|will|would|should|could|i|we|you|the|about|near)$"
)
_POINTS_BACK = re.compile(r"(?i)\b(?:he|she|it|they|him|her|them|his|their|that|there)\b")
_OF_SOMEBODY = re.compile(r"(?i)(?:he|she|they)(?:'s|'re|'ve)?\b|(?:his|her|their) ")


def _clauses(said: str) -> Iterator[str]:
    """The sentences of a text; those that run into one another are cut where each part stands by itself."""
    for sentence in _END.split(_SHORT.sub(r"\1", said)):
        begin = 0
        punctuated = bool(re.search(r"[.,?!]\s", sentence))
        for cut in _CUT.finditer(sentence):
            left, right = sentence[begin : cut.start()], sentence[cut.end() :]
            bare = cut[0] == " "
            if bare and (punctuated or left.count(" ") < 2 or _LEADS.search(left) or _BOUND.match(left)):
                continue
            first = " ".join(right.split()[:7])
            asks = re.match(rf"(?i)(?:{_ASK}|what|where|when|how|who|any)\b", right)
            if (
                _has_verb(left)
                and (asks or (_has_verb(first) and not _POINTS_BACK.search(right)))
                and not _BOUND.match(left)
            ):
                yield left
                begin = cut.end()
        yield sentence[begin:]


def _has_verb(clause: str) -> bool:
    return any(
        word in VERBS or word.endswith(("n't", "'s", "'m", "'ve", "'re", "'ll", "'d"))
        for word in re.findall(r"[\w']+", clause.lower())
    )


_FILLER = re.compile(
    r"(?i)(?<![\w'])(?:u+m+|u+h+|e+r+m*|a+h+|h+m+|mm+|(?<!so )you know(?! (?:that|what|how|who|where))|i mean"
    r"|sort of|kind of)(?![\w'])[,.]?\s*"
)
_DOUBLED = re.compile(
    r"(?i)\b((?!four|one|two|three|five|six|seven|eight|nine|zero|oh|double)[a-z']+)(?:[,\s]+\1\b)+(?!')"
)
_LEADING = re.compile(
    r"(?i)(?:"
    + any_of(r"""
    so|well|actually|oh|yes|yeah|yep|no(?! one\b)|nope|okay|ok|right|and|but|because|also|anyway|now|look|listen
        |see|basically|hey
    hi(?: there)?|hello(?: there)?|good (?:morning|afternoon|evening)|by the way|just so you know
        |you should know(?: that)?|(?:one|another|and another) (?:more )?thing|next thing|for your information|fyi
    (?:as )?i(?:'ve)?(?: already)? (?:said|told you|mentioned)(?: before)?(?: that)?|let me (?:tell you|see)
        |first of all
    i (?:think|believe|should say|must say|have to say|guess i should say|just wanted to say|can tell you)(?: that)?
    (?:sorry|thanks|thank you)(?=[,.!])|(?:please note|note)(?: that)?|the thing is(?: that)?|what i meant is
        |to be honest|honestly
    i(?:'d| would)? just (?:want|wanted|like) (?:you to know|to say|to tell you|to let you know)(?: that)?|in fact
        |luckily
    i(?:'ll| will) (?:give you|tell you) (?=my)|(?:can|may) i (?:just )?(?:tell|say)(?: you)? that|unfortunately
        |sadly|alright
    """)
    + r")(?:[,.!:]+\s*|\s+)(?=\S)"
)
_ASKED = re.compile(
    r"(?i)(?:(?:please|and|so|also|just|ok|okay|could you|can you|would you|will you|i want you to|i need you to"
    r"|i'd like you to|you should|you must|you have to|make sure you|make sure to|try to)[, ]+)*(?:"
    + any_of(r"""
    (?:please )?remember(?: for (?:me|next time|later))?(?: please)?(?!\s+(?:to|me|how|what|when|where|who|if|you
        |your)\b)
    (?:don't|do not|never|not to) (?:you )?forget(?: please)?(?: about)?(?!\s+(?:to|me|how|what|you|your)\b)
    (?:make|take) (?:a|another) (?:mental )?note(?: please)?(?: of)?|note(?: down)?|write(?: this| that| it)? down
        |jot down
    keep(?: it)? in mind|bear(?: it)? in mind|keep a note of|save|store|remind me
    """)
    + r")(?:[,:]| please)*(?: that| this)?(?:[,:] ?| )+(?=\S)"
)
_TAIL = re.compile(
    r"(?i)[\s,]*\b(?:please|thank you|thanks|okay|ok|you know|if you (?:want|need) (?:it|to know)|for (?:next time"
    r"|the record)|by the way|all right|(?:will|would|can) you)$"
)


def _tidy(sentence: str) -> tuple[str, bool]:
    """The words without what carries nothing, and whether they were asked to be remembered."""
    said = _DOUBLED.sub(r"\1", _FILLER.sub("", sentence)).strip(" ,;-\u2013\"'")
    asked = False
    for _ in range(6):  # "oh, and by the way, please don't forget that ..."
        if found := _ASKED.match(said):
            asked = True
        elif not (found := _LEADING.match(said)):
            break
        said = said[found.end() :]
        if found[0].lower().rstrip().endswith("remind me"):
            said = re.sub(r"(?i)^to ", "I have to ", said)
    ends = "?" if said.endswith("?") and not asked else ""
    return _TAIL.sub("", said.rstrip(" .,!?;:")) + ends, asked


def _written(said: str) -> str:
    """As a sentence: a capital and a full stop."""
    said = re.sub(r"\bi(?=\b|')", "I", said.rstrip(" .,!?;:"))
    return f"{said[:1].upper()}{said[1:]}."


# -- names of the caller --

_CALLED = r"(?P<name>[^\W\d_][\w'-]*(?: [^\W\d_][\w'-]*){0,3})"
_NAME = re.compile(
    r"(?i:^|.*?\b)(?:"
    rf"(?i:my (?:full |first |real |last )?name(?:'s| is)(?: now)?(?: not \w+,? (?:it's|but))?|(?:you can|just"
    rf"|please|everyone|everybody|people|(?:all )?my (?:friends|family)|they) calls? me|call me|i go by|i'm called"
    rf"|i am called) {_CALLED}"
    rf"|(?i:this is) (?P<name2>{_CALLED.replace('?P<name>', '?:')}?)(?i:,? (?:speaking|calling|again|here|from)\b)"
    rf"|(?i:(?:it's|it is|i'm|i am)) (?P<name4>[A-Z][\w'-]+(?: [A-Z][\w'-]+){{0,2}})(?i:,? (?:speaking|calling"
    rf"|again|here|from)\b)"
    rf"|(?i:^(?:this is|i'm|i am)) (?P<name3>[A-Z][\w'-]+(?: [A-Z][\w'-]+){{0,2}})$)"
)
_NOBODY = frozenset(
    listed("""
    me us system admin administrator god back later tomorrow today tonight soon again now crazy british english irish
    scottish welsh french german dutch polish italian spanish american canadian australian indian chinese japanese
    swiss austrian greek turkish russian swedish danish norwegian portuguese brazilian mexican catholic jewish muslim
    christian hindu buddhist european african asian calling speaking ringing taxi mum dad home always never names when
    if master
    """)
)


def _name(said: str) -> str:
    found = _NAME.match(said.rstrip(" .,!"))
    if not found:
        return ""
    heard = (found["name"] or found["name2"] or found["name3"] or found["name4"]).split()
    cased = heard[0][:1].isupper()
    name: list[str] = []
    for word in heard[:LONGEST_NAME]:
        lower = word.lower()
        if lower in STOP_WORDS or lower in _NOBODY or lower in VERBS or lower in TIMES or (cased and word[0].islower()):
            break
        name.append(word if cased else word.capitalize())
    return " ".join(name)


# -- kinds --

_PREFERS = re.compile(
    r"(?i)\b(?:"
    + any_of(r"""
    (?:love|loves|prefers?|enjoys?|hates?|dislikes?|adores?|detests?|favou?rites?)|(?:can't|cannot
        |can not) (?:stand|bear)
    (?:i|we|he|she|they|who|really|also|always|all|both|not|don't|doesn't|never) like|likes|fond of|keen on|fan of
    i'd rather|i would rather|rather (?:not|than|have)|allergic|allergy|intolerant|vegetarian|vegan|gluten|lactose
    (?:don't|doesn't|never|not|only|can't) (?:eat|drink)s?|(?:afraid|scared|terrified|frightened) of|mad about
    """)
    + r")\b"
)
_HEALTH = re.compile(
    r"(?i)\b(?:allerg\w+|medicines?|medication|tablets?|pills?|insulin|inhaler|diabet\w+|asthma\w*|epilep\w+"
    r"|pacemaker|heart condition"
    r"|blood (?:type|pressure|thinners?|group)|penicillin|antibiotics?|doses?|prescri\w+|epipen|pregnan\w+"
    r"|c[o]?eliac|warfarin|deaf|blind|stroke)\b"
)
_CODE = re.compile(
    r"(?i)\b(?:code|pin|password|passcode|combination|number|postcode|address|registration|reference|alarm)\b"
)
_DECIDES = re.compile(
    r"(?i)\b(?:decided|going (?:with|for)|(?:go|went) (?:with|for)|let's (?:take|have|go with|make it|do|say)|(?:i"
    r"|we)(?:'ll| will) (?:take|have|go|stick|keep|pay)"
    r"|agreed|settled on|chosen|chose|cancell?ed|called off|made up (?:my|our) mind|opted|ordered|signed up|booked"
    r"|picked|changed (?:my|our) minds?|taking the|switched)\b"
)
_WHEN = re.compile(
    r"(?i)\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|tomorrow|tonight|next (?:week|month|year|spring|summer"
    r"|autumn|winter)|(?:january|february|march|april|june|july"
    r"|august|september|october|november|december)|(?:in|on|of) may|may (?:the )?\w+(?:st|nd|rd|th)|o'clock"
    r"|\d+ ?(?:am|pm)|at (?:noon|midnight|\d+|one|two|three|four|five"
    r"|six|seven|eight|nine|ten|eleven|twelve|half|quarter)|\d+(?:st|nd|rd|th)|this (?:morning|afternoon|evening"
    r"|weekend|week))\b"
)
_TO_COME = re.compile(
    r"(?i)\b(?:(?:i|we|you) (?:have|need|must|'ve got|'ll)|i'll|we'll|i've got to|getting|coming|leaving|flying"
    r"|arriving|starting|moving|going|visiting|seeing"
    r"|meeting|due|takes? off|booked|comes|leaves|starts|arrives|departs|moved to|put off|postponed|rescheduled)\b"
)
_MY_LIFE = re.compile(r"(?i)\b(?:my|our|mine|ours|i|we|me|us|i'm|i've|i'd|i'll|we're|we've|we'll|we'd)\b")
_PLACED = re.compile(
    r"(?i)\b(?:in|on|at|under|behind|beside|by|near|next|inside|above|below|with|for|from|called|named|opposite"
    r"|beneath|to|over)\b"
)
_JUDGES = re.compile(
    r"(?i)^(?:the|this|that|these|those|everything) [\w' ]{2,40}?(?:is|was|are|were|looks?|sounds?|tastes?"
    r"|feels?)(?: (?:so|very|really|quite|pretty|just"
    r"|absolutely|too|a bit|rather))* (?:good|bad|nice|great|lovely|terrible|awful|wonderful|fantastic|amazing"
    r"|boring|brilliant|beautiful|horrible|fine"
    r"|funny|weird|strange|interesting|cold|hot|warm|loud|perfect|delicious|annoying|excellent|disappointing|noisy"
    r"|ok|okay)(?: today| tonight| now)?$"
)
_VAGUE = re.compile(r"(?i)\b(?:something|stuff|things?|somewhere|sometimes|some|a bit|a little|quite)\b")

WEIGHT: dict[Kind, float] = {
    "name": 0.95, "appointment": 0.85, "person": 0.8, "preference": 0.75, "decision": 0.75, "fact": 0.7,
}  # fmt: skip
HEALTH = 0.95  # what a caller may come to harm by
ASKED = 0.9  # what was asked to be remembered, and numbers that open things
VAGUE = 0.15  # less for what says nothing exact


def _noted(said: str, asked: bool, felt: tuple[str, ...]) -> Noted | None:
    """One sentence as a memory, if it tells anything of the caller's world."""
    if name := _name(said):
        return Noted(_written(said), Entities("name", "name", name, (name,)), felt, WEIGHT["name"])
    if said.endswith("?") or empty_talk(said):
        return None
    carried = content_words(said)
    if not carried or (not asked and not _tells_something(said, carried)):
        return None
    if asked and not _has_verb(said) and not _MY_LIFE.search(said) and not re.search(r"\d", said):
        return None
    return _entered(said, asked, felt)


def _tells_something(said: str, carried: list[str]) -> bool:
    """Whether a statement is about the speaker's life, or names, numbers or places something in it."""
    lower = said.lower()
    english = sum(word in STOP_WORDS or word in VERBS for word in re.findall(r"[\w']+", lower))
    if not english or _JUDGES.search(lower):
        return False
    if _MY_LIFE.search(lower):
        return (
            len(carried) > 1
            or bool(_PREFERS.search(lower) or RELATIONS & set(carried))
            or lower.startswith(("i'm a", "i am a", "i have ", "i've got"))
        )
    exact = re.search(r"\d", " ".join(carried)) or names_in(said) or _WHEN.search(lower)
    subject = lower.split(" ", 1)[0]
    enough = 1 if exact or _PLACED.search(lower) or subject == "the" or subject not in STOP_WORDS else 2
    return len(carried) > enough


def _entered(said: str, asked: bool, felt: tuple[str, ...]) -> Noted:
    about, value = tells(said)
    kind = _kind(said)
    weight = WEIGHT[kind]
    if _HEALTH.search(said):
        weight = HEALTH
    elif asked or (_CODE.search(said) and re.search(r"\d", " ".join(content_words(said)))):
        weight = ASKED
    elif _VAGUE.search(said):
        weight -= VAGUE
    return Noted(_written(said), Entities(kind, about, value, names_in(said)), felt, round(weight, 2))


def _kind(said: str) -> Kind:
    carried = set(re.findall(r"[\w-]+", said.lower()))
    if _PREFERS.search(said):
        return "preference"
    if _WHEN.search(said) and (carried & EVENTS or _TO_COME.search(said)):
        return "appointment"
    if _CODE.search(said) and re.search(r"\d", " ".join(content_words(said))):
        return "fact"
    if _DECIDES.search(said):
        return "decision"
    return "person" if carried & RELATIONS else "fact"


# -- the rest --

_CORRECTION = re.compile(
    r"(?i)(?:^|\b)(?:no|sorry|wait|actually|i meant?|correction|it's|that's|it is)[ ,]+(?:(?:sorry|it's|it is"
    r"|that's|i meant?|no|make it|the)[ ,]+)*"
    r"(?P<right>[\w' -]{1,40}?),? (?:and )?not (?P<wrong>[\w' -]{1,40})$"
)

_FEELINGS = {
    word: feeling
    for feeling, named in {
        "happy": "happy glad delighted pleased thrilled overjoyed cheerful",
        "excited": "excited exciting",
        "grateful": "grateful thankful",
        "proud": "proud",
        "relieved": "relieved",
        "loving": "love adore",
        "sad": "sad unhappy upset depressed miserable heartbroken crying grieving mourning",
        "lonely": "lonely",
        "worried": "worried anxious nervous stressed concerned",
        "afraid": "afraid scared frightened terrified",
        "angry": "angry furious annoyed fuming",
        "frustrated": "frustrated",
        "disappointed": "disappointed",
        "tired": "tired exhausted",
        "ashamed": "ashamed embarrassed guilty",
        "surprised": "surprised shocked amazed",
        "hurt": "hurt hurts pain painful",
    }.items()
    for word in listed(named)
}
