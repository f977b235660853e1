"""The one port: Twilio's webhooks and streams, clients, health, metrics, the operator's API and the console."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from . import auth
from .chat import Chats
from .console import Console
from .doors import OperatorsDoor
from .observe import logs
from .operators import Operators, respond
from .shapes import Error
from .streams import Streams
from .switchboard import Switchboard
from .telephony.rest import Rest, TelephonyError
from .telephony.webhooks import Webhooks
from .watch import Watch

BODY_LIMIT = 10.0  # seconds for a body to come; Twilio's are one packet
MAX_BODY = 64 * 1024  # bytes; Twilio's largest form is a few
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logs.get()


def main_app(board: Switchboard, rest: Rest | None, base: str) -> web.Application:
    door = OperatorsDoor(board, base)
    return _app(
        Webhooks(board, base, rest is not None).routes(),
        Streams(board, base).routes(),
        Chats(board, base).routes(),
        Operators(board, rest, base, door).routes(),
        Watch(board, door).routes(),
        Console().routes(),
    )


def admin_app(board: Switchboard, rest: Rest | None, base: str, host: str) -> web.Application:
    door = OperatorsDoor(board, base, admin_host=host)
    return _app(Operators(board, rest, base, door).routes(), Watch(board, door).routes(), Console().routes())


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
        return _error(400 if error.status == 400 else 502, str(error))
    except web.HTTPException as error:
        answer = _error(error.status, (error.text or error.reason).strip())
        answer.headers.extend({name: value for name, value in error.headers.items() if name == "Allow"})
        return answer
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
    answer = respond(Error(message), status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
