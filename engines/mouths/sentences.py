"""A text that is still being written, cut into what can be spoken already.

Works on the text as wits write it; how a piece of it sounds is for `speakable`. No clock, and no way of cutting the
text that comes in changes what goes out.
"""

from __future__ import annotations

import re

from .figures import MONTHS

# What stands before a name only, so that its dot never ends a sentence.
TITLES = {"Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor", "Capt": "Captain", "Gen": "General"}
TITLES |= {"Gov": "Governor", "Lt": "Lieutenant", "Rev": "Reverend", "Sen": "Senator", "Sgt": "Sergeant", "Mt": "Mount"}
PLACES = {"St": ("Saint", "Street"), "Dr": ("Doctor", "Drive")}  # before a name, and behind one
INNER = {"vs": "versus", "approx": "approximately", "cf": "compare"}  # always in mid-sentence
LAST = {"etc": "et cetera", "Jr": "Junior", "Sr": "Senior", "Ave": "Avenue", "Rd": "Road", "Blvd": "Boulevard"}
LAST |= {"Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", "Dept": "Department"}  # may end one
EXAMPLES = {"e.g": "for example", "i.e": "that is"}
CLOCK = {"a.m": "AM", "p.m": "PM"}
SHORT_MONTHS = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
NUMBERED = {"no": "number", "nos": "numbers", "p": "page", "pp": "pages", "fig": "figure", "vol": "volume"}
NUMBERED |= {"ch": "chapter", "ext": "extension", "sec": "section", "eq": "equation", "apt": "apartment"}
BEFORE_NAMES = {"and", "by", "for", "from", "of", "to", "with"}  # small words behind which "J." is an initial

FIRST_WORDS = 4  # fewer, with a pause behind them, sound cut off
PATIENCE = 24  # letters, a quarter of a second of most models' writing: an end so near is worth waiting for
SHORT = 12  # letters of a sentence that is spoken together with the next: "No. I mean yes."
LONG = 200  # letters, 12 seconds of talk: too much to make sound of before any of it is heard
LEAST = 60  # letters of it before a comma where it may be cut: a voice loses its melody over less
HARD = 300  # letters after which one does not wait for an end that may never come
AHEAD = 50  # characters that are looked at behind an end; so much white space is enough of one
DOTS = 20  # of a row that are taken together; nobody means more by more

CLOSING = "[\"')\\]}*_\u201d\u2019»]{0,9}"  # what may stand between a mark and the white space behind it
END = re.compile(rf"([.!?…]{{1,{DOTS}}})({CLOSING})|\n")
COMMA = re.compile(rf"(?:[,;:—\u2013]|(?<=\s)-){CLOSING}(?=\s+[^\s\d])")
ITEM = re.compile(r"(?:^|\n)[\s>]*\d{1,2}$")
INITIALS = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
WORDY = re.compile(r"[^\W_]")  # without one of these there is nothing to say yet
LINK = re.compile(r"\s(?=(?:and|but|or|so|because|which|who|where|when|while|although|if|that|then)\s)")


class Sentences:
    """For one answer: push what is written as it comes, and take the rest when it is complete.

    The first piece comes soon, at a comma if need be. No piece is empty, none has white space at its ends, and together
    they are the text; a word is cut only if it is longer than a piece may be.
    """

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def push(self, piece: str) -> list[str]:
        """The sentences that are complete by now."""
        return self._take(piece, final=False)

    def rest(self) -> list[str]:
        """What is left when no more comes."""
        return self._take("", final=True)

    def _take(self, piece: str, final: bool) -> list[str]:
        self._text = (self._text + piece).lstrip()
        sentences: list[str] = []
        while self._text and (border := self._border(final)) is not None:
            sentences.append(self._text[:border].rstrip())
            self._text = self._text[border:].lstrip()
            self._first = False
        return sentences

    def _border(self, final: bool) -> int | None:
        """How many characters of the text are the next piece; None while that may still change."""
        text = self._text
        none_before, end = self._end(final)
        if self._first:
            for comma in COMMA.finditer(text, 0, min(none_before, HARD)):
                if none_before - comma.end() <= PATIENCE:
                    break
                if len(text[: comma.end()].split()) >= FIRST_WORDS:
                    return comma.end()
        if none_before <= LONG:
            return end
        for breath in (COMMA, LINK):
            breaths = [each.end() for each in breath.finditer(text, LEAST, LONG)]
            if breaths:
                return breaths[-1]
        if none_before < HARD or end == HARD:
            return end
        space = max(text.rfind(space, 0, HARD) for space in (" ", "\n", "\t"))
        return space if space > 0 else HARD

    def _end(self, final: bool) -> tuple[int, int | None]:
        """The place before which no sentence ends; and the same if one ends there for sure."""
        word = WORDY.search(self._text)
        least = len(self._text) if word is None else max(word.end(), 0 if self._first else SHORT)
        for mark in END.finditer(self._text):
            if mark.start() > HARD:
                return mark.start(), None
            ends = _ends(self._text, mark, final)
            if ends is None:
                return mark.start(), None
            if ends and mark.end() > least:
                return mark.end(), mark.end()
        return len(self._text), len(self._text) if final else None


def _ends(text: str, mark: re.Match[str], final: bool) -> bool | None:
    """Whether a sentence ends with this mark; None if that depends on what is still to come."""
    after = text[mark.end() : mark.end() + AHEAD]
    following = after.lstrip()
    unknown = True if final or len(after) == AHEAD else None
    if mark[0] == "\n":
        if "\n" in after[: len(after) - len(following)]:
            return True
        return not following[0].islower() if following else unknown
    if not after:
        return unknown
    if not after[0].isspace():
        return False
    if mark[0] == ".":
        return _full_stop(text[: mark.start()], following, unknown)
    if mark[2] or mark[1].strip(".…") == "":
        return not following[0].islower() if following else unknown
    return True


def _full_stop(text: str, following: str, unknown: bool | None) -> bool | None:
    """Whether the full stop behind this text is one, and not that of an abbreviation, a name or an item's number."""
    *before, word = text[-HARD:].rsplit(maxsplit=2) or [""]
    word = word.lstrip("\"'([{*_\u201c\u2018")
    small = word.lower()
    if word in TITLES or word in PLACES or small in INNER or small in EXAMPLES:
        return False
    if (INITIALS.fullmatch(word) and small not in CLOCK) or (word.isdigit() and ITEM.search(text)):
        return False
    if small in NUMBERED:
        return not following[0].isdigit() if following else unknown
    if word in LAST or word in SHORT_MONTHS or small in CLOCK:
        return not (following[0].islower() or following[0].isdigit()) if following else unknown
    if is_initial(word, before[-1] if before else ""):
        return not following[0].isupper() if following else unknown
    return True


def is_initial(word: str, before: str) -> bool:
    """Whether a letter with a dot is that of a name, rather than the end of a sentence as in "vitamin C."."""
    return len(word) == 1 and word.isupper() and word != "I" and (not before[:1].islower() or before in BEFORE_NAMES)
