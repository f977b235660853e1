"""Twilio's REST API: place, end and pass on calls, set numbers up.

The twilio library blocks, so it works in threads of its own; nothing here holds up the event loop. It is
imported when a Rest is made, because a daemon without credentials has no use for it.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from . import twiml

API_URL = "https://api.twilio.com"

# A request takes 100 to 300 ms: enough to end 64 calls of a draining daemon within a second or so.
THREADS = 16

# Twilio's code for a call that is not in progress; one that it no longer knows is a 404.
CALL_IS_OVER = 21220

WRITE_E164 = "write the number in full, as in +31201234567"
# By HTTP status, and by Twilio's own codes.
REMEDIES = {
    401: "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN",
    429: "these were too many requests for a moment: try again",
    20005: "the account is not active: see the Twilio console",
    21205: "Twilio must reach the bridge's public URL: it cannot be a local one",
    21210: "call from a number of this account, or verify that number in the Twilio console",
    21211: WRITE_E164,
    21212: WRITE_E164,
    21215: "allow that country under Voice, Geographic permissions in the Twilio console",
    21219: "a trial account calls verified numbers only: verify it in the Twilio console or upgrade",
}

T = TypeVar("T")


class TelephonyError(Exception):
    """What Twilio's API refused, or why it could not be reached, with the remedy in one line."""

    def __init__(self, message: str, status: int = 0, code: int = 0) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
        self.code = code


class Number(NamedTuple):
    """One of the account's telephone numbers."""

    sid: str
    phone_number: str
    voice_url: str


