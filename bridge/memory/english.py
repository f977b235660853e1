"""What memory knows of English: words that carry nothing, numbers spoken as words, and the stems of the rest."""

from __future__ import annotations

import re
from functools import lru_cache


def listed(words: str) -> list[str]:
    return words.split()


WORD = re.compile(r"[^\W_]+(?:['.:,][^\W_]+)*")

STOP_WORDS = frozenset(
    listed("""
    a about after again all also always am an and any anybody anyone anything are aren't as at be because been before
    being but by can can't cannot could couldn't did didn't do does doesn't doing don't done each either else even ever
    every everything for from further get gets getting give go goes going gone gonna got gotta had hadn't has hasn't
    have haven't having he he'd he'll he's her here here's hers herself him himself his how how's however i i'd i'll i'm
    i've if in into is isn't it it'd it'll it's its itself just let let's like make many me mean might mine more
    most much must my myself need never no nor not nothing now of off oh ok okay on once one only onto or other ought
    our ours ourselves out over own perhaps please put quite rather really right said same say says shall she she'd
    she'll she's should shouldn't since so some somebody someone something sorry still such sure take tell than thank
    thanks that that's the their theirs them themselves then there there's these they they'd they'll they're they've
    thing things this those though through to too um uh under until up upon us very want wants was wasn't we we'd we'll
    we're we've well went were weren't what what's when when's where where's whether which while who who's whole whom
    whose why will with without won't would wouldn't yeah yes yet you you'd you'll you're you've your yours yourself
    actually basically bit hello hi hey know called call look maybe remember think anyway kind
    """)
)

