"""Step times as a picture: milliseconds over calls, and the line that no step may cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log2

WIDTH, HEIGHT = 760, 420  # pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 56, 52  # what axes, names and title take
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # milliseconds between two lines, the first that fits
LINES = 6  # of the grid, at most
COLOURS = 4  # that the style below has

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2937; font-size: 13px }
.paper { fill: #ffffff } .grid { stroke: #e3e6ea } .title { font-size: 17px; font-weight: 600 }
.small { fill: #6b7280; font-size: 12px } polyline { fill: none; stroke-width: 2.2 }
.limit { stroke: #dc2626; stroke-dasharray: 6 4 } .limit-name { fill: #dc2626; font-size: 12px }
.s0 { stroke: #2563eb } .s1 { stroke: #0d9488 } .s2 { stroke: #b45309 } .s3 { stroke: #7c3aed }
.d0 { fill: #2563eb } .d1 { fill: #0d9488 } .d2 { fill: #b45309 } .d3 { fill: #7c3aed }
@media (prefers-color-scheme: dark) {
text { fill: #e5e7eb } .small { fill: #9ca3af } .paper { fill: #14171c } .grid { stroke: #2b313a }
.limit { stroke: #f87171 } .limit-name { fill: #f87171 }
.s0 { stroke: #60a5fa } .s1 { stroke: #2dd4bf } .s2 { stroke: #fbbf24 } .s3 { stroke: #a78bfa }
.d0 { fill: #60a5fa } .d1 { fill: #2dd4bf } .d2 { fill: #fbbf24 } .d3 { fill: #a78bfa }
}
"""


def as_svg(title: str, series: Mapping[str, Sequence[tuple[int, float]]], limit: float) -> str:
    """The picture, complete in one file, for light and dark. `series` are (calls, milliseconds) by name."""
    points = [point for line in series.values() for point in line]
    calls = sorted({count for count, _ in points})
    highest = 1.1 * max(limit, *(time for _, time in points))

    def x(count: int) -> float:
        widest = log2(calls[-1] / calls[0]) or 1.0
        return LEFT + log2(count / calls[0]) / widest * (WIDTH - LEFT - RIGHT)

    def y(time: float) -> float:
        return HEIGHT - BOTTOM - time / highest * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 30, "title", title)]
    step = next((tick for tick in TICKS if highest / tick <= LINES), highest)
    for number in range(int(highest / step) + 1):
        at = y(number * step)
        parts += [_line(at, "grid"), _text(LEFT - 10, at + 4, "small", f"{number * step:g}", "end")]
    parts += [_text(x(count), HEIGHT - BOTTOM + 20, "small", str(count), "middle") for count in calls]
    parts += [
        _text(LEFT - 10, TOP - 8, "small", "ms", "end"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "small", "calls at once", "middle"),
        _line(y(limit), "limit"),
        _text(WIDTH - RIGHT + 10, y(limit) + 4, "limit-name", f"{limit:g} ms: a frame"),
    ]
    for number, (name, line) in enumerate(series.items()):
        colour = number % COLOURS
        drawn = [(x(count), y(time)) for count, time in sorted(line)]
        parts.append(f'<polyline class="s{colour}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in drawn)}"/>')
        parts += [f'<circle class="d{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in drawn]
        parts.append(_text(drawn[-1][0] + 10, drawn[-1][1] + 4, f"d{colour}", name))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, kind: str, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(y: float, kind: str) -> str:
    return f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="{kind}"/>'
