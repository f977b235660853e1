"""What a bridge with the cascade takes: memory with all its parts loaded, and the time until it can be talked to."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from cascade_calls import Bridge, Result, calling, resident, starting
from cascade_sounds import say
from figures import Row

from voice_bridge.bridge.phone import Phone
from voice_bridge.bridge.phone.call import audible_at

MOST = 1200.0  # megabytes
SOON = 15.0  # seconds from the start to the agent's first sound in a call
REFUSED = "call refused"  # what is logged for calls that come too early, as ours do
AGAIN = 0.05  # seconds between two tries to get through
RUNS = (("memory off, first start", False), ("memory off, again", False), ("memory on", True))


async def resources(engine: str, share: float) -> Result:
    """Memory and start-up; the first start is as cold as this machine happens to be."""
    del share
    result = Result("resources", [], [])
    asked = say("What can you do for me?", "slt")
    for name, memory in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            async with starting(engine, Path(folder), memory=memory) as (bridge, ready):
                first = await _first_sound(bridge, ready)
                await ready
                async with calling(bridge, 7) as caller:
                    await caller.begun()
                    said = await caller.say(asked)
                    answered = await caller.answered(said.last)
                    await caller.quiet(1.0)
                    parts = resident(bridge)
                result.wrong += [f"{name}: {why}" for why in bridge.complaints() if why != REFUSED]
                if not answered:
                    result.wrong.append(f"{name}: no answer to {asked.text!r}")
                _report(result, name, bridge, first, parts)
    return result


async def _first_sound(bridge: Bridge, ready: asyncio.Task[None]) -> float:
    """Seconds from the start until somebody who dials again and again hears the agent."""
    heard = asyncio.get_running_loop().create_future()

    def ear(chunk: bytes) -> None:
        if audible_at(chunk) is not None and not heard.done():
            heard.set_result(time.monotonic() - bridge.began)

    while not heard.done():
        if ready.done() and ready.exception():
            raise ready.exception() or AssertionError
        async with Phone(bridge.webhook, caller="+15550009999", ear=ear, clock=bridge.clock) as phone:
            talking = asyncio.create_task(phone.call())
            await asyncio.wait({talking, heard}, return_when=asyncio.FIRST_COMPLETED)
            phone.hang_up()
            await talking
        await asyncio.sleep(AGAIN)
    seconds: float = heard.result()
    return seconds


def _report(result: Result, name: str, bridge: Bridge, first: float, parts: dict[str, dict[str, float]]) -> None:
    pss, rss = (sum(part[kind] for part in parts.values()) for kind in ("pss", "rss"))
    result.rows += [
        Row(
            f"all processes, in a call, {name}: PSS", f"{pss:.0f} MB (RSS {rss:.0f} MB)", f"{MOST:.0f} MB", pss <= MOST
        ),
        Row(f"from the start to the agent's first sound, {name}", f"{first:.1f} s", f"{SOON:.0f} s", first <= SOON),
        Row(f"- ready for calls, {name}", f"{bridge.ready:.1f} s"),
    ]
    result.rows += [Row(f"- {process}", f"{part['pss']:.0f} MB") for process, part in parts.items()]
    result.found[name] = {"first_sound_s": first, "ready_s": bridge.ready, "processes_mb": parts}
