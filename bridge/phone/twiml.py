"""TwiML as Twilio reads it, and the signatures that Twilio puts under its requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit
from xml.etree import ElementTree

from .protocol import TwilioError

MAX_PARAMETER = 500  # Twilio's limit on a parameter's name and value together

# What each element may carry; anything else is Twilio's warning 12200.
ATTRIBUTES = {
    "Say": {"voice", "language", "loop"},
    "Play": {"loop", "digits"},
    "Pause": {"length"},
    "Hangup": set(),
    "Reject": {"reason"},
    "Dial": {"action", "method", "timeout", "callerId", "record", "timeLimit", "answerOnBridge", "hangupOnStar"},
    "Connect": {"action", "method"},
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
}


@dataclass(frozen=True)
class Verb:
    """One step of a document: its name, attributes and text; a `Connect` has the stream that it connects to."""

    name: str
    attributes: Mapping[str, str]
    text: str = ""
    stream: StreamNoun | None = None


@dataclass(frozen=True)
class StreamNoun:
    url: str
    name: str
    status_callback: str
    status_method: str
    parameters: Mapping[str, str]


@dataclass
class Document:
    """The verbs to obey, and what Twilio would complain about."""

    verbs: list[Verb] = field(default_factory=list)
    errors: list[TwilioError] = field(default_factory=list)


def signature(auth_token: str, url: str, parameters: Iterable[tuple[str, str]] = ()) -> str:
    """X-Twilio-Signature for a request to `url` with these form parameters."""
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def parse(text: str) -> Document:
    """Read a TwiML document; what cannot be read at all leaves no verbs and error 12100."""
    document = Document()
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        document.errors.append(TwilioError(12100, f"the TwiML is no XML: {error}"))
        return document
    if root.tag != "Response":
        document.errors.append(TwilioError(12100, f"the TwiML begins with <{root.tag}>, not <Response>"))
        return document
    for element in root:
        verb = _verb(element, document.errors)
        if verb is not None:
            document.verbs.append(verb)
    return document


def stream_error(url: str) -> TwilioError | None:
    """Why Twilio would not open this stream URL; plain ws is let through on this machine only."""
    place = urlsplit(url)
    if not place.hostname:
        return TwilioError(31923, f"the stream URL {url!r} names no host")
    if place.scheme != "wss" and not (place.scheme == "ws" and is_loopback(place.hostname)):
        return TwilioError(31922, f"the stream URL {url!r} is not wss")
    if place.query:
        return TwilioError(31922, f"the stream URL {url!r} has a query; use <Parameter> instead")
    return None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _verb(element: ElementTree.Element, errors: list[TwilioError]) -> Verb | None:
    if element.tag in ("Stream", "Parameter") or not _known(element, errors):
        errors.append(TwilioError(12200, f"<{element.tag}> is no verb that this phone knows"))
        return None
    if element.tag != "Connect":
        return Verb(element.tag, element.attrib, " ".join("".join(element.itertext()).split()))
    nouns = list(element)
    if len(nouns) != 1 or nouns[0].tag != "Stream" or not _known(nouns[0], errors):
        names = ", ".join(f"<{noun.tag}>" for noun in nouns) or "nothing"
        errors.append(TwilioError(12200, f"<Connect> holds {names}; it takes one <Stream>"))
        return None
    return Verb("Connect", element.attrib, stream=_stream(nouns[0], errors))


def _stream(element: ElementTree.Element, errors: list[TwilioError]) -> StreamNoun:
    parameters = {}
    for child in element:
        name, value = child.get("name", ""), child.get("value", "")
        if child.tag != "Parameter" or not _known(child, errors) or not name:
            errors.append(TwilioError(12200, f"<Stream> holds <{child.tag}>; it takes <Parameter name value>"))
        elif len(name) + len(value) >= MAX_PARAMETER:
            errors.append(
                TwilioError(12200, f"<Parameter name={name!r}> is {len(name) + len(value)} long; under 500 passes")
            )
        else:
            parameters[name] = value
    return StreamNoun(
        url=element.get("url", ""),
        name=element.get("name", ""),
        status_callback=element.get("statusCallback", ""),
        status_method=element.get("statusCallbackMethod", "POST"),
        parameters=parameters,
    )


def _known(element: ElementTree.Element, errors: list[TwilioError]) -> bool:
    """Whether the element is one we know; its unknown attributes are only complained about."""
    allowed = ATTRIBUTES.get(element.tag)
    if allowed is None:
        return False
    unknown = sorted(element.attrib.keys() - allowed)
    errors.extend(TwilioError(12200, f"<{element.tag}> does not take {name}") for name in unknown)
    return True
