"""The daemon's side of a conversation that goes on elsewhere: what is asked of it, and what comes of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from itertools import count

import msgspec

from . import wire
from .base import Ended, Event, Flush, Lost, Opening, Said, Sound

QUEUE = 4  # frames of sound that may wait for a line that does not take them (320 ms); the oldest goes
LOSSES = 3  # engines in a row that a conversation may lose without a sound between: it may be what kills them


class Mailbox(ABC):
    """Nobody who delivers waits for whoever reads."""

    align = 0

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        """What the conversation begins with, also when it begins anew."""
        self.dropped = 0
        self.ended = False
        self._ids = count(1)  # of what is to be said or known
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

    def played(self, at: int) -> None:
        self._tell(wire.Played(at))

    def digit(self, digit: str) -> None:
        self._tell(wire.Digit(digit))

    def say(self, text: str, *, interruptible: bool = True) -> int:
        id = next(self._ids)
        self._tell(wire.Say(id, text, interruptible))
        return id

    def inject(self, context: str, *, how: str = "silent", turn: int | None = None) -> int:
        id = next(self._ids)
        self._tell(wire.Inject(id, context, how, turn))
        return id

    def cancel(self, id: int) -> None:
        self._tell(wire.Cancel(id))

    def forget(self) -> None:
        self.opening = msgspec.structs.replace(self.opening, known="")
        self._tell(wire.Forget())

    @abstractmethod
    def _tell(self, tell: wire.AnyTell) -> None:
        """Send it to where the conversation goes on."""

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
