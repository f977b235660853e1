"""The one port: Twilio's webhooks and streams, clients, health, metrics, the operator's API and the console."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from aiohttp import web

from . import auth, ledger
from .call import Call
from .console import Console
from .doors import OperatorsDoor
from .observe import logs
from .streams import Streams
from .switchboard import End, Switchboard
from .telephony.rest import Rest, TelephonyError
from .telephony.webhooks import Webhooks
from .watch import Watch

BODY_LIMIT = 10.0  # seconds for a body to come; Twilio's are one packet
MAX_BODY = 64 * 1024  # bytes; Twilio's largest form is a few
MAX_DIGITS = 64  # keys; ten seconds of tones, during which the agent is not heard
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logs.get()


class PlaceCall(msgspec.Struct, forbid_unknown_fields=True):
    to: str
    from_: str = msgspec.field(default="", name="from")
    machine_detection: Literal["", "Enable", "DetectMessageEnd"] = ""
    send_digits: str = ""


Words: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\S")]  # not nothing


class SayText(msgspec.Struct, forbid_unknown_fields=True):
    text: Words
    interruptible: bool = True


class InjectContext(msgspec.Struct, forbid_unknown_fields=True):
    context: Words


class PressDigits(msgspec.Struct, forbid_unknown_fields=True):
    digits: Annotated[str, msgspec.Meta(max_length=MAX_DIGITS)]


class TransferTo(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[str, msgspec.Meta(pattern=r"^\+[1-9][0-9]{1,14}\Z")]


class Health:
    """Liveness, and readiness: red until a real step has run, red while no step is in time, red while draining."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz)]

    async def healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        state, trouble = self._board.state, self._board.engine.trouble
        body = {"state": state} | ({"why": trouble} if trouble else {})
        return web.json_response(body, status=200 if state == "ready" else 503)


class Operator:
    """The operator's API, behind its door."""

    def __init__(self, board: Switchboard, rest: Rest | None, base: str, door: OperatorsDoor) -> None:
        self._board = board
        self._rest = rest
        self._base = base
        self._door = door
        self._settings = board.settings

    def routes(self) -> list[web.RouteDef]:
        guarded = self._guarded
        return [
            web.get("/metrics", guarded(self.metrics)),
            web.get("/v1/calls", guarded(self.list)),
            web.post("/v1/calls", guarded(self.place)),
            web.get("/v1/calls/{call}", guarded(self.show)),
            web.delete("/v1/calls/{call}", guarded(self.hang_up)),
            web.post("/v1/calls/{call}/say", guarded(self.say)),
            web.post("/v1/calls/{call}/inject", guarded(self.inject)),
            web.post("/v1/calls/{call}/digits", guarded(self.digits)),
            web.post("/v1/calls/{call}/transfer", guarded(self.transfer)),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._board.metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response(body=msgspec.json.encode(ledger.board(self._board)))

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(body=msgspec.json.encode(ledger.whole(self._call(request))))

    async def place(self, request: web.Request) -> web.Response:
        wanted = await _body(request, PlaceCall)
        if wanted.machine_detection and wanted.send_digits:
            raise auth.Denied(400, "Twilio detects no machines in a call that sends digits: leave out one of the two")
        if self._rest is None:
            raise auth.Denied(409, "placing calls needs twilio.account_sid and twilio.auth_token")
        sid = await self._rest.place(
            wanted.to,
            wanted.from_ or self._settings.twilio.caller_id,
            self._base + "/twilio/voice",
            status_callback=self._base + "/twilio/status",
            machine_detection=wanted.machine_detection,
            send_digits=wanted.send_digits,
        )
        return web.json_response({"call": sid}, status=201)

    async def hang_up(self, request: web.Request) -> web.Response:
        self._call(request).end(End.OPERATOR)
        return web.Response(status=204)

    async def say(self, request: web.Request) -> web.Response:
        said = await _body(request, SayText)
        return web.json_response({"id": self._call(request).say(said.text, said.interruptible)})

    async def inject(self, request: web.Request) -> web.Response:
        given = await _body(request, InjectContext)
        return web.json_response({"id": self._call(request).inject(given.context)})

    async def digits(self, request: web.Request) -> web.Response:
        pressed = await _body(request, PressDigits)
        try:
            await self._call(request).press(pressed.digits)
        except ValueError as error:
            raise auth.Denied(400, str(error)) from None
        return web.Response(status=204)

    async def transfer(self, request: web.Request) -> web.Response:
        wanted = await _body(request, TransferTo)
        call = self._call(request)
        if not call.line.by_carrier:
            raise auth.Denied(409, "only a telephone call can be transferred")
        call.transfer(wanted.number)
        return web.Response(status=204)

    def _call(self, request: web.Request) -> Call:
        id = request.match_info["call"]
        call = self._board.calls.get(id)
        if call is None:
            raise auth.Denied(404, f"there is no live call {id[:64]!r}; GET /v1/calls lists them")
        return call

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            await self._door.check(request)
            return await handler(request)

        return guarded


def main_app(board: Switchboard, rest: Rest | None, base: str) -> web.Application:
    door = OperatorsDoor(board, base)
    return _app(
        Health(board).routes(),
        Webhooks(board, base, rest is not None).routes(),
        Streams(board, base).routes(),
        Operator(board, rest, base, door).routes(),
        Watch(board, door).routes(),
        Console().routes(),
    )


def admin_app(board: Switchboard, rest: Rest | None, base: str, host: str) -> web.Application:
    door = OperatorsDoor(board, base, admin_host=host)
    return _app(
        Health(board).routes(),
        Operator(board, rest, base, door).routes(),
        Watch(board, door).routes(),
        Console().routes(),
    )


def _app(*routes: list[web.RouteDef]) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
    for some in routes:
        app.add_routes(some)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What went wrong, in one line of JSON; a fault of ours with its traceback in the log."""
    try:
        await _read_body(request)
        return await handler(request)
    except auth.Denied as denied:
        if denied.status in (401, 403):
            log.warning("request refused", path=request.path, peer=request.remote, why=str(denied))
        return _error(denied.status, str(denied))
    except TelephonyError as error:
        return _error(502, str(error))
    except web.HTTPException as error:
        error.text = json.dumps({"error": (error.text or error.reason).strip()})
        error.content_type = "application/json"
        raise
    except web.RequestPayloadError:
        return _error(400, "the body cannot be read: it is not encoded as its headers say")
    except (ConnectionError, asyncio.CancelledError):
        raise  # nobody is left to be answered
    except Exception:
        log.exception("a fault of ours while answering a request", path=request.path)
        return _error(500, "a fault of the bridge; its log says more")


async def _read_body(request: web.Request) -> None:
    """Take in the body, which the request then keeps; a sender who never finishes it may not hold a handler."""
    if request.can_read_body:
        try:
            async with asyncio.timeout(BODY_LIMIT):
                await request.read()
        except TimeoutError:
            raise auth.Denied(408, f"the body did not come within {BODY_LIMIT:.0f} s") from None


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


async def _body(request: web.Request, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise auth.Denied(400, f"the body is not what is expected here: {error}") from None
