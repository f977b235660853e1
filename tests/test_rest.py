import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from tests.twilio_rest import ACCOUNT_SID, AUTH_TOKEN, TwilioRest, refusal
from voice_bridge.bridge.telephony.rest import API_URL, Number, Rest, TelephonyError

OURS = "+31201234567"
THEIRS = "+31207654321"
WEBHOOK = "https://a.example/twilio/voice"
STATUS = "https://a.example/twilio/status"


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioRest]:
    async with TwilioRest() as server:
        server.add_number(OURS, voice_url="https://before.example/voice")
        yield server


@pytest.fixture
async def rest(twilio: TwilioRest) -> AsyncIterator[Rest]:
    rest = Rest(ACCOUNT_SID, AUTH_TOKEN, twilio.url)
    yield rest
    await rest.close()


# Hanging up and passing on


async def test_a_call_is_hung_up(twilio: TwilioRest, rest: Rest) -> None:
    sid = twilio.add_call()
    assert await rest.complete(sid) is True
    assert twilio.calls[sid]["status"] == "completed"


async def test_the_telephone_hangs_up_before_the_bridge_hears_that_it_did(twilio: TwilioRest, rest: Rest) -> None:
    hung_up: list[tuple[str, Mapping[str, str]]] = []

    async def telephone(sid: str, form: Mapping[str, str]) -> None:
        hung_up.append((sid, form))

    twilio.on_update = telephone
    sid = twilio.add_call()
    await rest.complete(sid)
    assert hung_up == [(sid, {"Status": "completed"})]


async def test_hanging_up_a_call_that_is_over_is_no_error(twilio: TwilioRest, rest: Rest) -> None:
    assert await rest.complete("CAunknown") is False
    assert await rest.complete(twilio.add_call(status="completed")) is False
    twilio.answers.append(web.Response(status=404, text="<html>gone</html>"))
    assert await rest.complete(twilio.add_call()) is False


async def test_a_hang_up_that_failed_is_an_error(twilio: TwilioRest, rest: Rest) -> None:
    twilio.answers.append(refusal(400, 21218, "Invalid ApplicationSid"))
    with pytest.raises(TelephonyError, match="21218"):
        await rest.complete(twilio.add_call())


async def test_an_odd_sid_reaches_no_other_resource(twilio: TwilioRest, rest: Rest) -> None:
    [number] = twilio.numbers
    assert await rest.complete(f"../IncomingPhoneNumbers/{number}") is False
    assert "status" not in twilio.numbers[number]


async def test_a_transfer_dials_the_number(twilio: TwilioRest, rest: Rest) -> None:
    sid = twilio.add_call()
    assert await rest.transfer(sid, THEIRS, caller_id=OURS) is True
    [dial] = ET.fromstring(twilio.requests[-1].form["Twiml"])
    assert (dial.tag, dial.text, dial.attrib) == ("Dial", THEIRS, {"callerId": OURS})
    assert twilio.calls[sid]["status"] == "in-progress"


async def test_a_call_that_is_over_is_not_transferred(rest: Rest) -> None:
    assert await rest.transfer("CAunknown", THEIRS) is False


# Placing calls


async def test_a_placed_call_fetches_its_twiml_from_our_webhook(twilio: TwilioRest, rest: Rest) -> None:
    sid = await rest.place(THEIRS, OURS, WEBHOOK)
    assert sid in twilio.calls
    assert dict(twilio.requests[-1].form) == {
        "To": THEIRS,
        "From": OURS,
        "Url": WEBHOOK,
        "Method": "POST",
        "Timeout": "60",
    }


async def test_a_placed_call_reports_each_step(twilio: TwilioRest, rest: Rest) -> None:
    await rest.place(THEIRS, OURS, WEBHOOK, status_callback=STATUS, machine_detection="Enable", timeout=20)
    form = twilio.requests[-1].form
    assert (form["StatusCallback"], form["StatusCallbackMethod"]) == (STATUS, "POST")
    assert form.getall("StatusCallbackEvent") == ["initiated", "ringing", "answered", "completed"]
    assert (form["MachineDetection"], form["Timeout"]) == ("Enable", "20")


