"""Slots that are held for calls that have not come yet."""

from __future__ import annotations

import asyncio


class TimedLease:
    """One of the `held` until it is released, which it is by itself after `ttl` seconds."""

    def __init__(self, held: set[TimedLease], ttl: float) -> None:
        self._held = held
        self._timer = asyncio.get_running_loop().call_later(ttl, self.release)
        held.add(self)

    @property
    def live(self) -> bool:
        return self in self._held

    def release(self) -> None:
        self._timer.cancel()
        self._held.discard(self)
