"""Calls in real time, through the engine's own process: what a turned clock cannot show."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import numpy as np
import pytest

from tests.conftest import Bridge
from voice_bridge.bridge.phone import Phone
from voice_bridge.bridge.phone.call import Call

TONE = (np.sin(np.arange(8000 * 20) * 0.5) * 8000).astype(np.int16)


def loud_since(call: Call, ticks: int) -> bool:
    """Half a second of sound has been heard after that many ticks of the call."""
    return bool((np.abs(call.heard[ticks * 160 :]) > 1000).sum() > 3000)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
async def test_calls_outlive_an_engine_that_dies_in_mid_call_three_times(bridge: Bridge, blow: signal.Signals) -> None:
    daemon = await bridge(slots=4)
    engine = daemon.engine
    async with Phone(daemon.url + "/twilio/voice", sound=TONE) as caller:
        talk = asyncio.create_task(caller.call())
        await asyncio.sleep(0)
        for blows in range(1, 4 if blow is signal.SIGKILL else 2):
            since = caller.record.ticks if caller.record else 0
            await caller.until(lambda call, since=since: loud_since(call, since), timeout=15)
            (live,) = daemon.board.calls.values()
            os.kill(engine.child.pid, blow)  # type: ignore[attr-defined]
            await caller.until(lambda _, live=live, blows=blows: live.stats.engine_losses == blows, timeout=15)
            since = caller.record.ticks if caller.record else 0
            await caller.until(lambda call, since=since: loud_since(call, since), timeout=15)
        caller.hang_up()
        call = await talk
        await live.finished
    assert call.ended == "the caller hung up"
    assert not call.errors
    assert engine.capacity().free == 4
    assert engine.restarts == blows


async def test_two_hundred_at_the_door_for_ten(bridge: Bridge) -> None:
    daemon = await bridge(slots=10)
    async with AsyncExitStack() as stack:
        phones = [
            await stack.enter_async_context(Phone(daemon.url + "/twilio/voice", sound=TONE, caller=f"+1555{number:07}"))
            for number in range(200)
        ]
        calls = await asyncio.gather(*(one.call(seconds=2) for one in phones))
        await asyncio.gather(*(live.finished for live in daemon.board.calls.values()))
    answered = [call for call in calls if call.answered]
    assert len(answered) == 10
    assert sum(call.ended == "rejected: busy" for call in calls) == 190
    assert all(loud_since(call, 0) for call in answered)
    assert daemon.engine.capacity().free == 10
