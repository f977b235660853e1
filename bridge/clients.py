"""Who may be a client of this bridge."""

from __future__ import annotations

from aiohttp import web

from . import auth
from .switchboard import Switchboard


async def check(board: Switchboard, base: str, request: web.Request, authorization: str) -> str:
    """The subject of the client's token, empty in open mode; raises `auth.Denied`.

    `base` is the URL under which the bridge is known.
    """
    settings = board.settings
    if settings.auth.takes_tokens:
        auth.check_origin(request.headers, base)
        return (await board.tokens.check(authorization, "talk")).subject
    if not settings.open_mode:
        raise auth.Denied(403, "clients need auth.secret (and a token): docs/configuration.md")
    auth.check_local(request.remote or "", request.headers)
    return ""
