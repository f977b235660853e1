"""serve(): the parts of the bridge, put together, kept running, and taken down in good order."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from ..codecs import wav
from ..engines import hardware, registry
from ..engines.base import FRAME, CannotStart, Ended, Engine, Opening, Sound
from . import web as routes
from .admission import Admission
from .auth import BadKeys, Tokens
from .call import Call
from .config import Settings
from .endpoints import endpoints
from .lines.client import ClientLine
from .lines.twilio import TwilioLine
from .memory import begin
from .memory.client import Mind
from .observe import logs
from .observe.metrics import Metrics
from .observe.records import Records
from .switchboard import Switchboard
from .telephony.rest import Rest, TelephonyError
from .watch import tell_boards

SHUTDOWN = 3.0  # seconds for requests that are under way when the port closes
LINGER = 1.0  # seconds the port outlives the last call: Twilio still asks what comes after the stream
TONE_SECONDS = 0.3  # the sound of a lost engine: short, so that the conversation is not in its way
TONE_HERTZ = 440
TONE_LEVEL = 0.1  # of full scale: heard, not startling
TONE_FADE = 0.02  # seconds at each end, so that it does not click
TOLD = 1.0  # seconds between looks at what the engine is at
OPENING_SECONDS = 10.0  # for which a slot is kept to try an opening
SOMEBODY = "Anna"  # in a greeting that is tried
BACKLOG = 1024  # connections waiting to be accepted: a bridge that restarts is called by everyone at once

log = logs.get()


class StartFailed(Exception):
    """The bridge cannot start; the message is one line with the remedy."""


class Daemon:
    """The bridge in one process. `async with` starts it; `run` serves until a signal."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        show: Callable[[str], None] | None = None,
        mind: Mind | None = None,
        machine: hardware.Machine | None = None,
    ) -> None:
        """`show` is given what the engine is at while it loads; without it that is logged."""
        self._show = show
        self._mind = mind
        self._machine = machine
        self.settings = settings
        self.engine = engine
        self.port = 0
        self.board: Switchboard
        self._rest: Rest | None = None
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the bridge listens."""
        host = self.settings.server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def base(self) -> str:
        """The address under which Twilio knows us."""
        return self.settings.server.public_url or self.url

    async def __aenter__(self) -> Daemon:
        try:
            await self._open_port()
            if self._mind:
                self._stack.push_async_callback(self._mind.stop)
                self._mind.start()
            await self._start_engine()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT. The first signal drains the calls, the second cuts them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        log.info("ready", url=self.url, public=self.settings.server.public_url or None, open=self.settings.open_mode)
        gc.freeze()  # what was loaded stays for ever: the collector need not look through it again and again
        on_ready()
        await self._stop.wait()
        live = len(self.board.calls)
        log.info("draining", calls=live, limit_seconds=self.settings.server.drain_seconds)
        await self.board.drain(self.settings.server.drain_seconds)
        if live:
            await asyncio.sleep(LINGER)

    def _signalled(self) -> None:
        if self._stop.is_set():
            log.warning("second signal: cutting the calls")
            self.board.cut()
        self._stop.set()

    async def _open_port(self) -> None:
        """Everything but the engine: health answers while the model loads, readiness stays red."""
        settings, loop = self.settings, asyncio.get_running_loop()
        server = settings.server
        listener = self._bind(server.host, server.port, "server.host or server.port")
        self.port = listener.getsockname()[1]
        self._rest = self._open_rest()
        metrics = Metrics()
        self.board = Switchboard(
            settings=settings,
            engine=self.engine,
            mind=self._mind,
            admission=Admission(self.engine, settings, loop.time),
            tokens=await self._stack.enter_async_context(self._open_tokens()),
            metrics=metrics,
            records=self._open_records(),
            lost_sound={
                line.rate: _lost_sound(settings.calls.lost_sound, line.rate) for line in (TwilioLine, ClientLine)
            },
            farewell=self._farewell,
            machine=self._machine,
        )
        metrics.engine_ready = lambda: self.engine.ready
        metrics.engine_restarts = lambda: self.engine.restarts
        metrics.queue_depth = lambda: self.engine.queued
        metrics.slots = lambda: msgspec.structs.asdict(self.engine.capacity())
        metrics.step_seconds = lambda: self.engine.step_seconds
        metrics.engine_memory = lambda: self.engine.device_memory
        metrics.engine_dropped = lambda: self.engine.dropped
        if mind := self._mind:
            metrics.memory_ready = lambda: mind.ready
            metrics.memory_restarts = lambda: mind.restarts
            metrics.memory_written = lambda: mind.written
            metrics.memory_errors = lambda: mind.errors
            metrics.memory_dropped = lambda: mind.dropped
            metrics.reminders = lambda: mind.counts
            metrics.memory_judged = lambda: mind.judged
            mind.overheard = self.board.feed.overheard
        board = self.board
        for work in (
            metrics.watch_loop(), board.admission.reap(), board.watch(), tell_boards(board), self._watch_engine(),
        ):  # fmt: skip
            self._stack.callback(asyncio.create_task(work).cancel)
        await self._serve(routes.main_app(self.board, self._rest, self.base), listener)
        if server.admin_address:
            host, port = server.admin_address
            admin = routes.admin_app(self.board, self._rest, self.base, host)
            await self._serve(admin, self._bind(host, port, "server.admin"))
        self._stack.push_async_callback(board.feed.close)

    def _bind(self, host: str, port: int, key: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            why = str(error.strerror).partition(" (")[0]  # behind it the library repeats the address
            remedy = f"end what uses it or change {key}" if error.errno == errno.EADDRINUSE else f"correct {key}"
            raise StartFailed(f"cannot listen on {host}:{port} ({why}); {remedy}") from None
        self._stack.callback(listener.close)
        return listener

    async def _serve(self, app: web.Application, listener: socket.socket) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()

    def _open_rest(self) -> Rest | None:
        """Twilio's REST API, if there are credentials for it."""
        given = self.settings.twilio
        if not given.account_sid:
            return None
        try:
            rest = Rest(given.account_sid, given.auth_token.get_secret_value(), given.api_url)
        except TelephonyError as error:
            raise StartFailed(str(error)) from None
        self._stack.push_async_callback(rest.close)
        return rest

    def _open_tokens(self) -> Tokens:
        try:
            return Tokens(self.settings.auth)
        except BadKeys as error:
            raise StartFailed(str(error)) from None

    def _open_records(self) -> Records | None:
        settings = self.settings
        try:
            if any(calls.record for calls in (settings.calls, *settings.numbers)):
                settings.calls.recordings.mkdir(parents=True, exist_ok=True)
            if not settings.log.records:
                return None
            records = Records(str(settings.log.records))
        except OSError as error:
            raise StartFailed(str(error)) from None
        self._stack.callback(records.close)
        return records

    async def _start_engine(self) -> None:
        self._stack.push_async_callback(self.engine.stop)
        try:
            await self.engine.start()
            await self._try_openings()
        except CannotStart as error:
            raise StartFailed(f"the engine {self.engine.name} cannot start: {error}") from None
        finally:
            if self._show:
                self._show("")
                self._show = None  # from here on nobody waits for it

    async def _try_openings(self) -> None:
        """See that the engine takes every greeting and persona: otherwise each call would fail of them."""
        numbers = [entry.number for entry in self.settings.numbers]
        openings: dict[tuple[str, str], str] = {}
        for key, calls in [("calls", self.settings.calls), *((n, self.settings.for_number(n)) for n in numbers)]:
            openings.setdefault((calls.greeting, calls.persona), key)
            if calls.greeting_known:
                openings.setdefault((calls.greeting_known.replace("{name}", SOMEBODY), calls.persona), key)
        for (greeting, persona), key in openings.items():
            if not (greeting or persona) or not self.engine.capacity().free:
                continue
            opening = Opening(greeting=greeting, persona=persona)
            tried = await self.engine.open(opening, self.engine.reserve(OPENING_SECONDS))
            tried.send(np.zeros(FRAME, np.float32), 0)
            async for event in tried:
                if isinstance(event, Ended):
                    raise StartFailed(f"greeting or persona of {key}: {event.reason}")
                if isinstance(event, Sound):
                    break
            await tried.close()

    async def _watch_engine(self) -> None:
        """Say why no call can come in, whenever that changes."""
        told = ""
        while True:
            await asyncio.sleep(TOLD)
            trouble = self.engine.trouble
            if trouble == told:
                continue
            told = trouble
            if self.engine.ready:
                log.warning("the engine takes no call", why=trouble) if trouble else log.info("the engine takes calls")
            elif self._show:
                self._show(trouble)
            else:
                log.info("the engine is not ready", why=trouble)

    async def _farewell(self, call: Call) -> None:
        """End a planned call at Twilio, so that it does not go on to the apology."""
        if self._rest is None or not call.line.by_carrier:
            return
        try:
            if call.transfer_to:
                await self._rest.transfer(call.id, call.transfer_to, self.settings.twilio.caller_id)
            else:
                await self._rest.complete(call.id)
        except TelephonyError as error:
            call.log.warning("Twilio did not end the call", error=str(error))


