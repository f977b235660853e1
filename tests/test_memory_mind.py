"""Whole calls with the mind's real process: what is said is heard, kept, and known in the next call."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

for extra in ("libsql", "moonshine_voice", "webrtcvad", "wordllama"):
    pytest.importorskip(extra)

from voice_bridge.bridge.memory.client import START, Mind  # noqa: E402
from voice_bridge.bridge.memory.wire import Endpoint, Forgotten, Remind  # noqa: E402
from voice_bridge.codecs.resample import Down  # noqa: E402

from . import speech  # noqa: E402
from .minds import ANNA, TOM, Caller, init, until  # noqa: E402

Minds: TypeAlias = Callable[..., Awaitable[Mind]]

pytestmark = pytest.mark.skipif(bool(speech.missing()), reason=f"no voice without {', '.join(speech.missing())}")


@pytest.fixture
async def mind(tmp_path: Path) -> AsyncIterator[Minds]:
    """`await mind(**changes)`: a mind that is up, over a store of this test's own."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Mind:
            made = Mind(init(tmp_path, **changes))
            made.start()
            stack.push_async_callback(made.stop)
            await made.settled()
            return made

        yield start


async def test_what_a_caller_says_is_known_in_the_next_call_and_nobody_else_s(mind: Minds) -> None:
    here = await mind()
    first = Caller(here, "CA1")
    assert not (await first.known()).context
    first.say("My name is Anna.")
    first.say("I am allergic to penicillin.")
    await until(lambda: here.written >= 2)
    first.attention.close()
    again = await Caller(here, "CA2").known()
    assert again.name == "Anna"
    assert "allergic" in again.context
    assert len(again.memories) == 2
    other = await Caller(here, "CA3", TOM).known()
    assert (other.name, other.context, other.memories) == ("", "", ())


async def test_a_question_brings_what_answers_it_once(mind: Minds) -> None:
    here = await mind(standing=0)
    first = Caller(here, "CA1")
    first.say("My gate code is seven three nine two.")
    await until(lambda: here.written >= 1)
    first.attention.close()
    second = Caller(here, "CA2")
    second.say("What is my gate code?")
    await second.until(lambda told: any(isinstance(one, Remind) for one in told))
    [(fact,)] = second.reminders
    assert "code" in fact
    second.attention.asked(1, next(one for one in second.told if isinstance(one, Remind)))
    second.attention.answered(1, taken=True)
    second.say("Tell me my gate code please.")
    second.say("My dog is called Rex.")  # what comes behind it is done when it is
    await until(lambda: here.written >= 2)
    assert len(second.reminders) == 1
    assert here.counts == {"taken": 1}


async def test_somebody_who_withholds_the_number_is_nobody(mind: Minds, tmp_path: Path) -> None:
    here = await mind()
    nobody, anna = Caller(here, "CA1", ""), Caller(here, "CA2", ANNA)
    assert not (await nobody.known()).context
    nobody.say("My name is Peter.")
    anna.say("My name is Anna.")
    await until(lambda: here.written >= 1)
    assert not (await Caller(here, "CA3", "").known()).name
    assert here.written == 1
    assert not [file.name for file in everything(tmp_path) if b"Peter" in file.read_bytes()]


async def test_a_caller_who_wants_to_be_forgotten_is_and_says_what_he_likes(mind: Minds, tmp_path: Path) -> None:
    here = await mind()
    caller = Caller(here, "CA1")
    caller.say("My name is Anna.")
    await until(lambda: here.written >= 1)
    caller.attention.forget()
    await caller.until(lambda told: any(isinstance(one, Forgotten) for one in told))
    caller.say("My name is Beth.")
    other = Caller(here, "CA2", TOM)
    other.say("My name is Tom.")
    await until(lambda: here.written >= 2)
    caller.attention.close()
    assert not (await Caller(here, "CA3").known()).name
    assert not [file.name for file in everything(tmp_path) if re.search(b"Anna|Beth", file.read_bytes())]


