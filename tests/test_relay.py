"""Bridges that relay, at /v1/stream: frames and events as an engine takes and gives them. And what they ask before."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed

from tests.clients import SECRET, Client, client, gone, noise, reach, token
from tests.conftest import Bridge
from tests.cores import Humming, Whims
from tests.turned import bridge, turned
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.lines.base import Heard, In, ProtocolError, Reply
from voice_bridge.bridge.lines.relay import FRAME_BYTES, RelayLine
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.engines.base import Flush, HangUp

CLOCK = struct.Struct("<q")


def frame(at: int, pcm: NDArray[np.int16]) -> bytes:
    return CLOCK.pack(at) + pcm.astype("<i2").tobytes()


class Relay(Client):
    """A bridge that relays: its replies are whole frames with the clock that they answer."""

    async def speak(self, pcm: NDArray[np.int16], at: int = 0) -> None:
        """The whole frames of it in real time, from this clock on."""
        for place in range(0, len(pcm) - FRAME + 1, FRAME):
            await self.socket.send(frame(at + place, pcm[place : place + FRAME]))
            await asyncio.sleep(FRAME / RATE)

    async def answered(self, frames: int) -> list[tuple[int, NDArray[np.int16]]]:
        """The first replies: the clock of each, and its sound."""
        await self._wait(lambda: len(self.chunks) >= frames or None)
        return [(CLOCK.unpack(chunk[:4].tobytes())[0], chunk[4:]) for chunk in self.chunks[:frames]]

    async def reported(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first event of the engine of that kind."""
        wanted = {"event": kind, **fields}
        return await self._wait(lambda: next((one for one in self.events if wanted.items() <= one.items()), None))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [told["event"] for told in self.told if told["type"] == "event"]


@asynccontextmanager
async def relay(daemon: Daemon, opening: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Relay]:
    async with reach(daemon, **options) as socket:
        one = Relay(socket)
        await one.tell("open", protocol=1, relay=opening or {})
        await one.until("ready")
        yield one


@turned
async def test_each_frame_is_answered_once_with_its_clock_and_nothing_put_before_it(tmp_path: Path) -> None:
    said = noise(2)
    async with bridge(tmp_path) as daemon:
        async with relay(daemon) as one:
            await one.speak(said, at=4000)
            replies = await one.answered(25)
            assert [at for at, _ in replies] == list(range(4000, 4000 + len(said), FRAME))
            assert np.array_equal(np.concatenate([sound for _, sound in replies]), said)
            assert {told["type"] for told in one.told} == {"ready"}  # no state, no words but the engine's events
        await gone(daemon)


@turned
async def test_the_conversation_begins_with_what_the_relay_wants_and_nothing_of_ours(tmp_path: Path) -> None:
    ours = {"calls__greeting": "Our greeting.", "calls__persona": "Our persona."}
    wanted = {
        "greeting": "Hello.",
        "persona": "A pirate.",
        "known": "It is Ann.",
        "interruptible": False,
        "share": 0.5,
        "seed": 7,
        "sampling": {"text_temperature": 0.5},
        "conditions": {"description": "very_good"},
    }
    async with bridge(tmp_path, **ours) as daemon, relay(daemon, wanted), relay(daemon):
        given, bare = [each.opening for each in daemon.engine.conversations.values()]  # type: ignore[attr-defined]
    assert {name: getattr(given, name) for name in wanted} == wanted
    assert (bare.greeting, bare.persona, bare.known) == ("", "", "")


