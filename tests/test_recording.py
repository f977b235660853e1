import asyncio
import resource
import subprocess
import sys
import threading
import tracemalloc
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from voice_bridge.bridge.observe import recording as module
from voice_bridge.bridge.observe.recording import BEHIND, HOLD, WINDOW, Recording

OnError: TypeAlias = Callable[[Exception], None]

RATE = 8000
FRAME = 640


def tone(value: int, seconds: float = FRAME / RATE) -> NDArray[np.int16]:
    return np.full(round(seconds * RATE), value, np.int16)


@pytest.fixture
async def fail() -> AsyncIterator[OnError]:
    """An `on_error` for a recording that must not fail."""
    told: list[Exception] = []
    yield told.append
    await writer_idle()
    assert told == []


def sound(path: Path) -> NDArray[np.int16]:
    """[n, 2]: caller, agent."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)


async def writer_idle() -> None:
    """Wait until the writer thread has done all that it was given."""
    await asyncio.get_running_loop().run_in_executor(module._writer, int)


async def test_each_side_lies_where_it_was_heard_and_what_is_missing_is_silence(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "deep" / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1), 100)
    recording.agent(tone(7), 2000)
    recording.caller(tone(2), 1600)
    recording.agent(tone(8), 1000)  # after its successor
    await recording.close()
    expected = np.zeros((2640, 2), np.int16)
    expected[100:740, 0], expected[1600:2240, 0] = 1, 2
    expected[1000:1640, 1], expected[2000:2640, 1] = 8, 7
    np.testing.assert_array_equal(sound(path), expected)


async def test_a_buffer_that_is_used_again_does_not_change_the_recording(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    buffer = tone(5)
    recording.caller(buffer, 0)
    buffer[:] = 9
    await recording.close()
    assert set(sound(path)[:, 0]) == {5}


async def test_voided_sound_is_not_in_the_file_and_new_sound_takes_its_place(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1, 1.0), 0)
    recording.agent(tone(7, 4.0), 0)
    recording.void_agent(4000)
    recording.agent(tone(8, 0.5), 6000)
    await recording.close()
    heard = sound(path)
    expected = np.zeros(10_000, np.int16)
    expected[:4000], expected[6000:] = 7, 8
    np.testing.assert_array_equal(heard[:, 1], expected)


async def test_voiding_at_the_end_shortens_the_file(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1, 1.0), 0)
    recording.agent(tone(7, 4.0), 0)
    recording.void_agent(2000)
    recording.void_agent(-5)
    await recording.close()
    assert sound(path).shape == (8000, 2)
    assert not sound(path)[:, 1].any()


async def test_both_sides_of_a_long_call_come_back_to_the_sample(tmp_path: Path, fail: OnError) -> None:
    """A minute with the agent late, early and interrupted, against a plain array of the whole call."""
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    chance = np.random.default_rng(1)
    frames = 60 * RATE // FRAME
    expected = np.zeros((frames * FRAME + 4 * RATE, 2), np.int16)
    end = 0
    for n in range(frames):
        at = n * FRAME
        caller, agent = chance.integers(-30_000, 30_000, (2, FRAME), np.int16)
        recording.caller(caller, at)
        expected[at : at + FRAME, 0] = caller
        heard = max(0, at + int(chance.integers(-2 * RATE, 2 * RATE)))
        recording.agent(agent, heard)
        expected[heard : heard + FRAME, 1] = agent
        end = max(end, heard + FRAME)
        if n % 100 == 99:
            recording.void_agent(at)
            expected[at:, 1] = 0
            end = at
        if n % 25 == 0:
            await writer_idle()
    await recording.close()
    end = max(end, frames * FRAME)
    np.testing.assert_array_equal(sound(path), expected[:end])


async def test_a_file_can_be_played_while_the_call_goes_on(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    for second in range(10):
        recording.caller(tone(second, 1.0), second * RATE)
        recording.agent(tone(second, 1.0), second * RATE)
        await writer_idle()
    assert len(sound(path)) == (10 - HOLD) * RATE
    await recording.close()
    assert len(sound(path)) == 10 * RATE
    assert path.stat().st_mode & 0o007 == 0


async def test_sound_that_comes_after_its_time_is_final_is_left_out(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.agent(tone(6), -100)
    for second in range(10):
        recording.caller(tone(1, 1.0), second * RATE)
        recording.agent(tone(2, 1.0), second * RATE)
        await writer_idle()
    final = (10 - HOLD) * RATE
    recording.agent(tone(7), 0)
    recording.agent(tone(8), final - 100)
    recording.agent(tone(9, 1.0), 9 * RATE)
    await recording.close()
    heard = sound(path)
    assert len(heard) == 10 * RATE
    assert (heard[:, 0] == 1).all()
    assert (heard[:final, 1] == 2).all()
    assert (heard[final : final + FRAME - 100, 1] == 8).all()
    assert (heard[final + FRAME - 100 : 9 * RATE, 1] == 2).all()


async def test_a_silence_longer_than_the_memory_is_still_silence(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1), 0)
    recording.agent(tone(2), 0)
    recording.caller(tone(3), 100 * RATE)
    await recording.close()
    heard = sound(path)
    assert len(heard) == 100 * RATE + FRAME
    assert (heard[:FRAME] == [1, 2]).all()
    assert not heard[FRAME : 100 * RATE].any()
    assert (heard[100 * RATE :, 0] == 3).all()


async def test_an_agent_far_ahead_of_the_caller_costs_no_more_than_the_window(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1), 0)
    for second in range(100):
        recording.agent(tone(second + 1, 1.0), second * RATE)
        await writer_idle()
    assert len(sound(path)) >= (100 - WINDOW) * RATE
    await recording.close()
    np.testing.assert_array_equal(sound(path)[::RATE, 1], np.arange(1, 101))


async def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    pcm = tone(1, 1.0)
    tracemalloc.start()
    for second in range(3600):
        recording.caller(pcm, second * RATE)
        recording.agent(pcm, second * RATE + 2000)
        await writer_idle()
        if second == 60:
            before, _ = tracemalloc.get_traced_memory()
    after, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await recording.close()
    assert after - before < 50_000
    assert most - before < 1_000_000
    assert len(sound(path)) == 3600 * RATE + 2000


async def test_all_recordings_share_one_thread_and_none_is_the_event_loops(tmp_path: Path, fail: OnError) -> None:
    before = {thread.name for thread in threading.enumerate()}
    recordings = [Recording(str(tmp_path / f"{n}.wav"), on_error=fail) for n in range(20)]
    for each in recordings:
        each.caller(tone(1, 2.0), 0)
    await asyncio.gather(*(each.close() for each in recordings))
    new = {thread.name for thread in threading.enumerate()} - before
    assert len(new) <= 1
    assert all(len(sound(tmp_path / f"{n}.wav")) == 2 * RATE for n in range(20))


async def test_closing_twice_or_going_on_after_it_is_harmless(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1), 0)
    await asyncio.gather(recording.close(), recording.close())
    recording.caller(tone(1, 3.0), FRAME)
    recording.void_agent(0)
    await recording.close()
    assert len(sound(path)) == FRAME


async def test_a_close_that_is_cancelled_still_finishes_the_file(tmp_path: Path, fail: OnError) -> None:
    path = tmp_path / "call.wav"
    free = threading.Event()
    module._writer.submit(free.wait)
    recording = Recording(str(path), on_error=fail)
    recording.caller(tone(1), 0)
    closing = asyncio.create_task(recording.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    free.set()
    await recording.close()
    assert len(sound(path)) == FRAME


async def test_a_place_that_cannot_be_written_is_told_once_and_the_call_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[Exception] = []
    recording = Recording(str(tmp_path / "file" / "call.wav"), on_error=told.append)
    for second in range(10):
        recording.caller(tone(1, 1.0), second * RATE)
        recording.agent(tone(1, 1.0), second * RATE)
        await writer_idle()
    await recording.close()
    await asyncio.sleep(0)
    assert [type(error) for error in told] == [FileExistsError]


async def test_a_disk_too_slow_for_the_call_ends_the_recording_with_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    told: list[Exception] = []
    recording = Recording(str(path), on_error=told.append)
    for second in range(8):
        recording.caller(tone(1, 1.0), second * RATE)
        recording.agent(tone(1, 1.0), second * RATE)
        await writer_idle()
    free = threading.Event()
    module._writer.submit(free.wait)
    for second in range(8, 8 + 2 * BEHIND):
        recording.caller(tone(1, 1.0), second * RATE)
        recording.agent(tone(1, 1.0), second * RATE)
    assert len(recording._ops) == 0
    await asyncio.sleep(0)
    assert [str(error) for error in told] == [f"the disk of {path} is too slow for the call"]
    free.set()
    await recording.close()
    assert len(told) == 1
    assert len(sound(path)) >= 8 * RATE


async def test_a_disk_both_slow_and_full_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    told: list[Exception] = []
    recording = Recording(str(path), on_error=told.append)
    for second in range(8):
        recording.caller(tone(second, 1.0), second * RATE)
        recording.agent(tone(second, 1.0), second * RATE)
        await writer_idle()
    free = threading.Event()
    module._writer.submit(free.wait)
    for second in range(8, 10 + BEHIND):
        recording.caller(tone(1, 1.0), second * RATE)
        recording.agent(tone(1, 1.0), second * RATE)
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, most))
    try:
        free.set()
        await recording.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    await asyncio.sleep(0)
    assert [str(error) for error in told] == [f"the disk of {path} is too slow for the call"]
    np.testing.assert_array_equal(sound(path)[::RATE, 1], range(8 - HOLD))


FULL_DISK = """
import asyncio, resource, sys
import numpy as np
from voice_bridge.bridge.observe import recording as module

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    told = []
    recording = module.Recording(sys.argv[1], on_error=told.append)
    for n in range(60):
        second = np.full(8000, n, np.int16)
        recording.caller(second, n * 8000)
        recording.agent(second, n * 8000)
        await asyncio.get_running_loop().run_in_executor(module._writer, int)
    await recording.close()
    await asyncio.sleep(0)
    print(len(told), told[0].strerror, len(recording._ops))

asyncio.run(main())
"""


def test_a_full_disk_is_told_once_leaves_a_playable_file_and_keeps_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    command = [sys.executable, "-W", "always", "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("1 File too large 0\n", "")
    heard = sound(path)
    assert len(heard) == 6 * RATE  # six seconds of 32,000 bytes fit
    np.testing.assert_array_equal(heard, np.repeat(np.arange(6), RATE)[:, None].repeat(2, axis=1))
