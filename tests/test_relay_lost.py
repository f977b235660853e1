"""Calls outlive the endpoint that they are at: killed, hung, cut off, drained or losing its engine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.relays import Caller, begin, far, relaying, road, served, until
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.engines.base import Back, Ended, Lost, Opening, Remember
from voice_bridge.engines.host import HostEngine
from voice_bridge.engines.relay import door
from voice_bridge.engines.relay import engine as relay
from voice_bridge.engines.relay.endpoint import Endpoint, endpoint

GAP = 5.0  # seconds of silence, on a machine that is busy with other tests; benchmarks/relay.py measures what it is


def to(url: str) -> Endpoint:
    return endpoint(url, None)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PROBE", 0.1)
    monkeypatch.setattr(door, "PAUSES", (0.1,))
    monkeypatch.setattr(relay, "NEAR", 10.0)  # a busy machine's jitter is no distance


def free_ports(count: int) -> list[int]:
    """Ports that nobody has just now, for bridges that come and go."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def test_an_endpoint_that_is_killed_or_hangs_costs_its_callers_a_moment_and_nobody_else_anything(
    tmp_path: Path,
) -> None:
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
        assert engine.trouble == ""
        assert engine.restarts == 2


def _place(caller: Caller) -> str:
    assert caller.conversation.door
    return caller.conversation.door.endpoint.name


@pytest.mark.usefixtures("quick_probes")
async def test_one_bridge_to_three_and_back_to_one_with_live_calls_of_which_none_is_lost(tmp_path: Path) -> None:
    """The rehearsal of scaling out and in that docs/operating.md describes."""
    ports = free_ports(3)
    async with AsyncExitStack() as stack, relaying(*(to(f"ws://127.0.0.1:{port}") for port in ports)) as engine:
        lives = [await stack.enter_async_context(AsyncExitStack()) for _ in ports]
        callers: list[Caller] = []

        async def bring_up(at: int) -> Daemon:
            return await lives[at].enter_async_context(far(tmp_path, ports[at], slots=8))

        async def call() -> Caller:
            caller = await stack.enter_async_context(Caller(await begin(engine)))
            await caller.hears(2)
            return caller

        bridges = [await bring_up(0)]
        await until(lambda: engine.capacity().offered == 8)
        callers += [await call() for _ in range(2)]

        bridges += [await bring_up(1), await bring_up(2)]  # out
        await until(lambda: engine.capacity().offered == 24)
        callers += [await call() for _ in range(4)]
        assert [len(one.board.calls) for one in bridges] == [2, 2, 2]

        for one in bridges[:2]:  # in again: who drains keeps its calls and takes no more
            one.board.admission.draining = True
        await until(lambda: [one.trouble for one in engine.doors] == ["says of itself: draining"] * 2 + [""])
        callers.append(await call())
        assert [len(one.board.calls) for one in bridges] == [2, 2, 3]
        assert not any(caller.of(Lost) for caller in callers)

        for one, life in zip(bridges[:2], lives, strict=False):  # their time is over
            await one.board.drain(0)
            await life.aclose()
        for caller in callers:
            await caller.hears(3)
        assert len(bridges[2].board.calls) == len(callers) == 7
        assert sorted(len(caller.of(Lost)) for caller in callers) == [0, 0, 0, 1, 1, 1, 1]
        assert all(len(caller.of(Lost)) == len(caller.of(Back)) for caller in callers)
        assert max(caller.longest_silence for caller in callers) < GAP


async def test_the_conversation_goes_on_where_it_was_when_only_the_connection_broke(tmp_path: Path) -> None:
    async with (
        far(tmp_path, core="whims") as there,
        road(there.url) as way,
        relaying(to(way.url)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears(2)
        first = caller.conversation.say("One moment.")
        await caller.told(Remember, 2)
        [call] = there.board.calls
        way.cut()
        await caller.hears(3)
        second = caller.conversation.say("Thank you.")
        await caller.told(Remember, 3)
        assert list(there.board.calls) == [call]
        assert not caller.of(Lost)
        assert (first, second) == (1, 2)
        assert [event.text for event in caller.of(Remember)][1:] == ["say 1 One moment. True", "say 2 Thank you. True"]


async def test_a_conversation_whose_way_is_blocked_begins_anew_elsewhere(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as near,
        road(near.url) as way,
        far(tmp_path) as distant,
        relaying(to(way.url), to(distant.url)) as engine,
    ):
        engine.doors[1].way = 1.0
        async with Caller(await begin(engine, Opening(greeting="Hello"))) as caller:
            await caller.hears(2)
            way.open = False
            way.cut()
            await caller.told(Back)
            await caller.hears(2)
            assert len(distant.board.calls) == 1
            assert caller.longest_silence < GAP


async def test_a_lone_endpoint_whose_way_was_blocked_for_a_while_still_has_the_conversation(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as there,
        road(there.url) as way,
        relaying(to(way.url)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears(2)
        [call] = there.board.calls
        way.open = False
        way.cut()
        await caller.told(Lost)
        way.open = True
        await caller.told(Back)
        await caller.hears(2)
        assert list(there.board.calls) == [call]


async def test_a_call_that_comes_while_every_endpoint_is_away_is_kept_and_begins_with_the_first_that_answers(
    tmp_path: Path,
) -> None:
    async with far(tmp_path) as there, road(there.url) as way, relaying(to(way.url)) as engine:
        lease = engine.reserve(10)
        way.open = False
        way.cut()
        async with Caller(await engine.open(Opening(), lease)) as caller:
            await caller.told(Lost)
            assert engine.capacity().used == 1
            way.open = True
            await caller.told(Back)
            await caller.hears()


async def test_an_endpoint_that_loses_its_engine_loses_its_calls_to_one_that_has_one(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as near,
        far(tmp_path) as distant,
        relaying(to(near.url), to(distant.url)) as engine,
    ):
        engine.doors[1].way = 1.0
        async with Caller(await begin(engine)) as caller:
            await caller.hears(2)
            assert isinstance(near.engine, HostEngine)
            await near.engine.child.stop()
            near.engine.child_down(60.0)
            await caller.told(Back)
            await caller.hears(2)
            assert len(distant.board.calls) == 1
            await until(lambda: not near.board.calls)


async def test_with_one_endpoint_the_call_waits_for_its_engine_to_come_back(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as there,
        relaying(to(there.url)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears(2)
        [call] = there.board.calls
        assert isinstance(there.engine, HostEngine)
        os.kill(there.engine.child.pid, signal.SIGKILL)
        assert [await caller.told(Lost), await caller.told(Back)] == [Lost(0.1), Back()]
        await caller.hears(2)
        assert list(there.board.calls) == [call]


async def test_an_endpoint_that_ends_every_conversation_at_once_does_not_get_them_for_ever(tmp_path: Path) -> None:
    async with far(tmp_path, core="whims") as there, relaying(to(there.url)) as engine:
        talk = await begin(engine, Opening(persona="nobody"))
        async with asyncio.timeout(10):
            events = [event async for event in talk]
        assert [type(event) for event in events] == [Lost, Back, Lost, Back, Lost, Ended]
        assert "3 conversations in a row were lost; the last one: engine: " in events[-1].reason
        assert "nobody is not a persona" in events[-1].reason
        assert engine.capacity().used == 0
