"""The screen of `voice-bridge talk`, by a pilot who types and looks, against a bridge that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import Input

from tests.clients import noise
from tests.conftest import Bridge
from tests.roads import Road
from voice_bridge.bridge.lines import notes
from voice_bridge.bridge.switchboard import End
from voice_bridge.bridge.talk import screen as screens
from voice_bridge.bridge.talk.address import Unreachable, address
from voice_bridge.bridge.talk.look import DARK, LIGHT
from voice_bridge.bridge.talk.screen import Screen
from voice_bridge.bridge.talk.session import Plan
from voice_bridge.bridge.talk.widgets import Wave
from voice_bridge.codecs import wav
from voice_bridge.codecs.framing import RATE

PATIENCE = 20.0  # seconds for what takes one


class Desk:
    """A screen of 80 by 24, and who sits at it."""

    def __init__(self, screen: Screen, pilot: Pilot[str]) -> None:
        self.screen = screen
        self.pilot = pilot

    @property
    def shown(self) -> str:
        """What can be read, as lines."""
        width = self.screen.size.width
        strips = self.screen.screen._compositor.render_strips()
        assert all(strip.cell_length <= width for strip in strips)
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def enter(self, line: str) -> None:
        self.screen.query_one(Input).value = line
        await self.pilot.press("enter")

    async def until(self, look: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not look():
                await self.pilot.pause(0.02)

    async def until_shown(self, *words: str) -> None:
        try:
            await self.until(lambda: all(word in self.shown for word in words))
        except TimeoutError:
            pytest.fail(f"{words} are not on the screen:\n{self.shown}")


@asynccontextmanager
async def desk(url: str, size: tuple[int, int] = (80, 24), **options: Any) -> AsyncIterator[Desk]:
    screen = Screen(Plan(address(url), text="wav" not in options, **options))
    async with screen.run_test(size=size) as pilot:
        yield Desk(screen, pilot)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Twenty seconds of sound without a pause."""
    with wav.Writer(tmp_path / "said.wav", RATE, 1) as file:
        file.write(noise(20))
    return tmp_path / "said.wav"


async def test_both_sides_words_appear_while_they_are_said_and_grow_in_place(bridge: Bridge) -> None:
    daemon = await bridge()
    async with desk(daemon.url) as one:
        await one.until_shown("Say something.", "● listening", daemon.url.removeprefix("http://"))
        await one.enter("Good day.")
        await one.until_shown("agent  Good day.")
        for text, final in (("Who is", False), ("Who is there?", True)):
            one.screen._tell(notes.Transcript(text, "caller", 9, final))
            await one.until_shown(f"you  {text}" + ("" if final else " …"))
        assert one.shown.count("Who is") == 1
        assert "Say something." not in one.shown


async def test_what_is_injected_is_known_and_what_is_no_command_is_answered(bridge: Bridge) -> None:
    daemon = await bridge()
    async with desk(daemon.url) as one:
        await one.until_shown("● listening")
        await one.enter("/inject It rains.")
        await one.until_shown("·  the agent knows it now")
        await one.enter("/sing")
        await one.until_shown("/inject TEXT")
        assert one.screen.query_one(Input).value == "/sing", "it can be mended"


async def test_meters_move_on_both_sides_and_mute_stills_ones_own(bridge: Bridge, sound: Path) -> None:
    daemon = await bridge()
    async with desk(daemon.url, wav=sound) as one:
        you, agent = one.screen.query(Wave)
        await one.until(lambda: you.columns[-1] > 0.5 and agent.columns[-1] > 0.5)
        assert set("▄▅▆▇█") & set(one.shown)
        await one.until_shown("● talking", "round trip", "mouth to ear ~", "said.wav")
        await one.pilot.press("ctrl+t")
        await one.until_shown("you  muted")
        await one.until(lambda: you.columns[-1] == 0 and agent.columns[-1] == 0)
        await one.enter("/mute")
        await one.until(lambda: you.columns[-1] > 0.5)
        assert "muted" not in one.shown


