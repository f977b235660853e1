"""How a memory is put to the model, or into its mouth."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .wire import Injection

# The caller's words as somebody else says them to the caller.
TURNED = {
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
    "us": "you",
    "our": "your",
    "ours": "yours",
}
WAS = re.compile(r"\bI was\b", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")


def known(facts: Sequence[str]) -> str:
    """What a call begins with, to be read by the model; empty if there is nothing."""
    return f"in earlier calls the caller told me: {_quoted(facts)}" if facts else ""


def reminder(facts: Sequence[str], injection: Injection) -> str:
    """What the model is given in mid-call: to be read, or to be said."""
    if injection == "spoken":
        return f"You told me: {' '.join(turned(fact) for fact in facts)}"
    return f"the caller told me before: {_quoted(facts)}"


def turned(fact: str) -> str:
    """The caller's own words as the agent says them: "my code is 4417" is "your code is 4417"."""
    return WORD.sub(lambda word: TURNED.get(word[0].lower(), word[0]), WAS.sub("you were", fact))


def _quoted(facts: Sequence[str]) -> str:
    return " ".join('"' + fact.replace('"', "'") + '"' for fact in facts)
