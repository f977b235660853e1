"""Hostile calls against the Twilio line: nothing but a ProtocolError comes out, and all that comes out is whole.

`make fuzz` plays such calls for ten minutes. What it finds it keeps in tests/data/fuzz, and every case there is
played here. A case is a list of steps, each [seconds since the last, what]: a text message, {"hex": a binary
message}, or null for a look at the clock.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_bridge.bridge.lines.base import Digit, Heard, In, Out, Played, ProtocolError, Started, Stopped
from voice_bridge.bridge.lines.twilio import DIGITS, State, TwilioLine
from voice_bridge.bridge.phone.protocol import Clear, Mark, Media, MediaStream, TwilioError
from voice_bridge.bridge.playout import Playout

CORPUS = Path(__file__).parent / "data" / "fuzz"
FRAME, STEP = 1920, 640  # samples of a frame at 24 kHz and on the line
MOST_FRAMES = 90  # that one message may bring: a second of sound, a second of gap, five of stall
LONGEST_ERROR = 200  # characters
SID = "MZ1"

Step: TypeAlias = tuple[float, str | bytes | None]


def load(path: Path) -> list[Step]:
    return [
        (later, bytes.fromhex(what["hex"]) if isinstance(what, dict) else what)
        for later, what in json.loads(path.read_text())
    ]


def dump(steps: Sequence[Step]) -> str:
    lines = [json.dumps([later, {"hex": what.hex()} if isinstance(what, bytes) else what]) for later, what in steps]
    return "[\n" + ",\n".join(lines) + "\n]\n"


# -- the call --------------------------------------------------------------------------------------------------------


class Call:
    """A line and its playout as a call uses them, with all that must be true of them whatever the peer does."""

    def __init__(self) -> None:
        self.line = TwilioLine()
        self.playout = Playout(self.line.rate)
        self.now = 1000.0
        self.frames = 0
        self.sent: set[type[Media | Mark | Clear]] = set()
        self._judge = MediaStream("AC1", "CA1", {}, [])

    def play(self, steps: Sequence[Step]) -> None:
        for later, what in steps:
            self.now += later
            before, errors = self.line.state, self.line.errors
            try:
                events = self.line.fill(self.now) if what is None else self.line.receive(what, self.now)
            except ProtocolError as error:
                said = str(error)
                assert 0 < len(said.encode()) <= LONGEST_ERROR
                assert self.line.state is before
                return  # as a call does
            self._check(events, before)
            assert not isinstance(what, bytes) or self.line.errors > errors or before is State.STOPPED
            assert len(self.line._framer._buffer) < STEP

    def _check(self, events: list[In], before: State) -> None:
        assert before is not State.STOPPED or events == []
        assert sum(isinstance(event, Heard) for event in events) <= MOST_FRAMES
        for event in events:
            assert len(repr(event)) < 200 or isinstance(event, Started)
            match event:
                case Started(_, stream, parameters):
                    assert before in (State.OPENED, State.CONNECTED)
                    assert all(isinstance(value, str) for value in parameters.values())
                    self._judge.sid = stream
                case Heard():
                    self._heard(event)
                case Digit(digit):
                    assert digit in DIGITS
                case Played(position):
                    assert position >= 0
                    self.playout.played(position, self.now)
                case Stopped():
                    assert self.line.state is State.STOPPED

    def _heard(self, heard: Heard) -> None:
        assert self.line.state is State.STARTED
        assert heard.at == self.frames * FRAME
        self.frames += 1
        assert (heard.frame.shape, heard.frame.dtype) == ((FRAME,), np.float32)
        assert (heard.pcm.shape, heard.pcm.dtype) == ((STEP,), np.int16)
        assert np.abs(heard.frame).max() <= 1  # which NaN is not
        self._answer(heard)

    def _answer(self, heard: Heard) -> None:
        pcm = self.line.render(heard.frame)
        silent = not pcm.any()
        plan = self.playout.plan(self.now, len(pcm), silent, heard.at + FRAME)
        assert 0 <= plan.pad <= self.line.rate
        assert 0 <= plan.cut <= (STEP if silent else 0)
        assert math.isfinite(self.playout.lead(self.now))
        if plan.clear:
            self._say(self.line.flush())
        self._say(self.line.sound(pcm[plan.cut :]))
        if plan.mark is not None:
            self._say(self.line.mark(plan.mark))

    def _say(self, out: Out) -> None:
        assert out.text
        verdict = self._judge.receive(out.data)
        assert not isinstance(verdict, TwilioError), verdict
        self.sent.add(type(verdict))


# -- what a peer may do ----------------------------------------------------------------------------------------------

STRANGE: list[Any] = [
    *(None, True, 0, -1, 0.5, 1e308, 10**18, 10**40, [], [[]], {}, {"": {}}),
    *("", " ", "x", "0", "-1", "²", "é\u2028", "\x00", "\ud800", "9" * 5000, "x" * 500),
    *("inbound", "outbound", "media", "start", "0.640", "1.960", "0.99999999999", "0.²", "*"),
]
# What people and machines have got wrong in JSON before, to be thrown into a message anywhere.
PIECES = [
    *('"', "\\", "{", "}", "[", "]", ",", ":", "null", "NaN", "1e999", "²", "[" * 1100),
    *("\\u0000", "\\ud800", "\x00", "\ufeff"),
]

LATER = st.sampled_from([0.02, 0.02, 0.02, 0.0, 0.001, 0.08, 0.1, 0.3, 1.0, 4.0, 30.0])
CHUNKS = st.sampled_from([160, 160, 160, 0, 1, 159, 640, 1000, 8000, 8001])
JUMPS = st.sampled_from([0, 0, 0, 0, 1, -2, 20, -20, 240, -500, 990, 1001, 60_000, -60_000, 10**10])


def start(sid: str, **fields: Any) -> dict[str, Any]:
    return {"event": "start", "streamSid": sid, "start": {"callSid": "CA1", "streamSid": sid, **fields}}


STARTS = st.one_of(
    st.just(start(SID, customParameters={"token": "t"}, tracks=["inbound"])),
    st.builds(start, st.sampled_from(['a"b', "\\", "Zoë 電話", "\x00%s{}", "</script>"]) | st.text(max_size=20)),
    st.builds(start, st.just(SID), mediaFormat=st.fixed_dictionaries({"sampleRate": st.integers()})),
)
OTHERS = st.one_of(
    st.builds(lambda digit: {"event": "dtmf", "dtmf": {"digit": digit}}, st.sampled_from("0123456789*#ABCD")),
    st.builds(
        lambda generation, position: {"event": "mark", "mark": {"name": f"{generation}.{position}"}},
        st.integers(0, 2),
        st.integers(0, 40).map(lambda n: n * 320) | st.integers(0, 10**12),
    ),
    st.sampled_from([{"event": "connected"}, {"event": "stop"}, {"event": "weather", "wind": [{}]}]),
)


@st.composite
def messages(draw: st.DrawFn) -> list[Any]:
    """A call as a peer would make it, more or less."""
    said: list[Any] = [{"event": "connected", "protocol": "Call", "version": "1.0.0"}, draw(STARTS)]
    clock = draw(st.sampled_from([0, 57, 10**9]))
    for chunk in draw(st.lists(CHUNKS, max_size=25)):
        clock = max(0, clock + draw(JUMPS))
        payload = base64.b64encode(b"\x35" * chunk).decode()
        stamp = draw(st.sampled_from([str(clock), str(clock), clock, None]))
        said.append({"event": "media", "media": {"track": "inbound", "timestamp": stamp, "payload": payload}})
        clock += chunk // 8
    for other in draw(st.lists(OTHERS, max_size=4)):
        said.insert(draw(st.integers(2, len(said))), other)
    return said


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    altered = dict(value) if isinstance(value, dict) else list(value)
    altered[path[0]] = with_value(value[path[0]], path[1:], new)
    return altered


@st.composite
def broken(draw: st.DrawFn, text: str) -> str | bytes:
    """A text with some of it replaced."""
    at, length = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 1, 2, 10, 10_000]))
    piece = draw(st.sampled_from(["", *PIECES]) | st.text(max_size=4))
    text = text[:at] + piece + text[at + length :]
    return text.encode(errors="replace") if draw(st.integers(0, 9)) == 0 else text


@st.composite
def altered(draw: st.DrawFn, message: Any) -> str | bytes:
    """A message with something wrong in its values or in its text."""
    if draw(st.booleans()):
        path = draw(st.sampled_from(list(places(message))))
        return json.dumps(with_value(message, path, draw(st.sampled_from(STRANGE))))
    return draw(broken(json.dumps(message, ensure_ascii=draw(st.booleans()))))


@st.composite
def calls(draw: st.DrawFn) -> list[Step]:
    """A call in which messages are altered, lost, repeated and moved, with waits between."""
    steps: list[Step] = []
    for message in draw(messages()):
        fate = draw(st.sampled_from(["said"] * 12 + ["altered", "altered", "lost", "twice", "looked", "moved"]))
        text = draw(altered(message)) if fate == "altered" else json.dumps(message)
        if fate != "lost":
            at = draw(st.integers(0, len(steps))) if fate == "moved" else len(steps)
            steps.insert(at, (draw(LATER), text))
        if fate == "twice":
            steps += [steps[-1]] * draw(st.sampled_from([1, 1, 11]))
        if fate == "looked":
            steps.append((draw(LATER), None))
    return steps


@st.composite
def offspring(draw: st.DrawFn, cases: list[list[Step]]) -> list[Step]:
    """Pieces of kept cases put together, with some messages broken."""
    one, other = draw(st.sampled_from(cases)), draw(st.sampled_from(cases))
    steps = one[: draw(st.integers(0, len(one)))] + other[draw(st.integers(0, len(other))) :]
    for at in draw(st.lists(st.integers(0, max(0, len(steps) - 1)), max_size=3)) if steps else ():
        later, what = steps[at]
        if isinstance(what, str):
            steps[at] = (later, draw(broken(what)))
    return steps


# -- the tests -------------------------------------------------------------------------------------------------------


KEPT = sorted(CORPUS.glob("*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_case(path: Path) -> None:
    Call().play(load(path))


def test_the_kept_cases_go_into_every_state_and_send_every_message() -> None:
    states, sent = set(), set()
    for path in KEPT:
        call = Call()
        call.play(load(path))
        states.add(call.line.state)
        sent |= call.sent
    assert states == set(State)
    assert sent == {Media, Mark, Clear}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls())
def test_a_hostile_call(steps: list[Step]) -> None:
    Call().play(steps)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(offspring([load(path) for path in KEPT]))
def test_a_kept_case_gone_wrong(steps: list[Step]) -> None:
    Call().play(steps)


NONSENSE = st.text(max_size=60) | st.binary(max_size=20) | st.none()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LATER, NONSENSE), max_size=10), st.booleans())
def test_a_stranger_who_speaks_no_json(steps: list[Step], after_start: bool) -> None:
    Call().play([(0.0, json.dumps(start(SID))), *steps] if after_start else steps)


@settings(max_examples=20, deadline=None)
@given(calls())
def test_a_case_is_kept_as_it_was_played(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "case.json"
    path.write_text(dump(steps))
    assert load(path) == steps
