"""The engine process and its host: real processes, killed, stopped, flooded and left alone."""

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import psutil
import pytest
import uvloop

from tests.cores import CRASH, GOODBYE, HERE
from voice_bridge.engines import child, wire
from voice_bridge.engines.base import (
    FRAME,
    STEP_LIMIT,
    Back,
    Busy,
    Capacity,
    Ended,
    Event,
    Frame,
    Lost,
    Opening,
    Refused,
    Remember,
    Sound,
)
from voice_bridge.engines.child import BUFFER, ChildFailed
from voice_bridge.engines.host import FEW, HostConversation, HostEngine
from voice_bridge.engines.mailbox import QUEUE
from voice_bridge.engines.wire import Kind
from voice_bridge.engines.worker import QUEUE as WAITING

LIMIT = 10  # seconds for anything that an engine does; only a broken one needs them
ECHO = "voice_bridge.engines.echo:core"

Scenario: TypeAlias = Callable[[], Awaitable[None]]

needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of any process")


@pytest.fixture(autouse=True)
def the_loop_has_nothing_to_complain_about(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "asyncio"]


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> tuple[float, ...]:
    waits = (0.01, 0.02, 0.03)
    monkeypatch.setattr(child, "BACK_OFF", waits)
    return waits


@asynccontextmanager
async def running(core: str = "whims", slots: int = 4, **options: Any) -> AsyncIterator[HostEngine]:
    """An engine with one of the tests' cores."""
    engine = HostEngine(core, f"{HERE}:{core}", slots, **options)
    try:
        async with asyncio.timeout(LIMIT):
            await engine.start()
        yield engine
    finally:
        await engine.stop()


async def begin(engine: HostEngine, call: str = "", persona: str = "") -> HostConversation:
    return await engine.open(Opening(call, persona=persona), engine.reserve(LIMIT))


def frame(value: float) -> Frame:
    return np.full(FRAME, value, np.float32)


async def until(conversation: HostConversation, kind: type[Event]) -> list[Event]:
    """The conversation's next events, up to the first of this kind."""
    events = []
    async with asyncio.timeout(LIMIT):
        async for event in conversation:
            events.append(event)
            if isinstance(event, kind):
                return events
    raise AssertionError(f"ended without {kind.__name__}: {events}")


async def rest(conversation: HostConversation) -> list[Event]:
    async with asyncio.timeout(LIMIT):
        return [event async for event in conversation]


async def answer(conversation: HostConversation, at: int, value: float = 0.5) -> None:
    """Send one frame and hold it against the sound that comes for it."""
    conversation.send(frame(value), at)
    sound = (await until(conversation, Sound))[-1]
    assert isinstance(sound, Sound)
    assert sound.answers == at
    np.testing.assert_array_equal(sound.pcm, frame(value))


async def over_a_loss(conversation: HostConversation) -> float:
    """See a conversation over a loss of its engine; returns what it was told about the way back."""
    lost = (await until(conversation, Lost))[-1]
    assert isinstance(lost, Lost)
    assert await until(conversation, Back) == [Back()]
    return lost.back_in


@asynccontextmanager
async def logged(text: str) -> AsyncIterator[None]:
    """Do what is inside, then wait until the log has this."""
    said = asyncio.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                said.set()

    ear = Ear()
    child.log.addHandler(ear)
    try:
        yield
        async with asyncio.timeout(LIMIT):
            await said.wait()
    finally:
        child.log.removeHandler(ear)


async def heard_from(engine: HostEngine) -> None:
    """Wait until the process has read all that it was sent so far: it answers two pings, one sent from now on."""
    arrived: asyncio.Queue[int] = asyncio.Queue()
    take = engine.child._packet

    def packet(packet: wire.Packet, reason: list[str]) -> None:
        take(packet, reason)
        if packet.kind == Kind.HEALTH:
            arrived.put_nowait(packet.kind)

    engine.child._packet = packet  # type: ignore[method-assign]
    async with asyncio.timeout(LIMIT):
        for _ in range(2):
            await arrived.get()
    engine.child._packet = take  # type: ignore[method-assign]


def gone(pid: int) -> Awaitable[None]:
    """Wait until a process that runs now has ended; it need not be a child of ours."""
    handle = os.pidfd_open(pid)

    def wait() -> None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = poll.poll(LIMIT * 1000)
        os.close(handle)
        assert ended, f"process {pid} still runs"

    return asyncio.get_running_loop().run_in_executor(None, wait)


