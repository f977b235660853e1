"""A bridge that relays: it does for its caller what `Person` does here, so everything goes through as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..codecs.resample import FULL_SCALE
from ..engines import base as engines
from ..engines.base import Conversation, Opening, Sound
from .lines import notes
from .lines.base import Heard
from .lines.relay import RelayLine
from .observe.metrics import CallStats
from .person import QUIET

if TYPE_CHECKING:
    from .call import Call


class Relayed:
    """The other end of one call, as `Call` deals with it."""

    lead_ms = memories = 0
    recording = None

    def __init__(self, call: Call, line: RelayLine) -> None:
        self._call = call
        self._line = line

    async def opening(self) -> Opening:
        """What the relaying bridge wants, and nothing of our own."""
        return Opening(call=self._call.id, **msgspec.structs.asdict(self._line.opening))

    def attach(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def begin(self) -> None:
        """It asks for nothing more."""

    def unheard(self) -> None:
        """What its caller hears is the relay's affair."""

    def anew(self) -> None:
        """Its playout too."""

    def hear(self, heard: Heard, now: float) -> None:
        if np.maximum.reduce(heard.pcm) > QUIET:
            self._call.active_at = now

    def played(self, position: int, now: float) -> None:
        """The relay says it on the caller's clock."""
        self._conversation.played(position)

    def digit(self, digit: str) -> None:
        self._conversation.digit(digit)

    async def press(self, digits: str) -> None:
        raise ValueError("this call is relayed: keys can be pressed at the bridge that has the caller")

    async def sound(self, sound: Sound) -> None:
        if np.maximum.reduce(sound.pcm) > QUIET / FULL_SCALE:
            self._call.active_at = self._call.now()
        await self._call.send(self._line.reply(sound.pcm, sound.answers))

    async def event(self, event: engines.TextEvent) -> None:
        await self._call.tell(notes.Event(msgspec.Raw(msgspec.json.encode(event))))

    def count(self, stats: CallStats) -> None:
        """What its caller hears is counted there."""

    def leave(self) -> None:
        """The conversation is over."""

    async def close(self) -> None:
        """And the relay has gone."""
