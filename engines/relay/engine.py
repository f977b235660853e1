"""Conversations that go on elsewhere, at other bridges and servers of Moshi's: an engine in the daemon's process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import aiohttp

from .. import wire
from ..base import Busy, CannotStart, Capacity, Lease, Opening
from ..leases import TimedLease
from .conversation import RelayConversation
from .door import Door
from .endpoint import Endpoint
from .link import Link

NEAR = 0.010  # seconds on the way there and back by which one must be nearer to count as nearer
LOOK = 0.2  # seconds between looks at the conversations; a sixth of what a hang takes to be one
LATE_LOOK = 0.1  # a look that comes this much too late is left out: it was we who hung
GOODBYE = 0.5  # seconds for a word to leave on a connection that is to be closed
IDLE = 15.0  # seconds that an unused connection is kept; probes use it sooner

log = logging.getLogger("voice_bridge.relay")


class RelayEngine:
    """As many conversations as the endpoints have room for, `slots` at most; 0 is no limit of our own."""

    name = "moshi-cloud"
    queued = 0

    def __init__(self, endpoints: Sequence[Endpoint], slots: int = 0) -> None:
        self.leases: set[TimedLease] = set()
        self.conversations: set[RelayConversation] = set()
        self.doors: list[Door] = []
        self._endpoints = endpoints
        self._slots = slots
        self._losses = self._dropped = 0  # of what is gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Ask every endpoint once. It starts without those that are away, but not if all want something corrected."""
        loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE)
        self._http = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self.doors = [Door(endpoint, self._http, loop.time) for endpoint in self._endpoints]
        try:
            await asyncio.gather(*(door.look() for door in self.doors))
            if all(door.wrong for door in self.doors):
                raise CannotStart(self.trouble)
        except BaseException:
            await self.stop()
            raise
        for door in self.doors:
            if door.trouble:
                log.warning("the endpoint %s %s", door.endpoint.name, door.trouble)
        for work in (self._look_after(), *(door.watch() for door in self.doors)):
            self._keep(asyncio.create_task(work))

    async def stop(self) -> None:
        await asyncio.gather(*(conversation.close() for conversation in list(self.conversations)))
        for lease in list(self.leases):
            lease.release()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._losses = self.restarts
        self.doors = []
        if self._http:
            await self._http.close()
            self._http = None

    @property
    def ready(self) -> bool:
        return any(not door.trouble for door in self.doors)

    @property
    def restarts(self) -> int:
        """How often an endpoint answered no more."""
        return self._losses + sum(door.losses for door in self.doors)

    @property
    def dropped(self) -> int:
        return self._dropped + sum(conversation.dropped for conversation in self.conversations)

    @property
    def device_memory(self) -> int:
        return 0  # what it needs is elsewhere

    @property
    def step_seconds(self) -> float:
        """The slowest of those that answer."""
        return max((door.reading.step_seconds for door in self.doors if not door.trouble), default=0.0)

    @property
    def trouble(self) -> str:
        if self.ready:
            return ""
        return "; ".join(f"the endpoint {door.endpoint.name} {door.trouble}" for door in self.doors) or "starting"

    def capacity(self) -> Capacity:
        used = len(self.conversations)
        offered = sum(door.free for door in self.doors) + used
        return Capacity(min(offered, self._slots) if self._slots else offered, len(self.leases), used)

    def reserve(self, ttl: float) -> Lease:
        if not self.capacity().free:
            raise Busy("every slot of every endpoint is taken" if self.ready else f"not ready: {self.trouble}")
        return TimedLease(self.leases, ttl)

    async def open(self, opening: Opening, lease: Lease) -> RelayConversation:
        if not lease.live:
            raise Busy("the reservation has expired")
        lease.release()
        conversation = RelayConversation(self, opening)
        self.conversations.add(conversation)
        try:
            await conversation.begin()
        except BaseException:
            self.gone(conversation)
            raise
        return conversation

    # -- what its conversations need ----------------------------------------------------------------------------

    def nearest(self) -> list[Door]:
        """The endpoints with room, the nearest first; of those that are as near, the emptiest."""
        open_ones = [door for door in self.doors if door.free]
        near = NEAR + min((door.way for door in open_ones), default=0.0)
        return sorted(open_ones, key=lambda door: (max(door.way, near), -door.free))

    def move(self, conversation: RelayConversation, door: Door | None) -> None:
        """From here on it takes a slot of that endpoint."""
        if conversation.door:
            conversation.door.used -= 1
        conversation.door = door
        if door:
            door.used += 1

    def gone(self, conversation: RelayConversation) -> None:
        """It takes no slot any more."""
        if conversation in self.conversations:
            self.conversations.discard(conversation)
            self.move(conversation, None)
            self._dropped += conversation.dropped

    def let_go(self, link: Link, for_good: bool) -> None:
        """Close a connection, which may take a while if its far end hangs. `for_good` tells the far end that nobody
        comes back to the conversation."""
        self._keep(asyncio.create_task(_close(link, for_good)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_after(self) -> None:
        """See which conversations hang."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK
            await asyncio.sleep(LOOK)
            now = loop.time()
            if now - due < LATE_LOOK:
                for conversation in list(self.conversations):
                    conversation.look(now)


async def _close(link: Link, for_good: bool) -> None:
    try:
        if for_good:
            async with asyncio.timeout(GOODBYE):
                await link.tell(wire.Close())
    except (TimeoutError, OSError, aiohttp.ClientError):
        pass  # it is gone already, or hangs
    finally:
        await link.close()
