"""Whole calls through the daemon: what a caller hears, and what no caller may cost another. On a turned clock."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import wave
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.turned import InlineChild, bridge, phone, turned
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone.call import Call
from voice_bridge.bridge.phone.network import Network
from voice_bridge.codecs import dtmf, g711
from voice_bridge.codecs.resample import Down, Up

TICK = 160
APOLOGY = "Say: Sorry, something went wrong. Please call again later."


def noise(seconds: float, seed: int = 1) -> NDArray[np.int16]:
    """Sound without a pause: no 20 ms of it are silent."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(int(seconds * 8000)) * 3000).clip(-30000, 30000).astype(np.int16)


def bursts(seconds: int) -> NDArray[np.int16]:
    """50 ms of tone every second, with pauses between."""
    sound = np.zeros(seconds * 8000, np.int16)
    for begin in range(3000, len(sound) - 400, 8000):
        sound[begin : begin + 400] = np.sin(np.arange(400) * 0.5) * 8000
    return sound


def echo_of(call: Call) -> NDArray[np.int16]:
    """What the test line makes of what was said: the codecs and nothing else."""
    said = call.spoken[: len(call.spoken) // 640 * 640]
    return g711.decode(g711.encode(Down().push(Up().push(said))))


def delays(call: Call) -> list[float]:
    """Seconds from each burst at the mouth to the same burst at the ear."""
    found = []
    for begin in range(3000, len(call.spoken) - 8000, 8000):
        after = np.abs(call.heard[begin : begin + 8000]) > 1000
        found.append(np.argmax(after) / 8000 if after.any() else np.inf)
    return found


def ticks(sound: NDArray[np.int16]) -> list[bytes]:
    """The 20 ms pieces of a sound that are not silent."""
    whole = sound[: len(sound) // TICK * TICK].reshape(-1, TICK)
    return [piece.tobytes() for piece in whole if np.abs(piece).max() > 100]


def counts(daemon: Daemon) -> dict[str, int]:
    return dict(daemon.board.metrics._finished.counts)


@turned
async def test_a_caller_hears_every_sample_once_and_in_order(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(10)) as caller:
        call = await caller.call(seconds=10)
    expected, heard = echo_of(call), call.heard
    begin = int(np.argmax(np.abs(heard) > 100) - np.argmax(np.abs(expected) > 100))
    length = len(heard) - begin
    assert length > 9 * 8000
    assert np.array_equal(heard[begin:], expected[:length])
    assert counts(daemon)["underruns"] == 0


@turned
async def test_mouth_to_ear_is_under_150_ms_at_first_and_under_130_when_steady(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=bursts(20)) as caller:
        call = await caller.call(seconds=20)
    measured = delays(call)
    assert max(measured[:3]) <= 0.150
    assert max(measured[10:]) <= 0.130


@turned
async def test_a_hundred_milliseconds_of_jitter_lose_no_sample(tmp_path: Path) -> None:
    network = Network(jitter_ms=100, seed=4)
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(20), network=network) as caller:
        call = await caller.call(seconds=20)
    heard, expected = ticks(call.heard), ticks(echo_of(call))
    assert len(heard) > 19 * 50
    assert heard == expected[: len(heard)]
    lost = {name: counts(daemon)[name] for name in ("gap_fill_samples", "late_samples", "dropped_samples")}
    assert set(lost.values()) == {0}


@turned
async def test_lost_packets_become_silence_of_their_length(tmp_path: Path) -> None:
    network = Network(loss=0.05, seed=2)
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(20), network=network) as caller:
        call = await caller.call(seconds=20)
    last = max(number for number in range(1000) if number not in call.lost_chunks)
    gaps = len([number for number in call.lost_chunks if number < last])
    assert gaps > 20
    assert counts(daemon)["gap_fill_samples"] == gaps * TICK * 3
    assert counts(daemon)["frames"] == (last + 1) // 4


