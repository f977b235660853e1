"""Conversations at servers that come with Moshi, against a double that speaks their wire."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.moshi_server import MoshiServer, serving
from tests.relays import Caller, begin, relaying, until
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.engines.base import (
    OPENING,
    Back,
    Busy,
    CannotStart,
    Ended,
    Injected,
    Lost,
    Opening,
    Refused,
    Words,
)
from voice_bridge.engines.relay import conversation, official
from voice_bridge.engines.relay.endpoint import endpoint


async def test_what_is_said_there_is_heard_and_answers_the_frames_in_their_order() -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(FRAME) / RATE).astype(np.float32)
    async with serving(MoshiServer()) as server, relaying(endpoint(server.url, None)) as engine:
        async with Caller(await begin(engine), wave) as caller:
            await caller.hears(8)
        sounds = caller.sounds
        assert [sound.answers for sound in sounds[:8]] == [at * FRAME for at in range(1, 9)]
        assert all(sound.pcm.shape == (FRAME,) and sound.pcm.dtype == np.float32 for sound in sounds)
        assert np.abs(sounds[5].pcm).max() == pytest.approx(0.5, abs=0.1)
        assert isinstance(caller.events[-1], Ended)


async def test_pieces_of_text_become_utterances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "PAUSE", 2)
    texts = [b"\x02 Good", b"\x02 day", b"\x07\x03.", *[b"\x06"] * 3, b"\x02 Bye", *[b"\x04{}"] * 4]
    async with serving(MoshiServer(texts)) as server, relaying(endpoint(server.url, None)) as engine:
        async with Caller(await begin(engine)) as caller:
            await caller.hears(12)
        words = [event for event in caller.events if isinstance(event, Words)]
        assert [(one.id, one.text, one.final) for one in words] == [
            (-1, "Good", False),
            (-1, "Good day", False),
            (-1, "Good day.", False),
            (-1, "Good day.", True),
            (-3, "Bye", False),
            (-3, "Bye", True),
        ]
        assert {one.speaker for one in words} == {"agent"}
        assert words[3].start < words[3].end <= words[4].start


async def test_what_these_servers_cannot_do_is_refused_and_told_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(MoshiServer()) as server, relaying(endpoint(server.url, None)) as engine:
        for _ in range(2):
            async with Caller(await begin(engine, Opening(greeting="Hello", known="Ann"))) as caller:
                asked = [caller.conversation.say("Hello"), caller.conversation.inject("likes jazz")]
                caller.conversation.cancel(asked[0])
                caller.conversation.digit("#")
                caller.conversation.forget()
                caller.conversation.played(FRAME)
                await caller.hears()
                assert caller.of(Refused) == [Refused(OPENING), *map(Refused, asked)]
    assert caplog.text.count("cannot be said there, and it is given no persona") == 1


async def test_personaplex_gets_its_voice_and_the_persona_as_prompts() -> None:
    opening = Opening(persona="You are a clerk.", known="The caller is Ann.", seed=7, sampling={"text_top_k": 20})
    async with serving(MoshiServer(voices=["NATF2.pt"])) as server:
        async with (
            relaying(endpoint(server.url, None, voice="NATF2.pt")) as engine,
            Caller(await begin(engine, opening)) as caller,
        ):
            await caller.hears()
            assert caller.of(Injected) == [Injected(OPENING)]
        assert server.queries[0] == {
            "text_prompt": "You are a clerk.\nThe caller is Ann.",
            "voice_prompt": "NATF2.pt",
            "seed": "7",
            "text_seed": "7",
            "audio_seed": "7",
            "text_topk": "20",
        }


async def test_personaplex_without_a_voice_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(MoshiServer(voices=["NATF2.pt"])) as server,
        relaying(endpoint(server.url, None)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await until(lambda: "a PersonaPlex server wants its voice in voice.cloud.voice" in caplog.text)
        await caller.told(Lost)


async def test_it_serves_one_conversation_at_a_time_and_the_next_when_that_is_over() -> None:
    async with serving(MoshiServer()) as server, relaying(endpoint(server.url, None)) as engine:
        async with Caller(await begin(engine)) as caller:
            await caller.hears()
            with pytest.raises(Busy):
                engine.reserve(1)
        async with Caller(await begin(engine)) as caller:
            await caller.hears()


async def test_the_connection_that_was_probed_is_the_one_that_is_upgraded() -> None:
    async with serving(MoshiServer()) as server, relaying(endpoint(server.url, None)) as engine:
        async with Caller(await begin(engine)) as caller:
            await caller.hears()
        (probed, _), (upgraded, _) = server.peers[:2]
        assert probed == upgraded
        assert "Upgrade" in server.headers[1]
        assert "Upgrade" not in server.headers[0]


async def test_a_server_that_another_has_is_left_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets whoever comes second wait without a word, and without its handshake."""
    monkeypatch.setattr(official.MoshiLink, "patience", 0.3)
    monkeypatch.setattr(conversation, "HANG", 5.0)
    busy = MoshiServer()
    busy.greet = False
    async with (
        serving(busy),
        serving(MoshiServer()) as free,
        relaying(endpoint(busy.url, None), endpoint(free.url, None)) as engine,
    ):
        engine.doors[0].way = 0.0  # the nearest
        engine.doors[1].way = 1.0
        async with Caller(await begin(engine)) as caller:
            await caller.hears()
            assert (len(busy.sockets), len(free.sockets)) == (1, 1)
            assert [type(event) for event in caller.events[:2]] == [Lost, Back]


async def test_a_server_that_falls_behind_is_sent_no_more_than_two_seconds_of_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(official, "BEHIND", 3)
    async with (
        serving(MoshiServer()) as server,
        relaying(endpoint(server.url, None)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears()
        server.answers.clear()
        await until(lambda: caller.conversation.dropped > 2)
        assert engine.dropped == caller.conversation.dropped


async def test_the_end_of_a_conversation_there_is_not_the_end_of_the_call() -> None:
    async with (
        serving(MoshiServer()) as server,
        relaying(endpoint(server.url, None)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears()
        await server.sockets[0].send_bytes(b"\x05the model is tired")
        await caller.told(Back)
        await caller.hears()
        assert len(server.sockets) == 2


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "refuses us \\(401\\); set voice.cloud.secret"),
        (404, "has no /api/chat: leave that path out for another voice-bridge"),
    ],
)
async def test_what_only_the_configuration_can_mend_stops_the_start(status: int, why: str) -> None:
    async with serving(MoshiServer()) as server:
        server.status = status
        with pytest.raises(CannotStart, match=why):
            async with relaying(endpoint(server.url, None)):
                pass


async def test_garbage_in_place_of_sound_costs_nobody_the_call() -> None:
    async with (
        serving(MoshiServer()) as server,
        relaying(endpoint(server.url, None)) as engine,
        Caller(await begin(engine)) as caller,
    ):
        await caller.hears()
        for garbage in (b"", b"\xff", b"\x01no opus at all"):
            await server.sockets[0].send_bytes(garbage)
        await caller.told(Back)
        await caller.hears()
        await asyncio.sleep(0)