# -- starting ------------------------------------------------------------------------------------------------------


async def test_a_core_that_cannot_load_fails_the_start_with_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ChildFailed) as failed:
        async with running("unloadable"):
            pass
    assert str(failed.value) == "no weights in /nowhere"
    assert "Traceback" not in caplog.text


async def test_a_core_with_a_fault_of_its_own_shows_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ChildFailed) as failed:
        async with running("faulty"):
            pass
    assert str(failed.value) == "ZeroDivisionError: division by zero"
    assert "engine process: Traceback" in caplog.text
    assert "in faulty" in caplog.text


@pytest.mark.parametrize(
    ("core", "said"),
    [
        ("voice_bridge.engines.nowhere:core", "No module named 'voice_bridge.engines.nowhere'"),
        ("voice_bridge.engines.echo:nothing", "nothing"),
        (f"{HERE}:vanishing", "it ended (exit status 3)"),
    ],
)
async def test_a_start_that_fails_in_any_other_way_says_so_too(core: str, said: str) -> None:
    engine = HostEngine("test", core, 1)
    with pytest.raises(ChildFailed) as failed:
        await engine.start()
    assert said in str(failed.value)
    assert not engine.ready
    await engine.stop()


async def test_a_process_that_cannot_be_spawned_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ChildFailed, match="/nowhere/python"):
        async with running():
            pass


async def test_a_start_that_is_given_up_leaves_no_process() -> None:
    engine = HostEngine("slow", f"{HERE}:chatty", 1, first=60.0)
    async with logged("loaded the weights"):
        start = asyncio.create_task(engine.start())
    start.cancel()
    await engine.stop()
    assert not psutil.pid_exists(engine.child.pid)


async def test_it_is_ready_only_after_a_real_step() -> None:
    began = time.monotonic()
    async with running(first=0.3) as engine:
        assert time.monotonic() - began > 0.3
        assert engine.ready
        assert engine.child.health
        assert engine.child.health.step_seconds < 0.3  # the usual step, not the first


async def test_what_the_process_writes_reaches_the_log_also_after_a_line_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running("chatty"):
        pass
    assert "engine process: loaded the weights" in caplog.text
    assert all(len(record.getMessage()) < 100_000 for record in caplog.records)


@pytest.mark.usefixtures("quick_restarts")
async def test_stopping_leaves_no_process_no_task_and_no_open_file() -> None:
    for sent in (None, signal.SIGSTOP):
        files = psutil.Process().num_fds()
        async with running() as engine:
            call = await begin(engine)
            os.kill(engine.child.pid, signal.SIGKILL)
            await over_a_loss(call)
            if sent:
                os.kill(engine.child.pid, sent)
        assert not psutil.pid_exists(engine.child.pid)
        assert (await rest(call))[-1] == Ended("closed")
        await asyncio.sleep(0)  # transports close in the loop's next round
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert psutil.Process().num_fds() == files


async def test_while_it_loads_it_says_how_far_it_is(tmp_path: Path) -> None:
    engine = HostEngine("slow", f"{HERE}:waiting", 1, file=str(tmp_path / "there"))
    assert engine.trouble == "starting"
    start = asyncio.create_task(engine.start())
    async with asyncio.timeout(LIMIT):
        while engine.trouble != "loading a model: 40 %":  # noqa: ASYNC110 - no event of it is needed elsewhere
            await asyncio.sleep(0.01)
        with pytest.raises(Busy, match="not ready: loading a model: 40 %"):
            engine.reserve(LIMIT)
        (tmp_path / "there").touch()
        await start
    assert engine.trouble == ""
    os.kill(engine.child.pid, signal.SIGKILL)
    while engine.ready:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert engine.trouble == "starting"  # what it said before is no longer so
    await engine.stop()


async def test_the_environment_is_there_before_the_core(tmp_path: Path) -> None:
    core = tmp_path / "core.py"
    core.write_text(
        "import os\nfrom voice_bridge.engines.echo import core as echo\nassert os.environ['CARD'] == 'two'\n"
    )
    with core.open("a") as file:
        file.write("def core(slots, progress):\n    return echo(slots, progress)\n")
    engine = HostEngine("test", f"{core}:core", 1, environment={"CARD": "two"})
    await engine.start()
    assert engine.ready
    await engine.stop()


