"""The long runs: an hour on a turned clock, ten minutes in real time, and an engine that dies again and again.

.venv/bin/python benchmarks/soak.py                 everything, about half an hour
.venv/bin/python benchmarks/soak.py --only turned   one of turned, real, kills
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that our folders hide nothing of the standard library's

from tests.kills import WAYS, engine_named, kill, slots_of, taken, until  # noqa: E402
from tests.turned import TurnedLoop, bridge, phone  # noqa: E402
from voice_bridge.bridge.config import load  # noqa: E402
from voice_bridge.bridge.daemon import Daemon  # noqa: E402
from voice_bridge.bridge.observe import logs  # noqa: E402
from voice_bridge.bridge.phone import Phone  # noqa: E402
from voice_bridge.bridge.phone.clock import Clock  # noqa: E402

BURST = (np.sin(np.arange(400) * 0.5) * 8000).astype(np.int16)
EVERY = 8000  # samples between bursts
SLOTS = 4


def bursts(seconds: int) -> np.ndarray:
    sound = np.zeros(seconds * 8000, np.int16)
    for begin in range(3000, len(sound) - 400, EVERY):
        sound[begin : begin + 400] = BURST
    return sound


def delays(spoken: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Milliseconds from each burst at the mouth to the same burst at the ear; nan where it was not heard."""
    found = []
    for begin in range(3000, len(spoken) - EVERY, EVERY):
        after = np.abs(heard[begin : begin + EVERY]) > 1000
        found.append(np.argmax(after) / 8 if after.any() else np.nan)
    return np.array(found)


async def turned(minutes: int) -> dict[str, Any]:
    """One call of `minutes` on a turned clock: the daemon's memory, its clock against the caller's, its slots."""
    kept = [tracemalloc.Filter(True, str(ROOT / folder / "*")) for folder in ("bridge", "codecs", "engines")]
    kept.append(tracemalloc.Filter(False, str(ROOT / "bridge" / "phone" / "*")))
    kept.append(tracemalloc.Filter(False, str(ROOT / "tests" / "*")))
    sizes: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        async with bridge(Path(folder)) as daemon, phone(daemon, sound=bursts(minutes * 60)) as caller:
            tracemalloc.start()
            talk = asyncio.create_task(caller.call(seconds=minutes * 60))
            await asyncio.sleep(1)
            for part in range(1, 5):
                await caller.until(
                    lambda call, part=part: call.seconds >= minutes * 60 * part / 4 - 1, timeout=minutes * 60
                )
                taken = tracemalloc.take_snapshot().filter_traces(kept)
                sizes.append(sum(line.size for line in taken.statistics("filename")))
            tracemalloc.stop()
            call = await talk
            free = daemon.engine.capacity().free
            counted = daemon.board.metrics._finished.counts
    measured = delays(call.spoken, call.heard)
    return {
        "call_minutes": minutes,
        "memory_kib_at_quarters": [round(size / 1024, 1) for size in sizes],
        "frames": counted["frames"],
        "frames_expected": minutes * 60 * 1000 // 80,
        "mouth_to_ear_ms_first_hour_end": [measured[0], measured[-1]],
        "drift_ms_after_the_first_minute": float(np.ptp(measured[60:])),
        "bursts_lost": int(np.isnan(measured).sum()),
        "slots_lost": 10 - free,
    }


