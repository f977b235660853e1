"""Twilio's REST API on loopback, as far as the bridge uses it. The only mock of Twilio in these tests."""

import asyncio
import base64
import inspect
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web
from multidict import MultiDictProxy

ACCOUNT_SID = "AC" + "0" * 32
AUTH_TOKEN = "not-a-real-token"
OVER = ("completed", "busy", "failed", "no-answer", "canceled")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    form: MultiDictProxy[Any]


class TwilioRest:
    """`async with TwilioRest() as twilio:` then send requests to `twilio.url`.

    `on_update(call_sid, form)`, plain or async, is called when a call is changed, before the answer: there
    a test hangs up its telephone. `door` is open; clear it and requests arrive (see `arrived`) but get no
    answer until it is set. What is put into `answers` is answered instead of what Twilio would say.
    """

    def __init__(self, on_update: Callable[[str, Mapping[str, str]], Awaitable[None] | None] | None = None) -> None:
        self.url = ""
        self.calls: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self.on_update = on_update
        self.answers: list[web.Response] = []
        self.arrived: asyncio.Queue[Request] = asyncio.Queue()
        self.door = asyncio.Event()
        self.door.set()
        account = f"/2010-04-01/Accounts/{ACCOUNT_SID}"
        app = web.Application(middlewares=[self._desk])
        app.router.add_post(account + "/Calls.json", self._place)
        app.router.add_post(account + "/Calls/{sid}.json", self._change_call)
        app.router.add_get(account + "/IncomingPhoneNumbers.json", self._list_numbers)
        app.router.add_post(account + "/IncomingPhoneNumbers/{sid}.json", self._change_number)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> "TwilioRest":
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.door.set()
        await self._runner.cleanup()

    def add_call(self, sid: str = "", status: str = "in-progress") -> str:
        sid = sid or "CA" + uuid.uuid4().hex
        self.calls[sid] = {"sid": sid, "account_sid": ACCOUNT_SID, "status": status}
        return sid

    def add_number(self, phone_number: str, **fields: str) -> str:
        sid = "PN" + uuid.uuid4().hex
        self.numbers[sid] = {"sid": sid, "account_sid": ACCOUNT_SID, "phone_number": phone_number, **fields}
        return sid

    @web.middleware
    async def _desk(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        form = await request.post()
        noted = Request(request.method, request.path, request.query, form)
        self.requests.append(noted)
        self.arrived.put_nowait(noted)
        await self.door.wait()
        if self.answers:
            return self.answers.pop(0)
        wanted = base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {wanted}":
            return refusal(401, 20003, "Authenticate")
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return not_found(request)

    async def _place(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not form.get("To"):
            return refusal(400, 21201, "No 'To' number is specified")
        if form.get("From") not in [number["phone_number"] for number in self.numbers.values()]:
            return refusal(400, 21210, f"'From' phone number not verified: {form.get('From')!s}")
        if not str(form.get("Url", "")).startswith("http"):
            return refusal(400, 21205, "Url is not a valid URL")
        sid = self.add_call(status="queued")
        self.calls[sid] |= {"to": form["To"], "from": form["From"]}
        return web.json_response(self.calls[sid], status=201)

    async def _change_call(self, request: web.Request) -> web.Response:
        sid, form = request.match_info["sid"], await request.post()
        if sid not in self.calls:
            return not_found(request)
        if self.calls[sid]["status"] in OVER:
            return refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "Status" in form:
            self.calls[sid]["status"] = form["Status"]
        if self.on_update:
            done = self.on_update(sid, {name: str(value) for name, value in form.items()})
            if inspect.isawaitable(done):
                await done
        return web.json_response(self.calls[sid])

    async def _list_numbers(self, request: web.Request) -> web.Response:
        page, size = int(request.query.get("Page", 0)), int(request.query["PageSize"])
        numbers = list(self.numbers.values())
        last = (page + 1) * size
        more = f"{request.path}?PageSize={size}&Page={page + 1}" if last < len(numbers) else None
        return web.json_response(
            {
                "incoming_phone_numbers": numbers[page * size : last],
                "next_page_uri": more,
                "page_size": size,
                "uri": request.path_qs,
            }
        )

    async def _change_number(self, request: web.Request) -> web.Response:
        number = self.numbers.get(request.match_info["sid"])
        if number is None:
            return not_found(request)
        for name, value in (await request.post()).items():
            number[re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()] = value
        return web.json_response(number)


def refusal(status: int, code: int, message: str) -> web.Response:
    """An error as Twilio words it."""
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(body, status=status)


def not_found(request: web.Request) -> web.Response:
    return refusal(404, 20404, f"The requested resource {request.path} was not found")
