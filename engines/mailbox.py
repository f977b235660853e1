"""The daemon's side of a conversation that goes on elsewhere: its events until somebody reads them, and what to begin
it with anew."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from .base import Ended, Event, Flush, Lost, Opening, Said, Sound

QUEUE = 4  # frames of sound that may wait for a line that does not take them (320 ms); the oldest goes
LOSSES = 3  # engines in a row that a conversation may lose without a sound between: it may be what kills them


class Mailbox:
    """Nobody who delivers waits for whoever reads."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        """What the conversation begins with, also when it begins anew."""
        self.dropped = 0
        self.ended = False
        self._events: deque[Event] = deque()
        self._sounds = 0
        self._arrived: asyncio.Future[None] | None = None
        self._losses = 0  # since the last sound

    @property
    def unlucky(self) -> bool:
        """Whether the engine has gone down again and again before this conversation had a sound of it."""
        return self._losses >= LOSSES

    def deliver(self, event: Event) -> None:
        if self.ended:
            return
        self._losses += isinstance(event, Lost)
        self.ended = isinstance(event, Ended)
        if isinstance(event, Said | Flush):  # the greeting is over, and not said again by an engine that comes back
            self.opening = msgspec.structs.replace(self.opening, greeting="")
        if isinstance(event, Sound):
            self._sounds += 1
            self._losses = 0
            if self._sounds > QUEUE:
                self._drop_oldest_sound()
        self._events.append(event)
        if self._arrived and not self._arrived.done():
            self._arrived.set_result(None)

    def forget(self) -> None:
        """Begin anew without what is known of the caller."""
        self.opening = msgspec.structs.replace(self.opening, known="")

    def __aiter__(self) -> Mailbox:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.ended:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        event = self._events.popleft()
        self._sounds -= isinstance(event, Sound)
        return event

    def _drop_oldest_sound(self) -> None:
        oldest = next(index for index, event in enumerate(self._events) if isinstance(event, Sound))
        del self._events[oldest]
        self._sounds -= 1
        self.dropped += 1