@turned
async def test_what_a_relay_asks_for_reaches_the_engine_as_it_is_and_is_heard_of_again(tmp_path: Path) -> None:
    digits = {"5": "hangup"}  # is for our own callers
    async with bridge(tmp_path, core=Whims(2), calls__digits=digits) as daemon, relay(daemon) as one:
        await one.tell("say", text="Good day.", interruptible=False)
        await one.tell("inject", context="It rains.", how="remembered", turn=3)
        await one.tell("inject", context="", turn=4)
        await one.tell("played", at=12345)
        await one.tell("digit", digit="5")
        await one.tell("cancel", id=2)
        await one.speak(noise(0.2))
        await one.reported("remember", text="cancel 2")
        assert [told["id"] for told in one.told if told["type"] == "asked"] == [1, 2, 3]
        assert [event["text"] for event in one.events[1:]] == [
            "say 1 Good day. False",
            "inject 2 It rains. remembered 3",
            "inject 3  silent 4",
            "played 12345",
            "digit 5",
            "cancel 2",
        ]


class Eventful(Whims):
    """Any key has the agent interrupted, and hang up."""

    def digit(self, slot: int, digit: str) -> None:
        self._events += [(slot, Flush()), (slot, HangUp("goodbye"))]

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        if how == "backwards":
            raise ValueError("context cannot be given so")

    def forget(self, slot: int) -> None:
        self._tell(slot, "forget")


@turned
async def test_the_engines_events_are_passed_on_and_what_follows_is_the_relays_own_affair(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Eventful(2)) as daemon, relay(daemon) as one:
        await one.tell("forget")
        await one.tell("digit", digit="1")
        await one.speak(noise(0.4))
        assert [event["event"] for event in one.events[1:]] == ["remember", "flush", "hang_up"]
        assert one.events[-1] == {"event": "hang_up", "reason": "goodbye"}
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        assert (await one.reported("lost"))["back_in"] == 1.0
        daemon.engine.child.come_back()  # type: ignore[attr-defined]
        await one.reported("back")
        await one.speak(noise(0.4), at=RATE)
        replies = await one.answered(10)
        assert [at for at, _ in replies[5:]] == list(range(RATE, RATE + 5 * FRAME, FRAME))  # and no tone between


@turned
async def test_a_way_to_inject_that_is_unknown_is_refused_by_the_engine_under_its_id(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Eventful(2)) as daemon, relay(daemon) as one:
        await one.tell("inject", context="It rains.", how="backwards")
        await one.speak(noise(0.2))
        assert await one.reported("refused") == {"event": "refused", "id": 1}
        assert [told["id"] for told in one.told if told["type"] == "asked"] == [1]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (noise(0.08).tobytes(), "a frame of 3840 bytes; between bridges each has 3848"),
        (bytes(7), "a frame of 7 bytes; between bridges each has 3848"),
        (frame(-1, noise(0.08)), "a frame at -1: the caller's clock goes from 0 to 1000000000000"),
        (frame(2**63 - 1, noise(0.08)), "a frame at 9223372036854775807: the caller's clock goes from 0"),
    ],
    ids=["no clock", "short", "before all time", "beyond all time"],
)
@turned
async def test_a_frame_that_is_none_ends_that_call_with_a_reason_and_no_other(
    tmp_path: Path, message: bytes, why: str
) -> None:
    async with bridge(tmp_path) as daemon, relay(daemon) as other:
        async with relay(daemon) as one:
            await one.socket.send(message)
            assert await one.closed() == (1000, "protocol")
            trouble, ended = one.told[-2:]
            assert (trouble["code"], trouble["message"][: len(why)]) == ("protocol", why)
            assert ended == {"type": "ended", "code": "protocol"}
        assert daemon.board.metrics.protocol_errors == {"relay": 1}
        await other.speak(noise(0.2))
        await other.answered(2)


