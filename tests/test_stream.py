"""Clients at /v1/stream: a whole bridge and the clients that terminals and browsers are. On a turned clock, mostly."""

from __future__ import annotations

import asyncio
import json
import socket
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.clients import SECRET, Client, client, gone, noise, reach, token, without_silence
from tests.conftest import Bridge, LogLines
from tests.cores import Whims
from tests.turned import bridge, phone, turned
from voice_bridge.bridge import auth
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.lines.client import RATES
from voice_bridge.bridge.lines.texts import MAX_TEXT
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.engines.base import Flush
from voice_bridge.engines.echo import EchoCore

# -- a conversation --------------------------------------------------------------------------------------------------


@turned
async def test_a_client_hears_every_sample_once_and_in_order(tmp_path: Path) -> None:
    said = noise(4)
    async with bridge(tmp_path) as daemon:
        async with client(daemon) as one:
            await one.say(said)
            await one.until_echoed(said)
        await gone(daemon)


@turned
async def test_sound_may_come_first_and_in_chunks_of_any_size(tmp_path: Path) -> None:
    said = noise(6)
    async with bridge(tmp_path) as daemon:
        async with reach(daemon) as socket:
            one = Client(socket)
            await one.say(said, sizes=(7000, 1, 333, 0, 1920, 4801))
            await one.until_echoed(said)
            assert one.told[0]["type"] == "ready"
        await gone(daemon)


@pytest.mark.parametrize("rate", RATES)
@turned
async def test_a_client_speaks_and_hears_at_its_own_rate(tmp_path: Path, rate: int) -> None:
    said = np.rint(8000 * np.sin(2 * np.pi * 500 * np.arange(3 * rate) / rate)).astype("<i2")
    async with bridge(tmp_path) as daemon, client(daemon, {"rate": rate}) as one:
        await one.say(said)
        heard = (await one.until_heard(2 * rate))[-rate:]
    tones = np.abs(np.fft.rfft(heard * np.hanning(rate)))
    assert int(np.argmax(tones)) == 500
    assert np.abs(heard).max() == pytest.approx(8000, rel=0.02)


