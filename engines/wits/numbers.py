"""Numbers as a telephone says them: digits out of words, digits one by one, the time and the date in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from .english import listed

SMALL = listed("""
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen
    """)
TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = listed("""
        first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
        fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
    """)
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("January February March April May June July August September October November December")
VALUES = {word: value for value, word in enumerate(SMALL)} | {word: 10 * ten for ten, word in enumerate(TENS, 2)}
DIGITS = {word: str(value) for word, value in VALUES.items()} | {"oh": "0", "o": "0", "nought": "0", "niner": "9"}
REPEATS = {"double": 2, "triple": 3}
ALIKE = {"for": "4", "fore": "4", "to": "2", "too": "2", "won": "1", "ate": "8"}
"""What an ear writes for a digit in the middle of others."""

IN_CODE = 3  # digits that are said one by one where a code is spoken of; two are a number
ALWAYS = 5  # digits that are said one by one wherever they stand: no year and no price has so many
ROW = 3  # single digits that make one number without anybody saying that it is a code

CODE = re.compile(
    r"(?i)\b(?:\w*code|codis|cody'?s|pin|numbers?|password|passcode|phone|telephone|mobile|account|extension|combination|postcode|zip"
    r"|reference|registration|plate|iban|room|gate|locker|lock|safe|alarm)\b"
)
"""What is told digit by digit."""
_LETTERED = re.compile(r"(?<![\w.,:£$€'])([A-Za-z]{0,3})(\d+)([A-Za-z]{0,2})(?![\w:%]|[.,]\d)")
_ENDING = re.compile(r"(?i)st|nd|rd|th|am|pm|s")  # after digits: no letters of their own


def figures(text: str) -> str:
    """The same with every row of spoken digits as one number: "is four four one seven" gives "is 4417".

    Where a code is spoken of, words that sound like digits count between digits, and so do "28" and "twenty eight".
    """
    code = bool(CODE.search(text))
    words, found, at = text.split(), list[str](), 0
    while at < len(words):
        end = _row(words, at, code)
        items = _items(words[at:end])
        row = len(items) >= ROW and all(len(item) == 1 for item in items)
        hour = at > 0 and _bare(words[at - 1]) == "at"
        if items and (row or (code and not hour)):
            mark = words[end - 1][-1]
            single = len(items) < IN_CODE and all(len(item) == 1 for item in items)
            found.append((" " if single else "").join(items) + (mark if mark in ",.;?!" else ""))
        else:
            end = max(end, at + 1)
            found += words[at:end]
        at = end
    return " ".join(found)


def _row(words: Sequence[str], at: int, code: bool) -> int:
    """Where the row of digits ends that begins here; `at` if there is none."""
    end, sure = at, 0
    while end < len(words):
        word = _bare(words[end])
        if word.isdecimal():
            sure += len(word)
        elif word in DIGITS:
            sure += word not in ("o", "oh")
        elif word not in REPEATS and not (code and word in ALIKE and _digit_near(words, at, end)):
            break
        end += 1
        if words[end - 1][-1] in ".;?!":
            break
    while end > at and _bare(words[end - 1]) in REPEATS:
        end -= 1
    alone = end - at == 1 and _bare(words[at]) in SMALL[:10]  # "seven" by itself may stay a word
    begins_badly = _bare(words[at]) in ALIKE and sure < 2
    return at if alone or not sure or begins_badly else end


def _digit_near(words: Sequence[str], at: int, here: int) -> bool:
    """Whether a word that sounds like a digit stands where one would: before a digit, or at the end after two."""
    follows = [_bare(word) for word in words[here + 1 : here + 3]]
    if follows:
        rest = [_bare(word) for word in words[here + 1 :]]
        if _bare(words[here]) == "for" and all(map(_digital, rest)) and len("".join(_items(rest))) >= IN_CODE:
            return True  # "for 417" at the very end
        before = at < here or _bare(words[here - 1]) in ("is", "number", "was", "be") if here else False
        return before and (_digital(follows[0]) or (follows[0] in ALIKE and _digital(follows[-1])))
    return here - at >= 2


def _digital(word: str) -> bool:
    return word.isdecimal() or word in DIGITS or word in REPEATS


def _bare(word: str) -> str:
    word = word.strip(",.;:?!").lower()
    joined = re.sub(r"(?<=\d)[,-](?=\d)", "", word)
    return joined if joined.isdecimal() else word


def _items(words: Sequence[str]) -> list[str]:
    items: list[str] = []
    times, ten = 1, False
    for word in map(_bare, words):
        if word in REPEATS:
            times = REPEATS[word]
            continue
        digits = word if word.isdecimal() else DIGITS.get(word) or ALIKE[word]
        if ten and times == 1 and word in SMALL[1:10]:
            items[-1] = items[-1][0] + digits
        else:
            items.append(digits * times)
        times, ten = 1, word in TENS
    return items


def spoken(sentence: str) -> str:
    """The sentence as a voice should say it: codes digit by digit, letters apart from digits."""
    code = bool(CODE.search(sentence))

    def one_by_one(found: re.Match[str]) -> str:
        before, digits, after = found.groups()
        if after and _ENDING.fullmatch(after):
            return found[0]
        if len(digits) >= ALWAYS or (len(digits) >= IN_CODE and (code or before)) or digits.startswith("0"):
            digits = " ".join(digits)
        return " ".join([*before.upper(), digits, *after.upper()])

    return _LETTERED.sub(one_by_one, sentence)


def in_words(number: int) -> str:
    """0 to 99."""
    if number < 20:
        return SMALL[number]
    return TENS[number // 10 - 2] + (f" {SMALL[number % 10]}" if number % 10 else "")


def clock(now: datetime) -> str:
    """ "three thirty in the afternoon"."""
    if now.hour in (0, 12) and not now.minute:
        return "midnight" if now.hour == 0 else "noon"
    hour, minute = in_words(now.hour % 12 or 12), now.minute
    told = f"{hour} {'oh ' if minute < 10 else ''}{in_words(minute)}" if minute else f"{hour} o'clock"
    if now.hour < 12:
        part = "in the morning"
    else:
        part = "in the afternoon" if now.hour < 18 else "in the evening" if now.hour < 22 else "at night"
    return f"{told} {part}"


def day(when: datetime) -> str:
    """ "Thursday, the fifth of March"."""
    tens, units = divmod(when.day, 10)
    if when.day <= 20:
        nth = ORDINALS[when.day - 1]
    else:
        nth = f"{TENS[tens - 2]} {ORDINALS[units - 1]}" if units else "thirtieth"
    return f"{DAYS[when.weekday()]}, the {nth} of {MONTHS[when.month - 1]}"


# -- sums --

_NUMBER = rf"(?:\d{{1,6}}|(?:(?:{'|'.join(VALUES)}|hundred) ?){{1,5}}(?<! ))"
_SUM = re.compile(
    rf"(?:(?:what|how much)(?:'s| is| are| a)? |calculate )?(?P<a>{_NUMBER}) ?(?P<op>plus|and|minus|less|times"
    rf"|multiplied by|divided by|x|[+*/\u00d7-]) ?(?P<b>{_NUMBER})(?: equals?| is)?"
)


def reckon(said: str) -> str | None:
    """The answer to "what is seventeen times three", in digits; None if that is no sum of two numbers."""
    found = _SUM.fullmatch(said)
    if not found:
        return None
    a, b = _value(found["a"]), _value(found["b"])
    match found["op"]:
        case "plus" | "and" | "+":
            return str(a + b)
        case "minus" | "less" | "-":
            return f"minus {b - a}" if b > a else str(a - b)
        case "divided by" | "/":
            if not b:
                return "nothing, as nothing divides by zero"
            return f"{'' if a * 100 % b == 0 else 'about '}{round(a / b, 2):g}"
        case _:
            return str(a * b)


def _value(said: str) -> int:
    total = 0
    for word in said.split():
        total = (
            max(total, 1) * 100 if word == "hundred" else total + VALUES.get(word, int(word) if word.isdecimal() else 0)
        )
    return total