# -- slots that follow the time of a step --------------------------------------------------------------------------


async def test_an_engine_that_cannot_carry_one_call_comes_up_offers_nothing_and_says_why() -> None:
    engine = HostEngine("slow", f"{HERE}:slowing", 4, remedy="take weights = int8", holds=0.5)
    await engine.start()
    assert engine.ready
    assert engine.capacity() == Capacity(0, 0, 0)
    why = "a step takes 128 ms and may take 64 of the 80 that a frame lasts: take weights = int8"
    assert engine.trouble == why
    with pytest.raises(Busy, match=why):
        engine.reserve(LIMIT)
    await engine.stop()


async def test_an_engine_that_gets_slower_offers_less_and_ends_no_call() -> None:
    async with running("slowing", holds=4) as engine:
        calls = [await begin(engine) for _ in range(3)]
        assert engine.capacity() == Capacity(4, 0, 3)
        assert engine.step_seconds == pytest.approx(STEP_LIMIT)
        await answer(calls[0], 0, 0.02)  # from here on it carries two
        await heard_from(engine)
        assert engine.capacity() == Capacity(2, 0, 3)
        with pytest.raises(Busy, match="every slot is taken"):
            engine.reserve(LIMIT)
        await answer(calls[0], 1, 0.005)  # and now not even one
        await heard_from(engine)
        assert engine.capacity() == Capacity(0, 0, 3)
        with pytest.raises(Busy, match="a step takes 128 ms"):
            engine.reserve(LIMIT)
        for call in calls:
            await answer(call, 2, 0.005)
            await call.close()
        await heard_from(engine)  # nobody is left; it tries a call of its own
        await heard_from(engine)
        assert engine.capacity() == Capacity(4, 0, 0)
        assert engine.restarts == 0


# -- conversations -------------------------------------------------------------------------------------------------


async def test_fifty_conversations_at_once_hear_each_only_itself() -> None:
    async with running(slots=50) as engine:

        async def talk(number: int) -> None:
            conversation = await begin(engine)
            for turn in range(5):
                await answer(conversation, number + turn * FRAME, (10 * number + turn) / 1000)
            await conversation.close()

        await asyncio.gather(*(talk(number) for number in range(50)))
        assert engine.capacity().free == 50
        assert engine.restarts == 0


async def test_all_that_is_asked_reaches_the_core_in_order() -> None:
    async with running() as engine:
        conversation = await begin(engine, "CA1")
        say = conversation.say("hello there", interruptible=False)
        inject = conversation.inject("likes jazz", how="aloud", turn=7)
        conversation.inject("likes tea")
        conversation.cancel(say)
        conversation.played(1920)
        conversation.digit("#")
        conversation.send(frame(0), 0)
        *told, _ = await until(conversation, Sound)
        assert told == [
            Remember("open CA1"),
            Remember(f"say {say} hello there False"),
            Remember(f"inject {inject} likes jazz aloud 7"),
            Remember(f"inject {inject + 1} likes tea silent None"),
            Remember(f"cancel {say}"),
            Remember("played 1920"),
            Remember("digit #"),
        ]


async def test_two_hundred_at_a_door_for_ten_find_ten_slots() -> None:
    async with running(slots=10) as engine:
        everyone_asked = asyncio.Barrier(200)

        async def come(number: int) -> bool:
            try:
                lease = engine.reserve(LIMIT)
            except Busy:
                await everyone_asked.wait()
                return False
            await everyone_asked.wait()
            conversation = await engine.open(Opening(), lease)
            await answer(conversation, number, number / 1000)
            await conversation.close()
            return True

        for _ in range(3):
            assert sum(await asyncio.gather(*(come(number) for number in range(200)))) == 10
            assert engine.capacity().free == 10
        assert engine.restarts == 0


async def test_an_opening_that_is_refused_ends_only_its_own_conversation() -> None:
    async with running(slots=2) as engine:
        good = await begin(engine)
        for _ in range(5):
            refused = await begin(engine, persona="nobody")
            assert await rest(refused) == [Ended("opening refused: nobody is not a persona")]
            assert engine.capacity().used == 1
            await refused.close()
            assert await rest(refused) == []
        await answer(good, 0)
        assert engine.restarts == 0