@turned
async def test_a_rate_that_is_not_converted_is_refused_with_those_that_are(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as socket:
        one = Client(socket)
        await one.tell("open", rate=44100)
        code, reason = await one.closed()
        assert (code, one.told[-1]) == (1008, {"type": "ended", "code": "protocol"})
        assert one.told[0] == {"type": "error", "code": "protocol", "message": reason}
        assert reason == "rate 44100 is not taken; these are: 8000, 16000, 24000, 48000"
        await gone(daemon)


@turned
async def test_what_is_to_be_said_or_known_is_answered_with_an_id_and_heard_of_again(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.tell("say", text="Good day.")
        await one.tell("inject", context="It rains.")
        await one.tell("cancel", id=99)
        await one.say(noise(0.2))
        await one.until("injected", id=2)
        assert [told["id"] for told in one.told if told["type"] == "asked"] == [1, 2]
        words = {"type": "transcript", "text": "Good day.", "speaker": "agent", "id": 1, "final": True}
        assert words in one.told
        assert {"type": "said", "id": 1} in one.told


@turned
async def test_a_client_is_told_who_talks(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.say(np.zeros(RATE, "<i2"))
        await one.say(np.concatenate((noise(1), np.zeros(RATE // 4, "<i2"), noise(1))))  # with a pause between words
        await one.say(np.zeros(RATE, "<i2"))
        await one.until("status", state="talking")
        states = [told["state"] for told in one.told if told["type"] == "status"]
        assert states == ["listening", "talking", "listening"]


@turned
async def test_ping_digit_and_close(tmp_path: Path) -> None:
    digits = {"*": "hangup", "0": "transfer:+15551234567"}
    async with bridge(tmp_path, calls__digits=digits) as daemon:
        async with client(daemon) as one:
            await one.tell("ping")
            await one.until("pong")
            await one.tell("digit", digit="0")  # nobody can transfer a client
            await one.tell("digit", digit="5")
            await one.tell("close")
            assert await one.closed() == (1000, "caller")
            assert one.told[-1] == {"type": "ended", "code": "caller"}
        async with client(daemon) as one:
            await one.tell("digit", digit="*")
            assert await one.closed() == (1000, "digit")
        await gone(daemon)


@turned
async def test_what_a_client_has_played_tells_the_delay(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon, {"rate": 16000}) as one:
        (live,) = daemon.board.calls.values()
        talk = asyncio.create_task(one.say(noise(2, 16000)))
        await one.until_heard(1)
        for tick in range(1, 80):
            await asyncio.sleep(0.02)
            await one.tell("played", at=min(len(one.heard), 320 * tick))
        await talk
        assert 0.1 < (live.stats.mouth_to_ear.quantile(0.5) or 0) < 0.16  # a frame, and the lead


@turned
async def test_a_persona_of_the_clients_own_is_given_to_the_model(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__persona="A butler.") as daemon:
        async with client(daemon), client(daemon, {"persona": "A pirate."}):
            openings = [each.opening.persona for each in daemon.engine.conversations.values()]  # type: ignore[attr-defined]
        assert openings == ["A butler.", "A pirate."]


class Interrupted(EchoCore):
    """An echo that any key interrupts."""

    def digit(self, slot: int, digit: str) -> None:
        self._events.append((slot, Flush()))


@turned
async def test_a_client_is_told_to_throw_away_what_it_has_not_played(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Interrupted(2)) as daemon, client(daemon) as one:
        await one.say(noise(0.4))
        await one.tell("digit", digit="1")
        await one.say(noise(0.4))
        assert await one.until("flush") == {"type": "flush"}
        (live,) = daemon.board.calls.values()
        assert live.party.playout.lead(asyncio.get_running_loop().time()) > 0  # positions have begun anew


async def test_a_token_for_a_telephone_number_speaks_as_that_caller_and_is_told_what_the_model_knows(
    bridge: Bridge, tmp_path: Path
) -> None:
    for extra in ("libsql", "moonshine_voice", "webrtcvad", "wordllama"):
        pytest.importorskip(extra)
    from tests import minds, speech

    if lacks := speech.missing():
        pytest.skip(f"no voice without {', '.join(lacks)}")
    sentence = speech.join(speech.silence(0.3), speech.say("My name is Anna."), speech.silence(1.0))
    mind = minds.Mind(minds.init(tmp_path))
    daemon = await bridge(mind=mind, auth__secret=SECRET)
    await mind.settled()
    given = auth.mint(SECRET, "voice-bridge", minds.ANNA, ("talk",), 60)
    async with client(daemon, given=given) as one:
        await one.say(np.rint(sentence * 32767).astype("<i2"))
        await minds.until(lambda: mind.written == 1)
    async with client(daemon, given=token()) as one:  # of a subject that is no number: nobody in particular
        await one.say(noise(0.2))
        await one.until_heard(RATE // 10)
        assert not [told for told in one.told if told["type"] == "memory"]
    async with client(daemon, given=given) as one:
        await one.say(noise(0.2))
        known = await one.until("memory")
        assert known["injected"] == ['in earlier calls the caller told me: "My name is Anna."']


@turned
async def test_silence_is_heard_while_a_client_is_muted_and_it_stays(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.say(noise(0.4))
        (live,) = daemon.board.calls.values()
        await asyncio.sleep(30)
        assert live.stats.frames == pytest.approx(30.4 / 0.08, abs=5)
        await one.say(noise(0.4))
        await one.until_heard(round(0.7 * RATE))


@turned
async def test_a_client_that_sends_nothing_is_told_why_and_closed(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as socket:
        one, began = Client(socket), asyncio.get_running_loop().time()
        assert await one.closed() == (1008, "no start within 10 s")
        assert asyncio.get_running_loop().time() - began < 10.5
        assert one.told[0]["code"] == "silent"
        assert daemon.board.metrics.refused["silent"] == 1
        await gone(daemon)


# -- operators -------------------------------------------------------------------------------------------------------


@turned
async def test_operators_see_clients_and_can_hang_up_and_a_record_is_left(tmp_path: Path) -> None:
    records = tmp_path / "records"
    settings = {"auth__secret": SECRET, "log__records": records}
    async with bridge(tmp_path, **settings) as daemon, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token('operator')}"}
        async with client(daemon, given=token()) as one:
            await one.say(noise(0.4))
            async with http.get(daemon.url + "/v1/calls", headers=headers) as answer:
                (seen,) = (await answer.json())["calls"]
            assert (seen["line"], seen["caller"], seen["state"]) == ("client", "ann", "talking")
            call = f"{daemon.url}/v1/calls/{seen['call']}"
            async with http.post(call + "/transfer", json={"number": "+15551234567"}, headers=headers) as answer:
                assert answer.status == 409
            async with http.post(call + "/digits", json={"digits": "5"}, headers=headers) as answer:
                assert answer.status == 204
            async with http.get(daemon.url + "/metrics", headers=headers) as answer:
                assert 'voice_bridge_calls{line="client"} 1.0' in await answer.text()
            async with http.delete(call, headers=headers) as answer:
                assert answer.status == 204
            assert await one.closed() == (1000, "operator")
            assert (await one.until("ready"))["call"] == seen["call"]
        await gone(daemon)
        async with http.get(daemon.url + "/metrics", headers=headers) as answer:
            assert 'voice_bridge_calls_total{end="operator",line="client"} 1.0' in await answer.text()
    (file,) = records.glob("calls-*.jsonl")
    record = json.loads(file.read_text())
    assert (record["line"], record["caller"], record["end"]) == ("client", "ann", "operator")


async def test_a_call_is_recorded_as_the_client_heard_it(bridge: Bridge, tmp_path: Path) -> None:
    recordings, said = tmp_path / "recordings", noise(0.8)
    daemon = await bridge(calls__record=True, calls__recordings=recordings)
    async with client(daemon) as one:
        await one.say(said)
        await one.until_echoed(said)
    await gone(daemon)
    (path,) = recordings.glob("VB*.wav")
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, RATE)
        left, right = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2).T
    assert np.array_equal(without_silence(left), without_silence(said))
    assert np.count_nonzero(right) > RATE // 2


# -- who may ---------------------------------------------------------------------------------------------------------


async def refusal(daemon: Daemon, **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """How a handshake is refused: the status, one line of JSON, and the headers."""
    with pytest.raises(InvalidStatus) as refused:
        await reach(daemon, **options)
    response = refused.value.response
    body = bytes(response.body or b"")
    assert body.count(b"\n") == 0
    return response.status_code, json.loads(body), dict(response.headers.raw_items())


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        (None, 401, "send Authorization"),
        ("nonsense", 401, "not valid"),
        (token(secret="another-secret-that-is-long-enough"), 401, "not valid"),
        (token(audience="somebody-else"), 401, "not valid"),
        (token(seconds=-1), 401, "not valid"),
        (token("operator"), 403, "lacks the scope talk"),
    ],
    ids=["none", "nonsense", "other secret", "other audience", "expired", "other scope"],
)
async def test_a_client_without_a_token_for_it_is_refused_before_the_upgrade(
    bridge: Bridge, given: str | None, status: int, why: str, log_lines: LogLines
) -> None:
    daemon = await bridge(auth__secret=SECRET)
    found = await refusal(daemon, given=given)
    assert found[0] == status
    assert why in found[1]["error"]
    if given:
        browser = [Subprotocol("voice-bridge.v1"), Subprotocol(f"bearer.{given}")]
        assert (await refusal(daemon, subprotocols=browser))[0] == status
        assert given not in str(log_lines)
    assert daemon.engine.capacity().reserved == 0


async def test_a_browser_shows_its_token_as_a_subprotocol_and_is_answered_with_the_other(bridge: Bridge) -> None:
    daemon = await bridge(auth__secret=SECRET)
    offered = [Subprotocol("voice-bridge.v1"), Subprotocol(f"bearer.{token()}")]
    async with reach(daemon, subprotocols=offered, origin=Origin(daemon.url)) as socket:
        assert socket.subprotocol == "voice-bridge.v1"
        one = Client(socket)
        await one.tell("open")
        await one.until("ready")


async def test_a_page_of_another_site_is_refused_whatever_token_it_has(bridge: Bridge) -> None:
    daemon = await bridge(auth__secret=SECRET)
    assert (await refusal(daemon, given=token(), origin=Origin("https://evil.example")))[0] == 403


@pytest.mark.parametrize(
    "options",
    [
        {"origin": Origin("https://evil.example")},
        {"headers": {"Forwarded": "for=192.0.2.1"}},
        {"headers": {"X-Forwarded-For": "192.0.2.1"}},
    ],
    ids=["another page", "a proxy", "a tunnel"],
)
async def test_an_open_bridge_takes_clients_of_this_machine_only(bridge: Bridge, options: dict[str, Any]) -> None:
    daemon = await bridge()
    async with reach(daemon):
        pass
    status, body, _ = await refusal(daemon, **options)
    assert (status, list(body)) == (403, ["error"])


async def test_a_bridge_that_is_open_to_twilio_only_takes_no_clients(bridge: Bridge) -> None:
    daemon = await bridge(twilio__auth_token="t" * 32)
    status, body, _ = await refusal(daemon)
    assert (status, body) == (403, {"error": "clients need auth.secret (and a token): docs/configuration.md"})


async def test_what_is_no_websocket_is_told_so_and_takes_no_slot(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    async with http.get(daemon.url + "/v1/stream") as answer:
        assert answer.status == 426
        assert "WebSocket" in (await answer.json())["error"]
    assert daemon.engine.capacity().reserved == 0


async def test_a_full_bridge_refuses_at_once_and_says_when_to_come_again(bridge: Bridge) -> None:
    daemon = await bridge(slots=1)
    async with client(daemon) as one:
        status, body, headers = await refusal(daemon)
        assert (status, body["code"], headers["Retry-After"]) == (503, "busy", "5")
        assert daemon.board.metrics.refused["busy"] == 1
        await one.tell("close")
        await one.closed()
    await gone(daemon)
    async with client(daemon):
        pass


@turned
async def test_a_draining_bridge_lets_no_client_in_and_ends_those_that_stay(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        drain = asyncio.create_task(daemon.board.drain(5))
        await one.say(noise(0.4))
        status, body, _ = await refusal(daemon)
        assert (status, body["code"]) == (503, "draining")
        assert await one.closed() == (1000, "drain")
        await drain


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("hello", "a text that is no JSON"),
        ("x" * (MAX_TEXT + 1), "a text of 65537 characters; at most 65536 are taken"),
        (bytes(48002), "48002 bytes of sound in one message; at most 48000 go"),
    ],
    ids=["no JSON", "a long text", "a long sound"],
)
@turned
async def test_garbage_ends_that_call_with_a_reason_and_no_other(
    tmp_path: Path, message: str | bytes, why: str
) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as other:
        async with client(daemon) as one:
            await one.tell("played", at="soon")
            assert (await one.until("error"))["code"] == "message"
            await one.socket.send(message)
            assert await one.closed() == (1000, "protocol")
            trouble, ended = one.told[-2:]
            assert (trouble["code"], trouble["message"][: len(why)]) == ("protocol", why)
            assert ended == {"type": "ended", "code": "protocol"}
        assert daemon.board.metrics.protocol_errors == {"client": 1}
        await other.say(noise(0.2))
        await other.until_heard(RATE // 10)


@pytest.mark.parametrize("message", ["x" * 300_000, b"\0" * 300_000], ids=["text", "sound"])
@turned
async def test_a_message_beyond_all_bounds_is_not_even_read(tmp_path: Path, message: str | bytes) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.socket.send(message)
        assert (await one.closed())[0] == 1009
        await gone(daemon)
        assert daemon.board.metrics.protocol_errors == {"client": 1}


@turned
async def test_a_client_that_floods_costs_another_no_frame(tmp_path: Path) -> None:
    said = noise(3)
    async with bridge(tmp_path) as daemon, client(daemon) as one, client(daemon) as other:
        talk = asyncio.create_task(one.say(said))
        await one.until_heard(FRAME)
        with suppress(ConnectionClosed):
            while True:
                await other.socket.send(noise(1).tobytes())
        assert other.told[-1] == {"type": "ended", "code": "protocol"}
        await talk
        await one.until_echoed(said)


@turned
async def test_a_client_that_does_not_read_is_ended_and_costs_another_no_frame(tmp_path: Path) -> None:
    said = noise(60)
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plug.connect(("127.0.0.1", daemon.port))
        plug.sendall(UPGRADE + b"\x82\x80\0\0\0\0")  # an empty chunk of sound, which begins the call
        while len(daemon.board.calls) < 2:  # noqa: ASYNC110 - the call of a peer that tells nothing
            await asyncio.sleep(0.01)
        stuck = list(daemon.board.calls.values())[-1]
        chunk = b"\x82\xfe" + (2 * FRAME).to_bytes(2, "big") + b"\0\0\0\0" + noise(FRAME / RATE).tobytes()

        async def stall() -> None:
            with suppress(OSError):  # once it is cut off
                while not stuck.over.done():
                    plug.sendall(chunk)
                    await asyncio.sleep(FRAME / RATE)

        stalling = asyncio.create_task(stall())
        await one.say(said)
        await stalling
        assert await stuck.over == "slow-reader"  # when it has not come back
        await stuck.finished
        await one.until_echoed(said)
        plug.close()


UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@turned
async def test_a_client_whose_network_is_gone_is_missed_by_the_pings(tmp_path: Path) -> None:
    """Its socket stays open, and nothing comes any more, not even an answer to a ping."""
    async with bridge(tmp_path) as daemon:
        plug = socket.create_connection(("127.0.0.1", daemon.port))
        plug.sendall(UPGRADE + b"\x82\x80\0\0\0\0")
        while not daemon.board.calls:  # noqa: ASYNC110 - the call of a peer that tells nothing
            await asyncio.sleep(0.01)
        began = asyncio.get_running_loop().time()
        (live,) = daemon.board.calls.values()
        assert await live.over == "closed"
        assert 20 <= asyncio.get_running_loop().time() - began <= 26  # it could have come back in the last ten
        await gone(daemon)
        plug.close()


@pytest.mark.parametrize("after", [0.0, 0.1, 1.0])
@turned
async def test_a_socket_cut_at_any_moment_costs_no_slot(tmp_path: Path, after: float) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as ws:
        one = Client(ws)
        await one.say(noise(after))
        ws.transport.abort()
        await one._listening
        await asyncio.sleep(0.1)
        await gone(daemon)


@turned
async def test_an_engine_that_is_lost_and_comes_back_goes_on_with_the_client(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one:
        await one.say(noise(0.4))
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        await one.until("status", state="engine-lost")
        await one.say(noise(0.4))
        one.told.clear()
        one.chunks.clear()
        daemon.engine.child.come_back()  # type: ignore[attr-defined]
        await one.until("status", state="listening")
        await one.say(noise(0.4))
        await one.until_heard(round(0.3 * RATE))


@turned
async def test_a_lost_engine_is_heard_as_a_tone_at_the_clients_rate(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon, {"rate": 16000}) as one:
        await one.say(np.zeros(16000, "<i2"))
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        await one.until("status", state="engine-lost")
        tone = without_silence(await one.until_heard(round(0.25 * 16000)))
        crossings = np.count_nonzero(np.diff(np.signbit(tone[1000:3000])))
        assert crossings * 16000 / 2000 / 2 == pytest.approx(440, rel=0.03)


@turned
async def test_a_client_is_told_what_the_engine_cannot_take(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Whims(2, 0)) as daemon:
        async with client(daemon) as one:
            await one.tell("say", text="unspeakable")
            await one.say(noise(0.2))
            assert (await one.until("error"))["id"] == 1
        async with reach(daemon) as ws:
            one = Client(ws)
            await one.tell("open", persona="nobody")
            assert await one.closed() == (1000, "engine")
            assert one.told[-2]["message"] == "opening refused: nobody is not a persona"


@turned
async def test_a_telephone_and_a_client_talk_side_by_side(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, client(daemon) as one, phone(daemon) as caller:
        talk = asyncio.create_task(caller.call(seconds=2))
        await one.say(noise(2))
        assert (await talk).ended == "the caller hung up"
        await one.until_heard(RATE)
