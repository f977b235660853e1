"""Names to engines."""

import pytest

from voice_bridge.engines.base import Capacity
from voice_bridge.engines.hardware import Machine
from voice_bridge.engines.registry import CORES, ECHO_SLOTS, PLANNED, Choice, NoEngine, choose, make

PLAIN = Machine("plain", "", 8 << 30, 4 << 30, 20e9, 0, False, 2, 8 << 30)
GPU = Machine("nvidia", "H200", 141 << 30, 140 << 30, 4.8e12, 6, True, 16, 512 << 30)


@pytest.mark.parametrize("machine", [PLAIN, GPU])
@pytest.mark.parametrize("device", ["", "cpu", "cuda", "cloud"])
@pytest.mark.parametrize("name", sorted(CORES))
def test_what_was_asked_for_by_name_is_taken_on_any_machine(name: str, device: str, machine: Machine) -> None:
    assert choose(name, device, machine, "") == Choice(name, "it was asked for")


@pytest.mark.parametrize("machine", [PLAIN, GPU])
def test_auto_takes_an_engine_that_there_is_and_says_why(machine: Machine) -> None:
    choice = choose("auto", "cpu", machine, "")
    assert choice.name in CORES
    assert choice.reason


@pytest.mark.parametrize("name", [*PLANNED, "mosh", "", "Echo"])
def test_a_name_without_an_engine_is_refused_with_the_names_that_work(name: str) -> None:
    with pytest.raises(NoEngine) as refused:
        choose(name, "cpu", PLAIN, "")
    line = str(refused.value)
    assert f"voice.provider = {name}:" in line
    assert "auto" in line
    assert "echo" in line
    assert "\n" not in line


@pytest.mark.parametrize(("asked", "given"), [(0, ECHO_SLOTS), (3, 3)])
async def test_slots_are_as_many_as_asked_for_or_the_engines_own_number(asked: int, given: int) -> None:
    engine = make(Choice("echo", ""), asked)
    assert (engine.name, engine.ready) == ("echo", False)
    assert engine.capacity() == Capacity(0, 0, 0)
    await engine.start()
    assert engine.capacity() == Capacity(given, 0, 0)
    await engine.stop()