async def test_words_that_the_core_cannot_take_are_refused_harm_nobody_and_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as engine:
        call, other = await begin(engine, "CA1"), await begin(engine)
        refused = [call.say("unspeakable"), call.inject("unspeakable")]
        for id in refused:
            assert (await until(call, Refused))[-1] == Refused(id)
        await answer(call, 0)
        await answer(other, 0)
        assert "unspeakable" not in caplog.text
        assert engine.restarts == 0


async def test_a_conversation_that_the_core_ends_gives_its_slot_back() -> None:
    async with running(slots=1) as engine:
        for _ in range(3):
            conversation = await begin(engine)
            await answer(conversation, 0)
            conversation.send(frame(GOODBYE), FRAME)
            assert (await rest(conversation))[-1] == Ended("goodbye")
            assert engine.capacity().free == 1
            await conversation.close()
        assert engine.restarts == 0


async def test_a_reader_that_does_not_read_gets_the_newest_sounds_and_every_event() -> None:
    async with running() as engine:
        asleep, awake = await begin(engine, "asleep"), await begin(engine)
        for at in range(QUEUE + 6):
            asleep.send(frame(0), at)
            await answer(awake, at)  # so the other's answer has come too
        assert asleep.dropped == 6
        await asleep.close()
        told, *sounds, ended = await rest(asleep)
        assert told == Remember("open asleep")
        assert [sound.answers for sound in sounds if isinstance(sound, Sound)] == list(range(6, QUEUE + 6))
        assert ended == Ended("closed")
        assert awake.dropped == 0


async def test_frames_that_the_engine_cannot_keep_up_with_are_counted_in_its_health() -> None:
    async with running(step=0.05) as engine:
        conversation = await begin(engine)
        for at in range(20):
            conversation.send(frame(0), at)
        async with asyncio.timeout(LIMIT):
            async for event in conversation:
                if isinstance(event, Sound) and event.answers == 19:
                    break
        await heard_from(engine)
        dropped = engine.dropped
        assert 20 - 2 * WAITING <= dropped < 20  # some may be stepped before all have come
        await heard_from(engine)
        assert engine.dropped == dropped  # each is counted once
        assert engine.queued == 0
        os.kill(engine.child.pid, signal.SIGKILL)
        await over_a_loss(conversation)
        await heard_from(engine)
        assert engine.dropped == dropped  # counters never go back


# -- crashes -------------------------------------------------------------------------------------------------------


async def test_calls_go_on_after_each_of_four_kills(quick_restarts: tuple[float, ...]) -> None:
    async with running() as engine, running() as other:
        calls = [await begin(engine, "one"), await begin(engine, "two")]
        bystander = await begin(other)
        lease = engine.reserve(LIMIT)
        for kill, wait in enumerate((*quick_restarts, quick_restarts[-1]), 1):
            for number, call in enumerate(calls):
                await answer(call, number, number / 10)
            pid = engine.child.pid
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.gather(*(over_a_loss(call) for call in calls)) == [wait, wait]
            assert engine.child.pid != pid
            assert engine.restarts == kill
            assert (engine.capacity().used, engine.capacity().reserved) == (2, 1)
            calls[1].send(frame(0), 0)
            assert (await until(calls[1], Sound))[0] == Remember("open two")  # the conversation begins as it began
            await answer(bystander, kill)
        for call in calls:
            await call.close()
        lease.release()
        assert engine.capacity().free == 4
        for call in [await begin(engine) for _ in range(4)]:
            await answer(call, 0)
        assert other.restarts == 0


@pytest.mark.parametrize(("greeting", "again"), [("short", ""), ("long", " long")])
async def test_an_engine_that_comes_back_says_a_greeting_again_only_if_it_was_not_over(
    greeting: str, again: str, quick_restarts: tuple[float, ...]
) -> None:
    async with running() as engine:
        call = await engine.open(Opening(call="one", greeting=greeting), engine.reserve(LIMIT))
        await answer(call, 0)
        os.kill(engine.child.pid, signal.SIGKILL)
        await over_a_loss(call)
        call.send(frame(0), 0)
        assert (await until(call, Sound))[0] == Remember(f"open one{again}")