@pytest.mark.parametrize(
    ("opening", "why"),
    [
        ("yes", "open: Expected `object | null`, got `str` - at `$.relay`"),
        ({"greeting": 3}, "open: Expected `str`, got `int` - at `$.relay.greeting`"),
        ({"share": 2}, "open: Expected `float` <= 1.0 - at `$.relay.share`"),
        ({"seed": 2**64}, "open: "),
        ({"sampling": {str(n): 1.0 for n in range(33)}}, "open: Expected `object` of length <= 32"),
        ({"persona": "x" * 70_000}, "a text of "),
    ],
    ids=["no object", "type", "share", "seed", "many", "large"],
)
@turned
async def test_an_opening_that_is_malformed_or_too_large_is_refused_with_a_reason(
    tmp_path: Path, opening: Any, why: str
) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as socket:
        one = Relay(socket)
        await one.tell("open", relay=opening)
        code, _ = await one.closed()
        assert (code, one.told[0]["code"], one.told[0]["message"][: len(why)]) == (1008, "protocol", why)
        await gone(daemon)


@turned
async def test_an_opening_that_the_engine_cannot_take_ends_that_call_only(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Whims(2)) as daemon, relay(daemon) as other, reach(daemon) as socket:
        one = Relay(socket)
        await one.tell("open", relay={"persona": "nobody"})
        assert await one.closed() == (1000, "engine")
        assert one.events == [{"event": "ended", "reason": "opening refused: nobody is not a persona"}]
        await other.speak(noise(0.2))
        await other.answered(2)


@turned
async def test_to_relay_is_said_in_the_first_message_or_not_at_all(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, reach(daemon) as socket:
        one = Relay(socket)
        await one.tell("ping")
        await one.tell("open", relay={})
        assert await one.closed() == (1008, "open: relay belongs into the first message of a stream")


# -- the caller's clock ----------------------------------------------------------------------------------------------


def opened() -> RelayLine:
    line = RelayLine("VB1", "token")
    line.receive(json.dumps({"type": "open", "relay": {}}), 0.0)
    return line


def clocks(events: list[In]) -> list[int]:
    return [event.at for event in events if isinstance(event, Heard)]


def test_a_clock_that_jumps_is_passed_on() -> None:
    line, sound = opened(), noise(0.08)
    heard = [line.receive(frame(at, sound), now) for now, at in ((0.0, 0), (0.1, FRAME), (0.2, 10**11))]
    assert [at for events in heard for at in clocks(events)] == [0, FRAME, 10**11]
    assert (line.gap_samples, line.late_samples) == (0, 0)


def test_frames_from_before_the_clock_are_left_out_and_the_relay_is_told_once() -> None:
    line, sound = opened(), noise(0.08)
    line.receive(frame(RATE, sound), 0.0)
    (told,) = line.receive(frame(0, sound), 0.1)
    assert isinstance(told, Reply)
    assert json.loads(told.out.data) == {
        "type": "error",
        "code": "message",
        "message": f"the caller's clock went back from {RATE + FRAME} to 0: what is before that is left out",
    }
    assert line.receive(frame(FRAME, sound), 0.2) == []
    assert line.late_samples == 2 * FRAME
    assert clocks(line.receive(frame(RATE + FRAME, sound), 0.3)) == [RATE + FRAME]


def test_a_relay_that_is_ahead_of_time_is_held_to_it_and_one_that_floods_is_ended() -> None:
    line, sound = opened(), noise(0.08)
    burst = [line.receive(frame(n * FRAME, sound), 0.0) for n in range(20)]
    assert sum(map(len, burst)) == 5  # no engine queues more
    assert line.late_samples == 15 * FRAME
    frames = (frame(n * FRAME, sound) for n in range(20, 400))
    with pytest.raises(ProtocolError, match="faster than anybody speaks"):
        any(line.receive(one, 0.0) for one in frames)


def test_silence_is_heard_only_while_a_relay_is_away_and_its_next_frame_is_not_late() -> None:
    line, sound = opened(), noise(0.08)
    line.receive(frame(0, sound), 0.0)
    assert line.fill(0.9) == []
    silence = [event for now in (1.1, 1.5, 5.0) for event in line.fill(now)]
    assert clocks(silence) == [FRAME * (1 + n) for n in range(50)]
    assert line.gap_samples == 50 * FRAME
    back = round(5.04 * RATE)
    assert clocks(line.receive(frame(back, sound), 5.04)) == [back]
    assert line.fill(5.5) == []


def test_a_frame_goes_down_with_the_clock_that_it_answers() -> None:
    reply = opened().reply(np.full(FRAME, 0.5, np.float32), 7 * FRAME)
    assert (len(reply.data), reply.text) == (FRAME_BYTES, False)
    assert reply.data == frame(7 * FRAME, np.full(FRAME, 16384, np.int16))


# -- operators, and the limits that protect us -----------------------------------------------------------------------


@turned
async def test_operators_see_a_relay_and_press_keys_where_the_caller_is(tmp_path: Path) -> None:
    async with bridge(tmp_path, auth__secret=SECRET) as daemon, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token('operator')}"}
        async with relay(daemon, given=token()) as one:
            await one.speak(noise(0.2))
            async with http.get(daemon.url + "/v1/calls", headers=headers) as answer:
                (seen,) = (await answer.json())["calls"]
            assert (seen["line"], seen["caller"], seen["lead_ms"]) == ("relay", "ann", 0)
            keys = f"{daemon.url}/v1/calls/{seen['call']}/digits"
            async with http.post(keys, json={"digits": "5"}, headers=headers) as answer:
                assert answer.status == 400
                assert "this call is relayed" in (await answer.json())["error"]
            await one.tell("close")
            assert await one.closed() == (1000, "caller")
        await gone(daemon)


