"""Memory in whole calls: telephone, daemon, engine process and mind, all of them real."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

for extra in ("libsql", "moonshine_voice", "webrtcvad", "wordllama"):
    pytest.importorskip(extra)

from voice_bridge.bridge.memory.client import Mind  # noqa: E402
from voice_bridge.codecs.resample import Down  # noqa: E402
from voice_bridge.engines.host import HostEngine  # noqa: E402

from . import speech  # noqa: E402
from .conftest import Bridge, Dial  # noqa: E402
from .minds import init, until  # noqa: E402

pytestmark = pytest.mark.skipif(bool(speech.missing()), reason=f"no voice without {', '.join(speech.missing())}")

DIARY = f"{Path(__file__).parent / 'cores.py'}:diary"


def says(*sentences: str) -> Any:
    """What a telephone hears: sentences with pauses."""
    parts = [part for text in sentences for part in (speech.silence(0.3), speech.say(text), speech.silence(1.0))]
    return Down().push(speech.join(*parts))


class Diary:
    """An engine that writes down what it is given."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "diary"
        self._file.touch()
        self.engine = HostEngine("diary", DIARY, 4, file=str(self._file))

    @property
    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()

    def has(self, beginning: str) -> bool:
        return any(line.startswith(beginning) for line in self.lines)


async def test_a_caller_is_greeted_by_name_and_the_model_knows_what_was_said_in_the_call_before(
    bridge: Bridge, dial: Dial, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    mind, diary = Mind(init(tmp_path)), Diary(tmp_path)
    greetings = {"calls__greeting": "Hello.", "calls__greeting_known": "Hello {name}."}
    daemon = await bridge(engine=diary.engine, mind=mind, **greetings)
    await mind.settled()
    first = await dial(daemon, sound=says("My name is Anna."))
    await until(lambda: mind.written == 1)
    first.hang_up()
    await dial(daemon)
    assert diary.lines[:2] == ["greeting: Hello.", "known: "]
    assert diary.lines[2:] == [
        "greeting: Hello Anna.",
        'known: in earlier calls the caller told me: "My name is Anna."',
    ]
    async with http.get(f"{daemon.url}/v1/calls") as answer:
        seen = await answer.json()
    assert seen["memory"] == {"ready": True, "trouble": "", "written": 1, "reminders": {}}
    assert seen["calls"][-1]["memories"] == 1


async def test_what_is_known_too_late_for_the_beginning_comes_as_a_reminder(
    bridge: Bridge, dial: Dial, tmp_path: Path
) -> None:
    mind, diary = Mind(init(tmp_path)), Diary(tmp_path)
    daemon = await bridge(engine=diary.engine, mind=mind)
    await mind.settled()
    first = await dial(daemon, sound=says("My name is Anna."))
    await until(lambda: mind.written == 1)
    first.hang_up()
    os.kill(mind._child.pid, signal.SIGSTOP)
    await dial(daemon)
    os.kill(mind._child.pid, signal.SIGCONT)
    await until(lambda: diary.has("remembered: in earlier calls the caller told me: "))
    assert diary.lines[3] == "known: "
    await until(lambda: mind.counts["taken"] == 1)


@pytest.mark.parametrize(
    ("injection", "line"),
    [
        ("silent", "remembered: the caller told me before: "),
        ("add_to_input", "add_to_input: the caller told me before: "),
        ("spoken", "say: You told me: your"),
    ],
)
async def test_what_bears_on_a_question_reaches_the_model_while_the_caller_talks(
    bridge: Bridge, dial: Dial, tmp_path: Path, injection: str, line: str
) -> None:
    mind, diary = Mind(init(tmp_path, standing=0, injection=injection)), Diary(tmp_path)
    daemon = await bridge(engine=diary.engine, mind=mind)
    await mind.settled()
    first = await dial(daemon, sound=says("My locker code is seven three nine two."))
    await until(lambda: mind.written == 1)
    first.hang_up()
    await dial(daemon, sound=says("What is my locker code?"))
    await until(lambda: diary.has(line))
    await until(lambda: mind.counts["taken"] == 1)
    assert b'reminders_total{result="taken"} 1.0' in daemon.board.metrics.render()[0]


async def test_operators_see_what_a_caller_says_to_an_engine_that_tells_no_words(
    bridge: Bridge, dial: Dial, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    mind = Mind(init(tmp_path))
    daemon = await bridge(engine=Diary(tmp_path).engine, mind=mind)
    await mind.settled()
    await dial(daemon, sound=says("My name is Anna."))
    await until(lambda: mind.written == 1)
    [call] = daemon.board.calls
    async with http.get(f"{daemon.url}/v1/calls/{call}") as answer:
        words = (await answer.json())["words"]
    assert [(said["speaker"], said["text"], said["final"]) for said in words] == [("caller", "My name is Anna.", True)]


async def test_a_key_makes_the_bridge_forget_and_say_so(bridge: Bridge, dial: Dial, tmp_path: Path) -> None:
    mind, diary = Mind(init(tmp_path)), Diary(tmp_path)
    daemon = await bridge(engine=diary.engine, mind=mind, calls__digits={"*": "forget"})
    await mind.settled()
    caller = await dial(daemon, sound=says("My name is Anna."))
    await until(lambda: mind.written == 1)
    caller.press("*")
    await until(lambda: diary.has("say: I have forgotten everything that you told me."))
    caller.hang_up()
    await dial(daemon)
    assert diary.lines[-1] == "known: "


async def test_a_number_may_be_one_that_remembers_nobody(bridge: Bridge, dial: Dial, tmp_path: Path) -> None:
    mind, diary = Mind(init(tmp_path)), Diary(tmp_path)
    numbers = [{"number": "+15550100000", "remember": False}]
    daemon = await bridge(engine=diary.engine, mind=mind, numbers=numbers)
    await mind.settled()
    await dial(daemon, sound=says("My name is Anna."))
    other = await dial(daemon, number="+15550100009", caller="+15550100002", sound=says("My name is Tom."))
    await until(lambda: mind.written == 1)
    other.hang_up()
    assert not [file.name for file in tmp_path.iterdir() if b"Anna" in file.read_bytes()]  # noqa: ASYNC240
