"""What the ear of every machine hears: voices and nothing else, whole utterances, right words at the right time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("webrtcvad")
moonshine_api = pytest.importorskip("moonshine_voice.moonshine_api")

from tests import speech  # noqa: E402
from tests.speech import Sound, join, noise, say, silence, telephone  # noqa: E402
from voice_bridge.codecs.framing import FRAME, RATE  # noqa: E402
from voice_bridge.engines.ears.base import Began, EarEvent, Heard, Word  # noqa: E402
from voice_bridge.engines.ears.moonshine import PAD, PEAK, WAITING, Decode, Library, Moonshine, spread  # noqa: E402
from voice_bridge.engines.ears.voice import EARLY, END, LONGEST, Ended, Paused, Voice, VoiceEvent  # noqa: E402

pytestmark = pytest.mark.skipif(bool(speech.missing()), reason=f"not installed: {', '.join(speech.missing())}")

NEAR = round(0.15 * RATE)
BEFORE = round(0.5 * RATE)
TIMEOUT = 30

SISTER = "My sister has her birthday on the fourteenth of March."
GATE = "Please remember that I do not drink coffee any more."
TRAIN = "Can you tell me when the next train to London leaves?"
DOG = "Our dog is called Rusty and he is nine years old."


def tone(seconds: float, *frequencies: float) -> Sound:
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.1 * np.sin(2 * np.pi * frequency * time) for frequency in frequencies).astype(np.float32)


def alone(sound: Sound) -> Sound:
    return join(silence(0.5), sound, silence(1))


def marks(sound: Sound, at: int = 0) -> list[VoiceEvent]:
    voice = Voice()
    return [event for i, frame in enumerate(speech.frames(sound)) for event in voice.hear(frame, at + i * FRAME)]


# Voice activity

OTHER_SOUNDS = {
    "silence": silence(3),
    "line noise": noise(3, 0.016),
    "loud noise": noise(3, 0.1),
    "rounding": noise(3, 0.0003),
    "bursts of noise": join(*(join(silence(0.7), noise(length, 0.05)) for length in (0.05, 0.1, 0.2, 0.5, 1.0))),
    "clicks": join(*(join(silence(0.3), noise(0.005, 0.5)) for _ in range(8))),
    "hum": tone(3, 50, 100, 150),
    "dial tone": tone(3, 350, 440),
    "ringing": join(tone(1, 440, 480), silence(2), tone(1, 440, 480)),
    "a key": join(silence(0.5), tone(0.2, 770, 1336), silence(0.5), tone(0.2, 852, 1477)),
    "music": join(*(tone(0.3, note, note * 1.25, note * 1.5) for note in (262, 330, 392, 523, 440))),
}


@pytest.mark.parametrize("sound", OTHER_SOUNDS.values(), ids=OTHER_SOUNDS)
def test_what_is_no_voice_is_nothing(sound: Sound) -> None:
    assert marks(telephone(alone(sound))) == []


@pytest.mark.parametrize(("snr", "near"), [(None, NEAR), (20, 2 * NEAR), (10, 2 * NEAR)])  # noise hides a last "s"
@pytest.mark.parametrize("voice", speech.VOICES)
@pytest.mark.parametrize("text", [SISTER, GATE, TRAIN, DOG])
def test_an_utterance_begins_and_ends_where_it_does(text: str, voice: str, snr: float | None, near: int) -> None:
    said = say(text, voice)
    began, _, ended = squeezed(marks(telephone(alone(said), snr)))
    assert isinstance(began, Began)
    assert isinstance(ended, Ended)
    assert ended.whole
    assert began.at == ended.start
    assert abs(began.at - BEFORE) <= NEAR
    assert abs(ended.end - BEFORE - len(said)) <= near


def squeezed(events: list[VoiceEvent]) -> list[VoiceEvent]:
    """Without pauses that went by."""
    return [one for one, after in pairwise([*events, None]) if not (isinstance(one, Paused) and type(after) is Paused)]


@pytest.mark.parametrize("word", ["Yes.", "No.", "Hello?", "Four."])
@pytest.mark.parametrize("voice", speech.VOICES)
def test_one_short_word_is_an_utterance(word: str, voice: str) -> None:
    assert [type(event) for event in marks(telephone(alone(say(word, voice))))] == [Began, Paused, Ended]


def test_a_short_pause_does_not_end_an_utterance() -> None:
    events = marks(telephone(alone(join(say(SISTER), silence(0.3), say(GATE)))))
    assert [type(event) for event in events] == [Began, Paused, Paused, Ended]


def test_a_second_of_silence_ends_an_utterance() -> None:
    events = marks(telephone(alone(join(say(SISTER), silence(1), say(GATE)))))
    assert [type(event) for event in events] == [Began, Paused, Ended] * 2


def test_noise_that_sets_in_after_the_last_word_does_not_hold_the_end_back() -> None:
    said = say(SISTER)
    events = marks(telephone(join(silence(0.5), said, noise(3, 0.02))))
    assert isinstance(events[-1], Ended)
    assert events[-1].end <= BEFORE + len(said) + 3 * NEAR


def test_pauses_are_noticed_as_soon_as_they_are_long_enough() -> None:
    voice = Voice()
    lags = {}
    for i, frame in enumerate(speech.frames(telephone(alone(say(SISTER))))):
        for event in voice.hear(frame, i * FRAME):
            if not isinstance(event, Began):
                lags[type(event)] = (i + 1) * FRAME - event.end
    assert EARLY <= lags[Paused] < EARLY + FRAME
    assert END <= lags[Ended] < END + FRAME


def test_missing_sound_is_silence_on_the_callers_clock() -> None:
    hours = 3600 * RATE
    voice = Voice()
    events: list[VoiceEvent] = []
    for start in (0, hours):
        for i, frame in enumerate(speech.frames(join(silence(0.5), say(SISTER)))):
            events += voice.hear(frame, start + i * FRAME)
    assert [type(event) for event in squeezed(events)] == [Began, Paused, Ended, Began]
    assert isinstance(events[-1], Began)
    assert abs(events[-1].at - hours - BEFORE) <= NEAR


def test_a_lost_frame_in_mid_sentence_neither_splits_it_nor_moves_its_end() -> None:
    said = say(SISTER)
    voice = Voice()
    events: list[VoiceEvent] = []
    for i, frame in enumerate(speech.frames(alone(said))):
        if i != 20:
            events += voice.hear(frame, i * FRAME)
    assert [type(event) for event in squeezed(events)] == [Began, Paused, Ended]
    assert abs(voice.end - BEFORE - len(said)) <= NEAR


def test_frames_that_come_twice_are_heard_once() -> None:
    voice = Voice()
    events: list[VoiceEvent] = []
    for i, frame in enumerate(speech.frames(alone(say(SISTER)))):
        events += voice.hear(frame, i * FRAME)
        assert voice.hear(frame, i * FRAME) == []
    assert events == marks(alone(say(SISTER)))


def test_talk_without_end_is_cut_in_a_pause_and_goes_on_there() -> None:
    sentence = join(say(SISTER), silence(0.2))
    events = marks(telephone(alone(join(*[sentence] * 8))))
    assert [type(event) for event in events] == [Began, Ended, Began, Paused, Ended]
    _, first, second, _, last = events
    assert isinstance(first, Ended)
    assert isinstance(second, Began)
    assert isinstance(last, Ended)
    assert (first.whole, last.whole) == (False, True)
    assert first.end - first.start <= LONGEST
    assert first.end == second.at == last.start
    assert (first.end - BEFORE) % len(sentence) >= len(say(SISTER)) - NEAR / 3


def test_sixty_four_callers_take_a_part_of_one_core() -> None:
    frames = speech.frames(telephone(say(SISTER)))
    voices = [Voice() for _ in range(64)]
    begun = time.process_time()
    for i, frame in enumerate(frames):
        for voice in voices:
            voice.hear(frame, i * FRAME)
    assert time.process_time() - begun < 0.7 * len(frames) * FRAME / RATE


# The ear


class Ear:
    """A Moonshine, and what it told of each stream."""

    def __init__(self, load: Callable[[], Decode], threads: int = 1) -> None:
        self.told: queue.SimpleQueue[tuple[int, EarEvent]] = queue.SimpleQueue()
        self.events: list[tuple[int, EarEvent]] = []
        self.moonshine = Moonshine(lambda *what: self.told.put(what), threads, load)

    def hear(self, sound: Sound, stream: int = 1, at: int = 0) -> None:
        for i, frame in enumerate(speech.frames(sound)):
            self.moonshine.hear(stream, frame, at + i * FRAME)

    def until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self.events.append(self.told.get(timeout=TIMEOUT))

    def settle(self) -> None:
        """Until everything that it was asked to decode is decoded."""
        ear = self.moonshine
        with ear._news:
            assert ear._news.wait_for(lambda: not (ear._waiting or ear._running), TIMEOUT)
        while not self.told.empty():
            self.events.append(self.told.get())

    def heard(self, stream: int = 1) -> list[Heard]:
        return [event for of, event in self.events if of == stream and isinstance(event, Heard)]

    def finals(self, stream: int = 1) -> list[Heard]:
        return [heard for heard in self.heard(stream) if heard.final]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


Make = Callable[..., Ear]


@pytest.fixture
def make() -> Iterator[Make]:
    ears: list[Ear] = []

    def start(decode: Decode, *streams: int, threads: int = 1) -> Ear:
        ears.append(Ear(lambda: decode, threads))
        for stream in streams or (1,):
            ears[-1].moonshine.open(stream)
        return ears[-1]

    yield start
    for ear in ears:
        ear.moonshine.stop()


class Held:
    """A decoder that waits until it may go on, and counts."""

    def __init__(self, text: str = "some words") -> None:
        self.text = text
        self.begun = threading.Event()
        self.go = threading.Event()
        self.pieces: list[Sound] = []

    def __call__(self, pcm: Sound) -> str:
        self.pieces.append(pcm)
        self.begun.set()
        assert self.go.wait(TIMEOUT)
        return self.text


@pytest.fixture
def held() -> Iterator[Held]:
    decoder = Held()
    yield decoder
    decoder.go.set()


@pytest.mark.parametrize(("voice", "wrong"), [("diphone", 0.25), ("formant", 0.4)])
def test_utterances_come_out_one_by_one_with_their_words(
    make: Make, library: Library, voice: str, wrong: float
) -> None:
    sentences = (SISTER, GATE, TRAIN, DOG)
    ear = make(library)
    ear.hear(telephone(join(*(alone(say(sentence, voice)) for sentence in sentences))))
    ear.until(lambda: len(ear.finals()) == len(sentences))
    assert [heard.id for heard in ear.finals()] == [1, 2, 3, 4]
    errors = sum(speech.word_errors(one, heard.text) for one, heard in zip(sentences, ear.finals(), strict=True))
    assert errors / sum(len(speech.words(sentence)) for sentence in sentences) <= wrong
    for heard in ear.finals():
        assert [word.text for word in heard.words] == heard.text.split()
        assert heard.words[0].start == heard.start
        assert abs(heard.words[-1].end - heard.end) <= NEAR
        assert all(word.start <= word.end <= after.start for word, after in pairwise(heard.words))


def test_an_utterance_keeps_its_place_on_the_callers_clock(make: Make, library: Library) -> None:
    at = 1_000_000
    said = say(SISTER)
    ear = make(library)
    ear.hear(telephone(alone(said)), at=at)
    ear.until(lambda: bool(ear.finals()))
    assert abs(ear.finals()[0].start - at - BEFORE) <= NEAR
    assert abs(ear.finals()[0].end - at - BEFORE - len(said)) <= NEAR


def test_partials_come_at_most_once_a_second_and_before_the_one_final(make: Make, held: Held) -> None:
    held.go.set()
    ear = make(held)
    said = join(say(SISTER), silence(0.1), say(GATE))
    for i, frame in enumerate(speech.frames(alone(said))):
        ear.moonshine.hear(1, frame, i * FRAME)
        ear.settle()
    *partials, final = ear.heard()
    assert [heard.final for heard in ear.heard()] == [False] * len(partials) + [True]
    assert {heard.id for heard in ear.heard()} == {1}
    assert len(partials) >= 4
    *speaking, paused = partials
    assert all(later.end - sooner.end >= RATE for sooner, later in pairwise(speaking))
    assert all(heard.end - heard.start >= 0.8 * RATE for heard in speaking)
    assert paused == final._replace(final=False)
    assert isinstance(ear.events[0][1], Began)


def test_the_text_of_a_pause_that_was_the_end_is_final_without_decoding_again(make: Make, held: Held) -> None:
    held.go.set()
    ear = make(held)
    ear.hear(join(silence(0.5), say("Hello?"), silence(0.4)))
    ear.until(lambda: len(ear.heard()) == 1)
    ear.hear(silence(0.5), at=round(2 * RATE))
    ear.until(lambda: bool(ear.finals()))
    assert len(held.pieces) == 1
    assert len(held.pieces[0]) == pytest.approx((ear.finals()[0].end - ear.finals()[0].start + 2 * PAD) * 2 / 3, abs=1)
    assert np.abs(held.pieces[0]).max() == pytest.approx(PEAK, rel=0.1)


def test_callers_are_not_mixed_up() -> None:
    sentences = dict(enumerate((SISTER, GATE, TRAIN, DOG, "I lost my wallet on the bus this morning."), start=7))
    ear = Ear(Library, threads=2)
    for stream in sentences:
        ear.moonshine.open(stream)
    sounds = {stream: speech.frames(telephone(alone(say(sentence)))) for stream, sentence in sentences.items()}
    for i in range(max(map(len, sounds.values()))):
        for stream, frames in sounds.items():
            if i < len(frames):
                ear.moonshine.hear(stream, frames[i], i * FRAME)
    ear.settle()
    ear.moonshine.stop()
    for stream in sentences:
        (final,) = ear.finals(stream)
        errors = {other: speech.word_errors(sentence, final.text) for other, sentence in sentences.items()}
        assert min(errors, key=lambda other: errors[other]) == stream
        assert ear.heard(stream)[-1] == final


def test_nothing_is_told_of_a_stream_that_was_closed(make: Make, held: Held) -> None:
    ear = make(held, 1, 2)
    ear.hear(join(silence(0.5), say(SISTER)))
    ear.hear(alone(say(GATE)), stream=2)
    ear.until(lambda: len(ear.events) == 2)
    ear.moonshine.close(1)
    held.go.set()
    ear.hear(silence(1), at=10 * RATE)
    ear.settle()
    assert ear.heard(1) == []
    assert len(ear.finals(2)) == 1


def test_a_stream_that_is_opened_again_begins_anew(make: Make, held: Held) -> None:
    held.go.set()
    ear = make(held)
    for count in (1, 2):
        ear.moonshine.open(1)
        ear.hear(alone(say("Hello?")))
        ear.until(lambda count=count: len(ear.finals()) == count)
    assert [heard.id for heard in ear.finals()] == [1, 1]


def test_a_decoder_that_stalls_makes_it_drop_partials_first_and_never_wait(make: Make, held: Held) -> None:
    streams = range(WAITING + 10)
    ear = make(held, *streams)
    said = join(silence(0.5), say(SISTER))
    slowest = 0.0
    for sound, at in ((said, 0), (silence(1), len(said) // FRAME * FRAME + FRAME)):
        for stream in streams:
            begun = time.perf_counter()
            ear.hear(sound, stream, at)
            slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 1
    waiting = ear.moonshine._waiting
    assert len(waiting) == WAITING
    assert all(job.final for job in waiting)
    assert ear.moonshine.dropped >= len(streams) - WAITING
    held.go.set()
    latest = {job.number for job in waiting}
    ear.settle()
    assert all(len(ear.finals(stream)) == 1 for stream in latest)
    assert len(held.pieces) <= WAITING + 1


def test_final_texts_come_before_partials_and_are_dropped_after_them(make: Make, held: Held) -> None:
    last = WAITING + 2
    ear = make(held, *range(last + 1))
    word, talk = alone(say("Hello?")), join(silence(0.5), say(SISTER))
    ear.hear(word, 0)
    assert held.begun.wait(TIMEOUT)
    ear.hear(word, 1)
    for stream in range(2, last):
        ear.hear(talk, stream)
    ear.hear(word, last)
    held.go.set()
    ear.settle()
    told = [(stream, event.final) for stream, event in ear.events if isinstance(event, Heard)]
    assert told[:3] == [(0, True), (1, True), (last, True)]
    assert told[3:] == [(stream, False) for stream in range(4, last)]


def test_a_newer_partial_takes_the_place_of_one_that_waits(make: Make, held: Held) -> None:
    ear = make(held, 1, 2)
    ear.hear(alone(say("Hello?")), stream=2)  # what is being decoded meanwhile
    ear.hear(join(silence(0.5), say(SISTER), say(GATE)))
    held.go.set()
    ear.hear(silence(1), at=20 * RATE)
    ear.settle()
    assert ear.moonshine.dropped >= 3
    assert len(ear.heard()) <= 2


@pytest.mark.parametrize("text", ["", " ... "])
def test_an_utterance_without_words_is_not_told(make: Make, held: Held, text: str) -> None:
    held.go.set()
    held.text = text
    ear = make(held)
    ear.hear(alone(say(SISTER)))
    ear.settle()
    assert held.pieces
    assert ear.heard() == []


def test_words_that_were_told_are_final_when_the_rest_has_none(make: Make, held: Held) -> None:
    held.go.set()
    ear = make(held)
    frames = speech.frames(alone(say(SISTER)))
    for i, frame in enumerate(frames):
        ear.moonshine.hear(1, frame, i * FRAME)
        ear.settle()
        if ear.heard():
            held.text = ""
    partial, final = ear.heard()
    assert final == partial._replace(final=True)


def test_a_decoding_that_fails_is_logged_and_the_next_goes_on(
    make: Make, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    fails = iter([True])

    def decode(pcm: Sound) -> str:
        if next(fails, False):
            raise RuntimeError("broken")
        return library(pcm)

    ear = make(decode)
    with caplog.at_level(logging.ERROR, "voice_bridge.ears"):
        ear.hear(alone(say("Hello?")))
        ear.hear(alone(say(SISTER)), at=100 * RATE)
        ear.until(lambda: any(heard.id == 2 for heard in ear.finals()))
    assert "could not be decoded" in caplog.text


def test_stopping_ends_its_threads(make: Make, held: Held) -> None:
    held.go.set()
    before = set(threading.enumerate())
    ear = make(held, threads=2)
    assert len(set(threading.enumerate()) - before) == 2
    ear.hear(alone(say(SISTER)))
    ear.moonshine.stop()
    assert not set(threading.enumerate()) - before


def test_a_release_without_its_model_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moonshine_api, "__file__", str(tmp_path / "moonshine_api.py"))
    with pytest.raises(RuntimeError, match=r"0\.1\.0"):
        Moonshine(lambda *_: None)


def test_the_library_refuses_what_it_cannot_decode(library: Library) -> None:
    with pytest.raises(RuntimeError, match="moonshine-voice"):
        library(np.zeros(100, np.float32))


def test_letters_are_spread_over_what_was_voiced() -> None:
    assert spread("abcd efgh 47", [(0, 400), (1000, 1800)]) == (
        Word("abcd", 0, 300),
        Word("efgh", 300, 1200),
        Word("47", 1200, 1800),
    )
    assert spread("ab cd", [(100, 200), (500, 600)]) == (Word("ab", 100, 200), Word("cd", 500, 600))
    assert spread("", [(0, 400)]) == ()
