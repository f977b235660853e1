"""Moshi as a core: calls that come and go, what they are made to say and to know, and how they are renewed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from tests import oracle  # noqa: E402
from tests.oracle import PROGRAMS, Program, talk  # noqa: E402
from voice_bridge.engines.base import FRAME, Event, Injected, Opening, Refused, Said, Sound, Words  # noqa: E402
from voice_bridge.engines.moshi.core import ADDED, MoshiCore  # noqa: E402

LONG = "quantizable"  # its context is 3000 frames; the others renew a call every second
GREEDY = {"audio_temperature": 0.0, "text_temperature": 0.0}


@pytest.fixture(params=PROGRAMS)
def ops(request: pytest.FixtureRequest) -> Program:
    return PROGRAMS[request.param]


def settle(core: MoshiCore) -> None:
    while core.work(1.0):
        pass


class Caller:
    """One call, and what it got."""

    def __init__(self, core: MoshiCore, slot: int, hears: NDArray[np.float32], **opening: Any) -> None:
        self.core, self.slot, self.frames = core, slot, list(hears)
        self.events: list[Event] = []
        self.clock = 0
        core.open(slot, Opening(**opening))
        settle(core)

    @property
    def sounds(self) -> NDArray[np.float32]:
        return np.stack([event.pcm for event in self.events if isinstance(event, Sound)])

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def step(core: MoshiCore, callers: Iterable[Caller]) -> None:
    """The next frame of each, in one batch."""
    here = list(callers)
    frames = np.stack([caller.frames.pop(0) for caller in here])
    pending = core.launch([caller.slot for caller in here], frames, [caller.clock for caller in here])
    by_slot = {caller.slot: caller for caller in here}
    for slot, event in core.collect(pending):
        by_slot[slot].events.append(event)
    for caller in here:
        caller.clock += FRAME
    settle(core)


def alone(ops: Program, frames: int, voice: int, **opening: Any) -> NDArray[np.float32]:
    core = oracle.core(LONG, ops=ops)
    caller = Caller(core, 0, talk(frames, voice), **opening)
    for _ in range(frames):
        step(core, [caller])
    return caller.sounds


@pytest.mark.parametrize("sampling", [GREEDY, {}])
def test_a_call_sounds_the_same_alone_and_among_others_that_come_pause_and_go(
    ops: Program, sampling: dict[str, float]
) -> None:
    core = oracle.core(LONG, ops=ops)
    first = Caller(core, 2, talk(30, seed=1), seed=11, sampling=sampling)
    second = Caller(core, 0, talk(30, seed=2), seed=12, sampling=sampling)
    for frame in range(30):
        step(core, [first] if 10 <= frame < 15 else [second, first])  # the second pauses
        if frame == 20:
            core.close(0)
            second = Caller(core, 0, talk(30, seed=3), seed=13, sampling=sampling)
    for caller, voice, frames in ((first, 1, 30), (second, 3, 9)):
        expected = alone(ops, frames, voice, seed=10 + voice, sampling=sampling)
        np.testing.assert_allclose(caller.sounds, expected, atol=1e-5)


def test_seeds_decide_what_is_drawn() -> None:
    one, same, other = (alone(oracle.BACKENDS["plain"], 12, 1, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other, atol=1e-3)


def test_a_slot_that_is_taken_again_is_as_new(ops: Program) -> None:
    core = oracle.core(LONG, slots=1, ops=ops)
    for _ in range(2):
        caller = Caller(core, 0, talk(25), seed=1, persona="")
        for _ in range(25):
            step(core, [caller])
        core.close(0)
        settle(core)
    np.testing.assert_array_equal(caller.sounds, alone(ops, 25, 0, seed=1))


def test_what_is_said_stands_in_the_text_stream_token_by_token(tmp_path: Path) -> None:
    core = oracle.core("moshi", trace=str(tmp_path / "tokens.jsonl"))
    caller = Caller(core, 0, np.zeros((60, FRAME), np.float32), call="a", greeting="hello and welcome")
    for _ in range(60):
        step(core, [caller])
    words = [event for event in caller.of(Words) if event.forced]
    assert words[-1].text == "hello and welcome"
    assert words[-1].final
    assert [said.id for said in caller.of(Said)] == [0]
    import json

    tokens = [json.loads(line)["text"] for line in (tmp_path / "tokens.jsonl").read_text().splitlines()]
    asked = core._tokenizer.encode("hello and welcome")  # the stream of a fresh call: nothing comes before it
    forced = [token for token in tokens if token not in (0, 3)]
    assert forced[: len(asked)] == asked


def test_a_caller_who_speaks_up_interrupts_only_what_may_be_interrupted() -> None:
    for interruptible in (True, False):
        core = oracle.core("moshi")
        caller = Caller(core, 0, np.concatenate([np.zeros((3, FRAME), np.float32), talk(50)]))
        core.say(0, 1, "hello and welcome", interruptible)
        for _ in range(53):
            step(core, [caller])
        said = [event.id for event in caller.of(Said)]
        assert said == ([] if interruptible else [1])


def test_context_is_read_between_two_frames_and_leaves_what_is_under_way_untouched(ops: Program) -> None:
    """The same rows, given one by one to the model at the same place, lead to the same next frame."""
    plain, told = (oracle.core(LONG, ops=ops) for _ in range(2))
    callers = [Caller(core, 0, talk(20), seed=3, sampling=GREEDY) for core in (plain, told)]
    for caller in callers:
        for _ in range(8):
            step(caller.core, [caller])
    told.inject(0, 7, "the gate code is on the table", "silent", None)
    settle(told)
    rows = told._given.context("the gate code is on the table", "silent", 100)
    call, model = plain._slots[0], plain._model
    for row in rows:
        model.read(call.row, call.position, row[None], None)
        call.position += 1
    for caller in callers:
        for _ in range(12):
            step(caller.core, [caller])
    assert [event.id for event in callers[1].of(Injected)] == [7]
    np.testing.assert_allclose(callers[0].sounds, callers[1].sounds, atol=1e-5)
    assert not np.allclose(callers[1].sounds[9:], alone_in(LONG, ops, 20)[9:], atol=1e-3)


def alone_in(name: str, ops: Program, frames: int) -> NDArray[np.float32]:
    core = oracle.core(name, ops=ops)
    caller = Caller(core, 0, talk(frames), seed=3, sampling=GREEDY)
    for _ in range(frames):
        step(core, [caller])
    return caller.sounds


def test_a_persona_is_known_before_the_first_frame() -> None:
    core = oracle.core(LONG)
    caller = Caller(core, 0, talk(12), persona="you are kind and patient", seed=3, sampling=GREEDY)
    told = len(core._slots[0].persona)
    for _ in range(12):
        step(core, [caller])
    assert core._slots[0].position == 1 + told + 11  # the model's own row, the persona, and a row a frame after it
    assert not np.allclose(caller.sounds[2:], alone_in(LONG, PROGRAMS["plain"], 12)[2:], atol=1e-3)


def test_what_is_known_of_the_caller_is_read_behind_the_persona_before_the_first_frame() -> None:
    core = oracle.core(LONG)
    caller = Caller(core, 0, talk(12), persona="you are kind", known=GATE, seed=3, sampling=GREEDY)
    call = core._slots[0]
    np.testing.assert_array_equal(call.known, core._given.context(GATE, "remembered", 100))
    step(core, [caller])
    assert call.position == 1 + len(call.persona) + len(call.known)
    assert [event.id for event in caller.of(Injected)] == [0]
    core.forget(0)
    assert not len(call.known)


def test_what_is_known_of_the_caller_is_left_out_where_it_has_no_room() -> None:
    core = oracle.core("moshi")  # of a context of 16, a fourth
    core.open(0, Opening(known="the gate code is on the table, and the key is under the mat"))
    assert not len(core._slots[0].known)
    assert core.collect(core.launch([0], talk(1), [0]))[0] == (0, Refused(0))


def test_a_call_whose_persona_is_not_read_yet_hears_silence_and_is_answered_frame_by_frame() -> None:
    core = oracle.core(LONG)
    core.open(0, Opening(persona="you are kind"))
    events = core.collect(core.launch([0], talk(1), [0]))
    assert [(slot, type(event)) for slot, event in events] == [(0, Sound)]
    assert not events[0][1].pcm.any()  # type: ignore[union-attr]


GATE = "the gate code is on the table"


def meaning(core: MoshiCore, name: str, text: str) -> NDArray[np.float32]:
    """What the checkpoint's own table has for the tokens of a text, as their mean."""
    table = load_file(oracle.FOLDER / name / "model.safetensors")["text_emb.weight"]
    return np.asarray(table[core._tokenizer.encode(text)].mean(0).numpy())


