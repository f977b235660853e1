"""Signed requests to the bridge: under the addresses it has outside, at the host where it really is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlencode, urlsplit

import aiohttp
from yarl import URL

from .twiml import signature

REQUEST_SECONDS = 15.0  # Twilio gives a webhook this long to answer


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is 0 and `problem` says why when nothing did."""

    status: int
    type: str = ""
    text: str = ""
    problem: str = ""


def reason(error: OSError) -> str:
    """Why a connection failed, in the system's words; event loops put their own around them."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


class Webhooks:
    """Asks a bridge. `url` is where it really is; `public_url`, if given, is the origin (and path prefix) that the
    world knows it by, for which requests are signed."""

    def __init__(self, url: str, public_url: str, auth_token: str) -> None:
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError(f"{url!r} is no address of a bridge; give one like http://127.0.0.1:8080")
        origin = f"{place.scheme}://{place.netloc}"
        self._here = origin
        self._outside = public_url.rstrip("/") or origin
        self._token = auth_token
        self._session: aiohttp.ClientSession | None = None
        self.url = self._outside + url.removeprefix(origin)

    async def __aenter__(self) -> Webhooks:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def reach(self, url: str) -> str:
        """Where an address of the outside world is really to be reached, http for http and ws for ws."""
        scheme, _, rest = url.partition("://")
        known = self._outside.partition("://")[2]
        if rest != known and not rest.startswith((known + "/", known + "?")):
            return url
        here_scheme, _, here = self._here.partition("://")
        secure = "s" if here_scheme == "https" else ""
        return ("ws" if scheme.startswith("ws") else "http") + secure + "://" + here + rest[len(known) :]

    def headers(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """Twilio's signature, where there is a token to sign with."""
        if not self._token:
            return {}
        return {"X-Twilio-Signature": signature(self._token, url, (form or {}).items())}

    async def ask(self, method: str, url: str, form: Mapping[str, str]) -> Answer:
        """Request `url` as Twilio does. Redirects are not followed; problems come back as an answer."""
        assert self._session is not None
        if method.upper() == "GET":
            url += ("&" if "?" in url else "?") + urlencode(form)
            form = {}
        headers = {
            **self.headers(url, form),
            "Host": urlsplit(url).netloc,
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
        }
        try:
            async with self._session.request(
                method,
                URL(self.reach(url), encoded=True),
                data=dict(form) or None,
                headers=headers,
                allow_redirects=False,
            ) as response:
                return Answer(response.status, response.content_type, await response.text())
        except aiohttp.ClientConnectorError as error:
            why = reason(error.os_error)
            return Answer(0, problem=f"nothing answers at {self._here} ({why}); start the bridge with: make serve")
        except TimeoutError:
            return Answer(0, problem=f"no answer from {self._here} within {REQUEST_SECONDS:.0f} seconds")
        except (aiohttp.ClientError, UnicodeDecodeError) as error:
            return Answer(0, problem=f"no readable answer from {self._here}: {error}")
