"""Clients that are no telephones: terminals, browsers and other bridges, at `/v1/stream`."""

from __future__ import annotations

import asyncio
import secrets

from aiohttp import web

from . import auth
from .admission import Refused, Ticket
from .call import Call
from .lines.client import ClientLine
from .lines.notes import PROTOCOL, Over, Trouble
from .lines.relay import RelayLine
from .lines.texts import MAX_MESSAGE, START_LIMIT, opening, say
from .link import part
from .observe import logs
from .sockets import CLOSE_LIMIT, SocketWire
from .switchboard import Switchboard

SUBPROTOCOL = "voice-bridge.v1"
BEARER = "bearer."  # before a token that a browser, which can set no header, sends as a second subprotocol
HEARTBEAT = 10.0  # seconds between pings; half of that later whoever does not answer is gone
RETURN_LIMIT = 5.0  # seconds for the first message of somebody without a slot: the ticket is at hand
AT_THE_DOOR = 2  # such sockets at once for each conversation of their subject: one that hangs, and the next try
NO_RETURN = "this ticket is wrong, used or too late, or its conversation is over: begin a new one"
RETRY_AFTER = 5  # seconds after which it is worth asking again: calls end by the minute

log = logs.get(line=ClientLine.name)


class Streams:
    """`base` is the URL under which the bridge is known."""

    def __init__(self, board: Switchboard, base: str) -> None:
        self._board = board
        self._base = base
        self._settings = board.settings
        self._no_slot: dict[SocketWire, str] = {}
        """Those who can only come back to a conversation, until they have said to which: their subjects."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/stream", self.stream, allow_head=False),
            web.get("/v1/capacity", self.capacity, allow_head=False),
        ]

    async def capacity(self, request: web.Request) -> web.Response:
        """What a bridge that relays asks before it sends callers here."""
        await self._check(request)
        board = self._board
        body = {
            "state": board.state,
            "engine": board.engine.name,
            "offered": board.engine.capacity().offered,
            "free": board.admission.free,
            "step_ms": round(1000 * board.engine.step_seconds, 1),
            "protocol": PROTOCOL,
        }
        return web.json_response(body)

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
        if not socket.can_prepare(request):
            raise auth.Denied(426, "this is a WebSocket: docs/clients.md says what it speaks")
        board, call, wire = self._board, f"VB{secrets.token_hex(16)}", SocketWire(request, socket)
        try:
            admitted: Ticket | Refused = board.admission.reserve(call, subject, "")
        except Refused as refused:
            if not self._may_return(subject):
                return self._refuse(subject, refused)
            admitted = refused
            self._no_slot[wire] = subject
        try:
            await socket.prepare(request)
            await self._talk(subject, admitted, wire)
        finally:
            self._no_slot.pop(wire, None)
            board.admission.forget(call)  # if it never began
        return socket

    def _may_return(self, subject: str) -> bool:
        """Whether somebody for whom there is no slot is let in all the same, to come back to a conversation."""
        now = asyncio.get_running_loop().time()
        at_the_door = sum(other == subject for other in self._no_slot.values())
        return at_the_door < AT_THE_DOOR * self._board.returns.awaited(subject, now)

    async def _talk(self, subject: str, admitted: Ticket | Refused, wire: SocketWire) -> None:
        """The first message tells whether a conversation begins, in which form, or which one goes on."""
        limit = START_LIMIT if isinstance(admitted, Ticket) else RETURN_LIMIT
        try:
            async with asyncio.timeout(limit):
                first = await wire.first()
        except TimeoutError:
            await self._turn_away(wire, Trouble(f"no start within {limit:.0f} s", "silent"))
            return
        self._no_slot.pop(wire, None)
        opened = opening(first) if first is not None else None
        if opened and opened.resume is not None:
            if isinstance(admitted, Ticket):
                self._board.admission.forget(admitted.call)
            if call := self._board.returns.to(opened.resume, subject):
                await call.resume(wire)
            else:
                await self._turn_away(wire, Trouble(NO_RETURN, "resume"))
        elif isinstance(admitted, Refused):
            await self._turn_away(wire, Trouble(str(admitted), admitted.why))
        else:
            line = RelayLine if opened and opened.relay else ClientLine
            await Call(self._board, line(admitted.call, admitted.token), wire, returns=True).run()

    async def _turn_away(self, wire: SocketWire, trouble: Trouble) -> None:
        """A stream that may not begin, after the upgrade."""
        self._board.metrics.refused[trouble.code] += 1
        log.warning("stream refused", why=trouble.message)
        await part(wire, 1008, trouble.message, say(trouble), say(Over(trouble.code)))

    async def _check(self, request: web.Request) -> str:
        """The subject of the client's token; empty in open mode."""
        if self._settings.auth.takes_tokens:
            auth.check_origin(request.headers, self._base)
            return (await self._board.tokens.check(_authorization(request), "talk")).subject
        if not self._settings.open_mode:
            raise auth.Denied(403, "clients need auth.secret (and a token): docs/configuration.md")
        auth.check_local(request.remote or "", request.headers)
        return ""

    def _refuse(self, subject: str, refused: Refused) -> web.Response:
        self._board.metrics.refused[refused.why] += 1
        log.warning("client refused", subject=subject, why=str(refused))
        body = {"error": str(refused), "code": refused.why}
        return web.json_response(body, status=503, headers={"Retry-After": str(RETRY_AFTER)})


def _authorization(request: web.Request) -> str:
    """The header, or what stands for it among a browser's subprotocols."""
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    given = next((part.removeprefix(BEARER) for part in offered if part.startswith(BEARER)), None)
    return f"Bearer {given}" if given is not None else request.headers.get("Authorization", "")
