"""One call, as the mind follows it: what was said, what of the caller comes to mind, what the model was given."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from ...codecs.framing import FRAME, RATE
from ...codecs.resample import FULL_SCALE, Up
from ...engines.base import Speaker
from ...engines.ears.base import EarEvent, Heard, Transcriber
from . import wire
from .desk import AGAIN, Desk
from .kinds import Candidate, Judged, Memory, Moment, Thought
from .phrase import known, reminder
from .think import Thinker, choose

TURNS = 12  # utterances that are kept for what the talk is about; more of them only dilute it
TAIL = 10  # frames of silence (0.8 s) that end the utterance under way when the caller hangs up
LAST = 2.0  # seconds for the ear to finish it
NAME = "name"  # the kind of memory that a greeting may use
LONGEST_KNOWN = 800  # letters of what a call begins with: about 250 tokens
STANDING = 0.7  # how important a memory must be for a call to begin with it


log = logging.getLogger("voice_bridge.mind")


@dataclass(frozen=True)
class Parts:
    """What all calls share."""

    desk: Desk
    ear: Transcriber | None
    thinker: Thinker
    injection: wire.Injection
    standing: int


class Talk:
    def __init__(
        self, id: int, begin: wire.Begin, caller: str, parts: Parts, tell: Callable[[wire.Event], None]
    ) -> None:
        """`caller` is the key of the caller."""
        self.caller = caller
        self.over = asyncio.Event()
        self.ending = False
        self._id = id
        self._call = begin.call
        self._parts = parts
        self._tell = tell
        self._began = time.monotonic()
        self._up = Up() if begin.rate != RATE else None
        self._spoken = float("inf")  # when sample 0 was, by our clock, as near as frames have told
        self._at = 0
        self._turns: deque[tuple[Speaker, str]] = deque(maxlen=TURNS)
        self._met = set(begin.given)  # what the model has, or was said in this call, or cannot be given
        self._asked: dict[tuple[int, ...], Thought] = {}  # reminders that the engine has not answered
        self._waiting: list[Heard] = []
        self._unfinished: Heard | None = None  # of an engine that hears
        self._awaited: set[int] = set()  # utterances of which the engine waits to be told what comes to mind
        self._thinking: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[list[Judged]] | None = None  # of a partial: nobody waits for it once all is said
        self._listening = True
        if parts.ear:
            parts.ear.open(id)

    async def start(self) -> None:
        """Say what the call may begin with."""
        self._tell(await self._parts.desk.do(self._known) or wire.Known())
        await self._parts.desk.do(lambda desk: desk.recall.load(self.caller))

    def hear(self, pcm: bytes, at: int) -> None:
        """One frame of the caller, at the line's rate."""
        samples = np.frombuffer(pcm, np.int16)
        frame = self._up.push(samples) if self._up else (samples / np.float32(FULL_SCALE)).astype(np.float32)
        self._at = at + FRAME
        self._spoken = min(self._spoken, time.monotonic() - self._at / RATE)
        if self._listening and self._parts.ear:
            self._parts.ear.hear(self._id, frame, at)

    def ear_says(self, event: EarEvent) -> None:
        if isinstance(event, Heard):
            if self._listening:
                self._tell(wire.Overheard(event.id, event.text, event.final))
            self._take(event)

    def engine_heard(self, told: wire.Heard) -> None:
        """The caller's words, of an engine that hears; when they are final it is told what comes to mind, once."""
        heard = Heard(told.id, told.text, (), told.start, told.end, told.final)
        self._unfinished = None if told.final else heard
        if told.final:
            self._awaited.add(told.id)
        self._take(heard)

    def agent_said(self, text: str) -> None:
        if self._listening:
            self._turns.append(("agent", text))

    async def took(self, took: wire.Took) -> None:
        if not took.again:
            self._met.update(took.memories)  # those that it refused too: it would refuse them again
        if thought := self._asked.pop(took.memories, None):
            await self._log(thought, took)

    def anew(self) -> None:
        self._asked.clear()
        self._met.clear()

    async def keep(self, text: str) -> None:
        if self._listening:
            await self._write(lambda desk: desk.scribe.remember(self.caller, self._call, text, time.time()))

    def hush(self) -> None:
        """Nothing more of this call is kept, or comes to mind."""
        self._listening = False
        self._unfinished = None
        for what in (self._waiting, self._turns, self._asked):
            what.clear()
        for turn in self._awaited:
            self._tell(wire.nothing(turn))
        self._awaited.clear()

    async def forget(self) -> None:
        """Everything about the caller, as soon as the store can be had."""
        if self._thinking:
            await self._thinking
        while (gone := await self._parts.desk.do(lambda desk: desk.forget(self.caller), writes=True)) is None:
            log.error("%s is still to be forgotten: the store failed, and is tried again", self.caller)
            await asyncio.sleep(AGAIN)
        self._tell(wire.Forgotten(gone))

    async def end(self) -> None:
        """The caller has hung up: what was said last is still taken in."""
        self.ending = True
        try:
            await self._finish()
        finally:
            self.over.set()

    async def _finish(self) -> None:
        ear = self._parts.ear
        if ear and self._listening:
            for index in range(TAIL):
                ear.hear(self._id, np.zeros(FRAME, np.float32), self._at + index * FRAME)
            await asyncio.sleep(LAST)
        if ear:
            ear.close(self._id)
        if self._unfinished:
            self._take(self._unfinished._replace(final=True))
        if self._thinking:
            await self._thinking
        for ids, thought in list(self._asked.items()):  # those that the engine never answered
            await self._log(thought, wire.Took(ids, False, 0.0))

    def _known(self, desk: Desk) -> wire.Known:
        names = desk.store.about(self.caller, NAME)
        facts, letters = [], 0
        for memory in desk.store.standing(self.caller, self._parts.standing):
            letters += len(memory.text)
            if memory.importance >= STANDING and letters <= LONGEST_KNOWN:
                facts.append(memory)
        name = names[-1].entities.value if names else ""
        return wire.Known(name, known([fact.text for fact in facts]), tuple(fact.id for fact in facts))

    def _take(self, heard: Heard) -> None:
        if not self._listening:
            self._answer(heard)
            return
        self._waiting = [other for other in self._waiting if other.final]  # a newer partial is the better one
        self._waiting.append(heard)
        if heard.final and self._judging:
            self._judging.cancel()
        if self._thinking is None or self._thinking.done():
            self._thinking = asyncio.create_task(self._think())

    async def _think(self) -> None:
        while self._waiting:
            heard = self._waiting.pop(0)
            for work in (self._consider, self._note):
                try:
                    await work(heard)
                except Exception as error:
                    tell_fault(error)

    async def _note(self, heard: Heard) -> None:
        """Keep what was said, once it is thought of."""
        if not heard.final:
            return
        self._answer(heard)
        if self._listening:
            self._turns.append(("caller", heard.text))
            await self._write(lambda desk: desk.scribe.write(self.caller, self._call, heard.text, time.time()))

    def _turn(self, heard: Heard) -> int | None:
        """The turn for which the engine waits, and which is answered by what it is told now; None if it does not."""
        if not heard.final or heard.id not in self._awaited:
            return None
        self._awaited.discard(heard.id)
        return heard.id

    def _answer(self, heard: Heard) -> None:
        """Unless it was told more: nothing comes to mind of these words."""
        if (turn := self._turn(heard)) is not None:
            self._tell(wire.nothing(turn))

    async def _consider(self, heard: Heard) -> None:
        """Look for what the caller's words call to mind, and remind the model of it."""
        parts, now = self._parts, time.time()
        began = time.monotonic()
        milliseconds = {}
        if self._spoken < began:
            milliseconds["ear"] = 1000 * (began - self._spoken - heard.end / RATE)
        met = frozenset(self._met.union(*self._asked))
        moment = Moment(heard.text, heard.final, tuple(self._turns), met, now)
        candidates = await parts.desk.do(lambda desk: desk.recall.candidates(self.caller, moment))
        milliseconds["recall"] = 1000 * (time.monotonic() - began)
        all_is_said = not heard.final and any(other.final for other in self._waiting)
        if not candidates or all_is_said:
            return
        began = time.monotonic()
        judged = await self._judge(moment, candidates)
        if judged is None or not self._listening:
            return
        chosen = choose(judged)
        milliseconds["thinking"] = 1000 * (time.monotonic() - began)
        ids = {one.memory.id for one in chosen}
        thought = Thought(
            call=self._call,
            caller=self.caller,
            timestamp=now,
            into_call=time.monotonic() - self._began,
            said=heard.text,
            final=heard.final,
            thinker=parts.thinker.name,
            milliseconds=milliseconds,
            judged=tuple(replace(one, injected=one.memory.id in ids) for one in judged),
        )
        if chosen and (heard.final or parts.injection != "spoken"):  # nobody is spoken to while he speaks
            self._remind([one.memory for one in chosen], thought, self._turn(heard))
        elif heard.final:
            self._answer(heard)
            await self._log(thought)

    async def _judge(self, moment: Moment, candidates: Sequence[Candidate]) -> list[Judged] | None:
        """What the thinker says; None if the caller went on before it had an answer."""
        judging = asyncio.create_task(self._parts.thinker.judge(moment, candidates))
        self._judging = None if moment.final else judging
        try:
            await asyncio.wait({judging})
            return None if judging.cancelled() else judging.result()
        finally:
            judging.cancel()
            self._judging = None

    def _remind(self, memories: Sequence[Memory], thought: Thought, turn: int | None) -> None:
        ids, facts = tuple(memory.id for memory in memories), tuple(memory.text for memory in memories)
        self._asked[ids] = thought
        self._tell(wire.Remind(reminder(facts, self._parts.injection), ids, facts, turn))

    async def _write(self, work: Callable[[Desk], Sequence[Memory]]) -> None:
        written = await self._parts.desk.do(work, writes=True)
        if written:
            self._met.update(memory.id for memory in written)
            self._parts.desk.wrote(len(written))

    async def _log(self, thought: Thought, took: wire.Took | None = None) -> None:
        """Write down what was thought, and what the engine made of it."""
        if not self._listening:
            return
        if took and took.seconds:
            thought.milliseconds["hand-over"] = 1000 * took.seconds
        if took and not took.taken:
            why = "broken off" if took.again else "the model did not take it" if took.seconds else "no answer"
            thought = replace(
                thought,
                judged=tuple(
                    replace(one, injected=False, why=f"{why}: {one.why}") if one.injected else one
                    for one in thought.judged
                ),
            )
        await self._parts.desk.do(lambda desk: desk.store.log(thought), writes=True)


def tell_fault(error: BaseException) -> None:
    """Say where a fault of ours was, and not what stood in it: it may be a caller's words."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("a fault of the mind; the calls go on: %s\n%s", type(error).__name__, where)
