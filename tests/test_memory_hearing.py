"""Memory in calls whose engine hears by itself: telephone, daemon, engine process and mind, all of them real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

for extra in ("libsql", "wordllama"):
    pytest.importorskip(extra)

from voice_bridge.bridge.cli.doctor_memory import check_ear  # noqa: E402
from voice_bridge.bridge.config.memory import Memory  # noqa: E402
from voice_bridge.bridge.memory import begin, wire  # noqa: E402
from voice_bridge.bridge.memory.client import Mind  # noqa: E402
from voice_bridge.bridge.memory.store import Store  # noqa: E402
from voice_bridge.bridge.memory.talk import LAST  # noqa: E402
from voice_bridge.engines.base import Words  # noqa: E402
from voice_bridge.engines.hardware import Machine  # noqa: E402
from voice_bridge.engines.host import HostEngine  # noqa: E402
from voice_bridge.engines.registry import Choice  # noqa: E402
from voice_bridge.engines.relay.endpoint import endpoint  # noqa: E402
from voice_bridge.engines.relay.engine import RelayEngine  # noqa: E402
from voice_bridge.engines.wire import Kind, Unpacker  # noqa: E402

from .conftest import Bridge, Dial, LogLines  # noqa: E402
from .minds import Caller, init, until  # noqa: E402

HEARING = f"{Path(__file__).parent / 'cores.py'}:hearing"
CODE = "My locker code is 7392."
QUESTION = "What is my locker code?"
REMINDER = f'the caller told me before: "{CODE}"'
HEARS = Choice("cascade", "the tests want it", hears=True)
MACHINE = Machine("plain", "", 1 << 34, 1 << 34, 2e10, 0, False, 2, 1 << 34, 1 << 34, 2e10)


class Hearing:
    """An engine that hears what it is told to, and writes down what it is given."""

    def __init__(self, folder: Path) -> None:
        self._file, self._said = folder / "diary", folder / "said"
        self._file.touch()
        self._said.touch()
        self.engine = HostEngine("hearing", HEARING, 4, file=str(self._file))

    def hears(self, text: str) -> None:
        """What the caller says; it goes on after three dots."""
        with self._said.open("a") as file:
            file.write(f"{text}\n")

    async def until(self, line: str) -> None:
        await until(lambda: line in self.lines)

    @property
    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()

    @property
    def given(self) -> list[str]:
        """What it was given to read in mid-call."""
        return [line for line in self.lines if line.startswith(("turn", "remembered"))]


def kept(folder: Path) -> list[str]:
    with closing(Store.open(str(folder / "memory.db"))) as store:
        return sorted(memory.text for memory in store.page())


@pytest.fixture
def hearing(tmp_path: Path) -> Hearing:
    return Hearing(tmp_path)


@pytest.fixture
async def mind(tmp_path: Path) -> Mind:
    return Mind(init(tmp_path, ear="off", standing=0))


async def test_each_turn_of_the_caller_is_answered_with_what_comes_to_mind(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing, log_lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    first = await dial(daemon)
    hearing.hears(CODE)
    await until(lambda: mind.written == 1)
    first.hang_up()
    await dial(daemon)
    hearing.hears(QUESTION)
    await hearing.until(f"turn 2: {REMINDER}")
    await until(lambda: mind.counts["taken"] == 1)
    hearing.hears("Thank you very much.")
    await hearing.until("turn 3: ")
    assert hearing.given == ["turn 1: ", f"turn 2: {REMINDER}", "turn 3: "]
    assert mind.counts == {"taken": 1}
    [reminded] = [line for line in log_lines if line["event"] == "the model was reminded"]
    assert reminded["memories"] == 1
    assert "locker" not in f"{log_lines}{caplog.text}"


async def test_what_half_a_sentence_brings_comes_at_once_and_its_end_does_not_repeat_it(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    first = await dial(daemon)
    hearing.hears(CODE)
    await until(lambda: mind.written == 1)
    first.hang_up()
    await dial(daemon)
    hearing.hears("What is my locker code...")
    await hearing.until(f"remembered: {REMINDER}")
    hearing.hears("What is my locker code, please?")
    await hearing.until("turn 2: ")
    assert hearing.given == ["turn 1: ", f"remembered: {REMINDER}", "turn 2: "]


async def test_what_comes_to_mind_here_reaches_an_engine_elsewhere_that_hears(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing
) -> None:
    there = await bridge(engine=hearing.engine)
    here = await bridge(engine=RelayEngine([endpoint(there.url, None)]), mind=mind)
    await mind.settled()
    first = await dial(here)
    hearing.hears(CODE)
    await until(lambda: mind.written == 1)
    first.hang_up()
    await dial(here)
    hearing.hears(QUESTION)
    await hearing.until(f"turn 2: {REMINDER}")
    await until(lambda: mind.counts["taken"] == 1)
    assert hearing.given == ["turn 1: ", f"turn 2: {REMINDER}"]


async def test_a_mind_with_an_ear_of_its_own_does_not_hear_a_caller_twice(
    bridge: Bridge, dial: Dial, tmp_path: Path, hearing: Hearing
) -> None:
    mind = Mind(init(tmp_path, standing=0))
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    await dial(daemon)
    hearing.hears(CODE)
    hearing.hears(QUESTION)
    await hearing.until("turn 2: ")
    assert hearing.given == ["turn 1: ", "turn 2: "]
    assert mind.written == 0


@pytest.mark.parametrize("why", ["memory is off", "the number remembers nobody", "the caller withholds the number"])
async def test_where_nobody_listens_the_engine_is_told_at_once_that_nothing_comes_to_mind(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing, why: str
) -> None:
    minds = {} if why == "memory is off" else {"mind": mind}
    daemon = await bridge(engine=hearing.engine, calls__remember=why != "the number remembers nobody", **minds)
    await mind.settled()
    await dial(daemon, caller="anonymous" if why == "the caller withholds the number" else "+15550100001")
    hearing.hears("What is my...")
    hearing.hears(QUESTION)
    await hearing.until("turn 1: ")
    assert hearing.given == ["turn 1: "]


async def test_a_mind_that_dies_in_mid_call_keeps_no_engine_waiting_and_hears_the_caller_when_it_is_back(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    monkeypatch.setattr("voice_bridge.engines.child.BACK_OFF", (1.0,))
    await dial(daemon)
    os.kill(mind._child.pid, signal.SIGKILL)
    await until(lambda: not mind.ready)
    hearing.hears(CODE)
    await hearing.until("turn 1: ")
    assert not mind.ready
    await until(lambda: mind.ready)
    hearing.hears("My dog is called Rex.")
    await until(lambda: mind.written == 1)
    assert hearing.given == ["turn 1: ", "turn 2: "]


async def test_who_was_forgotten_is_not_listened_to_any_more_and_his_engine_is_told_so(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind, calls__digits={"*": "forget"})
    await mind.settled()
    caller = await dial(daemon)
    hearing.hears(CODE)
    await until(lambda: mind.written == 1)
    caller.press("*")
    await hearing.until("say: I have forgotten everything that you told me.")
    hearing.hears(QUESTION)
    await hearing.until("turn 2: ")
    assert hearing.given == ["turn 1: ", "turn 2: "]


async def test_the_callers_sound_is_not_sent_to_a_mind_without_an_ear(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    sent: list[Kind] = []

    def recording(hand_over: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        def record(data: bytes) -> bool:
            sent.extend(packet.kind for packet in Unpacker().feed(data))
            return hand_over(data)

        return record

    monkeypatch.setattr(mind._child, "send", recording(mind._child.send))
    monkeypatch.setattr(mind._child, "gather", recording(mind._child.gather))
    await dial(daemon, sound=np.full(8000, 1000, np.int16))
    [live] = daemon.board.calls.values()
    await until(lambda: live.stats.frames >= 5)
    assert Kind.TELL in sent
    assert Kind.FRAME not in sent


async def test_what_is_said_last_is_kept_and_nobody_waits_for_more_though_the_caller_hangs_up_in_mid_sentence(
    mind: Mind, tmp_path: Path
) -> None:
    mind.start()
    await mind.settled()
    caller = Caller(mind, "CA1")
    caller.attention.heard(Words(1, "caller", "My name is", 0, 1920, final=False))
    caller.attention.heard(Words(1, "caller", "My name is Anna", 0, 3840, final=False))
    caller.attention.close()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await mind.stop()
    assert loop.time() - began < LAST
    assert kept(tmp_path) == ["My name is Anna."]


async def test_what_a_caller_asks_to_be_remembered_is_kept_once_though_the_engine_asks_for_it_too(
    bridge: Bridge, dial: Dial, mind: Mind, hearing: Hearing, tmp_path: Path
) -> None:
    daemon = await bridge(engine=hearing.engine, mind=mind)
    await mind.settled()
    await dial(daemon)
    hearing.hears("Remember that my gate code is 4417.")
    hearing.hears("Remember that my cat is called Minka and my dog is called Rex.")
    await until(lambda: mind.written >= 3)
    hearing.hears("My sister lives in Leeds.")  # what comes behind it is done when it is
    await until(lambda: mind.written >= 4)
    assert kept(tmp_path) == [
        "My cat is called Minka.",
        "My dog is called Rex.",
        "My gate code is 4417.",
        "My sister lives in Leeds.",
    ]


async def test_a_caller_whom_the_mind_does_not_know_is_answered_too(mind: Mind) -> None:
    mind.start()
    await mind.settled()
    nobody = Caller(mind, "CA1", "")
    assert not nobody.attention.heard(Words(1, "caller", "What is my", 0, 1920, final=False))
    assert nobody.attention.heard(Words(1, "caller", QUESTION, 0, 1920, final=True))
    assert await nobody.until(bool) == [wire.nothing(1)]
    await mind.stop()


async def test_who_wants_to_be_forgotten_before_he_is_answered_leaves_no_engine_waiting(mind: Mind) -> None:
    mind.start()
    await mind.settled()
    first, second = Caller(mind, "CA1"), Caller(mind, "CA2")
    first.attention.heard(Words(1, "caller", CODE, 0, 1920, final=True))
    await until(lambda: mind.written == 1)
    second.attention.heard(Words(1, "caller", QUESTION, 0, 1920, final=True))
    second.attention.forget()
    told = await second.until(lambda told: wire.Forgotten(1) in told)
    assert told == [wire.nothing(1), wire.Forgotten(1)]
    await mind.stop()


def test_beside_an_engine_that_hears_the_mind_has_no_ear_and_lets_the_model_read() -> None:
    memory = Memory(ear="moonshine", injection="spoken")
    told = begin.init(memory, MACHINE, HEARS)
    assert (told.ear, told.injection) == ("off", "silent")
    other = begin.init(memory, MACHINE, Choice("echo", "the tests want it"))
    assert (other.ear, other.injection) == ("moonshine", "spoken")
    row = check_ear(Memory(ear="off"), HEARS)
    assert (row.state, row.text) == ("ok", "none is needed: the engine cascade tells what callers say")


def test_beside_an_engine_that_hears_no_package_of_an_ear_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "find_spec", lambda name: None)
    memory = Memory(ear="kyutai")
    assert begin.missing(memory, HEARS) == ["libsql", "wordllama"]
    assert "torch" in begin.missing(memory, Choice("echo", "the tests want it"))
