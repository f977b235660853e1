"""The last rows of a stack of convolutions, side by side."""

from __future__ import annotations


class Tails:
    """Where each convolution of a stack keeps its last rows, in one row for each stream."""

    def __init__(self) -> None:
        self.width = 0

    def take(self, width: int) -> slice:
        self.width += width
        return slice(self.width - width, self.width)
