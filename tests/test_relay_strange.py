"""Far ends that do not behave: what one bridge sends and another does not expect costs at most that conversation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from aiohttp import WSMsgType, web

from tests.relays import Caller, begin, relaying, until
from voice_bridge.engines.base import Back, CannotStart, Cut, Lost, Opening, Remember, Said, Words
from voice_bridge.engines.relay import bridge, conversation
from voice_bridge.engines.relay.endpoint import Endpoint, endpoint

Talk: TypeAlias = Callable[["Strange", web.WebSocketResponse], Awaitable[None]]


class Strange:
    """A bridge whose talk a test makes up. It answers frames, and asks are numbered from 101 up."""

    def __init__(self, talk: Talk | None = None) -> None:
        self.talk = talk
        self.opened: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.capacity: dict[str, Any] = {"state": "ready", "engine": "odd", "offered": 4, "free": 4, "step_ms": 1.0}
        self.answers = True
        self._asked = 100

    async def probe(self, request: web.Request) -> web.Response:
        return web.json_response(self.capacity)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened.append(json.loads((await socket.receive()).data))
        await socket.send_json({"type": "ready", "call": "VB1", "ticket": "", "protocol": 1})
        if self.talk and len(self.opened) == 1:
            await self.talk(self, socket)
        async for message in socket:
            if message.type is WSMsgType.BINARY and self.answers:
                await socket.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await self.take(socket, json.loads(message.data))
        return socket

    async def take(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        self.told.append(message)
        if message["type"] in ("say", "inject"):
            self._asked += 1
            event = {"event": "words", "id": self._asked, "speaker": "agent", "text": "a", "start": 0, "end": 1}
            for told in (
                {"type": "event", "event": event | {"final": True}},
                {"type": "event", "event": {"event": "remember", "text": "behind it"}},
                {"type": "asked", "id": self._asked},
                {"type": "event", "event": {"event": "said", "id": self._asked, "heard_to": 1}},
            ):
                await socket.send_json(told)
        elif message["type"] == "close":
            await socket.send_json({"type": "ended", "code": "caller"})
            await socket.close()


@asynccontextmanager
async def serving(strange: Strange) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.add_routes([web.get("/v1/capacity", strange.probe), web.get("/v1/stream", strange.stream)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}", None)
    finally:
        await runner.cleanup()


async def test_an_event_that_overtakes_the_number_of_what_it_is_about_waits_for_it_with_all_behind_it() -> None:
    strange = Strange()
    async with serving(strange) as there, relaying(there) as engine, Caller(await begin(engine)) as caller:
        asked = [caller.conversation.say("One."), caller.conversation.say("Two.")]
        await caller.told(Said, 2)
        told = [event for event in caller.events if isinstance(event, Words | Remember | Said)]
        assert [type(event) for event in told] == [Words, Remember, Said] * 2
        assert [event.id for event in told if not isinstance(event, Remember)] == [1, 1, 2, 2]
        assert asked == [1, 2]


async def test_what_a_later_bridge_may_send_is_left_out() -> None:
    async def later(strange: Strange, socket: web.WebSocketResponse) -> None:
        for text in (
            '{"type":"weather","sky":"blue"}',
            '{"type":"event","event":{"event":"sneeze","id":1}}',
            '{"type":"event","event":{"event":"cut","id":-1,"why":"who knows"}}',
            '{"type":"event","event":7}',
            "no JSON",
            '{"type":"asked","id":"seven"}',
            '{"type":"pong"}',
        ):
            await socket.send_str(text)

    async with serving(Strange(later)) as there, relaying(there) as engine, Caller(await begin(engine)) as caller:
        await caller.told(Cut)
        await caller.hears(2)
        assert caller.of(Cut) == [Cut(-1)]
        assert not caller.of(Lost)


@pytest.mark.parametrize("size", [0, 7, 8 + 2 * 1919])
async def test_a_frame_of_another_size_ends_that_conversation_and_the_call_begins_anew(size: int) -> None:
    async def wrong(strange: Strange, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(bytes(size))

    async with serving(Strange(wrong)) as there, relaying(there) as engine, Caller(await begin(engine)) as caller:
        await caller.told(Back)
        await caller.hears()


async def test_an_endpoint_that_never_answers_the_first_frame_is_left_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge.BridgeLink, "patience", 0.3)
    monkeypatch.setattr(conversation, "HANG", 5.0)
    dumb, good = Strange(), Strange()
    dumb.answers = False
    async with serving(dumb) as one, serving(good) as other, relaying(one, other) as engine:
        engine.doors[0].way, engine.doors[1].way = 0.0, 1.0
        async with Caller(await begin(engine, Opening(greeting="Hello", known="Ann"))) as caller:
            await caller.hears()
            assert dumb.opened[0]["relay"] == good.opened[0]["relay"] == {"greeting": "Hello", "known": "Ann"}


async def test_a_conversation_that_begins_anew_leaves_out_the_greeting_that_was_said_and_what_was_forgotten() -> None:
    async def first_text(strange: Strange, socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "event", "event": {"event": "said", "id": 0, "heard_to": 1}})

    strange = Strange(first_text)
    async with serving(strange) as there, relaying(there) as engine:
        opening = Opening(greeting="Hello", persona="a clerk", known="Ann")
        async with Caller(await begin(engine, opening)) as caller:
            await caller.told(Said)
            caller.conversation.forget()
            await until(lambda: {"type": "forget"} in strange.told)
            strange.answers = False
            await caller.told(Lost)
            strange.answers = True
            await caller.told(Back)
            await caller.hears()
            assert strange.opened[1]["relay"] == {"persona": "a clerk"}


async def test_a_bridge_of_another_protocol_is_told_so() -> None:
    strange = Strange()
    strange.capacity |= {"protocol": 2}
    async with serving(strange) as there:
        with pytest.raises(CannotStart, match="speaks protocol 2 and we 1: upgrade the older of the two"):
            async with relaying(there):
                pass
    strange.capacity = {"weather": "blue"}
    async with serving(strange) as there:
        with pytest.raises(CannotStart, match="does not answer as a voice-bridge does"):
            async with relaying(there):
                pass
