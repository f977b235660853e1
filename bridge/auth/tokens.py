"""Client tokens: JWTs, made here with a secret or elsewhere with a private key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import jwt

from ..config import Auth
from .denied import Denied
from .held import Held, KeyFile
from .jwks import Jwks
from .keys import ALGORITHMS, Algorithm, Key, public_keys, secrets

Scope = Literal["talk", "operator"]
SCOPES: tuple[Scope, ...] = ("talk", "operator")
SCOPE_CLAIMS = ("scope", "scopes", "scp")  # RFC 9068's name, and what providers call it besides

LONGEST = 8 * 1024  # bytes of a token: more than any real one, and little work for nothing
LEEWAY = 10.0  # seconds by which the clocks of who makes tokens and ours may differ
LONGEST_SHOWN = 64  # characters of a name that a stranger wrote, in an answer
LONGEST_WHY = 200  # characters of what the library says of a token: it may quote it


@dataclass(frozen=True)
class Claims:
    """What a valid token says."""

    subject: str
    scopes: tuple[Scope, ...]
    expires: int
    """Seconds since 1970."""


def mint(secret: str, audience: str, subject: str, scopes: tuple[Scope, ...], seconds: float) -> str:
    """A client token, signed with HS256."""
    now = int(time.time())
    claims = {"sub": subject, "aud": audience, "scope": " ".join(scopes), "iat": now, "exp": now + int(seconds)}
    return jwt.encode(claims, secret, algorithm="HS256")


class Tokens:
    """Checks tokens in all the ways that are set. `async with` it while it is in use; it may check nothing before."""

    def __init__(self, given: Auth, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` says when to look at files and addresses again. Raises `BadKeys`, also for what is in the files."""
        self._audience = given.audience
        self._sources: list[Held | KeyFile | Jwks] = []
        if given.secret_file:
            self._sources.append(KeyFile("auth.secret_file", given.secret_file, secrets, clock))
        elif given.secret:
            self._sources.append(Held(secrets(given.secret.get_secret_value())))
        self._made_here = bool(self._sources)
        if given.public_key_file:
            self._sources.append(KeyFile("auth.public_key_file", given.public_key_file, public_keys, clock))
        self._jwks = Jwks(given.jwks_url, clock) if given.jwks_url else None
        if self._jwks:
            self._sources.append(self._jwks)

    @property
    def at_hand(self) -> list[Key]:
        """The keys that are on this machine."""
        return [key for source in self._sources if not isinstance(source, Jwks) for key in source.keys]

    async def __aenter__(self) -> Tokens:
        if self._jwks:
            self._jwks.refresh()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._jwks:
            await self._jwks.close()

    async def check(self, authorization: str, scope: Scope) -> Claims:
        """What the bearer token of an Authorization header says, if it has `scope`; raises `Denied`."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            whence = "`voice-bridge token` makes one" if self._made_here else "whoever holds the private key makes it"
            raise Denied(401, f"send Authorization: Bearer TOKEN; {whence}")
        return await self.check_token(token.strip(), scope)

    async def check_token(self, token: str, scope: Scope) -> Claims:
        """What a bare token says, if it has `scope`; raises `Denied`."""
        # As bytes: one that was not UTF-8 arrives as a lone surrogate, on which the library would fail.
        given = token.encode(errors="replace")
        if len(given) > LONGEST:
            raise Denied(401, f"the token is not valid: it is longer than {LONGEST // 1024} KiB")
        algorithm, id = _named(given)
        claims = await self._verified(given, algorithm, id)
        scopes = _scopes(claims)
        if scope not in scopes:
            raise Denied(403, f"the token lacks the scope {scope}")
        return Claims(str(claims.get("sub", "")), scopes, int(claims["exp"]))

    async def _verified(self, token: bytes, algorithm: Algorithm, id: str | None) -> Mapping[str, Any]:
        """The claims, signed by one of our keys. The algorithm is the key's, and only thereby what the token names."""
        tried = False
        for source in self._sources:
            for key in await source.find(algorithm, id):
                tried = True
                claims = _decoded(token, key.value, key.algorithm, self._audience)
                if claims is not None:
                    return claims
        if tried:
            raise Denied(401, "the token is not valid: its signature is by none of the keys of this bridge")
        named = f" that is called {_shown(id)}" if id else ""
        raise Denied(401, f"the token is not valid: this bridge has no key for {algorithm}{named}")


def _named(token: bytes) -> tuple[Algorithm, str | None]:
    """The algorithm and the key that a token says it was signed with."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise _invalid(error) from None
    algorithm, id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        taken = ", ".join(ALGORITHMS)
        raise Denied(401, f"the token is not valid: its algorithm is {_shown(algorithm)}, taken are {taken}")
    return cast(Algorithm, algorithm), id


def _decoded(token: bytes, key: Any, algorithm: Algorithm, audience: str) -> Mapping[str, Any] | None:
    """The claims of a token, None if it was not signed with this key; raises `Denied` if it does not hold otherwise."""
    try:
        return jwt.decode(
            token, key, [algorithm], options={"require": ["exp", "aud"]}, audience=audience, leeway=LEEWAY
        )
    except jwt.InvalidSignatureError:
        return None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _invalid(error) from None


def _scopes(claims: Mapping[str, Any]) -> tuple[Scope, ...]:
    """Those of our scopes that a token has, as text with spaces between them or as a list."""
    named: list[object] = []
    for claim in SCOPE_CLAIMS:
        value = claims.get(claim)
        named += value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(scope for scope in SCOPES if scope in named)


def _invalid(error: Exception) -> Denied:
    return Denied(401, f"the token is not valid: {' '.join(str(error).split())[:LONGEST_WHY]}")


def _shown(text: object) -> str:
    return ascii(text)[:LONGEST_SHOWN]
