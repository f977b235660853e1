"""The built-in phone: places a call to a bridge as Twilio would, and records what the caller hears."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import numpy.typing as npt
from websockets.exceptions import InvalidHandshake, InvalidStatus

from .call import Call
from .clock import Clock
from .leg import Handset, Leg, check_digits
from .network import Network
from .protocol import MediaStream, TwilioError, sid
from .sound import Source, source
from .twiml import Document, StreamNoun, Verb, parse, stream_error
from .webhook import Webhooks, reason
from .websocket import WebSocket
from .wire import Alter

HANDSHAKE_SECONDS = 10.0  # a server that takes longer to open a stream leaves the caller in silence
FIRST_DIGIT = 1.0  # seconds into the stream at which `digits` begin
ACCOUNT = "AC" + "0" * 31 + "1"  # no real account
XML = ("text/xml", "application/xml")


class CallFailed(Exception):
    """The call cannot go on. Its text says why, in one line."""


class Phone:
    """A telephone at a strict double of Twilio: `async with Phone(url) as phone: call = await phone.call(seconds=5)`.

    `webhook` is the address that is really asked; `public_url` (an origin, or origin and path prefix) is how the
    bridge is known outside: requests are signed for it, and addresses under it are reached at the webhook's host.
    `sound` is what the caller says: samples at 8 kHz (int16 or float32), or a function from the number of a 20 ms
    chunk to 160 bytes of mu-law. `ear` gets every 20 ms that the caller hears. `form` adds to the webhook's form
    parameters, replaces them or (None) leaves them out; `parameters` does so with the stream's custom parameters,
    and `alter` with whole stream messages. Phones may share a `clock`. One call at a time.
    """

    def __init__(
        self,
        webhook: str,
        *,
        auth_token: str = "",
        public_url: str = "",
        method: str = "POST",
        caller: str = "+15550100001",
        number: str = "+15550100000",
        account_sid: str = ACCOUNT,
        sound: npt.NDArray[Any] | Source | None = None,
        ear: Callable[[bytes], None] | None = None,
        digits: str = "",
        network: Network | None = None,
        form: Mapping[str, str | None] | None = None,
        parameters: Mapping[str, str | None] | None = None,
        alter: Alter | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.record: Call | None = None  # of the call in progress, or of the last one
        self._web = Webhooks(webhook, public_url, auth_token)
        self._method = method
        self._caller, self._number, self._account = caller, number, account_sid
        self._handset = Handset(source(sound), ear, network or Network(), alter)
        self._digits = check_digits(digits)
        self._form, self._parameters = form or {}, parameters or {}
        self._clock = clock or Clock()
        self._seconds: float | None = None
        self._leg: Leg | None = None
        self._document_url = ""
        self._redirect: Document | None = None
        self._interrupted = asyncio.Event()  # ends a pause
        self._notices: set[asyncio.Task[None]] = set()
        self._watchers: list[tuple[Callable[[Call], bool], asyncio.Future[Call]]] = []

    async def __aenter__(self) -> Phone:
        await self._web.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._web.__aexit__(kind, error, trace)

    async def call(self, seconds: float | None = None, *, twiml: str | None = None) -> Call:
        """Dial, do what the bridge's TwiML says, and hang up `seconds` into the stream (None: let the bridge end).

        With `twiml` the webhook is not asked. Trouble with the bridge does not raise: it is in the record.
        """
        call = self.record = Call(sid("CA"), self._caller, self._number)
        self._seconds = seconds
        self._redirect = None
        self._interrupted.clear()
        try:
            document = await self._dial() if twiml is None else self._read(twiml, self._web.url)
            await self._obey(document)
            call.ended = call.ended or "the TwiML came to its end"
        except CallFailed as failed:
            call.failure, call.ended = str(failed), "failed"
        finally:
            call.state = "ended"
            await asyncio.gather(*self._notices)
            self._changed()
        return call

    async def until(self, condition: Callable[[Call], bool], timeout: float = 10.0) -> Call:
        """Wait until something is true of the call; looked at whenever there is news, every 20 ms at least.

        Raises RuntimeError when the call ends first, TimeoutError when it takes too long.
        """
        future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._watchers.append((condition, future))
        self._changed()
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            self._watchers = [watcher for watcher in self._watchers if watcher[1] is not future]

    def hang_up(self) -> None:
        """The caller puts the receiver down: `stop` is sent and the stream closed."""
        self._end("the caller hung up")

    def complete(self) -> None:
        """The bridge ends the call through Twilio's REST API."""
        self._end("the bridge completed the call")

    def update(self, twiml: str) -> None:
        """The bridge gives the call new TwiML through Twilio's REST API."""
        self._redirect = self._read(twiml, self._web.url)
        self._interrupted.set()
        if self._leg is not None:
            self._leg.leave("the bridge gave the call new TwiML")

    def press(self, digits: str) -> None:
        """Press keys now, one after the other; `w` waits half a second."""
        self._talking.press(digits)

    def send(self, message: str | bytes) -> None:
        """Send on the stream what Twilio would not have sent; bytes go as a binary frame."""
        self._talking.wire.smuggle(message)

    def stall(self, seconds: float = float("inf")) -> None:
        """Nothing passes on the stream, either way, for a while or for ever."""
        self._talking.wire.stall(seconds)

    def cut(self) -> None:
        """Break the stream's connection without a word. The caller is still there, so the TwiML goes on."""
        self._talking.cut("the connection was cut")

    @property
    def _talking(self) -> Leg:
        if self._leg is None:
            raise RuntimeError("no stream is open")
        return self._leg

    @property
    def _call(self) -> Call:
        assert self.record is not None
        return self.record

    def _end(self, why: str) -> None:
        if self.record is None:
            return
        self.record.ended = self.record.ended or why
        self._interrupted.set()
        if self._leg is not None:
            self._leg.leave(why)

    def _changed(self) -> None:
        call = self.record
        if not self._watchers or call is None:
            return
        for condition, future in self._watchers:
            if future.done():
                continue
            try:
                if condition(call):
                    future.set_result(call)
                elif call.state == "ended":
                    future.set_exception(RuntimeError(f"the call ended first: {call.failure or call.ended}"))
            except Exception as error:  # of the condition: it belongs to whoever waits for it
                future.set_exception(error)

    def _identity(self) -> dict[str, str]:
        call = self._call
        status = "completed" if call.ended else "in-progress" if call.answered else "ringing"
        return {
            "CallSid": call.sid,
            "AccountSid": self._account,
            "From": call.caller,
            "To": call.number,
            "Caller": call.caller,
            "Called": call.number,
            "Direction": "inbound",
            "CallStatus": status,
            "ApiVersion": "2010-04-01",
        }

    async def _dial(self) -> Document:
        began = time.monotonic()
        document = await self._fetch(self._method, self._web.url)
        self._call.webhook_seconds = time.monotonic() - began
        return document

    async def _fetch(self, method: str, url: str) -> Document:
        """The TwiML at a URL, or CallFailed with Twilio's error on record."""
        answer = await self._web.ask(method, url, _merged(self._identity(), self._form))
        if answer.problem:
            raise self._failed(TwilioError(11200, answer.problem))
        if answer.status != 200:
            said = " ".join(answer.text.split())[:200]
            hint = "; it may want requests signed with its Twilio auth token" if answer.status == 403 else ""
            raise self._failed(TwilioError(11200, f"{url} answers HTTP {answer.status}: {said}{hint}"))
        if answer.type not in XML:
            raise self._failed(TwilioError(12300, f"{url} answers with {answer.type}, which is no TwiML"))
        return self._read(answer.text, url)

    def _read(self, twiml: str, url: str) -> Document:
        document = parse(twiml)
        for error in document.errors:
            if error.code == 12100:
                raise self._failed(error)
            self._call.errors.append(error)
        self._document_url = url
        return document

    def _failed(self, error: TwilioError) -> CallFailed:
        self._call.errors.append(error)
        return CallFailed(error.why)

    async def _obey(self, document: Document) -> None:
        call = self._call
        if not document.verbs or document.verbs[0].name != "Reject":
            call.answered = True
        verbs = deque(document.verbs)
        while verbs and not call.ended:
            following = await self._do(verbs.popleft())
            if self._redirect is not None:
                following, self._redirect = self._redirect, None
                self._interrupted.clear()
            if following is not None:
                verbs = deque(following.verbs)

    async def _do(self, verb: Verb) -> Document | None:
        """Obey one verb; the document to go on with, if it is another one."""
        call = self._call
        detail = verb.text or verb.attributes.get("reason") or verb.attributes.get("length") or ""
        call.steps.append(f"{verb.name}: {detail}" if detail else verb.name)
        self._changed()
        match verb.name:
            case "Connect":
                assert verb.stream is not None
                await self._connect(verb.stream)
                return await self._after(verb)
            case "Reject":
                call.ended = f"rejected: {verb.attributes.get('reason', 'rejected')}"
            case "Hangup":
                call.ended = "the bridge hung up"
            case "Pause":
                try:
                    async with asyncio.timeout(float(verb.attributes.get("length", "1"))):
                        await self._interrupted.wait()
                except TimeoutError:
                    pass
        return None

    async def _after(self, connect: Verb) -> Document | None:
        """Ask what follows a stream, if the TwiML says whom. A caller who has gone is only reported."""
        action = connect.attributes.get("action")
        if not action or self._redirect is not None:
            return None
        url = urljoin(self._document_url, action)
        method = connect.attributes.get("method", "POST")
        if self._call.ended:
            self._notice(method, url, self._identity())
            return None
        return await self._fetch(method, url)

    async def _connect(self, noun: StreamNoun) -> None:
        call = self._call
        stream = MediaStream(self._account, call.sid, _merged(noun.parameters, self._parameters), call.errors)
        leg = Leg(
            call,
            stream,
            self._handset,
            self._clock,
            seconds=self._seconds,
            time_up=self.hang_up,
            changed=self._changed,
        )
        call.stream_sid = stream.sid
        began = time.monotonic()
        socket = await self._open(noun, leg)
        if isinstance(socket, TwilioError):
            call.errors.append(socket)
            call.failure = call.failure or socket.why
            self._stream_event(noun, "stream-error", socket.why)
            return
        call.handshake_seconds = time.monotonic() - began
        if call.ended:  # hung up in the meantime
            socket.abort()
            return
        self._stream_event(noun, "stream-started")
        call.state = "talking"
        self._leg = leg
        try:
            if self._digits:
                leg.press(self._digits, after=FIRST_DIGIT)
            call.stream_ended = await leg.run(socket)
        finally:
            self._leg = None
        self._stream_event(noun, "stream-stopped")

    async def _open(self, noun: StreamNoun, leg: Leg) -> WebSocket | TwilioError:
        if refusal := stream_error(noun.url):
            return refusal
        headers = {**self._web.headers(noun.url), "User-Agent": "Twilio.TmeWs/1.0"}
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                return await WebSocket.open(noun.url, self._web.reach(noun.url), headers, leg.receive)
        except TimeoutError:
            return TwilioError(31901, f"no answer from {noun.url} within {HANDSHAKE_SECONDS:.0f} seconds")
        except InvalidStatus as error:
            return TwilioError(31920, f"{noun.url} answers HTTP {error.response.status_code}, not 101")
        except InvalidHandshake as error:
            return TwilioError(31920, f"{noun.url} does not open a WebSocket: {error}")
        except OSError as error:
            return TwilioError(31902, f"nothing answers at {noun.url} ({reason(error)})")

    def _stream_event(self, noun: StreamNoun, event: str, error: str = "") -> None:
        if not noun.status_callback:
            return
        form = {
            "AccountSid": self._account,
            "CallSid": self._call.sid,
            "StreamSid": self._call.stream_sid,
            "StreamName": noun.name or self._call.stream_sid,
            "StreamEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if error:
            form["StreamError"] = error
        self._notice(noun.status_method, urljoin(self._document_url, noun.status_callback), form)

    def _notice(self, method: str, url: str, form: Mapping[str, str]) -> None:
        """Tell the bridge something, without waiting for its answer."""
        task = asyncio.create_task(self._tell(method, url, form))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    async def _tell(self, method: str, url: str, form: Mapping[str, str]) -> None:
        answer = await self._web.ask(method, url, form)
        if answer.status // 100 != 2:
            why = answer.problem or f"{url} answers HTTP {answer.status}"
            self._call.errors.append(TwilioError(11200, why))


def _merged(base: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not None}
