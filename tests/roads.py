"""A road between a client and a bridge, that breaks when it is told to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Road:
    """Connections to its port go on to another port of this machine. Use as an async context manager."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.travellers = 0  # connections made so far
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._travel, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stand_still(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    async def _travel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.travellers += 1
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, forth}
        for way in (self._carry(reader, forth), self._carry(back, writer)):
            task = asyncio.create_task(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                await self._open.wait()
                target.write(data)
                await target.drain()
            target.close()
        except ConnectionError:
            target.transport.abort()