def _lost_sound(path: Path | None, rate: int) -> NDArray[np.int16]:
    """What a caller hears while the engine is away, at the line's rate."""
    if path is not None:
        try:
            sound = wav.load(path, rate)
        except (OSError, ValueError) as error:
            raise StartFailed(f"calls.lost_sound = {str(path)!r} cannot be played: {error}") from None
        samples: NDArray[np.float32] = np.rint(sound.clip(-1, 1) * 32767)
        return samples.astype(np.int16)
    time = np.arange(int(TONE_SECONDS * rate)) / rate
    fade = np.minimum(1, np.minimum(time, TONE_SECONDS - time) / TONE_FADE)
    tone: NDArray[np.float64] = 32767 * TONE_LEVEL * fade * np.sin(2 * np.pi * TONE_HERTZ * time)
    return tone.astype(np.int16)


def _end_quietly_while_starting() -> None:
    """Until `Daemon.run` minds the signals itself, they end whatever the start is at."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _mind(settings: Settings, machine: hardware.Machine, choice: registry.Choice) -> Mind | None:
    """What remembers callers, or None where that is off or not installed."""
    memory = settings.memory
    if memory.enabled == "off":
        return None
    if lacks := begin.missing(memory, choice):
        why = f"{', '.join(lacks)} not installed: {begin.remedy(lacks)}"
        if memory.enabled == "on":
            raise StartFailed(f"memory.enabled = on: {why}")
        log.warning("nothing is remembered", because=why)
        return None
    ear = begin.ear(memory, choice)
    if ear == "kyutai" and machine.kind != "nvidia":
        log.warning("memory.ear = kyutai without a GPU: it may not keep up; moonshine runs on every machine")
    try:
        mind = Mind(begin.init(memory, machine, choice))
    except begin.NoModel as error:
        raise StartFailed(str(error)) from None
    log.info("callers are remembered", store=memory.store, days=memory.retention_days, ear=ear)
    return mind


async def serve(
    settings: Settings, on_ready: Callable[[Daemon], None], show: Callable[[str], None] | None = None
) -> None:
    """Run the bridge until it is told to stop; raises `StartFailed` or `registry.NoEngine`."""
    _end_quietly_while_starting()
    machine = hardware.detect(api=settings.has_api)
    voice = settings.voice
    choice = registry.choose(
        voice.engine,
        voice.moshi.device,
        machine,
        endpoints(voice),
        voice.options,
        settings.engine.slots,
        voice.cascade.options,
    )
    for note in settings.notes:
        log.warning(note)
    log.info("engine chosen", engine=choice.name, because=choice.reason)
    engine = registry.make(choice)
    mind = _mind(settings, machine, choice)
    async with Daemon(settings, engine, show, mind, machine) as daemon:
        await daemon.run(lambda: on_ready(daemon))
    log.info("stopped")
