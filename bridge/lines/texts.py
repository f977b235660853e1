"""The JSON texts of `/v1/stream`, which its two forms share: the client's (`client`) and the relay's (`relay`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from ...codecs import framing
from .base import Cancel, Digit, In, Inject, Out, ProtocolError, Reply, Say, Started, Stopped
from .notes import PROTOCOL, Note, Pong, Trouble

MAX_TEXT = 64 * 1024  # characters of a message; the longest persona is a fourth of it
MAX_WORDS = 4000  # characters to say or to know at once: five minutes of speech
MAX_REASON = 120  # characters of an error; a close frame holds 123 bytes
MAX_POSITION = 10**12  # samples; a year and more of talk
MAX_NAMED = 32  # samplings or conditions of an opening; no model has so many
MAX_TICKET = 64  # characters; ours have 32
TEXTS = 10.0  # seconds that texts may be ahead of time, by what each costs
COST = 0.01  # of an ordinary text: 100 a second are more than a player has to tell
COST_OF_WORDS = 0.5  # of what the engine has to read or say
MAX_MESSAGE = 128 * 1024  # bytes, for the socket: the largest message and one that is told that it is too large
START_LIMIT = 10.0  # seconds; people are asked for their microphone meanwhile

Position: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=MAX_POSITION)]


class Message(msgspec.Struct, tag_field="type"):
    cost: ClassVar[float] = COST


class RelayOpening(msgspec.Struct, frozen=True):
    """What a bridge that relays begins a conversation with: `engines.base.Opening`, as far as it is given."""

    greeting: str = ""
    persona: str = ""
    known: str = ""
    interruptible: bool = True
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    sampling: Annotated[dict[str, float], msgspec.Meta(max_length=MAX_NAMED)] = {}
    conditions: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_NAMED)] = {}

    def __repr__(self) -> str:
        return "RelayOpening()"  # a log may not have what it says


class OpenMessage(Message, tag="open"):
    rate: int = framing.RATE
    persona: str | None = None
    protocol: int = PROTOCOL
    relay: RelayOpening | None = None
    """Makes the stream one between bridges."""
    resume: Annotated[str, msgspec.Meta(max_length=MAX_TICKET)] | None = None
    """The ticket of a conversation to come back to; the rest of `open` is as it was."""

    def __repr__(self) -> str:
        return f"OpenMessage({self.rate})"


class PlayedMessage(Message, tag="played"):
    at: Position


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


messages: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
known = frozenset({"open", "played", "digit", "say", "inject", "cancel", "ping", "close"})
_encode = msgspec.json.Encoder().encode


def opening(first: str | bytes) -> OpenMessage | None:
    """The `open` that a stream begins with, if it does; what is wrong with anything else is for the line to say."""
    if isinstance(first, bytes) or len(first) > MAX_TEXT:
        return None
    try:
        message = messages.decode(first)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return message if isinstance(message, OpenMessage) else None


def say(note: Note) -> Out:
    """A note as these lines send it."""
    return Out(_encode(note))


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


class TextLine(ABC):
    rate = framing.RATE  # whatever a client's own is: sound is converted at its messages
    start_limit = START_LIMIT
    by_carrier = False
    known: ClassVar[frozenset[str]] = known
    """The types of messages that are understood; others are ignored."""

    def __init__(self, call: str, token: str) -> None:
        """`call` and `token` are those of the ticket that was made at the handshake."""
        self.state = State.OPENED
        self._call = call
        self._token = token
        self._text_pace = Pace(TEXTS)

    def receive(self, data: str | bytes, now: float) -> list[In]:
        if self.state is State.STOPPED:
            return []
        return self._text(data, now) if isinstance(data, str) else self._sound(data, now)

    def tell(self, note: Note) -> Out:
        return say(note)

    @abstractmethod
    def _start(self, opened: OpenMessage, now: float) -> Started: ...
    @abstractmethod
    def _sound(self, data: bytes, now: float) -> list[In]: ...
    @abstractmethod
    def _decode(self, data: str) -> Message: ...
    @abstractmethod
    def _played(self, at: int) -> list[In]: ...

    def _text(self, data: str, now: float) -> list[In]:
        if len(data) > MAX_TEXT:
            raise ProtocolError(f"a text of {len(data)} characters; at most {MAX_TEXT} are taken")
        try:
            message: Message | None = self._decode(data)
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
        if isinstance(kind, str) and kind not in self.known:
            return []
        if kind == "open" and self.state is State.OPENED:  # what follows would be taken for something else
            raise ProtocolError(f"open: {error}"[:MAX_REASON])
        return self._complain(error)

    def _message(self, message: Message, now: float) -> list[In]:
        match message:
            case PingMessage():
                return [Reply(self.tell(Pong()))]
            case CloseMessage():
                self.state = State.STOPPED
                return [Stopped()]
            case OpenMessage() if self.state is State.OPENED:
                if message.protocol != PROTOCOL:
                    raise ProtocolError(f"protocol {message.protocol} is not spoken here; {PROTOCOL} is"[:MAX_REASON])
                if message.resume is not None:
                    raise ProtocolError("open: resume belongs into the first message of a stream")
                return [self._start(message, now)]
        if self.state is State.OPENED:
            return self._complain("the call has not begun: first open, or sound")
        return self._wish(message)

    def _wish(self, message: Message) -> list[In]:
        """What a conversation that has begun is asked for."""
        match message:
            case PlayedMessage(at):
                return self._played(at)
            case DigitMessage(digit):
                return [Digit(digit)]
            case SayMessage(text, interruptible):
                return [Say(text, interruptible)]
            case InjectMessage(context):
                return [Inject(context)]
            case CancelMessage(id):
                return [Cancel(id)]
        return self._complain("open comes once, before anything else")

    def _complain(self, why: str) -> list[In]:
        """What was wrong with a message that is left out; the call goes on."""
        return [Reply(self.tell(Trouble(why[:MAX_REASON], "message")))]
