"""A bridge of its own process, and callers who listen before they talk."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import psutil
from cascade_checks import RATE, first_audible
from cascade_sounds import Sound, Utterance, line
from figures import Row
from prometheus_client.parser import text_string_to_metric_families

from voice_bridge.bridge.phone import Call, Clock, Phone
from voice_bridge.bridge.phone.call import audible_at
from voice_bridge.codecs import g711

CHUNK = 160  # samples in the 20 ms that a phone takes and gives at a time
START = 60.0  # seconds for a bridge to be ready
STOP = 15.0  # seconds for it to end before it is killed
ANSWER = 8.0  # seconds after which an agent that has said nothing will not answer any more
OVER = 60.0  # seconds in which every agent has said what it had to say
AFTER = 0.3  # seconds that a caller stays on the line after the end
BESIDE = 3 * CHUNK  # samples on each side of a gap in which it is in the midst of speech
KEPT = 200  # of the bridge's last lines of log
COMMON = {
    "VOICE_BRIDGE_LOG__FORMAT": "json",
    "VOICE_BRIDGE_VOICE__CASCADE__WITS": "notebook",
    "VOICE_BRIDGE_VOICE__CASCADE__MOUTH": "piper",
}
TRACE = "VOICE_BRIDGE_VOICE__CASCADE__TRACE"

LOST = {
    "voice_bridge_engine_dropped_frames_total": "frames that the engine had no time for",
    "voice_bridge_dropped_samples_total": "samples left out",
    "voice_bridge_gap_fill_samples_total": "samples of silence put in for missing sound",
    "voice_bridge_engine_losses_total": "times that a call lost its engine",
    "voice_bridge_engine_restarts_total": "restarts of the engine",
    "voice_bridge_deadline_misses_total": "replies later than 80 ms",
    "voice_bridge_underruns_total": "times that a caller's player ran dry, as the bridge saw it",
    "voice_bridge_recoveries_total": "times that a caller's player was cleared to catch up",
}
"""What the bridge counts of what went wrong."""
MISSED = list(LOST)[
    :5
]  # those after which sound is missing; later than 80 ms is late, and shows as a gap if it matters


@dataclass
class Result:
    """What a part has found."""

    part: str
    rows: list[Row]
    wrong: list[str]
    """What was not as it should be, one line each, with what was heard."""
    found: dict[str, Any] = field(default_factory=dict)


class Failed(Exception):
    """The bridge does not run; the message is one line."""


@dataclass
class Bridge:
    """A running `voice-bridge serve`."""

    process: psutil.Process
    url: str
    began: float
    """When it was started, on the monotonic clock."""
    ready: float
    """Seconds that it took until it was ready."""
    trace: Path
    log: deque[dict[str, Any]]
    clock: Clock = field(default_factory=Clock)

    @property
    def webhook(self) -> str:
        return self.url + "/twilio/voice"

    async def say(self, call: str, text: str) -> None:
        """As an operator, let the agent of a live call say something."""
        async with (
            aiohttp.ClientSession() as web,
            web.post(f"{self.url}/v1/calls/{call}/say", json={"text": text}) as got,
        ):
            if got.status != 200:
                raise Failed(f"say: HTTP {got.status}: {await got.text()}")

    async def counted(self) -> dict[str, float]:
        """What went wrong so far, by the bridge's own count."""
        async with aiohttp.ClientSession() as web, web.get(f"{self.url}/metrics") as got:
            families = text_string_to_metric_families(await got.text())
        found = dict.fromkeys(LOST, 0.0)
        for sample in (sample for family in families for sample in family.samples):
            if sample.name in found:
                found[sample.name] += sample.value
        return found

    def complaints(self) -> list[str]:
        """What it logged as warnings or worse, each once."""
        loud = [line for line in self.log if line.get("level") in ("warning", "error", "critical")]
        return sorted({str(line.get("event")) for line in loud})


