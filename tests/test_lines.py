"""Lines: what a peer's messages become, what we send, and that no message does harm."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest

from voice_bridge.bridge.lines import twilio
from voice_bridge.bridge.lines.base import Digit, Heard, In, Out, Played, ProtocolError, Started, Stopped
from voice_bridge.bridge.lines.twilio import MAX_CHUNK, MAX_MESSAGE, TOLERATED, State, TwilioLine
from voice_bridge.bridge.phone.protocol import Clear, Mark, Media, MediaStream
from voice_bridge.codecs import g711
from voice_bridge.codecs.resample import Down, Up

SID = "MZ" + "1" * 32
TOKEN = "the-token-of-this-call"
CODES = bytes(range(256)) * 3

CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": SID,
    "start": {
        "accountSid": "AC1",
        "streamSid": SID,
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": TOKEN, "name": "Zoë"},
    },
}
MEDIA = {
    "event": "media",
    "sequenceNumber": "2",
    "streamSid": SID,
    "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": base64.b64encode(CODES[:640]).decode()},
}
DTMF = {
    "event": "dtmf",
    "streamSid": SID,
    "sequenceNumber": "3",
    "dtmf": {"track": "inbound_track", "digit": "5"},
}
MARK = {"event": "mark", "sequenceNumber": "4", "streamSid": SID, "mark": {"name": "0.960"}}
STOP = {"event": "stop", "sequenceNumber": "5", "streamSid": SID, "stop": {"accountSid": "AC1", "callSid": "CA1"}}
UNKNOWN = {"event": "weather", "streamSid": SID, "weather": {"wind": [1, 2, {"deep": None}]}}
EVERY = {message["event"]: message for message in (CONNECTED, START, MEDIA, DTMF, MARK, STOP, UNKNOWN)}

BEFORE: dict[State, list[dict[str, Any]]] = {
    State.OPENED: [],
    State.CONNECTED: [CONNECTED],
    State.STARTED: [CONNECTED, START],
    State.STOPPED: [CONNECTED, START, STOP],
}


def line_in(state: State) -> TwilioLine:
    line = TwilioLine()
    for message in BEFORE[state]:
        line.receive(json.dumps(message), 0.0)
    assert line.state is state
    return line


def started() -> TwilioLine:
    return line_in(State.STARTED)


def media(payload: str = "AAAA", **fields: Any) -> str:
    return json.dumps({"event": "media", "media": {"payload": payload, **fields}})


def sound(data: bytes, **fields: Any) -> str:
    return media(base64.b64encode(data).decode(), **fields)


def with_start(**fields: Any) -> str:
    return json.dumps({"event": "start", "start": {"callSid": "CA1", "streamSid": SID, **fields}})


def is_refused(line: TwilioLine, data: str | bytes) -> bool:
    """Whether a line counts a message as bad; before the start it must also say so."""
    before = line.errors
    if line.state is State.STARTED:
        assert (line.receive(data, 1.0) == []) or line.errors == before
    else:
        with pytest.raises(ProtocolError):
            line.receive(data, 1.0)
    return line.errors == before + 1


# -- what comes, and when --------------------------------------------------------------------------------------------

BAD = None
TABLE: dict[State, dict[str, State | None]] = {
    State.OPENED: {"connected": State.CONNECTED, "start": State.STARTED},
    State.CONNECTED: {"start": State.STARTED, "stop": State.STOPPED},
    State.STARTED: {"media": State.STARTED, "dtmf": State.STARTED, "mark": State.STARTED, "stop": State.STOPPED},
    State.STOPPED: dict.fromkeys(EVERY, State.STOPPED),
}


@pytest.mark.parametrize("event", EVERY)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: str) -> None:
    line = line_in(state)
    message = json.dumps(EVERY[event])
    leads_to = state if event == "weather" else TABLE[state].get(event, BAD)
    if leads_to is BAD:
        assert is_refused(line, message)
        assert line.state is state
    else:
        line.receive(message, 0.0)
        assert line.state is leads_to
        assert line.errors == 0


def test_a_call_from_its_first_message_to_its_last() -> None:
    line = TwilioLine()
    said: list[In] = []
    for message in (CONNECTED, START, MEDIA, DTMF, MARK, UNKNOWN, STOP, MEDIA):
        said += line.receive(json.dumps(message), 0.0)
    start, heard, digit, played, stopped = said
    assert start == Started("CA1", SID, {"token": TOKEN, "name": "Zoë"})
    assert isinstance(heard, Heard)
    assert (heard.at, digit, played, stopped) == (0, Digit("5"), Played(960), Stopped())


def without(message: dict[str, Any], *path: str) -> dict[str, Any]:
    message = copy.deepcopy(message)
    at = message
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return message


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (CONNECTED, ("protocol",)),
        (CONNECTED, ("version",)),
        (START, ("sequenceNumber",)),
        (START, ("streamSid",)),
        (START, ("start", "streamSid")),
        (START, ("start", "accountSid")),
        (START, ("start", "tracks")),
        (START, ("start", "mediaFormat")),
        (START, ("start", "mediaFormat", "encoding")),
        (START, ("start", "mediaFormat", "sampleRate")),
        (START, ("start", "mediaFormat", "channels")),
        (START, ("start", "customParameters")),
        (MEDIA, ("sequenceNumber",)),
        (MEDIA, ("streamSid",)),
        (MEDIA, ("media", "track")),
        (MEDIA, ("media", "chunk")),
        (MEDIA, ("media", "timestamp")),
        (DTMF, ("dtmf", "track")),
        (DTMF, ("sequenceNumber",)),
        (MARK, ("sequenceNumber",)),
        (STOP, ("stop",)),
        (STOP, ("streamSid",)),
    ],
)
def test_what_other_clients_leave_out_is_not_missed(message: dict[str, Any], path: tuple[str, ...]) -> None:
    line = line_in(State.OPENED if message in (CONNECTED, START) else State.STARTED)
    whole = line_in(line.state).receive(json.dumps(message), 0.0)
    said = line.receive(json.dumps(without(message, *path)), 0.0)
    assert [type(event) for event in said] == [type(event) for event in whole]
    assert line.errors == 0


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (START, ("start",)),
        (START, ("start", "callSid")),
        (MEDIA, ("media",)),
        (MEDIA, ("media", "payload")),
        (DTMF, ("dtmf",)),
        (DTMF, ("dtmf", "digit")),
        (MARK, ("mark",)),
        (MARK, ("mark", "name")),
        (MEDIA, ("event",)),
    ],
)
def test_what_a_message_is_nothing_without_is_missed(message: dict[str, Any], path: tuple[str, ...]) -> None:
    line = line_in(State.OPENED if message is START else State.STARTED)
    assert is_refused(line, json.dumps(without(message, *path)))


@pytest.mark.parametrize(
    "fields",
    [
        {"streamSid": ""},
        {"callSid": ""},
        {"callSid": None},
        {"mediaFormat": {"encoding": "audio/x-alaw"}},
        {"mediaFormat": {"sampleRate": 16000}},
        {"mediaFormat": {"channels": 2}},
        {"mediaFormat": {"sampleRate": "8000"}},
        {"customParameters": {"token": 5}},
        {"tracks": "inbound"},
    ],
)
def test_a_start_that_we_cannot_serve_is_refused(fields: dict[str, Any]) -> None:
    line = TwilioLine()
    with pytest.raises(ProtocolError):
        line.receive(with_start(**fields), 0.0)
    assert line.state is State.OPENED


def test_a_format_that_we_do_not_speak_is_named_with_the_one_that_we_do() -> None:
    with pytest.raises(ProtocolError, match=r"opus, 48000 Hz, 2 channels; only audio/x-mulaw, 8000 Hz, 1 channel"):
        TwilioLine().receive(with_start(mediaFormat={"encoding": "opus", "sampleRate": 48000, "channels": 2}), 0.0)


@pytest.mark.parametrize("digit", "0123456789*#ABCD")
def test_every_key_of_a_telephone_is_a_digit(digit: str) -> None:
    assert started().receive(json.dumps({"event": "dtmf", "dtmf": {"digit": digit}}), 0.0) == [Digit(digit)]


@pytest.mark.parametrize("digit", ["", "10", "E", "a", "٣", "\n", 5, None, ["5"]])
def test_anything_else_is_no_digit(digit: Any) -> None:
    assert is_refused(started(), json.dumps({"event": "dtmf", "dtmf": {"digit": digit}}))


# -- sound -----------------------------------------------------------------------------------------------------------


def test_a_callers_sound_becomes_frames_with_their_place() -> None:
    line, up = started(), Up()
    heard: list[Heard] = []
    said = bytes(np.random.default_rng(1).integers(0, 256, 160 * 40, np.uint8))
    for n in range(40):
        events = line.receive(sound(said[n * 160 : (n + 1) * 160], timestamp=str(n * 20)), n * 0.02)
        assert len(events) == (n % 4 == 3)
        heard += [event for event in events if isinstance(event, Heard)]
    assert [event.at for event in heard] == [n * 1920 for n in range(10)]
    pcm = np.concatenate([event.pcm for event in heard])
    assert np.array_equal(pcm, g711.decode(said))
    assert np.array_equal(np.concatenate([event.frame for event in heard]), up.push(pcm))


@pytest.mark.parametrize("stamp", [str, int])
def test_stamps_may_be_strings_or_numbers_and_a_jump_of_them_is_silence(stamp: type) -> None:
    line = started()
    (heard,) = [
        event
        for at in (57, 77, 157, 177)
        for event in line.receive(sound(b"\0" * 160, timestamp=stamp(at)), 0.0)
        if isinstance(event, Heard)
    ]
    assert line.gap_samples == 480
    assert not heard.pcm[320:].any()
    assert heard.pcm[:320].all()
    assert line.late_samples == 0
    line.receive(sound(b"\0" * 160, timestamp=stamp(177)), 0.0)
    assert line.late_samples == 160


@pytest.mark.parametrize("timestamp", [0, "0", "00", 99_999_999_999, "99999999999", None])
def test_a_stamp_of_whole_milliseconds_is_taken(timestamp: Any) -> None:
    assert len(started().receive(sound(CODES[:640], timestamp=timestamp), 0.0)) == 1


@pytest.mark.parametrize(
    "timestamp",
    [
        -1,
        "-1",
        "+1",
        "1.5",
        1.5,
        1e3,
        " 1",
        "1 ",
        "",
        "x",
        "٣",
        "1_0",
        "0x1",
        True,
        [],
        10**11,
        10**30,
        "9" * 12,
        "9" * 5000,
    ],
)
def test_any_other_stamp_is_refused(timestamp: Any) -> None:
    line = started()
    assert is_refused(line, sound(CODES[:640], timestamp=timestamp))
    assert line.gap_samples == 0


@pytest.mark.parametrize("track", ["outbound", "both", "", "INBOUND"])
def test_another_track_is_not_the_caller(track: str) -> None:
    line = started()
    for n in range(8):
        assert line.receive(sound(CODES[:160], track=track, timestamp=str(n * 20)), n * 0.02) == []
    heard = line.receive(sound(CODES[:640], timestamp="0"), 0.2)
    assert [event.at for event in heard if isinstance(event, Heard)] == [0]
    assert line.errors == line.gap_samples == 0


@pytest.mark.parametrize("payload", ["", "AA==", "AAA=", "AAAA", "AA+/"])
def test_base64_is_taken_as_the_standard_has_it(payload: str) -> None:
    assert not is_refused(started(), media(payload))


def test_slashes_may_be_escaped() -> None:
    heard = started().receive(sound(b"\xff" * 640).replace("/", "\\/"), 0.0)
    assert [event.pcm.any() for event in heard if isinstance(event, Heard)] == [False]


@pytest.mark.parametrize(
    "payload", [" AAAA", "AA AA", "AAAA\n", "AA\nAA", "A", "AA", "AAA", "A===", "====", "AA=A", "AA-_", "AAAA====", "é"]
)
def test_other_spellings_of_base64_are_refused(payload: str) -> None:
    line = started()
    assert is_refused(line, media(payload))
    assert len(line.receive(sound(CODES[:640]), 0.0)) == 1


def test_a_second_of_sound_in_one_message_is_taken_and_more_is_not() -> None:
    assert len(started().receive(sound(b"\0" * MAX_CHUNK), 0.0)) == 12
    assert is_refused(started(), sound(b"\0" * (MAX_CHUNK + 1)))


def test_silence_is_fed_only_while_the_stream_lives() -> None:
    connected, live = line_in(State.CONNECTED), started()
    assert connected.fill(10.0) == []
    assert not connected.dead(10.0)
    assert live.fill(0.2) == []
    heard = live.fill(1.0)
    assert [event.at for event in heard if isinstance(event, Heard)] == [n * 1920 for n in range(10)]
    assert not live.dead(5.0)
    assert live.dead(5.1)
    live.receive(json.dumps(STOP), 1.0)
    assert live.fill(3.0) == []


def test_the_agents_sound_goes_out_as_the_frame_at_8_khz() -> None:
    line, down = started(), Down()
    frame = np.random.default_rng(2).uniform(-0.9, 0.9, 1920).astype(np.float32)
    for _ in range(3):
        assert np.array_equal(line.render(frame), down.push(frame))


# -- what we send ----------------------------------------------------------------------------------------------------

AWKWARD = [
    SID,
    'a"b',
    "a\\",
    "a\\n\n\t",
    "{}%s%b%d{0}",
    "Zoë",
    "電話\u2028",
    "📞",
    "</script>",
    "\x00\x1f\x7f",
    "x" * 9000,
]


def judge(sid: str) -> MediaStream:
    judge = MediaStream("AC1", "CA1", {}, [])
    judge.sid = sid
    return judge


@pytest.mark.parametrize("where", ["outer", "inner"])
@pytest.mark.parametrize("sid", AWKWARD)
def test_what_we_send_is_exactly_what_twilio_documents(sid: str, where: str) -> None:
    line = TwilioLine()
    message = {"event": "start", "start": {"callSid": "CA1", "streamSid": sid if where == "inner" else "MZother"}}
    (start,) = line.receive(json.dumps(message | ({"streamSid": sid} if where == "outer" else {})), 0.0)
    assert isinstance(start, Started)
    assert start.stream == sid
    strict = judge(sid)
    pcm = np.arange(-32768, 32768, 102).astype(np.int16)
    said = [line.sound(pcm), line.mark(960), line.flush(), line.mark(10**12), line.sound(pcm[:0])]
    assert all(out.text for out in said)
    heard = [strict.receive(out.data) for out in said]
    assert [type(message) for message in heard] == [Media, Mark, Clear, Mark, Media]
    assert [json.loads(out.data) for out in said] == [
        {"event": "media", "streamSid": sid, "media": {"payload": base64.b64encode(g711.encode(pcm)).decode()}},
        {"event": "mark", "streamSid": sid, "mark": {"name": "0.960"}},
        {"event": "clear", "streamSid": sid},
        {"event": "mark", "streamSid": sid, "mark": {"name": f"1.{10**12}"}},
        {"event": "media", "streamSid": sid, "media": {"payload": ""}},
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 160, 640, 641, 1920])
def test_sound_survives_the_wire_but_for_mu_law(length: int) -> None:
    pcm = np.random.default_rng(length).integers(-32768, 32768, length).astype(np.int16)
    message = judge(SID).receive(started().sound(pcm).data)
    assert isinstance(message, Media)
    assert np.array_equal(g711.decode(message.media.payload), g711.decode(g711.encode(pcm)))


def echo(out: Out) -> str:
    """The mark as Twilio sends it back."""
    message = json.loads(out.data)
    return json.dumps({"event": "mark", "sequenceNumber": "9", "streamSid": SID, "mark": message["mark"]})


def test_a_mark_that_comes_back_tells_how_far_we_were_heard() -> None:
    line = started()
    marks = [line.mark(position) for position in (0, 960, 8000 * 3600 * 24 * 365)]
    played = [event for mark in marks for event in line.receive(echo(mark), 0.0)]
    assert played == [Played(0), Played(960), Played(8000 * 3600 * 24 * 365)]


def test_marks_from_before_a_flush_are_no_proof_of_playing() -> None:
    line = started()
    old = line.mark(960)
    line.flush()
    between = line.mark(640)
    line.flush()
    new = line.mark(1600)
    assert line.receive(echo(old), 0.0) == []
    assert line.receive(echo(between), 0.0) == []
    assert line.receive(echo(new), 0.0) == [Played(1600)]
    assert line.receive(echo(old), 0.0) == []
    assert line.errors == 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "0",
        "0.",
        ".960",
        "0.-1",
        "-0.1",
        "0.960.1",
        "0. 960",
        "0.9e2",
        "0.²",
        "\u0660.\u0669",
        "0.0x1",
        "greeting",
        "0.1\n",
    ],
)
def test_a_mark_that_is_not_ours_is_refused(name: str) -> None:
    assert is_refused(started(), json.dumps({"event": "mark", "mark": {"name": name}}))


@pytest.mark.parametrize("name", ["0." + "9" * 31, "9" * 5000 + ".1", "0." + "0" * 60_000])
def test_a_mark_of_absurd_length_is_refused(name: str) -> None:
    assert is_refused(started(), json.dumps({"event": "mark", "mark": {"name": name}}))


# -- hostile messages ------------------------------------------------------------------------------------------------


def texts() -> list[str]:
    return [json.dumps(message, ensure_ascii=False) for message in EVERY.values()]


@pytest.mark.parametrize("state", [State.OPENED, State.CONNECTED, State.STARTED])
@pytest.mark.parametrize("text", texts(), ids=list(EVERY))
def test_a_message_cut_at_any_byte_is_refused(text: str, state: State) -> None:
    line = line_in(state)
    for cut in range(len(text)):
        line.errors = 0
        assert is_refused(line, text[:cut])
    assert line.state is state


@pytest.mark.parametrize("state", [State.OPENED, State.CONNECTED, State.STARTED])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "true",
        "5",
        '"media"',
        "[]",
        "{}",
        '{"event":null}',
        '{"event":5}',
        '{"event":["media"]}',
        '{"event":{}}',
        '{"Event":"media"}',
        '{"event":"MEDIA\x00"',
        '{"event":"media","media":[]}',
        '{"event":"media","media":"AAAA"}',
        '{"event":"media","media":null}',
        '{"event":"media"}{"event":"media"}',
        '{"event":"media","media":{"payload":5}}',
        '{"event":"media","media":{"payload":{"a":[]}}}',
        '{"event":"start","start":[]}',
        '{"event":"start","start":{"callSid":5,"streamSid":"MZ"}}',
        '{"event":"start","start":{"callSid":"CA","streamSid":"\\ud800"}}',
        '{"event":"\\ud800"}',
        "{'event':'media'}",
        "\ufeff" + '{"event":"stop"}',
        '{"event":"stop\ud800"}',
        '{"event":"mark","mark":{"name":NaN}}',
        "[" * MAX_MESSAGE,
        '{"event":"media","media":' + "[" * 50_000,
        '{"event":"media","x":' + '{"a":' * 12_000,
        '{"event":"media","media":{"payload":"AAAA","timestamp":' + "9" * 50_000 + "}}",
        '{"event":"media","media":{"payload":"AAAA","timestamp":1e999}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":-1e-999}}',
        "\x00" * 1000,
    ],
)
def test_a_malformed_message_is_refused(text: str, state: State) -> None:
    line = line_in(state)
    assert is_refused(line, text)
    assert line.state is state


@pytest.mark.parametrize("state", [State.OPENED, State.CONNECTED, State.STARTED])
@pytest.mark.parametrize("data", [b"", b"\x00\xff", json.dumps(MEDIA).encode()], ids=["empty", "junk", "media"])
def test_a_binary_message_is_refused_whatever_is_in_it(data: bytes, state: State) -> None:
    assert is_refused(line_in(state), data)


def test_a_message_may_be_64_kib_and_no_more() -> None:
    empty = '{"event":"weather","wind":""}'
    assert not is_refused(started(), empty.replace('""', f'"{"x" * (MAX_MESSAGE - len(empty))}"'))
    assert is_refused(started(), empty.replace('""', f'"{"x" * (MAX_MESSAGE - len(empty) + 1)}"'))


def test_an_unknown_event_nested_beyond_all_reason_does_no_harm() -> None:
    line = started()
    line.receive('{"event":"weather","x":' + "[" * 20_000 + "]" * 20_000 + "}", 0.0)
    assert len(line.receive(json.dumps(MEDIA), 0.0)) == 1


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


STRANGE: list[Any] = [None, True, 0, -1, 10**40, 0.5, 1e308, "", "x", "\u0000", [], [[]], {}, {"event": "start"}]


@pytest.mark.parametrize("message", EVERY.values(), ids=list(EVERY))
@pytest.mark.parametrize("state", State)
def test_a_value_of_any_type_in_any_place_is_taken_or_refused(state: State, message: dict[str, Any]) -> None:
    for path in places(message):
        for strange in STRANGE:
            altered: Any = copy.deepcopy({"": message})
            at = altered
            for key in ("", *path)[:-1]:
                at = at[key]
            at[("", *path)[-1]] = strange
            line = line_in(state)
            with suppress(ProtocolError):
                said = line.receive(json.dumps(altered[""]), 0.0)
                assert line.errors == 0 or (said == [] and state is State.STARTED)


def test_a_live_call_bears_ten_bad_messages_and_ends_at_the_next() -> None:
    line = started()
    for n in range(10):
        assert line.receive("{", n * 0.08) == []
        assert len(line.receive(sound(CODES[:640], timestamp=n * 80), n * 0.08)) == 1
    with pytest.raises(ProtocolError):
        line.receive("{", 1.0)


def test_an_error_says_what_was_wrong_and_stays_short() -> None:
    with pytest.raises(ProtocolError, match="media came while opened"):
        TwilioLine().receive(json.dumps(MEDIA), 0.0)
    with pytest.raises(ProtocolError, match="binary"):
        TwilioLine().receive(b"x", 0.0)
    tried = started()
    tried.errors = TOLERATED
    with pytest.raises(ProtocolError, match="timestamp"):
        tried.receive(media(timestamp="soon"), 0.0)
    for text in (
        json.dumps({"event": "y" * 60_000, "x": 1})[:-1],
        with_start(mediaFormat={"encoding": "z" * 60_000}),
        '{"event":"' + "y" * 9000 + '","x":' + "[" * 20_000 + "]" * 20_000 + "}",
    ):
        with pytest.raises(ProtocolError) as caught:
            TwilioLine().receive(text, 0.0)
        assert len(str(caught.value)) < 200


# -- what must not be seen -------------------------------------------------------------------------------------------


def test_no_repr_shows_sound_or_a_token() -> None:
    line = started()
    (heard,) = line.receive(json.dumps(MEDIA), 0.0)
    (start,) = TwilioLine().receive(json.dumps(START), 0.0)
    parsed = [msgspec.json.decode(text, type=twilio.AnyMessage) for text in texts()[:-1]]
    payload = base64.b64encode(CODES[:640]).decode()
    for shown in map(repr, [heard, start, line.sound(np.zeros(640, np.int16)), *parsed]):
        assert len(shown) < 160
        assert TOKEN not in shown
        assert payload[:20] not in shown
        assert "\\x" not in shown
        assert "array" not in shown


def test_no_error_shows_a_token() -> None:
    text = json.dumps(START)
    for cut in range(len(text)):
        for broken in (text[:cut], text[:cut] + "\x00" + text[cut:], text[:cut] + text[cut + 1 :]):
            line, said = TwilioLine(), ""
            try:
                line.receive(broken, 0.0)
            except ProtocolError as error:
                said = str(error)
            assert line.errors == bool(said)
            assert TOKEN[:8] not in said
