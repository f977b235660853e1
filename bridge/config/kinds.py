"""Kinds of values: a telephone number, a path, an address. Each says what to write when it refuses one."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

# HS256 wants a key at least as long as its hash.
SHORTEST_SECRET = 32
# Twilio spells anonymous, restricted, unavailable, blocked and unknown on a keypad.
NAMELESS = frozenset({"+266696687", "+7378742833", "+86282452253", "+2562533", "+8656696"})
# What the model was trained on; sound is resampled at the line, nowhere else.
MODEL_RATE = 24_000


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def in_the_clear(url: str) -> bool:
    """Whether what goes there can be read on the way."""
    return url.startswith(("ws:", "http:")) and not is_loopback(urlsplit(url).hostname or "")


def _phone(value: str) -> str:
    if value and not re.fullmatch(r"\+[1-9][0-9]{1,14}", value):
        raise ValueError("must be a telephone number with its country code, as +15551234567")
    return value


def _digit(value: str) -> str:
    if not re.fullmatch("[0-9*#A-D]", value):
        raise ValueError("must be one key of a telephone: 0 to 9, * or #")
    return value


def _action(value: str) -> str:
    if value not in ("hangup", "forget", "pass") and not re.fullmatch(r"transfer:\+[1-9][0-9]{1,14}", value):
        raise ValueError('must be "hangup", "forget", "pass" or "transfer:+15551234567"')
    return value


def _url(value: str, *schemes: str) -> str:
    parts = urlsplit(value)
    if not value.startswith(schemes) or not parts.hostname:
        raise ValueError(f"must begin with {' or '.join(schemes)} and name a host")
    if re.search(r"[?#\s]", value) or parts.username is not None:
        raise ValueError("must have no query, fragment, user name or space: take that part off")
    _ = parts.port  # raises when it is out of range
    return value.rstrip("/")


def _web_url(value: str) -> str:
    if not value:
        return value
    url = _url(value, "https://", "http://")
    if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        raise ValueError("must begin with https://; http:// is for this machine only")
    return url


def _keys_url(value: str) -> str:
    """Kept to the letter: a query belongs to it."""
    address, _, query = value.partition("?")
    _web_url(address)
    if re.search(r"[#\s]", query):
        raise ValueError("must have no fragment or space: take that part off")
    return value


def _engine_url(value: str) -> str:
    return value and _url(value, "wss://", "ws://", "https://", "http://")


def _store(value: str) -> str:
    if "://" in value:
        return _url(value, "libsql://", "https://", "http://")
    if not value:
        raise ValueError("must name a file, or the address of a libSQL server as libsql://memory.example.com")
    return os.path.expanduser(value)


def _embedder(value: str) -> str:
    address, _, model = value.partition("#")
    if "://" in value:
        if not model:
            raise ValueError("must name the model behind the address, as https://api.example.com/v1#model")
        return f"{_url(address, 'https://', 'http://')}#{model}"
    if value != "wordllama" and not value.startswith("sentence-transformers:"):
        raise ValueError("must be wordllama, https://api.example.com/v1#model or sentence-transformers:NAME")
    return value


def _api_url(value: str) -> str:
    return value and _url(value, "https://", "http://")


def _known_greeting(value: str) -> str:
    if "{" in value.replace("{name}", "") or "}" in value.replace("{name}", ""):
        raise ValueError("may hold {name} and no other braces")
    return value


def _account(value: str) -> str:
    if value and not re.fullmatch(r"AC[0-9a-fA-F]{32}", value):
        raise ValueError("must be AC and 32 hexadecimal digits, as the Twilio console shows the Account SID")
    return value


def _signing_key(value: SecretStr) -> SecretStr:
    length = len(value.get_secret_value().encode())
    if 0 < length < SHORTEST_SECRET:
        raise ValueError(f"has {length} bytes, must have {SHORTEST_SECRET} or more: try `openssl rand -hex 32`")
    return value


def secrets_of(text: str) -> tuple[str, ...]:
    """The secrets in a text, one a line, the newest first; raises ValueError."""
    if "-----BEGIN" in text:
        raise ValueError(
            "is a key in PEM: a public one belongs into auth.public_key_file, a secret is one line of text"
        )
    lines = tuple(line for part in re.split(r"[\r\n]+", text) if (line := part.strip()))
    for number, line in enumerate(lines, start=1):
        try:
            _signing_key(SecretStr(line))
        except ValueError as error:
            raise ValueError(f"{f'line {number} ' if len(lines) > 1 else ''}{error}") from None
    return lines


def _signing_keys(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not secrets_of(text):
        raise ValueError("is blank: write a secret, or leave it out")
    return value


def _path(value: Any) -> Path | None:
    if not isinstance(value, str | Path):
        raise ValueError("must be a path in quotes")
    return Path(os.path.expanduser(value)) if value else None


def _folder(value: Any) -> Path:
    if not (path := _path(value)):
        raise ValueError("must name a folder")
    return path


def _existing(value: Any) -> Path | None:
    path = _path(value)
    if path and not path.is_file():
        raise ValueError("is not a file: correct the path")
    return path


def _model_rate(value: int) -> int:
    if value != MODEL_RATE:
        raise ValueError(f"the model works at 24 kHz: write {MODEL_RATE}, calls are resampled to it")
    return value


def host_port(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be host:port, as 127.0.0.1:9090")
    return host, int(port)


def _host_port_text(value: str) -> str:
    if value:
        host_port(value)
    return value


Phone = Annotated[str, AfterValidator(_phone)]
Digits = dict[Annotated[str, AfterValidator(_digit)], Annotated[str, AfterValidator(_action)]]
Sentence = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ModelRate = Annotated[int, AfterValidator(_model_rate)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
KeysUrl = Annotated[str, AfterValidator(_keys_url)]
EngineUrl = Annotated[str, AfterValidator(_engine_url)]
ApiUrl = Annotated[str, AfterValidator(_api_url)]
StorePlace = Annotated[str, AfterValidator(_store)]
EmbedderName = Annotated[str, AfterValidator(_embedder)]
KnownGreeting = Annotated[str, AfterValidator(_known_greeting)]
HostPort = Annotated[str, AfterValidator(_host_port_text)]
AccountSid = Annotated[str, AfterValidator(_account)]
SigningKey = Annotated[SecretStr, AfterValidator(_signing_key)]
SigningKeys = Annotated[SecretStr, AfterValidator(_signing_keys)]
MaybePath = Annotated[Path | None, BeforeValidator(_path)]
Folder = Annotated[Path, BeforeValidator(_folder)]
ExistingFile = Annotated[Path | None, BeforeValidator(_existing)]
