"""Numbers, and what is written with them, in English words: years, dates, times, money, measures, fractions.

Numbers come as they are written: digits, with commas between thousands and a decimal point or without.
"""

from __future__ import annotations

import re

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SMALL += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SCALES = ("", "thousand", "million", "billion", "trillion")
LONGEST = 3 * len(SCALES)  # digits of a number; what is longer has no name here and is said digit by digit
BREATH = 6  # digits said in one go; more of them come in groups
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS |= {"twelve": "twelfth"}
IDIOMS = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty", "80/20": "eighty twenty"}
PARTS = {*range(2, 11), 16, 20, 32, 64, 100}  # denominators that are read as parts; the others are "over"
CENTURY_ENDS = 69  # years of two digits from here on belong to the last century, as for POSIX
MONTHS = ["January", "February", "March", "April", "May", "June"]
MONTHS += ["July", "August", "September", "October", "November", "December"]

MONEY = {"$": ("dollar", "cent", "cents"), "£": ("pound", "penny", "pence"), "€": ("euro", "cent", "cents")}
MONEY |= {"₹": ("rupee", "paisa", "paise")}
FACTORS = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}

# The plus is where the plural has its s.
UNITS = {"km": "kilometer+", "m": "meter+", "cm": "centimeter+", "mm": "millimeter+", "mi": "mile+", "yd": "yard+"}
UNITS |= {"ft": "foot|feet", "mph": "mile+ per hour", "kph": "kilometer+ per hour", "°C": "degree+ Celsius"}
UNITS |= {"kg": "kilogram+", "g": "gram+", "mg": "milligram+", "lb": "pound+", "lbs": "pound+", "oz": "ounce+"}
UNITS |= {"L": "liter+", "ml": "milliliter+", "mL": "milliliter+", "gal": "gallon+", "°F": "degree+ Fahrenheit"}
UNITS |= {"kB": "kilobyte+", "KB": "kilobyte+", "MB": "megabyte+", "GB": "gigabyte+", "TB": "terabyte+"}
UNITS |= {"Mbps": "megabit+ per second", "Gbps": "gigabit+ per second", "V": "volt+", "W": "watt+", "kW": "kilowatt+"}
UNITS |= {"kWh": "kilowatt hour+", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz"}
UNITS |= {"ms": "millisecond+", "s": "second+", "sec": "second+", "min": "minute+", "mins": "minute+", "h": "hour+"}
UNITS |= {"hr": "hour+", "hrs": "hour+", "yr": "year+", "yrs": "year+", "°": "degree+"}
POWERS = {"": "", "^2": "square ", "^3": "cubic "}
PER = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "mo": "month", "yr": "year"}
PER |= {word: word for word in ("second", "minute", "hour", "day", "night", "week", "month", "year", "person")}


def digits(text: str) -> str:
    """One by one, with a pause between groups if there are many."""
    size = len(text) if len(text) <= BREATH else 3 if len(text) % 3 == 0 else 4
    groups = [text[i : i + size] for i in range(0, len(text), size or 1)]
    return ", ".join(" ".join(SMALL[int(digit)] for digit in group) for group in groups)


