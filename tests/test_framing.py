"""Framing: whole frames that never leave the sender's clock, whatever the network does. On a turned clock."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voice_bridge.codecs.framing import DEAD, FRAME, MAX_GAP, REPEATS, Framer

RATE = 8000
CHUNK = 160  # samples in the 20 ms that a message holds
STEP = 640  # samples of the line in a frame
LOOK = 0.08  # seconds between two looks for stalls
STALL = 0.24


def sound(start: int, samples: int = CHUNK) -> bytes:
    """A sender's sound from `start` on its clock: every sample tells its place, and none is silent."""
    return ((np.arange(start, start + samples) % 30_000) + 1).astype("<i2").tobytes()


class Model:
    """Takes the frames and holds them against the clock."""

    def __init__(self, framer: Framer) -> None:
        self.framer = framer
        self.frames: list[NDArray[np.int16]] = []
        self.most_at_once = 0

    @property
    def samples(self) -> int:
        return len(self.frames) * STEP

    @property
    def heard(self) -> NDArray[np.int16]:
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.int16)

    def take(self) -> None:
        before = len(self.frames)
        while (ready := self.framer.pop()) is not None:
            data, at = ready
            assert at == len(self.frames) * FRAME
            assert len(data) == STEP * 2
            self.frames.append(np.frombuffer(data, "<i2"))
        self.most_at_once = max(self.most_at_once, len(self.frames) - before)

    def push(self, data: bytes, at: int | None, now: float = 0.0) -> None:
        self.framer.push(data, at, now)
        self.take()

    def look(self, now: float) -> None:
        self.framer.fill_stall(now)
        self.take()

    def silent(self) -> NDArray[np.bool_]:
        """Where silence was put in; everything else must be the sender's sound, each sample in its place."""
        heard = self.heard
        silent: NDArray[np.bool_] = heard == 0
        place = np.frombuffer(sound(0, len(heard)), "<i2")
        assert np.array_equal(heard[~silent], place[~silent])
        return silent


def model() -> Model:
    framer = Framer(RATE, width=2, silence=b"\0\0")
    framer.begin(0.0)
    return Model(framer)


def at_20_ms(hearing: Model, chunks: range) -> None:
    for n in chunks:
        hearing.push(sound(n * CHUNK), n * CHUNK, (n + 1) * 0.02)


def arrive(hearing: Model, arrivals: list[float], looks_at: float = 0.0) -> None:
    """Chunk after chunk at its time, with looks for stalls between."""
    looks = 0
    for n, now in enumerate(arrivals):
        while (look := looks_at + looks * LOOK) < now:
            hearing.look(look)
            looks += 1
        hearing.push(sound(n * CHUNK), n * CHUNK, now)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4000), max_size=30), st.booleans(), st.integers(0, 10**9))
def test_frames_do_not_depend_on_the_cutting(cuts: list[int], stamped: bool, first: int) -> None:
    whole, cut = model(), model()
    whole.push(sound(0, 4000), None)
    for a, b in pairwise([0, *sorted(cuts), 4000]):
        cut.push(sound(a, b - a), first + a if stamped else None)
    assert len(cut.frames) == 4000 // STEP
    assert np.array_equal(cut.heard, whole.heard)


