"""Where the mind does what takes time: the store and all that reads and writes it, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec.structs import replace

from .callers import Callers, load_key
from .embed import Embedder, NoEmbedding, embedder
from .kinds import DAY
from .recall import Recall
from .scribe import Scribe
from .store import Store, StoreError
from .wire import MindInit, State

Result = TypeVar("Result")

AGAIN = 5.0  # seconds before a store that failed is tried again: an unreachable one takes as long as its time limit

log = logging.getLogger("voice_bridge.mind")


class _Resting(Exception):
    """The store has just failed and is left alone for a while."""


class Desk:
    """Opens the store when it is needed. What fails is told as a state, and costs the caller of `do` a None."""

    def __init__(self, init: MindInit, tell: Callable[[State], None]) -> None:
        """`tell` is called on the event loop, whenever the state changes."""
        self._init = init
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, "memory")
        self._state = State()
        self._cannot_write = False
        self._rests = {False: 0.0, True: 0.0}
        """Until when all, and until when writing, is left alone after a failure."""
        self._opened: tuple[int, int] | None = None
        """The file that is open."""
        self.callers = Callers(load_key(init.key, init.store))
        self.embedder: Embedder
        self.store: Store
        self.recall: Recall
        self.scribe: Scribe

    def start(self, progress: Callable[[str], None]) -> None:
        """Load the embedder; raises NoEmbedding. Vectors of another embedder are made anew."""
        self.embedder = embedder(self._init.embedder, self._init.embedder_key)
        with contextlib.suppress(StoreError, NoEmbedding):  # it may come back; until then there is no memory
            self._open_store(progress)

    async def do(self, work: Callable[[Desk], Result], writes: bool = False) -> Result | None:
        """Do it on the thread; None if the store cannot be had. Where nothing can be written, reading goes on."""
        try:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._thread, self._work, work, writes)
        except _Resting:
            return None
        except (StoreError, NoEmbedding) as error:
            self._cannot_write = writes
            self._change(str(error), errors=1)
            return None
        if writes or not self._cannot_write:
            self._cannot_write = False
            self._change("")
        return result

    @property
    def trouble(self) -> str:
        return self._state.trouble

    def wrote(self, memories: int) -> None:
        self._change("", written=memories)

    def judged(self, counts: Mapping[str, int]) -> None:
        """How a language model's answers ended so far."""
        self._say(replace(self._state, judged=dict(counts)))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def forget(self, caller: str) -> int:
        """Everything about a caller, in the files too."""
        gone = self.store.forget(caller)
        self.store.scrub()
        self.recall.forget(caller)
        return gone

    def expire(self) -> int:
        """Forget what is older than it may become."""
        kept, explained = self._init.retention_days, self._init.explain_days
        before, thoughts_before = (time.time() - days * DAY if days else 0.0 for days in (kept, explained))
        if gone := self.store.expire(before, max(before, thoughts_before)):
            self.store.scrub()
            log.info("forgot %d memories older than %g days", gone, kept)
        return gone

    def _work(self, work: Callable[[Desk], Result], writes: bool) -> Result:
        # Those that waited while one failed shall not each wait as long as that.
        if time.monotonic() < max(self._rests[kind] for kind in {False, writes}):
            raise _Resting
        try:
            if not self._opened or self._opened != self._file():
                self._open_store(log.info)
            return work(self)
        except (StoreError, NoEmbedding):
            self._rests[writes] = time.monotonic() + AGAIN
            self._close()  # it may be another file by then, or a mended one
            raise

    def _file(self) -> tuple[int, int]:
        """Which file is at the store's place now, as the system counts; one number for a server."""
        if "://" in self._init.store:
            return (1, 1)
        try:
            found = os.stat(self._init.store)
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def _open_store(self, progress: Callable[[str], None]) -> None:
        self._close()
        init = self._init
        self.store = Store.open(init.store, auth_token=init.store_token, encryption_key=init.encryption_key)
        self._match(progress)
        self.recall = Recall(self.store, self.embedder)
        self.scribe = Scribe(self.store, self.embedder)
        self._opened = self._file()

    def _match(self, progress: Callable[[str], None]) -> None:
        """Make the store's vectors those of our embedder; one that was killed at it is gone on with."""
        maker = self.embedder
        self.store.reembed(
            maker.name,
            maker.dim,
            maker.embed,
            lambda done, total: progress(f"embedding memories anew with {maker.name}: {done} of {total}"),
        )

    def _close(self) -> None:
        if self._opened:
            self._opened = None
            self.store.close()

    def _change(self, trouble: str, written: int = 0, errors: int = 0) -> None:
        before = self._state
        self._say(replace(before, trouble=trouble, written=before.written + written, errors=before.errors + errors))

    def _say(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._tell(state)
