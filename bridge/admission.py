"""Who may come in: a slot is reserved at the webhook and confirmed when the stream starts."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..engines.base import Busy, Engine, Lease
from .config import Calls, Settings
from .config.kinds import NAMELESS

REAP = 1.0  # seconds between looks for reservations that nobody came for
REMEMBERED = 1000  # calls whose end is kept for Twilio's question about it; it asks within seconds

Why = Literal["busy", "draining", "caller", "number", "token", "engine"]


def identity(caller: str) -> str:
    """The number of a caller; empty when it is withheld, so that two who withhold theirs are not taken for one."""
    return caller if caller.startswith("+") and caller not in NAMELESS else ""


class Refused(Exception):
    """This call may not come in; the message is for the log."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why: Why = why


@dataclass(eq=False)
class Ticket:
    """The right of one call to one slot."""

    call: str
    caller: str
    number: str
    direction: str
    settings: Calls
    lease: Lease
    expires: float
    token: str = field(repr=False)
    live: bool = False

    @property
    def identity(self) -> str:
        """The caller's number; empty when it is withheld."""
        return identity(self.caller)


class Admission:
    def __init__(self, engine: Engine, settings: Settings, clock: Callable[[], float]) -> None:
        self.draining = False
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}
        self._ends: OrderedDict[str, str] = OrderedDict()

    def reserve(self, call: str, caller: str, number: str, direction: str = "inbound") -> Ticket:
        """A ticket for `call`, or `Refused` at once. Asking again for the same call replaces its reservation."""
        before = self._tickets.get(call)
        if before and before.live:
            raise Refused("token", "this call is connected already")
        if before:
            self._remove(before)
        if not self._engine.ready:
            raise Refused("engine", "the engine is not ready")
        settings = self._settings.for_number(number)
        self._check_limits(caller, number, settings)
        ttl = settings.reserve_seconds
        try:
            lease = self._engine.reserve(ttl)
        except Busy as busy:
            raise Refused("busy", str(busy)) from None
        expires, token = self._clock() + ttl, secrets.token_urlsafe(24)
        ticket = Ticket(call, caller, number, direction, settings, lease, expires, token)
        self._tickets[call] = ticket
        return ticket

    def confirm(self, call: str, token: str) -> Ticket:
        """The ticket of a stream that has started, if its token is that call's, unused and in time."""
        ticket = self._tickets.get(call)
        if ticket is None or not secrets.compare_digest(ticket.token.encode(), token.encode("utf-8", "replace")):
            raise Refused("token", "the stream's token is not one that was given to this call")
        if ticket.live:
            raise Refused("token", "the stream's token has been used")
        if ticket.expires <= self._clock():
            self._remove(ticket)
            raise Refused("token", "the stream came after its reservation had expired")
        ticket.live = True
        return ticket

    def leave(self, ticket: Ticket, end: str) -> None:
        """The call is over; `end` is kept for the request that Twilio makes after a stream."""
        self._remove(ticket)
        self._ends[ticket.call] = end
        while len(self._ends) > REMEMBERED:
            self._ends.popitem(last=False)

    def forget(self, call: str) -> None:
        """The caller hung up before the stream began."""
        ticket = self._tickets.get(call)
        if ticket and not ticket.live:
            self._remove(ticket)

    @property
    def free(self) -> int:
        """Calls that may come in now; one number's and one caller's limits may let in fewer of theirs."""
        if self.draining or not self._engine.ready:
            return 0
        free, whole = self._engine.capacity().free, self._settings.calls.max_calls
        return min(free, max(0, whole - len(self._tickets))) if whole else free

    @property
    def expected(self) -> int:
        """Calls that have a slot reserved and are not connected yet."""
        return len(self._waiting())

    def expect_nobody(self) -> None:
        """Give up every reservation."""
        for ticket in self._waiting():
            self._remove(ticket)

    def end_of(self, call: str) -> str:
        """How a call ended, once; empty when it is not known."""
        return self._ends.pop(call, "")

    async def reap(self) -> None:
        """Runs as long as the bridge: nobody's reservation outlives its time."""
        while True:
            await asyncio.sleep(REAP)
            self.reap_now()

    def reap_now(self) -> None:
        now = self._clock()
        for ticket in self._waiting():
            if ticket.expires <= now:
                self._remove(ticket)

    def _check_limits(self, caller: str, number: str, settings: Calls) -> None:
        if self.draining:
            raise Refused("draining", "the bridge is stopping")
        tickets = self._tickets.values()
        whole = self._settings.calls.max_calls
        if whole and len(tickets) >= whole:
            raise Refused("busy", f"calls.max_calls = {whole} is reached")
        limit = settings.max_calls
        if limit and sum(t.number == number for t in tickets) >= limit:
            raise Refused("number", f"max_calls = {limit} of the number is reached")
        limit = settings.max_per_caller
        if identity(caller) and limit and sum(t.caller == caller for t in tickets) >= limit:
            raise Refused("caller", f"max_per_caller = {limit} is reached")

    def _waiting(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets.values() if not ticket.live]

    def _remove(self, ticket: Ticket) -> None:
        ticket.lease.release()
        self._tickets.pop(ticket.call, None)
