"""The line of terminals, browsers and other bridges: binary sound and JSON texts. No socket, no clock.

Sound has no timestamps here, so the samples that come are the client's clock. Who sends more of it than time passes
gets ahead of that clock: a little is jitter, what is over is left out, and much more ends the call.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import Annotated, ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...codecs import framing
from ...codecs.framing import Framer
from ...codecs.resample import FULL_SCALE, Convert
from .base import Cancel, Digit, Heard, In, Inject, Out, Played, ProtocolError, Reply, Say, Started, Stopped
from .notes import PROTOCOL, Flushed, Note, Pong, Trouble

RATES = (8000, 16000, 24000, 48000)  # that are converted without a fraction of a sample left in a frame
MAX_TEXT = 64 * 1024  # characters of a message; the longest persona is a fourth of it
MAX_SOUND = 1.0  # seconds in one message; more is no live sound
MAX_WORDS = 4000  # characters to say or to know at once: five minutes of speech
MAX_REASON = 120  # characters of an error; a close frame holds 123 bytes
MAX_POSITION = 10**12  # samples; half a year of talk
BURST = 4  # frames handed on at once: no engine queues more (320 ms), the rest follows
AHEAD = 0.32  # seconds that sound may be ahead of time: a network's jitter; what comes then has had its silence
FLOOD = 30.0  # seconds of that which end the call: no network holds so much back
TEXTS = 10.0  # seconds that texts may be ahead of time, by what each costs
COST = 0.01  # of an ordinary text: 100 a second are more than a player has to tell
COST_OF_WORDS = 0.5  # of what the engine has to read or say
MAX_MESSAGE = 128 * 1024  # bytes, for the socket: the largest message and one that is told that it is too large


class Message(msgspec.Struct, tag_field="type"):
    cost: ClassVar[float] = COST


class OpenMessage(Message, tag="open"):
    rate: int = framing.RATE
    persona: str | None = None
    protocol: int = PROTOCOL

    def __repr__(self) -> str:
        return f"OpenMessage({self.rate})"


class PlayedMessage(Message, tag="played"):
    at: Annotated[int, msgspec.Meta(ge=0, lt=MAX_POSITION)]


class DigitMessage(Message, tag="digit"):
    digit: Annotated[str, msgspec.Meta(pattern=r"^[0-9*#A-D]\Z")]


class SayMessage(Message, tag="say"):
    cost = COST_OF_WORDS
    text: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=MAX_WORDS)]
    interruptible: bool = True

    def __repr__(self) -> str:
        return f"SayMessage({len(self.text)} characters)"


class InjectMessage(Message, tag="inject"):
    cost = COST_OF_WORDS
    context: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=MAX_WORDS)]

    def __repr__(self) -> str:
        return f"InjectMessage({len(self.context)} characters)"


class CancelMessage(Message, tag="cancel"):
    id: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class PingMessage(Message, tag="ping"):
    pass


class CloseMessage(Message, tag="close"):
    pass


AnyMessage: TypeAlias = (
    OpenMessage | PlayedMessage | DigitMessage | SayMessage | InjectMessage | CancelMessage | PingMessage | CloseMessage
)


class State(Enum):
    OPENED = auto()
    STARTED = auto()
    STOPPED = auto()


_messages: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_known = frozenset({"open", "played", "digit", "say", "inject", "cancel", "ping", "close"})
_encode = msgspec.json.Encoder().encode
_SCALE = np.array(FULL_SCALE, np.float32)


class Pace:
    """How far somebody is ahead of time: what came, less the time that has passed."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ahead = 0.0
        self._at = 0.0

    def take(self, seconds: float, now: float) -> bool:
        """Count `seconds` more, unless the limit has been passed before."""
        self._ahead = max(0.0, self._ahead - (now - self._at))
        self._at = now
        if self._ahead > self._limit:
            return False
        self._ahead += seconds
        return True


