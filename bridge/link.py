"""The connection of a call to its peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

from .lines.base import Out

LAST_WORDS = 1.0  # seconds for telling a peer why its call is over, before the socket is closed


class Wire(Protocol):
    """One socket."""

    def __aiter__(self) -> AsyncIterator[str | bytes]: ...
    async def send(self, out: Out) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


async def part(wire: Wire, code: int, reason: str, *last: Out | None) -> None:
    """Tell the peer why, if it listens, and close."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(LAST_WORDS):
            for out in last:
                if out is not None:
                    await wire.send(out)
    await wire.close(code, reason)
