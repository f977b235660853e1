"""Mouth to ear to the sample, and the report and picture made of it."""

import json
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from voice_bridge.bridge.phone import Arrival, Call, Gap, TwilioError, tone
from voice_bridge.bridge.phone.measure import Echo, delays, echoes, is_echo
from voice_bridge.bridge.phone.picture import as_svg
from voice_bridge.bridge.phone.report import Result, as_json, as_rows
from voice_bridge.bridge.phone.sound import Pcm
from voice_bridge.codecs import g711

RATE = 8000


def signal(seconds: float) -> bytes:
    mouth = tone()
    return b"".join(mouth(number) for number in range(int(seconds * 50)))


def delayed(pcm: Pcm, samples: int, gain: float = 1.0) -> Pcm:
    """As a telephone would bring it back: later, quieter, through mu-law once more."""
    later = np.concatenate([np.zeros(samples), pcm * gain])[: len(pcm)].astype(np.int16)
    return g711.decode(g711.encode(later))


def speech(seconds: float, seed: int) -> Pcm:
    """Noise that swells and fades like syllables, with pauses."""
    dice = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    loudness = np.clip(np.sin(2 * np.pi * 1.3 * time + seed) + 0.2, 0, None) * 4000
    return (dice.standard_normal(len(time)) * loudness).astype(np.int16)


@pytest.mark.parametrize("samples", [0, 1, 320, 997, 1037, 15_999])
def test_a_delay_is_found_to_the_sample(samples: int) -> None:
    spoken = g711.decode(signal(12))
    found = echoes(spoken, delayed(spoken, samples, gain=0.4))
    assert len(found) >= 9
    assert {echo.delay for echo in found} == {samples}


def test_a_delay_that_grows_in_mid_call_is_seen_sound_by_sound() -> None:
    spoken = g711.decode(signal(16))
    heard = np.concatenate([delayed(spoken, 1040)[: 8 * RATE], delayed(spoken, 1200)[8 * RATE :]])
    found = echoes(spoken, heard)
    assert [echo.delay for echo in found] == [1040] * 8 + [1200] * 8
    early, late = delays(found, ends=5.0), delays(found, begins=10.0)
    assert early
    assert late
    assert (early.median, late.median) == (130.0, 150.0)


def test_a_delay_of_seconds_is_not_taken_for_a_short_one_of_the_next_sound() -> None:
    spoken = g711.decode(signal(12))
    assert {echo.delay for echo in echoes(spoken, delayed(spoken, 20_001))} == {20_001}


def test_sounds_that_never_came_back_are_missed_and_the_last_ones_forgiven() -> None:
    spoken = g711.decode(signal(12))
    heard = delayed(spoken, 1000).copy()
    heard[int(3.4 * RATE) : int(4.4 * RATE)] = 0
    heard[int(11 * RATE) :] = 0  # the call ends while the last echo is on its way
    assert [echo.delay for echo in echoes(spoken, heard)] == [1000] * 3 + [None] + [1000] * 7


def test_speech_and_its_echo_are_matched() -> None:
    spoken = speech(6, seed=1)
    found = echoes(spoken, delayed(spoken, 1234))
    assert len(found) >= 5
    assert is_echo(found)
    assert {echo.delay for echo in found} == {1234}


def test_another_voice_is_no_echo() -> None:
    found = echoes(speech(8, seed=1), speech(8, seed=2))
    assert len(found) >= 5
    assert not is_echo(found)


def test_silence_has_no_echo() -> None:
    quiet = np.zeros(5 * RATE, np.int16)
    assert echoes(quiet, quiet) == []
    assert not is_echo([])


def test_statistics_are_over_what_came_back() -> None:
    found = [Echo(at=n * RATE, length=480, delay=800 + 8 * n) for n in range(11)] + [Echo(11 * RATE, 480, None)]
    over_all = delays(found)
    assert over_all is not None
    assert (over_all.count, over_all.median, over_all.least, over_all.most) == (11, 105.0, 100.0, 110.0)
    assert over_all.p95 == pytest.approx(109.5)
    assert delays(found, begins=11) is None