class ClientLine:
    name = "client"
    rate = framing.RATE  # whatever the client's own is: sound is converted at its messages
    start_limit = 10.0  # seconds; people are asked for their microphone meanwhile
    by_carrier = False

    def __init__(self, call: str, token: str) -> None:
        """`call` and `token` are those of the ticket that was made at the handshake."""
        self.state = State.OPENED
        self._call = call
        self._token = token
        self._client_rate = framing.RATE
        self._framer = self._new_framer()
        self._up: Convert | None = None
        self._down: Convert | None = None
        self._sound_pace = Pace(AHEAD)
        self._flood_pace = Pace(FLOOD)
        self._text_pace = Pace(TEXTS)
        self._left_out = 0  # samples at the client's rate

    @property
    def gap_samples(self) -> int:
        return self._framer.gap_samples * self.rate // self._client_rate

    @property
    def late_samples(self) -> int:
        return self._left_out * self.rate // self._client_rate

    def receive(self, data: str | bytes, now: float) -> list[In]:
        if self.state is State.STOPPED:
            return []
        return self._text(data, now) if isinstance(data, str) else self._sound(data, now)

    def fill(self, now: float) -> list[In]:
        if self.state is not State.STARTED:
            return []
        self._framer.fill_stall(now)
        return self._frames()

    def dead(self, now: float) -> bool:
        """Never: a client may be muted for long, and whether it is there is asked by the socket's pings."""
        return self._framer.dead(now)

    def render(self, frame: NDArray[np.float32]) -> NDArray[np.int16]:
        scaled = np.rint(np.nan_to_num(frame).clip(-1, 1) * _SCALE)
        pcm: NDArray[np.int16] = np.minimum(scaled, FULL_SCALE - 1).astype(np.int16)
        return pcm

    def sound(self, pcm: NDArray[np.int16]) -> Out:
        if self._down:
            pcm = self._down.push(pcm)
        return Out(pcm.astype("<i2", copy=False).tobytes(), text=False)

    def mark(self, position: int) -> None:
        """A client tells by itself what it has played."""

    def flush(self) -> Out:
        return self.tell(Flushed())

    def tell(self, note: Note) -> Out:
        return Out(_encode(note))

    def _text(self, data: str, now: float) -> list[In]:
        if len(data) > MAX_TEXT:
            raise ProtocolError(f"a text of {len(data)} characters; at most {MAX_TEXT} are taken")
        try:
            message: AnyMessage | None = _messages.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            message = None
            trouble = self._wrong(data, str(error))
        if not self._text_pace.take(message.cost if message else COST, now):
            raise ProtocolError("texts come faster than any client has to tell")
        return self._message(message, now) if message else trouble

    def _wrong(self, data: str, error: str) -> list[In]:
        """The answer to a text that is no message of ours; none, if it is one of a type that we do not know."""
        try:
            given = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as no_json:
            raise ProtocolError(f"a text that is no JSON: {no_json}"[:MAX_REASON]) from None
        kind = given.get("type") if isinstance(given, dict) else None
        if isinstance(kind, str) and kind not in _known:
            return []
        if kind == "open" and self.state is State.OPENED:  # what follows would be taken for something else
            raise ProtocolError(f"open: {error}"[:MAX_REASON])
        return self._complain(error)

    def _message(self, message: AnyMessage, now: float) -> list[In]:
        match message:
            case PingMessage():
                return [Reply(self.tell(Pong()))]
            case CloseMessage():
                self.state = State.STOPPED
                return [Stopped()]
            case OpenMessage() if self.state is State.OPENED:
                return [self._start(message, now)]
        if self.state is State.OPENED:
            return self._complain("the call has not begun: first open, or sound")
        match message:
            case PlayedMessage(at):
                return [Played(at * self.rate // self._client_rate)] if at else []
            case DigitMessage(digit):
                return [Digit(digit)]
            case SayMessage(text, interruptible):
                return [Say(text, interruptible)]
            case InjectMessage(context):
                return [Inject(context)]
            case CancelMessage(id):
                return [Cancel(id)]
        return self._complain("open comes once, before anything else")

    def _start(self, opened: OpenMessage, now: float) -> Started:
        if opened.protocol != PROTOCOL:
            raise ProtocolError(f"protocol {opened.protocol} is not spoken here; {PROTOCOL} is"[:MAX_REASON])
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
            frames.append(Heard(np.divide(pcm, _SCALE, dtype=np.float32), at, pcm))
        return frames

    def _complain(self, why: str) -> list[In]:
        """What was wrong with a message that is left out; the call goes on."""
        return [Reply(self.tell(Trouble(why[:MAX_REASON], "message")))]

    def _new_framer(self) -> Framer:
        return Framer(self._client_rate, width=2, silence=b"\0\0", dead=inf)