def environment(memory: bool, folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Without the configuration of whoever runs this, and with what every run has in common."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VOICE_BRIDGE_", "TWILIO_"))}
    ours = {"VOICE_BRIDGE_MEMORY__ENABLED": "on" if memory else "off", TRACE: str(folder / "trace.jsonl")}
    return clean | COMMON | ours | dict(extra)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@asynccontextmanager
async def starting(
    engine: str, folder: Path, *, memory: bool = False, extra: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Bridge, asyncio.Task[None]]]:
    """A bridge that has just been started, and what ends when it is ready; stopped at the end.

    `folder` is where its files are. Raises `Failed` in the task when it does not come up.
    """
    began = time.monotonic()
    port = free_port()
    command = [sys.executable, "-m", "voice_bridge.bridge.cli", "serve", "--port", str(port), "--engine", engine]
    serve = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment(memory, folder, extra or {}), stderr=asyncio.subprocess.PIPE
    )
    bridge = Bridge(
        psutil.Process(serve.pid),
        f"http://127.0.0.1:{port}",
        began,
        float("inf"),
        folder / "trace.jsonl",
        deque(maxlen=KEPT),
    )
    ready = asyncio.Event()
    reading = asyncio.create_task(_read(serve, bridge, ready))
    try:
        yield bridge, asyncio.create_task(_up(bridge, ready, reading))
    finally:
        with suppress(ProcessLookupError):
            serve.terminate()
        try:
            async with asyncio.timeout(STOP):
                await serve.wait()
        except TimeoutError:
            serve.kill()
            await serve.wait()
        await reading


async def _read(serve: asyncio.subprocess.Process, bridge: Bridge, ready: asyncio.Event) -> None:
    assert serve.stderr is not None
    async for raw in serve.stderr:
        try:
            said = json.loads(raw)
        except ValueError:
            said = {"event": raw.decode(errors="replace").strip(), "level": "error"}
        bridge.log.append(said)
        if said.get("event") == "ready":
            bridge.ready = time.monotonic() - bridge.began
            ready.set()