@pytest.mark.parametrize("sound", [bursts(16), noise(16)], ids=["with pauses", "without a pause"])
@turned
async def test_a_stall_of_a_second_is_made_up_within_five(tmp_path: Path, sound: NDArray[np.int16]) -> None:
    network = Network(stalls=[(5.0, 1.0)])
    async with bridge(tmp_path) as daemon, phone(daemon, sound=sound, network=network) as caller:
        call = await caller.call(seconds=16)
    counted = counts(daemon)
    assert counted["gap_fill_samples"] == counted["late_samples"] > 0
    assert counted["frames"] == 16 * 1000 // 80
    expected, heard = echo_of(call), call.heard
    piece = expected[11 * 8000 : 12 * 8000]
    after = heard[11 * 8000 : 13 * 8000]
    fit = [int(np.sum(np.abs(piece.astype(int) - after[n : n + 8000]))) for n in range(0, 4000, 8)]
    assert np.argmin(fit) / 1000 <= 0.200  # 140 ms and the two steps that the lead has grown by


@turned
async def test_eight_callers_hear_each_his_own(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, AsyncExitStack() as stack:
        phones = [
            await stack.enter_async_context(phone(daemon, sound=noise(4, seed), caller=f"+1555010000{seed}"))
            for seed in range(1, 9)
        ]
        calls = await asyncio.gather(*(one.call(seconds=4) for one in phones))
    for call in calls:
        heard = ticks(call.heard)
        assert len(heard) > 3 * 50
        assert heard == ticks(echo_of(call))[: len(heard)]


@turned
async def test_a_digit_hangs_up_without_an_apology(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__digits={"#": "hangup"}) as daemon, phone(daemon, digits="5#") as caller:
        call = await caller.call(seconds=20)
    assert call.steps == ["Connect", "Hangup"]
    assert call.seconds < 3


@turned
async def test_a_digit_transfers_the_call(tmp_path: Path) -> None:
    digits = {"0": "transfer:+15559998877"}
    async with bridge(tmp_path, calls__digits=digits) as daemon, phone(daemon, digits="0") as caller:
        call = await caller.call(seconds=20)
    assert call.steps[:2] == ["Connect", "Dial: +15559998877"]


@turned
async def test_a_call_that_lasts_too_long_ends_in_good_order(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__max_minutes=0.1) as daemon, phone(daemon, sound=noise(20)) as caller:
        call = await caller.call(seconds=20)
    assert call.steps == ["Connect", "Hangup"]
    assert 6 <= call.seconds < 6.5


@turned
async def test_a_call_in_which_nobody_speaks_ends_in_good_order(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__idle_seconds=4.0) as daemon, phone(daemon, sound=noise(2)) as caller:
        call = await caller.call(seconds=60)
    assert call.steps == ["Connect", "Hangup"]
    assert 6 <= call.seconds < 7


@turned
async def test_a_lost_engine_is_heard_as_a_tone_and_the_call_goes_on(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(10)) as caller:
        talk = asyncio.create_task(caller.call(seconds=10))
        await caller.until(lambda call: call.seconds >= 4)
        child: InlineChild = daemon.engine.child  # type: ignore[attr-defined]
        child.lose()
        await caller.until(lambda call: call.seconds >= 5)
        child.come_back()
        call = await talk
    assert call.ended == "the caller hung up"
    away = call.heard[int(4.3 * 8000) : int(4.5 * 8000)].astype(float)
    spectrum = np.abs(np.fft.rfft(away * np.hanning(len(away))))
    assert np.argmax(spectrum) * 8000 / len(away) == pytest.approx(440, abs=10)
    assert len(ticks(call.heard[int(5.5 * 8000) :])) > 4 * 50
    assert counts(daemon)["engine_losses"] == 1


@turned
async def test_an_engine_that_stays_away_ends_in_the_apology_and_the_fallback_number(tmp_path: Path) -> None:
    async with (
        bridge(tmp_path, calls__fallback_number="+15551112222") as daemon,
        phone(daemon, sound=noise(60)) as caller,
    ):
        talk = asyncio.create_task(caller.call(seconds=60))
        await caller.until(lambda call: call.seconds >= 2)
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        call = await talk
        refused = await caller.call(seconds=5)
    assert call.steps[:3] == ["Connect", APOLOGY, "Dial: +15551112222"]
    assert 21 < call.seconds < 24
    assert refused.steps[0] == APOLOGY


BAD = [
    "",
    "{",
    "null",
    "[]",
    "42",
    '"media"',
    "{}",
    '{"event":null}',
    '{"event":"media"}',
    '{"event":"media","media":{}}',
    '{"event":"media","media":{"payload":5}}',
    '{"event":"media","media":{"payload":"%%%"}}',
    '{"event":"media","media":{"payload":"' + "A" * 40_000 + '"}}',
    '{"event":"media","media":{"payload":"/w==","timestamp":"soon"}}',
    '{"event":"media","media":{"payload":"/w==","timestamp":-1}}',
    '{"event":"start","start":{}}',
    '{"event":"start","streamSid":"MZ1","start":{"callSid":"CA1"}}',
    '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    '{"event":"dtmf","dtmf":{"digit":"boom"}}',
    '{"event":"mark","mark":{"name":"' + "9" * 5000 + '"}}',
    '{"event":"mark","mark":{}}',
    "[" * 50_000,
    b"\x00\x01\x02",
]


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
@turned
async def test_a_bad_message_is_left_out_and_the_call_goes_on(tmp_path: Path, message: str | bytes) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(4)) as caller:
        talk = asyncio.create_task(caller.call(seconds=4))
        await caller.until(lambda call: call.seconds >= 2)
        caller.send(message)
        call = await talk
    assert call.ended == "the caller hung up"
    assert len(ticks(call.heard)) > 3 * 50