async def test_who_wants_to_be_forgotten_while_the_mind_is_away_is_when_it_is_back(mind: Minds) -> None:
    here = await mind()
    caller, same = Caller(here, "CA1"), Caller(here, "CA2")
    caller.say("My name is Anna.")
    await until(lambda: here.written >= 1)
    os.kill(here._child.pid, signal.SIGKILL)
    await until(lambda: not here.ready)
    caller.attention.forget()
    caller.attention.forget()
    await caller.until(lambda told: any(isinstance(one, Forgotten) for one in told))
    same.say("My name is Beth.")  # in the other call of the same caller
    other = Caller(here, "CA3", TOM)
    other.say("My name is Tom.")
    await until(lambda: here.written >= 1)
    assert not (await Caller(here, "CA4").known()).name
    assert len([told for told in caller.told if isinstance(told, Forgotten)]) == 1


async def test_what_is_said_last_is_kept_when_the_bridge_stops_at_once(mind: Minds, tmp_path: Path) -> None:
    here = await mind()
    caller = Caller(here, "CA1")
    sound = speech.join(speech.say("My name is Anna."), speech.silence(0.2))
    caller.hear(speech_line(sound))
    await asyncio.sleep(0)
    await here.stop()
    after = await mind()
    assert (await Caller(after, "CA2").known()).name == "Anna"


async def test_a_mind_that_dies_comes_back_and_goes_on_with_the_calls(mind: Minds) -> None:
    here = await mind()
    caller = Caller(here, "CA1")
    caller.say("My name is Anna.")
    await until(lambda: here.written >= 1)
    os.kill(here._child.pid, signal.SIGKILL)
    await until(lambda: not here.ready)
    loop = asyncio.get_running_loop()
    began = loop.time()
    lost = Caller(here, "CA2", TOM)
    await lost.attention.known()
    assert loop.time() - began < START + 0.1  # nobody waits for it
    await until(lambda: here.ready)
    caller.say("I am allergic to penicillin.")
    await until(lambda: here.written >= 1)  # counted anew
    assert here.restarts == 1
    again = await Caller(here, "CA3").known()
    assert again.name == "Anna"
    assert len(again.memories) == 2


@pytest.mark.parametrize("store", ["nowhere/deep/memory.db", "http://127.0.0.1:9"])
async def test_a_store_that_cannot_be_had_costs_memory_and_not_the_call(
    mind: Minds, tmp_path: Path, store: str
) -> None:
    (tmp_path / "nowhere").touch()  # a file where the folder should be
    here = await mind(store=store if "://" in store else str(tmp_path / store))
    caller = Caller(here, "CA1")
    assert not (await caller.known()).context
    caller.say("My name is Anna.")
    await until(lambda: here.errors >= 1)
    assert here.trouble
    assert not here.ready
    assert "Anna" not in here.trouble


async def test_a_mind_that_cannot_start_says_why_and_calls_go_on(mind: Minds) -> None:
    here = await mind(embedder="sentence-transformers:nowhere/to-be-found")
    assert "sentence" in here.trouble
    caller = Caller(here, "CA1")
    assert not (await caller.attention.known()).context
    caller.say("My name is Anna.")
    caller.attention.close()


async def test_a_language_model_that_is_away_is_counted_and_the_rules_remind(mind: Minds) -> None:
    nobody = Endpoint("http://127.0.0.1:9/v1", "nobody")
    here = await mind(standing=0, thinker="llm", endpoints=(nobody,))
    first = Caller(here, "CA1")
    first.say("My locker code is seven three nine two.")
    await until(lambda: here.written >= 1)
    first.attention.close()
    second = Caller(here, "CA2")
    second.say("What is my locker code?")
    await second.until(lambda told: any(isinstance(one, Remind) for one in told))
    await until(lambda: here.judged.get("unreachable", 0) >= 1)


async def test_silence_and_noise_are_not_remembered(mind: Minds) -> None:
    here = await mind()
    noisy, anna = Caller(here, "CA1", TOM), Caller(here, "CA2", ANNA)
    noisy.hear(speech_line(speech.noise(3.0, 0.02)))
    noisy.hear(np.zeros(24000, np.int16))
    anna.say("My name is Anna.")
    await until(lambda: here.written >= 1)
    assert here.written == 1


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def speech_line(sound: speech.Sound) -> NDArray[np.int16]:
    return Down().push(sound)
