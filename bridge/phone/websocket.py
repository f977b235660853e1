"""A WebSocket client that sends at once, from a plain function.

The clock of a call must not wait for a task to be scheduled, and a hundred calls must cost little, so this is the
protocol of `websockets` without its coroutines.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

MAX_MESSAGE = 1 << 20  # two minutes of mu-law in one message: more is no call
CLOSE_SECONDS = 2.0  # how long a peer may take to answer our goodbye


@dataclass(frozen=True)
class Closed:
    """How a connection ended: 1006 when it broke without a goodbye; `fault` when the peer broke the protocol."""

    code: int
    reason: str
    fault: bool = False


class WebSocket(asyncio.Protocol):
    """One client connection. `on_message` gets every whole message: (data, is it text)."""

    def __init__(self, url: str, headers: Mapping[str, str], on_message: Callable[[bytes, bool], None]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[Closed] = loop.create_future()
        self._headers = headers
        self._on_message = on_message
        self._protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE)
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._text = True
        self._last_resort: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls, url: str, at: str, headers: Mapping[str, str], on_message: Callable[[bytes, bool], None]
    ) -> WebSocket:
        """Connect to the ws or wss address `at`, asking for `url`.

        Raises OSError when nobody answers, websockets' InvalidHandshake when the answer is no.
        """
        place = urlsplit(at)
        secure = place.scheme == "wss"
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: cls(url, headers, on_message),
            place.hostname or "",
            place.port or (443 if secure else 80),
            ssl=ssl.create_default_context() if secure else None,
        )
        try:
            await socket.opened
        except BaseException:
            socket.abort()
            raise
        return socket

    def send(self, text: bytes) -> None:
        """Send a text message now; nothing happens on a connection that is closing."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)
            self._flush()

    def send_binary(self, data: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    def pause(self) -> None:
        """Stop reading; the peer's data waits in the kernels and then with the peer."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Say goodbye, and cut the connection if the peer does not."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._take()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._take()

    def connection_lost(self, error: Exception | None) -> None:
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._protocol.receive_eof()
        self._take()
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("the connection broke in the handshake"))
        protocol = self._protocol
        fault = protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError)
        if fault or protocol.close_rcvd is None:
            self.closed.set_result(Closed(1006, str(protocol.parser_exc or error or ""), fault))
        else:
            self.closed.set_result(Closed(protocol.close_rcvd.code, protocol.close_rcvd.reason))

    def _take(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        if not self.opened.done():
            if self._protocol.handshake_exc is not None:
                self.opened.set_exception(self._protocol.handshake_exc)
            elif self._protocol.state is not State.CONNECTING:
                self.opened.set_result(None)
        self._flush()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        data = bytes(frame.data)
        if self._parts or not frame.fin:
            self._parts.append(data)
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        self._on_message(data, self._text)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof() and not self._transport.is_closing():
                self._transport.write_eof()
        if self._last_resort is None and self._protocol.close_expected():
            self._last_resort = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)
