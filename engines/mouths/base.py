"""What a mouth is: a sentence in, its sound out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

PCM: TypeAlias = NDArray[np.float32]
"""24 kHz sound between -1 and 1, of any length."""


class NoVoice(Exception):
    """A sentence cannot be spoken just now; the message says why and never holds the sentence."""


class Voice(Protocol):
    """Speaks for all calls, on one event loop."""

    name: str

    async def start(self) -> None:
        """Load and warm up; raises ValueError or OSError with the remedy if that cannot be."""

    def say(self, text: str, due: float) -> AsyncGenerator[PCM, None]:
        """The sound of one sentence of plain words, in as many pieces as the voice makes of it.

        `due` is when its first sample is wanted, by the loop's clock: what is due first is spoken first. The generator
        may be closed before its end; what is not begun then is never spoken. Raises `NoVoice`.
        """

    def forget(self) -> None:
        """Keep nothing of what was said: somebody wants to be forgotten."""

    async def stop(self) -> None: ...
