"""8 kHz to 24 kHz and back for live calls, exactly; other rates of live clients; any rate to any other for files.

The filter of telephone calls is a linear-phase low-pass at 24 kHz: flat to 3.3 kHz, 70 dB down from 4.6 kHz. Up
delays by 47.5 samples of 24 kHz and Down by 45.5: under 2 ms each, and together 31 samples of 8 kHz.

Samples enter the filter as whole numbers and its taps are multiples of TAP_STEP, so no sum is ever rounded in
float64: however the input is cut into pushes, the output is the same to the last bit.
"""

from math import ceil, gcd
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", np.float32, np.int16)

FULL_SCALE = 32_768  # 16-bit steps in 1.0
RATIO = 3  # 24 kHz / 8 kHz
TAPS = 96  # 4 ms: enough to fall by 70 dB between 3.3 and 4.6 kHz
CUTOFF = 3950 / 24_000  # the middle of that fall, in cycles a sample
BETA = 7.9  # the Kaiser window's shape: a stop-band 80 dB down, some in hand
TAP_STEP = 2.0**-24  # far below 16 bits of sound; sums of 2**21 x 2**24 x 96 taps still stay under 2**53
OVERLOAD = 64.0  # Down takes louder input as this loud, so that the line above holds
PAST = TAPS // RATIO  # the samples of 8 kHz that the filter looks back on
BLOCK = 16  # samples of 8 kHz in a row of the matrix product: more multiplies more zeros, fewer copies more

FILE_REACH = 32  # periods of the lower rate on each side: 70 dB within 8 % of that rate
FILE_CUTOFF = 0.46  # of the lower rate: flat to 0.42, silent from 0.5, where aliases begin
FILE_PHASES = 160  # outputs in a row of the matrix product: 22.05 to 24 kHz in one, and odd rates in bounded memory
FILE_ROWS = 256  # rows of a product: its copy of the input stays small


