"""A call's WebSocket, as every line has it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from .lines.base import Out, ProtocolError

CLOSE_LIMIT = 2.0  # seconds for a socket to close in good order; then it is cut
# Close codes of a peer that is done, or whose page was left; others are told by what stands between and has failed.
GOODBYES = (0, WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class SocketWire:
    """One call's WebSocket: text and binary messages in, messages out."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._request = request
        self._socket = socket
        self.parted = False
        """The peer has closed it in good order."""
        self._first: str | bytes | None = None

    async def first(self) -> str | bytes | None:
        """The first message, which is read again by whoever goes through all; None if none can be read."""
        with suppress(ProtocolError):
            self._first = await anext(self, None)
        return self._first

    def __aiter__(self) -> SocketWire:
        return self

    async def __anext__(self) -> str | bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            data: str | bytes = message.data
            return data
        self.parted = message.type is WSMsgType.CLOSE and message.data in GOODBYES
        if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):  # by now it is closed
            raise ProtocolError(str(message.data))
        raise StopAsyncIteration

    async def send(self, out: Out) -> None:
        await self._socket.send_frame(out.data, WSMsgType.TEXT if out.text else WSMsgType.BINARY)

    async def close(self, code: int, reason: str) -> None:
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_LIMIT):
                # A close frame holds 123 bytes of reason.
                await self._socket.close(code=code, message=reason.encode()[:123])
        self.cut()

    def cut(self) -> None:
        """Close it without a word."""
        if self._request.transport:
            self._request.transport.abort()
