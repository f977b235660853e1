"""A call as a picture: what the caller said above, what the caller heard below, and how long it took between."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise

import numpy as np

from .measure import Echo
from .protocol import RATE
from .report import Result
from .sound import Pcm

WIDTH, LEFT, RIGHT = 1200, 124, 72  # pixels; the names stand on the left, the chart's scale on the right
LANE = 120  # height of a waveform
MOUTH, EAR = 150, 318  # where the lanes begin
CHART, CHART_HEIGHT = 500, 96
HEIGHT = CHART + CHART_HEIGHT + 36
HEIGHT_WITHOUT_CHART = CHART - 20
ROOM = 54  # pixels that "680 ms" and some air take

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2937; font-size: 13px }
.paper { fill: #ffffff } .grid { stroke: #e3e6ea } .zero { stroke: #cfd4da }
.title { font-size: 20px; font-weight: 600 } .big { font-size: 26px; font-weight: 600 }
.small { fill: #6b7280; font-size: 12px } .name { font-weight: 600 }
.mouth { fill: #2563eb } .ear { fill: #0d9488 }
.link { stroke: #b45309; stroke-width: 1.2 } .dot { fill: #b45309 } .delay { fill: #b45309; font-size: 12px }
.median { stroke: #b45309; stroke-dasharray: 5 4; opacity: .6 }
.gap { fill: #dc2626; opacity: .28 } .bad { fill: #dc2626 } .lost { stroke: #dc2626 }
@media (prefers-color-scheme: dark) {
text { fill: #e5e7eb } .small { fill: #9ca3af }
.paper { fill: #14171c } .grid { stroke: #2b313a } .zero { stroke: #3b424d }
.mouth { fill: #60a5fa } .ear { fill: #2dd4bf }
.link { stroke: #fbbf24 } .dot { fill: #fbbf24 } .delay { fill: #fbbf24 } .median { stroke: #fbbf24 }
.gap { fill: #f87171; opacity: .35 } .bad { fill: #f87171 } .lost { stroke: #f87171 }
}
"""


def as_svg(result: Result) -> str:
    """The picture, complete in one file, for light and dark."""
    return _Picture(result).draw()


