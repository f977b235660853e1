"""Resampling: exact however the input is cut, and clean as measured on what comes out."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voice_bridge.codecs.resample import TAP_STEP, Down, Up, _taps, resample

RANDOM = np.random.default_rng(8)
LOUD = RANDOM.integers(-32768, 32768, 2400).astype(np.int16)
LOUD_24K = RANDOM.uniform(-1.2, 1.2, 7201).astype(np.float32)  # clips here and there, and leaves a remainder
SETTLED = 0.1  # seconds after which a filter has forgotten its start


def sine(hertz: float, rate: int, seconds: float = 0.3) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def pcm16(wave: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.rint(wave * 32767).astype(np.int16)


def spectrum(wave: NDArray[np.floating] | NDArray[np.int16], rate: int) -> NDArray[np.float64]:
    """Decibels below a full-scale sine for each multiple of 10 Hz, over a whole number of its periods."""
    steady = wave[round(rate * SETTLED) :][: rate // 10].astype(np.float64)
    return 20 * np.log10(np.abs(np.fft.rfft(steady)) / (len(steady) / 2) + 1e-12)


def cut(n: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, n), max_size=12).map(lambda cuts: [0, *sorted(cuts), n])


@settings(max_examples=60, deadline=None)
@given(cut(len(LOUD)))
def test_up_does_not_depend_on_the_cutting(cuts: list[int]) -> None:
    up = Up()
    parts = [up.push(LOUD[a:b]) for a, b in pairwise(cuts)]
    assert [len(part) for part in parts] == [3 * (b - a) for a, b in pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == Up().push(LOUD).tobytes()


@settings(max_examples=60, deadline=None)
@given(cut(len(LOUD_24K)))
def test_down_does_not_depend_on_the_cutting(cuts: list[int]) -> None:
    down = Down()
    parts = [down.push(LOUD_24K[a:b]) for a, b in pairwise(cuts)]
    assert [len(part) for part in parts] == [b // 3 - a // 3 for a, b in pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == Down().push(LOUD_24K).tobytes()


def test_sample_by_sample_is_the_same_too() -> None:
    up, down = Up(), Down()
    assert np.concatenate([up.push(LOUD[i : i + 1]) for i in range(500)]).tobytes() == (Up().push(LOUD[:500]).tobytes())
    assert np.concatenate([down.push(LOUD_24K[i : i + 1]) for i in range(1500)]).tobytes() == (
        Down().push(LOUD_24K[:1500]).tobytes()
    )


def exact_sums(samples: NDArray[np.int64], gain: int) -> NDArray[np.float64]:
    """What the filter makes of these at 24 kHz, in integers, which round nothing."""
    steps = _taps(gain) / TAP_STEP
    assert np.array_equal(steps, np.rint(steps))
    return np.convolve(samples, steps.astype(np.int64))[: len(samples)] * TAP_STEP


def test_outputs_are_exact_sums_rounded_once() -> None:
    spread = np.zeros(3 * len(LOUD), np.int64)
    spread[::3] = LOUD
    ups = exact_sums(spread, 3) / 32768
    assert np.array_equal(Up().push(LOUD), ups.clip(-1, 1).astype(np.float32))

    downs = exact_sums(np.rint(LOUD_24K.astype(np.float64) * 32768).astype(np.int64), 1)[2::3]
    assert np.array_equal(Down().push(LOUD_24K), np.rint(downs).clip(-32768, 32767).astype(np.int16))


def test_absurdly_loud_input_counts_as_64_times_full_scale_however_it_is_cut() -> None:
    sound = np.zeros(600, np.float32)
    sound[[30, 300]] = 64, -64
    limit = Down().push(sound)
    sound[[30, 300]] = 1e6, -1e6
    down = Down()
    parts = [down.push(sound[a:b]) for a, b in ((0, 30), (30, 31), (31, 300), (300, 600))]
    assert np.array_equal(np.concatenate(parts), limit)


@pytest.mark.parametrize("n", [160, 640])
def test_a_chunk_comes_out_at_once(n: int) -> None:
    assert len(Up().push(LOUD[:n])) == 3 * n
    assert len(Down().push(LOUD_24K[: 3 * n])) == n


@pytest.mark.parametrize("hertz", [50, 300, 1000, 2000, 3000, 3300])
def test_the_pass_band_is_flat_and_images_are_70_db_down_on_the_way_up(hertz: int) -> None:
    level = spectrum(Up().push(pcm16(sine(hertz, 8000))), 24_000)
    assert abs(level[hertz // 10]) < 1
    level[hertz // 10] = -200
    assert level.max() < -70


@pytest.mark.parametrize("hertz", [50, 300, 1000, 2000, 3000, 3300])
def test_the_pass_band_is_flat_on_the_way_down(hertz: int) -> None:
    level = spectrum(Down().push(sine(hertz, 24_000).astype(np.float32)) / 32767, 8000)
    assert abs(level[hertz // 10]) < 1
    level[hertz // 10] = -200
    assert level.max() < -70


@pytest.mark.parametrize("hertz", [4600, 4610, 4700, 5000, 6000, 7000, 7990, 8010, 9000, 10_000, 11_500, 12_000])
def test_what_would_alias_is_70_db_down(hertz: int) -> None:
    wave = np.cos(2 * np.pi * hertz * np.arange(7200) / 24_000)  # a sine of 12 kHz would be silent by itself
    assert spectrum(Down().push(wave.astype(np.float32)) / 32767, 8000).max() < -70


def impulse_response(way: str) -> NDArray[np.float64]:
    """The answer at 24 kHz to an impulse at time 0."""
    if way == "up":
        return Up().push(pcm16(np.eye(1, 64)[0])).astype(np.float64)
    answer = np.zeros(192)
    for late in range(3):  # the third sample of each three is the one that comes out
        impulse = np.zeros(192, np.float32)
        impulse[late] = 1
        out = Down().push(impulse)
        answer[2 - late :: 3] = out[: len(answer[2 - late :: 3])]
    return answer / 32768


@pytest.mark.parametrize("way", ["up", "down"])
def test_the_impulse_response_holds_the_bands_at_every_frequency(way: str) -> None:
    response = np.abs(np.fft.rfft(impulse_response(way), 2400))  # one value each 10 Hz
    level = 20 * np.log10(response / response[0] + 1e-12)
    assert np.abs(level[:331]).max() < 1
    assert level[460:].max() < -70


@pytest.mark.parametrize("way", ["up", "down"])
def test_the_group_delay_is_under_four_milliseconds(way: str) -> None:
    phase = np.unwrap(np.angle(np.fft.rfft(impulse_response(way), 2400)))[5:331]
    delay = -np.diff(phase) / (2 * np.pi * 10)  # seconds, at each 10 Hz of the pass-band
    assert delay.min() > 0
    assert delay.max() < 0.004
    assert np.ptp(delay) < 0.0001  # every frequency alike


def test_there_and_back_is_the_same_sound_31_samples_later() -> None:
    wave = pcm16((sine(440, 8000) + sine(1330, 8000) + sine(3100, 8000)) / 3)
    back = Down().push(Up().push(wave))
    error = back[131:].astype(float) - wave[100:-31]
    assert 20 * np.log10(error.std() / wave.std()) < -60


def test_silence_stays_silence() -> None:
    assert not Up().push(np.zeros(1600, np.int16)).any()
    assert not Down().push(np.zeros(4800, np.float32)).any()


def test_the_loudest_sound_saturates_and_never_wraps() -> None:
    square = np.where(sine(250, 8000) >= 0, 32767, -32768).astype(np.int16)
    out = Up().push(square)
    assert out.max() == 1
    assert out.min() == -1

    loud = np.where(sine(250, 24_000) >= 0, 1, -1).astype(np.float32)
    soft = Down().push(loud / 2).astype(float) * 2
    out16 = Down().push(loud)
    assert out16.max() == 32767
    assert out16.min() == -32768
    assert np.abs(out16 - soft.clip(-32768, 32767)).max() <= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_a_broken_sample_costs_a_moment_and_no_more(bad: float) -> None:
    down = Down()
    sound = sine(500, 24_000).astype(np.float32)
    broken = sound.copy()
    broken[3000] = bad
    out, good = down.push(broken), Down().push(sound)
    assert np.array_equal(out[:1000], good[:1000])
    assert np.array_equal(out[1032:], good[1032:])
    if np.isnan(bad):
        hole = sound.copy()
        hole[3000] = 0
        assert np.array_equal(out, Down().push(hole))
    else:
        assert np.abs(out[1000:1032].astype(int)).max() >= 32767


def test_an_hour_of_calls_neither_drifts_nor_grows() -> None:
    frame = pcm16(sine(1000, 8000, 0.08))  # a whole number of periods: every frame is the same
    up, down = Up(), Down()
    for _ in range(10):
        steady = down.push(up.push(frame))
    tracemalloc.start()
    try:
        up.push(frame), down.push(up.push(frame))
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(45_000):
            last = down.push(up.push(frame))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(last) == 640
    assert np.array_equal(last, steady)
    assert after - before < 10_000


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_a_recording_of_any_rate_becomes_24_khz_without_images_aliases_or_delay(rate: int) -> None:
    lower = min(rate, 24_000)
    for hertz in (100, 1000, int(0.042 * lower) * 10):
        out = resample(sine(hertz, rate).astype(np.float32), rate, 24_000)
        assert len(out) == -(-len(sine(hertz, rate)) * 24_000 // rate)
        middle = slice(2400, 4800)
        assert np.abs(out[middle] - sine(hertz, 24_000)[middle]).max() < 10 ** (-60 / 20)
        level = spectrum(out, 24_000)
        level[hertz // 10] = -200
        assert level.max() < -70


@pytest.mark.parametrize(("rate", "target"), [(48_000, 24_000), (44_100, 24_000), (24_000, 8000)])
def test_a_recording_loses_what_the_lower_rate_cannot_hold(rate: int, target: int) -> None:
    for hertz in (target // 2 + 10, target * 6 // 10, rate // 2 - 50):
        assert spectrum(resample(sine(hertz, rate).astype(np.float32), rate, target), target).max() < -70


@pytest.mark.parametrize(
    ("n", "rate_in", "rate_out", "length"), [(0, 8000, 24_000, 0), (1, 44_100, 8000, 1), (5, 7, 3, 3)]
)
def test_the_shortest_recordings_have_a_length_too(n: int, rate_in: int, rate_out: int, length: int) -> None:
    assert len(resample(np.ones(n, np.float32), rate_in, rate_out)) == length


def test_the_same_rate_is_a_copy() -> None:
    sound = LOUD_24K.copy()
    same = resample(sound, 24_000, 24_000)
    assert np.array_equal(same, sound)
    assert same is not sound


def test_a_long_recording_takes_little_more_memory_than_itself() -> None:
    sound = np.zeros(44_100 * 30, np.float32)
    tracemalloc.start()
    try:
        out = resample(sound, 44_100, 24_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * (sound.nbytes + out.nbytes)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rate", [0, -8000])
def test_a_rate_of_nothing_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match=f"from {rate} Hz"):
        resample(LOUD_24K, rate, 24_000)
