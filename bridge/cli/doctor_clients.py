"""What `voice-bridge doctor` says of how clients are known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator

from ..auth.jwks import NoKeys, fetch
from ..auth.keys import BadKeys, Key
from ..auth.tokens import Tokens
from ..config import Settings
from .finding import Row, State


def check_clients(settings: Settings) -> Iterator[Row]:
    """Which ways in there are, and whether the keys that tokens are checked with can be had."""
    auth = settings.auth
    remedy = "Set auth.secret to let clients in by token."
    if settings.open_mode:
        text = "open mode, for this machine only: there is no way to check a client's token, Twilio token or public_url"
        yield _row("Clients", "note", text, remedy)
        return
    if not auth.takes_tokens:
        yield _row("Clients", "note", "none but Twilio may come in", remedy)
        return
    try:
        held = Tokens(auth).at_hand
    except BadKeys as error:
        yield _row("Clients", "problem", str(error), "Correct it, or leave that key out.")
        return
    makes = "`voice-bridge token` makes one" if auth.secrets else "made elsewhere, with a private key"
    audience = f"for the audience {auth.audience}"
    known = f"checked with {_counted(held)}" if held else "checked with the keys of auth.jwks_url"
    yield _row("Clients", "ok", f"let in by token {audience}, {known}; {makes}")
    if auth.jwks_url:
        yield check_jwks(auth.jwks_url)


def check_jwks(url: str) -> Row:
    """Whether the address of an identity provider gives keys."""
    try:
        keys = asyncio.run(fetch(url))
    except NoKeys as error:
        remedy = "Correct auth.jwks_url, or what is between; meanwhile nobody comes in by a token from there."
        return _row("JWKS", "note", f"{url} {error}", remedy)
    return _row("JWKS", "ok", f"{url} answers with {_counted(keys)}")


def _counted(keys: Iterable[Key]) -> str:
    """How many keys there are for each algorithm."""
    counts = Counter(key.algorithm for key in keys)
    return ", ".join(f"{count} key{'s' if count > 1 else ''} for {name}" for name, count in counts.items())


def _row(name: str, state: State, text: str, remedy: str = "") -> Row:
    return Row("Doors", name, state, text, remedy)
