"""A WebSocket at the end of a bad road: what is sent comes through when the road lets it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from .clock import Clock
from .network import Network, Path
from .websocket import WebSocket

Alter = Callable[[str], str | None]


class Wire:
    """Sends over `network`, counted from `start`.

    `alter` sees every message before it leaves and may replace it, or drop it with None.
    """

    def __init__(self, socket: WebSocket, network: Network, start: float, clock: Clock, alter: Alter | None) -> None:
        self._socket = socket
        self._path = Path(network, start)
        self._clock = clock
        self._alter = alter
        self._waiting: deque[tuple[float, bytes | None]] = deque()  # None is the goodbye
        self._timers: set[asyncio.TimerHandle] = set()
        self._delivery: asyncio.TimerHandle | None = None
        for begins, ends in self._path.stalls:
            self._stand_still(begins, ends)

    def loses(self) -> bool:
        """Whether the caller's next chunk never gets here."""
        return self._path.loses()

    def send(self, message: bytes, *, jitter: bool = False) -> None:
        self._through(message, jitter=jitter)

    def smuggle(self, message: str | bytes) -> None:
        """Send at once and unseen what Twilio would not have sent; bytes go as a binary frame."""
        if isinstance(message, str):
            self._socket.send(message.encode())
        else:
            self._socket.send_binary(message)

    def close(self) -> None:
        """Say goodbye after what is still on its way; cut where nothing will ever pass again."""
        if not self._through(None):
            self._socket.abort()

    def stall(self, seconds: float) -> None:
        """Nothing passes either way for a while; `math.inf` for a peer that has silently gone."""
        now = self._clock.now()
        self._path.stall(now, seconds)
        self._stand_still(now, now + seconds)

    def drop(self) -> None:
        """Cut the connection without a word and forget what was on its way."""
        for timer in self._timers:
            timer.cancel()
        if self._delivery is not None:
            self._delivery.cancel()
        self._waiting.clear()
        self._socket.abort()

    def _stand_still(self, begins: float, ends: float) -> None:
        """Reading stops too: the bridge's data waits in the kernels, then at the bridge."""
        self._timers.add(self._clock.at(begins, self._socket.pause))
        if ends != math.inf:
            self._timers.add(self._clock.at(ends, self._socket.resume))

    def _through(self, message: bytes | None, *, jitter: bool = False) -> bool:
        """Send now or later; False for never."""
        now = self._clock.now()
        at = self._path.leaves(now, jitter=jitter)
        if at == math.inf:
            return False
        if at <= now and not self._waiting:
            self._put(message)
        else:
            self._waiting.append((at, message))
            if self._delivery is None:
                self._delivery = self._clock.at(self._waiting[0][0], self._deliver)
        return True

    def _deliver(self) -> None:
        now = self._clock.now()
        while self._waiting and self._waiting[0][0] <= now:
            self._put(self._waiting.popleft()[1])
        self._delivery = self._clock.at(self._waiting[0][0], self._deliver) if self._waiting else None

    def _put(self, message: bytes | None) -> None:
        if message is None:
            self._socket.close()
        elif self._alter is None:
            self._socket.send(message)
        elif (altered := self._alter(message.decode())) is not None:
            self._socket.send(altered.encode())
