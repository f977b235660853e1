"""A server on loopback that speaks OpenAI's chat completions, with a model that says what a test tells it to."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import web

MODEL = "qwen2.5:7b"


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
    """

    def __init__(self) -> None:
        self.url = ""
        self.says = scores()
        self.answers: list[web.Response] = []
        self.models: Sequence[str] = (MODEL,)
        self.refused_forms: Sequence[str] = ()
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

    async def _complete(self, request: web.Request) -> web.Response:
        noted = Request(dict(request.headers), await request.json())
        self.requests.append(noted)
        self.connections.add(request.transport)
        self.arrived.put_nowait(noted)
        try:
            await self.door.wait()
        except asyncio.CancelledError:
            self.gone_away.set()
            raise
        if self.answers:
            return self.answers.pop(0)
        if noted.form in self.refused_forms:
            return web.json_response({"error": {"message": f"response_format {noted.form} is not known"}}, status=400)
        return completion(self.says)

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
