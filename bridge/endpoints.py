"""Where engines elsewhere are, and how we show them who we are: from the settings to what an engine is made of."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from ..engines.relay.endpoint import Endpoint, endpoint, no_token
from .auth import mint
from .config import Voice
from .config.kinds import secrets_of
from .config.voice import Cloud, CloudEndpoint

LASTS = 600.0  # seconds that a token of ours is good for; each probe makes a new one


def endpoints(voice: Voice) -> tuple[Endpoint, ...]:
    """All of them, in the order of the file."""
    cloud = voice.cloud
    return tuple(
        endpoint(entry.url, entry.wire or None, _token(entry, cloud), entry.voice or cloud.voice)
        for entry in voice.endpoints
    )


def _token(entry: CloudEndpoint, cloud: Cloud) -> Callable[[], str]:
    """What gives the token for one: of its own, or else what all share."""
    if entry.token_file or entry.secret_file:
        return _given(entry.token_file, "", entry.secret_file, "", cloud.audience)
    token, secret = cloud.token.get_secret_value(), cloud.secret.get_secret_value()
    return _given(cloud.token_file, token, cloud.secret_file, secret, cloud.audience)


def _given(
    token_file: Path | None, token: str, secret_file: Path | None, secret: str, audience: str
) -> Callable[[], str]:
    if token_file or token:
        return lambda: _read(token_file) if token_file else token
    if secret_file or secret:
        return lambda: _made(_read(secret_file) if secret_file else secret, audience)
    return no_token


def _made(secrets: str, audience: str) -> str:
    """A token by the newest secret, in the name of this machine."""
    try:
        secret = secrets_of(secrets)[0]
    except ValueError as error:
        raise ValueError(f"cannot be shown a token: voice.cloud.secret {error}") from None
    return mint(secret, audience, socket.gethostname(), ("talk",), LASTS)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ValueError(f"cannot be shown a token: {path} cannot be read: {error.strerror}") from None
    if not text:
        raise ValueError(f"cannot be shown a token: {path} is empty")
    return text
