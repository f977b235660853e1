"""Moshi's own clients at /api/chat: a whole bridge, clients that speak their bytes, and their Python client itself."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tests.conftest import Bridge, LogLines
from tests.test_opus import HEAD, chirp, page, pieces
from tests.test_stream import client as other_client
from tests.test_stream import gone, noise, token
from tests.turned import bridge, turned
from voice_bridge.bridge.chat import MOST_CHATS
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.lines.moshi import MAX_MESSAGE
from voice_bridge.codecs import opus
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.opus import PCM, Decoder, Encoder
from voice_bridge.engines.base import Opening
from voice_bridge.engines.echo import EchoCore

pytest.importorskip("sphn", reason=opus.REMEDY)

SECRET = "not-a-real-secret-but-long-enough"
REMEDY = opus.REMEDY.encode()
PATIENCE = 20.0  # seconds for what takes one
QUIET = logging.getLogger("tests.chat")  # the library's own log of handshakes is not asked for
SHAKE, SOUND, TEXT, CONTROL, METADATA, ERROR, PING, COLOURED = range(8)


class Chatter:
    """A client: every message it was sent, and what it heard."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[bytes] = []
        self.heard: PCM = np.zeros(0, np.float32)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._news = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def say(self, pcm: PCM) -> None:
        """Speak, in real time."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for piece in pieces(pcm, FRAME):
            await self.socket.send(bytes([SOUND]) + self._encoder.push(piece))
            due += len(piece) / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def until(self, done: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while not (found := done()):
                assert not self._listening.done(), f"the socket was closed; sent: {self.messages[-3:]}"
                self._news.clear()
                waiting = asyncio.create_task(self._news.wait())
                await asyncio.wait([waiting, self._listening], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        return found

    async def until_greeted(self) -> None:
        await self.until(lambda: self.messages)
        assert self.messages[0] == bytes(9)

    async def closed(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE):
            await self._listening
        return self.socket.close_code or 0, self.socket.close_reason or ""

    def of(self, kind: int) -> str:
        return b"".join(message[1:] for message in self.messages if message[0] == kind).decode()

    async def _listen(self) -> None:
        try:
            async for message in self.socket:
                assert isinstance(message, bytes)  # a text would make Moshi's page throw
                self.messages.append(message)
                if message[0] == SOUND:
                    self.heard = np.concatenate([self.heard, self._decoder.push(message[1:])])
                self._news.set()
        except ConnectionClosed:
            pass


def reach(daemon: Daemon, query: dict[str, str] | None = None, **options: Any) -> connect:
    url = daemon.url.replace("http", "ws", 1) + "/api/chat"
    options = {"ping_interval": None, "compression": None, "logger": QUIET} | options
    return connect(f"{url}?{urlencode(query)}" if query else url, **options)


@asynccontextmanager
async def chatter(daemon: Daemon, query: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Chatter]:
    """A client that has been greeted."""
    async with reach(daemon, query, **options) as ws:
        one = Chatter(ws)
        await one.until_greeted()
        yield one


def likeness(heard: PCM, said: PCM) -> float:
    """How much of what was said is in what was heard, wherever it is: 1 for all."""
    size = 1 << (len(heard) + len(said)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)))
    return float(np.max(product) / np.sum(said**2))


class Openings(EchoCore):
    """Keeps what its conversations were opened with."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.given: list[Opening] = []

    def open(self, slot: int, opening: Opening) -> None:
        super().open(slot, opening)
        self.given.append(opening)


# -- a conversation --------------------------------------------------------------------------------------------------


@turned
async def test_a_client_is_greeted_before_it_says_anything_and_hears_the_agent(tmp_path: Path) -> None:
    said = chirp(3)
    async with bridge(tmp_path) as daemon:
        async with chatter(daemon) as one:
            await one.say(np.concatenate([said, np.zeros(RATE, np.float32)]))
            assert likeness(one.heard, said) > 0.9
        await gone(daemon)


