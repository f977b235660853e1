"""Where the mind does what takes time: the store and all that reads and writes it, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .callers import Callers, load_key
from .embed import Embedder, NoEmbedding, embedder
from .recall import Recall
from .scribe import Scribe
from .store import Store, StoreError
from .wire import MindInit, State

Result = TypeVar("Result")

AGAIN = 5.0  # seconds before a store that failed is tried again: an unreachable one takes as long as its time limit
DAY = 86400.0  # seconds

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
        self._retry = 0.0
        self._open = False
        self.callers = Callers(load_key(init.key, init.store))
        self.embedder: Embedder
        self.store: Store
        self.recall: Recall
        self.scribe: Scribe

    def start(self, progress: Callable[[str], None]) -> None:
        """Load the embedder; raises NoEmbedding. Vectors of another embedder are made anew."""
        self.embedder = embedder(self._init.embedder, self._init.embedder_key)
        with contextlib.suppress(StoreError):  # it may come back; until then there is no memory
            self._open_store(progress)

    async def do(self, work: Callable[[Desk], Result]) -> Result | None:
        """Do it on the thread; None if the store cannot be had."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)
        except _Resting:
            return None
        except (StoreError, NoEmbedding) as error:
            self._change(str(error), errors=1)
            return None
        self._change("")
        return result

    def wrote(self, memories: int) -> None:
        self._change("", written=memories)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def forget(self, caller: str) -> int:
        """Everything about a caller, in the files too."""
        gone = self.store.forget(caller)
        self.store.scrub()
        self.recall.forget(caller)
        return gone

    def expire(self) -> None:
        """Forget what is older than it may become."""
        init, now = self._init, time.time()
        before, thoughts_before = (
            now - days * DAY if days else 0.0 for days in (init.retention_days, init.explain_days)
        )
        if gone := self.store.expire(before, max(before, thoughts_before)):
            self.store.scrub()
            log.info("forgot %d memories older than %g days", gone, init.retention_days)

    def _work(self, work: Callable[[Desk], Result]) -> Result:
        if time.monotonic() < self._retry:  # those that waited meanwhile shall not each wait as long as the first
            raise _Resting
        try:
            if not self._open:
                self._open_store(log.info)
            return work(self)
        except (StoreError, NoEmbedding):
            self._retry = time.monotonic() + AGAIN
            raise

    def _open_store(self, progress: Callable[[str], None]) -> None:
        init = self._init
        self.store = Store.open(init.store, auth_token=init.store_token, encryption_key=init.encryption_key)
        self._match(progress)
        self.recall = Recall(self.store, self.embedder)
        self.scribe = Scribe(self.store, self.embedder)
        self._open = True

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
        if self._open:
            self.store.close()

    def _change(self, trouble: str, written: int = 0, errors: int = 0) -> None:
        before = self._state
        self._state = State(trouble, before.written + written, before.errors + errors)
        if self._state != before:
            self._tell(self._state)
