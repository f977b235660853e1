"""Who has the floor on the cascade: how the agent yields to a caller, and does not yield to a cough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("webrtcvad")

from tests.speech import LOUDNESS, noise, silence, vowels
from voice_bridge.engines.base import FRAME, RATE, Flush, Frame
from voice_bridge.engines.cascade.floor import CALM, DUCKED, SPEECH, Floor
from voice_bridge.engines.cascade.speech import Speech
from voice_bridge.engines.ears.voice import Voice

LEVEL = 0.5  # of the agent's sound in these tests
SENTENCES = ("This is the first sentence.", "This is the second one.")


def frames(*sounds: Frame) -> Iterator[Frame]:
    sound = np.concatenate([*sounds, np.zeros(FRAME, np.float32)])
    yield from sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)


class Call:
    """A floor with a caller at it."""

    def __init__(self, *, interruptible: bool = True) -> None:
        self.floor = Floor()
        self.voice = Voice()
        self.at = 0
        self.flushed: list[int] = []
        self.levels: list[float] = []
        self.speech = Speech(words=1, interruptible=interruptible)
        for text in SENTENCES:
            self.speech.add(np.full(2 * RATE, LEVEL, np.float32), text)
        self.speech.end()
        self.floor.queue.append(self.speech)

    def hear(self, *sounds: Frame) -> None:
        for frame in frames(*sounds):
            self.voice.hear(frame, self.at)
            now = self.at + FRAME
            self.flushed += [self.at for event in self.floor.mind(self.voice, now) if event == Flush()]
            said = self.floor.frame(self.at)
            self.levels.append(float(np.abs(said[FRAME // 2 :]).max()))
            self.at = now


def test_an_agent_whom_nobody_interrupts_says_all_of_it_at_its_level() -> None:
    call = Call()
    call.hear(silence(4))
    assert call.speech.over
    assert call.levels[:50] == [LEVEL] * 50
    assert call.flushed == []


def test_at_the_first_sign_of_a_voice_the_agent_ducks_and_what_was_sent_ahead_is_void() -> None:
    call = Call()
    call.hear(silence(0.8), vowels(0.16))
    assert len(call.flushed) == 1
    assert call.flushed[0] <= round(0.96 * RATE)  # two frames after it began
    assert call.levels[-1] == pytest.approx(LEVEL * DUCKED)


def test_for_real_speech_the_agent_falls_silent() -> None:
    call = Call()
    call.hear(silence(0.8), vowels(0.8))
    assert call.floor.silenced
    assert call.levels[-1] == 0
    assert len(call.flushed) == 2
    assert call.flushed[1] / RATE - 0.8 == pytest.approx(SPEECH / RATE, abs=0.16)


def test_noise_disturbs_nobody() -> None:
    call = Call()
    call.hear(silence(0.8), noise(1, LOUDNESS), silence(0.8))
    assert call.flushed == []
    assert set(call.levels) == {LEVEL}


def test_after_a_short_sound_the_agent_goes_on_at_its_level_and_leaves_nothing_out() -> None:
    call = Call()
    call.hear(silence(0.8), vowels(0.16), silence(CALM / RATE + 0.4))
    assert not call.floor.silenced
    assert call.levels[-1] == LEVEL
    call.hear(silence(4))
    assert call.speech.over
    assert call.at >= call.speech.made


def test_what_was_void_is_said_again() -> None:
    call = Call()
    call.hear(silence(0.8))
    before = call.speech.at
    call.hear(vowels(0.08), vowels(0.08))
    assert call.flushed
    assert call.speech.at < before + 3 * FRAME


def test_an_agent_that_was_silenced_by_no_words_says_its_sentence_again() -> None:
    call = Call()
    call.hear(silence(2.8), vowels(0.8), silence(0.8))
    assert call.floor.silenced
    call.floor.resume()
    assert call.speech.at == 2 * RATE  # where the second sentence begins
    call.hear(silence(0.16))
    assert call.levels[-1] == LEVEL


def test_what_must_not_be_interrupted_is_not() -> None:
    call = Call(interruptible=False)
    call.hear(silence(0.8), vowels(1.5))
    assert call.flushed == []
    assert set(call.levels) == {LEVEL}


def test_a_speech_that_is_given_up_tells_what_was_heard_of_it() -> None:
    call = Call()
    call.hear(silence(2.8))
    call.floor.played(call.at - FRAME, call.at)  # the line is quick
    heard = call.floor.give_up(call.speech, call.at)
    assert heard == pytest.approx(2.7 * RATE, abs=2 * FRAME)
    assert call.speech.heard(heard).startswith(f"{SENTENCES[0]} This")
    assert not call.speech.heard(heard).endswith("one.")
    assert call.floor.speech is None


def test_a_line_that_plays_late_has_been_heard_less_of() -> None:
    def heard(late: float) -> int:
        call = Call()
        call.hear(silence(2))
        call.floor.played(call.at - round(late * RATE), call.at)
        return call.floor.give_up(call.speech, call.at)

    assert heard(0.1) - heard(0.6) == pytest.approx(0.5 * RATE, abs=FRAME)


def test_levels_change_without_a_click() -> None:
    call = Call()
    call.hear(silence(0.8))
    call.floor._level = DUCKED
    said = call.floor.frame(call.at)
    assert np.abs(np.diff(said)).max() < LEVEL / 50
