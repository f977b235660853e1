"""The built-in phone when things go wrong: bad bridges, bad roads, callers who leave."""

import asyncio

import numpy as np
import pytest
from aiohttp import WSCloseCode, web

from tests.phone_bridge import STREAM, Line, calling, dial, listen, serving
from voice_bridge.bridge.phone import Network, Phone
from voice_bridge.bridge.phone.sound import tone


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        ("ws://127.0.0.1:9/stream", 31902),
        ("{url}/nowhere", 31920),
        ("ws://bridge.example.com/stream", 31922),
        ("{url}/stream?token=1", 31922),
    ],
)
async def test_a_stream_that_cannot_be_opened_goes_on_with_the_next_verb(stream: str, code: int) -> None:
    async with serving() as bridge:
        url = stream.format(url=bridge.url.replace("http", "ws"))
        bridge.twiml["/voice"] = f'<Response><Connect><Stream url="{url}"/></Connect><Say>Sorry.</Say></Response>'
        call = await dial(bridge)
    assert [error.code for error in call.errors] == [code]
    assert call.steps == ["Connect", "Say: Sorry."]
    assert not call.completed


async def test_what_goes_wrong_at_the_webhook_is_said_in_one_line() -> None:
    async with serving() as bridge:
        for path, code, words in (("nowhere", 11200, "HTTP 404: no such page"), ("bad", 12100, "no XML")):
            bridge.twiml["/bad"] = "{}"
            async with Phone(f"{bridge.url}/{path}") as phone:
                call = await phone.call()
            assert [error.code for error in call.errors] == [code]
            assert words in call.problem
            assert "\n" not in call.problem
            assert not call.answered
    async with Phone("http://127.0.0.1:9/voice") as phone:
        call = await phone.call()
    assert call.problem == (
        "nothing answers at http://127.0.0.1:9 (Connection refused); start the bridge with: make serve"
    )


async def test_malformed_messages_are_ignored_and_reported_once() -> None:
    async def careless(line: Line) -> None:
        async for message in line:
            if message["event"] == "start":
                await line.send("media", {"payload": "gICA"}, sequenceNumber="1")
                await line.ws.send_str("{")
                await line.ws.send_bytes(b"\x80" * 160)
                await line.play(b"\x00" * 160)

    async with serving(talk=careless) as bridge, calling(bridge) as (phone, _):
        call = await phone.until(lambda call: call.first_sound is not None)
    assert [error.code for error in call.errors] == [31951, 31950]
    assert call.ignored == 3
    assert bytes(call.heard_bytes).strip(b"\xff") == b"\x00" * 160, "only what was well-formed is heard"