def test_words_added_to_the_input_are_their_mean_embedding_for_a_while(ops: Program) -> None:
    added, by_hand = (oracle.core(LONG, ops=ops) for _ in range(2))
    frames = 5 + ADDED + 3
    callers = [Caller(core, 0, talk(frames), seed=3, sampling=GREEDY) for core in (added, by_hand)]
    vector = meaning(by_hand, LONG, GATE)
    for frame in range(frames):
        if frame == 5:
            added.inject(0, 7, GATE, "add_to_input", None)
            by_hand._model.add(0, vector)
        if frame == 5 + ADDED:
            by_hand._model.add(0, np.zeros_like(vector))
        for caller in callers:
            step(caller.core, [caller])
    assert [event.id for event in callers[0].of(Injected)] == [7]
    np.testing.assert_array_equal(callers[0].sounds, callers[1].sounds)
    plain = alone_in(LONG, ops, 12)
    np.testing.assert_array_equal(callers[0].sounds[:6], plain[:6])
    assert not np.allclose(callers[0].sounds[6:12], plain[6:], atol=1e-3)


def on_input(core: MoshiCore, slot: int) -> NDArray[np.float32]:
    return np.asarray(core._model._added[slot].numpy())  # type: ignore[attr-defined]


def test_words_on_the_input_add_up_with_the_condition_and_each_goes_by_itself() -> None:
    core = oracle.core("conditioned")
    caller = Caller(core, 0, talk(ADDED + 10), conditions={"description": "very_bad"})
    condition = on_input(core, 0).copy()
    one, two = (meaning(core, "conditioned", text) for text in ("hello", GATE))
    assert condition.any()
    for frame in range(ADDED + 8):
        if frame == 2:
            core.inject(0, 1, "hello", "add_to_input", None)
        if frame == 5:
            core.inject(0, 2, GATE, "add_to_input", None)
        here = (2 <= frame < 2 + ADDED) * one + (5 <= frame < 5 + ADDED) * two
        np.testing.assert_allclose(on_input(core, 0), condition + here, atol=1e-6)
        step(core, [caller])
    assert [event.id for event in caller.of(Injected)] == [1, 2]
    np.testing.assert_array_equal(on_input(core, 0), condition)


