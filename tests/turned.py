"""A whole bridge and its caller on a clock that is turned by hand: an hour of talk in seconds, the same every time.

Everything is real (sockets, daemon, call, line, phone, worker) but the wall clock and the engine's process: the
worker runs inside the test, so that its answers take no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import selectors
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from voice_bridge.bridge.config import load
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.observe import recording
from voice_bridge.bridge.phone.clock import Clock
from voice_bridge.bridge.phone.phone import Phone
from voice_bridge.engines import wire
from voice_bridge.engines.base import Core
from voice_bridge.engines.echo import EchoCore
from voice_bridge.engines.host import HostEngine
from voice_bridge.engines.worker import Worker

BEGIN = 1000.0
LONGEST = BEGIN + 7200
OUTSIDE = 0.01  # seconds to wait for a thread when no timer is set


class _Selector(selectors.DefaultSelector):
    """Never sleeps: when no socket is ready, time moves on to the next timer."""

    now = BEGIN

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events and timeout is None:
            return super().select(OUTSIDE)
        if not events and timeout and timeout > 0:
            self.now += timeout
            if self.now > LONGEST:
                raise TimeoutError("what the test waits for has not come in two hours of its clock")
        return events


class TurnedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._turned = _Selector()
        super().__init__(self._turned)

    def time(self) -> float:
        return self._turned.now


class TurnedClock(Clock):
    def now(self) -> float:
        return asyncio.get_running_loop().time()


class InlineChild:
    """A worker at the end of a real socketpair, but in this process: it answers before time moves on."""

    def __init__(self, owner: HostEngine, slots: int, core: Core | None = None) -> None:
        self.restarts = 0
        self.health: wire.Health | None = None
        self.progress = ""
        self.dropped = 0
        self.behind = False
        self._owner = owner
        self._slots = slots
        self._core = core or EchoCore(slots)
        self._unpacker = wire.Unpacker()

    async def start(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        self._worker = Worker(theirs, self._core, self._slots)
        self._worker.warm_up()
        self.health = self._worker.health()
        self._owner.child_up(self.health)

    async def stop(self) -> None:
        self._ours.close()
        self._theirs.close()

    def send(self, data: bytes) -> bool:
        if self.health is None:
            return False
        self._ours.sendall(data)
        self._worker.turn(wait=False)
        with contextlib.suppress(BlockingIOError):
            while True:
                for packet in self._unpacker.feed(self._ours.recv(1 << 20, socket.MSG_DONTWAIT)):
                    self._owner.child_says(packet)
        return True

    gather = send

    def lose(self) -> None:
        """The process dies."""
        self.health = None
        self._owner.child_down(1.0)

    def come_back(self) -> None:
        self._worker = Worker(self._theirs, EchoCore(self._slots), self._slots)
        self.health = self._worker.health()
        self._owner.child_up(self.health)


@contextlib.asynccontextmanager
async def bridge(folder: Path, slots: int = 10, core: Core | None = None, **settings: Any) -> AsyncIterator[Daemon]:
    """A daemon on a free port; settings as `calls__max_minutes=1`. Its engine is the test line, or this core."""
    empty = folder / "config.toml"
    empty.touch()
    given = {"server.port": 0} | {name.replace("__", "."): value for name, value in settings.items()}
    engine = HostEngine("echo", "", slots)
    engine.child = InlineChild(engine, slots, core)  # type: ignore[assignment]
    async with Daemon(load(empty, given, env={}), engine) as daemon:
        yield daemon
    # Five seconds of this clock may pass before the thread that writes recordings has done anything.
    recording._writer.submit(int).result()


def phone(daemon: Daemon, **options: Any) -> Phone:
    return Phone(daemon.url + "/twilio/voice", clock=TurnedClock(), **options)


def turned(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a turned loop."""

    def run(**fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=TurnedLoop) as runner:
            runner.run(test(**fixtures))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run
