"""The tones of a telephone's keys, as sound: Twilio takes no digits out of a stream in any other way."""

import numpy as np
from numpy.typing import NDArray

LOWS = (697, 770, 852, 941)  # Hz, one for each row of keys
HIGHS = (1209, 1336, 1477, 1633)  # Hz, one for each column
FREQUENCIES = {
    digit: (low, high)
    for low, row in zip(LOWS, ("123A", "456B", "789C", "*0#D"), strict=True)
    for high, digit in zip(HIGHS, row, strict=True)
}
PAUSE = "w"  # as Twilio writes it
PAUSE_MS = 500
LEVEL = 0.25  # of full scale, each of the two: together -6 dBFS, as loud as a real telephone's
EDGE_MS = 5  # a softer start and end than a click, and short enough for any detector


def tones(digits: str, rate: int = 8000, tone_ms: int = 100, gap_ms: int = 60) -> NDArray[np.int16]:
    """The sound of these digits, each with a gap after it. A "w" is half a second of silence."""
    parts = [np.zeros(0, np.int16)]
    for digit in digits:
        if digit == PAUSE:
            parts.append(np.zeros(rate * PAUSE_MS // 1000, np.int16))
            continue
        if digit not in FREQUENCIES:
            raise ValueError(f"no telephone key {digit!r} in {digits!r}: use 0-9, *, #, A-D, or w for a pause")
        parts += [_tone(*FREQUENCIES[digit], rate, tone_ms), np.zeros(rate * gap_ms // 1000, np.int16)]
    return np.concatenate(parts)


def _tone(low: int, high: int, rate: int, tone_ms: int) -> NDArray[np.int16]:
    n = rate * tone_ms // 1000
    edge = min(rate * EDGE_MS // 1000, n // 2)
    time = np.arange(n) / rate
    wave = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
    rise = (1 - np.cos(np.pi * np.arange(edge) / max(edge, 1))) / 2
    wave[:edge] *= rise
    wave[n - edge :] *= rise[::-1]
    return np.rint(wave * (LEVEL * 32767)).astype(np.int16)
