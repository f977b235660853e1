"""Clients that are no telephones: terminals, browsers and other bridges, at `/v1/stream`."""

from __future__ import annotations

import secrets

from aiohttp import web

from . import auth
from .admission import Refused, Ticket
from .call import Call
from .doors import SUBPROTOCOL, authorization
from .lines.client import MAX_MESSAGE, ClientLine
from .observe import logs
from .sockets import CLOSE_LIMIT, SocketWire
from .switchboard import Switchboard

HEARTBEAT = 10.0  # seconds between pings; half of that later whoever does not answer is gone
RETRY_AFTER = 5  # seconds after which it is worth asking again: calls end by the minute

log = logs.get(line=ClientLine.name)


class Streams:
    """`base` is the URL under which the bridge is known."""

    def __init__(self, board: Switchboard, base: str) -> None:
        self._board = board
        self._base = base
        self._settings = board.settings

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/stream", self.stream, allow_head=False)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """One conversation. Its slot is taken before the upgrade, so that who is refused knows at once."""
        subject = await self._check(request)
        socket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE,
            compress=False,
            timeout=CLOSE_LIMIT,
            heartbeat=HEARTBEAT,
            protocols=(SUBPROTOCOL,),
        )
        try:
            ticket = self._board.admission.reserve(f"VB{secrets.token_hex(16)}", subject, "")
        except Refused as refused:
            return self._refuse(subject, refused)
        try:
            if not socket.can_prepare(request):  # last: a page asks like this why its socket was refused
                raise auth.Denied(426, "this is a WebSocket: docs/clients.md says what it speaks")
            await socket.prepare(request)
            await Call(self._board, _line(ticket), SocketWire(request, socket)).run()
        finally:
            self._board.admission.forget(ticket.call)  # if it never began
        return socket

    async def _check(self, request: web.Request) -> str:
        """The subject of the client's token; empty in open mode."""
        if self._settings.auth.takes_tokens:
            auth.check_origin(request.headers, self._base)
            return (await self._board.tokens.check(authorization(request), "talk")).subject
        if not self._settings.open_mode:
            raise auth.Denied(403, "clients need auth.secret (and a token): docs/configuration.md")
        auth.check_local(request.remote or "", request.headers)
        return ""

    def _refuse(self, subject: str, refused: Refused) -> web.Response:
        self._board.metrics.refused[refused.why] += 1
        log.warning("client refused", subject=subject, why=str(refused))
        body = {"error": str(refused), "code": refused.why}
        return web.json_response(body, status=503, headers={"Retry-After": str(RETRY_AFTER)})


def _line(ticket: Ticket) -> ClientLine:
    return ClientLine(ticket.call, ticket.token)
