"""What the tests of relays share: an engine that relays, a caller who talks without a pause, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import numpy as np

from voice_bridge.engines.base import FRAME, RATE, Ended, Event, Frame, Opening, Sound
from voice_bridge.engines.relay.conversation import RelayConversation
from voice_bridge.engines.relay.endpoint import Endpoint
from voice_bridge.engines.relay.engine import RelayEngine

LIMIT = 20.0  # seconds for what takes one; only what is broken needs them

Events: TypeAlias = list[Event]


@asynccontextmanager
async def relaying(*endpoints: Endpoint, slots: int = 0) -> AsyncIterator[RelayEngine]:
    engine = RelayEngine(endpoints, slots)
    try:
        async with asyncio.timeout(LIMIT):
            await engine.start()
        yield engine
    finally:
        await engine.stop()


async def begin(engine: RelayEngine, opening: Opening | None = None) -> RelayConversation:
    return await engine.open(opening or Opening(), engine.reserve(LIMIT))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what it waits for is of many kinds
            await asyncio.sleep(0.01)


class Caller:
    """Talks to a conversation in real time, from its making on; what comes back is kept with when it came."""

    def __init__(self, conversation: RelayConversation, frame: Frame | None = None) -> None:
        self.conversation = conversation
        self.events: Events = []
        self.heard_at: list[float] = []
        self._frame = np.full(FRAME, 0.25, np.float32) if frame is None else frame
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(work) for work in (self._talk(), self._listen())]

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._tasks[0].cancel()
        await self.conversation.close()
        with suppress(asyncio.CancelledError):
            await self._tasks[0]
        await self._tasks[1]

    def of(self, kind: type[Event]) -> Events:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def sounds(self) -> list[Sound]:
        return [event for event in self.events if isinstance(event, Sound)]

    @property
    def longest_silence(self) -> float:
        """Seconds between two sounds."""
        return float(np.diff(self.heard_at).max())

    async def hears(self, sounds: int = 1, besides: Callable[[], object] = lambda: True) -> None:
        """Wait for so many sounds from now on, the last of them under this condition."""
        target = len(self.heard_at) + sounds
        await self._wait(lambda: len(self.heard_at) >= target and besides())

    async def told(self, kind: type[Event], number: int = 1) -> Event:
        """Wait until it has been told so many of this kind in all; gives the last of them."""
        await self._wait(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    async def _wait(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                assert not any(isinstance(event, Ended) for event in self.events), self.events[-3:]
                self._news.clear()
                await self._news.wait()

    async def _talk(self) -> None:
        loop = asyncio.get_running_loop()
        due, at = loop.time(), 0
        while True:
            self.conversation.send(self._frame, at)
            due, at = due + FRAME / RATE, at + FRAME
            await asyncio.sleep(due - loop.time())

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for event in self.conversation:
            self.events.append(event)
            if isinstance(event, Sound):
                self.heard_at.append(loop.time())
            self._news.set()