async def real(minutes: float, calls: int) -> dict[str, Any]:
    """`calls` calls at once in real time against a daemon of its own, its memory watched from outside."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "voice_bridge.bridge.cli", "serve", "--port", "0", "--engine", "echo"),
            cwd=folder,
            env=os.environ | {"VOICE_BRIDGE_LOG__FORMAT": "json"},
            stderr=asyncio.subprocess.PIPE,
        )
        url = await _url(daemon)
        drained = asyncio.create_task(daemon.stderr.read())
        try:
            return await _talk(url, psutil.Process(daemon.pid), minutes, calls)
        finally:
            daemon.terminate()
            await asyncio.gather(drained, daemon.wait())


async def _url(daemon: asyncio.subprocess.Process) -> str:
    async for line in daemon.stderr:
        said = json.loads(line)
        if said["event"] == "ready":
            return str(said["url"])
    raise SystemExit("the daemon did not start")


async def _talk(url: str, daemon: psutil.Process, minutes: float, calls: int) -> dict[str, Any]:
    clock = Clock()
    sound = bursts(int(minutes * 60) + 1)
    phones = [
        Phone(url + "/twilio/voice", sound=sound, clock=clock, caller=f"+1555{number:07}") for number in range(calls)
    ]
    talks = [asyncio.create_task(_one(one, minutes * 60)) for one in phones]
    began, memory = time.monotonic(), []
    while time.monotonic() - began < minutes * 60 - 5:
        await asyncio.sleep(10)
        processes = [daemon, *daemon.children()]
        memory.append(sum(process.memory_info().rss for process in processes) / 2**20)
        print(f"\r  {(time.monotonic() - began) / 60:.1f} min, {memory[-1]:.1f} MiB", end="", file=sys.stderr)
    print(file=sys.stderr)
    done = await asyncio.gather(*talks)
    measured = np.concatenate([delays(call.spoken, call.heard) for call in done])
    late = np.concatenate([delays(call.spoken, call.heard)[12:] for call in done])
    settled = memory[len(memory) // 10 :]
    return {
        "minutes": minutes,
        "calls": calls,
        "memory_mib_first_last": [round(settled[0], 1), round(settled[-1], 1)],
        "mouth_to_ear_ms_median_p99": [float(np.nanmedian(late)), float(np.nanpercentile(late, 99))],
        "bursts": len(measured),
        "bursts_lost": int(np.isnan(measured).sum()),
        "problems": [call.problem for call in done if call.problem],
        "errors": sum(len(call.errors) for call in done),
    }


async def _one(one: Phone, seconds: float) -> Any:
    async with one:
        return await one.call(seconds=seconds)


async def kills(count: int, name: str) -> dict[str, Any]:
    """The engine process killed, crashed or stopped so that it hangs, at random moments of two calls."""
    moment = random.Random(1)
    back: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "config.toml"
        empty.touch()
        engine = engine_named(name, SLOTS)
        async with Daemon(load(empty, {"server.port": 0}, env={}), engine) as daemon, AsyncExitStack() as stack:
            sound = np.tile(BURST, 20 * count * 12)
            webhook = daemon.url + "/twilio/voice"
            phones = [Phone(webhook, sound=sound, caller=f"+1555010000{number}") for number in range(2)]
            talks = [asyncio.create_task((await stack.enter_async_context(phone)).call()) for phone in phones]
            await until(lambda: len(daemon.board.metrics.live) == len(phones))
            held = [taken()]
            for number in range(count):
                back.append(await kill(daemon, moment.choice(WAYS), moment.uniform(0, 1.5)))
                held.append(taken())
                print(f"\r  {number + 1} of {count}", end="", file=sys.stderr)
            print(file=sys.stderr)
            for phone in phones:
                phone.hang_up()
            calls = await asyncio.gather(*talks)
            await until(lambda: not daemon.board.calls)
            slots = await slots_of(engine)
    return {
        "engine": name,
        "kills": count,
        "restarts": engine.restarts,
        "seconds_from_engine_back_to_reply_max": round(max(back), 3),
        "slots_lost": SLOTS - slots,
        "memory_mib_first_last_max": [round(size / 2**20, 1) for size in (held[0], held[-1], max(held))],
        "calls_ended": [call.ended for call in calls],
        "twilio_errors": sum(len(call.errors) for call in calls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["turned", "real", "kills"], help="run one part")
    parser.add_argument("--turned-minutes", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10, help="of the real-time part")
    parser.add_argument("--calls", type=int, default=8, help="of the real-time part")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", choices=["echo", "moshi"], nargs="+", help="which dies; both if not given")
    given = parser.parse_args()
    logs.configure("json", "error")
    found: dict[str, Any] = {}
    if given.only in (None, "turned"):
        print(f"a call of {given.turned_minutes} minutes on a turned clock", file=sys.stderr)
        with asyncio.Runner(loop_factory=TurnedLoop) as runner:
            found["turned"] = runner.run(turned(given.turned_minutes))
    if given.only in (None, "real"):
        print(f"{given.calls} calls for {given.minutes:g} minutes in real time", file=sys.stderr)
        found["real"] = asyncio.run(real(given.minutes, given.calls))
    if given.only in (None, "kills"):
        for name in given.engine or ["echo", "moshi"]:
            print(f"the engine {name} dies {given.kills} times in two calls", file=sys.stderr)
            found[f"kills_{name}"] = asyncio.run(kills(given.kills, name))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
