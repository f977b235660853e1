"""What memory speaks of: what is remembered, how it hangs together, and what was thought of it in a call."""

from __future__ import annotations

import secrets
from typing import Literal, TypeAlias

import msgspec

from ...engines.base import Speaker

Kind: TypeAlias = Literal["name", "preference", "fact", "person", "appointment", "decision"]
Relation: TypeAlias = Literal["supersedes", "hangs_on"]

DAY = 86400.0  # seconds
ID_BITS = 20  # of an id are random, so that two bridges on one store never make the same in a millisecond


class Entities(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an utterance is about, as far as rules can tell."""

    kind: Kind = "fact"
    about: str = ""
    """The thing of which it tells something, in lower case: "gate code", "sister anna birthday". A newer memory
    about the same supersedes the older. Empty when there is no such thing: then nothing is superseded."""
    value: str = ""
    """What it tells of it: "4417"."""
    names: tuple[str, ...] = ()
    """People, places and things with names of their own."""


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a caller said and that is worth knowing in the next call."""

    id: int
    caller: str
    """The key of the caller, never the number."""
    text: str
    """The caller's own words, tidied."""
    timestamp: float
    """Seconds since 1970."""
    speaker: Speaker = "caller"
    entities: Entities = Entities()
    emotions: tuple[str, ...] = ()
    importance: float = 0.5
    """How much it matters by itself, 0 to 1."""
    source_call: str = ""


class Link(msgspec.Struct, frozen=True):
    """`parent` supersedes `child`, or hangs on it: cannot be understood without."""

    parent_id: int
    child_id: int
    relation: Relation


class Candidate(msgspec.Struct, frozen=True):
    """A memory that may have to do with what was just said."""

    memory: Memory
    similarity: float
    """Cosine of the embeddings."""
    words: float
    """How well the words agree, 0 to 1; 0 when none does."""
    via: int = 0
    """The id of the memory that hangs on this one, when only that was found."""


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a thinker made of a candidate."""

    memory: Memory
    similarity: float
    words: float
    relevance: float
    importance: float
    why: str = ""
    """In a few words, for whoever asks `memory explain`."""
    injected: bool = False


class Moment(msgspec.Struct, frozen=True):
    """The point of a call at which memories are looked for."""

    said: str
    """What the caller says, as far as it is heard."""
    final: bool
    """Whether that is the whole of it."""
    before: tuple[tuple[Speaker, str], ...]
    """What was said before it, oldest first."""
    known: frozenset[int]
    """Ids of memories that the model has been given in this call."""
    now: float
    """Seconds since 1970."""


class Thought(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was thought at one moment of a call: `memory explain` shows it."""

    call: str
    caller: str
    timestamp: float
    into_call: float
    """Seconds since the call began."""
    said: str
    final: bool
    thinker: str
    milliseconds: dict[str, float]
    """What each stage took."""
    judged: tuple[Judged, ...]


def new_id(now: float) -> int:
    """An id that is nobody else's; later ones are greater. Fits a signed 64-bit integer."""
    return int(now * 1000) << ID_BITS | secrets.randbits(ID_BITS)