@turned
async def test_a_peer_that_only_sends_nonsense_loses_its_call_and_nobody_else_notices(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(6)) as good, phone(daemon) as bad:
        talk = asyncio.create_task(good.call(seconds=6))
        nonsense = asyncio.create_task(bad.call(seconds=6))
        await bad.until(lambda call: call.seconds >= 2)
        for _ in range(20):
            bad.send("nonsense")
        ended, call = await nonsense, await talk
        assert daemon.engine.capacity().used == 0
    assert ended.steps[:2] == ["Connect", APOLOGY]
    heard = ticks(call.heard)
    assert len(heard) > 5 * 50
    assert heard == ticks(echo_of(call))[: len(heard)]


@turned
async def test_an_oversized_message_ends_only_its_own_call(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(3)) as good, phone(daemon) as bad:
        talk = asyncio.create_task(good.call(seconds=3))
        huge = asyncio.create_task(bad.call(seconds=3))
        await bad.until(lambda call: call.seconds >= 1)
        bad.send("x" * 1_000_000)
        await huge
        call = await talk
        assert daemon.engine.capacity().used == 0
    assert len(ticks(call.heard)) > 2 * 50


@pytest.mark.parametrize(
    "token", [None, "", "wrong", "é" * 30, "x" * 400], ids=["none", "empty", "wrong", "not ascii", "long"]
)
@turned
async def test_a_stranger_without_the_calls_token_gets_no_slot(tmp_path: Path, token: str | None) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, parameters={"token": token}) as stranger:
        call = await stranger.call(seconds=3)
        assert daemon.board.metrics.refused["token"] == 1
        assert daemon.engine.capacity().used == 0
    assert not len(ticks(call.heard))


SID = "CA" + "7" * 32


def as_call(sid: str) -> Callable[[str], str]:
    """Give a stream's messages another call's id."""
    return lambda text: re.sub('"callSid": ?"CA[0-9a-f]{32}"', f'"callSid":"{sid}"', text)


def stream_with(daemon: Daemon, token: str) -> str:
    url = daemon.url.replace("http", "ws") + "/twilio/stream"
    parameter = f'<Parameter name="token" value="{token}"/>'
    return f'<Response><Connect><Stream url="{url}">{parameter}</Stream></Connect></Response>'


