"""What Twilio asks of us: who is believed, and what each question is answered with."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest
from multidict import MultiDict
from twilio.request_validator import RequestValidator
from yarl import URL

from tests.conftest import Bridge, Dial, LogLines
from tests.turned import InlineChild
from tests.twilio_rest import ACCOUNT_SID, AUTH_TOKEN, TwilioRest, refusal
from voice_bridge.bridge import ledger
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone import Phone
from voice_bridge.bridge.switchboard import End
from voice_bridge.engines.host import HostEngine

PUBLIC = "https://bridge.example.com/voice-bridge"  # a proxy in front takes the path off again
CALLER = "+15550100001"
OURS = "+15550100000"
DESK = "+15550100007"
ACCOUNT: dict[str, Any] = {
    "server__public_url": PUBLIC,
    "twilio__account_sid": ACCOUNT_SID,
    "twilio__auth_token": AUTH_TOKEN,
}
AT_HOST = ACCOUNT | {"server__public_url": "https://bridge.example.com"}
APOLOGY = ("Say", "Sorry, something went wrong. Please call again later.")
HANGUP = ("Hangup", None)
FORM = {"CallSid": "CA1", "From": CALLER, "To": OURS, "Direction": "inbound", "CallStatus": "ringing"}
Form = Mapping[str, str]


def form(call: str = "CA1", **given: str) -> dict[str, str]:
    return FORM | {"CallSid": call} | given


def signature(url: str, params: Form | None = None) -> dict[str, str]:
    return {"X-Twilio-Signature": RequestValidator(AUTH_TOKEN).compute_signature(url, params or {})}


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioRest]:
    async with TwilioRest() as server:
        yield server


class Twilio:
    """Sends webhooks; signed for the public address where the bridge has a token."""

    def __init__(self, session: aiohttp.ClientSession, daemon: Daemon) -> None:
        self._session = session
        self._daemon = daemon
        self._signs = bool(daemon.settings.twilio.auth_token)

    async def post(self, path: str, params: Form, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        if headers is None:
            headers = signature(PUBLIC + path, params) if self._signs else {}
        url = URL(self._daemon.url + path, encoded=True)
        async with self._session.post(url, data=params, headers=headers) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str, params: Form) -> tuple[int, str]:
        asked = f"{path}?{URL.build(query=params).raw_query_string}"
        headers = signature(PUBLIC + asked) if self._signs else {}
        async with self._session.get(URL(self._daemon.url + asked, encoded=True), headers=headers) as answer:
            return answer.status, await answer.text()

    async def verbs(self, params: Form | None = None, path: str = "/twilio/voice") -> list[tuple[str, str | None]]:
        status, text = await self.post(path, FORM if params is None else params)
        assert status == 200
        return outline(text)


def outline(document: str) -> list[tuple[str, str | None]]:
    return [(verb.tag, verb.text) for verb in ET.fromstring(document)]


# Letting in


@pytest.mark.parametrize("method", ["post", "get"])
async def test_a_call_is_connected_to_the_stream(bridge: Bridge, http: aiohttp.ClientSession, method: str) -> None:
    daemon = await bridge()
    ask = getattr(Twilio(http, daemon), method)
    status, text = await ask("/twilio/voice", FORM)
    assert status == 200
    [connect] = ET.fromstring(text)
    assert connect.attrib == {"action": daemon.url + "/twilio/ended"}
    [stream] = connect
    assert stream.attrib == {
        "url": daemon.url.replace("http", "ws") + "/twilio/stream",
        "statusCallback": daemon.url + "/twilio/status",
    }
    [parameter] = stream
    assert parameter.attrib["name"] == "token"
    assert daemon.board.admission.confirm("CA1", parameter.attrib["value"]).caller == CALLER


async def test_the_answer_is_xml(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    async with http.post(daemon.url + "/twilio/voice", data=FORM) as answer:
        assert answer.content_type == "text/xml"


async def test_with_credentials_the_apology_follows_the_stream(
    bridge: Bridge, http: aiohttp.ClientSession, twilio: TwilioRest
) -> None:
    daemon = await bridge(**ACCOUNT, twilio__api_url=twilio.url, calls__fallback_number=DESK)
    _, text = await Twilio(http, daemon).post("/twilio/voice", FORM)
    assert [tag for tag, _ in outline(text)] == ["Connect", "Say", "Dial"]
    assert outline(text)[1:] == [APOLOGY, ("Dial", DESK)]
    connect = ET.fromstring(text)[0]
    assert connect.attrib == {}
    assert connect[0].attrib == {
        "url": "wss://bridge.example.com/voice-bridge/twilio/stream",
        "statusCallback": PUBLIC + "/twilio/status",
    }


async def test_each_number_is_answered_its_own_way(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    numbers = [{"number": OURS, "apology": "We are sorry.", "busy": "say", "busy_sentence": "We are full."}]
    daemon = await bridge(slots=1, numbers=numbers)
    twilio = Twilio(http, daemon)
    assert await twilio.verbs(form("CAunknown"), "/twilio/ended") == [("Say", "We are sorry.")]
    assert (await twilio.verbs())[0][0] == "Connect"
    assert await twilio.verbs(form("CA2")) == [("Say", "We are full."), HANGUP]
    assert await twilio.verbs(form("CA3", To=DESK)) == [("Reject", None)]


async def test_on_our_own_calls_the_number_called_is_the_caller(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge(numbers=[{"number": OURS, "apology": "We are sorry."}])
    await dial(daemon, caller=OURS, number=CALLER, form={"Direction": "outbound-api"})
    [call] = [ledger.describe(call) for call in daemon.board.calls.values()]
    assert (call.direction, call.caller, call.number) == ("outbound-api", CALLER, OURS)
    asked = form("CAunknown", From=OURS, To=CALLER, Direction="outbound-api")
    assert await Twilio(http, daemon).verbs(asked, "/twilio/ended") == [("Say", "We are sorry.")]


# Sending away


async def test_a_full_bridge_gives_the_busy_tone(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge(slots=1))
    await twilio.verbs()
    _, text = await twilio.post("/twilio/voice", form("CA2"))
    [reject] = ET.fromstring(text)
    assert (reject.tag, reject.attrib) == ("Reject", {"reason": "busy"})
    assert (await twilio.verbs())[0][0] == "Connect"  # the same call asks again


async def test_without_an_engine_the_caller_hears_the_apology(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    engine = HostEngine("echo", "", 1)
    child = InlineChild(engine, 1)
    engine.child = child  # type: ignore[assignment]
    twilio = Twilio(http, await bridge(engine=engine, calls__fallback_number=DESK, calls__busy="say"))
    child.lose()
    assert await twilio.verbs() == [APOLOGY, ("Dial", DESK)]
    child.come_back()
    assert (await twilio.verbs())[0][0] == "Connect"


async def test_200_callers_at_once_at_a_door_for_10_all_get_their_answer(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge(slots=10)
    twilio = Twilio(http, daemon)
    callers = (form(f"CA{n}", From=f"+1555{n:07}") for n in range(200))
    answers = await asyncio.gather(*(twilio.verbs(caller) for caller in callers))
    assert Counter(answer[0][0] for answer in answers) == {"Connect": 10, "Reject": 190}
    assert daemon.board.metrics.refused == {"busy": 190}


async def test_a_machine_that_takes_our_call_is_hung_up_on_if_wanted(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    twilio = Twilio(http, await bridge(slots=1, twilio__on_machine="hangup"))
    ours = {"Direction": "outbound-api", "From": OURS, "To": CALLER}
    for answered_by in ("machine_start", "machine_end_beep", "machine_end_silence", "machine_end_other", "fax"):
        assert await twilio.verbs(form(**ours, AnsweredBy=answered_by)) == [HANGUP]
        assert (await twilio.verbs(form(AnsweredBy=answered_by)))[0][0] == "Connect"  # it called us
    for answered_by in ("human", "unknown"):
        assert (await twilio.verbs(form(**ours, AnsweredBy=answered_by)))[0][0] == "Connect"


async def test_a_machine_is_talked_to_otherwise(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge())
    assert (await twilio.verbs(form(Direction="outbound-api", AnsweredBy="machine_start")))[0][0] == "Connect"


# Signatures


async def test_a_signed_request_is_believed(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge(**ACCOUNT))
    for query in ("", "?x=%20y&z"):
        status, _ = await twilio.post("/twilio/voice" + query, FORM)
        assert status == 200
    status, _ = await twilio.get("/twilio/voice", FORM)
    assert status == 200


async def test_every_value_of_a_repeated_parameter_is_signed(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge(**ACCOUNT))
    twice = MultiDict([*FORM.items(), ("SipHeader_X", "b"), ("SipHeader_X", "a")])
    status, _ = await twilio.post("/twilio/voice", twice)
    assert status == 200
    status, _ = await twilio.post("/twilio/voice", twice, signature(PUBLIC + "/twilio/voice", dict(twice)))
    assert status == 403


async def test_an_unsigned_request_is_refused(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(slots=1, **ACCOUNT)
    twilio = Twilio(http, daemon)
    for path in ("/twilio/voice", "/twilio/ended", "/twilio/status"):
        for headers in (
            {},
            {"X-Twilio-Signature": ""},
            {"X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
            signature(PUBLIC + path, form("CA2")),
            signature(PUBLIC + path),
            signature(daemon.url + path, FORM),
            signature("https://evil.example" + path, FORM) | {"X-Forwarded-Host": "evil.example"},
            signature("http://bridge.example.com/voice-bridge" + path, FORM) | {"X-Forwarded-Proto": "http"},
        ):
            status, text = await twilio.post(path, FORM, headers)
            assert (status, json.loads(text)) == (403, {"error": "the signature does not fit"})
    assert daemon.engine.capacity().reserved == 0


async def test_what_the_proxy_says_of_itself_plays_no_part(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge(**ACCOUNT))
    headers = signature(PUBLIC + "/twilio/voice", FORM) | {
        "Host": "10.0.0.7:8080",
        "X-Forwarded-Proto": "http",
        "Forwarded": "host=evil.example",
    }
    status, _ = await twilio.post("/twilio/voice", FORM, headers)
    assert status == 200


async def test_the_log_says_which_address_was_hashed(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    twilio = Twilio(http, await bridge(**ACCOUNT))
    await twilio.post("/twilio/voice?x=%20y", FORM, {})
    [line] = [line for line in log_lines if "hashed_url" in line]
    assert line["hashed_url"] == PUBLIC + "/twilio/voice?x=%20y"
    assert line["log_level"] == "warning"
    assert "server.public_url" in line["remedy"]
    assert AUTH_TOKEN not in str(log_lines)


async def test_a_bridge_without_a_token_believes_this_machine_only(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    twilio = Twilio(http, daemon)
    for headers in (
        {"Host": "evil.example"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"Origin": "https://evil.example"},
    ):
        for path in ("/twilio/voice", "/twilio/ended", "/twilio/status"):
            status, text = await twilio.post(path, FORM, headers)
            assert status == 403
            assert json.loads(text)["error"]
    assert daemon.engine.capacity().reserved == 0


# What no Twilio sends


@pytest.mark.parametrize("method", ["post", "get"])
async def test_a_request_without_a_call_is_a_bad_request(
    bridge: Bridge, http: aiohttp.ClientSession, method: str
) -> None:
    ask = getattr(Twilio(http, await bridge()), method)
    for given in ({}, {"CallSid": ""}, {"From": CALLER}):
        status, text = await ask("/twilio/voice", given)
        assert status == 400
        assert "CallSid" in json.loads(text)["error"]


FORM_TYPE = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=x"
BODIES: dict[str, tuple[str, bytes]] = {
    "a file": (PARTS, b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nhello\r\n--x--\r\n'),
    "bytes": (
        PARTS,
        b'--x\r\nContent-Disposition: form-data; name="f"\r\nContent-Type: application/pdf\r\n\r\nhello\r\n--x--\r\n',
    ),
    "no boundary": ("multipart/form-data", b"--x\r\n\r\n--x--\r\n"),
    "another boundary": ("multipart/form-data; boundary=y", b"--x\r\n\r\n--x--\r\n"),
    "a part without a name": (PARTS, b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--\r\n"),
    "parts in a part": (
        PARTS,
        b'--x\r\nContent-Type: multipart/mixed; boundary=y\r\nContent-Disposition: form-data; name="f"\r\n\r\n'
        b"--y\r\n\r\nhello\r\n--y--\r\n--x--\r\n",
    ),
    "half a part": (PARTS, b'--x\r\nContent-Disposition: form-data; name="f'),
    "a part in an unknown charset": (
        PARTS,
        b'--x\r\nContent-Disposition: form-data; name="f"\r\nContent-Type: text/plain; charset=klingon\r\n\r\n'
        b"hello\r\n--x--\r\n",
    ),
    "json": ("application/json", b'{"CallSid": "CA1"}'),
    "no type": ("", b"CallSid"),
    "text": ("text/plain", b"CallSid=CA1"),
    "not UTF-8": (FORM_TYPE, b"From=\xff\xfe"),
    "half a character": (FORM_TYPE, b"From=%ff%c3"),
    "an unknown charset": (FORM_TYPE + "; charset=klingon", b"From=x"),
    "a codec that is no charset": (FORM_TYPE + "; charset=base64", b"From=x"),
    "separators only": (FORM_TYPE, b"&&==&=&"),
    "100,000 bytes": (FORM_TYPE, b"From=" + b"1" * 100_000),
    "100,000 bytes in parts": (
        PARTS,
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"1" * 100_000 + b"\r\n--x--\r\n",
    ),
    "20,000 parameters": (FORM_TYPE, b"a=1&" * 15_000),
}


@pytest.mark.parametrize("settings", [{}, ACCOUNT], ids=["open", "signed"])
async def test_a_body_that_is_no_form_is_the_senders_fault(
    bridge: Bridge, http: aiohttp.ClientSession, settings: dict[str, Any], log_lines: LogLines
) -> None:
    daemon = await bridge(**settings)
    for name, (content_type, body) in BODIES.items():
        headers = {"Content-Type": content_type}
        async with http.post(daemon.url + "/twilio/voice", data=body, headers=headers) as answer:
            assert 400 <= answer.status < 500, f"{name}: {answer.status}"
            assert "error" in await answer.json(), name
    assert daemon.engine.capacity().reserved == 0
    assert not [line for line in log_lines if line["log_level"] == "error"]


async def test_a_compressed_body_that_is_none_is_the_senders_fault(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    headers = {"Content-Encoding": "gzip", "Content-Type": FORM_TYPE}
    async with http.post(daemon.url + "/twilio/voice", data=b"CallSid=CA1", headers=headers) as answer:
        assert answer.status == 400


# Status callbacks


async def test_a_call_that_is_over_before_its_stream_frees_its_slot(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge(slots=1)
    twilio = Twilio(http, daemon)
    for over in ("completed", "busy", "failed", "no-answer", "canceled"):
        await twilio.verbs()
        for status in ("initiated", "ringing", "in-progress", ""):
            assert (await twilio.post("/twilio/status", form(CallStatus=status)))[0] == 204
        assert daemon.engine.capacity().reserved == 1
        assert (await twilio.post("/twilio/status", form(CallStatus=over)))[0] == 204
        assert daemon.engine.capacity().reserved == 0


async def test_a_live_call_that_twilio_calls_over_is_ended(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    phone = await dial(daemon)
    [call] = daemon.board.calls.values()
    twilio = Twilio(http, daemon)
    await twilio.post("/twilio/status", form(call.id, CallStatus="in-progress"))
    assert not call.over.done()
    await twilio.post("/twilio/status", form(call.id, CallStatus="completed"))
    async with asyncio.timeout(5):
        assert await call.over == End.CALLER
        await call.finished
    assert daemon.engine.capacity().used == 0
    await phone.until(lambda record: bool(record.stream_ended))


async def test_a_status_about_nobody_is_taken(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    twilio = Twilio(http, await bridge())
    assert (await twilio.post("/twilio/status", {}))[0] == 204
    assert (await twilio.post("/twilio/status", form("CAunknown", CallStatus="completed")))[0] == 204
    assert (await twilio.get("/twilio/status", FORM))[0] == 405


async def test_a_stream_that_twilio_could_not_open_is_logged(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    twilio = Twilio(http, await bridge())
    await twilio.post("/twilio/status", form(StreamEvent="stream-error", StreamError="no route"))
    [line] = [line for line in log_lines if line["log_level"] == "warning"]
    assert (line["call"], line["error"]) == ("CA1", "no route")


# After the stream


async def test_no_planned_end_plays_the_apology_and_every_failure_does(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge(slots=20, calls__fallback_number=DESK)
    twilio, admission = Twilio(http, daemon), daemon.board.admission
    said = {}
    for end in End:
        ticket = admission.reserve(end, "", OURS)
        admission.confirm(end, ticket.token)
        admission.leave(ticket, end)
        said[end] = await twilio.verbs(form(end), "/twilio/ended")
    failures = {End.CLOSED, End.DEAD, End.SLOW, End.PROTOCOL, End.ENGINE, End.FAULT}
    assert said == {end: [APOLOGY, ("Dial", DESK)] if end in failures else [HANGUP] for end in End}


async def test_a_call_that_nobody_knows_hears_the_apology(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    assert await Twilio(http, await bridge()).verbs(form("CAunknown"), "/twilio/ended") == [APOLOGY]


async def test_a_transfer_goes_on_to_its_number(bridge: Bridge, dial: Dial) -> None:
    daemon = await bridge(twilio__caller_id=OURS)
    phone = await dial(daemon)
    [call] = daemon.board.calls.values()
    call.transfer(DESK)
    record = await phone.until(lambda record: "Connect" not in record.steps[-1:])
    assert record.steps == ["Connect", f"Dial: {DESK}"]
    assert record.errors == []


async def test_a_cut_stream_ends_in_the_apology(bridge: Bridge, dial: Dial) -> None:
    phone = await dial(await bridge())
    phone.cut()
    record = await phone.until(lambda record: len(record.steps) > 1)
    assert record.steps == ["Connect", "Say: " + str(APOLOGY[1])]


# With credentials: the call is ended at Twilio before its stream is closed


async def test_a_planned_end_is_told_to_twilio_before_the_stream_is_closed(
    bridge: Bridge, dial: Dial, twilio: TwilioRest
) -> None:
    daemon = await bridge(**AT_HOST, twilio__api_url=twilio.url)
    phone = await dial(daemon, auth_token=AUTH_TOKEN)
    [call] = daemon.board.calls.values()
    twilio.add_call(call.id)
    seen: list[tuple[Form, str]] = []

    def completed(sid: str, change: Form) -> None:
        assert phone.record is not None
        seen.append((change, phone.record.stream_ended))
        phone.complete()

    twilio.on_update = completed
    call.end(End.OPERATOR)
    await call.finished
    assert seen == [({"Status": "completed"}, "")]
    assert phone.record is not None
    assert phone.record.steps == ["Connect"]
    assert phone.record.errors == []


async def test_a_transfer_is_told_to_twilio(bridge: Bridge, dial: Dial, twilio: TwilioRest) -> None:
    daemon = await bridge(**AT_HOST, twilio__api_url=twilio.url, twilio__caller_id=OURS)
    phone = await dial(daemon, auth_token=AUTH_TOKEN)
    [call] = daemon.board.calls.values()
    twilio.add_call(call.id)
    twilio.on_update = lambda sid, change: phone.update(change["Twiml"])
    call.transfer(DESK)
    record = await phone.until(lambda record: len(record.steps) > 1)
    assert record.steps == ["Connect", f"Dial: {DESK}"]


@pytest.mark.parametrize("trouble", ["unknown call", "refused"])
async def test_a_call_that_twilio_does_not_end_is_closed_all_the_same(
    bridge: Bridge, dial: Dial, twilio: TwilioRest, log_lines: LogLines, trouble: str
) -> None:
    daemon = await bridge(**AT_HOST, twilio__api_url=twilio.url)
    phone: Phone = await dial(daemon, auth_token=AUTH_TOKEN)
    if trouble == "refused":
        twilio.answers.append(refusal(500, 20500, "Internal"))
    [call] = daemon.board.calls.values()
    call.end(End.OPERATOR)
    await call.finished
    assert daemon.engine.capacity().used == 0
    warned = [line["call"] for line in log_lines if line["event"] == "Twilio did not end the call"]
    assert warned == ([call.id] if trouble == "refused" else [])
    await phone.until(lambda record: bool(record.stream_ended))


# The stream's door


async def opened(session: aiohttp.ClientSession, daemon: Daemon, headers: Mapping[str, str] | None = None) -> int:
    """The status of a handshake: 101 when the stream opens."""
    try:
        async with session.ws_connect(daemon.url + "/twilio/stream", headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


HANDSHAKE = "wss://bridge.example.com/voice-bridge/twilio/stream"


async def test_an_unsigned_handshake_is_refused_if_that_is_wanted(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    daemon = await bridge(**ACCOUNT, twilio__enforce_handshake=True)
    assert await opened(http, daemon) == 403
    assert await opened(http, daemon, signature("wss://evil.example/twilio/stream")) == 403
    assert "handshake is not signed" in log_lines[0]["event"]
    assert await opened(http, daemon, signature(HANDSHAKE)) == 101


async def test_an_unsigned_handshake_is_only_logged_otherwise(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    daemon = await bridge(**ACCOUNT)
    assert await opened(http, daemon) == 101
    assert await opened(http, daemon, signature(HANDSHAKE)) == 101
    unsigned, signed = [line for line in log_lines if "handshake" in line["event"]]
    assert "not signed" in unsigned["event"]
    assert signed["as_url"] == HANDSHAKE


@pytest.mark.parametrize("settings", [{}, ACCOUNT], ids=["open", "signed"])
async def test_a_web_page_opens_no_stream(
    bridge: Bridge, http: aiohttp.ClientSession, settings: dict[str, Any]
) -> None:
    daemon = await bridge(**settings)
    assert await opened(http, daemon, {"Origin": "https://evil.example"}) == 403
    assert await opened(http, daemon, {"Origin": "null"}) == 403


async def test_an_open_bridge_streams_with_this_machine_only(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    assert await opened(http, daemon) == 101
    assert await opened(http, daemon, {"Host": "evil.example"}) == 403
    assert await opened(http, daemon, {"X-Forwarded-For": "192.0.2.1"}) == 403


async def test_a_plain_request_for_the_stream_is_a_bad_request(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    async with http.get(daemon.url + "/twilio/stream") as answer:
        assert answer.status == 400
        assert "error" in await answer.json()
    async with http.post(daemon.url + "/twilio/stream", data=FORM) as answer:
        assert answer.status == 405


async def test_a_stream_that_begins_with_bytes_is_closed_and_costs_no_slot(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    async with http.ws_connect(daemon.url + "/twilio/stream") as socket:
        await socket.send_bytes(b"\xff" * 160)
        message = await socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    assert daemon.engine.capacity().used == 0
    assert daemon.board.metrics.protocol_errors == {"twilio": 1}