async def test_digits_are_sent_after_the_answer(twilio: TwilioRest, rest: Rest) -> None:
    await rest.place(THEIRS, OURS, WEBHOOK, send_digits="ww12#")
    assert twilio.requests[-1].form["SendDigits"] == "ww12#"


async def test_digits_and_machine_detection_exclude_each_other(twilio: TwilioRest, rest: Rest) -> None:
    with pytest.raises(TelephonyError, match="leave out one"):
        await rest.place(THEIRS, OURS, WEBHOOK, machine_detection="Enable", send_digits="1")
    assert twilio.requests == []


# Numbers


async def test_the_numbers_are_listed_over_all_pages(twilio: TwilioRest, rest: Rest) -> None:
    sids = [twilio.add_number(f"+3197{i:08}") for i in range(1000)]
    numbers = await rest.numbers()
    assert numbers[0] == Number(next(iter(twilio.numbers)), OURS, "https://before.example/voice")
    assert [number.sid for number in numbers[1:]] == sids
    assert len(twilio.requests) == 2


async def test_a_number_is_pointed_at_this_bridge(twilio: TwilioRest, rest: Rest) -> None:
    assert await rest.point(OURS, WEBHOOK, STATUS, "https://b.example/sorry") == "https://before.example/voice"
    [number] = twilio.numbers.values()
    assert number["voice_url"] == WEBHOOK
    assert number["status_callback"] == STATUS
    assert number["voice_fallback_url"] == "https://b.example/sorry"
    assert (number["voice_method"], number["status_callback_method"]) == ("POST", "POST")
    assert "voice_application_sid" not in number


async def test_a_fallback_that_is_set_stays_unless_another_is_given(twilio: TwilioRest, rest: Rest) -> None:
    sid = twilio.add_number(THEIRS, voice_fallback_url="https://b.example/sorry")
    assert await rest.point(THEIRS, WEBHOOK, STATUS) == ""
    assert twilio.numbers[sid]["voice_fallback_url"] == "https://b.example/sorry"


async def test_an_application_or_trunk_that_would_win_over_the_webhook_is_taken_off(
    twilio: TwilioRest, rest: Rest
) -> None:
    sid = twilio.add_number(THEIRS, voice_application_sid="AP1", trunk_sid="TK1")
    await rest.point(THEIRS, WEBHOOK, STATUS)
    assert (twilio.numbers[sid]["voice_application_sid"], twilio.numbers[sid]["trunk_sid"]) == ("", "")


async def test_an_unknown_number_is_answered_with_the_accounts_numbers(twilio: TwilioRest, rest: Rest) -> None:
    with pytest.raises(TelephonyError, match=r"no number \+1; its numbers: \+31201234567"):
        await rest.point("+1", WEBHOOK, STATUS)
    twilio.numbers.clear()
    with pytest.raises(TelephonyError, match="buy one"):
        await rest.point(OURS, WEBHOOK, STATUS)


# What goes wrong


