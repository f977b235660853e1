"""Keys that are at hand: set once, or held by a file that may change while the bridge runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from ..observe import logs
from .keys import Algorithm, BadKeys, Key

LOOK = 1.0  # seconds between looks at a file: a new secret counts almost at once, a flood of tokens costs no disk
LONGEST = 64 * 1024  # bytes of a file; a key takes one or two thousand

log = logs.get()


class Held:
    """Keys that stay as they are."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = keys

    async def find(self, algorithm: Algorithm, id: str | None) -> Sequence[Key]:
        return [key for key in self.keys if key.algorithm == algorithm]


class KeyFile:
    """Keys in a file, which is read again when it changed. What cannot be used then leaves those of before in force."""

    def __init__(
        self, setting: str, path: Path, read: Callable[[str], Sequence[Key]], clock: Callable[[], float]
    ) -> None:
        """`read` raises ValueError for a text that is of no use; raises `BadKeys` if the file is so already."""
        self._setting = setting
        self._path = path
        self._parse = read
        self._clock = clock
        self._reading = asyncio.Lock()
        self._stamp = self._look()
        self._looked = clock()
        try:
            self.keys = self._read()
        except ValueError as error:
            raise BadKeys(f"{setting} = {str(path)!r}: {error}") from None

    async def find(self, algorithm: Algorithm, id: str | None) -> Sequence[Key]:
        if self._due():
            async with self._reading:
                if self._due():
                    await self._renew()
        return [key for key in self.keys if key.algorithm == algorithm]

    def _due(self) -> bool:
        return self._clock() - self._looked >= LOOK

    async def _renew(self) -> None:
        stamp = self._look()
        if stamp != self._stamp:
            try:
                self.keys = await asyncio.to_thread(self._read)
                log.info("keys read again", setting=self._setting, keys=len(self.keys))
            except ValueError as error:
                log.warning("keys not read again: those of before stay", setting=self._setting, why=str(error))
            self._stamp = stamp
        self._looked = self._clock()

    def _look(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None while it is not there."""
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def _read(self) -> Sequence[Key]:
        try:
            with self._path.open("rb") as file:
                content = file.read(LONGEST + 1)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}; correct the path or its rights") from None
        if len(content) > LONGEST:
            raise ValueError(f"is longer than {LONGEST // 1024} KiB: write the keys alone into it")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ValueError("is not text: write the key alone into it") from None
        return self._parse(text)
