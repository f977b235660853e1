"""Twilio Media Streams: messages to events and sound to messages. No socket, no clock."""

from __future__ import annotations

from binascii import b2a_base64
from enum import Enum, auto
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...codecs import g711
from ...codecs.framing import Framer
from ...codecs.resample import Down, Up
from .base import Digit, Heard, In, Out, Played, ProtocolError, Started, Stopped
from .notes import Note

RATE = 8000
MAX_MESSAGE = 64 * 1024  # bytes; Twilio sends about 300, a start with every parameter full about 20 KiB
MAX_CHUNK = RATE  # bytes; a second of sound in one message is no live audio
TOLERATED = 10  # bad messages in a started call: a carrier's oddity should not cost a caller the call
MAX_REASON = 120  # characters of a peer's own words in an error: it is logged, and a close frame holds 123 bytes
MAX_MARK = 32  # characters; ours are shorter even after a year of talk
DIGITS = frozenset("0123456789*#ABCD")


class MediaFormat(msgspec.Struct, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = RATE
    channels: int = 1


class Start(msgspec.Struct, rename="camel"):
    call_sid: str
    stream_sid: str = ""
    account_sid: str = ""
    tracks: list[str] = []
    media_format: MediaFormat = msgspec.field(default_factory=MediaFormat)
    custom_parameters: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Start({self.call_sid!r:.40})"


class Media(msgspec.Struct):
    payload: bytes  # msgspec reads the base64
    track: str = "inbound"
    timestamp: str | int | None = None

    def __repr__(self) -> str:
        return f"Media({len(self.payload)} bytes)"


class Dtmf(msgspec.Struct):
    digit: str


class Mark(msgspec.Struct):
    name: str


class Message(msgspec.Struct, tag_field="event"):
    pass


class ConnectedMessage(Message, tag="connected"):
    protocol: str = "Call"
    version: str = "1.0.0"


class StartMessage(Message, tag="start", rename="camel"):
    start: Start
    stream_sid: str = ""


class MediaMessage(Message, tag="media"):
    media: Media


class DtmfMessage(Message, tag="dtmf"):
    dtmf: Dtmf


class MarkMessage(Message, tag="mark"):
    mark: Mark


class StopMessage(Message, tag="stop"):
    pass


AnyMessage: TypeAlias = ConnectedMessage | StartMessage | MediaMessage | DtmfMessage | MarkMessage | StopMessage


class _Event(msgspec.Struct):
    event: str


class State(Enum):
    OPENED = auto()
    CONNECTED = auto()
    STARTED = auto()
    STOPPED = auto()


# What may come when, and where it leads. A pair that is missing here is the peer's mistake.
TRANSITIONS: dict[tuple[State, type[Message]], State] = {
    (State.OPENED, ConnectedMessage): State.CONNECTED,
    (State.OPENED, StartMessage): State.STARTED,
    (State.CONNECTED, StartMessage): State.STARTED,
    (State.STARTED, MediaMessage): State.STARTED,
    (State.STARTED, DtmfMessage): State.STARTED,
    (State.STARTED, MarkMessage): State.STARTED,
    (State.STARTED, StopMessage): State.STOPPED,
    (State.CONNECTED, StopMessage): State.STOPPED,
}

_messages: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_events = msgspec.json.Decoder(_Event)
_known = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})


