"""What a relay adds to a frame, and what an endpoint that is lost costs a caller. `python benchmarks/relay.py`.

Two bridges with the test line are started as people start them, and a third that relays to them, all on this machine.
A client sends a frame every 80 ms to a bridge with the engine, and then to the one that relays to it, in turns; then an
endpoint is killed, and one stopped (its connections stay open and nothing comes), under a client that talks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import aiohttp
import numpy as np
from figures import Row, markdown, table
from rich.console import Console
from servers import Server, bridge, running
from websockets.asyncio.client import ClientConnection, connect

FRAME, RATE = 1920, 24000
SECONDS = FRAME / RATE
ROUNDS = 3  # of each way, in turns, so that whatever else the machine does comes to both
FRAMES = 45  # of a round; the first ones are not counted
WARM = 10
ADDS = 5.0  # milliseconds that a relay may add, in the median
LOSES = 2.0  # seconds that a lost endpoint may cost
QUIET = 100  # of 32768: below it there is nothing to hear
BEFORE, AFTER = 2.0, 4.0  # seconds of talk before and after an endpoint is lost


def relay(*endpoints: Server) -> Server:
    """A bridge that relays to these."""
    tables = json.dumps([{"url": f"ws://127.0.0.1:{one.port}"} for one in endpoints])
    elsewhere = {"VOICE_BRIDGE_VOICE__PROVIDER": "moshi-cloud", "VOICE_BRIDGE_VOICE__CLOUD__ENDPOINTS": tables}
    ours = bridge()
    return replace(ours, name="relay", environment=ours.environment | elsewhere)


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    async with connect(url, compression=None, ping_interval=None) as line:
        await line.send('{"type":"open"}')
        yield line


class Talk:
    """A caller who says steady levels, each of them another, and notes when each comes back."""

    def __init__(self, line: ClientConnection) -> None:
        self.took: list[float] = []
        self.heard: list[float] = []
        self._line = line
        self._sent: dict[int, float] = {}

    async def frames(self, count: int) -> None:
        listening = asyncio.create_task(self._listen())
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(count):
            level = 1000 + 16 * (number % 1000)
            self._sent[level] = loop.time()
            await self._line.send(np.full(FRAME, level, "<i2").tobytes())
            due += SECONDS
            await asyncio.sleep(due - loop.time())
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for message in self._line:
            if isinstance(message, str):
                continue
            pcm = np.frombuffer(message, "<i2")
            if len(pcm) and pcm.max() > QUIET:
                self.heard.append(loop.time())
                if (sent := self._sent.pop(int(pcm[-1]), None)) is not None:
                    self.took.append(loop.time() - sent)

    @property
    def longest_silence(self) -> float:
        return float(np.diff(self.heard).max())


async def round_trips(server: Server) -> list[float]:
    """Milliseconds from sending a frame to having it back."""
    async with client(server) as line:
        talk = Talk(line)
        await talk.frames(FRAMES)
    return [1000 * seconds for seconds in talk.took[WARM:]]


async def silence_of(server: Server, ends: tuple[Server, Server], how: signal.Signals) -> float:
    """Seconds without a sound that a caller has when the endpoint where the call is gets this signal."""
    async with client(server) as line:
        talk = Talk(line)
        talking = asyncio.create_task(talk.frames(round((BEFORE + AFTER) / SECONDS)))
        await asyncio.sleep(BEFORE)
        victim, *_ = [end for end in ends if await calls_of(end)]
        os.kill(victim.pids["bridge"], how)
        await talking
    return talk.longest_silence


async def calls_of(server: Server) -> list[Any]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{server.port}/v1/calls") as answer:
        calls: list[Any] = (await answer.json())["calls"]
        return calls


def measure() -> dict[str, Any]:
    with running(bridge()) as one, running(bridge()) as other, running(relay(one, other)) as between:
        direct: list[float] = []
        relayed: list[float] = []
        for _ in range(ROUNDS):
            direct += asyncio.run(round_trips(one))
            relayed += asyncio.run(round_trips(between))
        killed = asyncio.run(silence_of(between, (one, other), signal.SIGKILL))
    with running(bridge()) as one, running(bridge()) as other, running(relay(one, other)) as between:
        hung = asyncio.run(silence_of(between, (one, other), signal.SIGSTOP))
        for end in (one, other):
            os.kill(end.pids["bridge"], signal.SIGKILL)
    return {"direct_ms": spread(direct), "relayed_ms": spread(relayed), "killed_s": killed, "hung_s": hung}


def spread(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {"p50": median(ordered), "p99": ordered[int(len(ordered) * 0.99)], "frames": len(ordered)}


def rows(found: dict[str, Any]) -> list[Row]:
    direct, relayed = found["direct_ms"], found["relayed_ms"]
    adds = relayed["p50"] - direct["p50"]
    return [
        Row("a frame and back, the engine here, median", f"{direct['p50']:.2f} ms"),
        Row("a frame and back, relayed, median", f"{relayed['p50']:.2f} ms"),
        Row("- so a relay adds", f"{adds:.2f} ms", f"{ADDS:g} ms", adds <= ADDS),
        *(
            Row(f"silence when the endpoint {what}", f"{found[key]:.2f} s", f"{LOSES:g} s", found[key] <= LOSES)
            for what, key in (("is killed", "killed_s"), ("hangs", "hung_s"))
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the figures for scripts")
    parser.add_argument("--markdown", action="store_true", help="the table for docs/performance.md")
    given = parser.parse_args()
    found = measure()
    if given.json:
        print(json.dumps(found, indent=2))
    elif given.markdown:
        print(markdown(rows(found)))
    else:
        Console().print(table(rows(found)))


if __name__ == "__main__":
    main()
