"""The TwiML that we answer Twilio with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from twilio.twiml.voice_response import VoiceResponse

# Twilio wants name and value of a <Parameter> to stay under this many characters together.
PARAMETER_LIMIT = 500

# What XML 1.0 cannot hold, not even escaped: one such character makes Twilio drop the whole document.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Failure:
    """What a caller hears when we failed: a sentence, then a person's telephone if there is one."""

    sentence: str
    number: str = ""
    language: str = ""


def stream(
    url: str,
    parameters: Mapping[str, str],
    *,
    status_callback: str | None,
    action: str | None,
    after: Failure,
) -> str:
    """Connect the call to the WebSocket at `url`.

    When the stream ends Twilio requests `action`, whose answer then decides. Without an action it goes on
    with `after`, so a planned end must complete the call first.
    """
    if urlsplit(url).scheme not in ("wss", "ws") or "?" in url:
        raise ValueError(f"stream URL {url!r}: Twilio wants wss:// and no query; what must travel goes into parameters")
    response = VoiceResponse()
    media = response.connect(action=action).stream(url=url, status_callback=status_callback)
    for name, value in parameters.items():
        if len(name) + len(value) >= PARAMETER_LIMIT:
            raise ValueError(
                f"stream parameter {name!r} holds {len(value)} characters: "
                f"name and value together must stay under {PARAMETER_LIMIT}"
            )
        media.parameter(name=_xml(name), value=_xml(value))
    if not action:
        _fail(response, after)
    return str(response)


def failed(failure: Failure) -> str:
    response = VoiceResponse()
    _fail(response, failure)
    return str(response)


def rejected() -> str:
    """Refuse a call that is not yet answered: the caller hears the busy tone and pays nothing."""
    response = VoiceResponse()
    response.reject(reason="busy")
    return str(response)


def say_and_hang_up(sentence: str, language: str = "") -> str:
    response = VoiceResponse()
    _say(response, sentence, language)
    response.hangup()
    return str(response)


def dial(number: str, caller_id: str = "") -> str:
    """Pass the call on to `number`; without `caller_id` the number called sees the caller's own."""
    response = VoiceResponse()
    response.dial(number, caller_id=caller_id or None)
    return str(response)


def hang_up() -> str:
    response = VoiceResponse()
    response.hangup()
    return str(response)


def _fail(response: VoiceResponse, failure: Failure) -> None:
    if failure.sentence:
        _say(response, failure.sentence, failure.language)
    if failure.number:
        response.dial(failure.number)


def _say(response: VoiceResponse, sentence: str, language: str) -> None:
    response.say(_xml(sentence), language=language or None)


def _xml(text: str) -> str:
    return NOT_XML.sub("", text)
