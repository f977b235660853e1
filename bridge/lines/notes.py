"""What a peer that can read is told beside the sound. Each is also its message on the wire, by its tag."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

State: TypeAlias = Literal["listening", "talking", "engine-lost"]

PROTOCOL = 1  # raised when a client of before would misunderstand


class Note(msgspec.Struct, frozen=True, tag_field="type"):
    pass


class Ready(Note, frozen=True, tag="ready"):
    """The conversation has begun, or goes on. By `ticket` a client whose connection breaks comes back to it, once."""

    call: str
    ticket: str | msgspec.UnsetType = msgspec.UNSET
    protocol: int = PROTOCOL


class Status(Note, frozen=True, tag="status"):
    state: State


class Transcript(Note, frozen=True, tag="transcript"):
    """An utterance so far: the same `id` again with a longer `text`, until it is `final`."""

    text: str
    speaker: Literal["caller", "agent"]
    id: int
    final: bool


class Memory(Note, frozen=True, tag="memory"):
    """What the model was reminded of."""

    injected: tuple[str, ...]


class Asked(Note, frozen=True, tag="asked"):
    """The answer to each `say` and `inject`, in their order: the id under which they are heard of again."""

    id: int


class Said(Note, frozen=True, tag="said"):
    id: int


class Cut(Note, frozen=True, tag="cut"):
    """What was to be said under this id was broken off, or never begun."""

    id: int


class Injected(Note, frozen=True, tag="injected"):
    id: int


class Event(Note, frozen=True, tag="event"):
    """What the engine reports, as it says it: for bridges that relay."""

    event: msgspec.Raw


class Pong(Note, frozen=True, tag="pong"):
    pass


class Flushed(Note, frozen=True, tag="flush"):
    """What has not been played yet is void; positions begin at 0 again."""


class Trouble(Note, frozen=True, tag="error"):
    message: str
    code: str
    id: int | msgspec.UnsetType = msgspec.UNSET


class Over(Note, frozen=True, tag="ended"):
    """The last one."""

    code: str