def test_words_on_the_input_outlast_renewals() -> None:
    """With a context of 16 frames a call is renewed several times meanwhile."""
    core = oracle.core("moshi")
    caller = Caller(core, 0, talk(60))
    for frame in range(60):
        if frame == 5:
            core.inject(0, 1, "hello", "add_to_input", None)
        here = meaning(core, "moshi", "hello") if 5 <= frame < 5 + ADDED else np.zeros(64)
        np.testing.assert_allclose(on_input(core, 0), here, atol=1e-6)
        if frame == 5 + ADDED:
            assert core._slots[0].position < 16 < frame  # not the row that it began with
        step(core, [caller])
    assert [event.id for event in caller.of(Injected)] == [1]


def test_words_on_one_call_s_input_leave_the_others_as_they_are(ops: Program) -> None:
    def other(injects: bool) -> NDArray[np.float32]:
        core = oracle.core(LONG, ops=ops)
        callers = [Caller(core, slot, talk(15, seed=slot), seed=slot) for slot in range(2)]
        for frame in range(15):
            if injects and frame == 5:
                core.inject(1, 1, "hello", "add_to_input", None)
            step(core, callers)
        return callers[0].sounds

    np.testing.assert_array_equal(other(True), other(False))


def test_a_renewed_call_knows_all_that_was_injected() -> None:
    core = oracle.core("moshi", slots=1)
    caller, rows = Caller(core, 0, talk(60), seed=3), []
    for frame in range(60):
        if frame in (3, 20):
            core.inject(0, frame, "the", "silent", None)
        before = core._slots[0].position
        step(core, [caller])
        call = core._slots[0]
        rows += [call.talk[-1]] if call.talk else []
        if frame > 30 and call.position < before:
            break
    memories = np.concatenate(call.memories)
    assert memories[:, 0].tolist() == 2 * core._tokenizer.encode("the")
    talked = call.position - 1 - len(memories)
    compare(core, call, np.concatenate([core._given.first, memories, np.stack(rows[-talked:])]))


