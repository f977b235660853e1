"""An engine whose core lives in a process of its own: slots, leases and conversations on the daemon's side."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import numpy as np

from . import wire
from .base import (
    FRAME,
    RATE,
    STEP_LIMIT,
    Back,
    Busy,
    Capacity,
    Ended,
    Frame,
    Lease,
    Lost,
    Opening,
    Sound,
)
from .child import Child
from .leases import TimedLease
from .mailbox import LOSSES, Mailbox
from .wire import Kind, Packet

FEW = 16  # calls for which each frame goes at once; for more, gathering saves a quarter of the daemon's time
WORKER = "voice_bridge.engines.worker"


class HostConversation(Mailbox):
    def __init__(self, engine: HostEngine, id: int, opening: Opening) -> None:
        super().__init__(opening)
        self.id = id
        self._engine = engine

    def send(self, frame: Frame, at: int) -> None:
        if frame.shape != (FRAME,) or frame.dtype != np.float32:
            raise ValueError(f"a frame is {FRAME} float32, not {frame.shape} of {frame.dtype}")
        child = self._engine.child
        hand_over = child.gather if len(self._engine.conversations) > FEW else child.send
        if child.behind or not hand_over(wire.pack(Kind.FRAME, self.id, at, frame.data.cast("B"))):
            self.dropped += 1

    def begin(self) -> None:
        """Open it in the engine process: at first, and again in each new one."""
        self._tell(wire.Open(self.opening))

    async def close(self) -> None:
        if self._engine.conversations.pop(self.id, None):
            self._tell(wire.Close())
            self.deliver(Ended("closed"))

    def _tell(self, tell: wire.AnyTell) -> None:
        self._engine.child.send(wire.pack_struct(Kind.TELL, tell, self.id))


class HostEngine:
    """Serves as many conversations as the core has slots, and brings them over a crash of its process."""

    def __init__(
        self,
        name: str,
        core: str,
        slots: int,
        *,
        remedy: str = "take a faster machine",
        environment: dict[str, str] | None = None,
        **options: str | int | float | bool,
    ) -> None:
        """`remedy` is what to do when steps are too slow for one call; `environment` is set in the process."""
        self.name = name
        init = wire.Init(core, options, slots, environment or {})
        self.child = Child(wire.pack_struct(Kind.INIT, init), self, WORKER)
        self._remedy = remedy
        self.leases: set[TimedLease] = set()
        self.conversations: dict[int, HostConversation] = {}
        self._ids = count(1)
        self._back_in = 0.0

    async def start(self) -> None:
        await self.child.start()

    @property
    def ready(self) -> bool:
        return self.child.health is not None

    @property
    def restarts(self) -> int:
        return self.child.restarts

    @property
    def queued(self) -> int:
        """Frames that wait in the engine process."""
        return self.child.health.queued if self.child.health else 0

    @property
    def dropped(self) -> int:
        return self.child.dropped

    @property
    def device_memory(self) -> int:
        return self.child.health.device_memory if self.child.health else 0

    @property
    def step_seconds(self) -> float:
        return self.child.health.expected if self.child.health else 0.0

    @property
    def trouble(self) -> str:
        if self.child.health is None:
            return self.child.progress or "starting"
        if self.child.health.offered:
            return ""
        takes, may, lasts = (f"{1000 * seconds:.0f}" for seconds in (self.step_seconds, STEP_LIMIT, FRAME / RATE))
        return f"a step takes {takes} ms and may take {may} of the {lasts} that a frame lasts: {self._remedy}"

    def capacity(self) -> Capacity:
        offered = self.child.health.offered if self.child.health else 0
        return Capacity(offered, len(self.leases), len(self.conversations))

    def reserve(self, ttl: float) -> Lease:
        if not self.capacity().free:
            raise Busy(self.trouble or "every slot is taken" if self.ready else f"not ready: {self.trouble}")
        return TimedLease(self.leases, ttl)

    async def open(self, opening: Opening, lease: Lease) -> HostConversation:
        if not lease.live:
            raise Busy("the reservation has expired")
        lease.release()
        conversation = HostConversation(self, next(self._ids), opening)
        self.conversations[conversation.id] = conversation
        if self.ready:
            conversation.begin()
        else:
            conversation.deliver(Lost(self._back_in))
        return conversation

    async def stop(self) -> None:
        for conversation in list(self.conversations.values()):
            await conversation.close()
        for lease in list(self.leases):
            lease.release()
        await self.child.stop()

    def child_up(self, health: wire.Health) -> None:
        for conversation in self._all():
            if conversation.unlucky:
                del self.conversations[conversation.id]
                conversation.deliver(Ended(f"{LOSSES} engine processes in a row were lost"))
            else:
                conversation.begin()
                conversation.deliver(Back())

    def child_down(self, back_in: float) -> None:
        self._back_in = back_in
        for conversation in self._all():
            conversation.deliver(Lost(back_in))

    def child_says(self, packet: Packet) -> None:
        conversation = self.conversations.get(packet.conversation)
        if conversation is None:
            return
        if packet.kind == Kind.SOUND:
            conversation.deliver(Sound(np.frombuffer(packet.payload, np.float32), packet.at))
        elif packet.kind == Kind.EVENT:
            event = wire.decode_event.decode(packet.payload)
            if isinstance(event, Ended):
                del self.conversations[packet.conversation]
            conversation.deliver(event)

    def _all(self) -> Iterable[HostConversation]:
        return list(self.conversations.values())
