"""What the tests of relays share: an engine that relays, a caller who talks without a pause, and what they are told."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from tests.cores import HERE
from voice_bridge.bridge.config import load
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.engines import registry
from voice_bridge.engines.base import FRAME, RATE, Ended, Event, Frame, Opening, Sound
from voice_bridge.engines.host import HostEngine
from voice_bridge.engines.relay.conversation import RelayConversation
from voice_bridge.engines.relay.endpoint import Endpoint
from voice_bridge.engines.relay.engine import RelayEngine

VOICE_BRIDGE = Path(sys.executable).with_name("voice-bridge")
LIMIT = 20.0  # seconds for what takes one; only what is broken needs them

Events: TypeAlias = list[Event]


@asynccontextmanager
async def relaying(*endpoints: Endpoint, slots: int = 0) -> AsyncIterator[RelayEngine]:
    engine = RelayEngine(endpoints, slots)
    try:
        async with asyncio.timeout(LIMIT):
            await engine.start()
        yield engine
    finally:
        await engine.stop()


async def begin(engine: RelayEngine, opening: Opening | None = None) -> RelayConversation:
    return await engine.open(opening or Opening(), engine.reserve(LIMIT))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what it waits for is of many kinds
            await asyncio.sleep(0.01)


class Caller:
    """Talks to a conversation in real time, from its making on; what comes back is kept with when it came."""

    def __init__(self, conversation: RelayConversation, frame: Frame | None = None) -> None:
        self.conversation = conversation
        self.events: Events = []
        self.heard_at: list[float] = []
        self._frame = np.full(FRAME, 0.25, np.float32) if frame is None else frame
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(work) for work in (self._talk(), self._listen())]

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._tasks[0].cancel()
        await self.conversation.close()
        with suppress(asyncio.CancelledError):
            await self._tasks[0]
        await self._tasks[1]

    def of(self, kind: type[Event]) -> Events:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def sounds(self) -> list[Sound]:
        return [event for event in self.events if isinstance(event, Sound)]

    @property
    def longest_silence(self) -> float:
        """Seconds between two sounds."""
        return float(np.diff(self.heard_at).max())

    async def hears(self, sounds: int = 1, besides: Callable[[], object] = lambda: True) -> None:
        """Wait for so many sounds from now on, the last of them under this condition."""
        target = len(self.heard_at) + sounds
        await self._wait(lambda: len(self.heard_at) >= target and besides())

    async def told(self, kind: type[Event], number: int = 1) -> Event:
        """Wait until it has been told so many of this kind in all; gives the last of them."""
        await self._wait(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    async def _wait(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                assert not any(isinstance(event, Ended) for event in self.events), self.events[-3:]
                self._news.clear()
                await self._news.wait()

    async def _talk(self) -> None:
        loop = asyncio.get_running_loop()
        due, at = loop.time(), 0
        while True:
            self.conversation.send(self._frame, at)
            due, at = due + FRAME / RATE, at + FRAME
            await asyncio.sleep(due - loop.time())

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for event in self.conversation:
            self.events.append(event)
            if isinstance(event, Sound):
                self.heard_at.append(loop.time())
            self._news.set()


@asynccontextmanager
async def far(folder: Path, port: int = 0, slots: int = 4, core: str = "", **settings: Any) -> AsyncIterator[Daemon]:
    """Another bridge, in this process; its engine is the test line, or one of the tests' cores."""
    empty = folder / "empty.toml"
    empty.touch()
    given = {"server.port": port} | {key.replace("__", "."): value for key, value in settings.items()}
    engine = (
        HostEngine(core, f"{HERE}:{core}", slots) if core else registry.make(registry.Choice("echo", "", slots=slots))
    )
    async with Daemon(load(empty, given, env={}), engine) as daemon:
        yield daemon


class Served:
    """A bridge as people start it, in a process of its own that can be killed or stopped."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process: asyncio.subprocess.Process

    def kill(self) -> None:
        self.process.kill()

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)


@asynccontextmanager
async def served(*ports: int, folder: Path) -> AsyncIterator[list[Served]]:
    """Bridges with the test line, on these ports; they start beside each other."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VOICE_BRIDGE_", "TWILIO_"))}
    clean["VOICE_BRIDGE_LOG__LEVEL"] = "warning"
    bridges = [Served(port) for port in ports]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for bridge, port in zip(bridges, ports, strict=True):
            words = ("serve", "--engine", "echo", "--port", str(port))
            bridge.process = await asyncio.create_subprocess_exec(VOICE_BRIDGE, *words, env=clean, cwd=folder)
            stack.push_async_callback(_end, bridge.process)
        for bridge in bridges:
            async with asyncio.timeout(LIMIT):
                while not await _ready(http, bridge.url):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
        yield bridges


async def _ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


class Road:
    """What lies between two bridges: it can be cut, and counts the connections that go over it."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.open = True
        self.place: tuple[str, int]
        self._ends: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Every connection breaks, as when a cable is pulled from a router that resets them."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        self.connections += 1
        there, back = await asyncio.open_connection(*self.place)
        self._ends += [writer, back]
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def road(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Road]:
    one, parts = Road(), urlsplit(url)
    assert parts.hostname
    assert parts.port
    one.place = parts.hostname, parts.port
    server = await asyncio.start_server(one.carry, "127.0.0.1", 0, ssl=tls)
    one.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        one.cut()
