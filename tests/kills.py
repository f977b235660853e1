"""An engine that dies in the middle of calls: what the tests do three times, and the soak fifty."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from voice_bridge.bridge.daemon import Daemon
from voice_bridge.engines import hardware, registry
from voice_bridge.engines.base import FRAME, Opening
from voice_bridge.engines.host import HostEngine

WAYS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)  # killed, hangs, crashes in its own code
ORACLE = Path(__file__).parent / "data/oracle/moshi"
LIMIT = 60.0  # seconds for an engine to come back: the last wait before a restart, a load, and a busy machine


def engine_named(name: str, slots: int) -> HostEngine:
    """The test line, or Moshi with a tiny checkpoint on what this machine has."""
    options = {"model": str(ORACLE)} if name == "moshi" else {}
    engine = registry.make(registry.choose(name, "", hardware.detect(), "", options, slots))
    assert isinstance(engine, HostEngine)
    return engine


async def kill(daemon: Daemon, how: int, after: float) -> float:
    """Let the engine die in `after` seconds; returns the seconds from its return until every call had a reply."""
    engine = daemon.engine
    assert isinstance(engine, HostEngine)
    restarts, pid = engine.restarts, engine.child.pid
    await asyncio.sleep(after)
    os.kill(pid, how)
    await until(lambda: engine.restarts > restarts and engine.ready)
    assert not psutil.pid_exists(pid)
    began = time.monotonic()
    replies = {call: call.frame_time.count for call in daemon.board.metrics.live}
    assert replies, "no call has outlived the engine"
    await until(lambda: all(call.frame_time.count > count for call, count in replies.items()))
    return time.monotonic() - began


async def slots_of(engine: HostEngine) -> int:
    """How many conversations can really be had at once."""
    leases = [engine.reserve(LIMIT) for _ in range(engine.capacity().free)]
    conversations = [await engine.open(Opening(), lease) for lease in leases]
    for conversation in conversations:
        conversation.send(np.zeros(FRAME, np.float32), 0)
    for conversation in conversations:
        async with asyncio.timeout(LIMIT):
            await anext(aiter(conversation))
        await conversation.close()
    return len(conversations)


def taken() -> int:
    """Bytes that this process's children hold, on the host and on GPUs."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children) + sum(
        gpu.memory - gpu.free for gpu in hardware.nvidia_gpus()
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what it waits for is of many kinds
            await asyncio.sleep(0.01)