async def test_a_wrong_token_names_the_setting_and_stays_secret(
    twilio: TwilioRest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rest = Rest(ACCOUNT_SID, "wrong-secret", twilio.url)
    for request in (rest.numbers(), rest.complete(twilio.add_call()), rest.place(THEIRS, OURS, WEBHOOK)):
        with pytest.raises(TelephonyError, match="check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN") as error:
            await request
        assert "\n" not in str(error.value)
        assert "wrong-secret" not in str(error.value)
    await rest.close()
    assert "wrong-secret" not in caplog.text


async def test_requests_are_not_written_to_the_log(
    twilio: TwilioRest, rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await rest.complete(twilio.add_call())
    assert [record for record in caplog.records if record.name.startswith("twilio")] == []


@pytest.mark.parametrize(("sid", "token"), [("", "token"), ("AC1", ""), ("AC1", "“quoted”")])
def test_credentials_that_cannot_be_are_refused_at_once(sid: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC-of-the-environment")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token-of-the-environment")
    with pytest.raises(TelephonyError, match=r"^TWILIO_(ACCOUNT_SID|AUTH_TOKEN) is empty or not plain ASCII"):
        Rest(sid, token)


async def test_an_unverified_caller_is_told_the_remedy(rest: Rest) -> None:
    with pytest.raises(TelephonyError, match=r"21210.*not verified: \+1.*verify that number"):
        await rest.place(THEIRS, "+1", WEBHOOK)


async def test_an_error_without_a_remedy_of_ours_says_where_twilio_explains_it(twilio: TwilioRest, rest: Rest) -> None:
    twilio.answers.append(refusal(400, 21999, "Something\nnew"))
    with pytest.raises(TelephonyError, match=r"21999\): Something new; https://www.twilio.com/docs/errors/21999$"):
        await rest.numbers()


@pytest.mark.parametrize("text", ["<html>A proxy's page</html>", "[]", '{"one": 1, "two": 2}'])
async def test_an_answer_that_is_not_twilios_is_an_error(twilio: TwilioRest, rest: Rest, text: str) -> None:
    twilio.answers.append(web.Response(text=text))
    with pytest.raises(TelephonyError, match=rf"{twilio.url} answered"):
        await rest.numbers()


async def test_a_server_that_cannot_be_reached_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        rest = Rest(ACCOUNT_SID, AUTH_TOKEN, url)
        with pytest.raises(TelephonyError, match=rf"cannot reach {url} \(ConnectionError\)"):
            await rest.numbers()
        await rest.close()


async def test_a_server_that_does_not_answer_is_given_up(twilio: TwilioRest) -> None:
    twilio.door.clear()
    rest = Rest(ACCOUNT_SID, AUTH_TOKEN, twilio.url, timeout=0.1)
    with pytest.raises(TelephonyError, match=r"did not answer within 0\.1 s"):
        await rest.complete("CA1")
    await rest.close()


async def test_a_host_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait() and [])
    rest = Rest(ACCOUNT_SID, AUTH_TOKEN, "http://a.example", timeout=0.1)
    with pytest.raises(TelephonyError, match=r"http://a\.example did not answer within 0\.2 s"):
        await rest.complete("CA1")
    found.set()
    await rest.close()


# Off the event loop


async def test_a_slow_server_holds_up_neither_the_event_loop_nor_other_requests(twilio: TwilioRest, rest: Rest) -> None:
    sids = [twilio.add_call(), twilio.add_call()]
    twilio.door.clear()
    pending = [asyncio.create_task(rest.complete(sid)) for sid in sids]
    # The server runs on this very event loop: both arrive, so neither holds up the loop or the other.
    asked = {(await twilio.arrived.get()).path.rsplit("/", 1)[1] for _ in pending}
    assert asked == {f"{sid}.json" for sid in sids}
    assert not any(task.done() for task in pending)
    twilio.door.set()
    assert await asyncio.gather(*pending) == [True, True]


async def test_closing_waits_for_the_requests_under_way(twilio: TwilioRest) -> None:
    rest = Rest(ACCOUNT_SID, AUTH_TOKEN, twilio.url)
    sid = twilio.add_call()
    twilio.door.clear()
    hanging_up = asyncio.create_task(rest.complete(sid))
    await twilio.arrived.get()
    closing = asyncio.create_task(rest.close())
    twilio.door.set()
    await closing
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("twilio")]
    assert await hanging_up is True


# Where requests go


@pytest.mark.parametrize("prefix", ["", "/api/laml"])
async def test_requests_go_to_the_configured_base_whatever_the_environment_says(
    twilio: TwilioRest, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    rest = Rest(ACCOUNT_SID, AUTH_TOKEN, twilio.url + prefix + "/")
    assert await rest.complete("CA1") is False
    await rest.close()
    assert twilio.requests[0].path == f"{prefix}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/CA1.json"


def test_twilio_itself_is_the_default() -> None:
    assert API_URL == "https://api.twilio.com"
