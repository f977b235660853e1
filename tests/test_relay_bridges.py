"""Conversations that go on at other bridges: real daemons on loopback, and an engine that relays to them."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import Bridge, Dial
from tests.relays import VOICE_BRIDGE, Caller, begin, far, relaying, road, until
from voice_bridge.bridge.config import load
from voice_bridge.bridge.endpoints import endpoints
from voice_bridge.bridge.switchboard import End
from voice_bridge.codecs.framing import FRAME
from voice_bridge.engines.base import (
    OPENING,
    Busy,
    CannotStart,
    Ended,
    HangUp,
    Injected,
    Lost,
    Opening,
    Refused,
    Remember,
    Said,
    Words,
)
from voice_bridge.engines.relay import door
from voice_bridge.engines.relay.endpoint import Endpoint, endpoint
from voice_bridge.engines.relay.engine import RelayEngine

SECRET = "not-a-real-secret-but-long-enough"


def to(url: str) -> Endpoint:
    return endpoint(url, None)


async def test_sound_comes_back_as_it_was_said_and_answers_its_frame(tmp_path: Path) -> None:
    said = (np.random.default_rng(1).integers(-9000, 9000, FRAME) / 32768).astype(np.float32)
    async with far(tmp_path) as there, relaying(to(there.url)) as engine:
        async with Caller(await begin(engine), said) as caller:
            await caller.hears(5)
        assert [sound.answers for sound in caller.sounds[:5]] == [at * FRAME for at in range(5)]
        assert all(np.array_equal(sound.pcm, said) for sound in caller.sounds)
        assert caller.events[-1] == Ended("closed")
        assert not there.board.calls


async def test_everything_that_can_be_asked_arrives_there_as_it_was_asked(tmp_path: Path) -> None:
    async with (
        far(tmp_path, core="whims") as there,
        relaying(to(there.url)) as engine,
        Caller(await begin(engine, Opening("CA1", "Hello", persona="a clerk", seed=7))) as caller,
    ):
        talk = caller.conversation
        first, second = talk.say("One moment."), talk.inject("likes jazz", how="add_to_input")
        talk.inject("", turn=-2)
        talk.say("Now.", interruptible=False)
        talk.digit("5")
        talk.played(2 * FRAME)
        await until(lambda: "played 3840" in {event.text for event in caller.of(Remember)})
        talk.cancel(second)
        await until(lambda: f"cancel {second}" in {event.text for event in caller.of(Remember)})
        [call] = there.board.calls
        assert [event.text for event in caller.of(Remember)] == [
            f"open {call} Hello",
            "say 1 One moment. True",
            "inject 2 likes jazz add_to_input None",
            "inject 3  silent -2",
            "say 4 Now. False",
            "digit 5",
            "played 3840",
            "cancel 2",
        ]
        assert (first, second) == (1, 2)


async def test_what_is_reported_has_the_numbers_of_here_whoever_else_asks_for_things_there(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as there,
        relaying(to(there.url)) as engine,
        Caller(await begin(engine, Opening(known="Ann"))) as caller,
    ):
        await caller.hears()
        assert caller.of(Injected) == [Injected(OPENING)]
        unspoken = [caller.conversation.say(" "), caller.conversation.say("x" * 5000)]
        await caller.told(Refused, 2)
        assert caller.of(Refused) == [*map(Refused, unspoken)]
        [call] = there.board.calls.values()
        assert call.say("The operator says this.") == 1
        await caller.told(Said)
        mine = caller.conversation.say("I say this.")
        await caller.told(Said, 2)
        words = {event.text: event.id for event in caller.events if isinstance(event, Words)}
        assert words["I say this."] == mine
        assert words["The operator says this."] not in (mine, OPENING)


async def test_a_say_that_is_taken_back_at_once_is_cancelled_under_its_number_there(tmp_path: Path) -> None:
    async with (
        far(tmp_path, core="whims") as there,
        relaying(to(there.url)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        caller.conversation.cancel(caller.conversation.say("Never mind."))
        await until(lambda: "cancel 1" in {event.text for event in caller.of(Remember)})


async def test_two_hops_are_as_one(bridge: Bridge, tmp_path: Path) -> None:
    async with far(tmp_path, core="whims") as last:
        between = await bridge(engine=RelayEngine([to(last.url)]))
        async with relaying(to(between.url)) as engine:
            async with Caller(await begin(engine, Opening(persona="a clerk"))) as caller:
                caller.conversation.inject("", turn=-2)
                await caller.told(Remember, 2)
                await caller.hears(3)
                assert caller.of(Remember)[1] == Remember("inject 1  silent -2")
            await until(lambda: not last.board.calls and not between.board.calls)


async def test_a_telephone_call_is_answered_by_a_bridge_elsewhere(bridge: Bridge, dial: Dial, tmp_path: Path) -> None:
    async with far(tmp_path) as there:
        await dial(await bridge(engine=RelayEngine([to(there.url)])))  # and heard it
        assert [call.line.name for call in there.board.calls.values()] == ["relay"]


async def test_the_nearest_with_room_is_taken_and_a_full_one_leads_to_the_next(tmp_path: Path) -> None:
    async with (
        far(tmp_path, slots=1) as near,
        far(tmp_path, slots=2) as distant,
        relaying(to(near.url), to(distant.url)) as engine,
        relaying(to(near.url)) as somebody_else,
    ):
        engine.doors[1].way = 1.0
        assert engine.capacity().free == 3
        async with (
            Caller(await begin(somebody_else)),
            Caller(await begin(engine)) as caller,
        ):  # the door does not know yet
            await caller.hears()
            assert len(distant.board.calls) == 1
            async with Caller(await begin(engine)):
                with pytest.raises(Busy, match="every slot of every endpoint is taken"):
                    engine.reserve(1)
        async with Caller(await begin(somebody_else)):
            engine.doors[0].reading = engine.doors[0].reading._replace(free=1)
            engine.doors[1].reading = engine.doors[1].reading._replace(free=0)
            with pytest.raises(Busy, match="every endpoint is full"):
                await begin(engine)


async def test_slots_bound_what_the_endpoints_offer(tmp_path: Path) -> None:
    async with far(tmp_path) as there, relaying(to(there.url), slots=1) as engine, Caller(await begin(engine)):
        assert engine.capacity().offered == 1
        with pytest.raises(Busy):
            engine.reserve(1)


async def test_a_call_is_begun_on_the_connection_that_the_last_probe_left(tmp_path: Path) -> None:
    async with far(tmp_path) as there, road(there.url) as way, relaying(to(way.url)) as engine:
        assert way.connections == 1
        async with Caller(await begin(engine)) as caller:
            await caller.hears()
            assert way.connections == 1


async def test_tokens_are_made_with_the_endpoints_secret_or_read_from_a_file_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PROBE", 0.05)
    monkeypatch.setattr(door, "PAUSES", (0.05,))
    key = tmp_path / "key"
    key.write_text(f"{SECRET}\nan-older-secret-that-is-not-used-any-more")
    async with far(tmp_path, auth__secret=SECRET) as there:
        given = {"voice.endpoint": there.url, "voice.cloud.secret_file": str(key)}
        async with relaying(*endpoints(load(tmp_path / "empty.toml", given, env={}).voice)) as engine:
            async with Caller(await begin(engine)) as caller:
                await caller.hears()
            key.write_text("another-secret-that-the-endpoint-does-not-know")
            await until(lambda: not engine.ready)
            assert "refuses us (401: the token is not valid" in engine.trouble
            key.write_text(SECRET)
            await until(lambda: engine.ready)
            key.unlink()
            await until(lambda: f"cannot be shown a token: {key} cannot be read" in engine.trouble)


async def test_an_endpoint_that_is_down_is_waited_for(unused_port: int, tmp_path: Path) -> None:
    async with relaying(to(f"ws://127.0.0.1:{unused_port}")) as engine:
        assert not engine.ready
        assert engine.trouble.startswith(f"the endpoint 127.0.0.1:{unused_port} cannot be reached")
        with pytest.raises(Busy, match="not ready: the endpoint"):
            engine.reserve(1)
        async with far(tmp_path, unused_port):
            await until(lambda: engine.ready)
            assert engine.trouble == ""
            async with Caller(await begin(engine)) as caller:
                await caller.hears()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "refuses us \\(401: send Authorization: Bearer TOKEN.*set voice.cloud.secret to its auth.secret"),
        ("/nowhere", "is no voice-bridge, or one of before relays: write wss://HOST/api/chat for a server of Moshi's"),
    ],
)
async def test_what_only_the_configuration_can_mend_stops_the_start_with_one_line(
    path: str, why: str, tmp_path: Path
) -> None:
    async with far(tmp_path, auth__secret=SECRET) as there:
        with pytest.raises(CannotStart, match=why) as stopped:
            async with relaying(to(there.url + path)):
                pass
        assert "\n" not in str(stopped.value)


async def test_one_endpoint_that_wants_correcting_does_not_stop_the_start_with_another(tmp_path: Path) -> None:
    async with (
        far(tmp_path) as good,
        far(tmp_path, auth__secret=SECRET) as strict,
        relaying(to(strict.url), to(good.url)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears()
        assert len(good.board.calls) == 1


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Of 127.0.0.1, by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an endpoint")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today, today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, form = folder / "endpoint.pem", serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context, path


async def test_an_endpoint_behind_tls_must_have_a_certificate_that_is_trusted_here(tmp_path: Path) -> None:
    context, path = certificate(tmp_path)
    async with far(tmp_path) as there, road(there.url, context) as way:
        with pytest.raises(
            CannotStart, match=r"a certificate that is not trusted here .*SSL_CERT_FILE names other CAs"
        ):
            async with relaying(to(way.url)):
                pass
        given = {"VOICE_BRIDGE_VOICE__ENDPOINT": way.url.replace("http", "ws"), "SSL_CERT_FILE": str(path)}
        given |= {"VOICE_BRIDGE_VOICE__PROVIDER": "moshi-cloud"}
        asked = await asyncio.create_subprocess_exec(
            *(VOICE_BRIDGE, "doctor", "--json"), stdout=PIPE, env=os.environ | given, cwd=tmp_path
        )
        report = json.loads((await asked.communicate())[0])
        [row] = [row for row in report["checks"] if row["group"] == "Elsewhere"]
        assert (row["state"], ": a bridge with echo" in row["text"]) == ("ok", True)


async def test_whoever_hangs_up_at_the_endpoint_ends_the_call(tmp_path: Path) -> None:
    async with far(tmp_path) as there, relaying(to(there.url)) as engine, Caller(await begin(engine)) as caller:
        await caller.hears()
        [call] = there.board.calls.values()
        call.end(End.OPERATOR)
        assert await caller.told(HangUp) == HangUp(f"operator at {there.url.removeprefix('http://')}")
        assert not caller.of(Lost)


async def test_frames_that_nobody_takes_are_dropped_and_counted_and_texts_are_bounded(tmp_path: Path) -> None:
    async with far(tmp_path) as there, relaying(to(there.url)) as engine:
        conversation = await begin(engine)
        for at in range(0, 10 * FRAME, FRAME):  # before anybody had a turn
            conversation.send(np.zeros(FRAME, np.float32), at)
        assert conversation.dropped == engine.dropped == 6
        for _ in range(100):
            conversation.say("Hello")
        assert [await anext(conversation) for _ in range(36)] == [Refused(id) for id in range(65, 101)]
        with pytest.raises(ValueError, match="a frame is 1920 float32"):
            conversation.send(np.zeros(7, np.float32), 0)
        await conversation.close()
        assert engine.dropped == 6