async def test_a_crash_after_a_healthy_life_counts_as_the_first(
    quick_restarts: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "HEALTHY", 0.0)
    async with running() as engine:
        call = await begin(engine)
        for _ in range(2):
            os.kill(engine.child.pid, signal.SIGKILL)
            assert await over_a_loss(call) == quick_restarts[0]


async def test_a_core_that_raises_is_a_crash_with_its_words_in_the_log(
    quick_restarts: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as engine:
        call, other = await begin(engine), await begin(engine)
        call.send(frame(CRASH), 0)
        await over_a_loss(call)
        await over_a_loss(other)
        await answer(other, 0)
        assert "engine process: RuntimeError: the device is gone" in caplog.text
        assert "engine process lost: it ended (exit status 1); starting it again in 0.0 s" in caplog.text


async def test_a_conversation_that_loses_three_engines_without_a_sound_between_is_given_up(
    quick_restarts: tuple[float, ...],
) -> None:
    async with running() as engine:
        poison, other = await begin(engine), await begin(engine)
        for _ in range(2):
            poison.send(frame(CRASH), 0)
            await over_a_loss(poison)
            await over_a_loss(other)
            await answer(other, 0)
        poison.send(frame(CRASH), 0)
        assert (await rest(poison))[-2:] == [Lost(quick_restarts[2]), Ended("3 engine processes in a row were lost")]
        await over_a_loss(other)
        await answer(other, 0)
        assert engine.capacity().used == 1


async def test_the_frames_of_many_calls_go_together_and_each_gets_its_own_answer() -> None:
    async with running(slots=FEW + 4) as engine:
        calls = [await begin(engine) for _ in range(FEW + 4)]
        for at in range(3):
            for number, call in enumerate(calls):
                call.send(frame(number / 100), at * FRAME)
        for number, call in enumerate(calls):
            sounds = [(await until(call, Sound))[-1] for _ in range(3)]
            assert [sound.answers for sound in sounds if isinstance(sound, Sound)] == [0, FRAME, 2 * FRAME]
            assert all(sound.pcm[0] == np.float32(number / 100) for sound in sounds if isinstance(sound, Sound))
        for call in calls[4:]:
            await call.close()
        await answer(calls[0], 3 * FRAME)


async def test_a_frame_of_another_shape_is_refused_before_it_can_harm_other_calls() -> None:
    async with running() as engine:
        call = await begin(engine)
        for wrong in (np.zeros(FRAME - 1, np.float32), np.zeros(FRAME), np.zeros((1, FRAME), np.float32)):
            with pytest.raises(ValueError, match="a frame is 1920 float32"):
                call.send(wrong, 0)
        await answer(call, 0)


async def test_asking_while_the_engine_is_away_waits_for_nothing_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "BACK_OFF", (0.2,))
    async with running() as engine:
        call, closing, lease = await begin(engine), await begin(engine), engine.reserve(LIMIT)
        os.kill(engine.child.pid, signal.SIGKILL)
        await until(call, Lost)
        assert not engine.ready
        assert engine.queued == 0
        with pytest.raises(Busy, match="not ready"):
            engine.reserve(LIMIT)
        call.send(frame(0), 0)
        assert call.dropped == 1
        call.say("hello")
        call.digit("1")
        await closing.close()
        assert await rest(closing) == [Lost(0.2), Ended("closed")]
        late = await engine.open(Opening("late"), lease)
        assert await over_a_loss(late) == 0.2
        await answer(late, 0)
        assert engine.capacity().used == 2


@pytest.mark.usefixtures("quick_restarts")
async def test_a_call_may_talk_on_while_its_engine_dies() -> None:
    async with running() as engine:
        call = await begin(engine)
        lost = asyncio.create_task(until(call, Lost))
        os.kill(engine.child.pid, signal.SIGKILL)
        while not lost.done():
            call.send(frame(0), 0)
            await asyncio.sleep(0)  # in every round of the loop until it is known
        assert call.dropped > 0
        assert await until(call, Back) == [Back()]
        await answer(call, 1)


