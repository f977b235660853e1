"""What many tests need: a bridge that runs, callers who are connected to it, and what it logs."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest
from structlog.testing import capture_logs

from voice_bridge.bridge.config import load
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.memory.client import Mind
from voice_bridge.bridge.phone import Phone
from voice_bridge.engines import registry
from voice_bridge.engines.base import Engine

# Threads of torch that spin while they wait would take the cores that the tests beside them need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Bridge: TypeAlias = Callable[..., Awaitable[Daemon]]
Dial: TypeAlias = Callable[..., Awaitable[Phone]]
LogLines: TypeAlias = list[MutableMapping[str, Any]]


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    """`daemon = await bridge(slots=2, calls__max_calls=1)`: a bridge on a free port; its engine is the test line."""
    empty = tmp_path / "empty.toml"
    empty.touch()
    async with AsyncExitStack() as stack:

        async def start(
            *, slots: int = 10, engine: Engine | None = None, mind: Mind | None = None, **settings: Any
        ) -> Daemon:
            given = {"server.port": 0} | {key.replace("__", "."): value for key, value in settings.items()}
            engine = engine or registry.make(registry.Choice("echo", "", slots=slots or registry.ECHO_SLOTS))
            return await stack.enter_async_context(Daemon(load(empty, given, env={}), engine, mind=mind))

        yield start


@pytest.fixture
async def dial(bridge: Bridge) -> AsyncIterator[Dial]:
    """`phone = await dial(daemon)`: a caller who is connected and hears the agent, until the test is over."""
    calls: list[tuple[Phone, asyncio.Task[Any]]] = []
    async with AsyncExitStack() as stack:

        async def start(daemon: Daemon, **options: Any) -> Phone:
            options = {"public_url": daemon.settings.server.public_url} | options
            phone = await stack.enter_async_context(Phone(daemon.url + "/twilio/voice", **options))
            calls.append((phone, asyncio.create_task(phone.call())))
            await asyncio.sleep(0)  # the task makes the record that `until` looks at
            await phone.until(lambda call: call.first_media is not None)
            return phone

        yield start
        for phone, call in calls:
            phone.hang_up()
            await call


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """Every line that the bridge logs, as what it was logged with."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def unused_port() -> int:
    """A port that nobody has just now, for what cannot take port 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