class TwilioLine:
    name = "twilio"
    rate = RATE
    start_limit = 5.0  # seconds; Twilio starts a stream within one, a stranger may hold a socket no longer
    by_carrier = True

    def __init__(self) -> None:
        self.state = State.OPENED
        self.errors = 0
        self._framer = Framer(RATE, width=1, silence=g711.silence(1))
        self._up = Up()
        self._down = Down()
        self._generation = 0
        self._media_head = self._mark_head = self._clear = b""

    @property
    def gap_samples(self) -> int:
        return self._framer.gap_samples

    @property
    def late_samples(self) -> int:
        return self._framer.late_samples

    def receive(self, data: str | bytes, now: float) -> list[In]:
        if self.state is State.STOPPED:
            return []
        try:
            return self._receive(data, now)
        except ProtocolError:
            self.errors += 1
            if self.state is not State.STARTED or self.errors > TOLERATED:
                raise
            return []

    def fill(self, now: float) -> list[In]:
        if self.state is not State.STARTED:
            return []
        self._framer.fill_stall(now)
        return self._frames()

    def dead(self, now: float) -> bool:
        return self._framer.dead(now)

    def render(self, frame: NDArray[np.float32]) -> NDArray[np.int16]:
        return self._down.push(frame)

    def sound(self, pcm: NDArray[np.int16]) -> Out:
        return Out(self._media_head + b2a_base64(g711.encode(pcm), newline=False) + b'"}}')

    def mark(self, position: int) -> Out:
        # Twilio sends every pending mark back after a clear, so a mark carries the generation it was made in.
        return Out(b'%b%d.%d"}}' % (self._mark_head, self._generation, position))

    def flush(self) -> Out:
        self._generation += 1
        return Out(self._clear)

    def tell(self, note: Note) -> None:
        """A telephone has nothing to read on."""

    def _receive(self, data: str | bytes, now: float) -> list[In]:
        message = self._decode(data)
        if message is None:
            return []
        if type(message) is MediaMessage and self.state is State.STARTED:  # 49 of 50 messages, so it is asked first
            return self._media(message.media, now)
        state = TRANSITIONS.get((self.state, type(message)))
        if state is None:
            raise ProtocolError(f"{type(message).__struct_config__.tag} came while {self.state.name.lower()}")
        match message:
            case MarkMessage(mark=mark):
                return self._mark(mark.name)
            case DtmfMessage(dtmf=dtmf):
                if dtmf.digit not in DIGITS:
                    raise ProtocolError("dtmf.digit is none of 0-9, *, #, A-D")
                return [Digit(dtmf.digit)]
            case StartMessage():
                started = self._start(message, now)
                self.state = state
                return [started]
            case StopMessage():
                self.state = state
                return [Stopped()]
            case ConnectedMessage():
                self.state = state
        return []

    def _decode(self, data: str | bytes) -> AnyMessage | None:
        """The message, or None for an event that we do not know (Twilio may add some)."""
        if not isinstance(data, str):
            raise ProtocolError("a binary message on a stream of text")
        if len(data) > MAX_MESSAGE:
            raise ProtocolError(f"a message of {len(data)} characters; at most {MAX_MESSAGE} are taken")
        try:
            return _messages.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            try:
                if _events.decode(data).event not in _known:
                    return None
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                pass
            raise ProtocolError(str(error)[:MAX_REASON]) from None

    def _start(self, message: StartMessage, now: float) -> Started:
        start = message.start
        form = start.media_format
        if (form.encoding, form.sample_rate, form.channels) != ("audio/x-mulaw", RATE, 1):
            raise ProtocolError(
                f"media is {form.encoding:.20}, {form.sample_rate} Hz, {form.channels} channels; "
                "only audio/x-mulaw, 8000 Hz, 1 channel is spoken here"
            )
        stream = message.stream_sid or start.stream_sid
        if not stream or not start.call_sid:
            raise ProtocolError("start names no streamSid or no callSid")
        sid = msgspec.json.encode(stream)
        self._media_head = b'{"event":"media","streamSid":%b,"media":{"payload":"' % sid
        self._mark_head = b'{"event":"mark","streamSid":%b,"mark":{"name":"' % sid
        self._clear = b'{"event":"clear","streamSid":%b}' % sid
        self._framer.begin(now)
        return Started(start.call_sid, stream, start.custom_parameters)

    def _media(self, media: Media, now: float) -> list[In]:
        if media.track != "inbound":
            return []
        if len(media.payload) > MAX_CHUNK:
            raise ProtocolError(f"{len(media.payload)} bytes of sound in one message; at most {MAX_CHUNK} are taken")
        self._framer.push(media.payload, _samples(media.timestamp), now)
        return self._frames()

    def _frames(self) -> list[In]:
        frames: list[In] = []
        while (ready := self._framer.pop()) is not None:
            data, at = ready
            pcm = g711.decode(data)
            frames.append(Heard(self._up.push(pcm), at, pcm))
        return frames

    def _mark(self, name: str) -> list[In]:
        generation, _, position = name.partition(".")
        if len(name) > MAX_MARK or not (name.isascii() and generation.isdigit() and position.isdigit()):
            raise ProtocolError("a mark that we did not send")
        if int(generation) != self._generation:
            return []
        return [Played(int(position))]


def _samples(timestamp: str | int | None) -> int | None:
    """Milliseconds since the stream began, as Twilio's string or as others' number, in samples."""
    if timestamp is None:
        return None
    if isinstance(timestamp, str):
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
            raise ProtocolError("media.timestamp is no number of milliseconds")
        timestamp = int(timestamp)
    if not 0 <= timestamp < 10**11:
        raise ProtocolError("media.timestamp is no number of milliseconds")
    return timestamp * (RATE // 1000)
