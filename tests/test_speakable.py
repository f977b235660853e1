"""What wits write, as a voice says it; and what they are still writing, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_bridge.engines.mouths.sentences import AHEAD, FIRST_WORDS, HARD, LONG, PATIENCE, Sentences
from voice_bridge.engines.mouths.speakable import speakable

SAYABLE = re.compile(r"(?:[^\W\d_]|[\s'.,;:?!-])*")

NUMBERS = {
    "0": "zero",
    "13": "thirteen",
    "40": "forty",
    "99": "ninety-nine",
    "101": "one hundred one",
    "1,250": "one thousand two hundred fifty",
    "1,000,000": "one million",
    "2,000,017": "two million seventeen",
    "-5": "minus five",
    "\u22125": "minus five",
    "3.14": "three point one four",
    "0.5": "zero point five",
    ".5": "zero point five",
    "1,250.75": "one thousand two hundred fifty point seven five",
    "007": "zero zero seven",
    "4417": "four four one seven",
    "4 4 1 7": "four four one seven",
    "4-4-1-7": "four four one seven",
    "Your PIN is 0042.": "Your PIN is zero zero four two.",
    "account 12345678": "account one two three four, five six seven eight",
    "card 4111 1111 1111 1111": "card four one one one, one one one one, one one one one, one one one one",
    "123-45-6789": "one two three, four five, six seven eight nine",
    "12345678901234567": ("one two three four, five six seven eight, nine zero one two, three four five six, seven"),
    "1st, 22nd, 103rd": "first, twenty-second, one hundred third",
    "the 12th and the 40th": "the twelfth and the fortieth",
    "1,000th": "one thousandth",
    "1/2": "one half",
    "3/4 cup": "three quarters cup",
    "2/3": "two thirds",
    "2 1/2 hours": "two and a half hours",
    "½ cup": "one half cup",
    "1½": "one and a half",
    "7/3": "seven over three",
    "5/5 stars, 4.5/5": "five out of five stars, four point five out of five",
    "5%": "five percent",
    "99.9 %": "ninety-nine point nine percent",
    "5-7 days": "five to seven days",
    "5\u20137": "five to seven",
    "10-20%": "ten to twenty percent",
    "16:9": "sixteen to nine",
    "24/7": "twenty-four seven",
    "50/50": "fifty fifty",
    "#5": "number five",
    "No. 5": "number five",
    "pp. 10-12, fig. 3": "pages ten to twelve, figure three",
    "5 + 3 = 8": "five plus three equals eight",
    "5 - 3 = 2": "five minus three equals two",
    "3 * 4 and 3 \xd7 4": "three times four and three times four",
    "a 3x4 grid": "a three by four grid",
    "2x faster": "two times faster",
    "x \u2265 3": "x at least three",
    "5 < 6": "five less than six",
    "~5": "about five",
    "12B, A4, COVID-19": "twelve B, A four, COVID nineteen",
    "a 3-year-old": "a three-year-old",
    "1500 people": "one thousand five hundred people",
    "3.5 million": "three point five million",
    "10k users": "ten thousand users",
    "version 1.2.3": "version one point two point three",
    "v1.2": "version one point two",
    "192.168.1.10": "one nine two dot one six eight dot one dot one zero",
    "\uff11\uff12\uff13": "one hundred twenty-three",
    "\u0664\u0662": "forty-two",
}

DATES = {
    "in 1984": "in nineteen eighty-four",
    "The code is 1984.": "The code is one nine eight four.",
    "since 2005": "since two thousand five",
    "in 1900": "in nineteen hundred",
    "in 1905": "in nineteen oh five",
    "from 1984 to 1990": "from nineteen eighty-four to nineteen ninety",
    "1914-1918": "nineteen fourteen to nineteen eighteen",
    "the summer of 2012": "the summer of twenty twelve",
    "the 1980s and the '90s": "the nineteen eighties and the nineties",
    "2026-11-28": "November twenty-eighth, twenty twenty-six",
    "2026-11-28T15:05": "November twenty-eighth, twenty twenty-six at three oh five PM",
    "11/28/2026": "November twenty-eighth, twenty twenty-six",
    "28/11/2026": "November twenty-eighth, twenty twenty-six",
    "28.11.2026": "November twenty-eighth, twenty twenty-six",
    "12/31/99": "December thirty-first, nineteen ninety-nine",
    "on 11/28": "on November twenty-eighth",
    "28 Nov 2026": "November twenty-eighth, twenty twenty-six",
    "Nov. 28th": "November twenty-eighth",
    "Sept. 11, 2001": "September eleventh, two thousand one",
    "the 4th of July": "the fourth of July",
    "March 3, 10 people": "March third, ten people",
    "May 5-7": "May five to seven",
    "Nov 2026": "November twenty twenty-six",
    "Mon, Nov 28": "Monday, November twenty-eighth",
    "Mon\u2013Fri": "Monday to Friday",
    "13/13/2026": "thirteen slash thirteen slash two zero two six",
}

TIMES = {
    "3:30": "three thirty",
    "3:05": "three oh five",
    "10:00": "ten o'clock",
    "15:05": "three oh five PM",
    "7:00 pm": "seven PM",
    "9am": "nine AM",
    "9 a.m.": "nine AM.",
    "at 7 p.m. today": "at seven PM today",
    "at 7 p.m. Then": "at seven PM. Then",
    "09:30": "nine thirty AM",
    "00:15": "twelve fifteen AM",
    "0:00": "midnight",
    "12:30 p.m.,": "twelve thirty PM,",
    "9:00 AM \u2013 5:30 PM": "nine AM to five thirty PM",
    "9am-5pm": "nine AM to five PM",
    "1:02:03": "one oh two and three seconds",
    "99:99": "ninety-nine to ninety-nine",
    "1h 30m": "one hour thirty minutes",
    "2 hrs 1 min": "two hours one minute",
    "5 min. later": "five minutes later",
}

AMOUNTS = {
    "$5": "five dollars",
    "$1": "one dollar",
    "$1,299.99": "one thousand two hundred ninety-nine dollars and ninety-nine cents",
    "$1500": "one thousand five hundred dollars",
    "$0.99": "ninety-nine cents",
    "$5.01": "five dollars and one cent",
    "£3.50": "three pounds and fifty pence",
    "€20": "twenty euros",
    "20 €": "twenty euros",
    "€3,50": "three euros and fifty cents",
    "¥500": "five hundred yen",
    "50¢": "fifty cents",
    "$1.2 million": "one point two million dollars",
    "$2.5B": "two point five billion dollars",
    "5 USD": "five dollars",
    "US$5": "five dollars",
    "-$5": "minus five dollars",
    "$5-10": "five to ten dollars",
    "$5 to 10 people": "five dollars to ten people",
    "$5/month": "five dollars per month",
    "5 km": "five kilometers",
    "1 km": "one kilometer",
    "5000 km": "five thousand kilometers",
    "5-10 kg": "five to ten kilograms",
    "80 km/h": "eighty kilometers per hour",
    "5 m/s": "five meters per second",
    "60mph": "sixty miles per hour",
    "20°C": "twenty degrees Celsius",
    "-5 °F": "minus five degrees Fahrenheit",
    "90°": "ninety degrees",
    "5 GB, 100 MB": "five gigabytes, one hundred megabytes",
    "100 ms": "one hundred milliseconds",
    "12 kWh": "twelve kilowatt hours",
    "6 ft": "six feet",
    "5'10\" tall": "five foot ten tall",
    "2 lb, 1 oz": "two pounds, one ounce",
    "10 m²": "ten square meters",
    "5 mm, 3 cm": "five millimeters, three centimeters",
}

ADDRESSES = {
    "+1 555-010-0001": "plus one, five five five, zero one zero, zero zero zero one",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "0800 1234567": "zero eight zero zero, one two three four, five six seven",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    "+15550100001": "plus one five five five, zero one zero zero, zero zero one",
    "555-0100": "five five five, zero one zero zero",
    "1-800-555-0199 ext. 42": "one, eight zero zero, five five five, zero one nine nine extension forty-two",
    "anna.smith@example.com": "anna dot smith at example dot com",
    "a_b-c@mail.example.org.": "a underscore b dash c at mail dot example dot org.",
    "https://www.example.com/help": "example dot com slash help",
    "http://example.com/articles/12345-reset?x=1.": "example dot com.",
    "<https://example.com>": "example dot com",
    "(see www.example.co.uk)": "see example dot co dot UK",
    "github.io is a host": "github dot IO is a host",
    "report_final.pdf": "report final dot PDF",
    "main.py and node.js": "main dot PY and node dot JS",
    "/usr/local/bin": "slash usr slash local slash bin",
    "@anna #voice": "at anna voice",
}

WORDS = {
    "Dr. Smith": "Doctor Smith",
    "Mr. and Mrs. Lee, Ms. Roe": "Mister and Missus Lee, Miz Roe",
    "St. John on Main St. in St. Louis": "Saint John on Main Street in Saint Louis",
    "123 Elm St. Springfield": "one hundred twenty-three Elm Street. Springfield",
    "42 Oak Dr., Apt. 5": "forty-two Oak Drive, apartment five",
    "Fifth Ave. and Mill Rd.": "Fifth Avenue and Mill Road.",
    "J. R. Smith Jr. came": "J R Smith Junior came",
    "vitamin C. It helps": "vitamin C. It helps",
    "e.g. tea, i.e., a drink": "for example tea, that is, a drink",
    "tea, etc., and milk": "tea, et cetera, and milk",
    "tea etc. Then": "tea et cetera. Then",
    "cats vs. dogs, approx. 5": "cats versus dogs, approximately five",
    "the U.S. and the U.K.'s": "the US and the UK's",
    "the FBI and NASA": "the FBI and NASA",
    "No. I mean yes.": "No. I mean yes.",
    "salt & pepper": "salt and pepper",
    "w/ milk, w/o sugar": "with milk, without sugar",
    "and/or, he/she, TCP/IP": "and or, he or she, TCP IP",
    "C++ and C#": "C plus plus and C sharp",
    "the item(s)": "the items",
    "it is (I think) fine": "it is, I think, fine",
    "it is fine (I think)": "it is fine, I think",
    "fine\u2014really": "fine, really",
    "one -- two \u2013 three": "one, two, three",
    "“Yes,” she said, \u2018no\u2019": "Yes, she said, no",
    "it\u2019s the dogs' rock 'n' roll": "it's the dogs rock n roll",
    "Well... I see": "Well. I see",
    "well… maybe": "well, maybe",
    "What?! No!!!": "What? No!",
    "well-known": "well-known",
    "Go \u2192 Settings > Privacy": "Go, Settings, Privacy",
    "two\xa0words\u200b, so\xadft": "two words, soft",
    "\u202eabc\u202c\x07": "abc",
    "na\u00efve caf\u0065\u0301": "na\u00efve caf\u00e9",
    "Hi :) there 👍🏽": "Hi there",
    "end.Then": "end. Then",
}

MARKUP = {
    "**Hello**, *you*! ~~no~~": "Hello, you! no",
    "__init__ and snake_case": "init and snake case",
    "# Title\nText": "Title. Text",
    "# Title": "Title.",
    "## Title ##\n\n> quoted text": "Title. quoted text",
    "- one\n- two": "one. two.",
    "* one\n  goes on\n* two!": "one goes on. two!",
    "- [x] done\n- [ ] open": "done. open.",
    "1. Open it\n2) Close it": "one: Open it. two: Close it.",
    "First line\nSecond line": "First line. Second line",
    "a line that\ngoes on": "a line that goes on",
    "a\n\nb": "a. b",
    "a\n\n---\n\nb": "a. b",
    "[the site](https://example.com/a_(b)?x=1)": "the site",
    "![a cat](cat.png) and [b][1]": "a cat and b",
    "a fact[1] and a note[^2]": "a fact and a note",
    "Use `pip install x`.": "Use pip install x.",
    "```python\nx = 1\n```": "x equals one",
    "| a | b |\n|---|:-:|\n| 1 | 2 |": "a, b. one, two.",
    "<b>Bold</b> &amp; <i>it</i><br>Next": "Bold and it. Next",
    '<speak>Hi <break time="1s"/>there</speak>': "Hi, there",
    "<!-- no --><script>x()</script>yes": "yes",
    "[[h@l'oU]]": "h at l'oU",
    "&#91;&#91;x&#93;&#93;": "x",
    "[\u200b[x]\u200b]": "x",
    "$E=mc^2$": "E equals mc squared",
    r"\(\frac{a}{b}\) and $\sqrt{x} \times y^{3}$": "a over b and the square root of x times y cubed",
    "$2x+3$": "two x plus three",
    r"5\*": "five",
    "": "",
    " \n\t": "",
    "🎉🎉": "",
    "***": "",
    "?!": "",
    "[](x)": "",
}


def pairs(*tables: dict[str, str]) -> list[tuple[str, str]]:
    return [pair for table in tables for pair in table.items()]


@pytest.mark.parametrize(("written", "said"), pairs(NUMBERS, DATES, TIMES, AMOUNTS))
def test_figures_are_said_as_one_reads_them(written: str, said: str) -> None:
    assert speakable(written) == said


@pytest.mark.parametrize(("written", "said"), pairs(ADDRESSES, WORDS))
def test_addresses_abbreviations_and_signs_are_said_as_one_reads_them(written: str, said: str) -> None:
    assert speakable(written) == said


@pytest.mark.parametrize(("written", "said"), pairs(MARKUP))
def test_markup_is_heard_as_pauses_or_not_at_all(written: str, said: str) -> None:
    assert speakable(written) == said


def test_an_answer_for_the_eye_is_one_for_the_ear() -> None:
    written = (
        "Sure! Here's what I found:\n\n1. **Main office**: open Mon\u2013Fri, 9:00 AM \u2013 5:30 PM\n"
        "2. **Weekend desk**: call [us](tel:5550100) at (800) 555-0199\n\nAnything else? 😊"
    )
    assert speakable(written) == (
        "Sure! Here's what I found: one: Main office: open Monday to Friday, nine AM to five thirty PM."
        " two: Weekend desk: call us at eight zero zero, five five five, zero one nine nine. Anything else?"
    )


FRAGMENTS = [
    *"$€%-—_`[]()<>=+&.,!?…:;'\"/@|\\^~x½²é😀",
    "--",
    "**",
    "](x)",
    "<b>",
    "&amp;",
    "...",
    "[[",
    "]]",
    "# ",
    "1. ",
]
FRAGMENTS += [
    "Dr.",
    "St.",
    "St",
    "Dr",
    "Main",
    "Smith",
    "J.",
    "R.",
    "A.",
    "b.",
    "I",
    "word",
    "No.",
    "Mr",
    "Mrs.",
    "vs.",
]
FRAGMENTS += [
    "7",
    "12",
    "1984",
    "3.5",
    "1,250",
    "28",
    "2026",
    ":30",
    "pm",
    "a.m.",
    "km",
    "°C",
    "Nov.",
    "in",
    "w/",
    "'s",
]
FRAGMENTS += ["etc.", "e.g.", "U.S.", "www.", "example.com", "http://"]
WRITTEN = st.lists(st.sampled_from([*FRAGMENTS, *[" "] * 20, "\n", "\n\n", "\n- ", "\u200b", "\u0301"]), max_size=12)
TEXTS = st.one_of(WRITTEN.map("".join), st.text(max_size=20))


@given(TEXTS)
@example("Dr.Dr.etc.")
@example("[\u200b[x]]")
def test_whatever_is_written_becomes_words_that_stay_as_they_are(written: str) -> None:
    said = speakable(written)
    assert SAYABLE.fullmatch(said)
    assert said == said.strip()
    assert not said or any(map(str.isalpha, said))
    assert speakable(said) == said


HOSTILE = ["_", "a_", "a'", "a-", "[](", "<a ", "$=", "1,111", "1.", ". ", "<!--", "Dr. ", " ", "\n- ", "a@", "A.B."]


def seconds(piece: str, length: int) -> float:
    text = "a" + (piece * length)[:length] + "X"
    began = process_time()
    speakable(text)
    return process_time() - began


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    # in proportion to the square of it, it would be a hundred times
    assert seconds(piece, 30_000) < 40 * seconds(piece, 3_000) + 0.1


@pytest.mark.parametrize("piece", ["((((", "1", "*", "."])
def test_a_hundred_thousand_characters_of_nothing_are_no_harm(piece: str) -> None:
    assert seconds(piece, 100_000) < 10


def cut(pieces: Iterable[str]) -> list[str]:
    sentences = Sentences()
    cut = [sentence for piece in pieces for sentence in sentences.push(piece)]
    return cut + sentences.rest()


@pytest.mark.parametrize(
    "sentences",
    [
        ["Okay.", "I'll look that up for you.", "It won't take long!"],
        ["Dr. Smith lives at No. 5 Main St. with J. R. Jones.", "He is at home until 5 p.m. today."],
        ["Yes.", "It's 3.14, as of v1.2 on example.com, e.g. in the U.S. market.", "Is that right?"],
        ["We open at 9 a.m. and close at 5 p.m.", "Then we go home."],
        ['He asked, "Is it open?" and left.', '"Yes." said nobody.', "So (I think.) it is."],
        ["I see... perhaps later…", "Or perhaps now?!", "Whatever you say."],
        [
            "# Title",
            "The text goes\non here.",
            "- the first item",
            "- the second item",
            "1. Open it first.",
            "2. Close it.",
        ],
        ["A paragraph", "and another one", "and the last"],
        ["1. Open it first.", "2. Close it."],
        ["**Bold words.**", "_Then others follow._"],
        ["The answer is B.", "Do take vitamin C.", "The rest is clear."],
        ["Tea, coffee, etc. are served.", "Cake, pie, etc.", "That is all there is."],
    ],
)
def test_a_text_is_cut_where_its_sentences_end(sentences: list[str]) -> None:
    joint = "\n\n" if sentences[0] in ("# Title", "A paragraph") else " "
    assert cut([joint.join(sentences)]) == sentences


def test_a_sentence_is_given_when_the_white_space_behind_it_comes() -> None:
    sentences = Sentences()
    assert [sentences.push(piece) for piece in ("It", "'s 3", ".", "5 now", ".", " ", "Yes")] == [
        *[[]] * 5,
        ["It's 3.5 now."],
        [],
    ]
    assert sentences.rest() == ["Yes"]
    assert sentences.rest() == []


def test_a_very_short_sentence_is_said_at_once_or_with_the_next() -> None:
    assert cut(["Okay. No. I mean yes, that is right. Bye."]) == ["Okay.", "No. I mean yes, that is right.", "Bye."]


def test_the_first_piece_ends_at_a_comma_if_the_sentence_goes_on() -> None:
    first = "Sure, I can help you,"
    assert len(first.split()) > FIRST_WORDS
    sentences = Sentences()
    assert sentences.push(first + " ") == []
    assert sentences.push("x" * PATIENCE) == [first]
    later = " and this one, which is a later one, goes on, and on, and on, to its end."
    assert sentences.push(later + " ") == ["x" * PATIENCE + later]


def test_the_first_piece_is_the_whole_sentence_if_that_is_soon_over() -> None:
    assert cut(["Sure, I can help you, my friend. And then?"])[0] == "Sure, I can help you, my friend."
    assert cut(["No, wait until I have found out what it is that you want."]) == [
        "No, wait until I have found out what it is that you want."
    ]
    assert cut(["It was on May 5, 1961, in the evening of a day in spring."])[0] == "It was on May 5, 1961,"


def test_a_very_long_sentence_is_cut_at_its_last_comma_or_before_its_last_conjunction() -> None:
    words = "word " * 25
    with_comma = f"Yes. {words.strip()}, {words}and {words}end."
    assert cut([with_comma])[1] == f"{words.strip()},"
    with_link = f"Yes. {words}and {words}end of it."
    assert cut([with_link])[1:] == [words.strip(), f"and {words}end of it."]
    assert all(len(piece) <= LONG for piece in cut([with_comma]))


def test_what_has_no_end_is_cut_between_words_or_else_anywhere() -> None:
    words = "another " * 100
    pieces = cut([words])
    assert HARD - len("another ") < len(pieces[0]) <= HARD
    assert " ".join(pieces) == words.strip()
    assert cut(["x" * 1000]) == ["x" * HARD] * 3 + ["x" * 100]


def test_what_has_no_words_waits_for_some() -> None:
    assert cut(["---\n\n```\nHello there.\n"])[0] == "---\n\n```\nHello there."
    assert cut(["***"]) == ["***"]
    assert cut([" \n "]) == []


STREAMS = st.lists(
    st.sampled_from(
        [*FRAGMENTS, *[" "] * 20, "\n", "\n\n", "hello there ", "and so, then ", "long " * 20, "x" * 90, " " * AHEAD]
    ),
    max_size=40,
).map("".join)


@given(STREAMS, st.lists(st.floats(0, 1), max_size=8))
def test_no_way_of_writing_a_text_loses_doubles_or_moves_any_of_it(text: str, places: list[float]) -> None:
    borders = sorted({0, len(text), *(int(place * len(text)) for place in places)})
    whole = cut([text])
    assert cut(text[start:end] for start, end in pairwise(borders)) == whole
    assert cut(text) == whole
    assert "".join("".join(whole).split()) == "".join(text.split())
    assert all(piece == piece.strip() and 0 < len(piece) <= HARD + AHEAD for piece in whole)


@given(
    st.lists(
        st.sampled_from(["yes", "well,", "Dr.", "no.", "so?", "and", "it's", "\n", "- x", "long" * 8]), max_size=150
    )
)
def test_words_are_never_cut(words: list[str]) -> None:
    text = " ".join(words)
    assert " ".join(" ".join(cut([text])).split()) == " ".join(text.split())
