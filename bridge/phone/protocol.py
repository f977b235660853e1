"""Twilio's end of one bidirectional media stream: what it says and what it accepts. No I/O, no clock."""

from __future__ import annotations

import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

CHUNK = 160  # bytes of mu-law in the 20 ms that Twilio puts into one message
RATE = 8000


@dataclass(frozen=True)
class TwilioError:
    """What Twilio would have written into the account's debugger."""

    code: int
    why: str

    def __str__(self) -> str:
        return f"{self.code}: {self.why}"


class _Audio(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    payload: bytes

    def __repr__(self) -> str:
        return f"<{len(self.payload)} bytes>"


class _Name(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str


class Media(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="event", tag="media"):
    streamSid: str
    media: _Audio


class Mark(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="event", tag="mark"):
    streamSid: str
    mark: _Name


class Clear(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="event", tag="clear"):
    streamSid: str


_decoder: msgspec.json.Decoder[Media | Mark | Clear] = msgspec.json.Decoder(Media | Mark | Clear)


def sid(kind: str) -> str:
    """A fresh Twilio identifier: two letters that say what it names, then 32 hexadecimal digits."""
    return kind + secrets.token_hex(16)


class MediaStream:
    """The messages of one stream, numbered, and the judge of what the bridge sends back.

    `errors` gets each code once a stream, as Twilio reports them.
    """

    def __init__(
        self, account_sid: str, call_sid: str, parameters: Mapping[str, str], errors: list[TwilioError]
    ) -> None:
        self.sid = sid("MZ")
        self.ignored = 0  # messages that were refused, the unreported ones too
        self._errors = errors
        self._reported: set[int] = set()
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._parameters = dict(parameters)
        self._sequence = 0
        self._chunk = 0
        # A media message comes fifty times a second, so its fixed pieces are made once.
        self._media = (
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
            b'"timestamp":"%d","payload":"%s"},"streamSid":"' + self.sid.encode() + b'"}'
        )

    def connected(self) -> bytes:
        return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}).encode()

    def start(self) -> bytes:
        start = {
            "accountSid": self._account_sid,
            "streamSid": self.sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
            "customParameters": self._parameters,
        }
        return self._numbered("start", start)

    def media(self, audio: bytes, at_ms: int) -> bytes:
        """A chunk that began `at_ms` after the stream."""
        self._sequence += 1
        self._chunk += 1
        return self._media % (self._sequence, self._chunk, at_ms, binascii.b2a_base64(audio, newline=False))

    def dtmf(self, digit: str) -> bytes:
        return self._numbered("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> bytes:
        return self._numbered("mark", {"name": name})

    def stop(self) -> bytes:
        return self._numbered("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def receive(self, text: bytes | str) -> Media | Mark | Clear | TwilioError:
        """What the bridge said, or why Twilio would ignore it."""
        try:
            message = _decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._refuse(31951, str(error))
        if message.streamSid != self.sid:
            return self._refuse(31951, f"streamSid is {message.streamSid!r:.40}, this stream is {self.sid!r}")
        return message

    def receive_binary(self) -> TwilioError:
        """A binary frame, whatever is in it."""
        return self._refuse(31950, "a binary frame; send text")

    def _refuse(self, code: int, why: str) -> TwilioError:
        error = TwilioError(code, why)
        self.ignored += 1
        if code not in self._reported:
            self._reported.add(code)
            self._errors.append(error)
        return error

    def _numbered(self, event: str, body: Mapping[str, object]) -> bytes:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.sid, event: body}
        return json.dumps(message).encode()