class _Picture:
    def __init__(self, result: Result) -> None:
        self._result = result
        self._call = result.call
        self._seconds = max(self._call.seconds, 1.0)
        self._delays = result.mouth_to_ear
        self._parts: list[str] = []

    def draw(self) -> str:
        self._header()
        self._time_axis()
        self._lanes()
        self._gaps()
        self._links()
        self._chart()
        height = HEIGHT if self._delays else HEIGHT_WITHOUT_CHART
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="{escape(self._title())}">\n<style>{STYLE}</style>\n'
            f'<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
        )

    def _x(self, seconds: float) -> float:
        return LEFT + seconds / self._seconds * (WIDTH - LEFT - RIGHT)

    def _text(self, x: float, y: float, kind: str, text: str, anchor: str = "start") -> None:
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def _line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def _rect(self, x: float, y: float, width: float, height: float, kind: str, title: str = "") -> None:
        inside = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}">{inside}</rect>'
        )

    def _title(self) -> str:
        call = self._call
        return f"{call.caller} to {call.number}: {call.seconds:.1f} s, {call.failure or call.ended}"

    def _header(self) -> None:
        self._text(LEFT, 40, "title", self._title())
        call, heard = self._call, self._delays
        figures = [
            (f"{heard.median:.0f} ms" if heard else "no echo", "mouth to ear, median", False),
            (f"{heard.p95:.0f} ms" if heard else "", "95th percentile", False),
            (f"{call.first_media * 1000:.0f} ms" if call.first_media is not None else "none", "first audio", False),
            (str(len(call.gaps)), "underruns", bool(call.gaps)),
            (f"{self._result.gap_ms:.0f} ms", "gaps in all", bool(call.gaps)),
            (str(len(call.errors)), "Twilio errors", bool(call.errors)),
        ]
        for number, (value, label, bad) in enumerate(figure for figure in figures if figure[0]):
            x = LEFT + number * 178
            self._text(x, 88, "big bad" if bad else "big", value)
            self._text(x, 108, "small", label)

    def _time_axis(self) -> None:
        step = next(s for s in (0.5, 1, 2, 5, 10, 30, 60, 300, 1e9) if self._seconds / s <= 16)
        for number in range(int(self._seconds / step) + 1):
            x = self._x(number * step)
            self._line(x, MOUTH, x, EAR + LANE, "grid")
            if self._delays:
                self._line(x, CHART, x, CHART + CHART_HEIGHT, "grid")
            self._text(x, EAR + LANE + 18, "small", f"{number * step:g} s", "middle")

    def _lanes(self) -> None:
        spoken, heard = self._call.spoken, self._call.heard
        peak = max(int(np.max(np.abs(pcm.astype(np.int32)), initial=1000)) for pcm in (spoken, heard))
        for top, pcm, kind, name, detail in (
            (MOUTH, spoken, "mouth", "Caller", "at the mouth"),
            (EAR, heard, "ear", "Heard", "at the ear"),
        ):
            middle = top + LANE / 2
            self._line(LEFT, middle, WIDTH - RIGHT, middle, "zero")
            self._text(28, middle - 2, "name", name)
            self._text(28, middle + 15, "small", detail)
            self._wave(pcm, middle, LANE * 0.46 / peak, kind)
        for chunk in self._call.lost_chunks:
            self._line(self._x(chunk / 50), MOUTH + LANE - 6, self._x(chunk / 50), MOUTH + LANE, "lost")
        for at, digit in self._call.digits:
            self._text(self._x(at), MOUTH + 14, "name", digit, "middle")

    def _wave(self, pcm: Pcm, middle: float, scale: float, kind: str) -> None:
        """The sound's outline: the highest and the lowest sample of every pixel."""
        columns = WIDTH - LEFT - RIGHT
        edges = np.linspace(0, self._seconds * RATE, columns + 1).astype(int)
        high, low = [], []
        for x, (begin, end) in enumerate(pairwise(edges)):
            piece = pcm[begin:end]
            if not len(piece):
                break
            high.append(f"{LEFT + x},{middle - max(0.5, int(piece.max()) * scale):.1f}")
            low.append(f"{LEFT + x},{middle + max(0.5, -int(piece.min()) * scale):.1f}")
        if high:
            self._parts.append(f'<path class="{kind}" d="M{" ".join(high)} {" ".join(reversed(low))}Z"/>')

    def _gaps(self) -> None:
        for gap in self._call.gaps:
            x = self._x(gap.at / RATE)
            width = max(2.0, self._x((gap.at + gap.length) / RATE) - x)
            missing = f"{gap.length * 1000 / RATE:.0f} ms"
            self._rect(x, EAR, width, LANE, "gap", f"{missing} of nothing")
            if width > ROOM:
                self._text(x + width / 2, EAR + 16, "small bad", missing, "middle")

    def _links(self) -> None:
        """From every sound at the mouth to the same sound at the ear."""
        if not self._delays:
            self._text(LEFT, (MOUTH + LANE + EAR) / 2 + 4, "small", "no echo of the caller was found in what was heard")
            return
        free = 0.0  # where the next label has room
        for echo in self._result.echoes:
            x1, top, bottom = self._x(echo.at / RATE), MOUTH + LANE + 6, EAR - 6
            if echo.delay_ms is None:
                self._text(x1, top + 14, "small bad", "lost", "middle")
                continue
            x2 = self._x((echo.at + (echo.delay or 0)) / RATE)
            self._line(x1, top, x2, bottom, "link")
            if x2 >= free:
                free = x2 + ROOM
                self._text(x2 + 6, bottom - 2, "delay", f"{echo.delay_ms:.0f} ms")

    def _chart(self) -> None:
        """The delay of every sound over the call."""
        if not self._delays:
            return
        least, most = self._delays.least, self._delays.most
        margin = max(10.0, (most - least) * 0.15)
        low, high = max(0.0, least - margin), most + margin

        def y(ms: float) -> float:
            return CHART + CHART_HEIGHT - (ms - low) / (high - low) * CHART_HEIGHT

        self._text(28, CHART + CHART_HEIGHT / 2 - 2, "name", "Delay")
        self._text(28, CHART + CHART_HEIGHT / 2 + 15, "small", "mouth to ear")
        step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 1000) if (high - low) / s <= 5)
        for ms in range(int(-(-low // step)) * step, int(high) + 1, step):
            self._line(LEFT, y(ms), WIDTH - RIGHT, y(ms), "grid")
            self._text(WIDTH - RIGHT + 8, y(ms) + 4, "small", f"{ms} ms")
        self._line(LEFT, y(self._delays.median), WIDTH - RIGHT, y(self._delays.median), "median")
        for echo in self._result.echoes:
            self._dot(echo, y)

    def _dot(self, echo: Echo, y: Callable[[float], float]) -> None:
        if echo.delay_ms is not None:
            place = f'cx="{self._x(echo.at / RATE):.1f}" cy="{y(echo.delay_ms):.1f}"'
            self._parts.append(f'<circle {place} r="3.5" class="dot"><title>{echo.delay_ms:.3f} ms</title></circle>')