async def _up(bridge: Bridge, ready: asyncio.Event, reading: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({waiting, reading}, timeout=START, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        said = [str(line.get("event")) for line in bridge.log if line.get("event")] or ["it said nothing"]
        raise Failed(f"the bridge does not start: {said[-1]}")


@asynccontextmanager
async def serving(
    engine: str, *, memory: bool = False, extra: Mapping[str, str] | None = None
) -> AsyncIterator[Bridge]:
    """A bridge that is ready for calls."""
    with tempfile.TemporaryDirectory() as folder:
        async with starting(engine, Path(folder), memory=memory, extra=extra) as (bridge, ready):
            await ready
            yield bridge


class Said(NamedTuple):
    """An utterance in a call; times in samples of the call."""

    utterance: Utterance
    first: int
    """Its first audible sample."""
    last: int

    def __repr__(self) -> str:
        return f"{self.utterance.text!r} at {self.first / RATE:.1f} s"


class Caller:
    """One call: a mouth on a noisy line, and an ear that knows when the agent was last to be heard.

    What waits raises RuntimeError when the call is over, and says False when nothing came in time.
    """

    def __init__(self, bridge: Bridge, number: int, kind: str = "clean") -> None:
        self.bridge = bridge
        self.sounded = 0
        """The end of the last 20 ms in which the agent was to be heard, in samples of the call."""
        self._line = line(kind)
        self._saying: tuple[int, Sound] | None = None
        self.phone = Phone(
            bridge.webhook, caller=f"+1555{number:07d}", sound=self._mouth, ear=self._ear, clock=bridge.clock
        )

    @property
    def call(self) -> Call:
        assert self.phone.record is not None
        return self.phone.record

    @property
    def now(self) -> int:
        return len(self.call.heard_bytes)

    async def begun(self) -> None:
        """Wait until the agent's first words are over, if it has any."""
        await self.phone.until(lambda call: call.state == "talking", ANSWER)
        await self.answered(0)
        await self.quiet(1.0)

    def speak(self, utterance: Utterance) -> Said:
        """Begin to say something."""
        begin = len(self.call.spoken_bytes) + CHUNK
        self._saying = begin, utterance.sound
        return Said(utterance, begin + utterance.first, begin + utterance.last)

    async def say(self, utterance: Utterance) -> Said:
        """Say something to its end."""
        said = self.speak(utterance)
        await self.phone.until(lambda call: len(call.spoken_bytes) > said.last, OVER)
        return said

    async def answered(self, since: int, timeout: float = ANSWER) -> bool:
        """Wait for the agent to be heard after a moment."""
        with suppress(TimeoutError):
            await self.phone.until(lambda _: self.sounded > since, timeout)
        return self.sounded > since

    async def quiet(self, seconds: float) -> bool:
        """Wait until the agent has been silent for so long."""
        with suppress(TimeoutError):
            await self.phone.until(lambda _: self.now - self.sounded >= seconds * RATE, OVER)
            return True
        return False

    async def past(self, sample: float) -> None:
        """Wait until a moment of the call."""
        await self.phone.until(lambda _: self.now >= sample, OVER)

    def first_heard(self, since: int) -> int | None:
        """The first audible sample of the agent from `since` on."""
        return first_audible(self.call.heard, since)

    def _mouth(self, number: int) -> bytes:
        at = number * CHUNK
        pcm = self._line[np.arange(at, at + CHUNK) % len(self._line)]
        if self._saying is not None:
            begin, sound = self._saying
            piece = sound[max(0, at - begin) : max(0, at - begin + CHUNK)]
            pcm[: len(piece)] += piece
        return g711.encode((np.clip(pcm, -1, 1) * 32767).astype(np.int16))

    def _ear(self, chunk: bytes) -> None:
        if audible_at(chunk) is not None:
            self.sounded = self.now


@asynccontextmanager
async def calling(bridge: Bridge, number: int, kind: str = "clean") -> AsyncIterator[Caller]:
    """A call, put through; hung up at the end."""
    caller = Caller(bridge, number, kind)
    async with caller.phone as phone:
        talking = asyncio.create_task(phone.call())
        try:
            await asyncio.sleep(0)  # the record begins with the call
            yield caller
            with suppress(RuntimeError, TimeoutError):
                await caller.past(caller.now + AFTER * RATE)
        finally:
            phone.hang_up()
            await talking


async def together(calls: Iterable[Awaitable[None]], at_once: int) -> list[str]:
    """So many calls at once until all are over; why some were not what they should be."""
    room = asyncio.Semaphore(at_once)

    async def one(call: Awaitable[None]) -> str:
        async with room:
            try:
                await call
            except (RuntimeError, TimeoutError, Failed, aiohttp.ClientError) as error:
                return str(error) or type(error).__name__
        return ""

    return [why for why in await asyncio.gather(*map(one, calls)) if why]


class Gaps(NamedTuple):
    """How often callers heard nothing because the bridge was late."""

    all: int
    in_speech: int
    """Those beside something audible: the others only made a silence longer."""
    milliseconds: float


def gaps(calls: Iterable[Call]) -> Gaps:
    found = [(call, gap) for call in calls for gap in call.gaps]
    beside = sum(
        audible_at(bytes(call.heard_bytes[max(0, gap.at - BESIDE) : gap.at + gap.length + BESIDE])) is not None
        for call, gap in found
    )
    return Gaps(len(found), beside, sum(gap.length for _, gap in found) * 1000 / RATE)


def resident(bridge: Bridge) -> dict[str, dict[str, float]]:
    """Megabytes of every process of the bridge: its own share of what is shared (PSS), and all it has (RSS)."""
    found = {}
    for process in (bridge.process, *bridge.process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            found[f"{_name(process)} ({process.pid})"] = {"pss": full.pss / 1e6, "rss": full.rss / 1e6}
    return found


def _name(process: psutil.Process) -> str:
    """The module that it runs, else its program."""
    command: list[str] = process.cmdline()
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1].removeprefix("voice_bridge.")
    return Path(command[0]).name if command else "?"


def traced(path: Path) -> list[dict[str, Any]]:
    """What the engine noted of each turn; nothing where it does not note."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
