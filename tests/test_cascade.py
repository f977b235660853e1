"""The cascade's core: real voice activity, turns, wits and threads. What decodes and what sounds are scripted."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import pytest

pytest.importorskip("webrtcvad")

from tests import speech
from tests.speech import Sound, silence, vowels
from voice_bridge.engines.base import (
    FRAME,
    RATE,
    Cut,
    Event,
    Flush,
    HangUp,
    Injected,
    Opening,
    Remember,
    Said,
    Turn,
    Words,
)
from voice_bridge.engines.base import Sound as Reply
from voice_bridge.engines.cascade.core import CascadeCore
from voice_bridge.engines.ears.moonshine import Moonshine
from voice_bridge.engines.mouths.base import PCM
from voice_bridge.engines.wits.notebook import Notebook

E = TypeVar("E")

TIMEOUT = 10
A_WORD = 0.4  # seconds of tone that the mouth of these tests makes of every word
SLOT = 0


class Beeps:
    """A mouth that makes a tone of every word, at once, and notes what it was given."""

    name = "beeps"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.open = threading.Event()
        self.open.set()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def forget(self) -> None: ...

    async def say(self, text: str, due: float) -> AsyncGenerator[PCM, None]:
        await asyncio.to_thread(self.open.wait, TIMEOUT)
        self.said.append(text)
        for _ in text.split():
            yield np.full(round(A_WORD * RATE), 0.5, np.float32)


class Call:
    """A caller at slot 0 of a core, who goes no faster than its threads."""

    def __init__(self) -> None:
        self.texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.mouth = Beeps()
        ear = partial(Moonshine, load=lambda: self._decode)
        self.core = CascadeCore(2, Notebook(), self.mouth, ear)
        self.at = 0
        self.events: list[Event] = []
        self.levels: list[float] = []

    def _decode(self, pcm: PCM) -> str:
        return self.texts.get(timeout=TIMEOUT)

    def open(self, **opening: str | bool) -> None:
        self.at = 0
        self.core.open(SLOT, Opening(**opening))  # type: ignore[arg-type]

    def hear(self, sound: Sound, until: Callable[[list[Event]], bool] = lambda events: False) -> list[Event]:
        """Give it sound, and have it answer; ends early `until` something has happened. Gives what has happened."""
        news: list[Event] = []
        for frame in speech.frames(sound):
            self._settle()
            for slot, event in self.core.collect(self.core.launch([SLOT], frame[None], [self.at])):
                assert slot == SLOT
                if isinstance(event, Reply):
                    self.levels.append(float(np.abs(event.pcm[-100:]).max()))
                else:
                    news.append(event)
            self.at += FRAME
            if until(news):
                break
        self.events += news
        return news

    def say(self, text: str, seconds: float = 0.8, wait: float = 1.6, *, remembered: str = "") -> list[Event]:
        """The caller says this; memory answers his turn."""
        self.texts.put(text)
        news = self.hear(vowels(seconds))
        news += self.hear(silence(wait), lambda events: any(final(each, "caller") for each in events))
        turn = next(event.id for event in news if final(event, "caller"))
        self.core.inject(SLOT, 77, remembered, "silent", turn)
        return news

    def listen(self, seconds: float = 30) -> list[Event]:
        """Until the agent has said all."""
        return self.hear(silence(seconds), lambda events: any(final(each, "agent") for each in events))

    def _settle(self) -> None:
        """Wait until ear and brain have done what they can do now."""
        while self.core._ear.decoding(SLOT):
            threading.Event().wait(0.001)
        loop = self.core._brain._loop
        for _ in range(20):  # a sentence passes through that many hands at most
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(TIMEOUT)


def final(event: Event, speaker: str) -> bool:
    return isinstance(event, Words) and event.final and event.speaker == speaker


def of(kind: type[E], events: list[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def said_by(speaker: str, events: list[Event]) -> list[str]:
    return [event.text for event in of(Words, events) if event.final and event.speaker == speaker]


@pytest.fixture
def call() -> Iterator[Call]:
    call = Call()
    yield call
    call.core.stop()


@pytest.fixture
def met(call: Call) -> Call:
    """A call whose greeting is over."""
    call.open(greeting="Hello.")
    call.listen()
    call.events.clear()
    return call


def test_the_operators_greeting_is_said_first(call: Call) -> None:
    call.open(greeting="Good day. This is the night desk.")
    news = call.listen()
    assert said_by("agent", news) == ["Good day. This is the night desk."]
    assert of(Said, news)[0].id == 0
    assert of(Turn, news)[0].speaker == "agent"
    assert max(call.levels) == 0.5


def test_without_one_the_wits_greet(call: Call) -> None:
    call.open()
    assert "notebook" in said_by("agent", call.listen())[0]


def test_a_turn_is_reported_while_it_goes_on_and_once_when_it_is_over_and_then_answered(met: Call) -> None:
    news = met.say("What are you?") + met.listen()
    caller = [event for event in of(Words, news) if event.speaker == "caller"]
    assert [event.final for event in caller] == [False, True]
    assert {event.id for event in caller} == {caller[0].id}
    assert {event.text for event in caller} == {"What are you?"}
    assert abs(caller[-1].end - caller[-1].start - 0.8 * RATE) < 0.2 * RATE
    assert [turn.speaker for turn in of(Turn, news)] == ["caller", "agent"]
    assert "small program" in said_by("agent", news)[0]
    assert met.mouth.said[-1] in said_by("agent", news)[0]


def test_what_is_to_be_remembered_is_told_when_the_answer_is_heard_and_known_in_the_same_call(met: Call) -> None:
    news = met.say("Remember that my gate code is 4417.") + met.listen()
    assert of(Remember, news) == [Remember("My gate code is 4417.")]
    news = met.say("What is my gate code?") + met.listen()
    assert "4 4 1 7" in said_by("agent", news)[0]


def test_what_memory_gives_for_a_turn_is_in_its_answer(met: Call) -> None:
    news = met.say("What is my gate code?", remembered='the caller told me before: "My gate code is 4417."')
    assert "4 4 1 7" in said_by("agent", news + met.listen())[0]
    assert of(Injected, met.events) == [Injected(77)]


def test_what_is_known_at_the_beginning_is_known(call: Call) -> None:
    call.open(greeting="Hello.", known='in earlier calls the caller told me: "My gate code is 4417."')
    assert of(Injected, call.listen()) == [Injected(0)]
    call.say("What is my gate code?")
    assert "4 4 1 7" in said_by("agent", call.listen())[0]
    call.core.forget(SLOT)
    call.say("What is my gate code?")
    assert "4 4 1 7" not in said_by("agent", call.listen())[0]


def test_an_answer_does_not_wait_for_a_memory_that_says_nothing(met: Call) -> None:
    met.texts.put("What are you?")
    news = met.hear(vowels(0.8)) + met.listen()
    assert "small program" in said_by("agent", news)[0]


def test_a_caller_who_speaks_up_is_listened_to_and_only_what_he_heard_counts_as_said(met: Call) -> None:
    met.say("What are you?")
    met.hear(silence(2))
    met.texts.put("Stop, what time is it?")
    news = met.hear(vowels(0.8)) + met.hear(silence(3), lambda events: any(final(each, "caller") for each in events))
    assert of(Flush, news)
    broken_off = said_by("agent", news)[0]
    assert "I am a small program with fixed rules.".startswith(broken_off[:10])
    assert len(broken_off.split()) < 8
    assert met.levels[-1] == 0
    met.core.inject(SLOT, 78, "", "silent", of(Turn, news)[-1].id)
    assert "It is" in said_by("agent", met.listen())[0]


def test_an_answer_that_nobody_has_heard_yet_makes_way_for_the_rest_of_the_sentence(met: Call) -> None:
    met.mouth.open.clear()
    met.say("Remember that my gate code is 4.")
    met.texts.put("Remember that my gate code is 4 417")
    news = met.hear(vowels(0.5)) + met.hear(silence(3), lambda events: any(final(each, "caller") for each in events))
    met.mouth.open.set()
    met.core.inject(SLOT, 79, "", "silent", next(each.id for each in of(Words, news) if each.final))
    news += met.listen()
    assert of(Flush, news) == []
    assert len(said_by("agent", news)) == 1
    assert "4 4 1 7" in said_by("agent", news)[0]


def test_an_answer_that_nobody_has_heard_has_changed_nothing(met: Call) -> None:
    for thing in ("gate code is 4417", "locker number is 88"):
        met.say(f"Remember that my {thing}.")
        met.listen()
    met.mouth.open.clear()
    met.say("Forget that.")
    met.texts.put("Please.")
    news = met.hear(vowels(0.5)) + met.hear(silence(3), lambda events: any(final(each, "caller") for each in events))
    met.mouth.open.set()
    met.core.inject(SLOT, 79, "", "silent", next(each.id for each in of(Words, news) if each.final))
    met.listen()
    met.say("What is my gate code?")
    assert "4 4 1 7" in said_by("agent", met.listen())[0]


@pytest.mark.parametrize("text", ["Mm-hmm.", "Uh-huh", "You", "", "Hmm."])
def test_a_hum_does_not_take_the_floor(met: Call, text: str) -> None:
    met.say("What are you?")
    met.hear(silence(2))
    met.texts.put(text)
    news = met.hear(vowels(0.24)) + met.listen()
    assert said_by("caller", news) == []
    assert said_by("agent", news)[0].startswith("I am a small program with fixed rules.")
    assert met.levels[-3] == 0.5


def test_an_agent_silenced_by_a_noise_without_words_says_its_sentence_again(met: Call) -> None:
    met.say("What are you?")
    met.hear(silence(2))
    met.texts.put("")
    news = met.hear(vowels(0.8))
    assert met.levels[-1] == 0
    news += met.listen()
    assert said_by("caller", news) == []
    assert said_by("agent", news)[0].startswith("I am a small program with fixed rules.")


def test_the_operator_can_have_something_said_and_take_it_back(met: Call) -> None:
    met.core.say(SLOT, 5, "The office closes at noon.", True)
    met.core.say(SLOT, 6, "This is not needed.", True)
    met.hear(silence(0.4))
    met.core.cancel(SLOT, 6)
    met.core.cancel(SLOT, 99)
    news = met.hear(silence(6))
    assert said_by("agent", news) == ["The office closes at noon."]
    assert [event.id for event in of(Said, news)] == [5]
    assert of(Cut, news) == [Cut(6)]
    assert all(words.forced for words in of(Words, news))


def test_what_must_be_heard_is_not_interrupted(met: Call) -> None:
    met.core.say(SLOT, 5, "The building is on fire, leave it now.", False)
    met.hear(silence(0.8))
    met.texts.put("What time is it?")
    news = met.hear(vowels(0.8)) + met.hear(silence(6))
    assert said_by("agent", news)[0] == "The building is on fire, leave it now."
    assert of(Flush, news) == []


def test_nothing_to_say_is_refused(met: Call) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        met.core.say(SLOT, 5, "  ", True)


def test_a_goodbye_is_said_to_its_end_before_the_call_is_over(met: Call) -> None:
    news = met.say("Thank you, goodbye.") + met.hear(silence(6))
    assert of(HangUp, news) == [HangUp("goodbye")]
    assert news.index(of(HangUp, news)[0]) > news.index(next(each for each in news if final(each, "agent")))


def test_the_next_call_at_a_slot_hears_nothing_of_the_one_before(met: Call) -> None:
    met.say("Remember that my gate code is 4417.")
    met.core.close(SLOT)
    met.open(greeting="Good evening.")
    news = met.listen()
    assert said_by("agent", news) == ["Good evening."]
    assert of(Remember, news) == []
    met.say("What is my gate code?")
    assert "4" not in said_by("agent", met.listen())[0]
