"""The mind: a process beside the engine's that listens to the calls, remembers, and says what comes to mind.

`python -m voice_bridge.bridge.memory.mind FD`. It ends when the daemon's end is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine

from ...engines import wire as process
from ...engines.ears.base import EarEvent, Transcriber
from ...engines.wire import Kind, Packet
from . import wire
from .desk import AGAIN, Desk
from .embed import NoEmbedding
from .kinds import DAY
from .llm import Llm, thinker
from .store import StoreError
from .talk import Parts, Talk, tell_fault

STREAMS = 64  # that a model hears at once: each takes 100 MB, and with more it would not keep up
NICE = 10  # below daemon and engine, of a mind with an ear: what an ear computes may be late, sound may not

log = logging.getLogger("voice_bridge.mind")


class Mind(asyncio.Protocol):
    """What the daemon's packets do."""

    def __init__(self, parts: Parts) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        self._parts = parts
        self._unpacker = process.Unpacker()
        self._talks: dict[int, Talk] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send(process.pack_struct(Kind.READY, self._health()))

    def data_received(self, data: bytes) -> None:
        for packet in self._unpacker.feed(data):
            self._take(packet)

    def connection_lost(self, error: Exception | None) -> None:
        self.gone.set_result(None)

    def ear_says(self, stream: int, event: EarEvent) -> None:
        if talk := self._talks.get(stream):
            talk.ear_says(event)

    def tell(self, id: int, event: wire.Event) -> None:
        self._send(process.pack_struct(Kind.EVENT, event, id))

    async def look_after(self) -> None:
        """What is to be done at first and once a day; and, after a failure, until it can be done."""
        desk, looked = self._parts.desk, float("-inf")
        while True:
            if desk.trouble or time.monotonic() - looked > DAY:
                await desk.do(Desk.expire, writes=True)
                looked = time.monotonic()
            await asyncio.sleep(AGAIN)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _health(self) -> process.Health:
        ear = self._parts.ear
        return process.Health(1, 0.0, 0.0, 0, ear.dropped if ear else 0)

    def _take(self, packet: Packet) -> None:
        if packet.kind == Kind.FRAME:
            if talk := self._talks.get(packet.conversation):
                talk.hear(packet.payload, packet.at)
        elif packet.kind == Kind.PING:
            self._send(process.pack_struct(Kind.HEALTH, self._health()))
            if isinstance(self._parts.thinker, Llm):
                self._parts.desk.judged(self._parts.thinker.counts)
        elif packet.kind == Kind.TELL:
            self._told(packet.conversation, wire.decode_tell.decode(packet.payload))

    def _told(self, id: int, tell: wire.AnyTell) -> None:
        if isinstance(tell, wire.Begin):
            self._begin(id, tell)
        elif isinstance(tell, wire.Quit):
            self._do(self._quit())
        elif talk := self._talks.get(id):
            self._told_of(id, talk, tell)
        elif isinstance(tell, wire.Heard) and tell.final:  # it does not listen to somebody whom it does not know
            self.tell(id, wire.nothing(tell.id))

    def _told_of(self, id: int, talk: Talk, tell: wire.AnyTell) -> None:
        match tell:
            case wire.Heard():
                talk.engine_heard(tell)
            case wire.Said(text):
                talk.agent_said(text)
            case wire.Took():
                self._do(talk.took(tell))
            case wire.Anew():
                talk.anew()
            case wire.Keep(text):
                self._do(talk.keep(text))
            case wire.Forget():
                for other in self._talks.values():
                    if other.caller == talk.caller:
                        other.hush()
                self._do(talk.forget())
            case wire.End():
                self._do(self._end(id, talk))

    def _begin(self, id: int, begin: wire.Begin) -> None:
        caller = self._parts.desk.callers.of_number(begin.caller)
        if not caller:  # nobody knows who it is, and nobody shall hear of another nobody
            self.tell(id, wire.Known())
            return
        talk = Talk(id, begin, caller, self._parts, functools.partial(self.tell, id))
        self._talks[id] = talk
        self._do(talk.start())

    async def _end(self, id: int, talk: Talk) -> None:
        try:
            await talk.end()
        finally:
            del self._talks[id]

    async def _quit(self) -> None:
        """Whatever is under way is finished first."""
        for id, talk in list(self._talks.items()):
            if not talk.ending:
                self._do(self._end(id, talk))
        for talk in list(self._talks.values()):
            await talk.over.wait()
        await self._parts.desk.close()
        self.tell(0, wire.Done())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            tell_fault(error)


def _ear(
    init: wire.MindInit, tell: Callable[[int, EarEvent], None], progress: Callable[[str], None]
) -> Transcriber | None:
    if init.ear == "moonshine":
        from ...engines.ears.moonshine import Moonshine

        return Moonshine(tell)
    if init.ear == "kyutai":
        from ...engines.ears.kyutai import Kyutai

        return Kyutai(tell, init.ear_model, streams=min(init.calls, STREAMS), progress=progress)
    return None


async def _run(sock: socket.socket, init: wire.MindInit, progress: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    mind: Mind

    def heard(stream: int, event: EarEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody listens any more
            loop.call_soon_threadsafe(lambda: mind.ear_says(stream, event))

    desk = Desk(init, lambda state: mind.tell(0, state))
    desk.start(progress)
    progress("loading the ear")
    parts = Parts(desk, _ear(init, heard, progress), thinker(init), init.injection, init.standing)
    mind = Mind(parts)
    await loop.create_connection(lambda: mind, sock=sock)
    daily = asyncio.create_task(mind.look_after())
    await mind.gone
    daily.cancel()
    if isinstance(parts.thinker, Llm):
        await parts.thinker.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sock = socket.socket(fileno=int(sys.argv[1]))
    init = process.first(sock, wire.MindInit)
    if init.ear != "off":
        os.nice(NICE)

    def progress(text: str) -> None:
        sock.sendall(process.pack(Kind.PROGRESS, payload=text.encode()))

    try:
        asyncio.run(_run(sock, init, progress))
    except (StoreError, NoEmbedding, OSError, ValueError) as error:  # what was asked for cannot be had
        sock.sendall(process.pack(Kind.FAILED, payload=str(error).encode()))
        sys.exit(1)
    except Exception as error:
        sock.sendall(process.pack(Kind.FAILED, payload=f"{type(error).__name__}: {error}".encode()))
        raise


if __name__ == "__main__":
    main()
