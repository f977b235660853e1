"""Mu-law: every code and every sample, against audioop and against G.711 written out."""

import importlib
import subprocess
import sys

import numpy as np

from voice_bridge.codecs import g711

audioop = importlib.import_module("audioop")  # after g711, which keeps its deprecation quiet

CODES = bytes(range(256))
SAMPLES = np.arange(-32768, 32768).astype(np.int16)


def standard_decode(code: int) -> int:
    """G.711: the code's bits are inverted sign, segment and step, of 14-bit sound."""
    sign, segment, step = ~code & 0x80, (~code >> 4) & 7, ~code & 15
    size = ((2 * step + 33) << segment) - 33
    return 4 * (-size if sign else size)


def standard_encode(sample: int) -> int:
    sample >>= 2  # 14 bits
    size = min(abs(sample), 8158) + 33
    segment = size.bit_length() - 6
    step = (size >> (segment + 1)) & 15
    return ~((0x80 if sample < 0 else 0) | segment << 4 | step) & 0xFF


def test_every_code_decodes_as_g711_says() -> None:
    assert g711.decode(CODES).tolist() == [standard_decode(code) for code in CODES]


def test_every_sample_encodes_as_g711_says() -> None:
    assert list(g711.encode(SAMPLES)) == [standard_encode(sample) for sample in SAMPLES.tolist()]


def test_both_ways_agree_with_audioop() -> None:
    assert g711.decode(CODES).tobytes() == audioop.ulaw2lin(CODES, 2)
    assert g711.encode(SAMPLES) == audioop.lin2ulaw(SAMPLES.tobytes(), 2)


def test_a_code_survives_the_way_out_and_back() -> None:
    back = g711.encode(g711.decode(CODES))
    assert [(code, again) for code, again in zip(CODES, back, strict=True) if code != again] == [(0x7F, 0xFF)]


def test_a_channel_of_stereo_encodes_like_a_copy_of_it() -> None:
    stereo = np.stack([SAMPLES, SAMPLES[::-1]], axis=1)
    assert g711.encode(stereo[:, 1]) == g711.encode(SAMPLES[::-1].copy())


def test_silence_is_zero_and_as_long_as_asked() -> None:
    assert g711.silence(3) == b"\xff\xff\xff"
    assert g711.decode(g711.silence(160)).tolist() == [0] * 160
    assert g711.encode(np.zeros(2, np.int16)) == g711.silence(2)


def test_the_import_is_quiet_where_warnings_are_errors() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "import voice_bridge.codecs.g711"], check=True)
