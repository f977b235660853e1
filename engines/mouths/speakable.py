"""From a text as wits write it to words that a voice can say. English.

A language model writes for the eye: markdown, figures, addresses, emojis. Here it is written out as one would read it
over the telephone: markup is dropped, numbers and abbreviations become words, and what groups the text for the eye
becomes a pause. What comes out is letters, marks of pause, and apostrophes and hyphens within words: nothing that a
voice could take for a command. Every pattern takes time in proportion to the text, whatever a model was made to write.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TypeAlias

from . import figures
from .figures import MONTHS, PER, UNITS, amount_or_code, digits
from .sentences import CLOCK, EXAMPLES, INNER, LAST, NUMBERED, PLACES, SHORT_MONTHS, TITLES, is_initial

Said: TypeAlias = str | Callable[[re.Match[str]], str]
Rules: TypeAlias = list[tuple[re.Pattern[str], Said]]

# Some look like others, and so stand here by their numbers: quotes, dashes, signs of arithmetic.
CHARACTERS = dict.fromkeys("\u201c\u201d\u201e\u201f\xab\xbb\u2033", '"')
CHARACTERS |= dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\xb4", "'")
CHARACTERS |= dict.fromkeys("\u2212\u2010\u2011", "-") | {"\u2012": "\u2013"} | dict.fromkeys("―⸺→⇒", " — ")
CHARACTERS |= dict.fromkeys("\u2028\u2029\x85\r", "\n") | dict.fromkeys("™®©℠\t", " ")
CHARACTERS |= {"²": "^2", "³": "^3", "№": "No. ", "º": "°"}
USUAL = str.maketrans(CHARACTERS)
SYMBOLS = {"&": "and", "@": "at", "%": "percent", "±": "plus or minus", "\xd7": "times", "÷": "divided by", "+": "plus"}
SYMBOLS |= {"≈": "about", "≠": "is not", "≤": "at most", "≥": "at least", "∞": "infinity", "√": "root", "π": "pi"}
SYMBOLS |= {"°": "degrees", "§": "section", "¢": "cents", "€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees"}
COMMANDS = {"cdot": "times", "div": "divided by", "pm": "plus or minus", "leq": "at most", "le": "at most"}
COMMANDS |= {"geq": "at least", "ge": "at least", "neq": "is not", "approx": "about", "infty": "infinity"}
CURRENCIES = {"USD": "$", "GBP": "£", "EUR": "€", "INR": "₹", "JPY": "¥"}
WEEKDAYS = {day[:3]: day for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")}

TOP_LEVELS = "com|org|net|edu|gov|io|ai|dev|app|info|co|uk|us|eu|de|fr|ca|me|tv|biz"
FILES = "pdf|txt|md|py|js|ts|json|csv|docx?|xlsx?|pptx?|zip|png|jpe?g|gif|mp[34]|wav|toml|ya?ml|html?|xml|exe|sh"
READ_AS_WORDS = {"co", "me", "doc", "zip"}  # of the short ones behind a dot; the others are spelt
LONGEST_PATH = 16  # characters behind a host that one can take in by ear


def speakable(text: str) -> str:
    """The text in words, on one line; empty if there is nothing to say. To say what comes out again changes nothing."""
    text = " ".join(_lines(_apply(MARKUP, _characters(text))).split())
    for rules in (ADDRESSES, GROUPS, TIMES, AMOUNTS, NUMBERS, SIGNS):
        text = _apply(rules, text)
    text = _apply(WORDS, " ".join(text.split()))
    return unicodedata.normalize("NFC", text).strip() if any(map(str.isalpha, text)) else ""


def _apply(rules: Rules, text: str) -> str:
    for pattern, said in rules:
        text = pattern.sub(said, text)
    return text


def _rules(*pairs: tuple[str, Said]) -> Rules:
    return [(re.compile(pattern), said) for pattern, said in pairs]


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _characters(text: str) -> str:
    """In as few characters as say the same: no emojis, nothing invisible, letters and digits of the usual shape."""
    text = re.sub(r"[¼-¾⅐-⅞]", r" \g<0>", text.translate(USUAL))
    text = re.sub(r"(?<=\d) ?\u2013 ?(?=[\d$£€])", "-", text).replace("\u2013", "—")
    text = re.sub(r"[^\n -~]", _character, unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFC", text)


def _character(m: re.Match[str]) -> str:
    kind = unicodedata.category(m[0])
    if kind == "Nd":
        return str(unicodedata.decimal(m[0]))
    if kind in ("Cf", "Mn", "Mc", "Me", "Sk"):
        return ""
    if m[0] == "\u2044":  # of a fraction
        return "/"
    return m[0] if m[0] == "°" or kind[0] in "LP" or kind in ("Sm", "Sc") else " "


LINE = re.compile(r"[\s>]*(?:(#{1,6}\s)|([-*+—]\s+(?:\[[ xX]\]\s)?|[•‣·|])|(\d{1,2})[.)]\s)?\s*(.*)")


def _lines(text: str) -> str:
    """As running text: a heading, an item or a row is a sentence, and a line that goes on in small letters is not."""
    spoken: list[str] = []
    listed = apart = False  # whether the last line is to be ended; whether the next one begins anew
    for line in text.split("\n"):
        match = LINE.match(line)
        assert match is not None  # nothing in it is required
        heading, item, number, rest = match.groups()
        body = rest.rstrip(" #" if heading else " |")
        if not any(map(str.isalnum, body)):
            apart = True
            continue
        begins = bool(heading or item or number)
        if spoken and (apart or begins or not body[0].islower()):
            spoken[-1] = _ended(spoken[-1])
            listed = False
        spoken.append(f"{number}: {body}" if number else body)
        listed, apart = listed or begins, bool(heading) or item == "|"
    if spoken and listed:
        spoken[-1] = _ended(spoken[-1])
    return " ".join(spoken)


def _ended(line: str) -> str:
    return line if line.rstrip("\"')]}*_` ")[-1:] in ".?!:;," else f"{line}."


MARKUP = _rules(
    (r"&(?:#\d{1,6}|#x[\da-fA-F]{1,5}|[A-Za-z]\w{1,30});", lambda m: html.unescape(m[0]).translate(USUAL)),
    (r"<!--[^<]*?-->|<(script|style)\b[^<>]*>[^<]*</\1>", " "),
    (r"<((?:https?|mailto):[^<>\s]+|[\w.+-]+@[\w.-]+)>", r"\1"),
    (r"</?(?:p|div|br|li|ul|ol|tr|h[1-6]|table|blockquote)\b[^<>]*>", "\n"),
    (r"</?(?:td|th|break)\b[^<>]*>", ", "),
    (r"</?[A-Za-z!?][^<>]*>", ""),
    (r"(?m)^[ >]*(?:`{3,}|~{3,})[^`\n]*$", "\n"),
    (r"(?m)^ {0,3}\[[^\[\]\n]+\]: ?<?(?:https?:|www\.|/)[^\n]*$", "\n"),
    (r"\]\( ?<?[^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)?>?(?:\s+\"[^\"\n]*\")? ?\)", ""),
    (r"\]\[[^\[\]\n]*\]|\[\^[^\[\]\s]*\]:?|(?<=\S)\[\d{1,3}\]", ""),
    (r"!\[", ""),
    (r"\$(\d[^$\n]{0,200}[\\^_{=+][^$\n]{0,200})\$(?!\d)", r"\1"),
    (r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}", r" \1 over \2 "),
    (r"\\sqrt\s?\{([^{}]*)\}", r" the square root of \1 "),
    (r"\\(?:text|math|operator|left|right|big|begin|end|quad|display)[a-z]*", " "),
    (r"\\([A-Za-z]+)", lambda m: f" {COMMANDS.get(m[1], m[1])} "),
    (r"\\[()\[\],;:! ]", " "),
    (r"\\(?=[^\w\s])", ""),
    (r"\^\{(\w{1,9})\}", r"^\1"),
)


def _labels(name: str) -> str:
    signs = {".": " dot ", "_": " underscore ", "-": " dash ", "+": " plus "}
    parts = (digits(part) if part.isdigit() else signs.get(part, part) for part in re.split(r"([._+-])", name))
    return "".join(parts)


def _host(name: str) -> str:
    before, _, last = name.rpartition(".")
    if len(last) <= 2 and last not in READ_AS_WORDS:
        last = last.upper()
    return _labels(f"{before}.{last}" if before else last)


def _address(m: re.Match[str]) -> str:
    """The host, and the way behind it if that can be kept in mind."""
    address = m[0].rstrip(".,;:!?)]}'\"*_")
    found = re.match(r"(?:\w+://)?(?:[^/@?#]*@)?(?:www\.)?([^/:?#]*)(?::\d+)?/?([^?#]*)", address)
    assert found is not None  # nothing in it is required
    path = found[2].strip("/")
    short = len(path) <= LONGEST_PATH and re.fullmatch(r"[A-Za-z]+(?:[/-][A-Za-z]+)*", path)
    return _host(found[1]) + (f" slash {path.replace('/', ' slash ')}" if short else "") + m[0][len(address) :]


def _file(m: re.Match[str]) -> str:
    name, _, kind = m[0].rpartition(".")
    return f"{re.sub('[._-]', ' ', name)} dot {kind if kind in READ_AS_WORDS else kind.upper()}"


ADDRESSES = _rules(
    (r"(?<=\d) ?\*{1,2} ?(?=[\d(])|(?<=\w) \* (?=\w)", " times "),
    (r"\*+|`+|~{2,}|(?<!\w)_+|(?<!_)_++(?!\w)", ""),
    (r"\bmailto:", ""),
    (
        r"(?<![\w.+-])([\w.+-]{1,64})@([\w-]{1,63}(?:\.[\w-]{1,63}){1,5})(?![\w-])",
        lambda m: f"{_labels(m[1])} at {_host(m[2])}",
    ),
    (r"(?i)(?:\b(?:https?|ftp)://|\bwww\.)[^\s<>\"|]+", _address),
    (rf"(?i)(?<![\w@.-])(?:[a-z\d][a-z\d-]{{0,62}}\.){{1,5}}(?:{TOP_LEVELS})\b(?:/[^\s<>\"|]*)?", _address),
    (rf"(?i)(?<![\w./-])[\w-]{{1,64}}(?:\.[\w-]{{1,64}}){{0,5}}\.(?:{FILES})\b(?!\.?\w)", _file),
    (r"(?<![\w/.)\]])~?(?:/[\w.-]+){2,}+/?", lambda m: m[0].replace("/", " slash ")),
)

NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,5}+(?!,?\d)|\d{1,15}+(?!\d))(?:\.\d{1,15}+(?!\d))?"
MONTH = rf"(?:{'|'.join(f'{month[:3]}(?:{month[3:]})?' for month in MONTHS)}|Sept)\b"
YEAR = r"(?:1\d|20)\d\d"


def _phone(m: re.Match[str]) -> str:
    groups = re.findall(r"\d+", m[0])
    pause = " " if max(map(len, groups)) == 1 else ", "
    return ("plus " if m[0][0] == "+" else "") + pause.join(map(digits, groups))


def _version(m: re.Match[str]) -> str:
    parts = m[0].split(".")
    if len(parts) == 4 and all(len(part) <= 3 for part in parts):
        return " dot ".join(map(digits, parts))
    return " point ".join(map(amount_or_code, parts))


GROUPS = _rules(
    (
        r"(?<![\w.-])(\d{4})-(\d\d)-(\d\d)(?:(T)(?=\d\d:)|(?![\w-]))",
        lambda m: figures.date(m[2], m[3], m[1], m[0]) + (" at " if m[4] else ""),
    ),
    (r"(?<![\w.-])(20\d\d)-(0[1-9]|1[0-2])(?![\w-])", lambda m: f"{MONTHS[int(m[2]) - 1]} {m[1]}"),
    (r"(?<![\w/.-])(\d{1,2})(/)(\d{1,2})/(\d{4}|\d\d)(?![\w/])", figures.date_in_figures),
    (r"(?<![\w/.-])(\d{1,2})(\.)(\d{1,2})\.(\d{4})(?![\w/])", figures.date_in_figures),
    (r"(?<=\b[Oo]n )(\d{1,2})/(\d{1,2})(?![\w/])", lambda m: figures.date(m[1], m[2], "", m[0])),
    (r"(?<![\w+])\+\d{1,4}(?:[ .-]?\(\d{1,5}\))?(?:[ .-]\d{2,8}){2,6}+(?![\w-])", _phone),
    (r"(?<![\w+])\+(?:\d{7,15}|\d{1,3} \d{6,14})(?![\w-])", _phone),
    (r"(?<![\w)])\(\d{2,5}\) ?\d{2,4}(?:[ -]?\d{2,6}){1,3}(?![\w-])", _phone),
    (r"(?<![\w.-])(?:1[ .-])?\d{3}([ .-])\d{3}\1\d{4}(?![\w-])|(?<![\w.-])\d{3}-\d{4}(?![\w-])", _phone),
    (r"(?<![\w.,-])0\d{2,5}[ /-]\d{3,12}(?: \d{2,6}){0,3}+(?![\w-])", _phone),
    (r"(?<![\w.,-])(?:\d{1,6}(?:-\d{1,6}){2,8}+|\d{3,6}(?: \d{3,6}){2,8}+)(?![\w-])", _phone),
    (r"\b(?:[Vv]ersion )?v\.?(?=\d)", "version "),
    (r"(?<![\w.])\d{1,9}(?:\.\d{1,9}){2,9}+(?!\w)", _version),
)

HALF = r"(?: ?([aApP])(?:\. ?[mM]\b(?:\.(?! ?$| [A-Z]))?|[mM]\b))"  # its last dot may be the end of the sentence too
SEASON = rf"(?i:spring|summer|autumn|fall|winter|{_any(MONTHS)})"
IN_YEARS = (
    r"((?:\b(?i:in|since|until|till|during|circa|before|after|around|by|from|between|year|mid)"
    rf"|\bQ[1-4]|\b{SEASON}|\b(?:{SEASON}|(?i:class|start|beginning|middle|end)) of)"
    r",? (?:the year |early |late |mid[ -])?|\()"
)
WEEKDAY = rf"\b({_any(WEEKDAYS)})(?:s|nes|rs?|ur)?(?:day)?\b\.?"
COUNTED = r"(?:people|men|women|children|(?!this |does |works )[a-z]{3,20}s)\b"  # what there are hundreds of


def _month(name: str) -> str:
    return MONTHS[int(figures.month(name)) - 1]


def _day(m: re.Match[str]) -> str:
    """The day stands before the month, and is said behind it as in America, unless it has its ending already."""
    day, ending, name, year = m.groups("")
    if not 1 <= int(day) <= 31:
        return m[0]
    said = figures.date(figures.month(name), day, year, m[0])
    return said if not ending else f"{figures.ordinal(day)} of {said.replace(f' {figures.ordinal(day)}', '', 1)}"


TIMES = _rules(
    (rf"{WEEKDAY} ?[-—] ?{WEEKDAY}", lambda m: f"{WEEKDAYS[m[1]]} to {WEEKDAYS[m[2]]}"),
    (rf"\b({MONTH})\.? ?[-—] ?({MONTH})\.?", lambda m: f"{_month(m[1])} to {_month(m[2])}"),
    (rf"{WEEKDAY}(?=,? (?:{MONTH}|\d))", lambda m: WEEKDAYS[m[1]]),
    (
        rf"\b({MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?\b(?! ?[:%]|[.,/-]\d)(?:,? ({YEAR})\b(?![-:]|[.,]\d))?",
        lambda m: figures.date(figures.month(m[1]), m[2], m[3] or "", m[0]),
    ),
    (
        rf"(?<![\w.,/:-])(\d{{1,2}})(st|nd|rd|th)? ({MONTH})(?:\.(?! ?$| [A-Z]))?(?:,? ({YEAR})\b(?![-:]|[.,]\d))?",
        _day,
    ),
    (rf"\b({MONTH})\.?(?=,? (?:of )?\d)", lambda m: _month(m[1])),
    (r"(?<=\d)((?: ?[apAP]\.?[mM]\.?)?) ?[-—] ?(?=\d{1,2}(?::\d\d| ?[apAP]\.?[mM]))", r"\1 to "),
    (rf"(?<![\w:.,])(\d{{1,2}}):(\d\d)(?::(\d\d))?(?:\.\d{{1,6}})?(?:{HALF}|Z)?(?![\w:])", figures.time),
    (rf"(?<![\w:.,])(1[0-2]|0?[1-9])()(){HALF}(?!\w)", figures.time),
    (r"(?<![\w.,])(\d{1,3}) ?(?:h|hrs?) ?(\d{1,2}) ?m(?:ins?)?\b(?: ?(\d{1,2}) ?s(?:ecs?)?\b)?", figures.duration),
    (r"(?<![\w.,])()(\d{1,3}) ?m(?:in)? ?(\d{1,2}) ?s(?:ec)?\b", figures.duration),
    (rf"(?<![\w.,])(\d{{1,6}}00)(?= {COUNTED})", lambda m: figures.cardinal(m[1])),
    (rf"(?<![\w.,/-])({YEAR}) ?- ?({YEAR}|\d\d)\b(?![-/:.,%]?\d|%)", figures.span),
    (rf"{IN_YEARS}({YEAR})(?:( (?:and|or|to|until|through) | ?[-—] ?)({YEAR}))?(?![\w%]|[.,:/-]\d)", figures.years),
    (r"(\b(?:[Tt]he|[Aa]) )((?:19|20)\d\d)()()(?= [A-Za-z])", figures.years),
    (rf"()\b({YEAR})()()(?= (?:AD|BC|BCE|CE)\b)", figures.years),
    (r"()\b(1\d|20)(\d0)'?s\b", figures.decade),
    (r"(\b(?:[Tt]he|early|mid|late|his|her|their|my|your)[ -])()'?([2-9]0)s\b", figures.decade),
    (r"(?<!\w)()()'([2-9]0)s\b", figures.decade),
)

AMOUNTS = _rules(
    (r"(?<![\w.])\.(?=\d)", "0."),
    (r"(?<=\d),(?=\d\d ?€)", "."),
    (r"\b50-50\b", "50/50"),
    (r"\b(?:US|CA|AU)(?=\$ ?\d)", ""),
    (rf"\b({_any(CURRENCIES)}) ?(?=\d)", lambda m: CURRENCIES[m[1]]),
    (rf"(?<![\w.,$£€¥₹])({NUMBER}) ?(USD|EUR|GBP|INR|JPY|[€£¥₹])(?!\w)", lambda m: CURRENCIES.get(m[2], m[2]) + m[1]),
    (r"(€ ?\d{1,9}),(?=\d\d(?!\d))", r"\1."),
    (rf"(?<![\w.,])({NUMBER}) ?¢", lambda m: figures.count(m[1], "cent+")),
    (rf"([$£€¥₹]) ?({NUMBER}) ?[-—] ?(?=\d)", r"\2 to \1"),
    (rf"(?<=\d)/({_any(PER)})\b", lambda m: f" per {PER[m[1]]}"),
    (r"(?<=\d) ?- ?(?=\d[\d.,]{0,15}+ ?=)", " minus "),
    (r"(?<=[\d%°])(?: ?- ?|—)(?=[$£€¥₹]?\d)", " to "),
    (r"(?<![\w)\]$£€¥₹-])-(?=[$£€¥₹]?\d)", "minus "),
    (rf"([$£€¥₹]) ?({NUMBER})( ?(?:thousand|million|billion|trillion|mn|bn|tn|[kKmMbB])\b)?", figures.money),
    (
        rf"(?<![\w.,])(?:({NUMBER}) to )?({NUMBER})[ -]?({_any(UNITS)})(\^[23])?(?:/({_any(PER)}))?"
        r"(?![\w^'/])(?:\.(?= [a-z]))?",
        figures.measure,
    ),
    (rf"(?<![\w.,])({NUMBER})(k|M|bn)\b", lambda m: f"{figures.number(m[1])} {figures.FACTORS[m[2].lower()]}"),
    (r"\^2(?!\d)", " squared"),
    (r"\^3(?!\d)", " cubed"),
    (r"\^(?=-?\w)", " to the power of "),
)


def _street(m: re.Match[str]) -> str:
    return m[1] + PLACES[m[2]][1]


NUMBERS = _rules(
    (
        rf"\b({_any(NUMBERED)}|{_any(map(str.capitalize, NUMBERED))})\. ?(?=#?\d)",
        lambda m: f"{NUMBERED[m[1].lower()]} ",
    ),
    (r"# ?(?=\d)", "number "),
    (
        r"(\b\d{1,5}[A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z][a-z]{1,20}|\d{1,3}(?:st|nd|rd|th)) )(St|Dr)\b"
        r"(?:\.(?! ?$| [A-Z]))?",
        _street,
    ),
    (r"(?<![\w.,])(\d{1,3}(?:,\d{3}){1,5}+|\d{1,15})(?i:st|nd|rd|th)\b", lambda m: figures.ordinal(m[1])),
    (r"(?<![\w/.,])(?:(\d{1,3}) )?(\d{1,4})/(\d{1,4})(?![\w/]|[.,]\d)", figures.fraction),
    (r"(?<=\d)(?<!\b0) ?[xX] ?(?=\d)", " by "),
    (r"(?<=\d)x(?= [a-z]|[.,;:!?]? ?$)", " times"),
    (r"(?<=\d):(?=\d)", " to "),
    (r"(?<![\w.])(\d{1,9}\.\d{1,9})/(?=\d)", r"\1 out of "),
    (r"(?<=\d)/(?=\d)", " slash "),
    (r"(?<!\S)~ ?(?=\d)", "about "),
    (r"(?<=[^\W\d_])-?(?=\d)|(?<=\d)(?!-[a-z])-?(?=[^\W\d_])", " "),
    (r"(?<![\w.])(\d)'(\d{1,2})\"?(?!\w)", r"\1 foot \2"),
    (rf"{NUMBER}|\d+(?:\.\d+)?", lambda m: amount_or_code(m[0])),
)

SIGNS = _rules(
    (r"(?<!\S)[:;=]-?[)(DPp](?!\w)|(?<!\S)<3(?!\S)", " "),
    (r"\bw/o\b", "without"),
    (r"\bw/(?= ?\w)", "with "),
    (r"\bb/c\b", "because"),
    (r"\band/or\b", "and or"),
    (r"(?<=[a-z])/(?=[A-Z]?[a-z])", " or "),
    (r"(?<![=<>!-])(?:[-=]+>)", " — "),
    (r"<= ?", " at most "),
    (r">= ?", " at least "),
    (r"!= ?", " is not "),
    (r"(?<=[\w)]) ?<(?!<) ?(?=[\w(-])", " less than "),
    (r"(?<=\w\w) > (?=[A-Z]\w)", ", "),
    (r"(?<=[\w)]) ?>(?!>) ?(?=[\w(-])", " greater than "),
    (r"(?<=[\w)]) ?={1,3}(?!=) ?(?=[\w(-])", " equals "),
    (r"(?<=[A-Za-z])\+\+", " plus plus"),
    (r"\b([A-G])#", r"\1 sharp"),
    (rf"([{''.join(map(re.escape, SYMBOLS))}])\1*", lambda m: f" {SYMBOLS[m[1]]} "),
    (r"(?<=[a-z])\((e?s)\)", r"\1"),
    (r"\(\)|\[\]|\{\}", ""),
    (r"(?<!\))\)++ ?$", ""),
    (r" ?(?:—|-{2,}) ?| - |[()|]", ", "),
    (r"(?<!\.)\.{2,}+(?=[\"'*]? ?[a-z])", ", "),
    (r"\.(?=[,;:]|'s\b)", ""),
    (r"[^\w\s'.,;:?!-]|_", " "),
    (r"(?<![^\W\d_])['-]+|['-]+(?![^\W\d_])", lambda m: " " if "-" in m[0] else ""),
)


def _dotted(m: re.Match[str]) -> str:
    """Letters with dots between them: spelt, unless they are read as words or are code."""
    letters, last = m.groups()
    small = letters.lower()
    if small in EXAMPLES:
        return EXAMPLES[small]
    if small not in CLOCK and letters.count(".") == 1 and not letters.isupper():
        return m[0]
    return letters.replace(".", "").upper() + (last if _may_end(m, clock=small in CLOCK) else "")


def _may_end(m: re.Match[str], clock: bool = True) -> bool:
    """Whether the dot that this match ends with may end the sentence too."""
    after = m.string[m.end() : m.end() + 2].strip()
    return not after or (clock and after[0].isupper())


def _inner_dot(m: re.Match[str]) -> str:
    return " dot " if m[1].islower() else ". "


def _strongest(m: re.Match[str]) -> str:
    return next(mark for mark in "?!.:;," if mark in m[0]) + " "


def _last(m: re.Match[str]) -> str:
    return LAST[m[1]] + ("." if m[2] and _may_end(m) else "")


def _place(m: re.Match[str]) -> str:
    """Before a name a saint or a doctor; behind one a street or a drive."""
    before, word, dot, name = m.groups("")
    title, place = PLACES[word]
    if name or (dot and not before):
        return before + title
    if not before or before.strip() in ("Doctor", "Saint"):
        return m[0]
    return before + place + ("." if dot and _may_end(m) else "")


def _initial(m: re.Match[str]) -> str:
    return m[0][:-1] if is_initial(m[2], (m[1] or "").strip()) else m[0]


WORDS = _rules(
    (r"(?<![\w.])((?:[^\W\d_]\.){1,6}[^\W\d_])(?![\w])(\.?)", _dotted),
    (r"(?<=[^\W\d_])\.(?=([^\W\d_]))", _inner_dot),
    (r" ?[.,:;?!][ .,:;?!]*", _strongest),
    (r"^[ .,:;?!]+", ""),
    (rf"\b({_any(TITLES)})\.(?= [A-Z])|\b(Mr|Mrs|Ms)\b\.?", lambda m: TITLES[m[1] or m[2]]),
    (rf"\b({_any(INNER)})\b\.?", lambda m: INNER[m[1]]),
    (rf"\b({_any(LAST)})\b(\.)", _last),
    (r"\b(etc|Jr|Sr|Blvd)\b", lambda m: LAST[m[1]]),
    (rf"\b({_any(SHORT_MONTHS)})\.(?= [a-z])", lambda m: SHORT_MONTHS[m[1]]),
    (r"(\b(?!St |Dr )[A-Z][a-z]{1,20} )?\b(St|Dr)\b(\.?)(?=( [A-Z])|)", _place),
    (r"(?:(?<![\w'-])([\w'-]{1,20}) )?\b([A-HJ-Z])\.(?= [A-Z])", _initial),
)
