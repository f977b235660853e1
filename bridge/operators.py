"""Health, metrics and the operator's API: what each does, and the table of it all."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from . import auth, ledger, openapi
from .call import Call
from .doors import OperatorsDoor
from .observe.metrics import version
from .openapi import Operation
from .shapes import (
    NOT_BOTH,
    Alive,
    Asked,
    Board,
    InjectContext,
    PlaceCall,
    Placed,
    PressDigits,
    Readiness,
    SayText,
    TransferTo,
    WholeCall,
)
from .switchboard import End, Switchboard
from .telephony.rest import Rest

METRICS = "text/plain"


class Operators:
    """Serves the table. `base` is the URL under which the bridge is known."""

    def __init__(self, board: Switchboard, rest: Rest | None, base: str, door: OperatorsDoor) -> None:
        self._board = board
        self._rest = rest
        self._base = base
        self._door = door
        self._table = self._operations()
        self._description = openapi.document(self._table, version(), door.takes_tokens)

    def routes(self) -> list[web.RouteDef]:
        return [web.route(one.method, one.path, self._handler(one)) for one in self._table]

    def _operations(self) -> tuple[Operation, ...]:
        call = "/v1/calls/{call}"
        place = Annotated[PlaceCall, msgspec.Meta(extra_json_schema=NOT_BOTH)]
        no_keys = {409: "The call is relayed: another bridge has the caller."}
        no_telephone = {409: "Only a telephone call can be passed on."}
        by_twilio = {409: "The bridge has no account at Twilio.", 502: "Twilio could not be asked, or is in trouble."}
        return (
            Operation("GET", "/healthz", self.healthz, "Whether the process answers.", Alive, public=True),
            Operation(
                "GET", "/readyz", self.readyz, "Whether calls are taken.",
                Readiness, others={503: Readiness}, public=True,
            ),
            Operation("GET", "/v1/openapi.json", self.describe, "This description.", dict[str, Any], public=True),
            Operation("GET", "/metrics", self.metrics, "Figures for Prometheus.", str, media=METRICS),
            Operation("GET", "/v1/calls", self.list_calls, "The bridge and its live calls.", Board),
            Operation(
                "POST", "/v1/calls", self.place_call, "Call a telephone.", Placed, place, 201, refuses=by_twilio
            ),
            Operation("GET", call, self.show_call, "One live call, and what was said last in it.", WholeCall),
            Operation("DELETE", call, self.end_call, "End a call; the caller hears no apology.", status=204),
            Operation("POST", call + "/say", self.say, "Have the agent say this.", Asked, SayText),
            Operation("POST", call + "/inject", self.inject, "Let the model know this, unsaid.", Asked, InjectContext),
            Operation(
                "POST", call + "/digits", self.press, "Press telephone keys.",
                takes=PressDigits, status=204, refuses=no_keys,
            ),
            Operation(
                "POST", call + "/transfer", self.transfer, "Pass the call on to a number.",
                takes=TransferTo, status=204, refuses=no_telephone,
            ),
        )  # fmt: skip

    def _handler(self, one: Operation) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not one.public:
                await self._door.check(request)
            given: list[Any] = [self._call(request)] if one.of_a_call else []
            if one.takes is not None:
                given.append(_decoded(await request.read(), one.takes))
            answer = await one.act(*given)
            if isinstance(answer, web.StreamResponse):
                return answer
            return web.Response(status=one.status) if answer is None else respond(answer, one.status)

        return handle

    def _call(self, request: web.Request) -> Call:
        id = request.match_info["call"]
        call = self._board.calls.get(id)
        if call is None or call.over.done():
            raise auth.Denied(404, f"there is no live call {id[:64]!r}; GET /v1/calls lists them")
        return call

    # -- what each does --------------------------------------------------------------------------------------------

    async def healthz(self) -> Alive:
        return Alive(True)

    async def readyz(self) -> web.Response:
        """Red until a real step has run, while no step is in time, and while draining."""
        board = self._board
        return respond(Readiness(board.state, board.engine.trouble), 200 if board.state == "ready" else 503)

    async def describe(self) -> dict[str, Any]:
        return self._description

    async def metrics(self) -> web.Response:
        body, content_type = self._board.metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def list_calls(self) -> Board:
        return ledger.board(self._board)

    async def place_call(self, wanted: PlaceCall) -> Placed:
        if wanted.machine_detection and wanted.send_digits:
            raise auth.Denied(400, "Twilio detects no machines in a call that sends digits: leave out one of the two")
        if self._rest is None:
            raise auth.Denied(409, "placing calls needs twilio.account_sid and twilio.auth_token")
        sid = await self._rest.place(
            wanted.to,
            wanted.from_ or self._board.settings.twilio.caller_id,
            self._base + "/twilio/voice",
            status_callback=self._base + "/twilio/status",
            machine_detection=wanted.machine_detection,
            send_digits=wanted.send_digits,
        )
        return Placed(sid)

    async def show_call(self, call: Call) -> WholeCall:
        return ledger.whole(call)

    async def end_call(self, call: Call) -> None:
        call.end(End.OPERATOR)

    async def say(self, call: Call, said: SayText) -> Asked:
        return Asked(call.say(said.text, said.interruptible))

    async def inject(self, call: Call, given: InjectContext) -> Asked:
        return Asked(call.inject(given.context))

    async def press(self, call: Call, pressed: PressDigits) -> None:
        try:
            await call.press(pressed.digits)
        except ValueError as error:
            raise auth.Denied(409, str(error)) from None

    async def transfer(self, call: Call, wanted: TransferTo) -> None:
        if not call.line.by_carrier:
            raise auth.Denied(409, "only a telephone call can be transferred")
        call.transfer(wanted.number)


def respond(answer: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type=openapi.JSON)


def _decoded(body: bytes, shape: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise auth.Denied(400, f"the body is not what is expected here: {error}") from None