UNITS = {
    word: number
    for number, word in enumerate(
        listed("""
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen
        """)
    )
}
TENS = {
    word: 10 * number
    for number, word in enumerate(listed("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)
}
ORDINALS = {
    word: number
    for number, word in enumerate(
        listed("""
        first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
        fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
        """),
        start=1,
    )
} | {"thirtieth": 30}
SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
REPEATS = {"double": 2, "triple": 3}
VALUES = UNITS | TENS
NUMBERS = VALUES.keys() | SCALES.keys() | ORDINALS.keys()
NOT_ALONE = frozenset({"one", "second", "hundred", "thousand", "million"})  # words of their own when no number is near

IRREGULAR = {
    line.split()[0]: line.split()[1]
    for line in """
        ate eat|bought buy|brought bring|broke break|broken break|built build|chose choose|chosen choose|came come|
        children child|cooked cook|driven drive|drives drive|driving drive|drove drive|eaten eat|feet foot|fell fall|
        flew fly|flown fly|forgot forget|forgotten forget|found find|gave give|given give|grew grow|heard hear|
        held hold|hidden hide|hid hide|hurt hurt|kept keep|knew know|known know|left leave|lives live|lived live|
        living live|lost lose|made make|married marry|marries marry|met meet|men man|mice mouse|moved move|moving move|
        paid pay|people person|ran run|rode ride|sat sit|sent send|slept sleep|sold sell|spoke speak|spoken speak|
        stole steal|stolen steal|taught teach|teeth tooth|thought think|told tell|took take|taken take|
        women woman|wives wife|wore wear|worn wear|wrote write|written write|used use|uses use|using use|
        hated hate|loved love|loves love|stored store|arrived arrive|arrives arrive|closed close|closes close
    """.strip().split("|")
}

DAYS = frozenset(listed("monday tuesday wednesday thursday friday saturday sunday today tonight tomorrow"))
MONTHS = frozenset(listed("january february march april may june july august september october november december"))
RELATIONS = frozenset(
    listed("""
    sister brother mother father mum mom mam dad wife husband partner girlfriend boyfriend fiance fiancee son daughter
    child baby grandmother grandfather grandma grandpa granny gran nan grandad granddad grandson granddaughter twin
    grandchild niece nephew aunt auntie uncle cousin friend mate colleague boss manager neighbour neighbor landlord
    landlady flatmate roommate housemate tenant lodger cleaner nanny childminder babysitter doctor gp dentist vet
    lawyer solicitor accountant teacher coach trainer hairdresser plumber electrician gardener builder mechanic
    therapist physio midwife carer nurse assistant stepson stepdaughter stepmother stepfather stepsister stepbrother
    mother-in-law father-in-law sister-in-law brother-in-law son-in-law daughter-in-law godmother godfather godson
    goddaughter godchild dog cat puppy kitten horse pony rabbit hamster parrot tortoise budgie ex
    """)
)
# Verbs that tell a clause from a list of words: with them alone may a sentence without full stops be cut.
VERBS = frozenset(
    listed("""
    is are was were am has have had 's 're 've do does did lives live lived works work worked moved drives drive drove
    likes love loves loved hate hates hated prefer prefers like need needs want wants bought got gets goes go went
    comes come came said says told called named born plays play played studies study studied speaks speak takes take
    took starts start started leaves left keep keeps kept changed cancelled canceled booked decided chose agreed met
    married retired lost found broke sold made makes gave gives wears wear eats eat drinks drink opens open closes
    teaches teach taught owns own runs run ran visits visit visited arrives arrive arrived turned turns died passed
    support supports cost costs finishes finish leaks leak calls wants says looks rent rents
    """)
)

ALONE = 3  # letters that a stem keeps at least: "bus" and "red" stay whole


def plain(text: str) -> str:
    """A text in lower case, with one kind of apostrophe and without hyphens."""
    return text.lower().replace("\u2019", "'").replace("-", " ")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without marks; numbers as digits however they were said ("four four one
    seven", "4 4 1 7" and "4,417" give "4417"; "the third" gives "3rd")."""
    return fold_numbers([re.sub("[.:,]", "", word) for word in WORD.findall(plain(text))])


def content_words(text: str) -> list[str]:
    """The words that carry something: lower case, stop words out, numbers as digits, lightly stemmed."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A word without its ending, so that "parked", "parks" and "parking" agree."""
    word = word.removesuffix("'s").removesuffix("'")
    if word in IRREGULAR:
        return _bare(IRREGULAR[word])
    if word[:1].isdigit() or len(word) <= ALONE:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= ALONE and re.search("[aeiouy]", base):
            doubled = len(base) > ALONE and base[-1] == base[-2] and base[-1] not in "lsz"
            return base[:-1] if doubled else base.removesuffix("e")
    return _bare(word)


def _bare(word: str) -> str:
    return word.removesuffix("e") if len(word) > ALONE + 1 else word


def fold_numbers(said: list[str]) -> list[str]:
    """Words with every run of number words and digits as one number: "flat twelve" -> "flat 12"."""
    folded: list[str] = []
    at = 0
    while at < len(said):
        end = at
        while end < len(said) and _numeric(said, end, at):
            end += 1
        if end == at or (end == at + 1 and said[at] in NOT_ALONE and said[end : end + 1] != ["of"]):
            folded.append(said[at])
            at += 1
        else:
            folded.append(_number(said[at:end]))
            at = end
    return folded


def _numeric(said: list[str], at: int, start: int) -> bool:
    """Whether a word goes on with the number that began at `start`, or begins one there."""
    word = said[at]
    if at > start and said[at - 1] in ORDINALS:
        return False
    if word in NUMBERS or word.isdecimal():
        return True
    if word not in ("and", "oh", "o", *REPEATS):
        return False
    ahead = 0
    while ahead < 2 and at + 1 + ahead < len(said) and _counts(said[at + 1 + ahead]):
        ahead += 1
    if word in REPEATS:
        return ahead > 0
    if word == "and":
        return at > start and said[at - 1] in SCALES and ahead > 0
    return word in ("oh", "o") and (at > start or ahead == 2)


def _counts(word: str) -> bool:
    return word in VALUES or word in REPEATS or word.isdecimal()


def _number(run: list[str]) -> str:
    """The digits of one number: sums where a hundred or more is named, else what is said one after the other."""
    ordinal = run[-1] in ORDINALS
    values = [int(word) if word.isdecimal() else VALUES.get(word, ORDINALS.get(word, 0)) for word in run]
    if SCALES.keys() & set(run):
        whole = part = 0
        for word, value in zip(run, values, strict=True):
            if word in SCALES:
                part = (part or 1) * SCALES[word]
                if SCALES[word] > 100:
                    whole, part = whole + part, 0
            else:
                part += value
        digits = str(whole + part)
    else:
        digits = ""
        for at, (word, value) in enumerate(zip(run, values, strict=True)):
            before = run[at - 1] if at else ""
            if word in REPEATS:
                continue
            if before in TENS and 0 < value < 10 and not word.isdecimal():
                digits = digits[:-1] + str(value)
            else:
                digits += (word if word.isdecimal() else str(value)) * REPEATS.get(before, 1)
    return digits + _ending(int(digits)) if ordinal else digits


def _ending(number: int) -> str:
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
