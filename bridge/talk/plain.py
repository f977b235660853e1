"""A talk as plain lines or as JSON: for pipes, scripts and terminals that can no more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress

from ..lines import notes
from . import stdin, typed
from .client import Event, Link
from .session import Figures, Plan, Session
from .words import HAPPENED, Words


class Plain:
    """Prints what was said once it is final, and what happens beside it on the standard error. Takes typed lines."""

    def __init__(self, plan: Plan, *, as_json: bool, typed_at: int = 0) -> None:
        """Lines are read from the file descriptor `typed_at`."""
        self._json = as_json
        self._typed_at = typed_at
        self._words = Words()
        self._session = Session(plan, self._tell, self._print_json if as_json else None)

    async def run(self) -> str:
        """Talk to the end; gives how it ended. Ctrl-C hangs up."""
        session = self._session
        loop = asyncio.get_running_loop()
        session.unfinished = session.plan.text
        stdin.lines(self._typed, self._finished, self._typed_at)
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError):  # Windows, or a loop beside the main thread
                loop.add_signal_handler(number, session.quit)
        ending = await session.run(stay=False)
        if self._json:
            self._print(json.dumps({"type": "summary", "end": ending, **as_json(session.figures)}))
        else:
            self._aside(f"{summary(session.figures)}; {ENDINGS.get(ending, ending)}")
        return ending

    def _typed(self, line: str) -> None:
        try:
            command = typed.parse(line)
        except ValueError as error:
            self._aside(str(error))
            return
        if command is not None:
            self._session.do(command)

    def _finished(self) -> None:
        self._session.unfinished = False

    def _tell(self, event: Event) -> None:
        if self._json:
            if isinstance(event, Link):
                self._print(json.dumps({"type": "connection", "state": event.state, "call": event.call}))
            return
        if isinstance(event, Link) and event.state == "connected":
            self._aside(f"talking, as call {event.call}")
        utterance = self._words.of(event)
        if utterance is None:
            return
        if utterance.speaker == HAPPENED:
            self._aside(utterance.text)
        elif isinstance(event, notes.Transcript) and event.final:
            self._print(f"{utterance.speaker}: {utterance.text}")

    def _print_json(self, text: str) -> None:
        self._print(text)

    def _print(self, line: str) -> None:
        """Lines leave at once: who reads them at the other end of a pipe reads along."""
        try:
            print(line, flush=True)
        except BrokenPipeError:  # nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._session.quit()

    def _aside(self, line: str) -> None:
        print(f"({line})", file=sys.stderr, flush=True)


ENDINGS = {
    "caller": "hung up",
    "agent": "the agent hung up",
    "operator": "the bridge's operator ended it",
    "drain": "the bridge is shutting down",
    "idle": "nobody had said anything for long",
    "length": "it was as long as the bridge allows",
    "digit": "ended by a key",
}


def summary(figures: Figures) -> str:
    """What a talk was like, in a line."""
    minutes, seconds = divmod(round(figures.seconds), 60)
    parts = [f"{minutes}:{seconds:02} talked"]
    if figures.round_trip is not None:
        parts.append(f"round trip {milliseconds(figures.round_trip)}")
    if figures.mouth_to_ear is not None:
        parts.append(f"mouth to ear about {milliseconds(figures.mouth_to_ear)}")
    parts += [f"jitter {milliseconds(figures.jitter)}", f"{figures.underruns} underruns"]
    if figures.resumes:
        parts.append(f"came back {figures.resumes} times")
    return ", ".join(parts)


def as_json(figures: Figures) -> dict[str, float | int | None]:
    return {
        "seconds": round(figures.seconds, 1),
        "round_trip_ms": _rounded(figures.round_trip),
        "mouth_to_ear_ms": _rounded(figures.mouth_to_ear),
        "jitter_ms": _rounded(figures.jitter),
        "underruns": figures.underruns,
        "resumes": figures.resumes,
    }


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
