"""The little English that the notebook knows: a text made plain and cut into clauses, and "my" turned to "your"."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 800  # letters of a turn that are read: most of a minute of fast speech
SYMBOLS = "+=$\u00a3\u20ac\u00b0\u00d7"  # signs that a voice can say

# What the ear of this project makes of ordinary things, and what they are.
_MISHEARD = tuple(
    (re.compile(pattern, re.IGNORECASE), right)
    for pattern, right in (
        (r"\bpenis(?=[ ,]+(?:\d|(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double)\b))", "PIN is"),
        (r"\bpenis\b", "peanuts"),
        (r"\b(?:wi fi|why fi|wife ?fi|wife's ?i|wife\??,? i|wife's wife's)(?= pa(?:ss|th))", "wifi"),
        (r"\b(?:wi fi|why fi)\b", "wifi"),
        (r"\b(?:a )?(?:gay|gait|gate),? (?:code|coat|cote)\b", "gate code"),
        (r"\bpass(?:ed)? (?:word|work|were?|for)\b", "password"),
        (r"\bboss (?=line\b|stop\b)", "bus "),
        (r"\bto (day|night|morrow)\b", r"to\1"),
        (r"\bgood by(?:e)?\b|\bgoodby\b", "goodbye"),
        (r"\bcan't you,? (?=goodbye\b)", "thank you, "),
        (r"(?<=th of )me\b|(?<=(?:first|third) of )me\b|(?<=second of )me\b", "May"),
        (r"\bpee\W+i\W+(?:an|n|m)\b'?", "PIN"),
        (r"\bP\.? ?I\.? ?N\b\.?", "PIN"),
    )
)
_UNSPEAKABLE = re.compile(r"[<>\[\]{}|`*#_\\^~\"\u201c\u201d\u00ab\u00bb]+")
_SPELLED = re.compile(r"\b[A-Za-z]\.(?: ?[A-Za-z]\.)+")
_TITLE = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Prof)\.")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010-\u2015]+(?=\w)|(?<=\w)[-\u2010-\u2015]+(?=[^\W\d_])|\s[-\u2010-\u2015]+\s")


def listed(words: str) -> list[str]:
    return words.split()


def one_of(lines: str) -> str:
    """A pattern of alternatives, one or more a line."""
    return f"(?:{'|'.join(line.strip() for line in lines.strip().splitlines())})"


def plain(text: str) -> str:
    """A text without what cannot be said, with what is often misheard put right."""
    text = unicodedata.normalize("NFKC", text[:LONGEST]).replace("\u2019", "'")
    text = "".join(c if c in SYMBOLS or unicodedata.category(c)[0] not in "CS" else " " for c in text)
    text = _SPELLED.sub(lambda found: re.sub(r"[. ]", "", found[0]).upper(), _TITLE.sub(r"\1", text))
    text = " ".join(_HYPHEN.sub(" ", _UNSPEAKABLE.sub(" ", text)).split())
    for pattern, right in _MISHEARD:
        text = pattern.sub(right, text)
    return text


# -- clauses --

VERBS = frozenset(
    listed("""
        is are was were am be has have had lives live works work likes like loves love hates needs need wants
        parked left put called named born moved means takes goes drives
    """)
)
_END = re.compile(r"(?<=[.?!;])\s+")
_ASKING = (
    r"(?:what|when|where|who|how|can you|could you|would you|will you|do you|please|tell me|remember|don't forget"
    r"|do not forget|forget|is it|are you|thank|goodbye|bye)\b"
)
_CUT = re.compile(
    rf"(?i),? (?:and|but|also|then|oh)(?: then| also)? (?={_ASKING})|, (?={_ASKING})|[, ]+and (?=(?:my|our|I|I'm)\b)"
)


def clauses(text: str) -> list[str]:
    """The parts of a turn that can be answered one by one. A question that the ear broke in two is one again."""
    found: list[str] = []
    for sentence in _END.split(text):
        begin = 0
        for cut in _CUT.finditer(sentence):
            left, right = sentence[begin : cut.start()], sentence[cut.end() :]
            if re.match(r"(?i)(?:my|our|I)\b", right) and not (has_verb(left) and has_verb(right)):
                continue
            found.append(left)
            begin = cut.end()
        found.append(sentence[begin:])
    whole: list[str] = []
    for clause in found:
        if whole and whole[-1].endswith("?") and _BROKEN.search(whole[-1]) and _REST.fullmatch(clause):
            whole[-1] = f"{whole[-1][:-1]} {clause}"
        elif re.search(r"\w", clause):
            whole.append(clause)
    return whole


_BROKEN = re.compile(r"(?i)^(?:what|when|where|who)(?:'s| is| was| are) (?:my|our|the)(?: [\w']+){1,2}\?$")
_REST = re.compile(r"(?!(?i:yes|no|ok|okay|thanks|please|thank|bye|goodbye|hello)\b)[\w']+(?: [\w']+)?\W*")


def has_verb(text: str) -> bool:
    words = re.findall(r"[\w']+", text.lower())
    return any(word in VERBS or word.endswith(("'m", "'re", "'ve")) for word in words)


# -- turning --

_TURNED = {
    "i": "you",
    "i'm": "you're",
    "i've": "you've",
    "i'd": "you'd",
    "i'll": "you'll",
    "am": "are",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "we": "you",
    "we're": "you're",
    "we've": "you've",
    "we'd": "you'd",
    "we'll": "you'll",
    "us": "you",
    "our": "your",
    "ours": "yours",
    "ourselves": "yourselves",
    "you're": "I'm",
    "you've": "I've",
    "you'd": "I'd",
    "you'll": "I'll",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
}
_AFTER_I = {"was": "were", "wasn't": "weren't"}
_AFTER_YOU = {"are": "am", "were": "was", "aren't": "am not", "weren't": "wasn't"}
# After these "you" is whom something happens to.
_TO_YOU = frozenset(
    listed("""
        to for with at about from of on by than tell told ask asked see saw hear heard thank love hate like call
        called give gave show help helped meet met let want need believe trust without near behind between
    """)
)
_AUXILIARY = frozenset(
    listed("""
        are were can could will would should must may might do did have had are aren't weren't can't know said
    """)
)
_SAID = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def turned(text: str) -> str:
    """The caller's words as the agent says them: "my code is 4417" is "your code is 4417", "I see you" "you see me"."""
    heard = list(_SAID.finditer(text))
    words = [word[0].lower() for word in heard]
    said, end = [], 0
    for at, word in enumerate(heard):
        before = words[at - 1] if at else ""
        after = words[at + 1] if at + 1 < len(words) else ""
        said += [text[end : word.start()], _turn(word[0], before, after)]
        end = word.end()
    return "".join(said) + text[end:]


def _turn(word: str, before: str, after: str) -> str:
    small = word.lower()
    if small == "you":
        return "I" if after in _AUXILIARY or (after and before not in _TO_YOU) else "me"
    if small in _AFTER_I and "i" in (before, after):
        return _AFTER_I[small]
    if small in _AFTER_YOU and "you" in (before, after):
        return _AFTER_YOU[small]
    if small == "us" and word.isupper():
        return word
    return _TURNED.get(small, word)


def sentence(text: str) -> str:
    """With a capital, an end and a proper "I"."""
    text = re.sub(r"\bi(?=\b)", "I", text.strip(" ,.;:?!-'"))
    return f"{text[:1].upper()}{text[1:]}."
