"""One conversation: the only place where a line meets an engine."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime

import msgspec

from ..codecs.framing import FRAME, RATE
from ..engines import base as engines
from ..engines.base import Busy, Conversation, Sound
from . import ledger
from .admission import Refused, Ticket
from .lines import base as lines
from .lines import notes
from .lines.base import Line, Out, ProtocolError
from .lines.relay import RelayLine
from .link import PATIENCE, Link, Wire
from .observe import logs
from .observe.metrics import CallStats
from .person import Person
from .relayed import Relayed
from .switchboard import FAREWELL, End, Switchboard

LOST_LIMIT = 20.0  # seconds without an engine after which the caller is told instead of kept
MOST_ASKED = 256  # frames (20 s) whose replies may be out: an engine that loses some must not fill the memory


class Call:
    """Runs one call from its first message to its record. `run` never raises for what a peer did."""

    def __init__(self, board: Switchboard, line: Line | RelayLine, wire: Wire, returns: bool = False) -> None:
        """`returns` says whether the peer may come back on another socket when this one breaks."""
        loop = asyncio.get_running_loop()
        self.board = board
        self.line = line
        self.ticket: Ticket
        self.party: Person | Relayed
        self.transfer_to = ""
        self.over: asyncio.Future[End] = loop.create_future()
        self.stats: CallStats
        self.log = logs.get(line=line.name)
        self.began = loop.time()
        self.started = datetime.now(UTC)
        self.finished = loop.create_future()
        self.active_at = self.began
        """When somebody was last heard, by the loop's clock."""
        self.now = loop.time
        self.link = Link(wire, returns, self.now)
        self._listening: asyncio.Task[None] | None = None
        self._conversation: Conversation
        # Frames without a reply: their clock, and when they were handed over.
        self._asked: deque[tuple[int, float]] = deque(maxlen=MOST_ASKED)
        self._gone = End.CLOSED  # how the call ends if its peer does not come back
        self._lost_at: float | None = None
        self._why = ""  # the call failed, in words for its peer

    @property
    def id(self) -> str:
        return self.ticket.call

    @property
    def seconds(self) -> float:
        return self.now() - self.began

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
        self._listening = asyncio.create_task(self._listen(self.link.newest))
        replying = asyncio.create_task(self._reply())
        try:
            await self.over
        finally:
            board.returns.void(self)
            tasks = [replying, self._listening]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.end(End.CLOSED)
            await self._finish(self.over.result())

    async def resume(self, wire: Wire) -> None:
        """The peer has come back on `wire`, whatever has become of the socket before; goes on until that is over."""
        self.log.info("the client has come back")
        self.stats.returns += 1
        flushed = self.party.anew()
        await self.link.attach(wire, self.line.tell(self._ready()), flushed)
        if not self.over.done() and self.link.newest is wire:
            listening = self._listening = asyncio.create_task(self._listen(wire))
            await asyncio.wait([listening])
        if self.over.done():
            await asyncio.shield(self.finished)  # its last words go out on this socket

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
        """Play keypad tones to the other side; raises ValueError if that cannot be."""
        await self.party.press(digits)

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
        async for data in self.link.newest:
            for event in self.line.receive(data, self.now()):
                if isinstance(event, lines.Started):
                    return event
                if not isinstance(event, lines.Reply):
                    raise ProtocolError("the stream ended before it started")
                await self.send(event.out)
        raise ProtocolError("the socket closed before the start")

    async def _open(self, started: lines.Started) -> None:
        ticket, line = self.ticket, self.line
        party = Relayed(self, line) if isinstance(line, RelayLine) else Person(self, line, started.persona)
        try:
            self._conversation = await self.board.engine.open(await party.opening(), ticket.lease)
        except BaseException:
            party.leave()
            raise
        self.party = party
        party.attach(self._conversation)
        self.log.info("call started", caller=ticket.caller, number=ticket.number, direction=ticket.direction)

    async def _listen(self, wire: Wire) -> None:
        """The caller's side: messages in, frames to the engine, as long as no newer socket has taken over."""
        receive, now, stats = self.line.receive, self.now, self.stats
        try:
            async for data in wire:
                if self.link.newest is not wire:
                    return
                stats.messages += 1
                came = self.link.heard_at = now()
                events = receive(data, came)
                if events:
                    for out in self._take(events):
                        await self.send(out)
        except ProtocolError as error:
            self.board.metrics.protocol_errors[self.line.name] += 1
            self.log.warning("the peer broke the protocol", error=str(error))
            self._why = str(error)
            self.end(End.PROTOCOL)
        except ConnectionError:
            pass
        except Exception:
            self._fault()
        if self.link.newest is wire:
            self._unplugged(wire)

    def _unplugged(self, wire: Wire, gone: End = End.CLOSED) -> None:
        """The newest socket is closed, or of no use."""
        if wire.parted or not self.link.returns:
            self.end(gone)
        elif self.link.here and not self.over.done():
            self._gone = gone
            self.log.info("the connection broke; the conversation waits for its client", seconds=PATIENCE)
            self.link.lose(wire)
            self.party.unheard()

    def _take(self, events: list[lines.In]) -> list[Out | None]:
        """Do what the peer wants; gives the answers."""
        answers: list[Out | None] = []
        for event in events:
            match event:
                case lines.Heard():
                    self._heard(event)
                case lines.Played(position):
                    self.party.played(position, self.now())
                case lines.Digit(digit):
                    self._digit(digit)
                case lines.Stopped():
                    self.end(End.CALLER)
                case lines.Reply(out):
                    answers.append(out)
                case lines.Say(text, interruptible):
                    answers.append(self.line.tell(notes.Asked(self.say(text, interruptible))))
                case lines.Inject(context, how, turn):
                    id = self._conversation.inject(context, how=how, turn=turn)
                    answers.append(self.line.tell(notes.Asked(id)))
                case lines.Cancel(id):
                    self._conversation.cancel(id)
                case lines.Forget():
                    self._conversation.forget()
                case lines.Started():
                    pass
        return answers

    def _heard(self, heard: lines.Heard) -> None:
        now = self.now()
        self.stats.frames += 1
        self._asked.append((heard.at, now))
        self._conversation.send(heard.frame, heard.at)
        self.party.hear(heard, now)

    def _digit(self, digit: str) -> None:
        self.stats.digits += 1
        self.party.digit(digit)

    async def _reply(self) -> None:
        """The agent's side: the engine's events out to the peer."""
        try:
            await self.tell(self._ready())
            await self.party.begin()
            async for event in self._conversation:
                if isinstance(event, Sound):
                    await self._sound(event)
                else:
                    await self._event(event)
        except ConnectionError:
            self.end(End.CLOSED)
        except Exception:
            self._fault()

    async def _sound(self, sound: Sound) -> None:
        now, stats = self.now(), self.stats
        while self._asked and self._asked[0][0] <= sound.answers:
            stats.replied(now - self._asked.popleft()[1])
        if stats.first_audio is None:
            stats.first_audio = now - self.began
        await self.party.sound(sound)

    async def _event(self, event: engines.TextEvent) -> None:
        await self.party.event(event)
        match event:
            case engines.Lost(back_in):
                self.stats.engine_losses += 1
                self._asked.clear()
                self._lost_at = self.now()
                self.log.warning("engine lost in mid-call", back_in=back_in)
            case engines.Back():
                self._lost_at = None
                self._asked.clear()
                self.log.info("engine back, the conversation begins anew")
            case engines.Refused(id):
                self.log.warning("the engine cannot say or read this, or it is over memory.share", id=id)
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
        elif self.link.slow(now):
            self._unplugged(self.link.newest, End.SLOW)
        elif self.link.given_up(now):
            self.end(self._gone)
        elif now - self.began > settings.max_minutes * 60:
            self.end(End.LENGTH)
        elif now - self.active_at > settings.idle_seconds:
            self.end(End.IDLE)
        elif self._lost_at is not None and now - self._lost_at > LOST_LIMIT:
            self.end(End.ENGINE)

    async def _finish(self, end: End) -> None:
        """Give the slot back first, then say goodbye, then write it down."""
        board = self.board
        try:
            self.party.leave()
            await self._conversation.close()
            board.admission.leave(self.ticket, f"{end}:{self.transfer_to}" if self.transfer_to else end)
            await self._say_goodbye(end)
            last = [notes.Trouble(self._why, end)] if self._why else []
            await self._part(1000, end, *last, notes.Over(end))
            await self.party.close()
            self._account(end)
        finally:
            del board.calls[self.id]
            board.feed.end(self.id, end)
            self.finished.set_result(None)

    async def _part(self, code: int, reason: str, *last: notes.Note) -> None:
        await self.link.part(code, reason, *map(self.line.tell, last))

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
        self.party.count(stats)

    # -- helpers -----------------------------------------------------------------------------------------------

    def _ready(self) -> notes.Ready:
        return notes.Ready(self.id, self.board.returns.issue(self) if self.link.returns else msgspec.UNSET)

    async def tell(self, note: notes.Note | None) -> None:
        if note is not None:
            self.board.feed.note(self, note)
            await self.send(self.line.tell(note))

    async def send(self, out: Out | None) -> None:
        if out is not None:
            await self.link.send(out)

    def _fault(self) -> None:
        self.log.exception("a fault of ours ended the call")
        self.end(End.FAULT)