def cardinal(text: str) -> str:
    text = text.replace(",", "").lstrip("0") or "0"
    if len(text) > LONGEST:
        return digits(text)
    value = int(text)
    if value < 20:
        return SMALL[value]
    words: list[str] = []
    for scale in reversed(range(len(SCALES))):
        hundreds, rest = divmod(value // 1000**scale % 1000, 100)
        words += [SMALL[hundreds], "hundred"] if hundreds else []
        if rest >= 20:
            words.append(TENS[rest // 10 - 2] + (f"-{SMALL[rest % 10]}" if rest % 10 else ""))
        elif rest:
            words.append(SMALL[rest])
        words += [SCALES[scale]] if scale and hundreds + rest else []
    return " ".join(words)


def number(text: str) -> str:
    """An amount. What begins with a zero is none, and is said digit by digit."""
    whole, _, decimals = text.partition(".")
    said = digits(whole) if len(whole) > 1 and whole[0] == "0" else cardinal(whole)
    return f"{said} point {' '.join(SMALL[int(digit)] for digit in decimals)}" if decimals else said


def amount_or_code(text: str) -> str:
    """A code is what has four digits or more, and neither commas nor decimals."""
    return digits(text) if len(text) > 3 and text.isdigit() else number(text)


def ordinal(text: str) -> str:
    words = cardinal(text)
    at = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[at:]
    return words[:at] + (ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"))


def year(text: str) -> str:
    century, rest = divmod(int(text), 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(text)
    tail = "hundred" if not rest else f"oh {SMALL[rest]}" if rest < 10 else cardinal(str(rest))
    return f"{cardinal(str(century))} {tail}"


def years(m: re.Match[str]) -> str:
    """Groups: what comes before; a year; perhaps a word or a dash and another year."""
    before, first, link, second = m.groups("")
    link = link if link.strip(" -") else " to "
    return before + year(first) + (f"{link}{year(second)}" if second else "")


def span(m: re.Match[str]) -> str:
    """Groups: two years, of which the second may be short."""
    first, second = m.groups()
    if len(second) == 2 and int(second) <= int(first[2:]):
        return m[0]
    return f"{year(first)} to {year(second) if len(second) == 4 else cardinal(second)}"


def decade(m: re.Match[str]) -> str:
    """Groups: what comes before; perhaps a century; the tens of the decade."""
    before, century, tens = m.groups("")
    if tens == "00":
        return f"{before}{year(century + tens)}s"
    word = "tens" if tens == "10" else f"{TENS[int(tens) // 10 - 2][:-1]}ies"
    return f"{before}{cardinal(century)} {word}" if century else f"{before}{word}"


def date(month: str, day: str, in_year: str, otherwise: str) -> str:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return otherwise
    if len(in_year) == 2:
        in_year = ("19" if int(in_year) >= CENTURY_ENDS else "20") + in_year
    return f"{MONTHS[int(month) - 1]} {ordinal(day)}" + (f", {year(in_year)}" if in_year else "")


def date_in_figures(m: re.Match[str]) -> str:
    """Groups: 11/28/2026 as in America, unless that cannot be, or 28.11.2026 as in Europe; the second is the mark."""
    first, mark, second, in_year = m.groups("")
    if mark == "." or int(first) > 12:
        first, second = second, first
    return date(first, second, in_year, m[0])


def month(name: str) -> str:
    """The number of a month that may be abbreviated."""
    return str(1 + [each[:3] for each in MONTHS].index(name[:3]))


def time(m: re.Match[str]) -> str:
    """Groups: hour, minute, second, and the letter of AM or PM, which is added where the hour can be only one of them.

    Always on a clock of twelve hours, as callers tell the time.
    """
    hour, minute, second, half = m.groups("")
    value, past = int(hour), int(minute or 0)
    if value > 24 or past > 59:
        return f"{number(hour)} to {number(minute)}" + (f" to {number(second)}" if second else "")
    half = f" {half.upper()}M" if half else ""
    if not half and (value > 12 or hour[0] == "0"):
        if value in (0, 24) and not int(minute + second):
            return "midnight"
        half = " PM" if 12 < value < 24 else " AM"
    said = SMALL[value % 12 or 12]
    if past:
        said += f" oh {SMALL[past]}" if past < 10 else f" {cardinal(minute)}"
    elif not half:
        said += " o'clock"
    return said + half + (f" and {count(str(int(second)), 'second+')}" if int(second or 0) else "")


def count(text: str, name: str) -> str:
    """So many of something whose name has a plus where the plural has its s, or the plural behind a bar."""
    one, _, several = name.partition("|")
    return f"{number(text)} {one.replace('+', '') if text == '1' else several or one.replace('+', 's')}"


def duration(m: re.Match[str]) -> str:
    """Groups: hours, minutes, seconds."""
    parts = zip(m.groups(), ("hour+", "minute+", "second+"), strict=True)
    return " ".join(count(text, name) for text, name in parts if text)


def money(m: re.Match[str]) -> str:
    """Groups: the symbol of the currency, the number, perhaps "million" or the like."""
    symbol, text, factor = m.groups("")
    factor = factor.strip()
    factor = f" {FACTORS.get(factor.lower(), factor)}" if factor else ""
    if symbol == "¥":
        return f"{number(text)}{factor} yen"
    name, cent, cents = MONEY[symbol]
    whole, _, decimals = text.partition(".")
    if factor or len(decimals) > 2:
        return f"{number(text)}{factor} {name}s"
    small = decimals.ljust(2, "0").lstrip("0")
    part = f"{cardinal(small)} {cent if small == '1' else cents}" if small else ""
    if part and not whole.strip("0"):
        return part
    return count(whole, f"{name}+") + (f" and {part}" if part else "")


def measure(m: re.Match[str]) -> str:
    """Groups: perhaps the lower end; the number, the unit, perhaps its power, perhaps per what."""
    lowest, text, unit, power, per = m.groups("")
    name = "|".join(POWERS[power] + each for each in UNITS[unit].split("|"))
    said = f"{number(lowest)} to {count(text, name)}" if lowest else count(text, name)
    return f"{said} per {PER[per]}" if per else said


def fraction(m: re.Match[str]) -> str:
    """Groups: perhaps a whole number; the two of the fraction."""
    whole, above, below = m.groups("")
    if not whole and f"{above}/{below}" in IDIOMS:
        return IDIOMS[f"{above}/{below}"]
    before = f"{number(whole)} and " if whole else ""
    if above == below:
        return f"{number(above)} out of {number(below)}"
    if int(below) not in PARTS or above[0] == "0" or int(above) >= int(below):
        return f"{before}{number(above)} over {number(below)}"
    name = {"2": "half", "4": "quarter"}.get(below) or ordinal(below)
    return f"{before}{'a' if whole else 'one'} {name}" if above == "1" else f"{before}{cardinal(above)} {name}s"
