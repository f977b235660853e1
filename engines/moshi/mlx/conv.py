"""Convolutions that stream, as in `torch/conv.py`: matrix products over windows of neighbouring rows, of one kind.

A convolution of stride s and kernel 2s, and a transposed one, have two taps and stride one once the steps of a block
of s lie side by side in a row.
"""

from __future__ import annotations

import mlx.core as mx

from ..tails import Tails
from .product import Product


class Past:
    """The tails of the streams of one pass, and what takes their place. Streams that are `fresh` begin with silence."""

    def __init__(self, tails: mx.array, fresh: mx.array) -> None:
        self._fresh = fresh[:, None]  # [n, 1]
        self._tails = mx.where(self._fresh, 0.0, tails)  # [n, width]
        self._kept: dict[int, mx.array] = {}

    def read(self, part: slice, start: mx.array | None = None) -> mx.array:
        """What was kept there [n, part]; or `start`, for streams that are fresh, if it is given."""
        tail = self._tails[:, part]
        return tail if start is None else mx.where(self._fresh, start, tail)

    def keep(self, part: slice, rows: mx.array) -> None:
        self._kept[part.start] = rows.reshape(len(rows), -1)

    def after(self) -> mx.array:
        """The tails from now on [n, width]: every part must have been kept."""
        return mx.concatenate([self._kept[start] for start in sorted(self._kept)], axis=1)


class Conv:
    """y[t] = bias + the sum over k of x[t - taps + 1 + k] @ weight[k], for `steps` rows a frame."""

    def __init__(self, weight: mx.array, bias: mx.array | None, steps: int, tails: Tails, block: int = 1) -> None:
        """`weight` is [taps, wide, out], where `out` are the channels of a block of steps."""
        self._taps, self._wide, out = weight.shape
        self._steps, self._block = steps, block
        self._tail = tails.take((self._taps - 1) * self._wide)
        self._product = Product(weight.reshape(-1, out).T, bias)

    def __call__(self, x: mx.array, past: Past, elu: bool = True, repeat: bool = False) -> mx.array:
        """x, which holds [n, steps, wide] however it is grouped, gives [n, steps * block, channels].

        With `repeat` a stream that begins has had its first step all the time, and not silence.
        """
        n = len(x)
        start = mx.tile(x[:, 0], (1, (self._taps - 1) * self._wide // x.shape[-1])) if repeat else None
        rows = (_elu(x) if elu else x).reshape(n, self._steps, self._wide)
        if self._taps > 1:
            tail = past.read(self._tail, start).reshape(n, -1, self._wide)
            rows = mx.concatenate([tail, rows], axis=1)
            past.keep(self._tail, rows[:, self._steps :])
        return self._product(self._windows(rows)).reshape(n, self._steps * self._block, -1)

    def _windows(self, rows: mx.array) -> mx.array:
        """rows [n, taps - 1 + steps, wide], each with those before it [n, steps, taps * wide]."""
        n, length, wide = rows.shape
        return mx.as_strided(rows, (n, self._steps, self._taps * wide), (length * wide, wide, 1))


def _elu(x: mx.array) -> mx.array:
    return mx.maximum(x, 0) + mx.expm1(mx.minimum(x, 0))
