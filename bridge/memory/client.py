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
from ...engines.child import Child, ChildFailed
from ...engines.wire import Kind, Packet
from . import wire
from .wire import Begin, Forgotten, Known, MindInit, Remind

Told: TypeAlias = Remind | Forgotten
"""What the mind has to tell a call."""

log = logging.getLogger("voice_bridge.memory")

MODULE = "voice_bridge.bridge.memory.mind"
SILENCE = 15.0  # seconds without an answer that count as a hang; a busy disk may take some of them
START = 0.15  # seconds that a call waits for what is known of its caller: less than a ring
FINISH = 5.0  # seconds for what is under way when the bridge stops


class Mind:
    """Starts the process, and gives each call its `Attention`. Whatever fails, calls go on."""

    def __init__(self, init: MindInit) -> None:
        self._child = Child(process.pack_struct(Kind.INIT, init), self, MODULE, "mind", SILENCE)
        self._attentions: dict[int, Attention] = {}
        self._ids = count(1)
        self._starting: asyncio.Task[None] | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._state = wire.State()
        self.counts: Counter[str] = Counter()
        """Reminders by what became of them."""
        self.injection = init.injection

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
        return self._child.send(process.pack_struct(Kind.TELL, tell, id))

    def _hear(self, id: int, pcm: NDArray[np.int16], at: int) -> None:
        if not self._child.behind:
            self._child.gather(process.pack(Kind.FRAME, id, at, pcm.tobytes()))

    def _leave(self, id: int) -> None:
        self._attentions.pop(id, None)


class Attention:
    """What the mind has to do with one call. No method waits, but for `known`."""

    def __init__(self, mind: Mind, id: int, begin: Begin, tell: Callable[[Told], None]) -> None:
        self.id = id
        self._mind = mind
        self._begin = begin
        self._tell_call = tell
        self._known: asyncio.Future[Known] = asyncio.get_running_loop().create_future()
        self._late = False
        self._standing: tuple[int, ...] = ()
        self._given: dict[int, None] = {}  # in the order in which the model got them
        self._asked: dict[int, tuple[Remind, float]] = {}

    async def known(self) -> Known:
        """What the call may begin with; nothing if the mind takes too long. Then it comes as a reminder."""
        try:
            async with asyncio.timeout(START):
                return await asyncio.shield(self._known)
        except TimeoutError:
            self._late = not self._known.done()
            return Known() if self._late else self._known.result()

    def begin(self) -> None:
        told = self._mind._tell(self.id, Begin(self._begin.call, self._begin.caller, self._begin.rate, (*self._given,)))
        if not told and not self._known.done():
            self._known.set_result(Known())

    def hear(self, pcm: NDArray[np.int16], at: int) -> None:
        """One frame of the caller."""
        self._mind._hear(self.id, pcm, at)

    def said(self, text: str) -> None:
        """The agent's words."""
        self._mind._tell(self.id, wire.Said(text))

    def keep(self, text: str) -> None:
        self._mind._tell(self.id, wire.Keep(text))

    def forget(self) -> None:
        """Everything about this caller, and what is still said in this call."""
        self._mind._tell(self.id, wire.Forget())

    def begins_with(self, memories: tuple[int, ...]) -> None:
        """The model is given these before the first frame, and again should it be lost."""
        self._standing = memories
        self._given = dict.fromkeys(memories)
        self._mind._tell(self.id, wire.Took(memories, True, 0.0))

    def asked(self, id: int, remind: Remind) -> None:
        """The engine was asked, under this id, to take a reminder in."""
        self._asked[id] = (remind, monotonic())

    def answered(self, id: int, taken: bool) -> None:
        """The engine has taken in what it was asked under this id, or refused it; other ids are none of ours."""
        if id not in self._asked:
            return
        remind, since = self._asked.pop(id)
        self._mind.counts["taken" if taken else "refused"] += 1
        if taken:
            self._given.update(dict.fromkeys(remind.memories))
        self._mind._tell(self.id, wire.Took(remind.memories, taken, monotonic() - since))

    def anew(self) -> None:
        """The engine has lost what it was given in the call; what the call began with it has again."""
        self._asked.clear()
        self._given = dict.fromkeys(self._standing)
        self._mind._tell(self.id, wire.Anew())

    def close(self) -> None:
        self._mind._tell(self.id, wire.End())
        self._mind._leave(self.id)

    def take(self, event: wire.Event) -> None:
        if isinstance(event, Known) and not self._known.done():
            self._known.set_result(event)
            if self._late and event.memories and self._mind.injection != "spoken":
                self._tell_call(Remind(event.context, event.memories, ()))
        elif isinstance(event, Remind | Forgotten):
            self._tell_call(event)
