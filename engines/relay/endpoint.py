"""Where conversations can be had elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

WireName: TypeAlias = Literal["bridge", "moshi"]
"""That of another voice-bridge, or of the servers that come with Moshi."""

PATHS: dict[WireName, str] = {"bridge": "/v1/stream", "moshi": "/api/chat"}


def no_token() -> str:
    return ""


@dataclass(frozen=True)
class Endpoint:
    url: str
    """http:// or https://, with what stands before the path of the wire."""
    wire: WireName
    token: Callable[[], str] = field(default=no_token, repr=False)
    """What to show there; asked again and again, beside the event loop, as it may read a file. Raises ValueError."""
    voice: str = ""
    """The voice prompt of a PersonaPlex server."""

    @property
    def name(self) -> str:
        """As people know it."""
        parts = urlsplit(self.url)
        return parts.netloc + parts.path


def endpoint(url: str, wire: WireName | None, token: Callable[[], str] = no_token, voice: str = "") -> Endpoint:
    """An endpoint by its address. Without `wire` the address tells: /api/chat is Moshi's, everything else a bridge."""
    url = url.rstrip("/").replace("ws", "http", 1) if url.startswith("ws") else url.rstrip("/")
    found: WireName = "moshi" if url.endswith(PATHS["moshi"]) else "bridge"
    return Endpoint(url.removesuffix(PATHS[found]), wire or found, token, voice)
