"""A mind for tests: the real process, and callers who talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from voice_bridge.bridge.memory.client import Attention, Mind, Told
from voice_bridge.bridge.memory.wire import Known, MindInit, Remind
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.resample import Down

from . import speech

KEY = "a key for tests, of thirty-two bytes"
ANNA, TOM = "+15550100001", "+15550100002"
LINE = 8000  # samples a second
CHUNK = FRAME * LINE // RATE
PATIENCE = 20.0  # seconds for what takes one on a machine with nothing else to do


def init(folder: Path, **changes: Any) -> MindInit:
    told = MindInit(
        store=str(folder / "memory.db"),
        store_token="",
        encryption_key="",
        key=KEY,
        retention_days=0,
        explain_days=0,
        ear="moonshine",
        ear_model="",
        embedder="wordllama",
        embedder_key="",
        thinker="rules",
        endpoints=(),
        seconds=1.0,
        tokens=2000,
        injection="silent",
        standing=8,
        calls=4,
        gpu="",
    )
    return msgspec.structs.replace(told, **changes)


class Caller:
    """One call that the mind attends."""

    def __init__(self, mind: Mind, call: str, number: str = ANNA) -> None:
        self.told: list[Told] = []
        self.attention: Attention = mind.attend(call, number, LINE, self._tell)
        self._at = 0
        self._news = asyncio.Event()

    def say(self, text: str) -> None:
        """A sentence and a pause, as fast as it goes."""
        self.hear(Down().push(speech.join(speech.say(text), speech.silence(1.0))))

    def hear(self, pcm: NDArray[np.int16]) -> None:
        for start in range(0, len(pcm) - CHUNK + 1, CHUNK):
            self.attention.hear(pcm[start : start + CHUNK], self._at)
            self._at += FRAME

    async def known(self) -> Known:
        """What the call may begin with, however busy the machine is."""
        async with asyncio.timeout(PATIENCE):
            return await self.attention._known

    async def until(self, condition: Callable[[list[Told]], bool]) -> list[Told]:
        async with asyncio.timeout(PATIENCE):
            while not condition(self.told):
                self._news.clear()
                await self._news.wait()
        return self.told

    @property
    def reminders(self) -> list[tuple[str, ...]]:
        return [told.facts for told in self.told if isinstance(told, Remind)]

    def _tell(self, told: Told) -> None:
        self.told.append(told)
        self._news.set()


async def until(condition: Callable[[], bool]) -> None:
    """For what only the mind's state tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a property of the client, without news of its own
            await asyncio.sleep(0.01)
