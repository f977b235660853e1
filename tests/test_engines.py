"""What every engine keeps to: one suite over all that can run here. Each is started once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import pytest_asyncio

from tests.cores import HERE
from voice_bridge.bridge.config import load
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.engines import registry
from voice_bridge.engines.base import (
    FRAME,
    Busy,
    Conversation,
    Ended,
    Engine,
    Event,
    Frame,
    Opening,
    Said,
    Sound,
    Words,
)
from voice_bridge.engines.registry import Choice
from voice_bridge.engines.relay.endpoint import Endpoint, endpoint

SLOTS = 3
LIMIT = 10  # seconds for anything that an engine does; only a broken one needs them
RUNNABLE = [*sorted([*registry.CORES, registry.RELAY]), "moshi on mlx"]
ORACLE = Path(__file__).parent / "data/oracle/conditioned"
NEEDED = {"moshi": ["torch"], "moshi on mlx": ["mlx"], "cascade": ["moonshine_voice", "webrtcvad", "piper"]}
OPTIONS = {
    "moshi": {"model": str(ORACLE), "device": "cpu", "threads": 1},
    "moshi on mlx": {"model": str(ORACLE), "device": "mlx", "weights": "float32", "keys": "float32"},
}

Events: TypeAlias = list[Event]

pytestmark = pytest.mark.asyncio(loop_scope="module")


def make(name: str, endpoints: tuple[Endpoint, ...] = ()) -> Engine:
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    choice = Choice(name.split(maxsplit=1)[0], "the tests want it", OPTIONS.get(name, {}), SLOTS, endpoints=endpoints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "MLX", f"{HERE}:watched_mlx")
        return registry.make(choice)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoints(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Endpoint, ...]]:
    """Where the engine that relays does so: another bridge, with the test line."""
    empty = tmp_path_factory.mktemp("far") / "config.toml"
    empty.touch()
    settings = load(empty, {"server.port": 0}, env={})
    async with Daemon(settings, registry.make(Choice("echo", "", slots=SLOTS))) as far:
        yield (endpoint(far.url, None),)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=RUNNABLE)
async def started(request: pytest.FixtureRequest, endpoints: tuple[Endpoint, ...]) -> AsyncIterator[Engine]:
    engine = make(request.param, endpoints)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
def engine(started: Engine) -> Iterator[Engine]:
    """The engine, which must have all its slots again after each test."""
    yield started
    capacity = started.capacity()
    assert (capacity.offered, capacity.reserved, capacity.used) == (SLOTS, 0, 0)
    assert started.restarts == 0


async def begin(engine: Engine, opening: Opening | None = None) -> Conversation:
    return await engine.open(opening or Opening(), engine.reserve(LIMIT))


def frame(seed: int = 0) -> Frame:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, FRAME).astype(np.float32)


async def until(conversation: Conversation, kind: type[Event]) -> Events:
    """The conversation's next events, up to the first of this kind."""
    events = []
    async with asyncio.timeout(LIMIT):
        async for event in conversation:
            events.append(event)
            if isinstance(event, kind):
                break
    return events


async def answer(conversation: Conversation, at: int) -> Sound:
    """Send one frame; returns the sound that comes for it."""
    conversation.send(frame(at), at)
    sound = (await until(conversation, Sound))[-1]
    assert isinstance(sound, Sound)
    return sound


async def rest(conversation: Conversation) -> Events:
    async with asyncio.timeout(LIMIT):
        return [event async for event in conversation]


async def test_it_is_ready_once_it_has_started(engine: Engine) -> None:
    assert engine.ready
    assert engine.name in RUNNABLE
    assert engine.queued == 0


async def test_every_frame_is_answered_by_one_of_the_callers_clock(engine: Engine) -> None:
    conversation = await begin(engine)
    for at in (0, FRAME, 2 * FRAME, 2 * FRAME + 1234, 10**12):
        sound = await answer(conversation, at)
        assert sound.answers == at
        assert (sound.pcm.shape, sound.pcm.dtype) == ((FRAME,), np.float32)
    await conversation.close()
    events = await rest(conversation)  # a word that the agent was at may come out finished
    assert [type(event) for event in events if not isinstance(event, Words)] == [Ended]
    assert conversation.dropped == 0


async def test_conversations_at_once_are_answered_each_by_its_own_clock(engine: Engine) -> None:
    conversations = [await begin(engine) for _ in range(SLOTS)]
    for at in range(0, 5 * FRAME, FRAME):
        sounds = await asyncio.gather(*(answer(one, at + mine) for mine, one in enumerate(conversations)))
        assert [sound.answers for sound in sounds] == [at + mine for mine in range(SLOTS)]
    for conversation in conversations:
        await conversation.close()


async def test_an_opening_with_everything_in_it_is_taken(engine: Engine) -> None:
    opening = Opening("CA1", "Hello", "you", 7, {"text_temperature": 0.8}, {"description": "neutral"})
    conversation = await begin(engine, opening)
    assert (await answer(conversation, 0)).answers == 0
    assert conversation.align >= 0
    await conversation.close()


