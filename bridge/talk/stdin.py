"""The lines of the standard input, for a loop that must not wait for them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

PIECE = 4096  # bytes read at once
LONGEST = 64 * 1024  # bytes without an end of line that are still taken for one


def lines(take: Callable[[str], None], finished: Callable[[], None], descriptor: int = 0) -> None:
    """Call `take` with each line, and `finished` behind the last, on this loop.

    A thread of its own reads, and by the descriptor: a loop cannot wait for files, and a lock on `sys.stdin` would
    hold the program up at its end.
    """
    loop = asyncio.get_running_loop()

    def tell(function: Callable[..., None], *arguments: str) -> bool:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def read() -> None:
        rest = b""
        while piece := _read(descriptor):
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST:
                whole, rest = [*whole, rest], b""
            if not all(tell(take, line.decode(errors="replace")) for line in whole):
                return
        if rest:
            tell(take, rest.decode(errors="replace"))
        tell(finished)

    threading.Thread(target=read, name="stdin", daemon=True).start()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, PIECE)
    except OSError:  # it is closed, or the terminal is another program's
        return b""
