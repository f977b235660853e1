"""What the notebook says to what needs neither notes nor a clock, and how a turn's small talk is told from the rest."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from .english import listed, one_of

Small: TypeAlias = Literal["bye", "done", "thanks", "how", "hello", "no", "yes", "filler"]
"""Kinds of small talk, the weightiest first: of several in a turn, that is answered."""

SMALL_ANSWERS: dict[Small, str] = {
    "done": "All right. Say goodbye when you want to hang up.",
    "thanks": "You are welcome.",
    "how": "I am well, thank you. What can I note for you?",
    "hello": "Hello. Tell me something to remember, or ask me the time.",
    "no": "All right. What else can I do?",
    "yes": "Good. Tell me something to remember, or ask me something.",
}

_ENDS = r"(?=\W*$|[,.!])"  # a word that begins a sentence as well: "great news", "stop signs"
_SMALL: dict[Small, str] = {
    "bye": r"""
        (?:good ?)?bye
        bye bye
        (?:by by|buy buy|by|buy)(?=\W*$)
        cheerio|so long|farewell|good night
        (?:i(?:'ll| will) )?(?:talk|speak) to you (?:later|soon|tomorrow|again)
        see you(?: later| soon| again| tomorrow)?
        (?:have|having) an? (?:\w+ )?(?:day|evening|weekend|night|afternoon|one)
        (?:please )?(?:(?:you|can you|could you|will you) )?(?:can |may )?(?:please )?(?:just )?hang up(?: now)?
        i have to go(?: now)?
        i(?:'m| am) going to hang up(?: now)?
        that'?s all.{0,30}\b(?:bye|by|buy)
    """,
    "done": rf"""
        (?:that(?:'s| is| was) (?:all|it|everything)(?: for (?:now|today))?|nothing(?: else)?|stop){_ENDS}
        i(?:'m| am) done{_ENDS}
    """,
    "thanks": r"""
        (?:(?:many )?thanks|thank you|thank u)(?: (?:very|so) much| a lot)?(?: for (?:your|the|that|this|all)(?: \w+)?)?
    """,
    "how": r"""
        how are you(?: doing)?(?: today)?
        how do you do
        how(?:'s| is) it going
        are you (?:well|ok|okay|fine|all right)
        how(?:'s| is) your day
    """,
    "hello": r"""
        (?:hello|hallo|hullo|hi|hey|hiya|greetings)(?: there| again)?
        good (?:morning|afternoon|evening|day)
        nice to (?:meet|hear) you
        is (?:anybody|anyone|somebody|someone) there
        are you there
    """,
    "no": r"""
        no(?! one\b)|nope|not really
    """,
    "yes": rf"""
        yes|yeah|yep|yup|ok|okay
        (?:all right|alright|right|sure|fine|good|great|perfect|exactly|correct|i see|cool|understood){_ENDS}
        (?:very good|nice|wonderful|excellent|that'?s (?:right|good|great|fine|correct|nice)){_ENDS}
    """,
    "filler": r"""
        u+m+|u+h+|e+r+m*|a+h+|h+m+|mm+
        oh|so|well|and|but|also|then|now|please|actually|listen|look|just
        (?:sorry|excuse me)(?=\W+\w)
        anyway|for now|you know|i mean|by the way
        (?:wait|robot|notebook|moshi)(?=\W*$|,)
    """,
}
_START = {kind: re.compile(rf"(?i){one_of(said)}(?=$|[\s,.!?;:])[\s,.!?;:]*") for kind, said in _SMALL.items()}
_TAIL = re.compile(
    r"(?i)(?:[\s,.!]+(?:please|thank you|thanks|okay|ok|will you|can you|could you)|, (?:goodbye|bye))(?=\W*$)"
)
_SENSELESS = frozenset(listed("you the a i it huh eh"))


def peel(clause: str) -> tuple[list[Small], str]:
    """The small talk that a clause begins and ends with, and what is left of it.

    A goodbye counts only where nothing but small talk is left: "bye bye" may be the name of a cat.
    """
    found, rest = _peeled(clause, goodbye=True)
    if rest and "bye" in found:
        found, rest = _peeled(clause, goodbye=False)
    while rest and (tail := _TAIL.search(rest)):
        said = tail[0].strip(" ,.!").lower()
        found.append("bye" if said.endswith("bye") else "thanks" if said.startswith("thank") else "filler")
        rest = rest[: tail.start()] + ("?" if rest.endswith("?") else "")
    return found, rest


def _peeled(rest: str, goodbye: bool) -> tuple[list[Small], str]:
    found: list[Small] = []
    while rest:
        for kind, pattern in _START.items():
            if (goodbye or kind != "bye") and (start := pattern.match(rest)):
                found.append(kind)
                rest = rest[start.end() :]
                break
        else:
            break
    return found, rest.strip()


def weightiest(found: list[Small]) -> Small | None:
    return next((kind for kind in _SMALL if kind in found and kind != "filler"), None)


def senseless(clause: str) -> bool:
    """Whether it is what the ear writes when it has heard nothing."""
    return all(word in _SENSELESS for word in re.findall(r"\w+", clause.lower()))


# -- fixed answers --

_MOSHI = r"(?:mo(?:shi|shee|chi|she|shy|ssy|tion)|mushy|(?:more|no),? she|mos[ht](?:ly| sheep)?)"
_IS_IT = r"(?:are you|is this|am i (?:talking|speaking) (?:to|with))(?: just| really)?(?: an?)?"
_NOTES = "I note what you tell me and say it back."
CAN = "I keep notes and say them back. Say: remember that, and then the thing, or ask me the time or the date."
MEMORY = "What is kept from call to call is deleted with the key that the operator has set up, or by the operator."

_FIXED: dict[str, str] = {
    rf"""
        (?:how (?:do|can|could|would)|can) (?:i|we) (?:get|have|install|use|run) (?:the )?{_MOSHI}\b.*
        (?:how (?:do|can|could|would)|can) (?:i|we) (?:talk|speak) (?:to|with) {_MOSHI}\b.*
        (?:what|who)(?:'s| is) (?:a |the )?{_MOSHI}\b.*
        tell me (?:more )?about {_MOSHI}\b.*
        what does {_MOSHI} need\b.*
        why are you not {_MOSHI}\b.*
    """: (
        "Moshi is a model that talks like people. It needs a machine with an NVIDIA card of 24 gigabytes, or about 10"
        " in four bits. The command voice bridge doctor says what a machine can run."
    ),
    rf"{_IS_IT} {_MOSHI}\b.*": f"No, I am not Moshi. I am a small program with fixed rules. {_NOTES}",
    rf"{_IS_IT} (?:robot|machine|computer|program|bot|recording|answering machine)\b.*": (
        f"Yes, I am a small program. I follow fixed rules. {_NOTES}"
    ),
    rf"{_IS_IT} (?:real(?:ly)? )?(?:an? )?(?:person|human|man|woman|someone|alive|real|people)\b.*": (
        f"No, I am a small program. I follow fixed rules. {_NOTES}"
    ),
    rf"{_IS_IT} (?:real )?(?:ai|artificial intelligence|(?:large )?language model|chat ?gpt|assistant|chat ?bot)": (
        f"No, I am a small program. I have fixed rules and no model. {_NOTES}"
    ),
    r"""
        (?:who|what|where)(?: exactly)? (?:are you|is this)(?: exactly| really)?
        who am i (?:talking|speaking) (?:to|with)
        (?:tell me |do you know )?(?:who|what) you are
        tell me (?:something )?about yourself
        introduce yourself
    """: f"I am a small program with fixed rules. I am neither Moshi nor a person. {_NOTES}",
    r"""
        (?:what(?:'s| is)|tell me|do you have)(?: your)?(?: a)? name
        who made you
    """: "I have no name. I am the notebook that answers here.",
    r"""
        (?:i need )?help(?: me)?|hell
        (?:can|could) you help(?: me)?\b.*
        what (?:can|do|could) you (?:do|know)(?: for me)?
        what can i (?:do|say|ask)(?: here| you)?
        how does (?:this|it) work|what(?:'s| is) this|what now
        how do i use (?:this|you)
        what are you (?:able to do|good (?:at|for))
    """: CAN,
    r"""
        (?:[\w']+,? ){0,2}(?:can|do|could) you (?:hear|understand) me(?: now| well)?
        (?:can|do) you hear that
        testing(?: .*)?
    """: "Yes, I can hear you.",
    r"(?:can|could|would|will|do) you remember (?:some ?things?|this|that|it)(?: for me)?": (
        "Yes, tell me. Say: remember that, and then what it is."
    ),
    r"i (?:don't|do not|didn't|did not) understand(?: (?:you|that))?": f"I am sorry. {CAN}",
    r"i (?:don't|do not) know": "All right. What else can I do?",
    r"(?:i )?love you": "That is kind of you.",
}
_ANSWERS = [(re.compile(rf"(?i){one_of(said)}\W*"), answer) for said, answer in _FIXED.items()]


def fixed(clause: str) -> str:
    """The answer that is always the same; empty if there is none."""
    return next((answer for pattern, answer in _ANSWERS if pattern.fullmatch(clause)), "")
