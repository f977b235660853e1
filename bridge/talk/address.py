"""Where a bridge is and what it wants to see; what it means when it does not let us in."""

from __future__ import annotations

import ipaddress
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHandshake, InvalidStatus

PATH = "/v1/stream"
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
MOST_TOKEN = 16 * 1024  # bytes; more is another file


class Unreachable(Exception):
    """No way in. Its text says why, in one line, and what to do."""

    def __init__(self, why: str, *, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing
        """Whether it may go by if one tries again."""


@dataclass(frozen=True)
class Address:
    url: str
    token: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """As people name it: host and port."""
        return urlsplit(self.url).netloc

    @property
    def shows_token(self) -> bool:
        """Whether the token goes over a network for all to read."""
        parts = urlsplit(self.url)
        return bool(self.token) and parts.scheme == "ws" and not _is_here(parts.hostname or "")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def address(given: str, token: str = "") -> Address:
    """From ws, wss, http and https URLs or a bare host and port; raises ValueError for anything else."""
    text = given.strip()
    if "://" not in text:
        text = f"ws://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    scheme, host = SCHEMES.get(parts.scheme), parts.hostname
    if not scheme or not host or parts.username is not None or any(char.isspace() for char in text):
        raise ValueError(
            f"{given!r} is no address of a bridge; one looks like 127.0.0.1:8080 or https://bridge.example.com"
        )
    host = f"[{host}]" if ":" in host else host
    where = f"{host}:{port}" if port else host
    path = parts.path if parts.path.strip("/") else PATH
    return Address(f"{scheme}://{where}{path}{'?' + parts.query if parts.query else ''}", _checked(token))


def read_token(path: Path) -> str:
    """The token in a file; raises ValueError when there is none."""
    try:
        text = path.read_bytes()[:MOST_TOKEN].decode().strip()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read as a token: {error}") from error
    if not text:
        raise ValueError(f"{path} is empty; make a token with: voice-bridge token > {path}")
    return text


def unreachable(where: Address, error: Exception) -> Unreachable:
    """What went wrong when a connection was made."""
    match error:
        case InvalidStatus():
            return _refusal(where, error.response.status_code, error.response.body)
        case ssl.SSLError():
            why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
            remedy = "its certificate must fit its name; ws:// is for bridges without one"
            return Unreachable(f"no safe connection to {where.host} ({why}); {remedy}", passing=False)
        case TimeoutError():
            return Unreachable(f"{where.host} does not answer in time; is the address right?", passing=True)
        case InvalidHandshake():
            return Unreachable(f"what answers at {where.host} is no bridge; is the port right?", passing=True)
        case OSError():
            start = "start a bridge with: voice-bridge serve"
            return Unreachable(f"nothing answers at {where.host} ({_reason(error)}); {start}", passing=True)
        case _:
            return Unreachable(f"{where.host} cannot be reached: {error}", passing=False)


def _refusal(where: Address, status: int, body: bytes | bytearray | None) -> Unreachable:
    try:
        answer = json.loads(body or b"")
    except ValueError:
        answer = None
    told = str(answer.get("error", "")) if isinstance(answer, dict) else ""
    said = " ".join("".join(char if char.isprintable() else " " for char in told).split())[:200]
    make = "`voice-bridge token`, where the bridge runs, makes one, for --token, --token-file or VOICE_BRIDGE_TOKEN"
    match status:
        case 401 if where.token:
            return Unreachable(f"the bridge does not take this token ({said}); {make}", passing=False)
        case 401:
            return Unreachable(f"the bridge wants a token; {make}", passing=False)
        case 403:
            return Unreachable(f"the bridge does not let us in: {said}", passing=False)
        case 503:
            return Unreachable(f"the bridge takes no call just now: {said}; try again in a little", passing=True)
        case 404:
            remedy = "the address must be a bridge's, without a path or with /v1/stream"
            return Unreachable(f"there is no bridge for clients at {where.url}; {remedy}", passing=False)
        case _:
            return Unreachable(f"{where.host} answers HTTP {status} {said}".rstrip(), passing=status >= 500)


def _checked(token: str) -> str:
    if any(not "!" <= char <= "~" for char in token):
        raise ValueError("the token has characters that no token has; give it as `voice-bridge token` prints it")
    return token


def _reason(error: OSError) -> str:
    """The system's words, without the numbers around them."""
    text = error.strerror or str(error)
    return "Connection refused" if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text else text


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