class Rest:
    """One Twilio account. Every method raises TelephonyError when Twilio refuses or cannot be reached.

    `api_url` may name one of Twilio's regions or a carrier with the same API. `timeout` is in seconds.
    """

    def __init__(self, account_sid: str, auth_token: str, api_url: str = API_URL, timeout: float = 10) -> None:
        from twilio.rest import Client

        for name, value in (("TWILIO_ACCOUNT_SID", account_sid), ("TWILIO_AUTH_TOKEN", auth_token)):
            if not value or not value.isascii():
                raise TelephonyError(f"{name} is empty or not plain ASCII: copy it from the Twilio console")
        self._http = _Http(api_url, timeout)
        client = Client(account_sid, auth_token, http_client=self._http)
        # The library imports these on first use: better now than in the middle of a call.
        self._calls: Any = client.calls
        self._numbers: Any = client.incoming_phone_numbers
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="twilio")
        self._timeout = timeout

    async def complete(self, call_sid: str) -> bool:
        """Hang up a call; False if it was over already."""
        return await self._update(call_sid, status="completed")

    async def transfer(self, call_sid: str, number: str, caller_id: str = "") -> bool:
        """Take a call away from us and dial `number` for it; False if it was over already."""
        return await self._update(call_sid, twiml=twiml.dial(number, caller_id))

    async def place(
        self,
        to: str,
        from_: str,
        url: str,
        *,
        status_callback: str = "",
        machine_detection: Literal["", "Enable", "DetectMessageEnd"] = "",
        timeout: int = 60,
        send_digits: str = "",
    ) -> str:
        """Call `to` and return the call's SID at once; on the answer Twilio requests `url`, our webhook.

        It rings for `timeout` seconds. With `machine_detection` the webhook is told `AnsweredBy`.
        `send_digits` are dialled after the answer (`w` waits half a second).
        """
        if machine_detection and send_digits:
            raise TelephonyError("machine detection does not work with sent digits: leave out one of the two")
        options: dict[str, Any] = {}
        if status_callback:
            options |= {
                "status_callback": status_callback,
                "status_callback_method": "POST",
                "status_callback_event": ["initiated", "ringing", "answered", "completed"],
            }
        if machine_detection:
            options["machine_detection"] = machine_detection
        if send_digits:
            options["send_digits"] = send_digits
        call = await self._run(
            partial(self._calls.create, to=to, from_=from_, url=url, method="POST", timeout=timeout, **options)
        )
        return str(call.sid)

    async def numbers(self) -> list[Number]:
        """The account's telephone numbers and the webhook that each of them calls."""
        return [Number(n.sid, n.phone_number, n.voice_url or "") for n in await self._all_numbers()]

    async def point(self, number: str, voice_url: str, status_callback: str, fallback_url: str = "") -> str:
        """Make `number` call our webhook; returns the URL that it called before.

        A TwiML application or a SIP trunk on the number would win over its URLs, so it is taken off.
        """
        numbers = await self._all_numbers()
        found = next((n for n in numbers if n.phone_number == number), None)
        if found is None:
            have = ", ".join(n.phone_number for n in numbers) or "none: buy one in the Twilio console"
            raise TelephonyError(f"the account has no number {number}; its numbers: {have}")
        options = {"voice_fallback_url": fallback_url} if fallback_url else {}
        options |= {name: "" for name in ("voice_application_sid", "trunk_sid") if getattr(found, name)}
        await self._run(
            partial(
                self._numbers(found.sid).update,
                voice_url=voice_url,
                voice_method="POST",
                status_callback=status_callback,
                status_callback_method="POST",
                **options,
            )
        )
        return found.voice_url or ""

    async def close(self) -> None:
        """Wait for the requests that are under way, then let go of the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._http.close()

    async def _update(self, call_sid: str, **change: str) -> bool:
        try:
            await self._run(partial(self._calls(quote(call_sid, safe="")).update, **change))
        except TelephonyError as error:
            if error.status == 404 or error.code == CALL_IS_OVER:
                return False
            raise
        return True

    async def _all_numbers(self) -> list[Any]:
        return await self._run(partial(self._numbers.list, page_size=1000))

    async def _run(self, request: Callable[[], T]) -> T:
        from twilio.base.exceptions import TwilioException

        loop = asyncio.get_running_loop()
        try:
            # A host lookup knows no time limit and all threads may be taken: the wait has its own limit.
            async with asyncio.timeout(2 * self._timeout):
                return await loop.run_in_executor(self._threads, request)
        except TimeoutError:
            raise self._http.too_slow(2 * self._timeout) from None
        except TwilioException as error:
            api_url = self._http.api_url
            raise TelephonyError(f"{api_url} answered unlike Twilio ({error}): check the API URL") from None


class _Http:
    """What the library sends its requests with: aimed at `api_url`, every failure a TelephonyError."""

    is_async = False

    def __init__(self, api_url: str, timeout: float) -> None:
        from requests.adapters import HTTPAdapter
        from twilio.http.http_client import TwilioHttpClient

        self.api_url = api_url.rstrip("/")
        self._timeout = timeout
        self._client: Any = TwilioHttpClient(timeout=timeout)
        self._client.logger.setLevel(logging.WARNING)  # it tells the whole request, ten lines each time
        for scheme in ("https://", "http://"):
            self._client.session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))

    def request(self, method: str, url: str, **options: Any) -> Any:
        from requests.exceptions import RequestException, Timeout

        asked = urlsplit(url)
        target = self.api_url + urlunsplit(("", "", asked.path, asked.query, ""))
        try:
            response = self._client.request(method, target, **options)
        except Timeout:
            raise self.too_slow(self._timeout) from None
        except RequestException as error:
            raise TelephonyError(
                f"cannot reach {self.api_url} ({type(error).__name__}): check the network and the API URL"
            ) from None
        status = response.status_code
        try:
            body = json.loads(response.text)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise TelephonyError(f"{self.api_url} answered {status} without JSON: check the API URL", status)
        if status >= 400:
            raise _refusal(status, body)
        return response

    def too_slow(self, seconds: float) -> TelephonyError:
        return TelephonyError(f"{self.api_url} did not answer within {seconds:g} s: check the network, then try again")

    def close(self) -> None:
        self._client.session.close()


def _refusal(status: int, body: dict[str, Any]) -> TelephonyError:
    code = body["code"] if isinstance(body.get("code"), int) else 0
    remedy = REMEDIES.get(code) or REMEDIES.get(status) or body.get("more_info") or "see the Twilio console"
    message = f"Twilio refused ({code or status}): {body.get('message', '')}; {remedy}"
    return TelephonyError(message, status, code)
