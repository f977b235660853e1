"""What happened on a call, as the caller's end saw it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from ...codecs import g711
from .playout import Gap
from .protocol import TwilioError
from .sound import Pcm

AUDIBLE = 200  # of 32768, -44 dBFS: above the noise that mu-law and resampling make of silence
_VALUES = g711.decode(bytes(range(256)))
_QUIET = bytes(code for code, value in enumerate(_VALUES) if abs(int(value)) < AUDIBLE)


@dataclass(frozen=True)
class Arrival:
    """A media message: when it came (seconds of the stream), its samples, and those it had to wait behind."""

    at: float
    samples: int
    buffered: int


@dataclass
class MarkSeen:
    """A mark: when it came and when it went back, in seconds of the stream; `cleared` if a clear sent it back."""

    name: str
    came: float
    returned: float | None = None
    cleared: bool = False


@dataclass
class Call:
    """The record of one call. It grows while the call lasts; times are in seconds from the start of the stream.

    `spoken` and `heard` are on one clock: sample n of both was at the mouth, and at the ear, n / 8000 seconds after
    the stream began. A chunk leaves when its last sample has been spoken, so the first leaves after 20 ms.
    """

    sid: str
    caller: str
    number: str
    state: str = "dialling"  # dialling, talking, ended
    answered: bool = False
    ended: str = ""  # how the call ended, in words
    stream_ended: str = ""  # how its stream ended, in words; empty when there was none
    failure: str = ""  # why the call could not be put through, in one line
    steps: list[str] = field(default_factory=list)  # the TwiML that was obeyed: "Connect", "Say: Goodbye"
    errors: list[TwilioError] = field(default_factory=list)  # what Twilio's debugger would show
    ignored: int = 0  # messages of the bridge that were refused
    webhook_seconds: float | None = None  # until the webhook had answered
    handshake_seconds: float | None = None  # until the stream's WebSocket was open
    stream_sid: str = ""
    ticks: int = 0
    lost_chunks: list[int] = field(default_factory=list)  # numbered from 0
    lateness: array[float] = field(default_factory=lambda: array("d"))  # seconds each tick came after its time
    arrivals: list[Arrival] = field(default_factory=list)
    marks: list[MarkSeen] = field(default_factory=list)
    clears: list[float] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    digits: list[tuple[float, str]] = field(default_factory=list)
    first_media: float | None = None  # when the first media message came
    first_sound: float | None = None  # when the caller heard the first audible sample
    spoken_bytes: bytearray = field(default_factory=bytearray)  # mu-law
    heard_bytes: bytearray = field(default_factory=bytearray)

    @property
    def seconds(self) -> float:
        """How long the stream has lasted on the caller's clock."""
        return max(0, self.ticks - 1) / 50

    @property
    def spoken(self) -> Pcm:
        """What the caller said, int16 at 8 kHz, lost chunks too."""
        return g711.decode(bytes(self.spoken_bytes))

    @property
    def heard(self) -> Pcm:
        """What the caller heard, int16 at 8 kHz, with silence where the buffer was empty."""
        return g711.decode(bytes(self.heard_bytes))

    @property
    def problem(self) -> str:
        """Why this was no good call, in one line. Empty for one that was put through, and its stream brought sound."""
        if self.failure:
            return self.failure
        if not self.answered:
            return f"the bridge did not take the call: {self.ended}"
        if self.stream_ended and self.first_media is None:
            return f"no sound came back before the stream ended: {self.stream_ended}"
        return ""

    @property
    def completed(self) -> bool:
        return not self.problem


def audible_at(chunk: bytes) -> int | None:
    """The first sample of mu-law that a person could hear."""
    loud = chunk.translate(None, _QUIET)
    return chunk.index(loud[:1]) if loud else None


def level(audio: bytes | bytearray) -> float:
    """The loudness of mu-law in dBFS, -90 for nothing."""
    if not audio:
        return -90.0
    rms = float(np.sqrt(np.mean(np.square(g711.decode(bytes(audio)).astype(np.float64)))))
    return max(-90.0, float(20 * np.log10(max(rms, 1e-9) / 32768)))