@turned
async def test_a_token_works_once_and_for_its_own_call_only(tmp_path: Path) -> None:
    async with (
        bridge(tmp_path) as daemon,
        phone(daemon, sound=noise(4)) as thief,
        phone(daemon, sound=noise(4), alter=as_call(SID)) as owner,
        phone(daemon, sound=noise(4), alter=as_call(SID)) as second,
    ):
        ticket = daemon.board.admission.reserve(SID, "+15550000007", "+15550100000")
        connect = stream_with(daemon, ticket.token)
        stolen = await thief.call(seconds=2, twiml=connect)
        first = asyncio.create_task(owner.call(seconds=4, twiml=connect))
        await owner.until(lambda call: call.seconds >= 1)
        during = await second.call(seconds=2, twiml=connect)
        call = await first
        after = await second.call(seconds=2, twiml=connect)
        assert daemon.board.metrics.refused["token"] == 3
    assert [len(ticks(refused.heard)) for refused in (stolen, during, after)] == [0, 0, 0]
    assert len(ticks(call.heard)) > 3 * 50


@turned
async def test_a_token_expires(tmp_path: Path) -> None:
    async with (
        bridge(tmp_path, calls__reserve_seconds=2.0) as daemon,
        phone(daemon, sound=noise(2), alter=as_call(SID)) as late,
    ):
        ticket = daemon.board.admission.reserve(SID, "+15550000007", "+15550100000")
        await asyncio.sleep(2.5)
        call = await late.call(seconds=2, twiml=stream_with(daemon, ticket.token))
        assert daemon.board.metrics.refused["token"] == 1
        assert daemon.engine.capacity().free == 10
    assert not len(ticks(call.heard))


@turned
async def test_a_line_that_falls_silent_gives_its_slot_back_within_seconds(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon) as caller:
        began = asyncio.get_running_loop().time()
        talk = asyncio.create_task(caller.call())
        await caller.until(lambda call: call.seconds >= 1)
        caller.stall()
        (live,) = daemon.board.calls.values()
        await live.finished
        assert asyncio.get_running_loop().time() - began < 10
        assert daemon.engine.capacity().used == 0
        caller.cut()
        await talk


@turned
async def test_a_socket_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(UPGRADE)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 101")
        assert daemon.board.metrics.refused["silent"] == 1
        writer.close()


UPGRADE = (
    b"GET /twilio/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: str) -> bytes:
    """A client's text frame; a mask of zeros changes nothing."""
    data = text.encode()
    head = bytes([0x81, 0x80 | len(data)]) if len(data) < 126 else b"\x81\xfe" + len(data).to_bytes(2, "big")
    return head + b"\0\0\0\0" + data


@turned
async def test_a_reader_that_does_not_read_loses_its_slot(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        ticket = daemon.board.admission.reserve("CA1", "+15550000007", "+15550100000")
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plug.connect(("127.0.0.1", daemon.port))
        start = {"callSid": "CA1", "customParameters": {"token": ticket.token}}
        plug.sendall(UPGRADE + masked(json.dumps({"event": "start", "streamSid": "MZ1", "start": start})))
        await asyncio.sleep(0.1)
        (live,) = daemon.board.calls.values()
        payload = g711.encode(noise(0.02)[:TICK])
        media = masked(json.dumps({"event": "media", "media": {"payload": base64.b64encode(payload).decode()}}))
        while not live.over.done():
            plug.sendall(media)
            await asyncio.sleep(0.02)
        assert live.over.result() == "slow-reader"
        await live.finished
        assert daemon.engine.capacity().used == 0
        plug.close()


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.5, 2.0])
@turned
async def test_a_socket_cut_at_any_moment_costs_no_slot(tmp_path: Path, after: float) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(4)) as caller:
        talk = asyncio.create_task(caller.call(seconds=4))
        await caller.until(lambda call: call.state == "talking" and call.seconds >= after)
        caller.cut()
        call = await talk
        for live in list(daemon.board.calls.values()):
            await live.finished
        assert daemon.engine.capacity().used == 0
    assert call.steps[:2] == ["Connect", APOLOGY]


@pytest.mark.parametrize("jump", [3_600_000, -3_000], ids=["an hour ahead", "three seconds back"])
@turned
async def test_a_callers_clock_that_jumps_does_not_stop_the_call(tmp_path: Path, jump: int) -> None:
    def alter(text: str) -> str:
        message = json.loads(text)
        media = message.get("media")
        if media and int(media["timestamp"]) >= 4000:
            media["timestamp"] = str(int(media["timestamp"]) + jump)
        return json.dumps(message)

    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(12), alter=alter) as caller:
        call = await caller.call(seconds=12)
    assert call.ended == "the caller hung up"
    assert len(ticks(call.heard[10 * 8000 :])) > 80