@pytest.mark.parametrize(("rate", "width"), [(8000, 1), (16_000, 2), (24_000, 4), (48_000, 2)])
def test_a_frame_is_80_ms_at_any_rate_with_its_place_at_24_khz(rate: int, width: int) -> None:
    framer = Framer(rate, width, silence=b"\xff" * width)
    framer.push(bytes(rate * width), 0, 0.0)
    frames = [framer.pop() for _ in range(13)]
    assert [frame and (len(frame[0]), frame[1]) for frame in frames] == [
        *((rate * 8 // 100 * width, n * 1920) for n in range(12)),
        None,
    ]


def test_half_a_sample_at_the_end_of_a_chunk_is_left_out() -> None:
    hearing = model()
    for n in range(8):
        hearing.push(sound(n * 80, 80) + b"\1", n * 80)
    assert not hearing.silent().any()
    assert hearing.samples == STEP


@pytest.mark.parametrize("first", [0, 57 * 8, 10**12])
@pytest.mark.parametrize("missing", [1, 2, 7, 49, 50])
def test_a_gap_in_the_stamps_becomes_silence_of_exactly_its_length(first: int, missing: int) -> None:
    hearing = model()
    for n in [*range(10), *range(10 + missing, 200)]:
        hearing.push(sound(n * CHUNK), first + n * CHUNK)
    silent = hearing.silent()
    assert silent[10 * CHUNK : (10 + missing) * CHUNK].all()
    assert silent.sum() == missing * CHUNK == hearing.framer.gap_samples
    assert hearing.framer.late_samples == 0
    assert hearing.samples == 200 * CHUNK


@pytest.mark.parametrize("forward", [1.02, 5.0, 86_400.0])
def test_a_clock_set_forward_costs_a_second_of_silence_and_no_more(forward: float) -> None:
    hearing = model()
    at_20_ms(hearing, range(10))
    jump = int(forward * RATE)
    for n in range(10, 100):
        hearing.push(sound(n * CHUNK), jump + n * CHUNK)
    assert hearing.framer.gap_samples == MAX_GAP * RATE
    assert hearing.samples == (100 * CHUNK + RATE) // STEP * STEP
    assert (hearing.heard == 0).sum() == RATE


@pytest.mark.parametrize("seed", range(5))
def test_stamps_that_jitter_by_two_milliseconds_neither_fill_nor_trim(seed: int) -> None:
    dice = random.Random(seed)
    hearing = model()
    for n in range(500):
        hearing.push(sound(n * CHUNK), 16 + n * CHUNK + dice.randint(-16, 16))
    assert hearing.framer.gap_samples == hearing.framer.late_samples == 0
    assert not hearing.silent().any()
    assert hearing.samples == 500 * CHUNK


def test_duplicates_are_dropped_and_counted() -> None:
    hearing = model()
    for n in range(100):
        hearing.push(sound(n * CHUNK), n * CHUNK)
        hearing.push(sound(n * CHUNK), n * CHUNK)
    assert not hearing.silent().any()
    assert hearing.samples == 100 * CHUNK
    assert hearing.framer.late_samples == 100 * CHUNK


def test_of_a_chunk_that_overlaps_only_the_new_part_is_taken() -> None:
    hearing = model()
    hearing.push(sound(0, 600), 0)
    hearing.push(sound(400, 400), 400)
    hearing.push(sound(800, 480), 800)
    assert not hearing.silent().any()
    assert hearing.samples == 1280
    assert hearing.framer.late_samples == 200


def test_a_chunk_that_comes_after_its_successor_is_dropped_for_its_time_was_filled() -> None:
    hearing = model()
    for n in [0, 1, 3, 2, 4, 5, 6, 7]:
        hearing.push(sound(n * CHUNK), n * CHUNK)
    assert hearing.silent().sum() == hearing.framer.gap_samples == hearing.framer.late_samples == CHUNK
    assert hearing.samples == 8 * CHUNK


@pytest.mark.parametrize("back", [0.3, 60.0])
def test_a_clock_set_back_is_followed_after_ten_chunks(back: float) -> None:
    hearing = model()
    at_20_ms(hearing, range(100))
    behind = int(back * RATE)
    for n in range(100, 140):
        hearing.push(sound(n * CHUNK), n * CHUNK - behind, (n + 1) * 0.02)
    lost = (REPEATS - 1) * CHUNK
    assert hearing.framer.late_samples == lost
    assert hearing.framer.gap_samples == 0
    assert hearing.samples == (140 * CHUNK - lost) // STEP * STEP
    assert np.array_equal(hearing.heard[100 * CHUNK :][:STEP], np.frombuffer(sound(100 * CHUNK + lost, STEP), "<i2"))


def test_a_sender_that_repeats_itself_forever_is_heard_and_fills_nothing() -> None:
    hearing = model()
    for _ in range(1000):
        hearing.push(sound(0), 0)
    assert hearing.samples <= 1000 // REPEATS * CHUNK
    assert hearing.framer.gap_samples == 0


@pytest.mark.parametrize("looks_at", [0.0, 0.001, 0.02, 0.041, 0.079])
def test_a_stall_of_a_second_leaves_no_clock_error(looks_at: float) -> None:
    hearing = model()
    due = [(n + 1) * 0.02 for n in range(400)]
    arrive(hearing, [6.0 if 5.0 < at < 6.0 else at for at in due], looks_at)
    silent = hearing.silent()
    assert hearing.samples == 400 * CHUNK
    assert silent.sum() == hearing.framer.gap_samples == hearing.framer.late_samples > 0
    assert not silent[6 * RATE :].any()
    assert silent.sum() >= (1.0 - STALL) * RATE
    assert hearing.most_at_once <= round(STALL / LOOK)


def test_silence_is_fed_from_240_ms_on_so_that_the_model_is_never_further_behind() -> None:
    hearing = model()
    at_20_ms(hearing, range(200))
    for ms in range(4000, 4000 + 3000):
        now = ms / 1000
        hearing.look(now)
        assert (hearing.framer.gap_samples > 0) == (now - 4.0 >= STALL)
        assert now - hearing.samples / RATE <= STALL + 1e-9
        assert hearing.samples / RATE <= now


def test_late_sound_is_left_out_even_if_nobody_looked_in_the_stall() -> None:
    hearing = model()
    at_20_ms(hearing, range(200))
    for n in range(200, 300):
        hearing.push(sound(n * CHUNK), n * CHUNK, 6.0)
    assert hearing.samples == 300 * CHUNK
    assert hearing.framer.gap_samples == hearing.framer.late_samples >= (2.0 - STALL) * RATE
    assert not hearing.silent()[6 * RATE :].any()


@pytest.mark.parametrize("lost", [0.5, 1.0, 3.0])
def test_sound_lost_in_a_stall_is_silence_of_its_length(lost: float) -> None:
    hearing = model()
    at_20_ms(hearing, range(200))
    hearing.look(4.0 + lost - 0.01)
    at_20_ms(hearing, range(200 + int(lost * 50), 400))
    silent = hearing.silent()
    assert silent.sum() == hearing.framer.gap_samples == int(lost * RATE)
    assert silent[4 * RATE :][: int(lost * RATE)].all()
    assert hearing.samples == 400 * CHUNK


@pytest.mark.parametrize("seed", range(3))
def test_100_ms_of_jitter_lose_no_sample(seed: int) -> None:
    dice = random.Random(seed)
    arrivals = [0.0]
    for n in range(3000):
        arrivals.append(max(arrivals[-1], (n + 1) * 0.02 + dice.uniform(0, 0.1)))
    hearing = model()
    arrive(hearing, arrivals[1:])
    assert hearing.framer.gap_samples == hearing.framer.late_samples == 0
    assert hearing.samples == 3000 * CHUNK
    assert not hearing.silent().any()


def test_an_hour_drifts_by_nothing() -> None:
    framer = Framer(RATE, width=1, silence=b"\xff")
    framer.begin(0.0)
    frames = 0
    for n in range(180_000):
        framer.push(bytes(CHUNK), n * CHUNK, (n + 1) * 0.02)
        while (ready := framer.pop()) is not None:
            assert ready[1] == frames * FRAME
            frames += 1
    assert frames * FRAME == 3600 * 24_000
    assert framer.gap_samples == framer.late_samples == 0


@pytest.mark.parametrize("ppm", [-200, 200])
def test_frames_follow_the_stamps_and_not_the_count_of_samples(ppm: int) -> None:
    framer = Framer(RATE, width=1, silence=b"\xff")
    popped = 0
    for n in range(90_000):
        at = round(n * CHUNK * (1 + ppm / 1e6))
        framer.push(bytes(CHUNK), at, at / RATE)
        while framer.pop() is not None:
            popped += STEP
        assert abs(at + CHUNK - popped) <= STEP + 80
    assert abs(framer.gap_samples - framer.late_samples) >= 1800 * RATE * 200 // 1_000_000 - 80


@pytest.mark.parametrize("every", [None, 1.0])
def test_a_stall_of_hours_is_dead_and_fills_no_memory(every: float | None) -> None:
    hearing = model()
    at_20_ms(hearing, range(4))
    assert not hearing.framer.dead(0.08 + DEAD)
    for now in np.arange(1.0, 7200.0, every) if every else [7200.0]:
        hearing.look(float(now))
    assert hearing.framer.dead(7200.0)
    assert hearing.framer.gap_samples < DEAD * RATE
    hearing.push(sound(0), 4 * CHUNK, 7200.0)
    assert not hearing.framer.dead(7200.0)


def test_before_it_begins_nothing_is_due() -> None:
    framer = Framer(RATE, width=1, silence=b"\xff")
    framer.fill_stall(100.0)
    assert framer.gap_samples == 0
    assert not framer.dead(100.0)


def test_a_stream_that_begins_and_never_brings_sound_gives_silence_then_dies() -> None:
    hearing = model()
    hearing.look(0.23)
    assert not hearing.frames
    hearing.look(1.0)
    assert hearing.silent().all()
    assert 1.0 - hearing.samples / RATE <= STALL
    assert hearing.framer.dead(5.1)


def test_chunks_without_stamps_follow_each_other() -> None:
    hearing = model()
    now = 0.0
    for n in range(200):
        now += 0.02 if n % 10 else 0.2
        hearing.push(sound(n * CHUNK), None, now)
        hearing.look(now + 0.01)
    assert not hearing.silent().any()
    assert hearing.samples == 200 * CHUNK


def test_chunks_without_stamps_are_all_heard_after_a_stall_too() -> None:
    hearing = model()
    for n in range(200):
        now = (n + 1) * 0.02 + (1.0 if n >= 100 else 0.0)
        hearing.look(now)
        hearing.push(sound(n * CHUNK), None, now)
    heard = hearing.heard
    assert np.array_equal(heard[heard != 0][: 200 * CHUNK - STEP], np.frombuffer(sound(0, 200 * CHUNK - STEP), "<i2"))
    assert hearing.framer.late_samples == 0


def test_chunks_with_and_without_stamps_may_be_mixed() -> None:
    hearing = model()
    for n in range(40):
        hearing.push(sound(n * CHUNK), n * CHUNK if n % 3 else None)
    assert not hearing.silent().any()
    assert hearing.samples == 40 * CHUNK


CHUNKS = st.tuples(
    st.integers(0, 3000),  # samples
    st.none() | st.integers(-20_000, 20_000) | st.integers(-(10**15), 10**15),  # how far its stamp is off
    st.floats(0, 2) | st.just(0.02),  # seconds since the last
)
LOOKS = st.floats(0, 20)  # seconds since the last


@settings(max_examples=300, deadline=None)
@given(st.lists(CHUNKS | LOOKS, max_size=60))
def test_whatever_comes_every_sample_is_accounted_for(steps: list[tuple[int, int | None, float] | float]) -> None:
    hearing = model()
    now, clock, pushed = 0.0, 0, 0
    for step in steps:
        if isinstance(step, float):
            now += step
            hearing.look(now)
        else:
            samples, off, later = step
            now += later
            hearing.push(sound(clock, samples), None if off is None else clock + off, now)
            clock += samples
            pushed += samples
        framer = hearing.framer
        assert 0 <= pushed + framer.gap_samples - framer.late_samples - hearing.samples < STEP
        assert 0 <= framer.late_samples <= pushed
        assert hearing.most_at_once * STEP <= 3000 + STEP + (MAX_GAP + DEAD) * RATE
