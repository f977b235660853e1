"""The public keys of an identity provider: fetched from its JWKS address, kept, and fetched again in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiohttp

from ..observe import logs
from .denied import Denied
from .keys import Algorithm, Key, key_set

AGE = 3600.0  # seconds after which a set is fetched again: a key that the provider withdrew is good for no longer
PAUSE = 30.0  # seconds between two fetches, whatever key strangers name in their tokens
SECONDS = 5.0  # that a fetch may take: a client waits for the first one
LONGEST = 256 * 1024  # bytes of a set; those of large providers take 20,000
QUIET = 60.0  # seconds between two log lines about an address that fails

log = logs.get()


class NoKeys(Exception):
    """The address gives no keys; the message says why and begins with a verb."""


async def fetch(url: str) -> tuple[Key, ...]:
    """The keys that are published at `url`; raises `NoKeys`."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    # Nothing compressed: a few bytes could swell to any size.
    headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if 300 <= answer.status < 400:
                raise NoKeys(f"answers with a redirect (HTTP {answer.status}), which is not followed: name its target")
            if answer.status != 200:
                raise NoKeys(f"answers HTTP {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > LONGEST:
                    raise NoKeys(f"answers more than {LONGEST // 1024} KiB")
        return key_set(bytes(body))
    except TimeoutError:
        raise NoKeys(f"does not answer within {SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NoKeys(f"cannot be reached: {' '.join(str(error).split()) or type(error).__name__}") from None
    except ValueError as error:
        raise NoKeys(str(error)) from None


class Jwks:
    """The set of one address. While that fails, the last good set stands."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._got = self._tried = self._told = float("-inf")
        self._fails = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: Algorithm, id: str | None) -> Sequence[Key]:
        if algorithm == "HS256":
            return ()
        found = self._fitting(algorithm, id)
        if not found or self._clock() - self._got >= AGE:
            self.refresh()
            # An address that fails must not hold up those whose key is known.
            if self._fetching and not (found and self._fails):
                await asyncio.shield(self._fetching)
                found = self._fitting(algorithm, id)
        if not self._keys:
            raise Denied(503, "the token cannot be checked: the keys of auth.jwks_url cannot be had; try again later")
        return found

    def _fitting(self, algorithm: Algorithm, id: str | None) -> list[Key]:
        """A token that names no key may be signed with any."""
        return [key for key in self._keys if key.algorithm == algorithm and id in (None, key.id)]

    def refresh(self) -> None:
        """Begin to fetch the set, unless that was tried a moment ago."""
        if self._clock() - self._tried >= PAUSE:
            self._tried = self._clock()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            self._keys = await fetch(self._url)
        except NoKeys as error:
            self._fails = True
            if self._clock() - self._told >= QUIET:
                self._told = self._clock()
                kept = len(self._keys)
                log.warning("auth.jwks_url gives no keys", url=self._url, why=str(error), keys_from_before=kept)
        else:
            self._fails = False
            self._got, self._told = self._clock(), float("-inf")
            log.info("keys fetched", url=self._url, keys=len(self._keys))
        finally:
            self._fetching = None

    async def close(self) -> None:
        if task := self._fetching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
