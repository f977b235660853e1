"""Operators who watch: what happens in the calls, and what is said in them, while it happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.conftest import Bridge, Dial, LogLines
from tests.cores import HERE
from voice_bridge.bridge import auth, watch
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.feed import BEHIND, RECENT
from voice_bridge.engines.hardware import Gpu, Host, detect
from voice_bridge.engines.host import HostEngine

SECRET = "not-a-real-secret-but-long-enough"
PATIENCE = 20.0  # seconds for what takes one
THEIRS = "+15550100001"


class Watching:
    """An operator's program, and what it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type and with these fields; those before it are in `told`."""
        wanted = {"type": kind, **fields}
        async with asyncio.timeout(PATIENCE):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                self.told.append(message)
                if wanted.items() <= message.items():
                    return message

    async def until_closed(self) -> tuple[int | None, str | None]:
        with suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self.socket.recv()
        return self.socket.close_code, self.socket.close_reason


Watch: TypeAlias = Callable[..., Awaitable[Watching]]


@pytest.fixture
async def watching(bridge: Bridge) -> AsyncIterator[Watch]:
    """`operator = await watching(daemon)`: somebody who watches until the test is over."""
    async with AsyncExitStack() as stack:

        async def start(daemon: Daemon, url: str = "", **options: Any) -> Watching:
            url = (url or daemon.url).replace("http", "ws", 1) + "/v1/watch"
            return Watching(await stack.enter_async_context(connect(url, **options)))

        yield start


def only_call(daemon: Daemon) -> str:
    [call] = daemon.board.calls
    return call


def token(scope: auth.Scope) -> str:
    return auth.mint(SECRET, "voice-bridge", "ann", (scope,), 60)


# What is told


async def test_who_watches_sees_a_call_from_its_beginning_to_its_end(
    bridge: Bridge, dial: Dial, watching: Watch
) -> None:
    daemon = await bridge(slots=3)
    operator = await watching(daemon)
    board = await operator.until("board")
    assert (board["engine"], board["slots"]["offered"], board["calls"]) == ("echo", 3, [])
    phone = await dial(daemon)
    call = only_call(daemon)
    begun = await operator.until("begun")
    assert (begun["call"]["call"], begun["call"]["caller"]) == (call, THEIRS)
    daemon.board.calls[call].say("good day")
    words = await operator.until("words")
    assert words == {"type": "words", "call": call, "speaker": "agent", "id": 1, "text": "good day", "final": True}
    phone.hang_up()
    assert await operator.until("ended") == {"type": "ended", "call": call, "end": "caller"}
    after = await operator.until("board")
    assert after["calls"] == []


async def test_a_watcher_is_told_once_a_second_how_the_bridge_is(bridge: Bridge, dial: Dial, watching: Watch) -> None:
    daemon = await bridge()
    await dial(daemon)
    operator = await watching(daemon)
    first = await operator.until("board")
    second = await operator.until("board")
    assert second["calls"][0]["seconds"] > first["calls"][0]["seconds"]
    assert second["frame_ms"] > 0


async def test_a_watcher_sees_that_the_bridge_was_held_up(bridge: Bridge, watching: Watch) -> None:
    operator = await watching(await bridge())
    assert (await operator.until("board"))["frame_ms"] is None  # without a call
    async with asyncio.timeout(PATIENCE):
        while (await operator.until("board"))["lag_ms"] < 200:
            time.sleep(0.4)  # noqa: ASYNC251 - this is what holds it up


async def test_a_watcher_sees_who_talks_and_that_the_engine_is_lost(
    bridge: Bridge, dial: Dial, watching: Watch
) -> None:
    daemon = await bridge()
    operator = await watching(daemon)
    await dial(daemon, sound=np.random.default_rng(1).integers(-8000, 8000, 8000 * 60).astype(np.int16))
    call = only_call(daemon)
    await operator.until("state", call=call, state="talking")
    assert (await operator.until("board"))["calls"][0]["state"] == "talking"
    assert isinstance(daemon.engine, HostEngine)
    os.kill(daemon.engine.child.pid, signal.SIGKILL)
    await operator.until("state", call=call, state="engine-lost")
    await operator.until("state", call=call, state="listening")
    states = [told["state"] for told in operator.told if told["type"] == "state"]
    assert states[states.index("engine-lost") :] == ["engine-lost", "listening"]  # the tone meanwhile is nobody's talk


async def test_an_utterance_that_goes_on_keeps_its_id_and_no_two_have_the_same(
    bridge: Bridge, dial: Dial, watching: Watch, tmp_path: Path
) -> None:
    """Of an engine that hears: it counts the utterances of each speaker by itself."""
    said = tmp_path / "said"
    said.touch()
    (tmp_path / "diary").touch()
    daemon = await bridge(engine=HostEngine("hearing", f"{HERE}:hearing", 4, file=str(tmp_path / "diary")))
    operator = await watching(daemon)
    await dial(daemon)
    call = only_call(daemon)
    said.write_text("What is...\nWhat is the time?\n")
    await operator.until("words", final=True)
    daemon.board.calls[call].say("noon")
    await operator.until("words", speaker="agent")
    said.write_text("What is...\nWhat is the time?\nThank you.\n")
    await operator.until("words", text="Thank you.")
    words = [told for told in operator.told if told["type"] == "words"]
    assert [(one["id"], one["speaker"], one["text"], one["final"]) for one in words] == [
        (1, "caller", "What is", False),
        (1, "caller", "What is the time?", True),
        (2, "agent", "noon", True),
        (3, "caller", "Thank you.", True),
    ]
    late = await watching(daemon)
    await late.until("words", text="Thank you.")
    assert [told for told in late.told if told["type"] == "words"] == words[1:]


