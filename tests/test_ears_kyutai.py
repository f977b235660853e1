"""A transcription model as an ear: what it hears is what the reference hears, and when it was said."""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from tests import oracle  # noqa: E402
from voice_bridge.engines.base import FRAME, RATE  # noqa: E402
from voice_bridge.engines.ears import kyutai  # noqa: E402
from voice_bridge.engines.ears.base import Began, EarEvent, Heard, Word  # noqa: E402
from voice_bridge.engines.ears.kyutai import Kyutai  # noqa: E402
from voice_bridge.engines.moshi import script  # noqa: E402
from voice_bridge.engines.moshi.config import ModelError  # noqa: E402

STT = oracle.FOLDER / "stt"
DELAY = round(0.5 * RATE)  # of that model
BEHIND = 7  # frames in which that lies
FRAMES = 40
FIRST = 10  # the frame of the first stream at which the reference writes its first word
PATIENCE = 20.0  # seconds for what takes milliseconds


class Ear:
    """An ear, what it told, and what its model wrote for each slot."""

    def __init__(self, model: Path = STT, streams: int = 3) -> None:
        self.events: dict[int, list[EarEvent]] = defaultdict(list)
        self.tokens: dict[int, list[int]] = defaultdict(list)
        self.pauses: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
        self.batches: list[int] = []
        self.stepping, self.telling, self.may_step, self.may_tell = (threading.Event() for _ in range(4))
        self.may_step.set()
        self.may_tell.set()
        self._news = threading.Condition()
        self.ear = Kyutai(self._told, str(model), "cpu", "float32", "float32", streams=streams)
        self._tick, self._collect = self.ear._model.tick, self.ear._model.collect
        self.ear._model.tick = self._watched  # type: ignore[method-assign]

    def _told(self, stream: int, event: EarEvent) -> None:
        self.telling.set()
        assert self.may_tell.wait(PATIENCE)
        with self._news:
            self.events[stream].append(event)
            self._news.notify_all()

    def _watched(self, pcm: Any, places: Any, chances: Any, given: Any) -> Any:
        self.stepping.set()
        assert self.may_step.wait(PATIENCE)
        pending = self._tick(pcm, places, chances, given)
        heard = self._collect(pending)
        with self._news:
            self.batches.append(len(places))
            for slot, token, pauses in zip(places[:, 0], heard.text, heard.pauses, strict=True):
                self.tokens[int(slot)].append(int(token))
                self.pauses[int(slot)].append(pauses.copy())
            self._news.notify_all()
        return pending

    def until(self, true: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(true, PATIENCE)

    def stepped(self, slot: int, steps: int) -> None:
        self.until(lambda: len(self.tokens[slot]) >= steps)

    def hear(self, frames: dict[int, NDArray[np.float32]], begin: int = 0) -> None:
        """All of these frames of each stream, before the ear takes the first."""
        with self.ear._changed:
            for index in range(max(map(len, frames.values()))):
                for stream, sound in frames.items():
                    if index < len(sound):
                        self.ear.hear(stream, sound[index], begin + index * FRAME)

    def utterances(self, stream: int) -> list[Heard]:
        return [event for event in list(self.events[stream]) if isinstance(event, Heard)]

    def finals(self, stream: int) -> list[Heard]:
        return [heard for heard in self.utterances(stream) if heard.final]


@pytest.fixture
def ear() -> Iterator[Ear]:
    made = Ear()
    yield made
    made.ear.stop()


def sounds() -> NDArray[np.float32]:
    """What the reference heard [2, frames, 1920]."""
    return oracle.expected("stt")["pcm_in"].numpy().reshape(2, FRAMES, FRAME)


def copied(folder: Path, **settings: Any) -> Path:
    """The checkpoint with another configuration."""
    shutil.copytree(STT, folder / "stt")
    path = folder / "stt" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder / "stt"


def alone(sound: NDArray[np.float32]) -> list[int]:
    single = Ear(streams=1)
    single.ear.open(5)
    single.hear({5: sound})
    single.stepped(0, len(sound))
    single.ear.stop()
    return single.tokens[0]


def test_two_streams_in_one_batch_give_the_tokens_and_pauses_of_the_reference(ear: Ear) -> None:
    expected, heard = oracle.expected("stt"), sounds()
    for stream in range(2):
        ear.ear.open(stream)
    ear.hear({0: heard[0], 1: heard[1]})
    for slot in range(2):
        ear.stepped(slot, FRAMES)
        assert ear.tokens[slot] == expected["greedy_tokens"][slot, 0].tolist()
        pauses = expected["extra_heads"][:, :, slot, 0, 0].numpy()
        np.testing.assert_allclose(ear.pauses[slot], pauses, atol=1e-5)
    assert ear.batches == [2] * FRAMES
    assert ear.ear.dropped == 0


def test_streams_that_come_late_and_go_give_the_same_as_alone(ear: Ear) -> None:
    one, two = sounds()
    ear.ear.open(0)
    ear.hear({0: one[:10]})
    ear.stepped(0, 10)
    ear.ear.open(1)
    ear.hear({0: one[10:30], 1: two[:20]}, 10 * FRAME)
    ear.stepped(0, 30)
    ear.stepped(1, 20)
    ear.ear.close(1)
    ear.ear.open(2)  # takes its place
    ear.hear({0: one[30:], 2: two[::-1][:15]}, 30 * FRAME)
    ear.stepped(0, FRAMES)
    ear.stepped(1, 35)
    assert ear.tokens[0] == alone(one)
    assert ear.tokens[1] == alone(two[:20]) + alone(two[::-1][:15])


def test_words_are_told_as_they_grow_with_the_times_at_which_they_were_said(ear: Ear) -> None:
    ear.ear.open(3)
    ear.hear({3: sounds()[0]}, begin=RATE)
    ear.until(lambda: len(ear.events[3]) >= 4)
    began = RATE + FIRST * FRAME - DELAY
    goodbye = began + 12 * FRAME
    ull = Word("ull", began, began + 2 * FRAME)
    assert ear.events[3][:3] == [
        Began(began),
        Heard(1, "u", (Word("u", began, began + FRAME),), began, began + FRAME, False),
        Heard(1, "ull", (ull,), began, began + 2 * FRAME, False),
    ]
    two = ear.utterances(3)[2]
    assert (two.text, two.words[0].text, two.words[0].start) == ("ull goodbye", "ull", began)
    assert two.words[1] == Word("goodbye", goodbye, goodbye + FRAME)


def test_a_pause_seen_by_the_model_brings_out_the_last_words_without_another_frame(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kyutai, "PAUSE", 0.3)  # which its random head reaches once, at this frame
    paused = 26
    one, two = sounds()
    for stream in range(2):
        ear.ear.open(stream)
    ear.hear({0: one[: paused + 1], 1: two[:5]})
    ear.until(lambda: bool(ear.finals(0)))
    (final,) = ear.finals(0)
    assert final.text.startswith("ull goodbye")
    assert " ".join(word.text for word in final.words) == final.text
    assert ear.utterances(0)[-1] == final
    assert (final.id, final.end) == (1, final.words[-1].end)
    assert final.end <= (paused + 2) * FRAME  # silence put in is no time of the caller's
    ear.hear({0: np.zeros((1, FRAME), np.float32)}, (paused + 1) * FRAME)
    ear.stepped(0, paused + 1 + BEHIND + kyutai.LAST_WORD + 1)
    assert len(ear.tokens[0]) == paused + 1 + BEHIND + kyutai.LAST_WORD + 1
    assert len(ear.tokens[1]) == 5  # the other was given none
    after = Ear(streams=1)
    after.ear.open(0)
    silence = np.zeros((BEHIND + kyutai.LAST_WORD, FRAME), np.float32)
    after.hear({0: np.concatenate([one[: paused + 1], silence, one[paused + 1 :]])})
    after.stepped(0, FRAMES + len(silence))
    after.ear.stop()
    assert ear.tokens[0][:-1] == after.tokens[0][: len(ear.tokens[0]) - 1]  # as if he had been silent


def test_times_stay_the_caller_s_after_a_pause_was_heard_early(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kyutai, "PAUSE", 0.0)  # every word is taken for the last
    ear.ear.open(0)
    told = 0
    for index, frame in enumerate(np.concatenate([*sounds()])):
        ear.ear.hear(0, frame, index * FRAME)
        ear.until(lambda: not ear.ear._streams[0]._waiting and not ear.ear._streams[0]._silent)
        now = (index + 1) * FRAME
        for event in ear.events[0][told:]:
            at = event.at if isinstance(event, Began) else event.start
            assert now - DELAY - 3 * FRAME <= at <= now
        told = len(ear.events[0])
    starts = [event.start for event in ear.finals(0)]
    assert len(starts) > 5
    assert starts == sorted(starts)
    assert [event.id for event in ear.finals(0)] == list(range(1, len(starts) + 1))


def test_a_model_without_heads_ends_an_utterance_by_its_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GAP", 5)  # random tokens are never silent for long
    headless = Ear(copied(tmp_path, extra_heads_num_heads=0))
    headless.ear.open(0)
    headless.hear({0: sounds()[0][: FIRST + 7]})
    headless.until(lambda: bool(headless.finals(0)))
    headless.ear.stop()
    assert [heard.text for heard in headless.finals(0)] == ["ull"]
    assert not headless.pauses[0][0].size


def test_a_model_that_wants_to_hear_silence_first_is_given_it_and_times_do_not_move(tmp_path: Path) -> None:
    stt = {"audio_delay_seconds": 0.5, "audio_silence_prefix_seconds": 1.0}
    ear = Ear(copied(tmp_path, stt_config=stt))
    prefix = 13
    one = sounds()[0]
    ear.ear.open(0)
    ear.hear({0: one})
    ear.stepped(0, prefix + FRAMES)
    tokens = ear.tokens[0]
    assert tokens == alone(np.concatenate([np.zeros((prefix, FRAME), np.float32), one]))
    ear.until(lambda: bool(ear.events[0]))
    written = next(index for index, token in enumerate(tokens) if ear.ear._tokenizer.spell(token))
    assert ear.utterances(0)[0].start == max(0, (written - prefix) * FRAME - DELAY)
    ear.ear.stop()


@pytest.mark.parametrize("delay", [0, FRAME, DELAY, 5 * FRAME + 1])
def test_the_clock_of_what_is_written_follows_frames_that_were_lost_or_put_in(delay: int) -> None:
    chance = np.random.default_rng(delay)
    clock, at = kyutai._Clock(delay), 0
    heard: list[int] = []  # for each sample that the model was given, which of the caller's it was
    for _ in range(200):
        if chance.random() < 0.2:
            clock.gave(at, 0)
            heard += [at] * FRAME
        else:
            at += FRAME * int(chance.choice([0, 0, 0, 3]))
            clock.gave(at, FRAME)
            heard += range(at, at + FRAME)
            at += FRAME
        now = len(heard) - FRAME - delay
        assert clock.written == heard[max(0, now)]


def test_a_gap_is_heard_as_silence_but_not_for_ever(ear: Ear) -> None:
    one = sounds()[0]
    ear.ear.open(0)
    with ear.ear._changed:
        for index, at in enumerate((0, 1, 4, 1000)):
            ear.ear.hear(0, one[index], at * FRAME)
    longest = BEHIND + script.GAP
    ear.stepped(0, 4 + 2 + longest)
    silence = np.zeros((longest, FRAME), np.float32)
    assert ear.tokens[0] == alone(np.concatenate([one[:2], silence[:2], one[2:3], silence, one[3:4]]))


def test_an_ear_that_does_not_keep_up_lets_the_oldest_frames_go_and_keeps_nobody_waiting(ear: Ear) -> None:
    one, two = sounds()
    ear.ear.open(0)
    ear.may_step.clear()
    ear.ear.hear(0, one[0], 0)
    assert ear.stepping.wait(PATIENCE)
    rest = np.concatenate([one[1:], two, one])
    for index, frame in enumerate(rest, 1):  # while a step is under way that does not end
        ear.ear.hear(0, frame, index * FRAME)
    ear.ear.open(1)
    ear.ear.close(1)
    assert ear.ear.dropped == len(rest) - kyutai.QUEUE
    ear.may_step.set()
    ear.stepped(0, 1 + kyutai.QUEUE)
    kept = [one[0], *rest[-kyutai.QUEUE :]]
    assert ear.tokens[0][:FRAMES] == alone(np.stack(kept[:FRAMES]))
    late = [event for event in ear.utterances(0) if event.start > (len(rest) - kyutai.QUEUE) * FRAME]
    assert late  # the clock went on over what was lost
    assert all(event.end <= (len(rest) + 1) * FRAME for event in late)


def test_nothing_is_told_of_a_stream_that_was_closed(ear: Ear) -> None:
    one = sounds()[0]
    ear.ear.open(0)
    ear.hear({0: one[:FIRST]})
    ear.stepped(0, FIRST)
    ear.may_step.clear()
    ear.stepping.clear()
    ear.ear.hear(0, one[FIRST], FIRST * FRAME)
    assert ear.stepping.wait(PATIENCE)
    ear.ear.close(0)  # while the model is about to write its first word
    ear.ear.open(0)  # and the number is another stream's
    ear.may_step.set()
    ear.hear({0: one[:FIRST]})
    ear.stepped(0, FIRST + 1 + FIRST)
    ear.ear.open(1)
    ear.hear({1: one})
    ear.until(lambda: bool(ear.utterances(1)))
    assert not ear.events[0]


def test_close_returns_when_what_is_being_told_has_been_told(ear: Ear) -> None:
    ear.ear.open(0)
    ear.may_tell.clear()
    ear.hear({0: sounds()[0][: FIRST + 1]})
    assert ear.telling.wait(PATIENCE)
    closing = threading.Thread(target=ear.ear.close, args=(0,))
    closing.start()
    ear.ear.hear(0, sounds()[0][0], 0)  # which never waits
    ear.ear.open(1)
    closing.join(0.1)
    assert closing.is_alive()
    ear.may_tell.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(ear.events[0]) == 1  # Began was under way; the rest is not told


def test_a_stream_too_many_is_heard_once_another_has_gone() -> None:
    ear, (one, two) = Ear(streams=1), sounds()
    for stream in range(2):
        ear.ear.open(stream)
    ear.hear({0: one[:5], 1: two[:12]})
    ear.stepped(0, 5)
    ear.ear.close(0)
    ear.stepped(0, 17)
    ear.ear.stop()
    assert ear.tokens[0][5:] == alone(two[:12])


def test_a_broken_number_does_not_reach_the_model(ear: Ear) -> None:
    broken = sounds()[0].copy()
    broken[3, 7], broken[4, 9] = np.nan, np.inf
    ear.ear.open(0)
    ear.hear({0: broken})
    ear.stepped(0, FRAMES)
    mended = np.nan_to_num(broken, posinf=1.0)
    assert ear.tokens[0] == alone(mended)


def test_it_ends_while_streams_are_heard() -> None:
    ear = Ear()
    ear.ear.open(0)
    ear.hear({0: sounds()[0]})
    ear.ear.stop()
    told = {stream: list(events) for stream, events in ear.events.items()}
    ear.ear.hear(0, sounds()[0][0], 0)
    assert not ear.ear._thread.is_alive()
    assert ear.events == told


def test_a_model_that_converses_is_no_ear() -> None:
    with pytest.raises(ModelError, match="moshi is a model of type moshi: take one of type stt"):
        Kyutai(lambda stream, event: None, str(oracle.FOLDER / "moshi"), "cpu")