def test_what_is_injected_in_a_call_takes_no_more_than_its_share_of_the_context() -> None:
    core = oracle.core("moshi")  # of 16 rows
    caller = Caller(core, 0, talk(62), persona="the", share=0.25)
    core.inject(0, 1, "the", "silent", None)  # two rows of the four, before there is a frame
    with pytest.raises(ValueError, match="of 4 tokens, and the model has room for 2: shorten it"):
        core.inject(0, 2, "the the", "silent", None)
    for frame in range(62):
        if frame == 20:
            core.inject(0, 3, "the gate code", "add_to_input", None)  # takes no rows
        if frame == 30:
            core.inject(0, 4, "the", "silent", None)
            with pytest.raises(ValueError, match="room for 0"):
                core.inject(0, 5, "a", "remembered", None)
        step(core, [caller])
    assert [event.id for event in caller.of(Injected)] == [1, 3, 4]
    assert [len(rows) for rows in core._slots[0].memories] == [2, 2]  # which renewals bring along
    free = list(core._rows)
    with pytest.raises(ValueError, match=r"a share of 0\.3 of the context: take 0 to 0\.25"):
        core.open(1, Opening(share=0.3))
    assert core._rows == free


def test_conditions_are_chosen_by_name() -> None:
    def heard(**conditions: str) -> NDArray[np.float32]:
        core = oracle.core("conditioned")
        caller = Caller(core, 0, talk(8), seed=3, sampling=GREEDY, conditions=conditions)
        for _ in range(8):
            step(core, [caller])
        return caller.sounds

    assert np.array_equal(heard(), heard(description="very_good"))
    assert not np.allclose(heard(), heard(description="very_bad"), atol=1e-3)
    with pytest.raises(ValueError, match="condition description = 'odd': take one of very_good"):
        heard(description="odd")
    with pytest.raises(ValueError, match="no condition 'mood': it has description"):
        heard(mood="good")


@pytest.mark.parametrize(("name", "value"), [("temperature", 1.0), ("audio_top_k", -1.0)])
def test_a_sampling_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        oracle.core("moshi").open(0, Opening(sampling={name: value}))


def test_ten_renewals_leave_a_call_as_if_it_had_just_begun_with_its_last_rows(ops: Program) -> None:
    core = oracle.core("moshi", slots=2, ops=ops)
    rows, renewed = [], 0
    other = Caller(core, 1, talk(400, seed=9))
    caller = Caller(core, 0, talk(400), seed=3, persona="hi")
    for _ in range(400):
        before = core._slots[0].position
        step(core, [caller, other])
        call = core._slots[0]
        rows.append(call.talk[-1] if call.talk else None)
        if call.position < before:
            renewed += 1
            talked = call.position - 1 - len(call.persona)
            assert talked >= core._kept
            given = np.concatenate([core._given.first, call.persona, np.stack(rows[-talked:])])
            compare(core, call, given)
        if renewed == 10:
            break
    assert renewed == 10
    assert len(caller.sounds) == len(rows)
    assert len(core._rows) == 1  # the spare one


def compare(core: MoshiCore, call: Any, given: NDArray[np.int64]) -> None:
    """The call's keys and values are those of a fresh row that has read `given`."""
    assert call.position == len(given)
    fresh = core._rows[-1]
    core._model.read(fresh, 0, given, call.vector)
    kept, expected = (oracle.stored(core, row, len(given)) for row in (call.row, fresh))
    np.testing.assert_allclose(kept, expected, atol=1e-5, rtol=1e-5)


def test_a_greeting_that_may_not_be_interrupted_is_said_to_its_end() -> None:
    for interruptible in (True, False):
        core = oracle.core(LONG)
        caller = Caller(core, 0, talk(50), greeting="hello and welcome", interruptible=interruptible)
        for _ in range(50):
            step(core, [caller])
        assert [event.id for event in caller.of(Said)] == ([] if interruptible else [0])


