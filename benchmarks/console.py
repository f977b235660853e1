"""The console in a real browser: how long a frame takes to the bridge and back, and how smoothly the page is drawn.

    python benchmarks/console.py             half a minute
    python benchmarks/console.py --markdown  the table of docs/performance.md

A bridge with the test line, and Chromium without a window, whose microphone plays a buzz.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import wave
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import figures
import numpy as np
import servers
from figures import Row
from playwright.async_api import Page, async_playwright
from rich.console import Console
from servers import Server

SECONDS = 10  # of talk that are measured
SETTLE = 3  # seconds of talk before that
MICROPHONE = 48000  # samples a second
SHARE = 10.0  # milliseconds that the bridge may take of a round trip, median
SMOOTH = 60.0  # frames a second: what screens show
NEARLY = 0.97  # of them: a count of so few seconds begins and ends between two
FLAGS = [
    *("--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required", "--no-sandbox"),
    *("--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
]

# When each frame of sound leaves the page, and when each comes back.
CLOCK = """
  window.trips = [];
  const Real = WebSocket;
  let sent = 0;
  window.WebSocket = class extends Real {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => {
        if (typeof data !== "string" && sent) window.trips.push(performance.now() - sent);
        sent = 0;
      });
    }
    send(data) {
      if (typeof data !== "string") sent = performance.now();
      super.send(data);
    }
  };
"""

COUNT = """(seconds) => new Promise((done) => {
  const began = performance.now();
  const times = [];
  const next = (now) => {
    times.push(now);
    if (performance.now() - began < 1000 * seconds) requestAnimationFrame(next);
    else done(times);
  };
  requestAnimationFrame(next);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="the table of docs/performance.md")
    markdown = parser.parse_args().markdown
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium on this machine: the package chromium has it")
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(chromium, Path(folder)))
    if markdown:
        print(figures.markdown(rows))
    else:
        Console().print(figures.table(rows))


async def measure(chromium: str, folder: Path) -> list[Row]:
    buzz(folder / "buzz.wav")
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={folder / 'buzz.wav'}"]
    with servers.running(bridge(folder / "records")) as server:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
            context = await browser.new_context(permissions=["microphone"], viewport={"width": 1440, "height": 900})
            page = await context.new_page()
            await page.add_init_script(CLOCK)
            await page.goto(f"http://127.0.0.1:{server.port}")
            found = await talk(page)
            await browser.close()
    [records] = (folder / "records").iterdir()
    return rows(found, json.loads(records.read_text().splitlines()[-1])["frame_ms"])


async def talk(page: Page) -> dict[str, Any]:
    """A call, as its page sees it."""
    await page.click("#call")
    await page.wait_for_selector("[data-phase=live]")
    await asyncio.sleep(SETTLE)
    await page.evaluate("window.trips.length = 0")
    times = await page.evaluate(COUNT, SECONDS)
    found = {"times": times, "trips": await page.evaluate("window.trips")}
    for figure in ("trip", "ear", "buffer", "gaps"):
        found[figure] = await page.inner_text(f"#{figure}")
    await page.click("#call")
    await page.wait_for_selector("[data-phase=idle]")
    return found


def rows(found: dict[str, Any], share: dict[str, float]) -> list[Row]:
    trips, times = np.array(found["trips"]), np.array(found["times"])
    rate = 1000 * (len(times) - 1) / (times[-1] - times[0])
    bridge = share["p50"]
    return [
        Row("a frame of 80 ms, from the page to the bridge and back, median", f"{median(trips):.1f} ms"),
        Row("- 95 %", f"{np.quantile(trips, 0.95):.1f} ms"),
        Row("- of it the bridge and its engine, median", f"{bridge:.1f} ms", f"{SHARE:g} ms", bridge < SHARE),
        Row("the page's own figures: round trip of a ping", found["trip"]),
        Row("- mouth to ear, with the frame, the buffer and the browser's devices", found["ear"]),
        Row("- buffer, and what it aims at", found["buffer"]),
        Row("- gaps", found["gaps"]),
        Row("frames a second, drawn by the processor", f"{rate:.1f}", f"{SMOOTH:g}", rate >= NEARLY * SMOOTH),
        Row("- longest between two", f"{np.diff(times).max():.0f} ms"),
    ]


def bridge(records: Path) -> Server:
    """With the test line, writing down what calls were like."""
    settings = {"VOICE_BRIDGE_VOICE__PROVIDER": "echo", "VOICE_BRIDGE_LOG__RECORDS": str(records)}
    return replace(servers.bridge(), environment=settings)


def buzz(path: Path) -> None:
    """A sound such as a voice has, half a second of it in each second."""
    time = np.arange(2 * MICROPHONE) / MICROPHONE
    sound = np.sum([np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 20)], axis=0) * (time % 1 < 0.5)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MICROPHONE)
        file.writeframes((6000 * sound).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
