"""What a conversation is at an endpoint, and how it can go wrong. Both wires keep to this."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import aiohttp

from ..base import Event, Frame, Opening
from ..wire import AnyTell

HEARTBEAT = 10.0  # seconds between pings on a connection that has nothing else to show; half of that for the answer
CLOSING = 0.5  # seconds for a WebSocket to close in good order; then it is cut
LONGEST_WHY = 200  # characters of what an endpoint says, in a line of ours
DENIED = (401, 403)


class Unusable(Exception):
    """No conversation can be had there just now; the message says why, and follows the endpoint's name."""


class Full(Unusable):
    """All of its slots are taken, by us or by others."""


class Wrong(Unusable):
    """Waiting will not help: somebody must correct the configuration."""


class Broken(Exception):
    """The connection of a conversation is gone, without a word."""


class Over(Exception):
    """The far end has ended the conversation. `code` is that of the wire of bridges."""

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(f"{code}: {why}"[:LONGEST_WHY] if why else code)
        self.code = code


class Reading(NamedTuple):
    """What an endpoint says of itself."""

    free: int
    state: str = "ready"
    engine: str = ""
    step_seconds: float = 0.0


class Link(Protocol):
    """One conversation there, as long as its connection lasts."""

    early: list[Event]
    """What has happened before anything was received."""

    @property
    def patience(self) -> float:
        """Seconds that the first reply may take."""

    @property
    def resumable(self) -> bool:
        """Whether the conversation waits for us when the connection breaks."""

    async def send(self, frame: Frame, at: int) -> bool:
        """False if it was left out, because the far end is far behind."""

    async def tell(self, tell: AnyTell) -> list[Event]:
        """What comes of it at once; mostly nothing."""

    async def receive(self) -> list[Event]:
        """What has come, possibly nothing; raises `Broken` or `Over`. A cancelled wait loses nothing."""

    async def close(self) -> None:
        """Let go of the connection, whatever it is at."""


class Wire(Protocol):
    """How to talk with one endpoint."""

    token: str
    """What is shown there."""

    async def probe(self, used: int) -> Reading:
        """Ask how it is, while `used` conversations of ours are there; raises `Unusable`, or what aiohttp raises."""

    async def connect(self, opening: Opening, fresh: Callable[[], int]) -> Link:
        """Begin a conversation; raises likewise. `fresh` gives ids that nobody has."""

    async def resume(self, link: Link) -> Link:
        """Go on with the conversation of a link that broke."""


def denied(status: int, body: str) -> Wrong:
    """It does not let us in."""
    said = f": {body}" if body else ""
    remedy = "set voice.cloud.secret to its auth.secret, or voice.cloud.token to a token for it"
    return Wrong(f"refuses us ({status}{said}); {remedy}"[: LONGEST_WHY * 2])


def refused(error: aiohttp.WSServerHandshakeError) -> Unusable:
    """Why there is no WebSocket."""
    if error.status == 503:
        return Full("is full")
    if error.status in DENIED:
        return denied(error.status, "")
    return Unusable(f"answers the WebSocket with {error.status}")
