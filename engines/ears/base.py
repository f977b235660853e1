"""What an ear is: frames of many callers in, what they said out."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from ..base import Frame


class Word(NamedTuple):
    """A word with its first sample and the one after its last, on the caller's 24 kHz clock."""

    text: str
    start: int
    end: int


class Began(NamedTuple):
    """The caller began to talk at this sample of his clock."""

    at: int


class Heard(NamedTuple):
    """An utterance so far. Each says the whole of it anew."""

    id: int
    """Counts up within a stream."""
    text: str
    words: tuple[Word, ...]
    start: int
    end: int
    """The sample after the last voiced one that the text is made from."""
    final: bool
    """True exactly once for an id of which anything was told, and last."""


EarEvent: TypeAlias = Began | Heard


class Transcriber(Protocol):
    """Hears many streams at once and tells what was said in them.

    It is made with `tell(stream, event)`, which it calls on threads of its own and within `hear`: whoever has a loop
    hops to it himself. An utterance without words is not told of. Its `Began` may have been: that is sound like a
    voice, not words yet.
    """

    name: str
    dropped: int
    """Decodings that were left out because they came faster than they could be done; it only grows."""

    def open(self, stream: int) -> None:
        """Begin to hear a stream. Its number may be one that was closed before."""

    def hear(self, stream: int, frame: Frame, at: int) -> None:
        """Take one frame, 1920 samples that began at `at` on the caller's clock. Never waits.

        Samples that are missing between two frames are heard as silence, so that times stay right.
        """

    def close(self, stream: int) -> None:
        """Drop whatever is under way. Nothing is told of the stream once this has returned."""

    def stop(self) -> None:
        """Close every stream and end the threads."""
