"""Somebody who listens: what the bridge does for the peer of a telephone or client line beside the engine's part.

The greeting and what memory knows, the lead before the ear, the recording, the keys, and reports to those who can read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..codecs import dtmf
from ..codecs.framing import FRAME, RATE
from ..engines import base as engines
from ..engines.base import Conversation, Opening, Sound
from .lines import notes
from .lines.base import Heard, Line, Out
from .observe.metrics import CallStats
from .playout import Playout
from .reminders import Reminders
from .reports import Reports
from .switchboard import End
from .tape import Tape

if TYPE_CHECKING:
    from .call import Call

CREEP = 0.001  # share of a frame's lateness that is taken for a caller's slower clock: minutes, so jitter is not
QUIET = 64  # of 32768 (-54 dBFS): below it a frame is a pause


class Person:
    """The other end of one call, as `Call` deals with it; `Relayed` is another."""

    def __init__(self, call: Call, line: Line, persona: str | None) -> None:
        """`persona` is who the agent is to be, if the peer has a say in that."""
        settings = call.ticket.settings
        self.playout = Playout(line.rate)
        self._call = call
        self._line = line
        self._persona = settings.persona if persona is None else persona
        self._reports = Reports()
        mind, identity = call.board.mind, call.ticket.identity
        self._reminders = Reminders(mind, settings, call.id, identity, line.rate, call.log)
        self._tape: Tape
        self._mouth = float("inf")  # when the caller spoke sample 0, by the loop's clock
        self._voided = 0  # samples of the agent to leave out: a clip of ours is playing in their place

    @property
    def lead_ms(self) -> int:
        return round(self.playout.aim * 1000)

    @property
    def memories(self) -> int:
        """That the model was given."""
        return self._reminders.given

    @property
    def recording(self) -> str | None:
        """Where it is."""
        return self._tape.path

    async def opening(self) -> Opening:
        settings = self._call.ticket.settings
        opening = Opening(
            call=self._call.id,
            greeting=settings.greeting,
            interruptible=settings.interruptible,
            persona=self._persona,
            share=self._call.board.settings.memory.share,
        )
        return await self._reminders.begin(opening)

    def attach(self, conversation: Conversation) -> None:
        """The conversation has begun."""
        self._conversation = conversation
        self._reminders.attach(conversation)
        call, settings = self._call, self._call.ticket.settings
        folder = settings.recordings if settings.record else None
        self._tape = Tape(folder, call.id, self._line.rate, self.playout, call.log)

    async def begin(self) -> None:
        """The peer knows that it has begun."""
        await self._call.send(self._line.mark(self.playout.probe(self._call.now())))

    def unheard(self) -> None:
        """The peer's connection broke: what it has not played it never will."""
        self._tape.void_agent(self._call.now(), self._origin)

    def anew(self) -> Out | None:
        """It has come back, and has nothing to play; gives what to tell it."""
        self.playout.clear()
        return self._line.flush()

    def hear(self, heard: Heard, now: float) -> None:
        """One frame of the caller, which the engine has."""
        mouth = now - (heard.at + FRAME) / RATE
        self._mouth = mouth if mouth < self._mouth else self._mouth + (mouth - self._mouth) * CREEP
        self._reminders.hear(heard.pcm, heard.at)
        if np.maximum.reduce(heard.pcm) > QUIET:
            self._call.active_at = now
        self._tape.caller(heard.pcm, heard.at)

    def played(self, position: int, now: float) -> None:
        """The peer has played our sound up to there."""
        answers = self.playout.played(position, now)
        if answers is not None:
            self._call.stats.mouth_to_ear.observe(now - self._mouth - answers / RATE)
            self._conversation.played(answers)

    def digit(self, digit: str) -> None:
        call = self._call
        action, _, number = call.ticket.settings.digits.get(digit, "pass").partition(":")
        call.log.info("digit", action=action)
        if action == "hangup":
            call.end(End.DIGIT)
        elif action == "transfer" and self._line.by_carrier:
            call.transfer(number)
        elif action == "forget":
            self._reminders.forget()
        else:
            self._conversation.digit(digit)

    async def press(self, digits: str) -> None:
        """Play keypad tones to the other side, in place of what the agent says meanwhile."""
        pcm = dtmf.tones(digits, self._line.rate)
        self._voided += len(pcm)
        await self._hand_over(pcm)

    async def sound(self, sound: Sound) -> None:
        """One frame of the agent."""
        pcm = self._line.render(sound.pcm)
        if self._voided:
            left_out = min(self._voided, len(pcm))
            self._voided -= left_out
            pcm = pcm[left_out:]
        await self._hand_over(pcm, sound.answers + FRAME)

    async def event(self, event: engines.TextEvent) -> None:
        """What else the engine reports."""
        call = self._call
        if facts := self._reminders.note(event):
            await call.tell(notes.Memory(facts))
        await call.tell(self._reports.of(event))
        match event:
            case engines.Flush():
                self._tape.void_agent(call.now(), self._origin)
                self.playout.clear()
                await call.send(self._line.flush())
            case engines.Lost():
                await self._hand_over(call.board.lost_sound[self._line.rate])
            case engines.HangUp():
                lead = max(0.0, self.playout.lead(call.now()))
                asyncio.get_running_loop().call_later(lead, call.end, End.AGENT)
            case _:
                pass

    def count(self, stats: CallStats) -> None:
        """Bring the call's counters up to what the playout has counted."""
        stats.underruns, stats.recoveries = self.playout.underruns, self.playout.recoveries

    def leave(self) -> None:
        """The conversation is over."""
        self._reminders.close()

    async def close(self) -> None:
        """And the peer has gone."""
        await self._tape.close()

    async def _hand_over(self, pcm: NDArray[np.int16], answers: int | None = None) -> None:
        """Send sound the way the playout wants it."""
        call, now = self._call, self._call.now()
        silent = not len(pcm) or (np.maximum.reduce(pcm) < QUIET and np.minimum.reduce(pcm) > -QUIET)
        if not silent:
            call.active_at = now
        await call.tell(self._reports.voice(silent, now))
        if not call.link.here:
            return
        call.stats.lead.observe(self.playout.lead(now))
        plan = self.playout.plan(now, len(pcm), silent, answers)
        if plan.clear:
            self._tape.void_agent(now, self._origin)
            await call.send(self._line.flush())
        if plan.cut:
            pcm = pcm[plan.cut :]
        if plan.pad:
            pcm = np.concatenate((np.zeros(plan.pad, np.int16), pcm))
        if len(pcm):
            self._tape.agent(pcm, now, self._origin)
            await call.send(self._line.sound(pcm))
        if plan.mark is not None:
            await call.send(self._line.mark(plan.mark))

    @property
    def _origin(self) -> float:
        """When the caller spoke sample 0, by the loop's clock."""
        return self._mouth if self._mouth < float("inf") else self._call.began
