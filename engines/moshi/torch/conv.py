"""Convolutions that stream. Sound lies time first, so that each is a matrix product over windows of neighbouring rows.

A convolution of stride s and kernel 2s reads two neighbouring blocks of s steps, and a transposed one writes a block
of s steps out of two neighbouring steps: with the steps of a block side by side in a row, both have two taps and
stride one. So there is one kind, and what it keeps between frames are the last rows that it read.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..tails import Tails
from .load import Loader

# With fewer steps than this a frame, a layer's weights outweigh what flows through it: better to copy the windows
# and read the weights once for all streams than once a stream.
FEW_STEPS = 8
PLAIN = ([0, 0], [1, 1], [1, 1], 1)  # to oneDNN: no padding, stride and dilation of one, one group


class Conv:
    """y[t] = bias + the sum over k of x[t - taps + 1 + k] @ weight[k], for `steps` rows a frame."""

    def __init__(
        self, load: Loader, weight: Tensor, bias: Tensor | None, steps: int, tails: Tails, block: int = 1
    ) -> None:
        """`weight` is [taps, wide, out], where `out` are the channels of a block of steps."""
        self._ops = load.ops
        self._block = block
        taps, self._wide, _ = weight.shape
        self._past = taps - 1
        self._steps = steps
        self._tail = tails.take(self._past * self._wide)
        direct = load.device.type == "cpu" and torch.backends.mkldnn.is_available() and steps >= FEW_STEPS
        self._product: Product = Direct(weight, bias) if direct else Windows(load, weight, bias)

    def __call__(self, x: Tensor, tails: Tensor, elu: bool = True) -> Tensor:
        """x, which holds [n, steps, wide] however it is grouped, gives [n, steps * block, channels].

        `tails` [n, width] are the streams' rows of the stack's tails; this one's part moves on.
        """
        x = x.view(len(x), self._steps, self._wide)
        rows = x.new_empty(len(x), self._past + self._steps, self._wide)
        tail = tails[:, self._tail].unflatten(1, (self._past, self._wide))
        rows[:, : self._past] = tail
        if elu:
            self._ops.elu(x, rows)
        else:
            rows[:, self._past :] = x
        tail.copy_(rows[:, self._steps :])
        return self._product(rows).view(len(x), self._steps * self._block, -1)

    def add(self, to: Tensor, x: Tensor) -> None:
        """Add to `to` what comes of x, which is lost. For one tap, which needs no tail."""
        self._ops.elu(x, x)
        self._product.add(to, x)

    def repeat_first(self, x: Tensor, tails: Tensor, fresh: Tensor) -> None:
        """For the streams that are `fresh` [n], let what came before x be its first step."""
        steps = self._past * self._wide // x.shape[-1]
        tail = tails[:, self._tail]
        tail.copy_(torch.where(fresh[:, None], x[:, 0].repeat(1, steps), tail))


class Product(Protocol):
    def __call__(self, rows: Tensor) -> Tensor:
        """rows [n, taps - 1 + steps, wide] give [n, steps, out]."""

    def add(self, to: Tensor, rows: Tensor) -> None:
        """Add them to `to`."""


class Windows:
    """The windows one below the other, as one matrix."""

    def __init__(self, load: Loader, weight: Tensor, bias: Tensor | None) -> None:
        self._taps = weight.shape[0]
        self._linear = load.ops.dense(weight.flatten(0, 1).t().contiguous())
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        n, length, wide = rows.shape
        steps = length - self._taps + 1
        windows = rows.as_strided((n, steps, self._taps * wide), (length * wide, wide, 1))
        out = self._linear(windows.contiguous().flatten(0, 1)).view(n, steps, -1)
        return out if self._bias is None else out.add_(self._bias)

    def add(self, to: Tensor, rows: Tensor) -> None:
        to += self(rows)


class Direct:
    """oneDNN, which reads the windows where they are: rows as an image one pixel high, its channels last.

    `torch.conv1d` would take other ways for one stream, and reorder weights and sound in every call.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        kernel = weight.permute(2, 1, 0).unsqueeze(2)  # [out, wide, 1, taps]
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(kernel.to_mkldnn(), *PLAIN)
        self._kernel = (packed, bias, *PLAIN)

    def __call__(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(_image(rows), *self._kernel, "none", [], "")
        return out.squeeze(2).transpose(1, 2)

    def add(self, to: Tensor, rows: Tensor) -> None:
        torch.ops.mkldnn._convolution_pointwise_(_image(to), _image(rows), *self._kernel, "add", 1.0, None, [], None)


def _image(rows: Tensor) -> Tensor:
    return rows.transpose(1, 2).unsqueeze(2)