async def test_who_comes_late_is_told_the_last_fifty_utterances_of_each_call(
    bridge: Bridge, dial: Dial, watching: Watch
) -> None:
    daemon = await bridge()
    operator = await watching(daemon)
    await dial(daemon)
    await dial(daemon, caller="+15550100002")
    first, second = daemon.board.calls.values()
    for number in range(RECENT + 3):
        first.say(f"sentence {number}")
    await operator.until("words", text=f"sentence {RECENT + 2}")
    second.say("another call")
    await operator.until("words", text="another call")
    late = await watching(daemon)
    await late.until("words", text="another call")
    assert [told["type"] for told in late.told] == ["board", *["words"] * (RECENT + 1)]
    assert [told["text"] for told in late.told[1:-1]] == [f"sentence {number}" for number in range(3, RECENT + 3)]


async def test_the_board_says_what_the_machine_is(bridge: Bridge, watching: Watch) -> None:
    daemon = await bridge()
    machine = detect(gpus=lambda: [Gpu("NVIDIA L4", "", 24 << 30, 23 << 30)], host=lambda: Host(8, 32 << 30, 16 << 30))
    daemon.board.machine = machine
    board = await (await watching(daemon)).until("board")
    assert (board["level"], board["machine"]) == (2, "NVIDIA L4 (24.0 GiB), 8 cores, 32.0 GiB of memory")


# Who may


async def test_a_watcher_needs_the_token_of_an_operator(bridge: Bridge, watching: Watch) -> None:
    daemon = await bridge(auth__secret=SECRET)
    operator = await watching(daemon, additional_headers={"Authorization": f"Bearer {token('operator')}"})
    await operator.until("board")
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {token('talk')}"}, 403)):
        with pytest.raises(InvalidStatus) as refused:
            await watching(daemon, additional_headers=headers)
        assert refused.value.response.status_code == status


async def test_a_page_of_the_bridge_watches_with_a_token_among_its_subprotocols(
    bridge: Bridge, watching: Watch
) -> None:
    daemon = await bridge(auth__secret=SECRET)
    protocols = [Subprotocol("voice-bridge.v1"), Subprotocol(f"bearer.{token('operator')}")]
    page = await watching(daemon, subprotocols=protocols, origin=Origin(daemon.url))
    assert page.socket.subprotocol == "voice-bridge.v1"
    await page.until("board")
    with pytest.raises(InvalidStatus) as refused:
        await watching(daemon, subprotocols=protocols, origin=Origin("https://evil.example"))
    assert refused.value.response.status_code == 403


async def test_the_admin_address_lets_one_watch_without_a_token(
    bridge: Bridge, watching: Watch, unused_port: int
) -> None:
    daemon = await bridge(auth__secret=SECRET, server__admin=f"127.0.0.1:{unused_port}")
    operator = await watching(daemon, f"http://127.0.0.1:{unused_port}")
    await operator.until("board")


async def test_a_request_that_is_no_websocket_is_told_so(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    async with http.get((await bridge()).url + "/v1/watch") as answer:
        assert answer.status == 426
        assert "WebSocket" in (await answer.json())["error"]


async def test_so_many_watch_and_no_more(bridge: Bridge, watching: Watch) -> None:
    daemon = await bridge()
    operators = [await watching(daemon) for _ in range(watch.MOST)]
    with pytest.raises(InvalidStatus) as refused:
        await watching(daemon)
    assert refused.value.response.status_code == 503
    await operators[0].socket.close()
    await operators[1].until("board")
    await (await watching(daemon)).until("board")


# What goes wrong


async def test_a_watcher_who_does_not_keep_up_is_let_go_and_costs_nobody_else_anything(
    bridge: Bridge, dial: Dial, watching: Watch, log_lines: LogLines
) -> None:
    daemon = await bridge()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", daemon.port))
    operator = await watching(daemon, sock=slow, max_queue=1)
    await operator.until("board")
    other = await watching(daemon)
    phone = await dial(daemon)
    call = only_call(daemon)
    heard = len(phone.record.arrivals)
    sent = 0
    while len(daemon.board.feed.watchers) > 1 and sent < 4 * BEHIND:
        sent += 1
        daemon.board.feed.overheard(call, sent, "x" * 4000, True)
        await other.until("words", call=call)
    await operator.until_closed()
    assert any("did not keep up" in line["event"] for line in log_lines)
    await phone.until(lambda record: len(record.arrivals) > heard + 3)


async def test_what_a_watcher_sends_is_not_read_and_too_much_of_it_ends_that_socket(
    bridge: Bridge, watching: Watch
) -> None:
    daemon = await bridge()
    operator = await watching(daemon)
    await operator.socket.send('{"type": "say", "text": "hello"}')
    await operator.socket.send(bytes(100))
    await operator.until("board")
    await operator.until("board")
    await operator.socket.send("x" * (watch.MAX_UP + 1))
    assert (await operator.until_closed())[0] == 1009


async def test_watchers_are_told_that_the_bridge_stops_and_do_not_hold_it_up(bridge: Bridge, watching: Watch) -> None:
    daemon = await bridge()
    operator = await watching(daemon)
    await operator.until("board")
    stopping = asyncio.create_task(daemon.__aexit__())
    assert await operator.until_closed() == (1001, "the bridge stops")
    await stopping
