"""A talk from a terminal, without its interface: a whole bridge, a real road, and the client. On a turned clock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import SECRET, gone, noise, token, without_silence
from tests.roads import Road
from tests.turned import bridge, turned
from voice_bridge.bridge.device import NoSound
from voice_bridge.bridge.lines import notes
from voice_bridge.bridge.talk import typed
from voice_bridge.bridge.talk.address import Unreachable, address
from voice_bridge.bridge.talk.client import Event, Link
from voice_bridge.bridge.talk.session import Plan, Session
from voice_bridge.codecs import wav
from voice_bridge.codecs.framing import RATE
from voice_bridge.engines.base import Flush
from voice_bridge.engines.echo import EchoCore

BLOCK = RATE // 50
PATIENCE = 600.0  # seconds of a clock that is turned


class Talk:
    """A session that runs, and what it was told."""

    def __init__(self, plan: Plan, *, stay: bool) -> None:
        self.told: list[Event] = []
        self.texts: list[str] = []
        self._news = asyncio.Event()
        self.session = Session(plan, self._hear, self.texts.append)
        self.running = asyncio.create_task(self.session.run(stay=stay))

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        self._news.set()

    async def until(self, look: Callable[[Event], bool]) -> Event:
        """The first event of which that is true."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [event for event in self.told if look(event)]):
                assert not self.running.done(), f"it is over: {self.running}; told: {self.told}"
                self._news.clear()
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait([news, self.running], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        return found[0]

    async def linked(self, state: str) -> None:
        await self.until(lambda event: isinstance(event, Link) and event.state == state)

    async def end(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.running


@asynccontextmanager
async def talk(port: int, *, stay: bool = True, key: str = "", **options: Any) -> AsyncIterator[Talk]:
    options = options if "wav" in options else {"text": True} | options
    one = Talk(Plan(address(f"127.0.0.1:{port}", key), **options), stay=stay)
    try:
        yield one
    finally:
        one.session.quit()
        await asyncio.wait([one.running])


def recording(path: Path, seconds: float) -> NDArray[np.int16]:
    said = noise(seconds)
    with wav.Writer(path, RATE, 1) as file:
        file.write(said)
    return said


# -- sound -------------------------------------------------------------------------------------------------------------


@turned
async def test_a_recording_is_said_and_both_sides_are_recorded(tmp_path: Path) -> None:
    said = recording(tmp_path / "said.wav", 3.2)
    async with bridge(tmp_path) as daemon:
        files = {"wav": tmp_path / "said.wav", "record": tmp_path / "both.wav"}
        async with talk(daemon.port, stay=False, **files) as one:
            assert await one.end() == "caller"
        await gone(daemon)
    both = np.frombuffer((tmp_path / "both.wav").read_bytes()[44:], "<i2").reshape(-1, 2)
    assert np.abs(both[: len(said), 0] - said.astype(int)).max() <= 1
    spoken, heard = without_silence(both[:, 0]), without_silence(both[:, 1])
    late = len(spoken) - len(heard)  # what was said before there was a bridge
    assert 0 <= late < 0.3 * RATE
    assert np.array_equal(heard, spoken[late:])


@turned
async def test_it_ends_by_itself_once_the_answer_has_been_heard(tmp_path: Path) -> None:
    recording(tmp_path / "said.wav", 1.0)
    async with bridge(tmp_path) as daemon, talk(daemon.port, stay=False, wav=tmp_path / "said.wav") as one:
        await one.end()
        assert 3.0 < one.session.figures.seconds < 4.0


@turned
async def test_it_lasts_as_long_as_it_was_told_to(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, talk(daemon.port, seconds=7.0) as one:
        await one.end()
        assert one.session.figures.seconds == pytest.approx(7.0, abs=0.3)


@turned
async def test_who_is_muted_is_not_heard(tmp_path: Path) -> None:
    recording(tmp_path / "said.wav", 60.0)
    async with bridge(tmp_path) as daemon, talk(daemon.port, wav=tmp_path / "said.wav") as one:
        await one.until(lambda event: event == notes.Status("talking"))
        one.session.do(typed.Mute())
        await one.until(lambda event: event == notes.Status("listening"))
        one.told.clear()
        one.session.do(typed.Mute())
        await one.until(lambda event: event == notes.Status("talking"))


@turned
async def test_the_bridge_learns_the_delay_and_the_talk_knows_it_too(tmp_path: Path) -> None:
    recording(tmp_path / "said.wav", 8.0)
    async with bridge(tmp_path) as daemon, talk(daemon.port, wav=tmp_path / "said.wav", seconds=8.0) as one:
        await one.until(lambda event: event == notes.Status("talking"))
        (live,) = daemon.board.calls.values()
        await one.end()
        known = live.stats.mouth_to_ear.quantile(0.5)
        assert known is not None
        assert one.session.figures.mouth_to_ear == pytest.approx(known, abs=0.04)
        assert one.session.figures.round_trip is not None
        assert one.session.figures.underruns == 0


class Interrupted(EchoCore):
    """An echo that any key interrupts."""

    def digit(self, slot: int, digit: str) -> None:
        self._events.append((slot, Flush()))


@turned
async def test_a_flush_voids_what_has_not_been_heard(tmp_path: Path) -> None:
    recording(tmp_path / "said.wav", 60.0)
    async with bridge(tmp_path, core=Interrupted(2)) as daemon, talk(daemon.port, wav=tmp_path / "said.wav") as one:
        playback = one.session.client.playback
        await asyncio.sleep(3)
        assert playback.position > RATE
        one.session.do(typed.Press("5"))
        await one.until(lambda event: event == notes.Flushed())
        assert playback.position < RATE / 4


class Hardware:
    """Stands for sounddevice, and for a microphone and a loudspeaker that know one rate."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.latency = (0.01, 0.02)
        self.running = False

    def RawStream(
        self, *, samplerate: int, blocksize: int, callback: Any, finished_callback: Any, **_: Any
    ) -> Hardware:
        if samplerate != self.rate:
            raise self.PortAudioError("Invalid sample rate")
        self.size, self.exchange, self.unplug = blocksize, callback, finished_callback
        return self

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    async def work(self, said: NDArray[np.int16]) -> NDArray[np.int16]:
        """What the loudspeaker gets while the microphone gives that."""
        heard = []
        for at in range(0, len(said), self.size):
            block = bytearray(2 * self.size)
            self.exchange(said[at : at + self.size].tobytes(), block, self.size, None, None)
            heard.append(np.frombuffer(bytes(block), np.int16))
            await asyncio.sleep(0.02)
        return np.concatenate(heard)


@pytest.mark.parametrize("rate", [24000, 48000])
@turned
async def test_a_microphone_and_a_loudspeaker_talk_at_the_rate_they_know_until_they_are_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    hardware = Hardware(rate)
    monkeypatch.setitem(sys.modules, "sounddevice", hardware)  # type: ignore[arg-type]
    said = np.rint(8000 * np.sin(2 * np.pi * 500 * np.arange(3 * rate) / rate)).astype(np.int16)
    async with bridge(tmp_path) as daemon:
        one = Talk(Plan(address(f"127.0.0.1:{daemon.port}")), stay=False)
        await one.linked("connected")
        heard = (await hardware.work(said))[-rate:]
        assert int(np.argmax(np.abs(np.fft.rfft(heard * np.hanning(rate))))) == 500
        assert one.session.client.delay == hardware.latency
        hardware.unplug()
        with pytest.raises(NoSound, match="has gone; connect it and call again"):
            await one.end()
        assert not hardware.running
        await gone(daemon)


# -- words -------------------------------------------------------------------------------------------------------------


@turned
async def test_what_is_typed_is_said_and_what_is_injected_is_known(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, talk(daemon.port, stay=False) as one:
        one.session.do(typed.Say("Good day."))
        one.session.do(typed.Inject("It rains."))
        assert await one.end() == "caller"
    assert notes.Transcript("Good day.", "agent", 1, final=True) in one.told
    assert {notes.Said(1), notes.Injected(2)} < {event for event in one.told if isinstance(event, notes.Note)}


@turned
async def test_a_page_of_lines_at_once_is_said_as_fast_as_a_bridge_takes_it(tmp_path: Path) -> None:
    lines = [f"Line {number}." for number in range(60)]
    async with bridge(tmp_path) as daemon, talk(daemon.port, stay=False) as one:
        for line in lines:
            one.session.do(typed.Say(line))
        assert await one.end() == "caller"
    assert [event.text for event in one.told if isinstance(event, notes.Transcript)] == lines


@turned
async def test_a_key_that_hangs_up_ends_the_talk(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__digits={"#": "hangup"}) as daemon, talk(daemon.port) as one:
        await one.linked("connected")
        one.session.do(typed.Press("#"))
        assert await one.end() == "digit"


@turned
async def test_a_persona_of_ones_own_is_the_agents(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, talk(daemon.port, persona="A pirate.") as one:
        await one.linked("connected")
        (conversation,) = daemon.engine.conversations.values()  # type: ignore[attr-defined]
        assert conversation.opening.persona == "A pirate."


# -- connections -------------------------------------------------------------------------------------------------------


@turned
async def test_a_connection_that_breaks_is_made_again_and_the_conversation_goes_on(tmp_path: Path) -> None:
    recording(tmp_path / "said.wav", 8.0)
    async with bridge(tmp_path, slots=1) as daemon, Road(daemon.port) as road:
        files = {"wav": tmp_path / "said.wav", "record": tmp_path / "both.wav"}
        async with talk(road.port, stay=False, **files) as one:
            await one.until(lambda event: event == notes.Status("talking"))
            (live,) = daemon.board.calls.values()
            road.cut()
            await one.linked("resumed")
            assert list(daemon.board.calls.values()) == [live]
            assert await one.end() == "caller"
        assert one.session.figures.resumes == 1
        await gone(daemon)
    both = np.frombuffer((tmp_path / "both.wav").read_bytes()[44:], "<i2").reshape(-1, 2)
    said_late = both[4 * RATE : 7 * RATE, 0]
    heard_late = [both[4 * RATE + delay : 7 * RATE + delay, 1] for delay in range(0, RATE, BLOCK)]
    assert any(np.array_equal(said_late, heard) for heard in heard_late), "what was said later came back"


@turned
async def test_a_bridge_that_no_longer_has_the_conversation_gives_a_new_one(tmp_path: Path) -> None:
    async with bridge(tmp_path) as before, bridge(tmp_path) as after, Road(before.port) as road:
        async with talk(road.port) as one:
            await one.linked("connected")
            road.to = after.port
            road.cut()
            await one.linked("renewed")
            one.session.do(typed.Say("Still there."))
            await one.until(lambda event: isinstance(event, notes.Said))
            assert not [text for text in one.texts if '"resume"' in text], "that is between the two machines"
        await gone(after)


@turned
async def test_a_bridge_that_is_away_for_a_while_is_waited_for(tmp_path: Path, unused_port: int) -> None:
    async with bridge(tmp_path) as daemon, Road(daemon.port) as road, talk(road.port) as one:
        await one.linked("connected")
        road.to = unused_port
        road.cut()
        await one.linked("broken")
        await asyncio.sleep(20)
        road.to = daemon.port
        await one.linked("renewed")


@turned
async def test_a_bridge_that_never_comes_back_is_given_up(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        async with Road(daemon.port) as road:
            one = Talk(Plan(address(f"127.0.0.1:{road.port}"), text=True), stay=True)
            await one.linked("connected")
            before = one.session.figures.seconds
        with pytest.raises(Unreachable, match="nothing answers at"):
            await one.end()
        assert 60 <= one.session.figures.seconds - before < 70


@turned
async def test_a_network_on_which_nothing_comes_back_is_noticed(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon, Road(daemon.port) as road, talk(road.port) as one:
        await one.linked("connected")
        road.stand_still()
        await one.linked("broken")
        road.go_on()
        await one.until(lambda event: isinstance(event, Link) and event.state in ("resumed", "renewed"))


@turned
async def test_what_is_typed_while_the_connection_is_gone_is_said_later(tmp_path: Path, unused_port: int) -> None:
    async with bridge(tmp_path) as daemon, Road(daemon.port) as road, talk(road.port) as one:
        await one.linked("connected")
        road.to = unused_port
        road.cut()
        await one.linked("broken")
        one.session.do(typed.Say("Are you there?"))
        road.to = daemon.port
        await one.until(lambda event: isinstance(event, notes.Transcript) and event.text == "Are you there?")


# -- who is not let in -------------------------------------------------------------------------------------------------


async def refused(port: int, key: str = "") -> str:
    """Why no talk came about."""
    with pytest.raises(Unreachable) as refusal:
        async with talk(port, key=key) as one:
            await one.end()
    return str(refusal.value)


@turned
async def test_no_token_and_a_wrong_one_are_told_apart_and_how_to_get_a_right_one(tmp_path: Path) -> None:
    async with bridge(tmp_path, auth__secret=SECRET) as daemon:
        missing, wrong = await refused(daemon.port), await refused(daemon.port, token(secret="x" * 32))
        assert missing.startswith("the bridge wants a token; `voice-bridge token`")
        assert wrong.startswith("the bridge does not take this token (")
        assert "VOICE_BRIDGE_TOKEN" in wrong
        assert "does not let us in" in await refused(daemon.port, token("operator"))
        async with talk(daemon.port, key=token()) as one:
            await one.linked("connected")


@turned
async def test_a_full_bridge_says_so(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon, talk(daemon.port) as one:
        await one.linked("connected")
        why = await refused(daemon.port)
        assert why.startswith("the bridge takes no call just now: ")
        assert why.endswith("try again in a little")


@turned
async def test_where_there_is_no_bridge_one_learns_how_to_start_it(unused_port: int) -> None:
    why = f"nothing answers at 127.0.0.1:{unused_port} (Connection refused); start a bridge with: voice-bridge serve"
    assert await refused(unused_port) == why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no bridge; is the port right?"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "answers HTTP 200"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "there is no bridge for clients at ws://127.0.0.1:"),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 23\r\n\r\n" + b'{"error": "\\u001b[31mno"}'[:23],
            "not let us in:",
        ),
    ],
)
@turned
async def test_something_else_on_the_port_is_told_from_a_bridge(answer: bytes, why: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        told = await refused(server.sockets[0].getsockname()[1])
    assert why in told
    assert told.isprintable()
