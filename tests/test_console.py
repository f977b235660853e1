"""The console in a real browser: a page of a whole bridge, with a microphone that plays a recording."""

from __future__ import annotations

import asyncio
import shutil
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from tests import turned
from voice_bridge.bridge import auth
from voice_bridge.bridge.call import Call
from voice_bridge.bridge.console import TYPES
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.sockets import SocketWire
from voice_bridge.bridge.switchboard import End
from voice_bridge.codecs.framing import RATE
from voice_bridge.engines.base import Event, Flush, Words
from voice_bridge.engines.echo import EchoCore

async_api = pytest.importorskip("playwright.async_api", reason="playwright drives the browser: it is in the extra dev")
Browser: TypeAlias = Any  # playwright's, which may be missing
Page: TypeAlias = Any

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them

CONSOLE = Path(__file__).parent.parent / "bridge" / "console"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECRET = "not-a-real-secret-but-long-enough"
PATIENCE = 20_000  # milliseconds for what takes a few
STRANGE = "bridge.test"  # this machine by a name that a browser does not trust with a microphone
FLAGS = [
    *("--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required", "--no-sandbox"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-gpu"),
]

Bridge: TypeAlias = Callable[..., Awaitable[Daemon]]
Open: TypeAlias = Callable[..., Awaitable[Page]]


class Scripted(EchoCore):
    """The test line, and what a test has it report."""

    times = 1
    """That each frame is said back: more than one runs ahead of time."""

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        return super().launch(slots, frames, at) * self.times

    def report(self, *events: Event) -> None:
        self._events += [(0, event) for event in events]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: a buzz as a voice is one, half a second of it in each second."""
    time = np.arange(2 * 48000) / 48000
    buzz = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 20))
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((6000 * buzz * (time % 1 < 0.5)).astype("<i2").tobytes())
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(speech: Path) -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: the package chromium has it")
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={speech}", f"--host-resolver-rules=MAP {STRANGE} 127.0.0.1"]
    async with async_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    """`daemon = await bridge(core, slots=1)`: a bridge whose engine is this core, or the test line."""
    async with AsyncExitStack() as stack:

        async def start(core: EchoCore | None = None, slots: int = 2, **settings: Any) -> Daemon:
            return await stack.enter_async_context(turned.bridge(tmp_path, slots, core, **settings))

        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def opened(browser: Browser) -> AsyncIterator[Open]:
    """`page = await opened(daemon)`: its console. What the browser complains of fails the test at its end."""
    complaints: list[str] = []
    async with AsyncExitStack() as stack:

        async def start(where: Daemon | str, fragment: str = "", allowed: bool = True, **options: Any) -> Page:
            context = await browser.new_context(permissions=["microphone"] if allowed else [], **options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE)
            page = await context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
            await page.goto(f"{where if isinstance(where, str) else where.url}/{fragment}")
            return page

        yield start
    refused = ("Failed to load resource", "WebSocket connection to")  # of a bridge that says no, as a test wants it
    assert [said for said in complaints if not said.startswith(refused)] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """A page for what needs no call, the same for several tests."""
    async with turned.bridge(tmp_path_factory.mktemp("still")) as daemon:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(daemon.url)
        yield page
        await context.close()


async def talk(page: Page) -> None:
    await page.click("#call")
    await page.wait_for_selector("[data-phase=live]")


NOTE_PHASES = """() => {
    window.phases = [];
    new MutationObserver(() => window.phases.push(document.body.dataset.phase))
        .observe(document.body, { attributes: true, attributeFilter: ["data-phase"] });
}"""


async def until(page: Page, condition: str) -> None:
    """Wait for an expression over `talk`, the page's own call. Playwright's own way is `eval`, which is forbidden."""
    async with asyncio.timeout(PATIENCE / 1000):
        await page.evaluate(
            f"""async () => {{
                const {{ talk }} = await import("/console/main.js");
                while (!({condition})) await new Promise(requestAnimationFrame);
            }}"""
        )


async def report(page: Page, figure: str) -> Any:
    """What the page's sound last reported."""
    return await page.evaluate(f"import('/console/main.js').then((main) => main.talk.report.{figure})")


def text(page: Page, selector: str) -> Awaitable[str]:
    return page.inner_text(selector)  # type: ignore[no-any-return]


def token(*scopes: auth.Scope) -> str:
    return auth.mint(SECRET, "voice-bridge", "ann", scopes, 60)


# -- how it is served --------------------------------------------------------------------------------------------


async def test_the_page_and_all_that_it_is_made_of_are_served_without_a_token(bridge: Bridge) -> None:
    daemon = await bridge(auth__secret=SECRET)
    paths = {"/": CONSOLE / "index.html"}
    paths |= {f"/console/{file.name}": file for file in CONSOLE.iterdir() if file.suffix in TYPES}
    assert len(paths) > 10
    async with aiohttp.ClientSession(daemon.url) as http:
        for path, file in paths.items():
            async with http.get(path) as answer:
                assert (answer.status, await answer.read()) == (200, file.read_bytes())
                assert answer.headers["Content-Type"] == TYPES[file.suffix]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["Permissions-Policy"] == "microphone=(self)"
                policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            assert policy == {
                **dict.fromkeys(("default-src", "frame-ancestors", "base-uri", "form-action"), "'none'"),
                **dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'"),
            }
        async with http.get("/console/../__init__.py") as answer:
            assert answer.status == 404
        async with http.get("/console/__init__.py") as answer:
            assert (answer.status, "its page is at /" in (await answer.json())["error"]) == (404, True)


async def test_an_unchanged_file_is_not_sent_again(bridge: Bridge) -> None:
    daemon = await bridge()
    async with aiohttp.ClientSession(daemon.url) as http:
        async with http.get("/") as answer:
            tag = answer.headers["ETag"]
            assert answer.headers["Cache-Control"] == "no-cache"
        async with http.get("/", headers={"If-None-Match": tag}) as answer:
            assert (answer.status, answer.headers["ETag"], await answer.read()) == (304, tag, b"")
        async with http.get("/", headers={"If-None-Match": '"another"'}) as answer:
            assert answer.status == 200


async def test_operators_have_the_page_on_their_own_address_too(bridge: Bridge, opened: Open, unused_port: int) -> None:
    await bridge(twilio__auth_token="t" * 32, server__admin=f"127.0.0.1:{unused_port}")
    page = await opened(f"http://127.0.0.1:{unused_port}", "#operators")
    await until(page, "document.getElementById('offered').textContent === 'of 2'")
    await page.click("a[href='#talk']")
    await page.click("#call")
    await page.wait_for_selector("#trouble:not([hidden])")
    assert "main address" in await text(page, "#trouble")


# -- a call of one's own -----------------------------------------------------------------------------------------


async def test_what_the_microphone_hears_goes_to_the_agent_and_its_answer_is_heard(
    bridge: Bridge, opened: Open, tmp_path: Path
) -> None:
    daemon = await bridge(calls__record=True, calls__recordings=tmp_path / "recordings")
    page = await opened(daemon)
    await talk(page)
    await until(page, "talk.ring.level('caller') > 0.4 && talk.ring.level('agent') > 0.4")
    await until(page, "/\\d+ ms/.test(document.getElementById('ear').textContent)")
    for figure in ("#trip", "#ear", "#buffer"):
        assert "ms" in await text(page, figure)
    [call] = daemon.board.calls.values()
    assert call.stats.mouth_to_ear.quantile(0.5)  # the page tells what it has played
    await page.click("#call")
    await page.wait_for_selector("[data-phase=idle]")
    assert await text(page, "#state") == "You hung up."
    await call.finished
    [recording] = (tmp_path / "recordings").iterdir()
    with wave.open(str(recording)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both).max(axis=0).min() > 1000


async def test_who_is_muted_is_silent_and_the_call_goes_on(bridge: Bridge, opened: Open) -> None:
    page = await opened(await bridge())
    await talk(page)
    await until(page, "talk.ring.level('agent') > 0.4")
    await page.click("#mute")
    # The buzz comes back within half a second, if it comes.
    await until(
        page, "(window.quiet = talk.ring.level('caller') + talk.ring.level('agent') ? 0 : (window.quiet ?? 0) + 1) > 45"
    )
    assert await page.get_attribute("#mute", "aria-pressed") == "true"
    await page.click("#mute")
    await until(page, "talk.ring.level('agent') > 0.4")


async def test_both_sides_words_appear_as_they_come_and_are_replaced_until_they_are_final(
    bridge: Bridge, opened: Open
) -> None:
    core = Scripted(2)
    page = await opened(await bridge(core))
    await talk(page)
    core.report(Words(1, "caller", "what ti", 0, 0, final=False))
    await page.wait_for_selector("#words .caller.open >> text=what ti")
    core.report(Words(1, "caller", "What time is it?", 0, 0, final=True))
    await page.wait_for_selector("#words .caller:not(.open) >> text=What time is it?")
    core.report(Words(-1, "agent", "It is ten.", 0, 0, final=True), Words(1, "caller", "Thanks.", 0, 0, final=True))
    await page.wait_for_selector("#words .caller >> text=Thanks.")
    assert await page.locator("#words p").all_inner_texts() == ["What time is it?", "It is ten.", "Thanks."]
    assert await text(page, "#aloud") == "You: Thanks."  # whole utterances, for screen readers
    core.report(Words(2, "caller", "<img src=x onerror=alert(1)>", 0, 0, final=True))
    await page.wait_for_selector("#words p >> text=<img")


async def test_words_are_typed_for_the_agent_to_say_or_to_know(bridge: Bridge, opened: Open) -> None:
    page = await opened(await bridge())
    await talk(page)
    await page.fill("#text", "Good day.")
    await page.press("#text", "Enter")
    await page.wait_for_selector("#words .agent >> text=Good day.")
    await page.check("[value=inject]", force=True)
    await page.fill("#text", "The caller is Ann.")
    await page.click("#send")
    await page.wait_for_selector("#words .note[data-state] >> text=The caller is Ann.")
    assert await page.locator("#words .note .who").all_inner_texts() == ["To be said", "Told in silence"]


async def test_a_flush_empties_the_buffer_at_once(bridge: Bridge, opened: Open) -> None:
    core = Scripted(2)
    page = await opened(await bridge(core))
    await talk(page)
    await until(page, "talk.report?.played > 0")
    core.times = 10
    await until(page, "talk.report.depth > 3")
    core.times = 1
    core.report(Flush())
    await until(page, "talk.report.flushes > 0")
    assert await report(page, "depth") < 1.5
    assert await report(page, "played") < 1.5 * RATE


# -- a connection that breaks -------------------------------------------------------------------------------------


def cut(call: Call) -> None:
    """The network between the page and the bridge is gone for a moment."""
    wire = call.link.newest
    assert isinstance(wire, SocketWire)
    transport = wire._request.transport
    assert transport
    transport.abort()


async def test_a_connection_that_breaks_is_taken_up_again_with_the_conversation(bridge: Bridge, opened: Open) -> None:
    core = Scripted(2)
    daemon = await bridge(core)
    page = await opened(daemon)
    await talk(page)
    [call] = daemon.board.calls.values()
    core.report(Words(1, "caller", "Before.", 0, 0, final=True))
    await page.wait_for_selector("#words .caller")
    await page.evaluate(NOTE_PHASES)  # it may be back before anybody looks
    cut(call)
    await until(page, "window.phases.includes('broken') && window.phases.at(-1) === 'live'")
    assert list(daemon.board.calls.values()) == [call]
    assert call.stats.returns == 1
    core.report(Words(2, "caller", "After.", 0, 0, final=True))
    await page.wait_for_selector("#words .caller >> text=After.")
    assert await page.locator("#words p").all_inner_texts() == ["Before.", "After."]
    await until(page, "talk.ring.level('agent') > 0.4")  # sound goes both ways again


async def test_a_conversation_that_is_over_meanwhile_is_not_taken_up_and_the_page_says_so(
    bridge: Bridge, opened: Open
) -> None:
    daemon = await bridge()
    page = await opened(daemon)
    await talk(page)
    [call] = daemon.board.calls.values()
    call.end(End.LENGTH)
    daemon.board.returns.void(call)
    cut(call)
    await page.wait_for_selector("[data-phase=idle]")
    assert "begin a new one" in await text(page, "#trouble")


# -- what goes wrong, in words -----------------------------------------------------------------------------------


async def trouble(page: Page) -> str:
    await page.click("#call")
    await page.wait_for_selector("#trouble:not([hidden])")
    await page.wait_for_selector("[data-phase=idle]")
    return await text(page, "#trouble")


async def test_without_a_token_the_page_says_how_to_get_one_and_takes_it(bridge: Bridge, opened: Open) -> None:
    daemon = await bridge(auth__secret=SECRET)
    page = await opened(daemon)
    assert "voice-bridge token --subject NAME" in await trouble(page)
    await page.click("#key")
    await page.fill("#token", "nonsense")
    await page.press("#token", "Enter")
    assert "The token is not valid" in await trouble(page)
    await page.click("#key")
    await page.fill("#token", token("talk"))
    await page.press("#token", "Enter")
    await talk(page)


async def test_a_token_in_the_fragment_is_taken_out_of_the_address(bridge: Bridge, opened: Open) -> None:
    daemon = await bridge(auth__secret=SECRET)
    page = await opened(daemon, f"#token={token('talk')}")
    assert page.url == f"{daemon.url}/"
    await page.reload()  # kept for the tab
    await talk(page)
    await page.click("a[href='#operators']")
    await page.wait_for_selector("#closed:not([hidden])")
    assert "lacks the scope operator" in await text(page, "#closed-why")
    assert await page.evaluate("localStorage.length + document.cookie.length") == 0


async def test_a_microphone_that_is_denied_is_told_with_the_remedy(bridge: Bridge, opened: Open) -> None:
    page = await opened(await bridge(), allowed=False)
    assert "Allow it in the browser" in await trouble(page)


async def test_a_page_without_https_says_that_the_microphone_wants_it(bridge: Bridge, opened: Open) -> None:
    daemon = await bridge()
    page = await opened(f"http://{STRANGE}:{daemon.port}")
    assert "https://" in await trouble(page)


async def test_a_busy_bridge_says_when_to_try_again(bridge: Bridge, opened: Open) -> None:
    daemon = await bridge(slots=1)
    first, second = await opened(daemon), await opened(daemon)
    await talk(first)
    assert "Try again in 5 seconds." in await trouble(second)
    [call] = daemon.board.calls.values()
    await first.click("#call")
    await call.finished
    await talk(second)


# -- operators ---------------------------------------------------------------------------------------------------


async def test_an_operator_sees_a_call_speaks_in_it_and_ends_it(bridge: Bridge, opened: Open) -> None:
    daemon = await bridge(auth__secret=SECRET)
    caller = await opened(daemon, f"#token={token('talk')}")
    operator = await opened(daemon, f"#token={token('operator')}")
    await operator.click("a[href='#operators']")
    await until(operator, "document.getElementById('offered').textContent === 'of 2'")
    await talk(caller)
    card = operator.locator(".card")
    await card.locator(".who >> text=ann").wait_for()
    await card.locator("[name=text]").fill("One moment, please.")
    await card.locator("[type=submit]").click()
    await card.locator(".words .agent >> text=One moment, please.").wait_for()
    await caller.wait_for_selector("#words .agent >> text=One moment, please.")
    await card.locator(".doing >> text=Speaking").wait_for()
    await card.locator(".delay >> text=ms mouth to ear").wait_for()
    await card.locator(".end").click()
    assert daemon.board.calls
    await card.locator(".end >> text=End this call?").click()
    await caller.wait_for_selector("[data-phase=idle]")
    assert await text(caller, "#state") == "An operator ended the call."
    await card.locator(".doing >> text=Ended (operator)").wait_for()


async def test_an_operator_who_comes_later_sees_what_was_said(bridge: Bridge, opened: Open) -> None:
    core = Scripted(2)
    daemon = await bridge(core)
    caller = await opened(daemon)
    await talk(caller)
    core.report(Words(1, "caller", "What time is it?", 0, 0, final=True))
    await caller.wait_for_selector("#words .caller")
    operator = await opened(daemon, "#operators")
    await operator.wait_for_selector(".card .words .caller >> text=What time is it?")


# -- its arithmetic, which needs no call -------------------------------------------------------------------------

# A network in ticks of 20 ms: `arrivals` says how many frames of 80 ms come in each; gives what the buffer made of it.
NETWORK = """async (arrivals) => {
  const { JitterBuffer } = await import("/console/jitter.js");
  const buffer = new JitterBuffer(24000);
  const found = { heard: 0, targets: [], leads: [] };
  for (const count of arrivals) {
    for (let i = 0; i < count; i++) buffer.push(new Float32Array(1920).fill(0.5));
    const out = new Float32Array(480);
    buffer.pull(out);
    found.heard += out.filter((sample) => sample === 0.5).length;
    found.targets.push(buffer.target);
    found.leads.push(buffer.lead);
  }
  return { ...found, gaps: buffer.gaps, played: buffer.played };
}"""
EVEN = [1, 0, 0, 0]  # a frame every 80 ms


async def test_the_buffer_waits_longer_after_a_gap_and_less_in_calm(still: Page) -> None:
    late = [*EVEN * 10, 0, 0, 0, 0, 0, 2, 0, 0]  # one frame comes with the next, 100 ms late
    found = await still.evaluate(NETWORK, [*late, *EVEN * 10])
    assert found["gaps"] == 1
    assert found["targets"][-1] == pytest.approx(found["targets"][0] + 0.02)
    assert found["heard"] == found["played"] == pytest.approx(22 * 1920, abs=2 * 1920)  # nothing is lost of it
    calm = await still.evaluate(NETWORK, EVEN * 150)  # 12 seconds
    assert calm["gaps"] == 0
    assert calm["targets"][-1] < calm["targets"][0]


async def test_a_long_silence_of_the_line_teaches_the_buffer_nothing(still: Page) -> None:
    found = await still.evaluate(NETWORK, [*EVEN * 10, *[0] * 100, *EVEN * 10])
    assert found["gaps"] == 0
    assert found["targets"][-1] == found["targets"][0]


async def test_a_device_of_another_rate_hears_the_same_tone(still: Page) -> None:
    found = await still.evaluate(
        """async (rate) => {
          const { Resampler } = await import("/console/resample.js");
          const resampler = new Resampler(24000, rate);
          const tone = Float32Array.from({ length: 24000 }, (_, i) => Math.sin((2 * Math.PI * 1000 * i) / 24000));
          const out = [];
          for (let at = 0; at < tone.length; at += 1920) out.push(...resampler.push(tone.subarray(at, at + 1920)));
          return out;
        }""",
        44100,
    )
    assert len(found) == pytest.approx(44100, abs=60)
    settled = np.array(found[2000:-2000])
    time = np.arange(2000, 2000 + len(settled)) / 44100
    wave_, quarter = np.sin(2 * np.pi * 1000 * time), np.cos(2 * np.pi * 1000 * time)
    heard = 2 * np.mean(settled * wave_) * wave_ + 2 * np.mean(settled * quarter) * quarter
    assert np.std(heard) == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert np.std(settled - heard) < 0.002  # 50 dB below the tone


async def test_a_chart_has_room_for_its_highest_value_and_ends_at_a_round_number(still: Page) -> None:
    wanted = {0.3: 0.5, 1: 1, 1.1: 2, 4.9: 5, 7: 10, 10: 10, 130: 200, 2000: 2000}
    found = await still.evaluate(
        "(values) => import('/console/chart.js').then((chart) => values.map(chart.roundUp))", list(wanted)
    )
    assert found == pytest.approx(list(wanted.values()))


# -- everybody can use it ----------------------------------------------------------------------------------------

TINT = """(names) => {
  const read = (name) => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map((part) => {
      const one = part / 255;
      return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    probe.remove();
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return names.map(read);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_all_text_stands_out_from_its_ground(still: Page, theme: str) -> None:
    await still.emulate_media(color_scheme=theme)
    *grounds, ink, soft, caller, agent, bad = await still.evaluate(
        TINT, ["paper", "card", "ink", "soft", "caller", "agent", "trouble"]
    )
    assert (grounds[0] > 0.5) == (theme == "light")
    for light in (ink, soft, caller, agent, bad):
        for ground in grounds:
            assert (max(light, ground) + 0.05) / (min(light, ground) + 0.05) >= 4.5


async def test_the_page_fits_a_telephone_and_is_used_by_keys_alone(bridge: Bridge, opened: Open) -> None:
    page = await opened(await bridge(), viewport={"width": 390, "height": 844})
    for _ in range(4):  # two views, the token, and then the dial
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("[data-phase=live]")
    assert await page.evaluate("document.activeElement.id") == "call"
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for view in ("#talk", "#operators"):
        await page.click(f"a[href='{view}']")
        await page.wait_for_selector(f"{view}:not([hidden])")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = "[...document.querySelectorAll('button, input')].filter((one) => !one.labels?.length && "
    unnamed += "!one.textContent.trim() && !one.ariaLabel).map((one) => one.outerHTML)"
    assert await page.evaluate(unnamed) == []
