"""The built-in phone against small real bridges: it calls as Twilio calls, and notices what Twilio would."""

import asyncio
import base64
import json

import numpy as np
import pytest
from aiohttp import WSCloseCode
from twilio.request_validator import RequestValidator

from tests.phone_bridge import CONNECT, STREAM, Line, calling, dial, echo, serving
from voice_bridge.bridge.phone import Clock, Phone
from voice_bridge.bridge.phone.report import Result
from voice_bridge.codecs import g711

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
        call = await dial(bridge, 0.6, sound=said)
        sent = b"".join(base64.b64decode(m["media"]["payload"]) for m in bridge.lines[0].of("media"))
    assert sent == g711.encode(said) + b"\xff" * (4800 - 1000) == bytes(call.spoken_bytes)
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
    began = bytes(call.heard_bytes).index(0) / 8000
    assert short.returned is not None
    assert began + 0.06 - 0.001 <= short.returned < began + 0.13
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


async def test_two_calls_on_one_clock_hear_each_its_own_sound_to_the_sample() -> None:
    clock, dice = Clock(), np.random.default_rng(1)
    voices = [(dice.standard_normal(4000) * 4000).astype(np.int16) for _ in range(2)]
    async with serving(talk=echo) as bridge:
        calls = await asyncio.gather(*(dial(bridge, 1.0, sound=voice, clock=clock) for voice in voices))
    for call, voice in zip(calls, voices, strict=True):
        said = g711.encode(voice)
        assert bytes(call.spoken_bytes)[: len(said)] == said
        at = bytes(call.heard_bytes).index(said)
        # The echo comes ten chunks late, a chunk leaves when it has been spoken, and its echo waits for the next tick.
        assert at in range(1600, 2400, 160)
        assert {echo.delay for echo in Result.of(call).echoes} == {at}
