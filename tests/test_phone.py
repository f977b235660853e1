"""The built-in phone against small real bridges: it calls as Twilio calls, and notices what Twilio would."""

import asyncio
import base64
import json

import numpy as np
import pytest
from aiohttp import WSCloseCode, web
from twilio.request_validator import RequestValidator
from voice_bridge.bridge.phone import Clock, Network, Phone
from voice_bridge.bridge.phone.report import Result
from voice_bridge.bridge.phone.sound import tone
from voice_bridge.codecs import g711

from tests.phone_bridge import CONNECT, STREAM, Line, calling, dial, echo, listen, serving

TOKEN = "12345"


async def test_a_call_is_a_webhook_a_handshake_a_start_sound_and_a_stop() -> None:
    async with serving() as bridge:
        call = await dial(bridge, 0.5, caller="+15551", number="+15552")
        (line,) = bridge.lines
        assert [form["CallStatus"] for form in bridge.forms("/voice")] == ["ringing"]
        assert bridge.forms("/voice")[0] | {"CallSid": ""} == {
            "CallSid": "",
            "AccountSid": "AC" + "0" * 31 + "1",
            "From": "+15551",
            "To": "+15552",
            "Caller": "+15551",
            "Called": "+15552",
            "Direction": "inbound",
            "CallStatus": "ringing",
            "ApiVersion": "2010-04-01",
        }
        assert [m["event"] for m in line.messages] == ["connected", "start"] + ["media"] * 25 + ["stop"]
        assert [int(m["sequenceNumber"]) for m in line.messages[1:]] == list(range(1, 28))
        assert [m["media"]["timestamp"] for m in line.of("media")] == [str(20 * n) for n in range(25)]
        assert line.of("start")[0]["start"]["callSid"] == call.sid == bridge.forms("/voice")[0]["CallSid"]
        assert line.ws.close_code == WSCloseCode.OK
    assert (call.ended, call.stream_ended, call.steps) == ("the caller hung up",) * 2 + (["Connect"],)
    assert len(call.spoken) == 25 * 160
    assert len(call.heard) == 26 * 160
    assert call.problem.startswith("no sound came back")


async def test_the_sound_is_what_was_given_and_silence_after_it() -> None:
    said = np.arange(-8000, 8000, 16, dtype=np.int16)
    async with serving(talk=echo) as bridge:
        call = await dial(bridge, 0.4, sound=said)
        sent = b"".join(base64.b64decode(m["media"]["payload"]) for m in bridge.lines[0].of("media"))
    assert sent == g711.encode(said) + b"\xff" * (3200 - 1000) == bytes(call.spoken_bytes)
    assert g711.encode(said) in bytes(call.heard_bytes), "and it came back whole"
    assert call.completed
    assert not call.gaps
    assert not call.errors


async def test_form_and_custom_parameters_can_be_added_replaced_and_left_out() -> None:
    stream = '<Stream url="{stream}"><Parameter name="t" value="good"/><Parameter name="u" value="1"/></Stream>'
    async with serving(f"<Response><Connect>{stream}</Connect></Response>") as bridge:
        await dial(
            bridge, 0.1, form={"Direction": "outbound-api", "ApiVersion": None}, parameters={"t": "bad", "u": None}
        )
        (form,) = bridge.forms("/voice")
        assert form["Direction"] == "outbound-api"
        assert "ApiVersion" not in form
        assert bridge.lines[0].of("start")[0]["start"]["customParameters"] == {"t": "bad"}


async def test_messages_can_be_altered_dropped_and_smuggled_in() -> None:
    def alter(text: str) -> str | None:
        message = json.loads(text)
        if message["event"] == "connected":
            return None
        message.pop("sequenceNumber")
        return json.dumps(message)

    async with serving(talk=echo) as bridge:
        async with calling(bridge, alter=alter) as (phone, _):
            phone.send('{"event": "odd"}')
            await phone.until(lambda call: call.ticks > 3)
        messages = bridge.lines[0].messages
        assert messages[0]["event"] == "start"
        assert {"event": "odd"} in messages
        assert not any("sequenceNumber" in message for message in messages)


async def test_requests_are_signed_for_the_public_url_and_made_to_the_local_one() -> None:
    public = "https://bridge.example.com"
    twiml = (
        '<Response><Connect action="/after"><Stream url="wss://bridge.example.com/stream" '
        'statusCallback="https://bridge.example.com/status"/></Connect></Response>'
    )
    validator = RequestValidator(TOKEN)
    async with serving(twiml, after="<Response/>", status="<Response/>") as bridge:
        async with Phone(f"{bridge.url}/voice?x=1", auth_token=TOKEN, public_url=public) as phone:
            call = asyncio.create_task(phone.call())
            await phone.until(lambda call: call.ticks > 1)
            await bridge.lines[0].ws.close()
            assert not (await call).errors
        asked = {path: (form, signature) for _, path, form, signature in bridge.requests}
        assert validator.validate(f"{public}/voice?x=1", *asked["/voice"])
        assert validator.validate(f"{public}/after", *asked["/after"])
        assert validator.validate(f"{public}/status", *asked["/status"])
        assert validator.validate("wss://bridge.example.com/stream", {}, bridge.stream_signature)


