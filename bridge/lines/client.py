"""The line of terminals and browsers: binary sound and JSON texts. No socket, no clock.

Sound has no timestamps here, so the samples that come are the client's clock. Who sends more of it than time passes
gets ahead of that clock: a little is jitter, what is over is left out, and much more ends the call.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from ...codecs.framing import Framer
from ...codecs.resample import FULL_SCALE, Convert
from .base import Heard, In, Out, Played, ProtocolError, Started
from .notes import Flushed
from .texts import MAX_REASON, Message, OpenMessage, Pace, State, TextLine, messages

RATES = (8000, 16000, 24000, 48000)  # that are converted without a fraction of a sample left in a frame
MAX_SOUND = 1.0  # seconds in one message; more is no live sound
BURST = 4  # frames handed on at once: no engine queues more (320 ms), the rest follows
AHEAD = 0.32  # seconds that sound may be ahead of time: a network's jitter; what comes then has had its silence
FLOOD = 30.0  # seconds of that which end the call: no network holds so much back

_SCALE = np.array(FULL_SCALE, np.float32)


def to_pcm(frame: NDArray[np.float32]) -> NDArray[np.int16]:
    """One frame of the agent as samples of 16 bits."""
    scaled = np.rint(np.nan_to_num(frame).clip(-1, 1) * _SCALE)
    pcm: NDArray[np.int16] = np.minimum(scaled, FULL_SCALE - 1).astype(np.int16)
    return pcm


def to_frame(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """And the caller's, for the engine."""
    frame: NDArray[np.float32] = np.divide(pcm, _SCALE, dtype=np.float32)
    return frame


class ClientLine(TextLine):
    name = "client"

    def __init__(self, call: str, token: str) -> None:
        super().__init__(call, token)
        self._client_rate = self.rate
        self._framer = self._new_framer()
        self._up: Convert | None = None
        self._down: Convert | None = None
        self._sound_pace = Pace(AHEAD)
        self._flood_pace = Pace(FLOOD)
        self._left_out = 0  # samples at the client's rate

    @property
    def gap_samples(self) -> int:
        return self._framer.gap_samples * self.rate // self._client_rate

    @property
    def late_samples(self) -> int:
        return self._left_out * self.rate // self._client_rate

    def fill(self, now: float) -> list[In]:
        if self.state is not State.STARTED:
            return []
        self._framer.fill_stall(now)
        return self._frames()

    def dead(self, now: float) -> bool:
        """Never: a client may be muted for long, and whether it is there is asked by the socket's pings."""
        return self._framer.dead(now)

    def render(self, frame: NDArray[np.float32]) -> NDArray[np.int16]:
        return to_pcm(frame)

    def sound(self, pcm: NDArray[np.int16]) -> Out:
        if self._down:
            pcm = self._down.push(pcm)
        return Out(pcm.astype("<i2", copy=False).tobytes(), text=False)

    def mark(self, position: int) -> None:
        """A client tells by itself what it has played."""

    def flush(self) -> Out:
        return self.tell(Flushed())

    def _decode(self, data: str) -> Message:
        return messages.decode(data)

    def _played(self, at: int) -> list[In]:
        return [Played(at * self.rate // self._client_rate)] if at else []

    def _start(self, opened: OpenMessage, now: float) -> Started:
        if opened.relay:
            raise ProtocolError("open: relay belongs into the first message of a stream")
        if opened.rate not in RATES:
            rates = ", ".join(map(str, RATES))
            raise ProtocolError(f"rate {opened.rate} is not taken; these are: {rates}"[:MAX_REASON])
        if opened.rate != self.rate:
            self._client_rate = opened.rate
            self._framer = self._new_framer()
            self._up, self._down = Convert(opened.rate, self.rate), Convert(self.rate, opened.rate)
        self._framer.begin(now)
        self.state = State.STARTED
        return Started(self._call, "", {"token": self._token}, opened.persona)

    def _sound(self, data: bytes, now: float) -> list[In]:
        started: list[In] = []
        if self.state is State.OPENED:
            started = [self._start(OpenMessage(), now)]
        rate = self._client_rate
        if len(data) > 2 * rate * MAX_SOUND:
            raise ProtocolError(f"{len(data)} bytes of sound in one message; at most {2 * rate * MAX_SOUND:.0f} go")
        if len(data) % 2:
            return started + self._complain(f"sound of {len(data)} bytes: a sample has two, so one is cut in half")
        samples = len(data) // 2
        if not self._flood_pace.take(samples / rate, now):
            raise ProtocolError("sound comes faster than anybody speaks")
        if self._sound_pace.take(samples / rate, now):
            self._framer.push(data, None, now)
        else:
            self._left_out += samples
        return started or self._frames()  # what comes first waits for the conversation

    def _frames(self) -> list[In]:
        frames: list[In] = []
        while len(frames) < BURST and (ready := self._framer.pop()) is not None:
            data, at = ready
            pcm = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
            if self._up:
                pcm = self._up.push(pcm)
            frames.append(Heard(to_frame(pcm), at, pcm))
        return frames

    def _new_framer(self) -> Framer:
        return Framer(self._client_rate, width=2, silence=b"\0\0", dead=inf)
