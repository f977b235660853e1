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
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from figures import machine
from servers import Server, bridge, running
from websockets.asyncio.client import ClientConnection, connect

FRAME, RATE = 1920, 24000
SECONDS = FRAME / RATE
ROUNDS = 4  # of each way, in turns, so that whatever else the machine does comes to both
FRAMES = 60  # of a round; the first ones are not counted
WARM = 10
ADDS = 5.0  # milliseconds that a relay may add, in the median
LOSES = 2.0  # seconds that a lost endpoint may cost
QUIET = 100  # of 32768: below it there is nothing to hear
AFTER = 4.0  # seconds of talk after an endpoint is lost


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


async def silence_of(server: Server, victims: dict[str, Server], how: signal.Signals) -> float:
    """Seconds without a sound that a caller has when the endpoint where the call is gets this signal."""
    async with client(server) as line:
        talk = Talk(line)
        talking = asyncio.create_task(talk.frames(round((2 + AFTER) / SECONDS)))
        await asyncio.sleep(2)
        os.kill(victims[await _busy(victims)].pids["bridge"], how)
        await talking
    return talk.longest_silence


async def _busy(victims: dict[str, Server]) -> str:
    """Which of the endpoints has the call: the one whose processor works."""
    import psutil

    before = {name: psutil.Process(one.pids["engine"]).cpu_times().user for name, one in victims.items()}
    await asyncio.sleep(0.5)
    after = {name: psutil.Process(one.pids["engine"]).cpu_times().user for name, one in victims.items()}
    return max(victims, key=lambda name: after[name] - before[name])


async def measure() -> dict[str, Any]:
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print every figure")
    given = parser.parse_args()
    print(given, machine(), median([1]), sys.argv)


if __name__ == "__main__":
    main()
