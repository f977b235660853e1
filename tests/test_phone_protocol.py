"""The phone's half of Media Streams: what it says is what Twilio says, what it refuses is what Twilio refuses."""

import json
from typing import Any

import pytest
from twilio.request_validator import RequestValidator

from voice_bridge.bridge.phone.protocol import Clear, Mark, Media, MediaStream, TwilioError
from voice_bridge.bridge.phone.twiml import parse, signature, stream_error

SID = "MZ" + "0" * 32


@pytest.fixture
def errors() -> list[TwilioError]:
    return []


@pytest.fixture
def stream(errors: list[TwilioError]) -> MediaStream:
    stream = MediaStream("AC1", "CA1", {"t": "secret"}, errors)
    stream.sid = SID
    return stream


def media(**changes: Any) -> str:
    return json.dumps({"event": "media", "streamSid": SID, "media": {"payload": "f39/"}, **changes})


def test_messages_are_those_of_twilio_with_numbers_as_strings() -> None:
    stream = MediaStream("AC1", "CA1", {"t": "secret"}, [])
    said = [
        json.loads(message)
        for message in (
            stream.connected(),
            stream.start(),
            stream.media(b"\x7f\x7f\x7f", 0),
            stream.dtmf("5"),
            stream.mark("m"),
            stream.media(b"\xff", 1020),
            stream.stop(),
        )
    ]
    same = {"streamSid": stream.sid}
    assert said == [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start",
            "sequenceNumber": "1",
            **same,
            "start": {
                "accountSid": "AC1",
                "streamSid": stream.sid,
                "callSid": "CA1",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"t": "secret"},
            },
        },
        {
            "event": "media",
            "sequenceNumber": "2",
            **same,
            "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": "f39/"},
        },
        {"event": "dtmf", "sequenceNumber": "3", **same, "dtmf": {"track": "inbound_track", "digit": "5"}},
        {"event": "mark", "sequenceNumber": "4", **same, "mark": {"name": "m"}},
        {
            "event": "media",
            "sequenceNumber": "5",
            **same,
            "media": {"track": "inbound", "chunk": "2", "timestamp": "1020", "payload": "/w=="},
        },
        {"event": "stop", "sequenceNumber": "6", **same, "stop": {"accountSid": "AC1", "callSid": "CA1"}},
    ]
    assert len(stream.sid) == 34
    assert stream.sid.startswith("MZ")


