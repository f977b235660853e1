"""A process of ours at the far end of a socketpair: spawned, watched, killed when silent, started again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from . import wire
from .base import CannotStart
from .wire import Kind, Packet

log = logging.getLogger("voice_bridge.engine")

PING = 0.25  # seconds between pings
SILENCE = 1.0  # seconds without an answer that count as a hang, unless usual steps are slow
SLOW_STEPS = 20  # times the usual step; a step that takes longer than this and `SILENCE` is a hang
BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0)  # seconds before each restart in a row; the last one goes on
HEALTHY = 60.0  # seconds after it was ready after which the next crash counts as the first
GRACE = 0.5  # seconds for a process that closed its end to exit by itself, so that its exit status is its own
GATHER = 0.003  # seconds; frames of many calls go in one write, are stepped together and come back together
BUFFER = 1 << 21  # bytes of socket buffer each way: 250 frames, so that neither side waits for the other


class ChildFailed(CannotStart):
    """The process could not start; the message is what it said."""


class Owner(Protocol):
    """Whoever uses the child. All calls come on the event loop."""

    def child_up(self, health: wire.Health) -> None: ...
    def child_down(self, back_in: float) -> None: ...
    def child_says(self, packet: Packet) -> None: ...


class _Link(asyncio.Protocol):
    def __init__(self, deliver: Callable[[Packet], None]) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._unpacker = wire.Unpacker()
        self._deliver = deliver

    def data_received(self, data: bytes) -> None:
        for packet in self._unpacker.feed(data):
            self._deliver(packet)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class Child:
    def __init__(
        self,
        init: bytes,
        owner: Owner,
        module: str,
        name: str = "engine",
        silence: float = SILENCE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`init` is the first message it is sent; `silence` is how many seconds it may leave a ping unanswered;
        `environment` is added to ours."""
        self.restarts = 0
        self.pid = 0
        self.health: wire.Health | None = None
        """What it said last; None while it is not up."""
        self.progress = ""
        """How far it has come, while it is not up."""
        self.dropped = 0
        """Frames that it has left out, in all its lives."""
        self._init = init
        self._owner = owner
        self._module = module
        self._name = name
        self._silence = silence
        self._environment = environment or {}
        self._transport: asyncio.Transport | None = None
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._silent = 0
        self._up_at = float("inf")
        self._gathered: list[bytes] = []

    async def start(self) -> None:
        """Spawn it and wait until it is ready; raises `ChildFailed` if its first start fails."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise())
        await self._first

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            self.health = None

    @property
    def behind(self) -> bool:
        """Whether it has more to read than it will want to: the time to leave out what may be lost."""
        return self._transport is not None and self._transport.get_write_buffer_size() > BUFFER

    def send(self, data: bytes) -> bool:
        """Hand bytes over without waiting, behind what was gathered; False when the child is not up."""
        if self.health is None or self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(b"".join((*self._gathered, data)))
        self._gathered.clear()
        return True

    def gather(self, data: bytes) -> bool:
        """Hand bytes over within `GATHER`, together with what else comes in that time; False when it is not up."""
        if self.health is None:
            return False
        if not self._gathered:
            asyncio.get_running_loop().call_later(GATHER, self._send_gathered)
        self._gathered.append(data)
        return True

    def _send_gathered(self) -> None:
        if self._gathered:  # and not sent along with something else
            self.send(b"")
            self._gathered.clear()

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._first
        failures = 0
        while True:
            self._up_at = float("inf")
            try:
                reason = await self._live()
            except OSError as error:  # no memory, no handles: there may be some later
                reason = f"it cannot be spawned: {error}"
            was_up = self.health is not None
            self.health, self.progress = None, ""
            if not self._first.done():
                self._first.set_exception(ChildFailed(reason))
                return
            failures = 0 if loop.time() - self._up_at > HEALTHY else failures
            wait = BACK_OFF[min(failures, len(BACK_OFF) - 1)]
            failures += 1
            log.error("%s process lost: %s; starting it again in %.1f s", self._name, reason, wait)
            if was_up:
                self._owner.child_down(wait)
            await asyncio.sleep(wait)
            self.restarts += 1

    async def _live(self) -> str:
        """One life of the process, from its start to its end; returns why it ended."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        try:
            with theirs:
                process = await self._spawn(theirs)
        except BaseException:
            ours.close()
            raise
        self.pid = process.pid
        reason = ["it ended"]
        said = asyncio.create_task(self._relay_stderr(process))
        watch = asyncio.create_task(self._watch())
        try:
            loop = asyncio.get_running_loop()
            link = _Link(lambda packet: self._packet(packet, reason))
            self._transport, _ = await loop.create_connection(lambda: link, sock=ours)
            self._transport.write(self._init)
            await asyncio.wait({watch, link.closed}, return_when=asyncio.FIRST_COMPLETED)
            if link.closed.done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), GRACE)
            else:
                reason[-1] = watch.result()
        finally:
            watch.cancel()
            if self._transport:
                self._transport.abort()
                self._transport = None
            # With its helpers, which hold its stderr open. A group of zombies is a PermissionError on a Mac.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = await process.wait()
            await said
        *said_so, why = reason
        return said_so[0] if said_so else f"{why} (exit status {code})"

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._module, str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            env={**os.environ, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C drains the calls before the engine goes
        )

    def _packet(self, packet: Packet, reason: list[str]) -> None:
        if packet.kind in (Kind.HEALTH, Kind.READY):
            self._silent = 0
            before = self.health.dropped if self.health else 0
            self.health = msgspec.json.decode(packet.payload, type=wire.Health)
            self.dropped += self.health.dropped - before
            if packet.kind == Kind.READY:
                self._up_at = asyncio.get_running_loop().time()
                self._owner.child_up(self.health)
                if self._first and not self._first.done():
                    self._first.set_result(None)
        elif packet.kind == Kind.PROGRESS:
            self.progress = packet.payload.decode()
        elif packet.kind == Kind.FAILED:
            reason.insert(0, packet.payload.decode())  # in its own words
        else:
            self._owner.child_says(packet)

    async def _watch(self) -> str:
        """Ping it for as long as it answers. Counted in pings, so that a stall of ours is not taken for its."""
        self._silent = 0
        while True:
            await asyncio.sleep(PING)
            if self.health is None:  # loading takes as long as it takes
                continue
            limit = max(self._silence, SLOW_STEPS * self.health.step_seconds)
            if self._silent * PING >= limit:
                return f"it has not answered for {limit:.1f} s"
            self._silent += 1
            self.send(wire.pack(Kind.PING))

    async def _relay_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # a line longer than the reader takes, a progress bar perhaps; it is left out
                continue
            if not line:
                return
            log.warning("%s process: %s", self._name, line.decode(errors="replace").rstrip())
