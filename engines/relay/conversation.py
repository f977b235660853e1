"""A conversation that goes on elsewhere, and is taken up again wherever there is room when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import numpy as np

from .. import wire
from ..base import FRAME, Back, Busy, Ended, Event, Frame, HangUp, Lost, Opening, Refused, Sound
from ..mailbox import LOSSES, QUEUE, Mailbox
from ..wire import AnyTell
from .door import Door
from .link import Broken, Link, Over, Unusable

if TYPE_CHECKING:
    from .engine import RelayEngine

HANG = 1.2  # seconds without a reply to frames that were sent: with a new beginning the caller misses under 2 s
RESUME = 1.0  # seconds in which a conversation whose connection broke is looked for before a fresh one begins
KEPT = 9.0  # seconds for which it is worth asking for it again: a bridge keeps it for 10
AGAIN = 0.2  # seconds between two rounds of asking everybody
TEXTS = 64  # that may wait for a connection; what is asked for beyond is refused
LEAVING = 1.0  # seconds for the far end to confirm that its slot is free
PLANNED = {"agent", "digit", "operator"}  # ends that the far end meant for the caller, and not for us
INNOCENT = {"closed", "drain", "idle", "length", "resume"}  # ends that say nothing against the endpoint

Item: TypeAlias = "tuple[Frame, int] | AnyTell"

log = logging.getLogger("voice_bridge.relay")


class RelayConversation(Mailbox):
    def __init__(self, engine: RelayEngine, opening: Opening) -> None:
        super().__init__(opening)
        self.door: Door | None = None
        self._engine = engine
        self._now = asyncio.get_running_loop().time
        self._link: Link | None = None
        self._outbox: deque[Item] = deque()
        self._frames = 0  # in the outbox
        self._due = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self._waits_since: float | None = None  # for a reply
        self._replied = False  # by this link
        self._away = False  # Lost has been told, Back has not
        self._hung_up = False
        self._task: asyncio.Task[None] | None = None

    # -- what the call asks for ----------------------------------------------------------------------------------

    def send(self, frame: Frame, at: int) -> None:
        if frame.shape != (FRAME,) or frame.dtype != np.float32:
            raise ValueError(f"a frame is {FRAME} float32, not {frame.shape} of {frame.dtype}")
        if self.ended:
            return
        if self._frames == QUEUE:
            self._outbox.remove(next(item for item in self._outbox if isinstance(item, tuple)))
            self.dropped += 1
            self._frames -= 1
        self._frames += 1
        if self._waits_since is None:
            self._waits_since = self._now()
        self._post((frame, at))

    def played(self, at: int) -> None:
        if self._link:  # a later one says the same
            super().played(at)

    async def close(self) -> None:
        """Returns once the slot there is free, or nearly at once."""
        if self.ended:
            return
        self._outbox.clear()
        self._frames = 0
        self._tell(wire.Close())
        self.deliver(Ended("closed"))
        if self._task:
            if self._link is None:
                self._task.cancel()
            await asyncio.wait({self._task}, timeout=LEAVING)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._engine.gone(self)

    def _tell(self, tell: AnyTell) -> None:
        if self.ended:
            return
        if len(self._outbox) - self._frames < TEXTS:
            self._post(tell)
        elif isinstance(tell, wire.Say | wire.Inject):
            self.deliver(Refused(tell.id))

    def _post(self, item: Item) -> None:
        self._outbox.append(item)
        self._due.set()

    # -- the life of it -----------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Find a place for it; raises `Busy` if all are taken. Where nobody answers it begins as lost, and goes on."""
        try:
            self._link = await self._fresh()
        except Unusable:
            self._lose()
        self._task = asyncio.create_task(self._live(self._link))

    def look(self, now: float) -> None:
        """What happens because nothing happens; called a few times a second."""
        link, patience = self._link, self._patience
        if link is None or patience is None or patience.when() is not None:
            return
        if self._away:
            # Its engine went away under it: a fresh conversation begins in any case, and elsewhere at once.
            if any(other is not self.door for other in self._engine.nearest()):
                patience.reschedule(now)
        elif self._waits_since is not None and now - self._waits_since > (HANG if self._replied else link.patience):
            patience.reschedule(now)

    async def _live(self, link: Link | None) -> None:
        """Keep it going until it is over here or there."""
        try:
            while True:
                if link is None:
                    link = await self._found_again(None)
                old, why = link, await self._use(link)
                if self.ended or why is None:
                    return
                link = None
                if isinstance(why, Broken) and old.resumable:
                    link = await self._resumed(old)
                if link is None:
                    self._lose()
                    if self.unlucky:
                        self._end(f"{LOSSES} conversations in a row were lost; the last one: {why}")
                        return
                    link = await self._found_again(old if old.resumable else None)
        except Exception as fault:
            log.exception("a fault of ours ended a relayed conversation")
            self._end(f"a fault of ours: {fault}")

    async def _use(self, link: Link) -> Exception | None:
        """Carry everything both ways until the link ends; returns why it did, or None if that ends the call."""
        self._link, self._replied, self._waits_since = link, False, self._now()
        assert self.door
        writer = asyncio.create_task(self._write(link))
        why: Exception
        try:
            async with asyncio.timeout(None) as self._patience:
                self._take(link.early)
                while True:
                    self._take(await link.receive())
        except TimeoutError:
            why = Over("engine", "it went away") if self._away else Over("hangs", "it does not reply any more")
        except (Broken, Over) as error:
            why = error
        except (OSError, aiohttp.ClientError) as error:
            why = Broken(str(error))
        finally:
            self._link = self._patience = None
            writer.cancel()
            self._engine.let_go(link, for_good=self.ended or self._away)
        return None if self.ended else self._judge(why)

    def _judge(self, why: Exception) -> Exception | None:
        """What the end of a link means for its endpoint, and for the call."""
        assert self.door
        code = why.code if isinstance(why, Over) else ""
        log.info("a conversation at %s is over: %s", self.door.endpoint.name, why)
        if code in PLANNED:
            if not self._hung_up:
                self.deliver(HangUp(f"{code} at {self.door.endpoint.name}"))
            return None
        if code not in INNOCENT:
            self.door.failed(f"lost a conversation: {why}")
        return why

    async def _write(self, link: Link) -> None:
        """Send what is in the outbox, as it comes."""
        try:
            while True:
                while self._outbox:
                    item = self._outbox.popleft()
                    if isinstance(item, tuple):
                        self._frames -= 1
                        self.dropped += not await link.send(*item)
                    else:
                        self._take(await link.tell(item))
                self._due.clear()
                await self._due.wait()
        except (OSError, aiohttp.ClientError):
            pass  # whoever receives will see it

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Sound():
                    self._waits_since = None
                    if not self._replied and self.door:
                        self._replied = True
                        self.door.worked()
                case Lost(back_in):
                    self._lose(back_in)
                    continue
                case Back():
                    self._come_back()
                    continue
                case Ended(reason):
                    raise Over("engine", reason)
                case HangUp():
                    self._hung_up = True
                case _:
                    pass
            self.deliver(event)

    # -- finding a place for it ---------------------------------------------------------------------------------

    async def _fresh(self) -> Link:
        """Begin at the nearest endpoint with room; raises `Busy` if they have none, `Unusable` if nobody answers."""
        for door in self._engine.nearest():
            self._engine.move(self, door)
            try:
                return await door.connect(self.opening, lambda: next(self._ids))
            except Unusable as error:
                log.info("the endpoint %s %s", door.endpoint.name, error)
        self._engine.move(self, None)
        if self._engine.ready:
            raise Busy("every endpoint is full")
        raise Unusable(self._engine.trouble)

    async def _resumed(self, old: Link) -> Link | None:
        """The conversation of a link that broke, if its endpoint still has it."""
        assert self.door
        try:
            async with asyncio.timeout(RESUME):
                return await self.door.resume(old)
        except (Unusable, Over, Broken, TimeoutError) as error:
            log.info("the endpoint %s does not go on with a conversation: %s", self.door.endpoint.name, error)
            return None

    async def _found_again(self, old: Link | None) -> Link:
        """The first that can be had: the `old` one if nobody else has room, as long as it is kept, or a fresh one."""
        before, until = self.door, self._now() + KEPT
        while True:
            link = None
            if old is not None and before and self._now() < until and self._alone(before):
                self._engine.move(self, before)
                link = await self._resumed(old)
            if link is None:
                with suppress(Busy, Unusable):
                    link = await self._fresh()
            if link is not None:
                self._come_back()
                return link
            await asyncio.sleep(AGAIN)

    def _alone(self, door: Door) -> bool:
        """Whether that one may be tried, and there is no other."""
        return not door.back_in and all(other is door for other in self._engine.nearest())

    def _lose(self, back_in: float = 0.0) -> None:
        if not self._away:
            self._away = True
            self.deliver(Lost(back_in))

    def _come_back(self) -> None:
        if self._away:
            self._away = False
            self._waits_since = None
            self.deliver(Back())

    def _end(self, reason: str) -> None:
        """Nothing more can be done for it."""
        self.deliver(Ended(reason))
        self._engine.gone(self)