def _kaiser(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """The window at offsets of -1 to 1 from its middle."""
    return np.i0(BETA * np.sqrt(1 - offset**2)) / np.i0(BETA)


def _taps(gain: int, ratio: int = RATIO) -> NDArray[np.float64]:
    """The filter at `ratio` times the lower rate, where it is computed."""
    middle = (PAST * ratio - 1) / 2
    time = np.arange(PAST * ratio, dtype=np.float64) - middle
    taps = np.sinc(2 * CUTOFF * RATIO / ratio * time) * _kaiser(time / middle)
    steps: NDArray[np.float64] = np.rint(taps * (gain / taps.sum()) / TAP_STEP)
    return steps * TAP_STEP


def _matrix(gain: int, ages: NDArray[np.int64], ratio: int = RATIO) -> NDArray[np.float64]:
    """The tap for each age, which is how far an output lies behind an input; zero where the filter ends."""
    taps = _taps(gain, ratio)
    return np.where((ages >= 0) & (ages < len(taps)), taps[ages.clip(0, len(taps) - 1)], 0.0)


def _rows(x: NDArray[np.floating], step: int, width: int) -> NDArray[np.floating]:
    """A view of `x` as rows of `width` samples, one every `step`."""
    shape = ((len(x) - width) // step + 1, width)
    return np.ndarray(shape, x.dtype, x, strides=(step * x.itemsize, x.itemsize))


# One row (the past, then a block of input) times the matrix is one block of output.
_UP_IN = RATIO * np.arange(-PAST, BLOCK)  # times of a row's samples and of its outputs, in samples of 24 kHz
_UP_OUT = np.arange(BLOCK * RATIO)
_UP = _matrix(RATIO, _UP_OUT - _UP_IN[:, None]) / FULL_SCALE
_DOWN_IN = np.arange(-TAPS, BLOCK * RATIO)
_DOWN_OUT = np.arange(RATIO - 1, BLOCK * RATIO, RATIO)
_DOWN = _matrix(1, _DOWN_OUT - _DOWN_IN[:, None])

# Arrays of no dimension, because NumPy takes half a microsecond to make one of a number.
_SCALE = np.array(FULL_SCALE, np.float32)
_UP_LOW, _UP_HIGH = np.array(-1, np.float64), np.array(1, np.float64)
_DOWN_LOW, _DOWN_HIGH = np.array(-FULL_SCALE, np.float64), np.array(FULL_SCALE - 1, np.float64)


def _clip(x: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any], out: NDArray[Kind]) -> NDArray[Kind]:
    """`x` within bounds, in `out` and as its type. NumPy's own clip takes three times as long to begin."""
    np.minimum(x, high, out=x)
    np.maximum(x, low, out=out, casting="unsafe")
    return out


class _Layout:
    """Where one stream's samples are laid out for the product, for pushes of one size.

    A call pushes frames of one size, so this is made once: an array that is made anew costs more than it holds.
    """

    def __init__(self, size: int, past: int, block: int, matrix: NDArray[np.float64], kind: type[np.floating]) -> None:
        blocks = -(-size // block)
        self.size = size
        self.x = np.zeros(past + blocks * block, kind)
        self.fresh = self.x[past : past + size]
        self._matrix = matrix
        self._view = _rows(self.x, block, past + block)
        self._rows = np.empty(self._view.shape)
        self._product = np.empty((blocks, matrix.shape[1]))
        self._flat = self._product.reshape(-1)

    def product(self, count: int) -> NDArray[np.float64]:
        """The filter's next `count` outputs, good until the next push."""
        np.copyto(self._rows, self._view)  # contiguous, as BLAS wants it
        np.dot(self._rows, self._matrix, self._product)
        return self._flat[:count]


class Up:
    """One stream from 8 kHz to 24 kHz."""

    def __init__(self) -> None:
        self._past = np.zeros(PAST)
        self._layout = _Layout(0, PAST, BLOCK, _UP, np.float64)

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """Three samples, from -1 to 1, for each one given."""
        n = len(pcm)
        if n != self._layout.size:
            self._layout = _Layout(n, PAST, BLOCK, _UP, np.float64)
        layout = self._layout
        layout.x[:PAST] = self._past
        layout.fresh[:] = pcm
        self._past[:] = layout.x[n : n + PAST]
        return _clip(layout.product(n * RATIO), _UP_LOW, _UP_HIGH, np.empty(n * RATIO, np.float32))


class Down:
    """One stream from 24 kHz to 8 kHz."""

    def __init__(self) -> None:
        self._past = np.zeros(TAPS, np.float32)  # then the one or two samples that wait for their third
        self._layout = _Layout(0, TAPS, BLOCK * RATIO, _DOWN, np.float32)

    def push(self, pcm: NDArray[np.float32]) -> NDArray[np.int16]:
        """One sample for every three given so far; what is left of three waits for the next push.

        Full scale is -1 to 1. Louder sound saturates, NaN is silence.
        """
        # Under this sum no sample is over and none NaN. Other products than vdot warn of an overflow.
        if not np.vdot(pcm, pcm) < 0.9 * OVERLOAD**2:
            pcm = np.nan_to_num(pcm).clip(-OVERLOAD, OVERLOAD)
        held = len(self._past)
        size = held - TAPS + len(pcm)
        if size != self._layout.size:
            self._layout = _Layout(size, TAPS, BLOCK * RATIO, _DOWN, np.float32)
        layout = self._layout
        n, left = divmod(size, RATIO)
        layout.x[:held] = self._past
        fresh = layout.x[held : held + len(pcm)]
        np.multiply(pcm, _SCALE, out=fresh)
        np.rint(fresh, out=fresh)
        self._past = layout.x[n * RATIO : n * RATIO + TAPS + left].copy()
        product = layout.product(n)
        np.rint(product, out=product)
        return _clip(product, _DOWN_LOW, _DOWN_HIGH, np.empty(n, np.int16))


class Convert:
    """One stream of 16-bit sound from a rate to another, of 8, 16, 24 and 48 kHz.

    As many samples come out as the rates say; what is short of a whole period (at most two samples) waits for the
    next push. Flat to 0.41 of the lower rate, 70 dB down from 0.58; the delay is under 2 ms.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        common = gcd(rate_in, rate_out)
        self._ups, self._downs = rate_out // common, rate_in // common
        ratio = max(self._ups, self._downs)
        self._history = -(-PAST * ratio // self._ups)  # input samples that the filter looks back on
        # In samples of the rate that both divide: one row of inputs, and its outputs.
        times_in = self._ups * np.arange(-self._history, BLOCK * self._downs)
        times_out = self._downs * np.arange(BLOCK * self._ups)
        self._filter = _matrix(self._ups, times_out - times_in[:, None], ratio)
        self._past: NDArray[np.float64] = np.zeros(self._history)  # then what waits for the rest of its period

    def push(self, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        x: NDArray[np.float64] = np.concatenate((self._past, pcm))
        periods = (len(x) - self._history) // self._downs
        self._past = x[periods * self._downs :].copy()
        blocks = -(-periods // BLOCK)
        if not blocks:
            return np.zeros(0, np.int16)
        step = BLOCK * self._downs
        padded = np.zeros(self._history + blocks * step)
        padded[: len(x)] = x[: len(padded)]
        product = (np.ascontiguousarray(_rows(padded, step, self._history + step)) @ self._filter).reshape(-1)
        outputs = product[: periods * self._ups]
        np.rint(outputs, out=outputs)
        return _clip(outputs, _DOWN_LOW, _DOWN_HIGH, np.empty(len(outputs), np.int16))


def resample(pcm: NDArray[np.float32], rate_in: int, rate_out: int) -> NDArray[np.float32]:
    """A whole recording at another rate, without delay. For files: too slow for live sound.

    Flat to 0.42 of the lower rate, aliases and images 70 dB down. Loud sound may overshoot 1.0 a little.
    """
    if rate_in <= 0 or rate_out <= 0:
        raise ValueError(f"cannot resample from {rate_in} Hz to {rate_out} Hz: rates must be above zero")
    if rate_in == rate_out or not len(pcm):
        return pcm.copy()
    common = gcd(rate_in, rate_out)
    up, down = rate_out // common, rate_in // common
    lower = min(rate_in, rate_out)
    reach = ceil(FILE_REACH * rate_in / lower)
    offsets = np.arange(1 - reach, reach + 1)[:, None]  # of the input samples that make one output
    padded = np.pad(pcm, (reach - 1, reach + down))
    count = -(-len(pcm) * up // down)
    out = np.empty((-(-count // up), up), np.float32)  # outputs `up` apart lie alike between their inputs
    for start in range(0, min(up, count), FILE_PHASES):
        stop = min(start + FILE_PHASES, up)
        first, part = np.divmod(np.arange(start, stop) * down, up)
        time = offsets - part / up
        taps = np.sinc(2 * FILE_CUTOFF * lower / rate_in * time) * _kaiser(time / reach)
        matrix = np.zeros((first[-1] - first[0] + 2 * reach, stop - start), np.float32)
        matrix[first - first[0] + offsets + reach - 1, np.arange(stop - start)] = taps / taps.sum(0)
        windows = np.lib.stride_tricks.sliding_window_view(padded[first[0] :], len(matrix))[::down]
        for row in range(0, len(out), FILE_ROWS):
            last = min(row + FILE_ROWS, len(out))
            out[row:last, start:stop] = windows[row:last] @ matrix
    return out.reshape(-1)[:count]
