"""One conversation: the only place where a line meets an engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codecs import dtmf
from ..codecs.framing import FRAME, RATE
from ..engines import base as engines
from ..engines.base import Busy, Conversation, Opening, Sound
from .admission import Refused, Ticket
from .lines.base import Digit, Heard, In, Line, Out, Played, ProtocolError, Started, Stopped
from .observe import logs
from .observe.metrics import CallStats
from .observe.records import CallRecord, measured
from .playout import Playout
from .reminders import Reminders
from .switchboard import FAREWELL, End, Switchboard
from .tape import Tape

START_LIMIT = 5.0  # seconds; Twilio starts a stream within one, a stranger may hold a socket no longer
SLOW_READER = 2.0  # seconds that one message may take to leave; the slot is worth more than a stuck peer
LOST_LIMIT = 20.0  # seconds without an engine after which the caller is told instead of kept
CREEP = 0.001  # share of a frame's lateness that is taken for a caller's slower clock: minutes, so jitter is not
QUIET = 64  # of 32768 (-54 dBFS): below it a frame is a pause


class Wire(Protocol):
    """The socket of one call."""

    def __aiter__(self) -> AsyncIterator[str | bytes]: ...
    async def send(self, out: Out) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


class Call:
    """Runs one call from its first message to its record. `run` never raises for what a peer did."""

    def __init__(self, board: Switchboard, line: Line, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        self.board = board
        self.line = line
        self.ticket: Ticket
        self.transfer_to = ""
        self.over: asyncio.Future[End] = loop.create_future()
        self.stats: CallStats
        self.log = logs.get(line=line.name)
        self.began = loop.time()
        self.started = datetime.now(UTC)
        self.finished = loop.create_future()
        self.playout = Playout(line.rate)
        self._now = loop.time
        self._wire = wire
        self._conversation: Conversation
        self._reminders: Reminders
        self._tape: Tape
        self._asked: deque[tuple[int, float]] = deque()  # frames without a reply: their clock, when handed over
        self._mouth = float("inf")  # when the caller spoke sample 0, by the loop's clock
        self._active_at = self.began
        self._sending_since: float | None = None
        self._lost_at: float | None = None
        self._voided = 0  # samples of the agent to leave out: a clip of ours is playing in their place

    @property
    def id(self) -> str:
        return self.ticket.call

    @property
    def seconds(self) -> float:
        return self._now() - self.began

    async def run(self) -> None:
        refused = await self._start()
        if refused is not None:
            await self._wire.close(1008, refused)
            return
        board = self.board
        board.calls[self.id] = self
        self.stats = board.metrics.begin(self.line.name, self.line.rate)
        tasks = [asyncio.create_task(work) for work in (self._listen(), self._reply())]
        try:
            await self.over
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.end(End.CLOSED)
            await self._finish(self.over.result())

    def end(self, reason: End) -> None:
        """The call is over; the first reason counts."""
        if not self.over.done():
            self.over.set_result(reason)

    def transfer(self, number: str) -> None:
        self.transfer_to = number
        self.end(End.TRANSFER)

    def say(self, text: str, interruptible: bool = True) -> int:
        return self._conversation.say(text, interruptible=interruptible)

    def inject(self, context: str) -> int:
        return self._conversation.inject(context)

    async def press(self, digits: str) -> None:
        """Play keypad tones to the other side, in place of what the agent says meanwhile."""
        pcm = dtmf.tones(digits, self.line.rate)
        self._voided += len(pcm)
        await self._hand_over(pcm)

    # -- the parts of a call, in the order in which they come ----------------------------------------------------

    async def _start(self) -> str | None:
        """Wait for the start, check who it is, open the conversation; returns why not, if not."""
        metrics = self.board.metrics
        try:
            async with asyncio.timeout(START_LIMIT):
                started = await self._first()
            self.log = self.log.bind(call=started.call)
            self.ticket = self.board.admission.confirm(started.call, started.parameters.get("token", ""))
        except TimeoutError:
            why, told = "silent", f"no start within {START_LIMIT:.0f} s"
        except ProtocolError as error:
            metrics.protocol_errors[self.line.name] += 1
            why, told = "protocol", str(error)
        except Refused as error:
            why, told = error.why, str(error)
        else:
            try:
                await self._open()
                return None
            except BaseException as error:
                self.board.admission.leave(self.ticket, End.ENGINE)
                if not isinstance(error, Busy):
                    raise
                why, told = "busy", str(error)
        metrics.refused[why] += 1
        self.log.warning("stream refused", why=told)
        return told

    async def _first(self) -> Started:
        async for data in self._wire:
            for event in self.line.receive(data, self._now()):
                if isinstance(event, Started):
                    return event
                raise ProtocolError("the stream ended before it started")
        raise ProtocolError("the socket closed before the start")

    async def _open(self) -> None:
        ticket, settings = self.ticket, self.ticket.settings
        opening = Opening(
            call=self.id,
            greeting=settings.greeting,
            interruptible=settings.interruptible,
            persona=settings.persona,
            share=self.board.settings.memory.share,
        )
        mind = self.board.mind
        self._reminders = Reminders(mind, settings, self.id, ticket.identity, self.line.rate, self.log)
        try:
            self._conversation = await self.board.engine.open(await self._reminders.begin(opening), ticket.lease)
        except BaseException:
            self._reminders.close()
            raise
        self._reminders.attach(self._conversation)
        folder = settings.recordings if settings.record else None
        self._tape = Tape(folder, self.id, self.line.rate, self.playout, self.log)
        self.log.info("call started", caller=ticket.caller, number=ticket.number, direction=ticket.direction)

    async def _listen(self) -> None:
        """The caller's side: messages in, frames to the engine."""
        receive, now, stats = self.line.receive, self._now, self.stats
        try:
            async for data in self._wire:
                stats.messages += 1
                events = receive(data, now())
                if events:
                    self._take(events)
            self.end(End.CLOSED)
        except ProtocolError as error:
            self.board.metrics.protocol_errors[self.line.name] += 1
            self.log.warning("the peer broke the protocol", error=str(error))
            self.end(End.PROTOCOL)
        except Exception:
            self._fault()

    def _take(self, events: list[In]) -> None:
        for event in events:
            match event:
                case Heard():
                    self._heard(event)
                case Played(position):
                    self._played(position)
                case Digit(digit):
                    self._digit(digit)
                case Stopped():
                    self.end(End.CALLER)
                case Started():
                    pass

    def _heard(self, heard: Heard) -> None:
        now = self._now()
        self.stats.frames += 1
        mouth = now - (heard.at + FRAME) / RATE
        self._mouth = mouth if mouth < self._mouth else self._mouth + (mouth - self._mouth) * CREEP
        self._asked.append((heard.at, now))
        self._conversation.send(heard.frame, heard.at)
        self._reminders.hear(heard.pcm, heard.at)
        if np.maximum.reduce(heard.pcm) > QUIET:
            self._active_at = now
        self._tape.caller(heard.pcm, heard.at)

    def _played(self, position: int) -> None:
        now = self._now()
        answers = self.playout.played(position, now)
        if answers is not None:
            self.stats.mouth_to_ear.observe(now - self._mouth - answers / RATE)
            self._conversation.played(answers)

    def _digit(self, digit: str) -> None:
        self.stats.digits += 1
        action, _, number = self.ticket.settings.digits.get(digit, "pass").partition(":")
        self.log.info("digit", action=action)
        if action == "hangup":
            self.end(End.DIGIT)
        elif action == "transfer":
            self.transfer(number)
        elif action == "forget":
            self._reminders.forget()
        else:
            self._conversation.digit(digit)

    async def _reply(self) -> None:
        """The agent's side: the engine's events out to the peer."""
        try:
            await self._send(self.line.mark(self.playout.probe(self._now())))
            async for event in self._conversation:
                if isinstance(event, Sound):
                    await self._sound(event)
                else:
                    await self._note(event)
        except ConnectionError:
            self.end(End.CLOSED)
        except Exception:
            self._fault()

    async def _sound(self, sound: Sound) -> None:
        now = self._now()
        stats = self.stats
        while self._asked and self._asked[0][0] <= sound.answers:
            stats.replied(now - self._asked.popleft()[1])
        if stats.first_audio is None:
            stats.first_audio = now - self.began
        pcm = self.line.render(sound.pcm)
        if self._voided:
            left_out = min(self._voided, len(pcm))
            self._voided -= left_out
            pcm = pcm[left_out:]
        await self._hand_over(pcm, sound.answers + FRAME)

    async def _hand_over(self, pcm: NDArray[np.int16], answers: int | None = None) -> None:
        """Send sound the way the playout wants it."""
        now = self._now()
        silent = not len(pcm) or (np.maximum.reduce(pcm) < QUIET and np.minimum.reduce(pcm) > -QUIET)
        if not silent:
            self._active_at = now
        self.stats.lead.observe(self.playout.lead(now))
        plan = self.playout.plan(now, len(pcm), silent, answers)
        if plan.clear:
            self._tape.void_agent(now, self._origin)
            await self._send(self.line.flush())
        if plan.cut:
            pcm = pcm[plan.cut :]
        if plan.pad:
            pcm = np.concatenate((np.zeros(plan.pad, np.int16), pcm))
        if len(pcm):
            self._tape.agent(pcm, now, self._origin)
            await self._send(self.line.sound(pcm))
        if plan.mark is not None:
            await self._send(self.line.mark(plan.mark))

    async def _note(self, event: engines.TextEvent) -> None:
        self._reminders.note(event)
        match event:
            case engines.Flush():
                self._tape.void_agent(self._now(), self._origin)
                self.playout.clear()
                await self._send(self.line.flush())
            case engines.Lost(back_in):
                self.stats.engine_losses += 1
                self._asked.clear()
                self._lost_at = self._now()
                self.log.warning("engine lost in mid-call", back_in=back_in)
                await self._hand_over(self.board.lost_sound)
            case engines.Back():
                self._lost_at = None
                self._asked.clear()
                self.log.info("engine back, the conversation begins anew")
            case engines.Refused(id):
                self.log.warning("the engine cannot say or read this, or it is over memory.share", id=id)
            case engines.HangUp():
                lead = max(0.0, self.playout.lead(self._now()))
                asyncio.get_running_loop().call_later(lead, self.end, End.AGENT)
            case engines.Ended(reason):
                self.log.error("the engine ended the conversation", reason=reason)
                self.end(End.ENGINE)
            case _:
                pass

    def look(self, now: float) -> None:
        """Everything that happens because nothing happens; called every 80 ms."""
        if self.over.done():
            return
        try:
            self._take(self.line.fill(now))
            self._count()
            self._check(now)
        except Exception:
            self._fault()

    def _check(self, now: float) -> None:
        settings = self.ticket.settings
        if self.line.dead(now):
            self.end(End.DEAD)
        elif self._sending_since is not None and now - self._sending_since > SLOW_READER:
            self.end(End.SLOW)
        elif now - self.began > settings.max_minutes * 60:
            self.end(End.LENGTH)
        elif now - self._active_at > settings.idle_seconds:
            self.end(End.IDLE)
        elif self._lost_at is not None and now - self._lost_at > LOST_LIMIT:
            self.end(End.ENGINE)

    async def _finish(self, end: End) -> None:
        """Give the slot back first, then say goodbye, then write it down."""
        board = self.board
        try:
            self._reminders.close()
            await self._conversation.close()
            board.admission.leave(self.ticket, f"{end}:{self.transfer_to}" if self.transfer_to else end)
            await self._say_goodbye(end)
            await self._wire.close(1000, end)
            await self._tape.close()
            self._account(end)
        finally:
            del board.calls[self.id]
            self.finished.set_result(None)

    async def _say_goodbye(self, end: End) -> None:
        """A planned end is ended at the carrier first, so that closing the stream plays no apology."""
        if end.planned:
            try:
                async with asyncio.timeout(FAREWELL):
                    await self.board.farewell(self)
            except TimeoutError:
                self.log.warning("the carrier did not end the call in time; closing the stream", end=end)

    def _account(self, end: End) -> None:
        self._count()
        self.board.metrics.finish(self.stats, end)
        if self.board.records:
            self.board.records.add(self._record(end))
        self.log.info("call ended", end=str(end), seconds=round(self.seconds, 1))

    def _count(self) -> None:
        """Bring the call's counters up to what its parts have counted."""
        stats = self.stats
        stats.gap_fill_samples, stats.late_samples = self.line.gap_samples, self.line.late_samples
        stats.dropped_samples = self._conversation.dropped * FRAME * self.line.rate // RATE
        stats.underruns, stats.recoveries = self.playout.underruns, self.playout.recoveries

    def _record(self, end: End) -> CallRecord:
        ticket = self.ticket
        return CallRecord(
            call=self.id,
            line=self.line.name,
            direction=ticket.direction,
            caller=ticket.caller,
            number=ticket.number,
            engine=self.board.engine.name,
            started=self.started,
            seconds=round(self.seconds, 3),
            end=end,
            recording=self._tape.path,
            memories=self._reminders.given,
            **measured(self.stats),
        )

    # -- helpers -----------------------------------------------------------------------------------------------

    async def _send(self, out: Out | None) -> None:
        if out is not None:
            self._sending_since = self._now()
            await self._wire.send(out)
            self._sending_since = None

    @property
    def _origin(self) -> float:
        """When the caller spoke sample 0, by the loop's clock."""
        return self._mouth if self._mouth < float("inf") else self.began

    def _fault(self) -> None:
        self.log.exception("a fault of ours ended the call")
        self.end(End.FAULT)

    def describe(self) -> dict[str, Any]:
        """The call as operators see it."""
        stats, ticket = self.stats, self.ticket
        return {
            "call": self.id,
            "line": self.line.name,
            "direction": ticket.direction,
            "caller": ticket.caller,
            "number": ticket.number,
            "seconds": round(self.seconds, 1),
            "engine": self.board.engine.name,
            "state": "engine lost" if self._lost_at is not None else "talking",
            "lead_ms": round(self.playout.aim * 1000),
            "mouth_to_ear_ms": round((stats.mouth_to_ear.quantile(0.5) or 0) * 1000),
            "frames": stats.frames,
            "underruns": self.playout.underruns,
            "memories": self._reminders.given,
        }
