"""The colours and the layout of the screen."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="bridge-dark",
    dark=True,
    background="#15171c",
    surface="#15171c",
    panel="#1d2027",
    foreground="#d9dce3",
    primary="#7cc4b4",
    secondary="#e3b981",
    accent="#7cc4b4",
    warning="#e3b981",
    error="#e5757f",
    success="#7cc4b4",
    variables={"agent": "#7cc4b4", "caller": "#e3b981", "faint": "#7d8594", "line": "#2c313b"},
)
LIGHT = Theme(
    name="bridge-light",
    dark=False,
    background="#faf8f4",
    surface="#faf8f4",
    panel="#efece5",
    foreground="#2a2d34",
    primary="#12695c",
    secondary="#8a5410",
    accent="#12695c",
    warning="#8a5410",
    error="#b3303c",
    success="#12695c",
    variables={"agent": "#12695c", "caller": "#8a5410", "faint": "#6b7078", "line": "#dcd7cc"},
)

CSS = """
Screen { background: $background; color: $foreground; }

#head { height: 1; padding: 0 2; background: $panel; }
#head > Static { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
#head > #where { width: auto; max-width: 50%; color: $faint; }

#empty { height: 1fr; content-align: center middle; color: $faint; }
#words { height: 1fr; padding: 1 2 0 2; background: $background; scrollbar-size-vertical: 1;
    scrollbar-color: $line; scrollbar-color-hover: $faint; scrollbar-color-active: $faint;
    scrollbar-background: $background; scrollbar-background-hover: $background;
    scrollbar-background-active: $background; }
#words:focus { background-tint: transparent 0%; }

Line { height: auto; margin: 0 0 1 0; }
Line > .name { width: 8; text-align: right; text-style: bold; text-wrap: nowrap; text-overflow: ellipsis; }
Line > .text { width: 1fr; max-width: 72; margin: 0 0 0 2; }
Line.agent > .name { color: $agent; }
Line.caller > .name { color: $caller; }
Line.unfinished > .text { text-style: italic; color: $foreground 70%; }
Line.happened > .text { color: $faint; text-style: italic; }
Line.happened > .name { color: $faint; text-style: none; }

#waves { height: 3; padding: 0 2; }
Wave { width: 1fr; height: 3; margin: 0 2 0 0; }
Wave:last-child { margin: 0; }

#figures { height: 1; padding: 0 2; color: $faint; text-wrap: nowrap; text-overflow: ellipsis; }

#typing { height: 3; border: round $line; background: $background; padding: 0 1; margin: 0 1; }
#typing:focus { border: round $agent; background: $background; background-tint: transparent 0%; }
#typing > .input--placeholder { color: $faint; }

Footer { background: $background; padding: 0 1; }
FooterKey { background: $background; color: $faint; }
FooterKey > .footer-key--key { background: $background; color: $foreground; text-style: none; }
FooterKey > .footer-key--description { background: $background; color: $faint; }
"""