@pytest.fixture
def call() -> Call:
    spoken = signal(12)
    heard = g711.encode(delayed(g711.decode(spoken), 1040))
    call = Call("CA1", "+15550100001", "+15550100000", state="ended", answered=True, ended="the caller hung up")
    call.stream_ended, call.steps, call.ticks = "the caller hung up", ["Connect"], 601
    call.spoken_bytes[:], call.heard_bytes[:] = spoken, heard
    call.webhook_seconds, call.handshake_seconds, call.first_media, call.first_sound = 0.012, 0.003, 0.081, 0.631
    call.arrivals = [Arrival(0.08 * n, 640, 320) for n in range(150)]
    call.gaps.append(Gap(at=4 * RATE, length=1600))
    call.digits.append((2.0, "#"))
    call.errors.append(TwilioError(31951, "Object contains unknown field `track`"))
    call.ignored = 3
    return call


def test_a_report_says_what_a_person_wants_to_know(call: Call) -> None:
    rows = dict(reversed(as_rows([Result.of(call)])))
    assert rows["call"] == "+15550100001 to +15550100000, 12.0 s, the caller hung up"
    assert rows["first audio"] == "81 ms after the stream began, the first audible at 631 ms"
    assert rows["mouth to ear"].startswith("130.0 ms median, p95 130.0, 130.0 to 130.0 ms, 12 of 12")
    assert rows["underruns"] == "1, gaps of 200 ms in all, the longest 200 ms"
    assert rows["error 31951"] == "Object contains unknown field `track`"
    assert rows["ignored"].startswith("3 messages")


def test_a_chance_likeness_is_not_reported_as_an_echo(call: Call) -> None:
    rare = Result(call, [Echo(n * RATE, 480, 900 if n == 3 else None) for n in range(12)])
    assert dict(as_rows([rare]))["mouth to ear"] == "no echo found"
    assert rare.data()["mouth_to_ear"] is None


def test_the_report_as_data_holds_every_call_and_their_sum(call: Call) -> None:
    refused = Call("CA2", "+15550100002", "+15550100000", state="ended", failure="nothing answers", ended="failed")
    data = json.loads(json.dumps(as_json([Result.of(call), Result.of(refused)])))
    first, second = data["calls"]
    assert first["mouth_to_ear"]["median_ms"] == 130.0
    assert first["mouth_to_ear"]["settled"]["count"] == 2
    assert (first["underruns"], first["gap_ms"], first["first_media_ms"], first["buffered_ms"]) == (1, 200, 81, 40)
    assert second["failure"] == "nothing answers"
    assert second["mouth_to_ear"] is None
    assert not second["completed"]
    assert data["summary"]["calls"] == 2
    assert data["summary"]["completed"] == 1
    assert data["summary"]["errors"] == {"31951": 1}


def test_many_calls_are_reported_together(call: Call) -> None:
    rows = dict(reversed(as_rows([Result.of(call), Result.of(call)])))
    assert rows["calls"] == "2, 2 answered, 2 completed, 12.0 s"
    assert "24 of 24" in rows["mouth to ear"]
    assert rows["error 31951"].endswith("(2 times)")


def test_the_picture_shows_both_sides_their_delays_and_the_gap(call: Call) -> None:
    root = ET.fromstring(as_svg(Result.of(call)))
    kinds = [element.get("class") for element in root.iter()]
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert kinds.count("mouth") == kinds.count("ear") == 1
    assert kinds.count("link") == kinds.count("dot") == 12
    assert kinds.count("gap") == 1
    assert texts.count("130 ms") >= 13, "one for each sound and one in the headline"
    assert {"200 ms", "1", "#", "12 s"} <= set(texts)


def test_a_picture_needs_neither_echo_nor_sound() -> None:
    call = Call("CA1", "<caller>", "+1", state="ended", failure="nothing answers at http://x & y")
    root = ET.fromstring(as_svg(Result.of(call)))
    assert any("no echo" in "".join(element.itertext()) for element in root)


def test_the_labels_of_a_long_call_do_not_crowd(call: Call) -> None:
    call.ticks = 6001
    found = [Echo(n * RATE, 480, 1040) for n in range(120)]
    root = ET.fromstring(as_svg(Result(call, found)))
    places = [float(e.get("x", "0")) for e in root if e.get("class") == "delay"]
    assert len(places) > 10
    assert min(b - a for a, b in pairwise(places)) > 40
