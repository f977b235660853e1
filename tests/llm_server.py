"""A server on loopback that speaks OpenAI's chat completions, with a model that says what a test tells it to."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web

MODEL = "qwen2.5:7b"

DONE = b"data: [DONE]\n\n"
END = b"end"  # of a stream, as it should be
BREAK = b"break"  # the connection, in the middle of a stream


@dataclass(frozen=True)
class Request:
    """One request for a completion."""

    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def form(self) -> str:
        """The type of answer that was asked for."""
        kind: str = self.body.get("response_format", {}).get("type", "plain")
        return kind

    @property
    def data(self) -> dict[str, Any]:
        """What the model was given beside its instructions."""
        quoted: dict[str, Any] = json.loads(self.body["messages"][1]["content"])
        return quoted

    @property
    def memories(self) -> dict[int, str]:
        return {memory["memory"]: memory["text"] for memory in self.data["memories"]}


class LlmServer:
    """`async with LlmServer() as server:` then ask `server.url`.

    The model answers `says`. `door` is open; clear it and requests arrive (see `arrived`) but get no answer until it
    is set. What is put into `answers` is answered instead, one for each request.

    Who asks for a stream gets `says` as events, unless the model does not stream. While there is a `wire`, whatever is
    put into it goes out as it is, up to `END` or `BREAK`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.says = scores()
        self.answers: list[web.Response] = []
        self.models: Sequence[str] = (MODEL,)
        self.refused_forms: Sequence[str] = ()
        self.refused_fields: Sequence[str] = ()
        self.streams = True
        self.wire: asyncio.Queue[bytes] | None = None
        self.requests: list[Request] = []
        self.arrived: asyncio.Queue[Request] = asyncio.Queue()
        self.gone_away = asyncio.Event()
        """Set when a client goes before it has its answer."""
        self.connections: set[object] = set()
        self.door = asyncio.Event()
        self.door.set()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(app, handler_cancellation=True)

    async def __aenter__(self) -> "LlmServer":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/v1".format(*self._runner.addresses[0])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.door.set()
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        noted = Request(dict(request.headers), await request.json())
        self.requests.append(noted)
        self.connections.add(request.transport)
        self.arrived.put_nowait(noted)
        try:
            await self.door.wait()
            return await self._answer(request, noted)
        except asyncio.CancelledError:
            self.gone_away.set()
            raise

    async def _answer(self, request: web.Request, noted: Request) -> web.StreamResponse:
        if self.answers:
            return self.answers.pop(0)
        if noted.form in self.refused_forms:
            return web.json_response({"error": {"message": f"response_format {noted.form} is not known"}}, status=400)
        if refused := [field for field in self.refused_fields if field in noted.body]:
            return web.json_response({"error": {"message": f"{refused[0]} is not known"}}, status=400)
        if not noted.body.get("stream") or not self.streams:
            return completion(self.says)
        return await self._stream(request)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.wire is None:
            await response.write(b"".join(delta(word) for word in re.findall(r"\s*\S+\s*?", self.says)) + DONE)
            return response
        while (sent := await self.wire.get()) != END:
            if sent == BREAK:
                assert request.transport
                request.transport.close()
                return response
            await response.write(sent)
        return response

    async def _list(self, request: web.Request) -> web.Response:
        await self.door.wait()
        if self.answers:
            return self.answers.pop(0)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})


def scores(*rows: tuple[int, float, float]) -> str:
    """What a model says that gives memories, by their numbers, relevance and importance."""
    return json.dumps(
        {"scores": [{"memory": n, "relevance": r, "importance": i, "why": f"about {n}"} for n, r, i in rows]}
    )


def completion(content: str | None) -> web.Response:
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return web.json_response({"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "choices": choices})


def delta(content: str | None, **more: Any) -> bytes:
    """A piece of what a model says, as an event of a stream; `more` are fields beside the content."""
    choices = [{"index": 0, "delta": {"content": content} | more, "finish_reason": None}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, "choices": choices}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
