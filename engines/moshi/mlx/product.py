"""Products by weights that stay as they are, laid out and shared out as the device computes them best."""

from __future__ import annotations

import functools

import mlx.core as mx

WORTH = 1 << 20  # multiplications, a millisecond of a core: from here on a second one is worth waiting for


class Product:
    """x [..., k] by weights [m, k]: [..., m], with a bias [m] if there is one."""

    def __init__(self, weight: mx.array, bias: mx.array | None = None) -> None:
        # On a CPU, MLX's wheels for Linux multiply by the reference BLAS: one number after the other, on one core.
        # It is 2.5 times as fast when the inner loop goes along rows of the weights, and of two streams each gets
        # a core. Metal is as fast both ways, has all its cores at work anyway, and is spared the copy.
        self._shared = mx.default_device() == mx.cpu
        self._columns = mx.contiguous(weight.T) if self._shared else weight.T  # [k, m]
        self._bias = bias
        mx.eval(self._columns, self._bias)  # what is compiled would else lay them out anew in every call

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1])
        half = len(rows) // 2 if self._shared and len(rows) * self._columns.size >= WORTH else 0
        if not half:
            return self._of(rows, None).reshape(*x.shape[:-1], -1)
        parts = [self._of(rows[:half], second()), self._of(rows[half:], None)]
        return mx.concatenate(parts).reshape(*x.shape[:-1], -1)

    def _of(self, rows: mx.array, stream: mx.Stream | None) -> mx.array:
        if self._bias is None:
            return mx.matmul(rows, self._columns, stream=stream)
        return mx.addmm(self._bias, rows, self._columns, stream=stream)


@functools.cache
def second() -> mx.Stream:
    """A stream beside the default one."""
    return mx.new_stream(mx.cpu)
