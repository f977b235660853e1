"""The inside of an engine process: reads frames, steps the core with every slot that is due, writes replies.

One thread, one loop: `python -m voice_bridge.engines.worker FD`. It ends when the daemon's end is closed.
"""

from __future__ import annotations

import importlib
import os
import runpy
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import wire
from .base import FRAME, Core, Ended, Opening, Refused, Sound, in_time
from .wire import Kind

QUEUE = 4  # frames a slot may wait (320 ms); what is older would only be heard as lag
SLICE = 0.005  # seconds of opening or injection between two steps: no call misses its frame for it
PATIENCE = 4  # turns that openings and injections wait for frames that wait: then they have waited as long as a frame
READ = 1 << 18  # bytes a read; a full house of frames in a few reads


class Waiting(NamedTuple):
    frame: bytes
    at: int


class Worker:
    def __init__(self, sock: socket.socket, core: Core, slots: int) -> None:
        self._sock = sock
        self._core = core
        self._slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._slot_of: dict[int, int] = {}
        self._call_of: dict[int, int] = {}
        self._queues: list[deque[Waiting]] = [deque(maxlen=QUEUE) for _ in range(slots)]
        self._due: dict[int, None] = {}  # slots with frames, in the order in which they came
        self._staging = np.zeros((slots, FRAME), np.float32)
        self._unpacker = wire.Unpacker()
        self._out: list[bytes] = []
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._step_seconds = 0.0
        self._dropped = 0
        self._offered = 0  # after warming up
        self._busy = False  # the core has openings or injections under way
        self._put_off = 0  # turns without such work, as frames waited

    def warm_up(self) -> None:
        """Real steps, so that the first caller does not pay for compiling and paging in."""
        self._try_out()
        self._offered = self._offer()

    def health(self) -> wire.Health:
        offered = self._offer()
        queued = sum(len(queue) for queue in self._queues)
        expected, memory = self._core.step_time(offered or 1), self._core.device_memory()
        return wire.Health(offered, self._step_seconds, expected, queued, self._dropped, memory)

    def _offer(self) -> int:
        """As many slots as are served in time."""
        return next((n for n in range(self._slots, 0, -1) if in_time(n, self._core.step_time)), 0)

    def _try_out(self) -> None:
        """A call of two frames that nobody hears; only while there is no other."""
        silence = np.zeros((1, FRAME), np.float32)
        self._core.open(0, Opening())
        while self._core.work(SLICE):
            pass
        for at in (0, FRAME):  # the second takes the usual time
            began = time.monotonic()
            self._core.collect(self._core.launch([0], silence, [at]))
            self._step_seconds = time.monotonic() - began
        self._core.close(0)

    def turn(self, wait: bool = True) -> bool:
        """Read what has come, step once with the slots that are due, write the replies; False at the end.

        With `wait` it sleeps until there is something to do.
        """
        if not self._read(wait and not self._due and not self._busy):
            return False
        if self._due:
            self._step()
        self._flush()
        if self._due and self._put_off < PATIENCE:
            self._put_off += 1
        else:
            self._put_off = 0
            self._busy = self._core.work(SLICE)
        return True

    def _read(self, wait: bool) -> bool:
        """Take in whatever the daemon has sent; False when it has gone."""
        self._poll.poll(None if wait else 0)
        while True:
            try:
                data = self._sock.recv(READ, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not data:
                return False
            for packet in self._unpacker.feed(data):
                self._take(packet)
            if len(data) < READ:
                return True

    def _take(self, packet: wire.Packet) -> None:
        if packet.kind == Kind.FRAME:
            slot = self._slot_of.get(packet.conversation)
            if slot is not None:
                queue = self._queues[slot]
                self._dropped += len(queue) == QUEUE
                queue.append(Waiting(packet.payload, packet.at))
                self._due[slot] = None
        elif packet.kind == Kind.PING:
            self._out.append(wire.pack_struct(Kind.HEALTH, self.health()))
            if not self._slot_of and self._offer() < self._offered:
                self._flush()  # first the answer: this may take longer than one is waited for
                self._try_out()  # without calls nothing else would show that it is fast again
        elif packet.kind == Kind.TELL:
            self._tell(packet.conversation, wire.decode_tell.decode(packet.payload))

    def _tell(self, conversation: int, tell: wire.AnyTell) -> None:
        if isinstance(tell, wire.Open):
            self._open(conversation, tell.opening)
            return
        slot = self._slot_of.get(conversation)
        if slot is None:
            return
        match tell:
            case wire.Say() | wire.Inject():
                self._give(conversation, slot, tell)
            case wire.Cancel(id):
                self._core.cancel(slot, id)
            case wire.Forget():
                self._core.forget(slot)
            case wire.Played(at):
                self._core.played(slot, at)
            case wire.Digit(digit):
                self._core.digit(slot, digit)
            case wire.Close():
                self._close(conversation, slot)

    def _give(self, conversation: int, slot: int, words: wire.Say | wire.Inject) -> None:
        try:
            if isinstance(words, wire.Say):
                self._core.say(slot, words.id, words.text, words.interruptible)
            else:
                self._core.inject(slot, words.id, words.context, words.how, words.turn)
        except ValueError:  # these words are at fault, not the core; the error names them, and no log may have them
            self._out.append(wire.pack_struct(Kind.EVENT, Refused(words.id), conversation))

    def _open(self, conversation: int, opening: Opening) -> None:
        slot = self._free.pop()
        try:
            self._core.open(slot, opening)
        except ValueError as error:  # this opening is at fault, not the core
            self._free.append(slot)
            self._out.append(wire.pack_struct(Kind.EVENT, Ended(f"opening refused: {error}"), conversation))
            return
        self._slot_of[conversation] = slot
        self._call_of[slot] = conversation

    def _close(self, conversation: int, slot: int) -> None:
        self._core.close(slot)
        self._queues[slot].clear()
        self._due.pop(slot, None)
        del self._slot_of[conversation], self._call_of[slot]
        self._free.append(slot)

    def _step(self) -> None:
        slots = list(self._due)
        at = []
        for row, slot in enumerate(slots):
            queue = self._queues[slot]
            waiting = queue.popleft()
            self._staging[row] = np.frombuffer(waiting.frame, np.float32)
            at.append(waiting.at)
            if not queue:
                del self._due[slot]
        began = time.monotonic()
        pending = self._core.launch(slots, self._staging[: len(slots)], at)
        events = self._core.collect(pending)
        self._step_seconds += 0.1 * (time.monotonic() - began - self._step_seconds)
        for slot, event in events:
            conversation = self._call_of.get(slot)
            if conversation is None:
                continue
            if isinstance(event, Sound):
                payload = np.ascontiguousarray(event.pcm, np.float32).tobytes()
                self._out.append(wire.pack(Kind.SOUND, conversation, event.answers, payload))
            else:
                self._out.append(wire.pack_struct(Kind.EVENT, event, conversation))
            if isinstance(event, Ended):
                self._close(conversation, slot)

    def _flush(self) -> None:
        if self._out:
            self._sock.sendall(b"".join(self._out))
            self._out.clear()


def _find(core: str) -> Callable[..., Core]:
    """The function that makes the core: `module:function`, or `path/to/file.py:function`."""
    place, _, function = core.rpartition(":")
    found = runpy.run_path(place) if place.endswith(".py") else vars(importlib.import_module(place))
    make: Callable[..., Core] = found[function]
    return make


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    init = wire.first(sock, wire.Init)
    os.environ.update(init.environment)

    def progress(text: str) -> None:
        sock.sendall(wire.pack(Kind.PROGRESS, payload=text.encode()))

    try:
        core = _find(init.core)(slots=init.slots, progress=progress, **init.options)
        worker = Worker(sock, core, init.slots)
        worker.warm_up()
    except (ValueError, OSError) as error:  # what was asked for cannot be had: its line says it all
        sock.sendall(wire.pack(Kind.FAILED, payload=str(error).encode()))
        sys.exit(1)
    except Exception as error:
        sock.sendall(wire.pack(Kind.FAILED, payload=f"{type(error).__name__}: {error}".encode()))
        raise
    sock.sendall(wire.pack_struct(Kind.READY, worker.health()))
    while worker.turn():
        pass


if __name__ == "__main__":
    main()