async def test_a_webhook_by_get_carries_and_signs_its_parameters_in_the_query() -> None:
    async with serving("<Response/>") as bridge:
        call = await dial(bridge, auth_token=TOKEN, method="GET")
        ((method, _, form, signature),) = bridge.requests
        assert method == "GET"
        assert form["CallSid"] == call.sid
        query = "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in form.items())
        assert RequestValidator(TOKEN).validate(f"{bridge.url}/voice?{query}", {}, signature)


@pytest.mark.parametrize(
    ("twiml", "steps", "ended", "answered"),
    [
        ('<Response><Reject reason="busy"/></Response>', ["Reject: busy"], "rejected: busy", False),
        ("<Response><Reject/></Response>", ["Reject"], "rejected: rejected", False),
        ("<Response><Say>No</Say><Hangup/><Say>x</Say></Response>", ["Say: No", "Hangup"], "the bridge hung up", True),
        ("<Response><Pause length='0.02'/></Response>", ["Pause: 0.02"], "the TwiML came to its end", True),
        ("<Response><Dial>+15551</Dial></Response>", ["Dial: +15551"], "the TwiML came to its end", True),
        ("<Response/>", [], "the TwiML came to its end", True),
    ],
)  # fmt: skip
async def test_twiml_is_obeyed(twiml: str, steps: list[str], ended: str, answered: bool) -> None:
    async with serving(twiml) as bridge:
        call = await dial(bridge)
    assert (call.steps, call.ended, call.answered, call.completed) == (steps, ended, answered, answered)


async def test_when_the_bridge_closes_the_stream_the_following_verbs_are_obeyed() -> None:
    async def close(line: Line) -> None:
        async for message in line:
            if message["event"] == "media":
                return

    async with serving(f"<Response><Connect>{STREAM}</Connect><Say>Sorry.</Say></Response>", close) as bridge:
        call = await dial(bridge, None)
        assert not bridge.lines[0].of("stop")
    assert call.steps == ["Connect", "Say: Sorry."]
    assert (call.stream_ended, call.ended) == ("the bridge closed the stream", "the TwiML came to its end")


async def test_an_action_takes_the_place_of_the_following_verbs() -> None:
    async def close(line: Line) -> None:
        async for message in line:
            if message["event"] == "media":
                await line.ws.close(code=1011, message=b"engine lost")

    twiml = f'<Response><Connect action="after?a=1">{STREAM}</Connect><Say>Never.</Say></Response>'
    async with serving(twiml, close, after="<Response><Say>Goodbye.</Say><Hangup/></Response>") as bridge:
        call = await dial(bridge, None)
        assert bridge.forms("/after")[0]["CallStatus"] == "in-progress"
        assert bridge.forms("/after")[0]["CallSid"] == call.sid
    assert call.steps == ["Connect", "Say: Goodbye.", "Hangup"]
    assert call.stream_ended == "the bridge closed the stream with code 1011 engine lost"


async def test_a_caller_who_hangs_up_is_reported_to_the_action_and_hears_no_more() -> None:
    twiml = f'<Response><Connect action="/after">{STREAM}</Connect><Say>Never.</Say></Response>'
    async with serving(twiml, after="<Response><Say>Never.</Say></Response>") as bridge:
        call = await dial(bridge, 0.1)
        assert [form["CallStatus"] for form in bridge.forms("/after")] == ["completed"]
    assert call.steps == ["Connect"]
    assert not call.errors


async def test_an_action_that_fails_does_not_spoil_a_call_that_is_over() -> None:
    twiml = f'<Response><Connect action="/nowhere">{STREAM}</Connect></Response>'
    async with serving(twiml, echo) as bridge:
        call = await dial(bridge, 0.2)
    assert [error.code for error in call.errors] == [11200]
    assert call.completed


async def test_the_bridge_can_complete_a_call_or_give_it_new_twiml_through_twilio() -> None:
    async with serving(f"<Response><Connect>{STREAM}</Connect><Say>Never.</Say></Response>") as bridge:
        async with calling(bridge) as (phone, task):
            phone.update("<Response><Dial>+15553</Dial><Pause length='60'/></Response>")
            await phone.until(lambda call: "Pause: 60" in call.steps)
            phone.complete()
            call = await task
        assert [m["event"] for m in bridge.lines[0].messages][-1] == "stop"
    assert call.steps == ["Connect", "Dial: +15553", "Pause: 60"]
    assert call.ended == "the bridge completed the call"


