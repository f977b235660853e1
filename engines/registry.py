"""Names to engines. An engine's code is imported only when it is chosen, and then in its own process."""

from __future__ import annotations

from typing import NamedTuple

from .base import Engine
from .hardware import Machine
from .host import HostEngine

CORES = {"echo": "voice_bridge.engines.echo:core"}
PLANNED = ("moshi", "moshi-cloud", "cascade")
ECHO_SLOTS = 400  # calls; what one core of bridge carries on the test line is below that


class NoEngine(Exception):
    """No engine fits; the message is one line with the remedy."""


class Choice(NamedTuple):
    name: str
    reason: str


def choose(provider: str, device: str, machine: Machine, endpoint: str) -> Choice:
    """Which engine answers, and why; raises `NoEngine`."""
    if provider in CORES:
        return Choice(provider, "it was asked for")
    if provider == "auto":
        return Choice("echo", "this version holds the test line only; it says back what it hears")
    if provider in PLANNED:
        raise NoEngine(f"voice.provider = {provider}: this version has no such engine yet; take auto or echo")
    raise NoEngine(f"voice.provider = {provider}: unknown; take auto or {', '.join(CORES)}")


def make(choice: Choice, slots: int) -> Engine:
    """The engine, not yet started. `slots` bounds the calls at once; 0 leaves it to the engine."""
    return HostEngine(choice.name, CORES[choice.name], slots or ECHO_SLOTS)