async def test_a_key_shuts_the_microphone_while_the_loudspeaker_talks(bridge: Bridge, sound: Path) -> None:
    daemon = await bridge()
    async with desk(daemon.url, wav=sound) as one:
        assert not one.screen.session.exchange.loudspeaker
        await one.pilot.press("ctrl+o")
        assert one.screen.session.exchange.loudspeaker


async def test_colours_turn_from_dark_to_light(bridge: Bridge) -> None:
    daemon = await bridge()
    async with desk(daemon.url) as one:
        assert one.screen.theme == DARK.name
        await one.pilot.press("ctrl+l")
        assert one.screen.theme == LIGHT.name
        assert one.screen.screen.styles.background.hex.lower() == LIGHT.background


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (200, 60)])
async def test_nothing_overflows_a_screen_of_any_size_and_it_may_change(bridge: Bridge, size: tuple[int, int]) -> None:
    daemon = await bridge()
    async with desk(daemon.url, size) as one:
        await one.until_shown("listening")
        one.screen._tell(notes.Transcript("word " * 60 + "x" * 300, "agent", 1, final=True))
        one.screen._tell(notes.Memory(("the caller told me: " + "a long story " * 20,)))
        for columns, lines in (size, (80, 24)):
            await one.pilot.resize_terminal(columns, lines)
            await one.until_shown("a long story")
            for widget in one.screen.screen.walk_children():
                region = widget.region
                assert not region or (region.x >= 0 and region.right <= columns), f"{widget} at {region}"
            assert one.screen.query_one(Input).region.bottom <= lines
            assert all(not bar.show_horizontal_scrollbar for bar in one.screen.query("#words"))


async def test_a_long_talk_keeps_its_last_lines(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "MOST_LINES", 20)
    daemon = await bridge()
    async with desk(daemon.url) as one:
        for number in range(30):
            one.screen._tell(notes.Transcript(f"Line {number}.", "agent", number, final=True))
        await one.until_shown("Line 29.")
        await one.until(lambda: len(one.screen.query("Line")) == 20)


async def test_a_broken_connection_shows_and_the_talk_goes_on(bridge: Bridge) -> None:
    daemon = await bridge()
    async with Road(daemon.port) as road, desk(f"127.0.0.1:{road.port}") as one:
        await one.until_shown("● listening")
        away, road.to = road.to, 9
        road.cut()
        await one.until_shown("● reconnecting", "the connection broke; trying to come back")
        road.to = away
        await one.until_shown("●", "·  back")
        await one.enter("Still there.")
        await one.until_shown("agent  Still there.")


async def test_when_the_other_side_ends_it_its_last_words_stay_until_enter(bridge: Bridge) -> None:
    daemon = await bridge()
    async with desk(daemon.url) as one:
        await one.until_shown("● listening")
        await one.enter("Goodbye.")
        await one.until_shown("agent  Goodbye.")
        next(iter(daemon.board.calls.values())).end(End.OPERATOR)
        await one.until_shown("● over", "agent  Goodbye.", "the bridge's operator ended it. Enter closes.")
        await one.pilot.press("enter")
        await one.until(lambda: not one.screen.is_running)
        assert one.screen.return_value == "operator"


async def test_control_c_hangs_up(bridge: Bridge) -> None:
    daemon = await bridge()
    async with desk(daemon.url) as one:
        await one.until_shown("● listening")
        (live,) = daemon.board.calls.values()
        await one.pilot.press("ctrl+c")
        await one.until(lambda: not one.screen.is_running)
        assert one.screen.return_value == "caller"
    assert await live.over == "caller"


async def test_a_bridge_that_is_not_there_gives_the_terminal_back_and_says_why(unused_port: int) -> None:
    screen = Screen(Plan(address(f"127.0.0.1:{unused_port}"), text=True))
    with pytest.raises(Unreachable, match="start a bridge with"):
        await screen.run_talk(headless=True)
    assert np.isfinite(screen.session.figures.seconds)