def test_the_three_documented_messages_are_taken(stream: MediaStream, errors: list[TwilioError]) -> None:
    match stream.receive(media()):
        case Media(media=sound):
            assert sound.payload == b"\x7f\x7f\x7f"
        case other:
            pytest.fail(f"not media: {other}")
    match stream.receive(json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": "m1"}}).encode()):
        case Mark(mark=mark):
            assert mark.name == "m1"
        case other:
            pytest.fail(f"not a mark: {other}")
    assert isinstance(stream.receive(json.dumps({"event": "clear", "streamSid": SID})), Clear)
    assert not errors
    assert not stream.ignored


MALFORMED = {
    "no JSON": "media",
    "nothing": "",
    "cut short": media()[:-1],
    "something after it": media() + "x",
    "an array": "[]",
    "null": "null",
    "no event": json.dumps({"streamSid": SID, "media": {"payload": "f39/"}}),
    "an unknown event": json.dumps({"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "1"}}),
    "event in capitals": media(event="Media"),
    "event no string": media(event=5),
    "no streamSid": json.dumps({"event": "media", "media": {"payload": "f39/"}}),
    "another stream's streamSid": media(streamSid="MZ" + "1" * 32),
    "streamSid no string": media(streamSid=1),
    "streamSid null": media(streamSid=None),
    "a sequenceNumber": media(sequenceNumber="1"),
    "an unknown field": media(extra=None),
    "a track in media": media(media={"payload": "f39/", "track": "outbound"}),
    "a timestamp in media": media(media={"payload": "f39/", "timestamp": "20"}),
    "no media": json.dumps({"event": "media", "streamSid": SID}),
    "media null": media(media=None),
    "no payload": media(media={}),
    "payload no string": media(media={"payload": 7}),
    "payload not padded": media(media={"payload": "f38"}),
    "payload with a blank": media(media={"payload": "f3 /"}),
    "payload url-safe": media(media={"payload": "f3-_"}),
    "payload not ASCII": media(media={"payload": "é39/"}),
    "mark without a name": json.dumps({"event": "mark", "streamSid": SID, "mark": {}}),
    "mark name no string": json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": 1}}),
    "mark with more": json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": "m", "at": 1}}),
    "clear with more": json.dumps({"event": "clear", "streamSid": SID, "clear": {}}),
    "broken UTF-8": media().encode().replace(b'"f39/"', b'"f39/","\xff":1'),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_what_twilio_would_not_take_is_error_31951(
    stream: MediaStream, errors: list[TwilioError], text: str | bytes
) -> None:
    refusal = stream.receive(text)
    assert isinstance(refusal, TwilioError)
    assert refusal.code == 31951
    assert refusal.why
    assert errors == [refusal]


def test_a_code_is_reported_once_a_stream_and_every_message_counted(
    stream: MediaStream, errors: list[TwilioError]
) -> None:
    stream.receive("x")
    stream.receive("y")
    stream.receive_binary()
    stream.receive_binary()
    assert [error.code for error in errors] == [31951, 31950]
    assert stream.ignored == 4


def test_a_message_shows_its_size_and_not_its_sound(stream: MediaStream) -> None:
    assert "f39" not in repr(stream.receive(media()))
    assert "<3 bytes>" in repr(stream.receive(media()))


def test_the_signature_is_the_one_of_twilios_example() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    assert signature("12345", url, form.items()) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert RequestValidator("12345").validate(url, form, signature("12345", url, reversed(form.items())))


def test_twiml_is_read_with_its_stream_and_parameters() -> None:
    document = parse(
        '<?xml version="1.0" encoding="UTF-8"?><Response><Say>Hello &amp;\n  goodbye</Say>'
        '<Connect action="/after"><Stream url="wss://a.example/s" name="n" statusCallback="/status">'
        '<Parameter name="t" value="1"/><Parameter name="u" value="2"/></Stream></Connect>'
        "<Dial><Number>+15550100002</Number></Dial></Response>"
    )
    assert not document.errors
    say, connect, dial = document.verbs
    assert (say.name, say.text) == ("Say", "Hello & goodbye")
    assert connect.attributes == {"action": "/after"}
    assert connect.stream is not None
    assert connect.stream.parameters == {"t": "1", "u": "2"}
    assert (connect.stream.url, connect.stream.name) == ("wss://a.example/s", "n")
    assert dial.text == "+15550100002"


@pytest.mark.parametrize(
    ("twiml", "code"),
    [
        ("", 12100),
        (" <?xml version='1.0'?><Response/>", 12100),
        ("<Response>", 12100),
        ("<response/>", 12100),
        ("<Response><say>x</say></Response>", 12200),
        ("<Response><Say loud='1'>x</Say></Response>", 12200),
        ("<Response><Connect/></Response>", 12200),
        ("<Response><Connect><Stream url='wss://a/'/><Stream url='wss://b/'/></Connect></Response>", 12200),
        ("<Response><Connect><Room>x</Room></Connect></Response>", 12200),
        ("<Response><Connect><Stream url='wss://a/' token='x'/></Connect></Response>", 12200),
        ("<Response><Connect><Stream url='wss://a/'><Say>x</Say></Stream></Connect></Response>", 12200),
        (
            f"<Response><Connect><Stream url='wss://a/'><Parameter name='t' value='{'x' * 499}'/>"
            "</Stream></Connect></Response>",
            12200,
        ),
    ],
)
def test_twiml_that_twilio_would_complain_about(twiml: str, code: int) -> None:
    assert [error.code for error in parse(twiml).errors] == [code]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("wss://bridge.example.com/twilio/stream", None),
        ("ws://127.0.0.1:8080/twilio/stream", None),
        ("ws://localhost/s", None),
        ("ws://[::1]:8080/s", None),
        ("ws://bridge.example.com/s", 31922),
        ("https://bridge.example.com/s", 31922),
        ("wss://bridge.example.com/s?token=1", 31922),
        ("/twilio/stream", 31923),
        ("", 31923),
    ],
)
def test_a_stream_is_wss_without_a_query_or_on_this_machine(url: str, code: int | None) -> None:
    error = stream_error(url)
    assert (error.code if error else None) == code