@turned
async def test_nothing_of_a_relayed_call_is_recorded_here(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    async with bridge(tmp_path, calls__record=True, calls__recordings=folder) as daemon:
        async with relay(daemon) as one:
            await one.speak(noise(0.4))
        await gone(daemon)
    assert not folder.exists() or not list(folder.iterdir())


@turned
async def test_a_relayed_call_in_which_nobody_speaks_ends_by_the_usual_limits(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__idle_seconds=10) as daemon, relay(daemon) as one:
        with suppress(ConnectionClosed):
            await one.speak(np.zeros(20 * RATE, np.int16))
        assert await one.closed() == (1000, "idle")


@turned
async def test_a_relayed_call_in_which_only_the_agent_speaks_goes_on(tmp_path: Path) -> None:
    async with bridge(tmp_path, core=Humming(1), calls__idle_seconds=10) as daemon, relay(daemon) as one:
        await one.speak(np.zeros(15 * RATE, np.int16))
        await one.answered(15 * RATE // FRAME)


# -- what they ask before --------------------------------------------------------------------------------------------


async def ask(http: aiohttp.ClientSession, daemon: Daemon, given: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    async with http.get(daemon.url + "/v1/capacity", headers=headers) as answer:
        return answer.status, await answer.json()


@turned
async def test_capacity_says_what_a_bridge_offers_and_whether_it_is_open(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=2) as daemon, aiohttp.ClientSession() as http:
        bare = {"state": "ready", "engine": "echo", "offered": 2, "free": 2, "step_ms": 0.0, "protocol": 1}
        assert await ask(http, daemon) == (200, bare)
        async with relay(daemon), client(daemon):
            assert await ask(http, daemon) == (200, bare | {"free": 0})
        await gone(daemon)
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        assert await ask(http, daemon) == (200, bare | {"state": "engine not ready", "offered": 0, "free": 0})
        daemon.engine.child.come_back()  # type: ignore[attr-defined]
        daemon.board.admission.draining = True
        assert await ask(http, daemon) == (200, bare | {"state": "draining", "free": 0})


@turned
async def test_capacity_counts_only_what_the_limits_let_in(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__max_calls=3) as daemon, aiohttp.ClientSession() as http, client(daemon):
        assert (await ask(http, daemon))[1]["free"] == 2


async def test_capacity_is_told_to_those_who_may_talk(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(auth__secret=SECRET)
    assert (await ask(http, daemon, token()))[0] == 200
    assert (await ask(http, daemon))[0] == 401
    assert (await ask(http, daemon, token("operator")))[0] == 403
