"""A bridge of a few lines, for the tests of the phone: it says what it is told to and keeps what it is told."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from voice_bridge.bridge.phone import Call, Phone

STREAM = '<Stream url="{stream}"/>'
CONNECT = f"<Response><Connect>{STREAM}</Connect></Response>"


@dataclass
class Line:
    """A stream as the test bridge sees it."""

    ws: web.WebSocketResponse
    messages: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sid(self) -> str:
        return str(self.of("start")[0]["streamSid"])

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of what has come."""
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        async for message in self.ws:
            self.times.append(time.monotonic())
            self.messages.append(json.loads(message.data))
            self.news.set()
            yield self.messages[-1]

    async def send(self, event: str, body: dict[str, Any] | None = None, **more: Any) -> None:
        content = {} if body is None else {event: body}
        await self.ws.send_json({"event": event, "streamSid": self.sid, **content, **more})

    async def play(self, audio: bytes) -> None:
        await self.send("media", {"payload": base64.b64encode(audio).decode()})


async def listen(line: Line) -> None:
    """Say nothing."""
    async for _ in line:
        pass


async def echo(line: Line) -> None:
    """Say back what comes, 200 ms later, so that a busy machine makes no gaps."""
    async for message in line:
        if message["event"] == "start":
            await line.play(b"\xff" * 1600)
        elif message["event"] == "media":
            await line.send("media", {"payload": message["media"]["payload"]})


@dataclass
class Bridge:
    """A bridge of a few lines. `twiml` by path; {stream} becomes its stream's address."""

    twiml: dict[str, str]
    talk: Callable[[Line], Awaitable[None]]
    url: str = ""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)  # method, path, form, signature
    lines: list[Line] = field(default_factory=list)
    stream_signature: str = ""
    handshake: asyncio.Event = field(default_factory=asyncio.Event)  # a stream has been asked for
    delay: asyncio.Event | None = None  # answers a stream's handshake only when this is set

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/stream":
            self.stream_signature = request.headers.get("X-Twilio-Signature", "")
            self.handshake.set()
            if self.delay is not None:
                await self.delay.wait()
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            self.lines.append(Line(ws))
            await self.talk(self.lines[-1])
            return ws
        form = dict(await request.post() if request.method == "POST" else request.query)
        self.requests.append(
            (
                request.method,
                request.path,
                {name: str(value) for name, value in form.items()},
                request.headers.get("X-Twilio-Signature", ""),
            )
        )
        if request.path not in self.twiml:
            return web.Response(status=404, text="no such page")
        stream = self.url.replace("http", "ws", 1) + "/stream"
        return web.Response(text=self.twiml[request.path].replace("{stream}", stream), content_type="text/xml")

    def forms(self, path: str) -> list[dict[str, str]]:
        return [form for _, asked, form, _ in self.requests if asked == path]


@asynccontextmanager
async def serving(
    twiml: str = CONNECT, talk: Callable[[Line], Awaitable[None]] = listen, **pages: str
) -> AsyncIterator[Bridge]:
    bridge = Bridge({"/voice": twiml, **{f"/{name}": page for name, page in pages.items()}}, talk)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", bridge.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    bridge.url = f"http://{host}:{port}"
    try:
        yield bridge
    finally:
        await runner.cleanup()


async def dial(bridge: Bridge, seconds: float | None = 0.2, **options: Any) -> Call:
    async with Phone(f"{bridge.url}/voice", **options) as phone:
        return await phone.call(seconds)


@asynccontextmanager
async def calling(bridge: Bridge, **options: Any) -> AsyncIterator[tuple[Phone, asyncio.Task[Call]]]:
    """A call in progress, once its stream is open."""
    async with Phone(f"{bridge.url}/voice", **options) as phone:
        task = asyncio.create_task(phone.call())
        await phone.until(lambda call: call.state == "talking")
        yield phone, task
        phone.hang_up()
        await task