async def test_inline_twiml_needs_no_webhook() -> None:
    async with serving() as bridge, Phone(f"{bridge.url}/voice") as phone:
        stream = bridge.url.replace("http", "ws") + "/stream"
        call = await phone.call(0.1, twiml=CONNECT.format(stream=stream))
        assert bridge.requests == []
        assert len(bridge.lines) == 1
    assert call.steps == ["Connect"]


async def test_stream_status_is_posted() -> None:
    twiml = '<Response><Connect><Stream url="{stream}" name="n" statusCallback="/status"/></Connect></Response>'
    async with serving(twiml, status="<Response/>") as bridge:
        call = await dial(bridge, 0.1)
        started, stopped = bridge.forms("/status")
    assert (started["StreamEvent"], stopped["StreamEvent"]) == ("stream-started", "stream-stopped")
    assert started.keys() == {"AccountSid", "CallSid", "StreamSid", "StreamName", "StreamEvent", "Timestamp"}
    assert started["StreamSid"] == call.stream_sid
    assert started["StreamName"] == "n"


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


async def test_marks_come_back_when_their_sound_was_heard_and_all_at_a_clear() -> None:
    async def marking(line: Line) -> None:
        async for message in line:
            match message["event"]:
                case "start":
                    await line.send("mark", {"name": "empty"})
                    await line.play(b"\x00" * 480)
                    await line.send("mark", {"name": "60 ms"})
                    await line.play(b"\x00" * 80_000)
                    await line.send("mark", {"name": "never"})
                case "mark" if message["mark"]["name"] == "60 ms":
                    await line.send("clear")

    async with serving(talk=marking) as bridge, calling(bridge) as (phone, _):
        call = await phone.until(lambda call: len(call.marks) == 3 and call.marks[2].cleared)
        await bridge.lines[0].until(lambda: len(bridge.lines[0].of("mark")) == 3)
        assert [m["mark"]["name"] for m in bridge.lines[0].of("mark")] == ["empty", "60 ms", "never"]
    empty, short, never = call.marks
    assert empty.returned == pytest.approx(empty.came, abs=0.001)
    assert not empty.cleared
    # Sixty milliseconds begin to be heard at the next tick and are echoed three ticks on; timers are a few ms off.
    assert short.returned is not None
    assert 0.055 <= short.returned - short.came < 0.13
    assert not short.cleared
    assert never.returned is not None
    assert never.returned < 1.0
    assert len(call.clears) == 1


async def test_keys_are_pressed_in_order_and_w_waits() -> None:
    async with serving() as bridge, calling(bridge) as (phone, _):
        phone.press("1w#")
        call = await phone.until(lambda call: len(call.digits) == 2)
        await bridge.lines[0].until(lambda: len(bridge.lines[0].of("dtmf")) == 2)
        assert [m["dtmf"]["digit"] for m in bridge.lines[0].of("dtmf")] == ["1", "#"]
    (first, _), (second, _) = call.digits
    assert second - first == pytest.approx(0.8, abs=0.05)
    with pytest.raises(ValueError, match="cannot press 'x'"):
        Phone("http://127.0.0.1/", digits="1x")


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
    assert np.max(np.diff(line.times)) == pytest.approx(0.4, abs=0.05)
    came = np.array([arrival.at for arrival in call.arrivals])
    assert not np.any((came > 0.34) & (came < 0.69))
    assert np.sum((came >= 0.69) & (came < 0.73)) >= 15
    assert max(gap.length for gap in call.gaps) == pytest.approx(0.4 * 8000, abs=500)


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


async def test_two_calls_on_one_clock_hear_each_its_own_sound_to_the_sample() -> None:
    clock, time_axis = Clock(), np.arange(8000) / 8000
    voices = [(8000 * np.sin(2 * np.pi * hertz * time_axis**2)).astype(np.int16) for hertz in (600, 1500)]
    async with serving(talk=echo) as bridge:
        calls = await asyncio.gather(*(dial(bridge, 1.2, sound=voice, clock=clock) for voice in voices))
    for call, voice in zip(calls, voices, strict=True):
        said = g711.encode(voice)
        assert bytes(call.spoken_bytes)[: len(said)] == said
        at = bytes(call.heard_bytes).index(said[:2000])
        # A chunk leaves 20 ms after it began and its echo waits for the next tick: two ticks, or more under load.
        assert at % 160 == 0
        assert at >= 320
        assert {echo.delay for echo in Result.of(call).echoes} >= {at}


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