@turned
async def test_headers_by_themselves_and_pages_of_two_packets_are_heard_as_the_page_of_moshi_sends_them(
    tmp_path: Path,
) -> None:
    said = chirp(2)
    encoder = Encoder()
    first = encoder.push(said[:0])
    tags = first.index(b"OggS", 1)
    async with bridge(tmp_path) as daemon, chatter(daemon) as one:
        for header in (first[:tags], first[tags:], HEAD):
            await one.socket.send(bytes([SOUND]) + header)
        for piece in pieces(said, FRAME):
            await one.socket.send(bytes([SOUND]) + joined(encoder.push(piece)))
            await asyncio.sleep(0.08)
        await one.until(lambda: len(one.heard) >= len(said) + RATE // 2)
        assert likeness(one.heard, said) > 0.9


def joined(pages: bytes) -> bytes:
    """Two pages of one packet each as one page with both."""
    packets = []
    while pages:
        segments = pages[26]
        size = 27 + segments + sum(pages[27 : 27 + segments])
        packets.append((pages[27 : 27 + segments], pages[27 + segments : size]))
        pages = pages[size:]
    tables, bodies = zip(*packets, strict=True)
    table = b"".join(tables)
    return struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, 2, 0, len(table)) + table + b"".join(bodies)


@turned
async def test_what_the_agent_says_is_shown_and_joins_to_a_text(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, chatter(daemon) as one:
        (call,) = daemon.board.calls.values()
        call.say("Good morning.")
        call.say("How are you?")
        await one.say(chirp(0.5))
        await one.until(lambda: one.of(TEXT) == " Good morning. How are you?")
        assert {message[0] for message in one.messages} == {SHAKE, SOUND, TEXT}


@turned
async def test_what_the_address_asks_for_is_given_to_the_engine(tmp_path: Path) -> None:
    core = Openings(2)
    query = {"text_temperature": "0.5", "audio_topk": "9", "text_seed": "3", "text_prompt": "You are a pirate."}
    async with bridge(tmp_path, core=core, calls__persona="You are a clerk.") as daemon:
        async with chatter(daemon, query):
            given = core.given[-1]
            assert (given.persona, given.seed) == ("You are a pirate.", 3)
            assert given.sampling == {"text_temperature": 0.5, "audio_top_k": 9}
        async with chatter(daemon):
            assert (core.given[-1].persona, core.given[-1].seed) == ("You are a clerk.", None)


@turned
async def test_a_client_that_is_muted_goes_on_hearing_the_agent(tmp_path: Path) -> None:
    """Moshi's page closes a socket on which nothing came for ten seconds."""
    async with bridge(tmp_path) as daemon, chatter(daemon) as one:
        await asyncio.sleep(12)
        assert len(one.heard) > 11 * RATE


@turned
async def test_why_a_call_ended_is_shown(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, chatter(daemon) as one:
        await one.socket.send(bytes([SOUND]) + b"no Opus")
        assert (await one.closed())[0] == 1000
        assert one.of(ERROR) == "sound that is no Opus in Ogg: a page does not begin with OggS"
        assert one.of(TEXT) == f" [{one.of(ERROR)}]"


@pytest.mark.skipif(importlib.util.find_spec("moshi") is None, reason="pip install --no-deps moshi==0.2.13")
async def test_the_python_client_of_moshi_talks_to_the_bridge(bridge: Bridge) -> None:
    """In a process of its own and in real time; its password is the token."""
    daemon = await bridge(auth__secret=SECRET)
    url = daemon.url.replace("http://", f"ws://ann:{token()}@")
    own = str(Path(__file__).parent / "moshi_client.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, own, "1.5", "--url", url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(3 * PATIENCE):
            while not daemon.board.calls:  # noqa: ASYNC110 - the call of a program that tells nothing
                await asyncio.sleep(0.01)
            (call,) = daemon.board.calls.values()
            call.say("Good morning.")
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert "Good morning." in out.decode()
    played = json.loads(out.decode().splitlines()[-1])
    assert played["pitch"] == pytest.approx(440, rel=0.1)
    assert played["loudest"] == pytest.approx(0.3, rel=0.4)


# -- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token", "auth_id", "worker_auth_id", "basic", "bearer"])
async def test_a_token_may_be_a_header_a_password_or_a_parameter(
    bridge: Bridge, log_lines: LogLines, name: str
) -> None:
    daemon, given = await bridge(auth__secret=SECRET), token()
    headers = {
        "basic": {"Authorization": "Basic " + base64.b64encode(f"ann:{given}".encode()).decode()},
        "bearer": {"Authorization": f"Bearer {given}"},
    }
    query = None if name in headers else {name: given}
    async with chatter(daemon, query, additional_headers=headers.get(name, {})):
        (call,) = daemon.board.calls.values()
        assert call.ticket.caller == "ann"
    await gone(daemon)
    assert given not in str(log_lines)


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ({}, {}, 401),
        ({"token": ""}, {}, 401),
        ({"token": "x"}, {}, 401),
        ({"token": token("operator")}, {}, 403),
        ({"token": token(secret="another secret, which is long enough")}, {}, 401),
        ({"token": token()}, {"Authorization": "Bearer x"}, 401),
        ({}, {"Authorization": "Basic x"}, 401),
        ({}, {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()}, 401),
        ({"token": token()}, {"Origin": "https://elsewhere.example.com"}, 403),
    ],
)
async def test_who_may_not_is_refused_before_the_upgrade(
    bridge: Bridge, query: dict[str, str], headers: dict[str, str], status: int, log_lines: LogLines
) -> None:
    daemon = await bridge(auth__secret=SECRET)
    with pytest.raises(InvalidStatus) as refused:
        await reach(daemon, query, additional_headers=headers)
    assert refused.value.response.status_code == status
    assert not daemon.board.calls
    assert "eyJ" not in str(log_lines)


async def test_an_open_bridge_takes_programs_of_this_machine_and_its_own_page_only(bridge: Bridge) -> None:
    daemon = await bridge()
    async with chatter(daemon, origin=Origin(daemon.url)):
        pass
    for options in ({"origin": Origin("http://elsewhere")}, {"additional_headers": {"X-Forwarded-For": "1.2.3.4"}}):
        with pytest.raises(InvalidStatus, match="403"):
            await reach(daemon, **options)


async def test_a_value_that_makes_no_sense_and_what_is_no_websocket_are_told_so(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    with pytest.raises(InvalidStatus) as refused:
        await reach(daemon, {"text_temperature": "hot"})
    assert refused.value.response.status_code == 400
    assert b"text_temperature='hot': take a number from 0.0 to 2.0" in (refused.value.response.body or b"")
    async with http.get(daemon.url + "/api/chat") as response:
        assert response.status == 426
    assert daemon.engine.capacity().free == daemon.engine.capacity().offered


@turned
async def test_who_finds_no_room_is_told_at_once_as_these_clients_can_show_it(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        async with chatter(daemon) as talking:
            async with reach(daemon) as ws:
                late = Chatter(ws)
                code, why = await late.closed()
            assert code == 1013
            assert late.messages == [b"\x05" + why.encode(), f"\x02 [{why}]".encode()]
            said = chirp(1)
            await talking.say(np.concatenate([said, np.zeros(RATE // 2, np.float32)]))
            assert likeness(talking.heard, said) > 0.9
        await gone(daemon)
        async with chatter(daemon):
            pass


@turned
async def test_there_is_no_room_for_more_of_them_than_opus_leaves_time_for(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=MOST_CHATS + 2) as daemon:
        async with AsyncExitStack() as stack:
            for _ in range(MOST_CHATS):
                await stack.enter_async_context(chatter(daemon))
            late = Chatter(await stack.enter_async_context(reach(daemon)))
            assert (await late.closed())[0] == 1013
            assert "16 clients of this kind" in late.of(TEXT)
            await stack.enter_async_context(other_client(daemon))
        await gone(daemon)
        async with chatter(daemon):
            pass


async def test_a_bridge_without_the_codec_says_how_to_get_it(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = await bridge()
    monkeypatch.setitem(sys.modules, "sphn", None)
    async with reach(daemon) as ws:
        assert [await ws.recv(), await ws.recv()] == [b"\5" + REMEDY, b"\2 [" + REMEDY + b"]"]


# -- hostile clients -------------------------------------------------------------------------------------------------

GARBAGE = [
    bytes([SOUND]) + b"\0" * 500,
    bytes([SOUND]) + b"OggS" * 100,
    bytes([SOUND]) + HEAD + page([b""]),
    bytes([SOUND]) + page([bytes([3 << 3])] * 250),
    bytes([SOUND]) + bytes(MAX_MESSAGE),
    b"\x09" + bytes(2 * MAX_MESSAGE),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["zeros", "magic", "packet", "bomb", "giant sound", "giant"])
@turned
async def test_garbage_ends_that_call_with_a_reason_and_costs_another_no_frame(tmp_path: Path, garbage: bytes) -> None:
    said = noise(2)
    async with bridge(tmp_path) as daemon, other_client(daemon) as other:
        talk = asyncio.create_task(other.say(said))
        async with chatter(daemon) as one:
            await one.say(chirp(0.3))
            await one.socket.send(garbage)
            assert (await one.closed())[0] == (1009 if len(garbage) > MAX_MESSAGE else 1000)
            assert len(garbage) > MAX_MESSAGE or one.of(ERROR).startswith("sound that is no Opus in Ogg: ")
        await talk
        await other.until_echoed(said)


@pytest.mark.parametrize("message", [b"", b"\x06", b"\x03\x00", b"\x03\x03", b"\x02hello", b"\xff", "a text", "{}"])
@turned
async def test_what_means_nothing_is_dropped_and_the_talk_goes_on(tmp_path: Path, message: str | bytes) -> None:
    said = chirp(1)
    async with bridge(tmp_path) as daemon, chatter(daemon) as one:
        for _ in range(20):
            await one.socket.send(message)
        await one.say(np.concatenate([said, np.zeros(RATE // 2, np.float32)]))
        assert likeness(one.heard, said) > 0.9


def framed(message: bytes) -> bytes:
    """As a WebSocket frame, for a socket that no library watches over."""
    return b"\x82\xfe" + len(message).to_bytes(2, "big") + b"\0\0\0\0" + message


@pytest.mark.parametrize("flood", [bytes([SOUND]) + Encoder().push(chirp(0.96)), b"\x06"], ids=["sound", "pings"])
@turned
async def test_a_flood_ends_that_call_and_costs_another_no_frame(tmp_path: Path, flood: bytes) -> None:
    said = noise(2)
    async with bridge(tmp_path) as daemon, other_client(daemon) as other:
        talk = asyncio.create_task(other.say(said))
        async with chatter(daemon) as one:
            one.socket.transport.write(framed(flood) * (2000 if len(flood) == 1 else 40))
            await one.closed()
            assert "faster than any" in one.of(ERROR)
        await talk
        await other.until_echoed(said)


UPGRADE = (
    b"GET /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@turned
async def test_a_client_that_does_not_read_is_ended_and_costs_another_no_frame(tmp_path: Path) -> None:
    said = noise(25)
    async with bridge(tmp_path) as daemon, other_client(daemon) as other:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plug.connect(("127.0.0.1", daemon.port))
        plug.sendall(UPGRADE)
        while len(daemon.board.calls) < 2:  # noqa: ASYNC110 - the call of a peer that tells nothing
            await asyncio.sleep(0.01)
        stuck = list(daemon.board.calls.values())[-1]
        ours = stuck.link.newest._request.transport.get_extra_info("socket")  # type: ignore[attr-defined]
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the network between them holds little

        async def stall() -> None:
            """It answers no ping, but while it speaks it is not gone; and its echo fills what is between them."""
            encoder = Encoder()
            while not stuck.over.done():
                plug.sendall(framed(bytes([SOUND]) + encoder.push(noise(0.08).astype(np.float32) / 32768)))
                await asyncio.sleep(0.08)

        stalling = asyncio.create_task(stall())
        await other.say(said, sizes=(FRAME,))
        await stalling
        assert stuck.over.result() == "slow-reader"
        await stuck.finished
        await other.until_echoed(said)
        plug.close()


@pytest.mark.parametrize("after", [0.0, 0.5])
@turned
async def test_a_socket_cut_at_any_moment_costs_no_slot(tmp_path: Path, after: float) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as ws:
        one = Chatter(ws)
        await one.say(chirp(after))
        ws.transport.abort()
        await one.closed()
        await asyncio.sleep(0.1)
        await gone(daemon)
