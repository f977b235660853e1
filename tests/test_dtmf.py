"""In-band digits: what a detector at the far end would make of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from voice_bridge.codecs import dtmf, g711

KEYS = "123A456B789C*0#D"
LOWS, HIGHS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)  # ITU-T Q.23


def goertzel(pcm: NDArray[np.int16], hertz: float, rate: int) -> float:
    """The power of one frequency."""
    turn = 2 * np.cos(2 * np.pi * hertz / rate)
    last = before = 0.0
    for sample in pcm.tolist():
        last, before = sample + turn * last - before, last
    return last * last + before * before - turn * last * before


def detect(pcm: NDArray[np.int16], rate: int = 8000) -> str:
    """The key whose two tones stand 20 dB above the six others."""
    key = ""
    powers = [[goertzel(pcm, hertz, rate) for hertz in group] for group in (LOWS, HIGHS)]
    low, high = (int(np.argmax(group)) for group in powers)
    others = [p for group, best in zip(powers, (low, high), strict=True) for i, p in enumerate(group) if i != best]
    if min(powers[0][low], powers[1][high]) > 100 * max(others):
        key = KEYS[4 * low + high]
    return key


@pytest.mark.parametrize("digit", KEYS)
def test_each_digit_is_heard_before_and_after_mu_law(digit: str) -> None:
    pcm = dtmf.tones(digit)[:800]
    assert detect(pcm) == digit
    assert detect(g711.decode(g711.encode(pcm))) == digit


def test_digits_follow_each_other_with_gaps_and_pauses() -> None:
    pcm = dtmf.tones("4w2")
    assert len(pcm) == 2 * (800 + 480) + 4000
    assert not pcm[800:5280].any()
    assert not pcm[6080:].any()
    assert detect(pcm[:800]) == "4"
    assert detect(pcm[5280:6080]) == "2"


def test_rate_and_lengths_are_the_callers() -> None:
    pcm = dtmf.tones("7", rate=24_000, tone_ms=50, gap_ms=10)
    assert len(pcm) == 1200 + 240
    assert detect(pcm[:1200], 24_000) == "7"


def test_tones_are_at_minus_six_decibels_and_begin_and_end_softly() -> None:
    pcm = dtmf.tones("5")[:800].astype(float)
    assert 20 * np.log10(np.abs(pcm).max() / 32768) == pytest.approx(-6, abs=0.5)
    edges = np.concatenate([pcm[:5], pcm[-5:]])
    assert np.abs(edges).max() < 0.02 * np.abs(pcm).max()


def test_no_digits_are_no_sound() -> None:
    assert len(dtmf.tones("")) == 0


@pytest.mark.parametrize("digits", ["12x", "1 2", "a", "W"])
def test_an_unknown_key_is_named(digits: str) -> None:
    bad = next(digit for digit in digits if digit not in KEYS)
    with pytest.raises(ValueError, match=f"no telephone key '{bad}'"):
        dtmf.tones(digits)
