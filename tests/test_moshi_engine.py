"""Moshi as an engine of the bridge: its process, its slots, and calls that survive its death."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import numpy as np
import pytest

from tests.conftest import Bridge, Dial
from tests.cores import HERE
from tests.kills import ORACLE, WAYS, engine_named, kill, slots_of, taken
from voice_bridge.bridge.daemon import StartFailed
from voice_bridge.bridge.phone import Phone
from voice_bridge.engines import hardware, registry
from voice_bridge.engines.base import STEP_LIMIT
from voice_bridge.engines.child import ChildFailed
from voice_bridge.engines.host import HostEngine

pytest.importorskip("torch")

SLOTS = 3
BACK = 2.0  # seconds in which calls go on once the engine is back
VARIES = 64 << 20  # bytes by which two equal processes may differ
TALK = np.tile((np.sin(np.arange(400) * 0.5) * 8000).astype(np.int16), 20 * 60)


async def test_the_measured_step_decides_what_is_offered_and_calls_survive_however_the_engine_dies(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    moment = random.Random(7)
    engine = engine_named("moshi", SLOTS)
    daemon = await bridge(engine=engine)
    assert "warming up" in engine.child.progress
    assert engine.capacity().offered == SLOTS
    assert 0 < engine.step_seconds <= STEP_LIMIT
    async with http.get(daemon.url + "/metrics") as answer:
        assert f'voice_bridge_slots{{state="offered"}} {SLOTS:.1f}' in await answer.text()

    phones = [await dial(daemon, sound=TALK, caller=f"+1555010000{number}") for number in range(2)]
    held = taken()
    for count, how in enumerate(WAYS, 1):
        assert await kill(daemon, how, moment.uniform(0, 0.5)) < BACK
        assert engine.restarts == count
        assert taken() < held + VARIES
    for phone in phones:
        heard = len(record.arrivals) if (record := phone.record) else 0
        record = await phone.until(lambda call, heard=heard: len(call.arrivals) > heard + 3)
        assert (record.errors, record.ended) == ([], "")
        phone.hang_up()
    async with asyncio.timeout(10):
        while daemon.board.calls:  # noqa: ASYNC110 - until both have gone
            await asyncio.sleep(0.01)
    assert engine.capacity().used == 0
    assert await slots_of(engine) == SLOTS


async def test_a_model_that_is_too_slow_for_one_call_comes_up_and_takes_none(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real core, whose every step is made to last a fifth of a second."""
    choice = registry.choose("moshi", "", hardware.detect(), "", {"model": str(ORACLE), "weights": "bf16"}, SLOTS)
    monkeypatch.setitem(registry.CORES, "moshi", f"{HERE}:slow_moshi")
    engine = registry.make(choice)
    daemon = await bridge(engine=engine)
    assert (engine.ready, engine.capacity().offered) == (True, 0)
    assert engine.trouble.startswith("a step takes ")
    assert engine.trouble.endswith(": take voice.moshi.weights = int8")
    async with Phone(daemon.url + "/twilio/voice") as phone:
        assert (await phone.call()).steps == ["Reject: busy"]


async def test_a_checkpoint_that_cannot_be_used_fails_the_start_in_one_line(tmp_path: object) -> None:
    engine = HostEngine("moshi", registry.CORES["moshi"], 1, model=str(tmp_path), device="cpu")
    with pytest.raises(ChildFailed) as failed:
        await engine.start()
    assert str(failed.value) == f"{tmp_path} holds no model: there is neither a config.json nor any weights in it"
    await engine.stop()


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [("calls__greeting", "\u65e5\u672c", "can be said"), ("calls__persona", "you are kind " * 300, "room for 750")],
)
async def test_a_greeting_or_persona_that_no_call_could_begin_with_stops_the_start(
    bridge: Bridge, setting: str, value: str, why: str
) -> None:
    engine = HostEngine("moshi", registry.CORES["moshi"], 1, model=str(ORACLE.parent / "quantizable"), device="cpu")
    with pytest.raises(StartFailed, match=f"greeting or persona of calls: opening refused: .*{why}"):
        await bridge(engine=engine, **{setting: value})