@turned
async def test_the_recording_holds_the_caller_left_and_the_agent_right(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    async with (
        bridge(tmp_path, calls__record=True, calls__recordings=recordings) as daemon,
        phone(daemon, sound=noise(6)) as caller,
    ):
        call = await caller.call(seconds=6)
        for live in list(daemon.board.calls.values()):
            await live.finished
    (path,) = recordings.glob("*.wav")
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        left, right = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2).T
    assert np.array_equal(left[: 5 * 8000], call.spoken[: 5 * 8000])
    begin = int(np.argmax(np.abs(right) > 100))
    heard = call.heard
    assert begin == pytest.approx(int(np.argmax(np.abs(heard) > 100)), abs=TICK)
    played = heard[int(np.argmax(np.abs(heard) > 100)) :]
    length = min(4 * 8000, len(right) - begin)
    assert np.abs(g711.decode(g711.encode(right[begin : begin + length])).astype(int) - played[:length]).max() == 0


@turned
async def test_a_recording_that_cannot_be_written_does_not_touch_the_call(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    (recordings / f"{SID}.wav").mkdir(parents=True)
    async with (
        bridge(tmp_path, calls__record=True, calls__recordings=recordings) as daemon,
        phone(daemon, sound=noise(4), alter=as_call(SID)) as caller,
    ):
        ticket = daemon.board.admission.reserve(SID, "+15550000007", "+15550100000")
        call = await caller.call(seconds=4, twiml=stream_with(daemon, ticket.token))
    assert call.ended == "the caller hung up"
    assert len(ticks(call.heard)) > 3 * 50


@turned
async def test_draining_lets_live_calls_finish_up_to_the_limit(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=noise(4)) as short, phone(daemon) as long:
        first = asyncio.create_task(short.call(seconds=4))
        second = asyncio.create_task(long.call(seconds=60))
        await long.until(lambda call: call.seconds >= 1)
        drain = asyncio.create_task(daemon.board.drain(10))
        await long.until(lambda call: call.seconds >= 2)
        async with phone(daemon) as refused:
            assert (await refused.call(seconds=1)).ended == "rejected: busy"
        await drain
        finished, cut = await first, await second
    assert finished.ended == "the caller hung up"
    assert cut.steps == ["Connect", "Hangup"]
    assert 10 < cut.seconds < 12


@turned
async def test_digits_are_played_to_the_other_side_as_tones(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon) as caller:
        talk = asyncio.create_task(caller.call(seconds=4))
        await caller.until(lambda call: call.seconds >= 1)
        (live,) = daemon.board.calls.values()
        await live.press("5")
        call = await talk
    expected = g711.decode(g711.encode(dtmf.tones("5")))
    begin = int(np.argmax(np.abs(call.heard) > 100)) - int(np.argmax(np.abs(expected) > 100))
    assert np.array_equal(call.heard[begin : begin + len(expected)], expected)


@turned
async def test_each_call_leaves_a_record(tmp_path: Path) -> None:
    records = tmp_path / "records"
    async with bridge(tmp_path, log__records=records) as daemon, phone(daemon, sound=bursts(4)) as caller:
        await caller.call(seconds=4)
        for live in list(daemon.board.calls.values()):
            await live.finished
    (file,) = records.glob("calls-*.jsonl")
    record = json.loads(file.read_text())
    assert (record["end"], record["caller"], record["engine"]) == ("caller", "+15550100001", "echo")
    assert record["frames"] == 50
    assert 100 < record["mouth_to_ear_ms"]["p50"] < 150


@turned
async def test_a_minute_of_talk_drifts_by_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, phone(daemon, sound=bursts(60)) as caller:
        call = await caller.call(seconds=60)
        assert counts(daemon)["frames"] == 60 * 1000 // 80
        assert daemon.engine.capacity().free == 10
    steady = delays(call)[12:]
    assert max(steady) - min(steady) < 0.001
