"""Coming back to a conversation whose connection broke."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests import cores
from tests.clients import PATIENCE, SECRET, Client, client, gone, noise, reach, token
from tests.conftest import Bridge
from tests.cores import Whims
from tests.test_relay import Relay, relay
from tests.turned import bridge, phone, turned
from voice_bridge.bridge import auth
from voice_bridge.bridge.call import Call
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.lines.base import Out
from voice_bridge.bridge.link import KEPT, Link
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.engines.host import HostEngine

REFUSED = "this ticket is wrong, used or too late, or its conversation is over: begin a new one"


def the_call(daemon: Daemon) -> Call:
    (call,) = daemon.board.calls.values()
    return call


async def break_off(one: Client, daemon: Daemon) -> str:
    """Cut the client's socket, wait until the bridge has noticed; gives the ticket."""
    call = the_call(daemon)
    one.socket.transport.abort()
    await one._listening
    while call.link.here:  # noqa: ASYNC110 - a socket that is cut tells nobody when the other end has noticed
        await asyncio.sleep(0.01)
    return ticket(one)


def ticket(one: Client) -> str:
    """Of the newest `ready`."""
    return [told["ticket"] for told in one.told if told["type"] == "ready"][-1]


@asynccontextmanager
async def back(daemon: Daemon, by: str, form: type[Client] = Client, **options: Any) -> AsyncIterator[Any]:
    async with reach(daemon, **options) as socket:
        one = form(socket)
        await one.tell("open", resume=by)
        await one.until("ready")
        yield one


async def is_refused(daemon: Daemon, by: Any, **options: Any) -> None:
    async with reach(daemon, **options) as socket:
        one = Client(socket)
        await one.tell("open", resume=by)
        assert await one.closed() == (1008, REFUSED)
        assert one.told == [
            {"type": "error", "code": "resume", "message": REFUSED},
            {"type": "ended", "code": "resume"},
        ]


@turned
async def test_a_client_whose_connection_broke_finds_the_same_conversation(tmp_path: Path) -> None:
    said = noise(2)
    async with bridge(tmp_path, slots=1) as daemon:  # and takes no second slot
        async with client(daemon) as one:
            await one.say(noise(0.4))
            given = await break_off(one, daemon)
            await asyncio.sleep(5)
        async with back(daemon, given) as other:
            first, second = other.told[:2]
            assert (first["type"], first["call"]) == ("ready", one.told[0]["call"])
            assert first["ticket"] not in ("", given)
            assert second == {"type": "flush"}  # positions begin anew
            await other.say(said)
            await other.until_echoed(said)
            await other.tell("close")
            assert await other.closed() == (1000, "caller")
        await gone(daemon)
        assert daemon.board.metrics.live == set()


@turned
async def test_meanwhile_the_model_hears_silence_and_what_it_says_is_thrown_away_but_not_its_texts(
    tmp_path: Path,
) -> None:
    async with bridge(tmp_path) as daemon:
        async with client(daemon) as one:
            await one.say(noise(0.4))
            given = await break_off(one, daemon)
            call = the_call(daemon)
            frames = call.stats.frames
            call.say("Are you there?")
            await asyncio.sleep(4)
            assert call.stats.frames - frames == pytest.approx(4 / 0.08, abs=5)
            assert call.describe()["state"] == "client away"
        async with back(daemon, given) as other:
            assert not other.chunks
            assert {"type": "said", "id": 1} in other.told
            words = [told["text"] for told in other.told if told["type"] == "transcript"]
            assert words == ["Are you there?"]
            assert call.stats.returns == 1