async def test_lost_chunks_jump_in_the_timestamp_and_nowhere_else() -> None:
    async with serving() as bridge:
        call = await dial(bridge, 1.0, network=Network(loss=0.3, seed=4))
        media = bridge.lines[0].of("media")
    there = [int(message["media"]["timestamp"]) // 20 for message in media]
    assert 5 < len(call.lost_chunks) < 25
    assert sorted(there + call.lost_chunks) == list(range(50))
    assert [int(message["media"]["chunk"]) for message in media] == list(range(1, len(media) + 1))
    assert [int(message["sequenceNumber"]) for message in media] == list(range(2, len(media) + 2))


async def test_jitter_bunches_sound_without_losing_any() -> None:
    async with serving() as bridge:
        await dial(bridge, 1.0, network=Network(jitter_ms=100, seed=1))
        (line,) = bridge.lines
        times = [at for at, m in zip(line.times, line.messages, strict=False) if m["event"] == "media"]
    assert [int(m["media"]["timestamp"]) for m in line.of("media")] == list(range(0, 1000, 20))
    spaces = np.diff(times)
    assert np.max(spaces) > 0.04
    assert np.sum(spaces < 0.005) > 10


async def test_a_stall_stops_both_ways_and_then_all_comes_at_once() -> None:
    async def chatter(line: Line) -> None:
        """Talks at its own pace, whatever it hears."""

        async def talk() -> None:
            while not line.ws.closed:
                await line.play(b"\x00" * 160)
                await asyncio.sleep(0.02)

        async for message in line:
            if message["event"] == "start":
                talking = asyncio.create_task(talk())
        talking.cancel()

    async with serving(talk=chatter) as bridge:
        call = await dial(bridge, 1.0, network=Network(stalls=[(0.3, 0.4)]))
        (line,) = bridge.lines
    assert len(line.of("media")) == 50
    assert np.max(np.diff(line.times)) == pytest.approx(0.4, abs=0.1)
    came = np.array([arrival.at for arrival in call.arrivals])
    assert not np.any((came > 0.34) & (came < 0.69))
    assert np.sum((came >= 0.69) & (came < 0.8)) >= 15
    assert max(gap.length for gap in call.gaps) == pytest.approx(0.4 * 8000, abs=800)


async def test_a_silent_peer_is_silent_until_it_hangs_up() -> None:
    closed = asyncio.Event()

    async def waits(line: Line) -> None:
        await listen(line)
        closed.set()

    async with serving(talk=waits) as bridge, calling(bridge) as (phone, task):
        await phone.until(lambda call: call.ticks == 5)
        phone.stall()
        await phone.until(lambda call: call.ticks == 25)
        assert len(bridge.lines[0].of("media")) < 7
        phone.hang_up()
        assert (await task).ended == "the caller hung up"
        await asyncio.wait_for(closed.wait(), 2)
        assert not bridge.lines[0].of("stop")


async def test_a_cut_connection_is_a_stream_that_ended_not_a_call_that_did() -> None:
    twiml = f'<Response><Connect action="/after">{STREAM}</Connect></Response>'
    async with serving(twiml, after="<Response><Say>Sorry.</Say></Response>") as bridge:
        async with calling(bridge) as (phone, task):
            phone.cut()
            call = await task
        assert bridge.lines[0].ws.close_code == WSCloseCode.ABNORMAL_CLOSURE
    assert (call.stream_ended, call.steps) == ("the connection was cut", ["Connect", "Say: Sorry."])


async def test_a_bridge_that_drops_the_connection_is_error_31903() -> None:
    async def drop(line: Line) -> None:
        async for message in line:
            if message["event"] == "media":
                assert line.ws._req is not None
                assert line.ws._req.transport is not None
                line.ws._req.transport.abort()

    async with serving(talk=drop) as bridge:
        call = await dial(bridge, None)
    assert [error.code for error in call.errors] == [31903]
    assert call.stream_ended == "the connection to the bridge broke"


async def test_a_bridge_that_breaks_websocket_is_error_31924() -> None:
    async def nonsense(line: Line) -> None:
        async for message in line:
            if message["event"] == "start":
                assert line.ws._req is not None
                assert line.ws._req.transport is not None
                line.ws._req.transport.write(b"\x8b\x00" * 3)  # a control frame of a kind that does not exist

    async with serving(talk=nonsense) as bridge:
        call = await dial(bridge, None)
    assert [error.code for error in call.errors] == [31924]


async def test_waiting_for_something_that_the_call_never_does_says_so() -> None:
    async with serving("<Response><Say>No.</Say></Response>") as bridge, Phone(f"{bridge.url}/voice") as phone:
        waiting = asyncio.create_task(phone.until(lambda call: call.state == "talking"))
        await phone.call()
        with pytest.raises(RuntimeError, match="ended first: the TwiML came to its end"):
            await waiting
    async with serving() as bridge, calling(bridge) as (phone, _):
        with pytest.raises(TimeoutError):
            await phone.until(lambda call: False, timeout=0.05)


async def test_a_mouth_that_fails_ends_the_call_with_its_error() -> None:
    def broken(number: int) -> bytes:
        raise ZeroDivisionError(number)

    async with serving() as bridge:
        with pytest.raises(ZeroDivisionError):
            await dial(bridge, sound=broken)


async def test_the_caller_can_hang_up_before_anyone_answers() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        asked.set()
        await answer.wait()
        return web.Response(text="<Response><Say>Too late.</Say></Response>", content_type="text/xml")

    app = web.Application()
    app.router.add_post("/voice", slow)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Phone(f"http://127.0.0.1:{runner.addresses[0][1]}/voice", sound=tone()) as phone:
        task = asyncio.create_task(phone.call())
        await asked.wait()
        phone.hang_up()
        answer.set()
        call = await task
    await runner.cleanup()
    assert call.steps == []
    assert call.ended == "the caller hung up"


async def test_the_caller_can_hang_up_while_the_stream_is_being_opened() -> None:
    async with serving() as bridge, Phone(f"{bridge.url}/voice") as phone:
        bridge.delay = asyncio.Event()
        task = asyncio.create_task(phone.call(seconds=0.1))
        await bridge.handshake.wait()
        phone.hang_up()
        bridge.delay.set()
        call = await task
    assert call.ended == "the caller hung up"
    assert not call.stream_ended
    assert not any(line.messages for line in bridge.lines)
