"""Who may: what a request brings along, and the operators' door."""

from __future__ import annotations

from aiohttp import web

from . import auth
from .config import is_loopback
from .switchboard import Switchboard

SUBPROTOCOL = "voice-bridge.v1"
BEARER = "bearer."  # before a token that a browser, which can set no header, sends as a second subprotocol


def authorization(request: web.Request) -> str:
    """The header, or what stands for it among a browser's subprotocols."""
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    given = next((part.removeprefix(BEARER) for part in offered if part.startswith(BEARER)), None)
    return f"Bearer {given}" if given is not None else request.headers.get("Authorization", "")


class OperatorsDoor:
    """On the admin address the address itself is the key, elsewhere a token is."""

    def __init__(self, board: Switchboard, base: str, admin_host: str | None = None) -> None:
        """`base` is the URL under which the bridge is known; `admin_host` is given on the admin address."""
        self._board = board
        self._base = base
        self._admin_host = admin_host

    @property
    def takes_tokens(self) -> bool:
        return self._admin_host is None and self._board.settings.auth.takes_tokens

    async def check(self, request: web.Request) -> None:
        """Raise `auth.Denied` unless an operator sent the request."""
        if self._admin_host is not None:
            if is_loopback(self._admin_host):
                auth.check_local(request.remote or "", request.headers)
            auth.check_origin(request.headers, "")
        elif self.takes_tokens:
            auth.check_origin(request.headers, self._base)
            await self._board.tokens.check(authorization(request), "operator")
        elif self._board.settings.open_mode:
            auth.check_local(request.remote or "", request.headers)
        else:
            raise auth.Denied(403, "operators need auth.secret (and a token) or server.admin (an address of their own)")
