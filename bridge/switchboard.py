"""What all calls share, and how a call can end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..engines.base import Engine
from ..engines.hardware import Machine
from .admission import Admission
from .auth import Tokens
from .config import Settings
from .feed import Feed
from .memory.client import Mind
from .observe.metrics import Metrics
from .observe.records import Records
from .returns import Returns

if TYPE_CHECKING:
    from .call import Call

WATCH = 0.080  # seconds between looks at the calls; a third of the shortest limit that is watched
LATE_WATCH = 0.040  # a look that comes this much too late is left out
FAREWELL = 5.0  # seconds that hanging up by REST may take before the socket is closed all the same


class End(StrEnum):
    """Why a call is over."""

    CALLER = "caller"
    CLOSED = "closed"
    DEAD = "line-dead"
    SLOW = "slow-reader"
    PROTOCOL = "protocol"
    IDLE = "idle"
    LENGTH = "length"
    DIGIT = "digit"
    TRANSFER = "transfer"
    OPERATOR = "operator"
    AGENT = "agent"
    DRAIN = "drain"
    ENGINE = "engine"
    FAULT = "fault"

    @property
    def planned(self) -> bool:
        """We ended it on purpose, so the caller must not hear the apology."""
        return self in (
            End.IDLE, End.LENGTH, End.DIGIT, End.TRANSFER, End.OPERATOR, End.AGENT, End.DRAIN,
        )  # fmt: skip


Farewell = Callable[["Call"], Awaitable[None]]


@dataclass(eq=False)
class Switchboard:
    """What all calls share."""

    settings: Settings
    engine: Engine
    mind: Mind | None
    """What remembers callers; None when memory is off."""
    admission: Admission
    tokens: Tokens
    """Checks the tokens of clients and operators, where `settings.auth.takes_tokens`."""
    metrics: Metrics
    records: Records | None
    lost_sound: dict[int, NDArray[np.int16]]
    """Played while a lost engine comes back, by a line's rate."""
    farewell: Farewell
    """Ends a planned call at the carrier, before its socket closes."""
    machine: Machine | None = None
    """What the bridge runs on; None where nobody looked."""
    calls: dict[str, Call] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    returns: Returns = field(default_factory=Returns)

    @property
    def state(self) -> Literal["ready", "draining", "no slot", "engine not ready"]:
        """Whether calls can come in; `engine.trouble` says more."""
        if self.admission.draining:
            return "draining"
        if self.engine.trouble:
            return "no slot" if self.engine.ready else "engine not ready"
        return "ready"

    async def drain(self, limit: float) -> None:
        """Let no one in, wait up to `limit` seconds for the calls that live or are expected, then end the rest."""
        self.admission.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self.calls or self.admission.expected:  # noqa: ASYNC110 - calls and reservations, two owners
                    await asyncio.sleep(WATCH)
        self.cut()
        if self.calls:
            await asyncio.wait([call.finished for call in self.calls.values()], timeout=FAREWELL * 2)

    async def watch(self) -> None:
        """Look at every call every 80 ms, as long as the bridge runs."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + WATCH
            await asyncio.sleep(WATCH)
            now = loop.time()
            # After a stall of our own every line would seem dead: let what the sockets hold be read first.
            if now - due < LATE_WATCH:
                for call in list(self.calls.values()):
                    call.look(now)

    def cut(self) -> None:
        """End every call now, and give up the slots that were promised."""
        self.admission.expect_nobody()
        for call in list(self.calls.values()):
            call.end(End.DRAIN)
