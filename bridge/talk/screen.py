"""The screen of a talk: both sides' words in the middle, how it sounds below."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Input, Static

from ..lines import notes
from . import background, typed
from .client import Event, Link
from .look import CSS, DARK, LIGHT
from .plain import ENDINGS, milliseconds, summary
from .session import Figures, Plan, Session
from .widgets import YOU, Line, Wave
from .words import HAPPENED, Utterance, Words

REFRESH = 0.1  # seconds between two looks at meters and figures
MOST_LINES = 300  # on the screen; a long talk must not make it slow
STATES = {"calling": "warning", "reconnecting": "error", "talking": "agent", "over": "faint"}  # others are calm


class Screen(App[str]):
    """`ending = await Screen(plan, theme).run_talk()`."""

    CSS = CSS
    TITLE = "voice-bridge"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "mute", "mute", priority=True),
        Binding("ctrl+o", "loudspeaker", "speaker", priority=True),
        Binding("ctrl+l", "light", "light", priority=True),
        Binding("ctrl+c", "hang_up", "hang up", priority=True),
        Binding("ctrl+q", "hang_up", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]

    def __init__(self, plan: Plan, theme: str = "dark") -> None:
        super().__init__()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = LIGHT.name if theme == "light" else DARK.name
        self._ask_terminal = theme == "auto"
        self.state = "calling"
        self.session = Session(plan, self._tell)
        self._words = Words()
        self._lines: dict[int, Line] = {}
        self._state, self._where, self._figures = Static(id="state"), Static(id="where"), Static(id="figures")
        self._empty, self._talk = Static("Say something.", id="empty"), VerticalScroll(id="words", can_focus=False)
        self._you, self._agent = Wave(YOU, "caller"), Wave("agent", "agent")
        self._shown_at = -1  # the second at which figures were shown last: faster, nobody can read them
        self._talking: asyncio.Task[str] | None = None
        self._ending = "caller"
        self._failure: Exception | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="head"):
            yield self._state
            yield self._where
        yield self._empty
        yield self._talk
        with Horizontal(id="waves"):
            yield self._you
            yield self._agent
        yield self._figures
        yield Input(placeholder="What you type is said by the agent; /inject lets it know something", id="typing")
        yield Footer()

    async def run_talk(self, *, headless: bool = False) -> str:
        """Talk to the end; gives how it ended. Raises what `Session.run` does, once the terminal is as it was."""
        if self._ask_terminal and background.is_light():
            self.theme = LIGHT.name
        await self.run_async(headless=headless)
        if self._failure:
            raise self._failure
        print(summary(self.session.figures), file=sys.stderr)
        return self._ending

    def on_mount(self) -> None:
        self.query_one("#typing").focus()
        self._talk.anchor()
        self._talk.display = False
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or a loop beside the main thread
                asyncio.get_running_loop().add_signal_handler(number, self.session.quit)
        self._talking = asyncio.create_task(self.session.run(stay=True))
        self._talking.add_done_callback(self._ended)
        self.set_interval(REFRESH, self._look)
        self._look()

    async def on_unmount(self) -> None:
        if self._talking:
            self._talking.cancel()
            await asyncio.gather(self._talking, return_exceptions=True)

    # -- what people do ------------------------------------------------------------------------------------------

    def on_input_submitted(self, entered: Input.Submitted) -> None:
        if self.state == "over":
            self._leave()
            return
        try:
            command = typed.parse(entered.value)
        except ValueError as error:
            self._add(Utterance(HAPPENED, str(error)))
            return
        entered.input.clear()
        if command is not None:
            self.session.do(command)
            self._look()

    def action_mute(self) -> None:
        self.session.do(typed.Mute())
        self._look()

    def action_loudspeaker(self) -> None:
        self.session.do(typed.Speaker())
        self._look()

    def action_light(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def action_page(self, pages: int) -> None:
        if pages < 0:
            self._talk.scroll_page_up()
        else:
            self._talk.scroll_page_down()

    def action_hang_up(self) -> None:
        if self.state == "over":
            self._leave()
        self.session.quit()

    # -- what happens --------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        match event:
            case Link("broken"):
                self.state = "reconnecting"
            case Link():
                self.state = "listening"
            case notes.Status(state):
                self.state = "beginning anew" if state == "engine-lost" else state
        utterance = self._words.of(event)
        if utterance is not None:
            self._add(utterance)

    def _add(self, utterance: Utterance) -> None:
        if not self._talk.is_attached:  # the screen is closing
            return
        line = self._lines.get(id(utterance))
        if line is not None:
            line.renew()
            return
        line = self._lines[id(utterance)] = Line(utterance)
        self._empty.display = False
        self._talk.display = True
        self._talk.mount(line)
        while len(self._lines) > MOST_LINES:
            oldest = next(iter(self._lines))
            self._lines.pop(oldest).remove()

    def _ended(self, talking: asyncio.Task[str]) -> None:
        """Who hung up here is gone; when the other side did, its last words stay until somebody has read them."""
        if talking.cancelled():
            return
        error = talking.exception()
        if isinstance(error, Exception):
            self._failure = error
            why = str(error)
        else:
            self._ending = talking.result()
            why = ENDINGS.get(self._ending, f"the bridge ended the talk: {self._ending}")
        if self._ending == "caller" and not (error and self._words.utterances):
            self._leave()
        else:
            self.state = "over"
            self._add(Utterance(HAPPENED, f"{why}. Enter closes."))

    def _leave(self) -> None:
        self.exit(self._ending)

    def _look(self) -> None:
        """Show what moves by itself."""
        exchange, figures = self.session.exchange, self.session.figures
        text = Text()
        text.append("● ", self.theme_variables[STATES.get(self.state, "faint")])
        text.append(self.state, "bold")
        _show(self._state, text)
        minutes, seconds = divmod(int(figures.seconds), 60)
        _show(self._where, Text(f"{self.session.plan.where.host}   {minutes}:{seconds:02}"))
        self._you.show(list(exchange.said.history), self._why_unheard())
        self._agent.show(list(exchange.heard.history))
        if int(figures.seconds) != self._shown_at:
            self._shown_at = int(figures.seconds)
            _show(self._figures, _in_words(figures))

    def _why_unheard(self) -> str:
        exchange, plan = self.session.exchange, self.session.plan
        if exchange.muted:
            return "muted"
        if plan.text:
            return "typing only"
        if plan.wav:
            return plan.wav.name
        return "over the loudspeaker" if exchange.loudspeaker else ""


def _show(place: Static, text: Text) -> None:
    """Only what is new: a screen that does not change sends nothing."""
    if place.content != text:
        place.update(text)


def _in_words(figures: Figures) -> Text:
    shown = [
        f"round trip {_known(figures.round_trip)}",
        f"mouth to ear ~{_known(figures.mouth_to_ear)}",
        f"jitter {milliseconds(figures.jitter)}",
        f"underruns {figures.underruns}",
    ]
    if figures.resumes:
        shown.append(f"came back {figures.resumes} times")
    return Text("  ·  ".join(shown))


def _known(seconds: float | None) -> str:
    return "?" if seconds is None else milliseconds(seconds)
