"""The clients that come with Moshi, at `/api/chat`: as if this bridge were one of its servers."""

from __future__ import annotations

import secrets

import aiohttp
from aiohttp import web

from ..codecs import opus
from . import auth
from .admission import Refused, Ticket
from .call import Call
from .doors import check_client
from .lines.moshi import MAX_MESSAGE, MoshiLine, goodbye, wishes
from .link import part
from .observe import logs
from .sockets import CLOSE_LIMIT, HEARTBEAT, SocketWire
from .switchboard import Switchboard

# Opus takes 1.5 ms of each frame's 80 on the event loop, and 16 times that is what the other calls can wait.
MOST_CHATS = 16
TOKENS = ("token", "worker_auth_id", "auth_id")  # parameters of the address; the latter two are the page's own
TRY_AGAIN = 1013  # closing a socket: later there may be room

log = logs.get(line=MoshiLine.name)


class Chats:
    """`base` is the URL under which the bridge is known."""

    def __init__(self, board: Switchboard, base: str) -> None:
        self._board = board
        self._base = base
        self._live = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/chat", self.chat, allow_head=False)]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """One conversation. Whoever finds no room is told after the upgrade: of a refusal before it, these clients
        show nothing, and of what they are sent, only text."""
        subject = await check_client(self._board, self._base, request, _authorization(request))
        try:
            wanted = wishes(request.query)
        except ValueError as error:
            raise auth.Denied(400, str(error)) from None
        socket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE, compress=False, timeout=CLOSE_LIMIT, heartbeat=HEARTBEAT
        )
        if not socket.can_prepare(request):
            raise auth.Denied(426, "this is a WebSocket for Moshi's own clients: docs/clients.md says which")
        call = f"VB{secrets.token_hex(16)}"
        try:
            ticket = self._admit(call, subject)
        except Refused as refused:
            await self._turn_away(subject, refused, request, socket)
            return socket
        self._live += 1
        try:
            await socket.prepare(request)
            await Call(self._board, MoshiLine(call, ticket.token, wanted), Greeted(request, socket)).run()
        finally:
            self._live -= 1
            self._board.admission.forget(call)  # if it never began
        return socket

    def _admit(self, call: str, subject: str) -> Ticket:
        if not opus.available():
            raise Refused("engine", opus.REMEDY)
        if self._live >= MOST_CHATS:
            raise Refused("busy", f"{MOST_CHATS} clients of this kind talk already, and Opus leaves no time for more")
        return self._board.admission.reserve(call, subject, "")

    async def _turn_away(
        self, subject: str, refused: Refused, request: web.Request, socket: web.WebSocketResponse
    ) -> None:
        self._board.metrics.refused[refused.why] += 1
        log.warning("client refused", subject=subject, why=str(refused))
        await socket.prepare(request)
        await part(SocketWire(request, socket), TRY_AGAIN, str(refused), *goodbye(str(refused)))


class Greeted(SocketWire):
    """The socket of a client that waits to be greeted: an empty message, before its own, begins the call."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        super().__init__(request, socket)
        self._first = b""


def _authorization(request: web.Request) -> str:
    """The header, or what stands for it: a password or a parameter, since these clients can set no header."""
    header = request.headers.get("Authorization", "")
    given = next((request.query[name] for name in TOKENS if name in request.query), None)
    if header.lower().startswith("basic "):
        try:
            given = aiohttp.BasicAuth.decode(header).password
        except ValueError:
            raise auth.Denied(401, "the Authorization header is no user and password") from None
    elif header:
        return header
    return "" if given is None else f"Bearer {given}"