async def test_an_engine_that_does_not_come_back_is_tried_again(
    quick_restarts: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as engine:
        call = await begin(engine)
        real = sys.executable
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        async with logged("cannot be spawned"):
            os.kill(engine.child.pid, signal.SIGKILL)
        monkeypatch.setattr(sys, "executable", real)
        assert await over_a_loss(call) == quick_restarts[0]
        await answer(call, 0)
        assert engine.restarts >= 2


@needs_pidfd
async def test_the_helpers_of_a_dead_engine_die_too_and_do_not_delay_its_return(
    quick_restarts: tuple[float, ...],
) -> None:
    async with running("helped") as engine:
        call = await begin(engine)
        (helper,) = psutil.Process(engine.child.pid).children()
        end = gone(helper.pid)
        os.kill(engine.child.pid, signal.SIGKILL)
        await over_a_loss(call)
        await end


@needs_pidfd
async def test_an_engine_dies_with_its_daemon() -> None:
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", DAEMON, stdout=subprocess.PIPE)
    assert daemon.stdout
    end = gone(int(await daemon.stdout.readline()))
    daemon.kill()
    await end
    await daemon.wait()


DAEMON = f"""
import asyncio
from voice_bridge.engines.host import HostEngine

async def main():
    engine = HostEngine("echo", "{ECHO}", 1)
    await engine.start()
    print(engine.child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


# -- hangs ---------------------------------------------------------------------------------------------------------


async def test_a_stopped_process_is_noticed_and_replaced_within_two_seconds() -> None:
    async with running() as engine:
        call = await begin(engine)
        await answer(call, 0)
        pid = engine.child.pid
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(2):
            await until(call, Lost)
        assert not psutil.pid_exists(pid)
        assert await until(call, Back) == [Back()]
        await answer(call, FRAME)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "PING", 0.02)
    monkeypatch.setattr(child, "SILENCE", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_step_that_is_always_slow_is_not_a_hang() -> None:
    async with running(step=0.15) as engine:
        call = await begin(engine)
        for at in range(4):
            await answer(call, at)
        assert engine.restarts == 0


@pytest.mark.usefixtures("impatient")
async def test_a_stall_of_our_own_is_not_a_hang_of_the_engine() -> None:
    async with running(step=0.001) as engine:
        call = await begin(engine)
        for at in range(3):
            await answer(call, at)
            time.sleep(0.3)  # noqa: ASYNC251 - the stall
        for _ in range(5):
            await heard_from(engine)
        assert engine.restarts == 0


async def test_an_engine_that_does_not_read_for_a_while_loses_frames_but_no_close_and_no_slot() -> None:
    async with running(slots=1) as engine:
        call = await begin(engine)
        await answer(call, 0)
        os.kill(engine.child.pid, signal.SIGSTOP)
        for _ in range(2 * BUFFER // FRAME):  # a frame has four bytes a sample, so this is eight times too much
            call.send(frame(0), FRAME)
            if engine.child.behind:
                break
        assert call.dropped == 0
        call.send(frame(0), FRAME)
        assert call.dropped == 1
        await call.close()
        os.kill(engine.child.pid, signal.SIGCONT)
        await heard_from(engine)
        for at in range(3):
            call = await begin(engine)
            await answer(call, at)
            await call.close()
        assert engine.restarts == 0


# -- the event loop that serves calls, and what it must not load ---------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        test_fifty_conversations_at_once_hear_each_only_itself,
        test_a_core_that_cannot_load_fails_the_start_with_its_own_words,
        test_calls_go_on_after_each_of_four_kills,
        test_stopping_leaves_no_process_no_task_and_no_open_file,
        test_a_stopped_process_is_noticed_and_replaced_within_two_seconds,
        test_an_engine_that_does_not_read_for_a_while_loses_frames_but_no_close_and_no_slot,
    ],
)
def test_it_holds_on_uvloop_as_well(scenario: Scenario, request: pytest.FixtureRequest) -> None:
    needs = set(scenario.__annotations__) - {"return"}
    uvloop.run(scenario(**{name: request.getfixturevalue(name) for name in needs}))


def test_the_hosts_side_loads_no_core_and_nothing_heavy() -> None:
    code = "import sys, voice_bridge.engines.registry, voice_bridge.engines.host; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "voice_bridge.engines.child" in loaded
    assert not {"voice_bridge.engines.echo", "voice_bridge.engines.worker"} & set(loaded)
    assert not {"torch", "mlx", "scipy", "aiohttp"} & {name.partition(".")[0] for name in loaded}
