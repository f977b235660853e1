"""The connection of a call to its peer, which may break and come back on another socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

from .lines.base import Out

LAST_WORDS = 1.0  # seconds for telling a peer why its call is over, before the socket is closed
SLOW_READER = 2.0  # seconds that one message may take to leave; the slot is worth more than a stuck peer
PATIENCE = 10.0  # seconds that a conversation waits for its client: a change of network takes two or three
SILENT = 1.0  # seconds without a message; who is not muted sends sound all the time
KEPT = 64 * 1024  # bytes of texts for a peer that is away; ten seconds of talk are a tenth of it


class Wire(Protocol):
    """One socket."""

    parted: bool
    """The peer has closed it in good order, so it will not come back."""

    def __aiter__(self) -> AsyncIterator[str | bytes]: ...
    async def send(self, out: Out) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    def cut(self) -> None:
        """Close it without a word; who waits for it to send or to receive goes on."""


class Link:
    """While the peer is away its sound is thrown away, and texts are kept for it: the oldest go when they are many."""

    def __init__(self, wire: Wire, returns: bool, clock: Callable[[], float]) -> None:
        """`returns` says whether the peer can come back; if not, a socket that breaks is a ConnectionError."""
        self.returns = returns
        self.newest = wire
        self._wire: Wire | None = wire
        self._clock = clock
        self.heard_at = clock()
        """When the last message came."""
        self._sending_since: float | None = None
        self._away_since = 0.0
        self._kept: deque[Out] = deque()
        self._kept_bytes = 0

    @property
    def here(self) -> bool:
        """Whether somebody is there to hear."""
        return self._wire is not None

    def doubtful(self, now: float) -> bool:
        """Whether the peer may be on its way back: it is away, or silent as if its network had gone."""
        return self._wire is None or now - self.heard_at > SILENT

    def slow(self, now: float) -> bool:
        """The peer does not read."""
        return self._sending_since is not None and now - self._sending_since > SLOW_READER

    def given_up(self, now: float) -> bool:
        """It has been away for too long."""
        return self._wire is None and now - self._away_since > PATIENCE

    async def send(self, out: Out) -> None:
        wire = self._wire
        if wire is None:
            self._keep(out)
            return
        self._sending_since = self._clock()
        try:
            await wire.send(out)
        except ConnectionError:
            if not self.returns:
                raise
            wire.cut()  # whoever listens to it finds out
            self._keep(out)
        finally:
            if self._wire is wire:
                self._sending_since = None

    def lose(self, wire: Wire) -> None:
        """This socket is of no more use."""
        wire.cut()
        if self._wire is wire:
            self._wire = None
            self._sending_since = None
            self._away_since = self._clock()

    async def attach(self, wire: Wire, *first: Out | None) -> None:
        """The peer is on this socket now: it is sent `first`, what was kept, and from then on everything."""
        before, self.newest = self._wire, wire
        if before is not None:
            self.lose(before)
        with suppress(ConnectionError):
            for out in first:
                if out is not None:
                    await wire.send(out)
            while self._kept and self.newest is wire:
                await wire.send(self._kept[0])
                self._kept_bytes -= len(self._kept.popleft().data)
            if self.newest is wire:
                self._wire = wire

    async def part(self, code: int, reason: str, *last: Out | None) -> None:
        await part(self.newest, code, reason, *last)

    def _keep(self, out: Out) -> None:
        if out.text:
            self._kept.append(out)
            self._kept_bytes += len(out.data)
            while self._kept_bytes > KEPT:
                self._kept_bytes -= len(self._kept.popleft().data)


async def part(wire: Wire, code: int, reason: str, *last: Out | None) -> None:
    """Tell the peer why, if it listens, and close."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(LAST_WORDS):
            for out in last:
                if out is not None:
                    await wire.send(out)
    await wire.close(code, reason)