async def test_what_we_have_it_say_is_reported_in_words_and_then_as_said(engine: Engine) -> None:
    conversation = await begin(engine)
    id = conversation.say("hello and welcome")
    events: Events = []
    async with asyncio.timeout(LIMIT):
        for at in count(0, FRAME):
            conversation.send(np.zeros(FRAME, np.float32), at)  # the caller listens: speech would interrupt
            events += await until(conversation, Sound)
            if any(isinstance(event, Said) and event.id == id for event in events):
                break
    words = [event for event in events if isinstance(event, Words) and event.forced]
    assert words
    assert {(word.id, word.speaker) for word in words} == {(id, "agent")}
    assert (words[-1].text, words[-1].final) == ("hello and welcome", True)
    said = next(event for event in events if isinstance(event, Said) and event.id == id)
    assert events.index(words[-1]) < events.index(said)
    await conversation.close()


async def test_nothing_that_may_be_asked_ends_a_conversation(engine: Engine) -> None:
    conversation = await begin(engine)
    ids = [
        conversation.say("hello"),
        conversation.say("", interruptible=False),
        conversation.inject("likes jazz"),
        conversation.inject("likes Grüezi \U0001f600", how="silent", turn=99),
    ]
    assert len(set(ids)) == len(ids)
    for id in (*ids, 12345):
        conversation.cancel(id)
    conversation.digit("#")
    for at in (0, 10**12, -1):
        conversation.played(at)
    assert (await answer(conversation, 0)).answers == 0
    await conversation.close()


async def test_ended_comes_last_and_once_and_a_closed_conversation_stays_silent(engine: Engine) -> None:
    conversation = await begin(engine)
    await answer(conversation, 0)
    conversation.send(frame(), FRAME)
    for _ in range(2):
        await conversation.close()
    conversation.send(frame(), 2 * FRAME)
    conversation.say("too late")
    other = await begin(engine)
    await answer(other, 0)  # what had been under way has arrived
    kinds = [type(event) for event in await rest(conversation)]
    assert kinds[-1] is Ended
    assert kinds.count(Ended) == 1
    assert await rest(conversation) == []
    await other.close()


async def test_a_reader_that_waits_learns_of_the_end(engine: Engine) -> None:
    conversation = await begin(engine)
    reader = asyncio.create_task(rest(conversation))
    await asyncio.sleep(0)  # now it waits
    await conversation.close()
    assert await reader == [Ended("closed")]


async def test_a_full_engine_refuses_at_once_and_a_free_slot_is_taken_at_once(engine: Engine) -> None:
    leases = [engine.reserve(LIMIT) for _ in range(SLOTS - 1)]
    conversation = await begin(engine)
    capacity = engine.capacity()
    assert (capacity.reserved, capacity.used, capacity.free) == (SLOTS - 1, 1, 0)
    with pytest.raises(Busy, match="taken"):
        engine.reserve(LIMIT)
    for _ in range(2):
        leases[0].release()
        assert not leases[0].live
        assert engine.capacity().free == 1
    leases[0] = engine.reserve(LIMIT)
    await conversation.close()
    last = await begin(engine)
    assert (await answer(last, 0)).answers == 0
    await last.close()
    for lease in leases:
        lease.release()


async def test_a_reservation_expires_by_itself(engine: Engine) -> None:
    for_ever, short = engine.reserve(LIMIT), engine.reserve(0.05)
    assert short.live
    await asyncio.sleep(0.05)  # its time and no longer: what was due before us has run
    assert not short.live
    assert for_ever.live
    assert engine.capacity().reserved == 1
    with pytest.raises(Busy, match="expired"):
        await engine.open(Opening(), short)
    short.release()
    for_ever.release()
    assert engine.capacity().free == SLOTS


async def test_a_reservation_opens_one_conversation_only(engine: Engine) -> None:
    lease = engine.reserve(LIMIT)
    conversation = await engine.open(Opening(), lease)
    with pytest.raises(Busy):
        await engine.open(Opening(), lease)
    lease.release()
    assert engine.capacity().used == 1
    await conversation.close()


@pytest.mark.parametrize("name", RUNNABLE)
async def test_a_stopped_engine_ends_its_conversations_and_takes_no_more(
    name: str, endpoints: tuple[Endpoint, ...]
) -> None:
    engine = make(name, endpoints)
    with pytest.raises(Busy):
        engine.reserve(LIMIT)
    await engine.start()
    conversation = await begin(engine)
    engine.reserve(LIMIT)
    await engine.stop()
    assert [type(event) for event in await rest(conversation)] == [Ended]
    assert not engine.ready
    with pytest.raises(Busy):
        engine.reserve(LIMIT)
    assert engine.capacity() == make(name, endpoints).capacity()
    await engine.stop()
