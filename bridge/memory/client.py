"""The daemon's side of memory: one process beside the engine's, which calls can do without."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...engines import wire as process
from ...engines.base import OPENING, Words
from ...engines.child import Child, ChildFailed
from ...engines.wire import Kind, Packet
from . import wire
from .wire import Begin, Forgotten, Known, MindInit, Remind

Told: TypeAlias = Remind | Forgotten
"""What the mind has to tell a call."""

log = logging.getLogger("voice_bridge.memory")

MODULE = "voice_bridge.bridge.memory.mind"
SILENCE = 15.0  # seconds without an answer that count as a hang; a busy disk may take some of them
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # products of a few hundred rows; the cores are for engine and daemon
START = 0.15  # seconds that a call waits for what is known of its caller: less than a ring
FINISH = 5.0  # seconds for what is under way when the bridge stops


class Mind:
    """Starts the process, and gives each call its `Attention`. Whatever fails, calls go on."""

    def __init__(self, init: MindInit) -> None:
        environment = ONE_THREAD | ({"CUDA_VISIBLE_DEVICES": init.gpu} if init.gpu else {})
        self._child = Child(process.pack_struct(Kind.INIT, init), self, MODULE, "mind", SILENCE, environment)
        self._attentions: dict[int, Attention] = {}
        self._ids = count(1)
        self._starting: asyncio.Task[None] | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._state = wire.State()
        self.counts: Counter[str] = Counter()
        """Reminders by what became of them."""
        self.overheard: Callable[[str, int, str, bool], None] = lambda call, id, text, final: None
        """Given what callers say, by the mind's own ear; whoever shows it sets this."""
        self.injection = init.injection
        self._has_ear = init.ear != "off"

    def start(self) -> None:
        """Begin to start it. Nobody waits: a call that comes earlier is one without memory."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            await self._child.start()
        except ChildFailed as error:
            self._state = wire.State(str(error))
            log.error("there is no memory: %s", error)

    async def settled(self) -> None:
        """Wait until it is up, or has failed to start."""
        if self._starting:
            await self._starting

    async def stop(self) -> None:
        """Let it finish what was said last, then end it."""
        if self._starting:
            self._starting.cancel()
        if self._tell(0, wire.Quit()):
            try:
                async with asyncio.timeout(FINISH):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("the mind had not finished in %.0f s; what was said last may be lost", FINISH)
        await self._child.stop()

    @property
    def ready(self) -> bool:
        return self._child.health is not None and not self._state.trouble

    @property
    def trouble(self) -> str:
        """Why nothing is remembered, in a line; empty when all is well."""
        return self._state.trouble or ("" if self._child.health else self._child.progress or "starting")

    @property
    def restarts(self) -> int:
        return self._child.restarts

    @property
    def dropped(self) -> int:
        """Pieces of talk that were not transcribed, as the ear did not keep up."""
        return self._child.dropped

    @property
    def written(self) -> int:
        return self._state.written

    @property
    def errors(self) -> int:
        return self._state.errors

    @property
    def judged(self) -> dict[str, int]:
        """Questions to a language model, by how they ended."""
        return self._state.judged

    def attend(self, call: str, caller: str, rate: int, tell: Callable[[Told], None]) -> Attention:
        """Listen to a call; `tell` is called with what the mind wants of it. `caller` is empty for nobody."""
        attention = Attention(self, next(self._ids), Begin(call, caller, rate), tell)
        self._attentions[attention.id] = attention
        attention.begin()
        return attention

    def child_up(self, health: process.Health) -> None:
        self._state = wire.State()
        for attention in self._attentions.values():
            attention.begin()
        for attention in self._attentions.values():  # by now it knows of all their calls
            attention.insist()

    def child_down(self, back_in: float) -> None:
        """Calls go on, and are listened to again when it is back."""

    def child_says(self, packet: Packet) -> None:
        event = wire.decode_event.decode(packet.payload)
        if isinstance(event, wire.State):
            self._changed(event)
        elif isinstance(event, wire.Done):
            self._idle.set()
        elif attention := self._attentions.get(packet.conversation):
            attention.take(event)

    def _changed(self, state: wire.State) -> None:
        if state.trouble and state.trouble != self._state.trouble:
            log.error("nothing is remembered: %s", state.trouble)
        elif self._state.trouble and not state.trouble:
            log.info("memory works again")
        self._state = state

    def _tell(self, id: int, tell: wire.Tell) -> bool:
        if self._child.behind and isinstance(tell, wire.Heard | wire.Said):  # one that hangs shall not fill our memory
            return False
        return self._child.send(process.pack_struct(Kind.TELL, tell, id))

    def _hear(self, id: int, pcm: NDArray[np.int16], at: int) -> None:
        if self._has_ear and not self._child.behind:
            self._child.gather(process.pack(Kind.FRAME, id, at, pcm.tobytes()))

    def _leave(self, id: int) -> None:
        self._attentions.pop(id, None)


class Attention:
    """What the mind has to do with one call. No method waits, but for `known`."""

    def __init__(self, mind: Mind, id: int, first: Begin, tell: Callable[[Told], None]) -> None:
        self.id = id
        self._mind = mind
        self._first = first
        self._tell_call = tell
        self._known: asyncio.Future[Known] = asyncio.get_running_loop().create_future()
        self._begun = False  # whether the mind knew of the call when it was told last
        self._late = False
        self._forgets = self._forgotten = False
        self._opening: Remind | None = None
        self._given: dict[int, None] = {}  # in the order in which the model got them
        self._asked: dict[int, tuple[Remind, float]] = {}

    async def known(self) -> Known:
        """What the call may begin with; nothing if the mind takes too long. Then it comes as a reminder."""
        try:
            async with asyncio.timeout(START if self._begun else 0):
                return await asyncio.shield(self._known)
        except TimeoutError:
            self._late = not self._known.done()
            return Known() if self._late else self._known.result()

    def begin(self) -> None:
        """Tell the mind of the call: at first, and again when it is new."""
        first = self._first
        begin = Begin(first.call, first.caller, first.rate, tuple(self._given))
        self._begun = self._mind._tell(self.id, begin)

    def insist(self) -> None:
        """Whoever wanted to be forgotten wants it of a new mind too."""
        if self._forgets:
            self._mind._tell(self.id, wire.Forget())

    def hear(self, pcm: NDArray[np.int16], at: int) -> None:
        """One frame of the caller."""
        if not self._forgets:
            self._mind._hear(self.id, pcm, at)

    def heard(self, words: Words) -> bool:
        """The caller's words, of an engine that hears. Whether there will be a reminder for this turn, maybe empty."""
        if self._forgets:
            return False
        heard = wire.Heard(words.id, words.text, words.start, words.end, words.final)
        return self._mind._tell(self.id, heard) and words.final

    def said(self, text: str) -> None:
        """The agent's words."""
        if not self._forgets:
            self._mind._tell(self.id, wire.Said(text))

    def keep(self, text: str) -> None:
        if not self._forgets:
            self._mind._tell(self.id, wire.Keep(text))

    def forget(self) -> None:
        """Everything about this caller, and what is still said in this call."""
        if not self._forgets:
            self._forgets = True
            self._mind._tell(self.id, wire.Forget())

    def begins_with(self, known: Known) -> None:
        """The engine is asked, under the id of an opening, to give this to the model before the first frame."""
        self._opening = Remind(known.context, known.memories, ())
        self.asked(OPENING, self._opening)

    def asked(self, id: int, remind: Remind) -> None:
        """The engine was asked, under this id, to take a reminder in."""
        self._asked[id] = (remind, monotonic())

    def answered(self, id: int, taken: bool, again: bool = False) -> Remind | None:
        """The engine has taken in what it was asked under this id, or not; other ids are none of ours.

        `again` when it may be asked once more. Gives what the model has got by it.
        """
        if id not in self._asked:
            return None
        remind, since = self._asked.pop(id)
        if id != OPENING:
            self._mind.counts["taken" if taken else "refused"] += 1
        if taken:
            self._given.update(dict.fromkeys(remind.memories))
        if taken or id != OPENING:  # what had no room at the beginning may have some later, one by one
            self._mind._tell(self.id, wire.Took(remind.memories, taken, monotonic() - since, again))
        return remind if taken else None

    def anew(self) -> None:
        """The engine has lost what it was given; it is asked again for what the call began with."""
        self._given.clear()
        self._asked.clear()
        self._mind._tell(self.id, wire.Anew())
        if self._opening:
            self.asked(OPENING, self._opening)

    def close(self) -> None:
        self._mind._tell(self.id, wire.End())
        self._mind._leave(self.id)

    def take(self, event: wire.Event) -> None:
        if isinstance(event, Known) and not self._known.done():
            self._known.set_result(event)
            if self._late and event.memories and self._mind.injection != "spoken":
                self._tell_call(Remind(event.context, event.memories, ()))
        elif isinstance(event, wire.Overheard):
            if not self._forgets:
                self._mind.overheard(self._first.call, event.id, event.text, event.final)
        elif isinstance(event, Remind):
            if not self._forgets:
                self._tell_call(event)
            elif event.turn is not None:
                self._tell_call(wire.nothing(event.turn))
        elif isinstance(event, Forgotten) and not self._forgotten:
            self._forgotten = True
            self._opening = None
            self._tell_call(event)
