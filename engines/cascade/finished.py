"""Whether what a caller has said so far sounds finished, by its words alone.

The ear puts a full stop behind everything, a comma behind hesitations; so the words decide. Most sentences may go on
("I would like a table", "for four"). What is surely not over ends in a word that wants another. What is surely over
is little: short answers, greetings, and questions whose verb has all that it needs.
"""

from __future__ import annotations

import re
from enum import IntEnum


class Finish(IntEnum):
    OPEN = 0
    """A word must follow."""
    MAYBE = 1
    DONE = 2
    """There is nothing left to say."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words after which English goes on.
_OPEN = _words("""
a an the my your his its our their every each some any no another either neither such
and or but so because if when while although though unless until since as than which who whose whom whether
of to for with from at by in on into onto about under over between during without within against through towards
is are was were am be been being isn't aren't wasn't has had having does did will would can could shall should
may might must i'm i've i'd i'll you're we're we've we'd we'll they're it's that's there's what's where's who's let's
very really quite rather almost nearly
i we they he she
um uh er erm hmm mean called named
mr mrs ms dr mister doctor
""")
# Words with which one only begins.
_OPENERS = _words("well so now okay like maybe perhaps please just also even still actually look listen my the and but")
_OPENING = 2  # words that are no more than a beginning, if one of those ends them
# Words of the above with which a question may end all the same: "what is it for", "where are you from", "who am I".
_ENDS_QUESTION = _words("is are was were am for from about with to at in on like called named i we they he she mean")
# Verbs that want an object, when nothing stands behind them: "I would like to book", "can you tell me".
_WANTS = re.compile(
    r"(?:book|make|get|have|want|need|tell|give|send|bring|buy|change|cancel|know|say|ask|call it|remember|take|put"
    r"|tell me|give me|send me|show me|ask you|let you know|calling|wondering|looking|trying|going|like to|want to"
    r"|need to|have to|going to|used to|able to|wanted|the thing|the problem|my question"
    r"|(?:can|could|would|will|do|did) you|(?:tell|give|show|send) (?:me|us) (?:that|it)"
    r"|(?:think|say|said|know|sure|remember|forget|note|so|mean) that)"
)
_DIGIT = _words("zero oh one two three four five six seven eight nine double triple for to too won ate")  # as heard
_NUMBER = re.compile(r"\b(?:number|phone|code|pin|account|card|reference|serial|extension)\b")
_GROUPS = 4  # digits from which a code may be whole: shorter ones are the beginning of one

# Whole turns that need nothing more are made of these alone.
_SHORT = re.compile(
    r"(?:(?:yes|yeah|yep|no(?: problem)?|nope|okay|ok|right|sure|alright|exactly|correct|thanks|thank you|hello|hi|hey"
    r"|good ?bye|bye|good (?:morning|afternoon|evening|night)|never ?mind|stop|wait|please|very much|so much|of course"
    r"|that(?:'s| is) (?:all|right|correct|it|fine|wrong)|it(?:'s| is) (?:okay|fine)|i (?:do|don't|am|will|did)|you too"
    r"|see you(?: later| soon)?|have a (?:nice|good|great) (?:day|evening|weekend|one)|not really|nothing|everything"
    r"|how are you(?: doing| today)?|say that again|repeat that|again|help|pardon|sorry|what|there|then|now) ?)+"
)
_QUESTION = re.compile(
    r"\b(?:(?:what|where|when|who|how)(?:'s)?|whose|which|why"
    r"|(?:can|could|would|will|do|does|did|are|is|have|has|may|should)"
    r" (?:you|i|it|he|she|we|they|there|that|this|my|the))\b"
)
_ASKED = re.compile(r"\b(?:what|where|when|who|whose|which|how|why)\b")  # which stands for what a verb wants
_VERB = re.compile(
    r"\b(?:is|are|was|were|am|do|does|did|can|could|will|would|has|have|had|should|(?:what|where|who|when|how)'s)\b"
)
_RECENT = 200  # letters from the end that tell whether it is finished
_SAYS = 3  # words of a question that says something; "what is my" is caught by its end


def finish(text: str) -> Finish:
    """How finished it sounds. `text` is one turn so far, as an ear wrote it down."""
    text = text[-_RECENT:].lower().replace("\u2019", "'")
    words = re.findall(r"[a-z0-9']+", text)
    if not words:
        return Finish.OPEN
    said, last = " ".join(words), words[-1]
    hangs = text.rstrip().endswith((",", "-", "\u2014", "...", "\u2026", ":", ";"))
    if _SHORT.fullmatch(said):
        return Finish.MAYBE if hangs else Finish.DONE
    if hangs:
        return Finish.OPEN
    clause = re.findall(r"[a-z0-9']+", re.split(r"[.?!,;]\s", text.rstrip(" .?!"))[-1])
    asks = _QUESTION.search(" ".join(clause))
    if last in _OPENERS and len(words) <= _OPENING:
        return Finish.OPEN
    whole = asks is not None and len(clause) > _SAYS
    if last in _OPEN and not (whole and last in _ENDS_QUESTION) and not said.endswith("in may"):
        return Finish.OPEN
    if re.search(rf"(?:^|\s){_WANTS.pattern}$", said) and not (whole and _ASKED.search(said)):
        return Finish.OPEN
    if digits := _digits_at_end(words):
        return Finish.MAYBE if digits >= _GROUPS or not _NUMBER.search(said) else Finish.OPEN
    return Finish.DONE if asks and _VERB.search(said) and len(clause) >= _SAYS else Finish.MAYBE


def _digits_at_end(words: list[str]) -> int:
    """How many digits the text ends with."""
    count = 0
    for word in reversed(words):
        if not (word in _DIGIT or word.isdecimal()):
            break
        count += len(word) if word.isdecimal() else word not in ("double", "triple")
    return count
