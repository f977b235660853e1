"""Calls by the built-in phone: `python phones.py WEBHOOK CALLS SECONDS` prints what they measured, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import uvloop
from load import FRAME, spread

from voice_bridge.bridge.phone import Call, Clock, Phone, tone
from voice_bridge.bridge.phone.clock import TICK
from voice_bridge.bridge.phone.measure import AT_FIRST, SETTLED, delays, echoes


async def place(webhook: str, calls: int, seconds: float) -> list[Call]:
    clock, sound = Clock(), tone()
    async with AsyncExitStack() as stack:
        phones = [
            await stack.enter_async_context(Phone(webhook, caller=f"+1555{n:07d}", sound=sound, clock=clock))
            for n in range(calls)
        ]
        return list(await asyncio.gather(*(phone.call(seconds) for phone in phones)))


def matched(call: Call) -> bool:
    """Whether a reply came for each frame, so that they can be paired; the last one may still be on its way."""
    return 0 <= (len(call.lateness) - 1) // FRAME - len(call.arrivals) <= 1


def added(call: Call) -> list[float]:
    """From the moment when a frame was complete at the bridge's door to the arrival of its reply, in seconds.

    A chunk leaves at the tick after it was spoken, and a reply is one message a frame.
    """
    ticks = range(FRAME, len(call.lateness), FRAME)
    complete = [tick * TICK + call.lateness[tick] for tick in ticks]
    return [arrival.at - at for arrival, at in zip(call.arrivals, complete, strict=False)]


def report(calls: list[Call]) -> dict[str, object]:
    good = [call for call in calls if call.completed]
    found = [echo for call in good for echo in echoes(call.spoken, call.heard)]
    early, late = delays(found, ends=AT_FIRST), delays(found, begins=SETTLED)
    return {
        "calls": len(calls),
        "failed": [call.problem for call in calls if call.problem],
        "unmatched": sum(not matched(call) for call in good),
        "latency_ms": spread([latency for call in good if matched(call) for latency in added(call)]),
        "lateness_ms": spread([late for call in good for late in call.lateness]),
        "at_first_ms": early.median if early else None,
        "settled_ms": late.median if late else None,
        "underruns": sum(len(call.gaps) for call in good),
    }


if __name__ == "__main__":
    print(json.dumps(report(uvloop.run(place(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))))
