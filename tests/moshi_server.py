"""A double of the servers that come with Moshi: their wire, their one conversation at a time, and no model.

It says back what it hears from the second frame on, as theirs do, and writes the pieces of text that it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import sphn
from aiohttp import WSMsgType, web

from voice_bridge.codecs.framing import FRAME, RATE


class MoshiServer:
    def __init__(self, texts: Sequence[bytes] = (), voices: Sequence[str] | None = None) -> None:
        """`texts` are messages, one sent before each reply; `voices` are those of PersonaPlex, which wants prompts."""
        self.url = ""
        self.queries: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.peers: list[tuple[str, str]] = []
        """The connection of each request, and its path."""
        self.frames = 0
        self.answers = asyncio.Event()
        """While it is not set, what comes is read and nothing said."""
        self.answers.set()
        self.greet = True
        self.status = 0
        """What requests are answered with, if not as usual."""
        self._texts = list(texts)
        self._voices = voices
        self._lock = asyncio.Lock()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        self.peers.append((str(request.transport.get_extra_info("peername")), request.path))
        self.headers.append(dict(request.headers))
        if self.status:
            return web.Response(status=self.status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.queries.append(dict(request.query))
        self.sockets.append(socket)
        if self._voices is not None and request.query["voice_prompt"] not in self._voices:
            raise FileNotFoundError("there is no such voice")
        async with self._lock:
            if self.greet:
                await socket.send_bytes(b"\x00")
            await self._talk(socket)
        return socket

    async def _talk(self, socket: web.WebSocketResponse) -> None:
        reader, writer = sphn.OpusStreamReader(RATE), sphn.OpusStreamWriter(RATE)
        heard, first = np.zeros(0, np.float32), True
        async for message in socket:
            if message.type is not WSMsgType.BINARY or message.data[0] != 1:
                continue
            heard = np.concatenate((heard, reader.append_bytes(message.data[1:])))
            while len(heard) >= FRAME:
                frame, heard = heard[:FRAME], heard[FRAME:]
                self.frames += 1
                if first or not self.answers.is_set():
                    first = False
                    continue
                if self._texts:
                    await socket.send_bytes(self._texts.pop(0))
                await socket.send_bytes(b"\x01" + writer.append_pcm(frame))


@asynccontextmanager
async def serving(server: MoshiServer, port: int = 0) -> AsyncIterator[MoshiServer]:
    app = web.Application()
    app.router.add_get("/api/chat", server.chat)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    server.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/api/chat"
    try:
        yield server
    finally:
        for socket in server.sockets:
            await socket.close()
        await runner.cleanup()
