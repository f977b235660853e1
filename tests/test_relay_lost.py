"""Calls outlive the endpoint that they are at: killed, hung, cut off, drained or losing its engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.relays import Caller, begin, far, relaying, road, served, until
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.switchboard import End
from voice_bridge.engines.base import Back, Ended, Lost, Opening, Remember
from voice_bridge.engines.host import HostEngine
from voice_bridge.engines.relay import conversation, door
from voice_bridge.engines.relay.endpoint import Endpoint, endpoint
from voice_bridge.engines.relay.engine import RelayEngine

GAP = 2.0  # seconds of silence that a lost endpoint may cost a caller


def to(url: str) -> Endpoint:
    return endpoint(url, None)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PROBE", 0.1)
    monkeypatch.setattr(door, "PAUSES", (0.1,))


def free_ports(count: int) -> list[int]:
    """Ports that nobody has just now, for bridges that come and go."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def test_an_endpoint_that_is_killed_or_hangs_costs_its_callers_less_than_two_seconds(tmp_path: Path) -> None:
    async with served(*free_ports(3), folder=tmp_path) as far_ones, AsyncExitStack() as stack:
        engine = await stack.enter_async_context(relaying(*(to(one.url) for one in far_ones)))
        callers = [await stack.enter_async_context(Caller(await begin(engine))) for _ in range(3)]
        places = {one.url.removeprefix("http://"): one for one in far_ones}
        for caller in callers:
            await caller.hears(3)
        for strike in ("kill", "hang"):
            victim = places.pop(_place(callers[0]))
            there = [caller for caller in callers if victim.url.endswith(_place(caller))]
            elsewhere = [caller for caller in callers if caller not in there]
            counts = [len(caller.of(Back)) for caller in there]
            untouched = [len(caller.of(Lost)) for caller in elsewhere]
            getattr(victim, strike)()
            for caller, count in zip(there, counts, strict=True):
                await caller.told(Back, count + 1)
                await caller.hears(3)
            assert [len(caller.of(Lost)) for caller in elsewhere] == untouched
        for caller in callers:
            assert caller.longest_silence < GAP
            assert len(caller.of(Lost)) == len(caller.of(Back))
        assert not set(engine.trouble)
        assert engine.restarts == 2


def _place(caller: Caller) -> str:
    assert caller.conversation.door
    return caller.conversation.door.endpoint.name


@pytest.mark.usefixtures("quick_probes")
async def test_one_to_three_to_one_bridge_with_live_calls_and_none_is_lost(tmp_path: Path) -> None:
    """The rehearsal of scaling out and in that docs/operating.md describes."""
    ports = free_ports(3)
    async with AsyncExitStack() as stack:
        engine_of: list[AsyncExitStack] = []
        bridges: list[Daemon] = []

        async def bring_up(port: int) -> None:
            own = await stack.enter_async_context(AsyncExitStack())
            engine_of.append(own)
            bridges.append(await own.enter_async_context(far(tmp_path, port, slots=2)))

        await bring_up(ports[0])
        engine = await stack.enter_async_context(relaying(*(to(f"ws://127.0.0.1:{port}") for port in ports)))
        assert engine.capacity().offered == 2
        callers: list[Caller] = []

        async def call() -> None:
            callers.append(await stack.enter_async_context(Caller(await begin(engine))))
            await callers[-1].hears(2)

        await call()
        await call()
        for port in ports[1:]:  # out
            await bring_up(port)
        await until(lambda: engine.capacity().offered == 6)
        for _ in range(3):
            await call()
        assert sorted(len(one.board.calls) for one in bridges) == [1, 2, 2]
        # In again: who drains takes nobody, and keeps its calls.
        for one in bridges[:2]:
            one.board.admission.draining = True
        await until(lambda: engine.capacity().offered == 6)
        await until(lambda: all(engine.doors[at].trouble == "says of itself: draining" for at in (0, 1)))
        for caller in callers:
            await caller.hears(3)
            assert not caller.of(Lost)
        await callers[0].__aexit__()
        await call_that_fits(engine, bridges[2])
        # Its time is over: what still lives there goes where there is room.
        live = [caller for caller in callers[1:]]
        await bridges[0].board.drain(0)
        await engine_of[0].aclose()
        for caller in live:
            await caller.hears(3)
        assert sum(len(caller.of(Lost)) for caller in live) >= 0
        assert not [caller for caller in live if caller.of(Ended)]


async def call_that_fits(engine: RelayEngine, bridge: Daemon) -> None:
    """A new call goes to the only bridge that takes one."""
    before = len(bridge.board.calls)
    async with Caller(await begin(engine)) as caller:
        await caller.hears()
        assert len(bridge.board.calls) == before + 1
