"""Whether the terminal's background is light: asked of the terminal, else taken from the environment."""

from __future__ import annotations

import os
import re
import select
import sys
import time

PATIENCE = 0.6  # seconds for the answer; a far host behind ssh takes a part of that
# The colour of the background, and then who the terminal is: all answer the second, so nobody waits for the first.
QUESTION = "\x1b]11;?\x1b\\\x1b[c"
_COLOUR = re.compile(rb"\x1b\]11;rgba?:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)")
_WHO = re.compile(rb"\x1b\[\?[0-9;]*c")
_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in what looks light


def is_light() -> bool:
    answer = brightness(_ask())
    if answer is not None:
        return answer > 0.5
    return os.environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")  # as some terminals set it


def brightness(answer: bytes) -> float | None:
    """From 0 to 1, of the colour in a terminal's answer."""
    found = _COLOUR.search(answer)
    if not found:
        return None
    parts = [int(part, 16) / (16 ** len(part) - 1) for part in found.groups()]
    return float(sum(part * weight for part, weight in zip(parts, _WEIGHTS, strict=True)))


def _ask() -> bytes:
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return b""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return b""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    answer = b""
    until = time.monotonic() + PATIENCE
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write(QUESTION)
        sys.stdout.flush()
        while not _WHO.search(answer) and (left := until - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                answer += os.read(descriptor, 256)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    return answer
