"""One conversation: the only place where a line meets an engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..codecs import dtmf
from ..codecs.framing import FRAME, RATE
from ..engines import base as engines
from ..engines.base import Busy, Conversation, Opening, Sound
from . import ledger
from .admission import Refused, Ticket
from .lines import base as lines
from .lines import notes
from .lines.base import Line, Out, ProtocolError
from .observe import logs
from .observe.metrics import CallStats
from .playout import Playout
from .reminders import Reminders
from .reports import Reports
from .switchboard import FAREWELL, End, Switchboard
from .tape import Tape

LAST_WORDS = 1.0  # seconds for telling a peer why its call is over, before the socket is closed
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
        self._reports = Reports()
        self._now = loop.time
        self._wire = wire
        self._conversation: Conversation
        self.reminders: Reminders
        self.tape: Tape
        self._asked: deque[tuple[int, float]] = deque()  # frames without a reply: their clock, when handed over
        self._mouth = float("inf")  # when the caller spoke sample 0, by the loop's clock
        self._active_at = self.began
        self._sending_since: float | None = None
        self._lost_at: float | None = None
        self._why = ""  # the call failed, in words for its peer
        self._voided = 0  # samples of the agent to leave out: a clip of ours is playing in their place

    @property
    def id(self) -> str:
        return self.ticket.call

    @property
    def seconds(self) -> float:
        return self._now() - self.began

    @property
    def lost(self) -> bool:
        """Whether it has no engine just now."""
        return self._lost_at is not None

    async def run(self) -> None:
        refused = await self._start()
        if refused is not None:
            await self._part(1008, refused.message, refused, notes.Over(refused.code))
            return
        board = self.board
        board.calls[self.id] = self
        self.stats = board.metrics.begin(self.line.name, self.line.rate)
        board.feed.begin(ledger.describe(self))
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

    async def _start(self) -> notes.Trouble | None:
        """Wait for the start, check who it is, open the conversation; returns why not, if not."""
        metrics = self.board.metrics
        try:
            async with asyncio.timeout(self.line.start_limit):
                started = await self._first()
            self.log = self.log.bind(call=started.call)
            self.ticket = self.board.admission.confirm(started.call, started.parameters.get("token", ""))
        except TimeoutError:
            why, told = "silent", f"no start within {self.line.start_limit:.0f} s"
        except ProtocolError as error:
            metrics.protocol_errors[self.line.name] += 1
            why, told = "protocol", str(error)
        except Refused as error:
            why, told = error.why, str(error)
        else:
            try:
                await self._open(started)
                return None
            except BaseException as error:
                self.board.admission.leave(self.ticket, End.ENGINE)
                if not isinstance(error, Busy):
                    raise
                why, told = "busy", str(error)
        metrics.refused[why] += 1
        self.log.warning("stream refused", why=told)
        return notes.Trouble(told, why)

    async def _first(self) -> lines.Started:
        async for data in self._wire:
            for event in self.line.receive(data, self._now()):
                if isinstance(event, lines.Started):
                    return event
                if not isinstance(event, lines.Reply):
                    raise ProtocolError("the stream ended before it started")
                await self._send(event.out)
        raise ProtocolError("the socket closed before the start")

    async def _open(self, started: lines.Started) -> None:
        ticket, settings = self.ticket, self.ticket.settings
        opening = Opening(
            call=self.id,
            greeting=settings.greeting,
            interruptible=settings.interruptible,
            persona=settings.persona if started.persona is None else started.persona,
            share=self.board.settings.memory.share,
        )
        mind = self.board.mind
        self.reminders = Reminders(mind, settings, self.id, ticket.identity, self.line.rate, self.log)
        try:
            self._conversation = await self.board.engine.open(await self.reminders.begin(opening), ticket.lease)
        except BaseException:
            self.reminders.close()
            raise
        self.reminders.attach(self._conversation)
        folder = settings.recordings if settings.record else None
        self.tape = Tape(folder, self.id, self.line.rate, self.playout, self.log)
        self.log.info("call started", caller=ticket.caller, number=ticket.number, direction=ticket.direction)

    async def _listen(self) -> None:
        """The caller's side: messages in, frames to the engine."""
        receive, now, stats = self.line.receive, self._now, self.stats
        try:
            async for data in self._wire:
                stats.messages += 1
                events = receive(data, now())
                if events:
                    for out in self._take(events):
                        await self._send(out)
            self.end(End.CLOSED)
        except ProtocolError as error:
            self.board.metrics.protocol_errors[self.line.name] += 1
            self.log.warning("the peer broke the protocol", error=str(error))
            self._why = str(error)
            self.end(End.PROTOCOL)
        except ConnectionError:
            self.end(End.CLOSED)
        except Exception:
            self._fault()

    def _take(self, events: list[lines.In]) -> list[Out | None]:
        """Do what the peer wants; gives the answers."""
        answers: list[Out | None] = []
        for event in events:
            match event:
                case lines.Heard():
                    self._heard(event)
                case lines.Played(position):
                    self._played(position)
                case lines.Digit(digit):
                    self._digit(digit)
                case lines.Stopped():
                    self.end(End.CALLER)
                case lines.Reply(out):
                    answers.append(out)
                case lines.Say(text, interruptible):
                    answers.append(self.line.tell(notes.Asked(self.say(text, interruptible))))
                case lines.Inject(context):
                    answers.append(self.line.tell(notes.Asked(self.inject(context))))
                case lines.Cancel(id):
                    self._conversation.cancel(id)
                case lines.Started():
                    pass
        return answers

    def _heard(self, heard: lines.Heard) -> None:
        now = self._now()
        self.stats.frames += 1
        mouth = now - (heard.at + FRAME) / RATE
        self._mouth = mouth if mouth < self._mouth else self._mouth + (mouth - self._mouth) * CREEP
        self._asked.append((heard.at, now))
        self._conversation.send(heard.frame, heard.at)
        self.reminders.hear(heard.pcm, heard.at)
        if np.maximum.reduce(heard.pcm) > QUIET:
            self._active_at = now
        self.tape.caller(heard.pcm, heard.at)

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
        elif action == "transfer" and self.line.by_carrier:
            self.transfer(number)
        elif action == "forget":
            self.reminders.forget()
        else:
            self._conversation.digit(digit)

    async def _reply(self) -> None:
        """The agent's side: the engine's events out to the peer."""
        try:
            await self._tell(notes.Ready(self.id))
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
        await self._tell(self._reports.voice(silent, now))
        self.stats.lead.observe(self.playout.lead(now))
        plan = self.playout.plan(now, len(pcm), silent, answers)
        if plan.clear:
            self.tape.void_agent(now, self._origin)
            await self._send(self.line.flush())
        if plan.cut:
            pcm = pcm[plan.cut :]
        if plan.pad:
            pcm = np.concatenate((np.zeros(plan.pad, np.int16), pcm))
        if len(pcm):
            self.tape.agent(pcm, now, self._origin)
            await self._send(self.line.sound(pcm))
        if plan.mark is not None:
            await self._send(self.line.mark(plan.mark))

    async def _note(self, event: engines.TextEvent) -> None:
        if facts := self.reminders.note(event):
            await self._tell(notes.Memory(facts))
        await self._tell(self._reports.of(event))
        match event:
            case engines.Flush():
                self.tape.void_agent(self._now(), self._origin)
                self.playout.clear()
                await self._send(self.line.flush())
            case engines.Lost(back_in):
                self.stats.engine_losses += 1
                self._asked.clear()
                self._lost_at = self._now()
                self.log.warning("engine lost in mid-call", back_in=back_in)
                await self._hand_over(self.board.lost_sound[self.line.rate])
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
                self._why = reason
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
            self.reminders.close()
            await self._conversation.close()
            board.admission.leave(self.ticket, f"{end}:{self.transfer_to}" if self.transfer_to else end)
            await self._say_goodbye(end)
            last = [notes.Trouble(self._why, end)] if self._why else []
            await self._part(1000, end, *last, notes.Over(end))
            await self.tape.close()
            self._account(end)
        finally:
            del board.calls[self.id]
            board.feed.end(self.id, end)
            self.finished.set_result(None)

    async def _part(self, code: int, reason: str, *last: notes.Note) -> None:
        """Tell the peer why, if it listens, and close."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LAST_WORDS):
                for note in last:
                    await self._tell(note)
        await self._wire.close(code, reason)

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
            self.board.records.add(ledger.record(self, end))
        self.log.info("call ended", end=str(end), seconds=round(self.seconds, 1))

    def _count(self) -> None:
        """Bring the call's counters up to what its parts have counted."""
        stats = self.stats
        stats.gap_fill_samples, stats.late_samples = self.line.gap_samples, self.line.late_samples
        stats.dropped_samples = self._conversation.dropped * FRAME * self.line.rate // RATE
        stats.underruns, stats.recoveries = self.playout.underruns, self.playout.recoveries

    # -- helpers -----------------------------------------------------------------------------------------------

    async def _tell(self, note: notes.Note | None) -> None:
        if note is not None:
            self.board.feed.note(self, note)
            await self._send(self.line.tell(note))

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
