"""The line of a bridge that relays: whole frames with their place on the caller's clock, and the engine's events.

Lead, memory, reports and recordings are the relaying bridge's own, so what goes through here is what an engine takes
and gives. No socket, no clock.
"""

from __future__ import annotations

import struct
from typing import Annotated, ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...codecs.framing import FRAME, FRAME_SECONDS
from .base import Forget, Heard, In, Inject, Out, Played, ProtocolError, Say, Started
from .client import AHEAD, FLOOD, to_frame, to_pcm
from .texts import (
    COST_OF_WORDS,
    MAX_POSITION,
    MAX_REASON,
    CancelMessage,
    CloseMessage,
    DigitMessage,
    Message,
    OpenMessage,
    Pace,
    PingMessage,
    PlayedMessage,
    RelayOpening,
    State,
    TextLine,
    known,
)

CLOCK = struct.Struct("<q")  # before the samples: up, where the frame begins; down, which frame is answered
FRAME_BYTES = CLOCK.size + 2 * FRAME
MAX_WAY = 64  # characters of a way to inject; the engine knows which there are
GONE = 1.0  # seconds without a frame: a relay has one every 80 ms, so it is away, and the model hears silence

_SILENCE = np.zeros(FRAME, np.int16)


class RelaySay(Message, tag="say"):
    """As `engines.base.Conversation.say` takes it; what cannot be said is for the engine to refuse."""

    cost = COST_OF_WORDS
    text: str
    interruptible: bool = True

    def __repr__(self) -> str:
        return f"RelaySay({len(self.text)} characters)"


class RelayInject(Message, tag="inject"):
    """As `engines.base.Conversation.inject` takes it: nothing is context too, where an engine waits for some."""

    cost = COST_OF_WORDS
    context: str
    how: Annotated[str, msgspec.Meta(max_length=MAX_WAY)] = "silent"
    turn: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] | None = None

    def __repr__(self) -> str:
        return f"RelayInject({len(self.context)} characters)"


class ForgetMessage(Message, tag="forget"):
    pass


AnyMessage: TypeAlias = (
    OpenMessage
    | PlayedMessage
    | DigitMessage
    | RelaySay
    | RelayInject
    | CancelMessage
    | ForgetMessage
    | PingMessage
    | CloseMessage
)
_messages: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)


class RelayLine(TextLine):
    name = "relay"
    known: ClassVar[frozenset[str]] = known | {"forget"}

    def __init__(self, call: str, token: str) -> None:
        super().__init__(call, token)
        self.opening = RelayOpening()
        self.gap_samples = 0
        self.late_samples = 0
        self._next = 0  # the caller's clock behind the last frame
        self._came = 0.0  # when that came
        self._filled = 0  # frames of silence since then
        self._went_back = False
        self._sound_pace = Pace(AHEAD)
        self._flood_pace = Pace(FLOOD)

    def fill(self, now: float) -> list[In]:
        """Silence, so that the conversation lives on while the relay is away; only then."""
        if self.state is not State.STARTED:
            return []
        owed = int(max(0.0, now - self._came - GONE) / FRAME_SECONDS)
        silence: list[In] = []
        while self._filled < owed:
            silence.append(Heard(to_frame(_SILENCE), self._next, _SILENCE))
            self._next += FRAME
            self._filled += 1
        self.gap_samples += len(silence) * FRAME
        return silence

    def dead(self, now: float) -> bool:
        """Never: the socket's pings tell."""
        return False

    def reply(self, frame: NDArray[np.float32], answers: int) -> Out:
        """One frame of the agent, as the answer to the caller's frame at that clock."""
        return Out(CLOCK.pack(answers) + to_pcm(frame).astype("<i2", copy=False).tobytes(), text=False)

    def _decode(self, data: str) -> Message:
        return _messages.decode(data)

    def _played(self, at: int) -> list[In]:
        return [Played(at)]

    def _wish(self, message: Message) -> list[In]:
        match message:
            case RelaySay(text, interruptible):
                return [Say(text, interruptible)]
            case RelayInject(context, how, turn):
                return [Inject(context, how, turn)]
            case ForgetMessage():
                return [Forget()]
        return super()._wish(message)

    def _start(self, opened: OpenMessage, now: float) -> Started:
        if opened.relay is None:
            raise ProtocolError("open: a stream between bridges says relay")
        self.opening = opened.relay
        self._came = now
        self.state = State.STARTED
        return Started(self._call, "", {"token": self._token})

    def _sound(self, data: bytes, now: float) -> list[In]:
        if self.state is State.OPENED:
            raise ProtocolError("the call has not begun: first open")
        if len(data) != FRAME_BYTES:
            raise ProtocolError(f"a frame of {len(data)} bytes; between bridges each has {FRAME_BYTES}")
        (at,) = CLOCK.unpack_from(data)
        if not 0 <= at < MAX_POSITION:
            raise ProtocolError(f"a frame at {at}: the caller's clock goes from 0 to {MAX_POSITION}"[:MAX_REASON])
        if not self._flood_pace.take(FRAME_SECONDS, now):
            raise ProtocolError("sound comes faster than anybody speaks")
        went_back, self._went_back = self._went_back, at < self._next
        if self._went_back:
            self.late_samples += FRAME
            # Told once, and not for each of the frames that may follow.
            why = f"the caller's clock went back from {self._next} to {at}: what is before that is left out"
            return [] if went_back else self._complain(why)
        if not self._sound_pace.take(FRAME_SECONDS, now):
            self.late_samples += FRAME
            return []
        self._next, self._came, self._filled = at + FRAME, now, 0
        pcm = np.frombuffer(data, "<i2", offset=CLOCK.size).astype(np.int16, copy=False)
        return [Heard(to_frame(pcm), at, pcm)]
