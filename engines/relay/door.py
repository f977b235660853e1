"""One endpoint as we know it: how it was when we asked last, and whether a new conversation may be tried there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

import aiohttp

from ..base import Opening
from .bridge import BridgeWire
from .endpoint import Endpoint, no_token
from .link import Full, Link, Reading, Unusable, Wire, Wrong
from .official import MoshiWire

PROBE = 2.0  # seconds between questions; servers keep an idle connection for longer, so one is always warm
LIMIT = 1.5  # seconds for an answer, or for a conversation to begin: a caller who has lost one waits meanwhile
PAUSES = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds it is left alone after each failure in a row; the last one goes on
STEADY = 30.0  # seconds after a failure after which the next one is the first
SMOOTH = 0.1  # the share of a longer way in what is known of it; a shorter one counts at once

NEW = "has not been asked yet"  # what is wrong with an endpoint at first

log = logging.getLogger("voice_bridge.relay")


class Door:
    """`used` conversations of ours are there, or on their way there."""

    def __init__(self, endpoint: Endpoint, http: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.wire: Wire = (MoshiWire if endpoint.wire == "moshi" else BridgeWire)(endpoint, http)
        self.used = 0
        self.losses = 0
        """How often it answered no more."""
        self.trouble = NEW
        """What is wrong with it; empty when it answers and takes calls, be they none just now."""
        self.wrong = False
        """Whether that is for somebody to correct."""
        self.way = inf
        """Seconds to it and back."""
        self.reading = Reading(0, "")
        self._clock = clock
        self._used_then = 0
        self._failures = 0
        self._failed_at = -inf
        self._rests_until = -inf
        self._hurry = asyncio.Event()

    @property
    def free(self) -> int:
        """Slots that we may still take there."""
        if self.trouble or self._clock() < self._rests_until:
            return 0
        return max(0, self.reading.free - (self.used - self._used_then))

    @property
    def back_in(self) -> float:
        """Seconds until it is worth a try."""
        return max(0.0, self._rests_until - self._clock())

    async def watch(self) -> None:
        """Ask how it is, again and again; the first time was before."""
        while True:
            self._hurry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self.back_in, PAUSES[0]) if self.trouble else PROBE):
                    await self._hurry.wait()
            await asyncio.sleep(self.back_in)
            await self.look()

    async def look(self) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(LIMIT):
                if self.endpoint.token is not no_token:
                    self.wire.token = await asyncio.to_thread(self.endpoint.token)
                began, used = self._clock(), self.used
                reading = await self.wire.probe(used)
        except (Unusable, ValueError, TimeoutError, OSError, aiohttp.ClientError) as error:
            self.failed(explain(error), isinstance(error, Wrong | ValueError))  # a certificate's error is the latter
            return
        took = self._clock() - began
        self.way = took if took < self.way else self.way + SMOOTH * (took - self.way)
        self._answers(reading, used)

    async def connect(self, opening: Opening, fresh: Callable[[], int]) -> Link:
        """Begin a conversation there; raises `Unusable`, and remembers why."""
        return await self._try(self.wire.connect(opening, fresh))

    async def resume(self, link: Link) -> Link:
        """Go on with one whose connection broke; raises likewise, and `Over` when it is gone."""
        return await self._try(self.wire.resume(link))

    def failed(self, why: str, wrong: bool = False) -> None:
        """Leave it alone for a while."""
        now = self._clock()
        if now - self._failed_at > STEADY:
            self._failures = 0
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        self._failed_at = now
        self._rests_until = now + pause
        if self.trouble not in (why, NEW):
            log.warning("the endpoint %s %s", self.endpoint.name, why)
        self.losses += not self.trouble
        self.trouble, self.wrong = why, wrong
        self._hurry.set()

    def worked(self) -> None:
        """A conversation has had a reply there."""
        self._failures = 0

    async def _try(self, begun: Awaitable[Link]) -> Link:
        try:
            async with asyncio.timeout(LIMIT):
                return await begun
        except Full:
            self.reading = self.reading._replace(free=0)
            self._used_then = self.used - 1  # without the one that was tried
            raise
        except (Unusable, TimeoutError, OSError, aiohttp.ClientError) as error:
            why = explain(error)
            self.failed(why, isinstance(error, Wrong))
            raise Unusable(why) from None

    def _answers(self, reading: Reading, used: int) -> None:
        if self._clock() < self._rests_until:
            return  # it answers questions, and still something went wrong with a conversation
        trouble = "" if reading.state == "ready" else f"says of itself: {reading.state}"
        if trouble != self.trouble:
            log.info("the endpoint %s %s", self.endpoint.name, trouble or f"takes calls ({reading.engine})")
        self.trouble, self.wrong = trouble, False
        if used != self.used:  # somebody came or went meanwhile: it is not known whether they are counted
            reading = reading._replace(free=self.reading.free)
        else:
            self._used_then = used
        self.reading = reading


def explain(error: Exception) -> str:
    """Why an endpoint is of no use, to follow its name."""
    if isinstance(error, TimeoutError):
        return f"did not answer within {LIMIT:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"has a certificate that is not trusted here ({error.certificate_error}); SSL_CERT_FILE names other CAs"
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or error}"
    if isinstance(error, aiohttp.ClientError):
        return f"broke off: {error}"
    return str(error)