class Turned:
    """A clock that each step moves on by `step` seconds."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_machine_that_gets_slow_after_a_fast_time_is_noticed_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Turned(0.05)
    core = oracle.core(LONG, slots=1, clock=clock)
    collect = core._model.collect

    def slow(pending: Any) -> Any:
        clock.now += clock.step
        return collect(pending)

    monkeypatch.setattr(core._model, "collect", slow)
    core.rehearse()
    assert core.step_time(1) == pytest.approx(0.05)
    caller = Caller(core, 0, np.zeros((340, FRAME), np.float32))
    for frame in range(340):
        clock.step = 0.025 if frame < 300 else 0.2
        step(core, [caller])
        if frame == 299:
            assert core.step_time(1) == pytest.approx(0.05)
    assert core.step_time(1) > 0.1


def test_a_transcription_model_is_silent_and_says_nothing_for_us() -> None:
    core = oracle.core("stt")
    caller = Caller(core, 0, talk(20), greeting="hello")
    for _ in range(20):
        step(core, [caller])
    assert not caller.sounds.any()
    assert not any(event.forced for event in caller.of(Words))
    assert {event.speaker for event in caller.of(Words)} <= {"caller"}
    with pytest.raises(ValueError, match="does not speak"):
        core.say(0, 1, "hello", True)


def test_a_call_on_hold_keeps_no_other_from_being_renewed() -> None:
    core = oracle.core("moshi", slots=2)
    held, other = Caller(core, 0, talk(200)), Caller(core, 1, talk(200, seed=1))
    while not (core._slots[0].renewal and core._slots[0].renewal.waiting):
        step(core, [held])
    for _ in range(60):
        step(core, [other])
        assert core._slots[1].position <= core._context
    assert core._slots[0].renewal is None


def test_context_given_before_the_first_frame_comes_behind_the_row_that_a_call_begins_with() -> None:
    core = oracle.core(LONG)
    caller = Caller(core, 0, talk(10), seed=3)
    core.inject(0, 1, "the caller is ann", "silent", None)
    settle(core)
    assert core._slots[0].position == 0
    step(core, [caller])
    assert core._slots[0].position == 1 + len(core._slots[0].memories[0])
    step(core, [caller])
    assert [event.id for event in caller.of(Injected)] == [1]


def test_a_caller_who_speaks_while_the_persona_is_read_is_greeted_all_the_same() -> None:
    core = oracle.core(LONG)
    core.open(0, Opening(persona="you are kind", greeting="hello and welcome"))
    for frame in range(5):
        core.collect(core.launch([0], talk(1, frame), [frame * FRAME]))
    settle(core)
    forced = []
    for _ in range(30):
        forced += [event for _, event in core.collect(core.launch([0], np.zeros((1, FRAME), np.float32), [0]))]
    assert any(isinstance(event, Said) for event in forced)


def test_a_vector_that_lasts_a_moment_is_in_nothing_that_is_read_again() -> None:
    def keys(added: bool) -> Any:
        core = oracle.core(LONG)
        caller = Caller(core, 0, talk(3), seed=3, sampling=GREEDY)
        step(core, [caller])
        if added:
            core.inject(0, 2, "hello", "add_to_input", None)
        core.inject(0, 1, "hello", "silent", None)
        settle(core)
        call = core._slots[0]
        return oracle.stored(core, call.row, call.position)[0, 0, :, 1:]

    np.testing.assert_allclose(keys(True), keys(False), rtol=1e-6, atol=1e-6)


def test_a_broken_number_does_not_outlive_its_call(ops: Program) -> None:
    core = oracle.core(LONG, slots=1, ops=ops)
    broken = talk(2)
    broken[0, 7], broken[1, 9] = np.nan, np.inf
    caller = Caller(core, 0, broken, seed=1)
    for _ in range(2):
        step(core, [caller])
    core.close(0)
    again = Caller(core, 0, talk(12), seed=1)
    for _ in range(12):
        step(core, [again])
    np.testing.assert_array_equal(again.sounds, alone(ops, 12, 0, seed=1))


@pytest.mark.parametrize(("name", "value"), [("audio_top_k", 1e19), ("text_temperature", 1e39), ("audio_top_k", -1.0)])
def test_a_sampling_beyond_all_measure_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        oracle.core("moshi").open(0, Opening(sampling={name: value}))
