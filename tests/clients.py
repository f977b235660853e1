"""Clients at /v1/stream, as terminals and browsers are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from voice_bridge.bridge import auth
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.codecs.framing import FRAME, RATE

SECRET = "not-a-real-secret-but-long-enough"
PATIENCE = 20.0  # seconds for what takes one
QUIET = logging.getLogger("tests.stream")  # the library's own log of handshakes is not asked for


def token(*scopes: auth.Scope, secret: str = SECRET, audience: str = "voice-bridge", seconds: float = 3600) -> str:
    return auth.mint(secret, audience, "ann", scopes or ("talk",), seconds)


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> NDArray[np.int16]:
    """Sound without a pause."""
    return np.random.default_rng(seed).integers(-8000, 8000, int(seconds * rate)).astype("<i2")


class Client:
    """A client: what it was told, and what it heard."""

    def __init__(self, socket: ClientConnection, rate: int = RATE) -> None:
        self.socket = socket
        self.rate = rate
        self.told: list[dict[str, Any]] = []
        self.chunks: list[NDArray[np.int16]] = []
        self._news = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def tell(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def say(self, pcm: NDArray[np.int16], sizes: Sequence[int] = ()) -> None:
        """Speak, in real time: in chunks of 20 ms, or of these sizes one after another."""
        loop = asyncio.get_running_loop()
        began, at, turn = loop.time(), 0, 0
        while at < len(pcm):
            size = sizes[turn % len(sizes)] if sizes else self.rate // 50
            await self.socket.send(pcm[at : at + size].tobytes())
            at, turn = at + size, turn + 1
            await asyncio.sleep(max(0.0, began + min(at, len(pcm)) / self.rate - loop.time()))

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first message of that type, and with these fields, that the client is told."""
        wanted = {"type": kind, **fields}
        return await self._wait(lambda: next((told for told in self.told if wanted.items() <= told.items()), None))

    async def until_heard(self, samples: int) -> NDArray[np.int16]:
        """So much sound that is not silent, with all that came between."""
        return await self._wait(lambda: self.heard if np.count_nonzero(self.heard) >= samples else None)

    async def until_echoed(self, said: NDArray[np.int16]) -> None:
        """Every sample of what was said has come back, in order and once; but for the last frame, if it is no whole."""
        whole = said[: len(said) // FRAME * FRAME]
        heard = without_silence(await self.until_heard(np.count_nonzero(whole)))
        assert np.array_equal(heard[: np.count_nonzero(whole)], without_silence(whole))
        assert np.count_nonzero(said[len(whole) :]) >= len(heard) - np.count_nonzero(whole)

    async def closed(self) -> tuple[int, str]:
        """How the bridge closed the socket."""
        await self._listening
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""

    @property
    def heard(self) -> NDArray[np.int16]:
        return np.concatenate([np.zeros(0, np.int16), *self.chunks])

    async def _listen(self) -> None:
        try:
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.chunks.append(np.frombuffer(message, "<i2"))
                else:
                    self.told.append(json.loads(message))
                self._news.set()
        except ConnectionClosed:
            pass

    async def _wait(self, look: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while (found := look()) is None:
                assert not self._listening.done(), f"the socket was closed; told: {self.told}"
                self._news.clear()
                waiting = asyncio.create_task(self._news.wait())
                await asyncio.wait([waiting, self._listening], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        return found


def reach(daemon: Daemon, given: str | None = None, **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    headers |= options.pop("headers", {})
    url = daemon.url.replace("http", "ws", 1) + "/v1/stream"
    options = {"ping_interval": None, "compression": None, "logger": QUIET} | options
    return connect(url, additional_headers=headers, **options)


@asynccontextmanager
async def client(daemon: Daemon, opening: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client that has sent its open, unless that is None."""
    opening = {} if opening is None else opening
    async with reach(daemon, **options) as socket:
        one = Client(socket, opening.get("rate", RATE))
        await one.tell("open", **opening)
        await one.until("ready")
        yield one


async def gone(daemon: Daemon) -> None:
    """Wait for the end of every call."""
    for call in list(daemon.board.calls.values()):
        await call.finished
    assert daemon.engine.capacity().free == daemon.engine.capacity().offered
    assert daemon.board.admission.expected == 0


def without_silence(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    return pcm[pcm != 0]
