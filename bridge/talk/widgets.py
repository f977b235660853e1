"""What the screen is made of: a line of talk, and how loud a side has been."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from rich.text import Text
from textual.app import ComposeResult
from textual.color import Color
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Static

from .words import HAPPENED, Utterance

STEPS = " ▁▂▃▄▅▆▇█"  # eight steps in a row of a wave, and nothing
YOU = "you"  # what a caller is to themselves
ROWS = 2  # of a wave: sixteen steps
BLOCKS = 3  # of 20 ms in a column of a wave: syllables show
CONTRAST = 2.4  # power of a meter, so that loud and soft differ to the eye
FADE = (0.35, 0.55, 0.75, 0.9, 1.0)  # of the colour, from what was to what is


class Line(Horizontal):
    """An utterance, or what happened between two."""

    def __init__(self, utterance: Utterance) -> None:
        happened = utterance.speaker == HAPPENED
        super().__init__(classes="happened" if happened else utterance.speaker)
        self._utterance = utterance
        self._speaker = Static(Text(YOU if utterance.speaker == "caller" else utterance.speaker), classes="name")
        self._text = Static(classes="text")
        self.renew()

    def compose(self) -> ComposeResult:
        yield self._speaker
        yield self._text

    def renew(self) -> None:
        """Show what the utterance has become."""
        final = self._utterance.final
        self.set_class(not final, "unfinished")
        self._text.update(Text(self._utterance.text + ("" if final else " …")))


class Wave(Widget):
    """How loud a side has been, the newest at the right."""

    def __init__(self, side: str, colour: str) -> None:
        super().__init__()
        self._side = side
        self._colour = colour  # the variable of the theme
        self._note = ""
        self._levels: Sequence[float] = ()
        self._shown: tuple[str, list[float]] | None = None  # what was drawn last

    @property
    def columns(self) -> list[float]:
        """The levels shown, one a column, the newest last."""
        width = max(1, self.size.width)
        levels = list(self._levels)[-width * BLOCKS :]
        cut = len(levels) % BLOCKS
        loudest = [max(levels[at : at + BLOCKS]) for at in range(cut, len(levels), BLOCKS)]
        return [0.0] * (width - len(loudest)) + loudest

    def show(self, levels: Sequence[float], note: str = "") -> None:
        """`note` stands beside the name: why nothing is heard. What is as it was is not drawn again."""
        self._levels = levels
        if (note, self.columns) != self._shown:
            self._note = note
            self.refresh()

    def render(self) -> Text:
        theme = self.app.theme_variables
        colour, faint = theme[self._colour], theme["faint"]
        paper = Color.parse(theme["background"])
        ages = [paper.blend(Color.parse(colour), share).hex for share in FADE]
        text = Text(no_wrap=True, overflow="crop")
        text.append(self._side, f"bold {colour}")
        if self._note:
            text.append(f"  {self._note}", faint)
        columns = self.columns
        self._shown = (self._note, columns)
        steps = len(STEPS) - 1
        for row in reversed(range(ROWS)):
            text.append("\n")
            bars = []
            for at, level in enumerate(columns):
                height = round(level**CONTRAST * steps * ROWS) - row * steps
                bar = STEPS[max(0, min(steps, height))]
                rests = row == 0 and bar == STEPS[0]
                bars.append((theme["line"], STEPS[1]) if rests else (ages[at * len(ages) // len(columns)], bar))
            for style, run in groupby(bars, key=itemgetter(0)):
                text.append("".join(bar for _, bar in run), style)
        return text