@turned
async def test_a_client_may_come_back_again_and_again_each_time_with_the_newest_ticket(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        async with client(daemon) as one:
            given = await break_off(one, daemon)
        for _ in range(5):
            async with back(daemon, given) as one:
                await one.say(noise(0.2))
                await one.until_heard(FRAME)
                given = await break_off(one, daemon)
        await gone(daemon)


@turned
async def test_a_relay_comes_back_as_one_and_misses_no_event(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Whims(1), slots=1) as daemon:
        async with relay(daemon) as one:
            await one.speak(noise(0.4))
            given = await break_off(one, daemon)
            the_call(daemon).say("Are you there?")
            await asyncio.sleep(3)
        async with back(daemon, given, Relay) as other:
            assert [told["type"] for told in other.told[:2]] == ["ready", "event"]  # it flushes by itself
            await other.reported("remember", text="say 1 Are you there? True")
            await other.speak(noise(0.4), at=4 * RATE)
            replies = await other.answered(5)
            assert [at for at, _ in replies] == list(range(4 * RATE, 4 * RATE + 5 * FRAME, FRAME))


@turned
async def test_the_newer_connection_wins_while_the_older_still_seems_alive(tmp_path: Path) -> None:
    said = noise(1)
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.say(noise(0.4))
        async with back(daemon, ticket(one)) as other:
            await one._listening
            assert one.socket.close_code == 1006  # without a word, as networks go
            await other.say(said)
            await other.until_echoed(said)
            assert len(daemon.board.calls) == 1


@turned
async def test_a_client_that_says_nothing_can_come_back_to_a_full_bridge_before_that_misses_it(tmp_path: Path) -> None:
    """Its old socket stays open, as when a phone changes networks."""
    async with bridge(tmp_path, slots=1) as daemon, client(daemon) as one:
        await one.say(noise(0.4))
        with pytest.raises(InvalidStatus):  # it is plainly there, so whoever comes is somebody else
            await reach(daemon)
        await asyncio.sleep(2)
        async with back(daemon, ticket(one)) as other:
            assert other.told[0]["call"] == one.told[0]["call"]


# -- who may not -----------------------------------------------------------------------------------------------------


@turned
async def test_a_ticket_is_good_for_one_return(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        async with client(daemon) as one:
            given = await break_off(one, daemon)
        async with back(daemon, given) as other:
            await is_refused(daemon, given)
            await other.say(noise(0.2))  # and whoever has it now is not disturbed
            await other.until_heard(FRAME)


@turned
async def test_a_ticket_is_good_for_whoever_began_the_conversation_only(tmp_path: Path) -> None:
    async with bridge(tmp_path, auth__secret=SECRET) as daemon:
        async with client(daemon, given=token()) as one:
            given = await break_off(one, daemon)
        await is_refused(daemon, given, given=auth.mint(SECRET, "voice-bridge", "eve", ("talk",), 60))
        async with back(daemon, given, given=token()):
            pass


@turned
async def test_who_comes_too_late_is_told_so_and_the_slot_is_free(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        async with client(daemon) as one:
            given, call = await break_off(one, daemon), the_call(daemon)
            began = asyncio.get_running_loop().time()
            assert await call.over == "closed"
            assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.2)
        await gone(daemon)
        await is_refused(daemon, given)
        await gone(daemon)


@pytest.mark.parametrize("how", ["close", "1000", "1001"])
@turned
async def test_a_client_that_said_goodbye_is_not_waited_for(tmp_path: Path, how: str) -> None:
    async with bridge(tmp_path) as daemon:
        async with client(daemon) as one:
            call, began = the_call(daemon), asyncio.get_running_loop().time()
            await (one.tell("close") if how == "close" else one.socket.close(int(how)))
            assert await call.over == ("caller" if how == "close" else "closed")
            assert asyncio.get_running_loop().time() - began < 1
        await gone(daemon)
        await is_refused(daemon, ticket(one))


@pytest.mark.parametrize("given", ["", "x", "x" * 65, "\0", 5, {}], ids=str)
@turned
async def test_a_ticket_that_is_none_gets_nobody_in(tmp_path: Path, given: Any) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one, reach(daemon) as socket:
        other = Client(socket)
        await other.tell("open", resume=given)
        code, _ = await other.closed()
        assert (code, other.told[0]["code"] in ("resume", "protocol")) == (1008, True)
        await one.say(noise(0.2))
        await one.until_heard(FRAME)


@turned
async def test_to_come_back_is_said_in_the_first_message_or_not_at_all(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one, reach(daemon) as socket:
        other = Client(socket)
        await other.tell("ping")
        await other.tell("open", resume=ticket(one))
        assert await other.closed() == (1008, "open: resume belongs into the first message of a stream")


@turned
async def test_a_telephone_call_is_not_waited_for(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon) as caller:
        talk = asyncio.create_task(caller.call(seconds=2))
        while not daemon.board.calls:  # noqa: ASYNC110 - the call of a phone that tells nothing
            await asyncio.sleep(0.01)
        call = the_call(daemon)
        await talk
        await call.finished
        assert call.stats.returns == 0


# -- a full bridge, and one that stops -------------------------------------------------------------------------------


@turned
async def test_a_full_bridge_lets_in_only_who_comes_back(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        async with client(daemon) as one:
            given = await break_off(one, daemon)
        async with reach(daemon) as socket:  # there is no slot for a second conversation
            other = Client(socket)
            await other.tell("open")
            assert (await other.closed())[0] == 1008
            assert other.told[0]["code"] == "busy"
        await is_refused(daemon, "another ticket")
        async with back(daemon, given) as one:
            await one.say(noise(0.2))
            await one.until_heard(FRAME)


@turned
async def test_nobody_else_gets_into_a_full_bridge_because_somebody_is_awaited(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1, auth__secret=SECRET) as daemon:
        async with client(daemon, given=token()) as one:
            given = await break_off(one, daemon)
        with pytest.raises(InvalidStatus):
            await reach(daemon, given=auth.mint(SECRET, "voice-bridge", "eve", ("talk",), 60))
        async with back(daemon, given, given=token()):
            pass


@turned
async def test_a_flood_of_connections_that_never_come_back_is_bounded_and_soon_over(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        async with client(daemon) as one:
            given = await break_off(one, daemon)
        idle = [await reach(daemon) for _ in range(2)]
        for _ in range(20):
            with pytest.raises(InvalidStatus):
                await reach(daemon)
        for each in idle:
            with suppress(ConnectionClosed):
                async for message in each:
                    assert json.loads(message)["type"] in ("error", "ended")
            assert (each.close_code, each.close_reason) == (1008, "no start within 5 s")
        async with back(daemon, given) as other:
            await other.say(noise(0.2))
            await other.until_heard(FRAME)
        await gone(daemon)


@turned
async def test_a_draining_bridge_lets_who_comes_back_finish_and_nobody_begin(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        async with client(daemon) as one:
            given = await break_off(one, daemon)
        drain = asyncio.create_task(daemon.board.drain(30))
        async with back(daemon, given) as other:
            with pytest.raises(InvalidStatus):
                await reach(daemon)
            await other.say(noise(0.4))
            await other.until_heard(FRAME)
            assert not drain.done()
            await other.tell("close")
            assert await other.closed() == (1000, "caller")
        await drain


@turned
async def test_an_operator_ends_a_conversation_that_waits_and_one_that_has_come_back(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        for wait in (True, False):
            async with client(daemon) as one:
                given, call = await break_off(one, daemon), the_call(daemon)
            if wait:
                call.transfer("")  # ends it, as an operator does
                await call.finished
                await is_refused(daemon, given)
            else:
                async with back(daemon, given) as other:
                    call.transfer("")
                    assert await other.closed() == (1000, "transfer")
                    assert other.told[-1] == {"type": "ended", "code": "transfer"}
            await gone(daemon)


# -- what is kept ----------------------------------------------------------------------------------------------------


class Socket:
    """The end of a socket that takes everything, or nothing."""

    def __init__(self) -> None:
        self.parted = False
        self.took: list[bytes] = []
        self.dead = False

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        raise NotImplementedError

    async def send(self, out: Out) -> None:
        if self.dead:
            raise ConnectionResetError
        self.took.append(out.data)

    async def close(self, code: int, reason: str) -> None: ...

    def cut(self) -> None:
        self.dead = True


async def test_texts_are_kept_in_order_and_bounded_and_sound_is_not() -> None:
    before, after = Socket(), Socket()
    link = Link(before, returns=True, clock=lambda: 0.0)
    before.cut()
    texts = [str(n).encode() + bytes(1000) for n in range(100)]
    await link.send(Out(texts[0]))
    link.lose(before)
    for text in texts[1:]:
        await link.send(Out(text))
        await link.send(Out(b"sound", text=False))
    await link.attach(after, Out(b"ready"))
    assert after.took == [b"ready", *texts[-len(after.took) + 1 :]]
    assert KEPT - 1100 < sum(map(len, after.took[1:])) <= KEPT
    await link.send(Out(b"sound", text=False))
    assert after.took[-1] == b"sound"


async def test_what_could_not_be_told_on_one_return_is_told_on_the_next() -> None:
    link = Link(before := Socket(), returns=True, clock=lambda: 0.0)
    link.lose(before)
    await link.send(Out(b"words"))
    dead = Socket()
    dead.cut()
    await link.attach(dead, Out(b"ready"))
    assert not link.here
    await link.attach(alive := Socket(), Out(b"ready"))
    assert alive.took == [b"ready", b"words"]
    assert link.here


async def test_a_recording_is_silent_where_nobody_heard(bridge: Bridge, tmp_path: Path) -> None:
    recordings, loop = tmp_path / "recordings", asyncio.get_running_loop()
    engine = HostEngine("hum", f"{cores.HERE}:humming", 2)
    daemon = await bridge(engine=engine, calls__record=True, calls__recordings=recordings)
    async with client(daemon) as one:
        await one.say(noise(0.4))
        given, left = await break_off(one, daemon), loop.time()
        frames = the_call(daemon).stats.frames
        while the_call(daemon).stats.frames < frames + 10:  # noqa: ASYNC110 - the model hums on
            await asyncio.sleep(0.02)
    away = loop.time() - left
    async with back(daemon, given) as other:
        await other.say(noise(0.2))
        await other.until_heard(FRAME)
    await gone(daemon)
    (path,) = recordings.glob("VB*.wav")
    with wave.open(str(path)) as file:
        _, right = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2).T
    hums = np.flatnonzero(right)
    assert np.diff(hums).max() > (away - 0.4) * RATE > 0  # which is what may be on its way at either end


async def test_the_client_in_the_guide_comes_back(bridge: Bridge) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "clients.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "resume" in block]
    daemon = await bridge(auth__secret=SECRET)
    code = code.replace("127.0.0.1:8080", f"127.0.0.1:{daemon.port}")
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", code, token(), stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        while not daemon.board.calls:  # noqa: ASYNC110 - another process has to begin the call
            await asyncio.sleep(0.02)
        call = the_call(daemon)
        while call.stats.first_audio is None:  # noqa: ASYNC110 - and to be told that it has
            await asyncio.sleep(0.02)
        call.link.newest.cut()
        while not call.stats.returns:  # noqa: ASYNC110 - and to come back
            await asyncio.sleep(0.02)
        call.transfer("")
        await running.communicate()
    assert running.returncode == 0


async def test_a_return_over_real_time_and_tcp(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    """Once without a turned clock: a socket that is reset."""
    daemon = await bridge(slots=1)
    async with client(daemon) as one:
        raw = one.socket.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        given = await break_off(one, daemon)
    async with back(daemon, given) as other:
        await other.say(noise(0.2))
        await other.until_heard(FRAME)
    async with http.get(daemon.url + "/metrics") as answer:
        assert "voice_bridge_returns_total 1.0" in await answer.text()
