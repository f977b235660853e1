"""What goes between a `Mouth` and its process, besides the packets of every process of ours.

A packet's `conversation` is the number of a sentence that is asked for. Its sound is raw float32 in packets `SOUND`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class MouthInit(msgspec.Struct, frozen=True):
    """The first message to the process."""

    kind: str
    voice: str
    threads: int
    """Sentences to speak at once."""


class Tell(msgspec.Struct, frozen=True, tag_field="tell"):
    """To the process, of one sentence."""


class Say(Tell, frozen=True, tag="say"):
    text: str


class Drop(Tell, frozen=True, tag="drop"):
    """Nobody wants to hear it any more. It is answered like any other, as soon as it is out of the way."""


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """From the process, the last of one sentence."""


class Spoken(Event, frozen=True, tag="spoken"):
    """All of it, or until it was dropped."""


class Failed(Event, frozen=True, tag="failed"):
    kind: str
    """The error's, without what it says: the sentence may be in it."""


AnyTell: TypeAlias = Say | Drop
AnyEvent: TypeAlias = Spoken | Failed

decode_tell: msgspec.json.Decoder[AnyTell] = msgspec.json.Decoder(AnyTell)
decode_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
