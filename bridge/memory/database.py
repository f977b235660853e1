"""A database that holds memories: what every kind can do, and the local kind, a libSQL file."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Value: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[str, Sequence[Value]]

LOCK_SECONDS = 20.0  # that a writer waits for its turn: fifty on a slow disk take three
LOCK_PAUSE = 0.005  # seconds at most between two tries: about what one write takes
EXACT = 1 << 31  # libSQL binds integers from here on as floating point numbers, and loses the end of an id
MODE = 0o600  # what callers said is for nobody else on the machine

REMEDIES = (
    ("is full", "there is no room on its disk: make some, nothing that was written before is lost"),
    ("disk i/o error", "its disk does not take or give the data: look for a full or failing disk or a quota"),
    ("locked", f"other processes held it for more than {LOCK_SECONDS:.0f} seconds: look for one that hangs"),
    ("not a database", "it is not a libSQL file, or it is encrypted with another key: check the path and the key"),
    ("readonly", "it may not be written: give this user the right to write the file and its folder"),
    ("malformed", "the file is damaged: restore it from a copy, or move it away to begin anew"),
    ("unable to open", "it cannot be opened: check that the path names a file and that this user may write it"),
)
"""What libSQL says when a file fails it, and what whoever runs the bridge can do about it."""


class StoreError(Exception):
    """The memory cannot be read or written. One line: what failed and the remedy; never what a caller said."""


class Database(Protocol):
    """Where memories are kept. Used by one thread at a time. Everything raises `StoreError` when it fails."""

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """The rows that one statement gives, which changes nothing."""
        ...

    def write(self, statements: Sequence[Statement]) -> None:
        """Do all of them or none; what they changed is durable when this returns.

        After an error nobody knows whether a remote primary did it, and it may be done twice when an answer is lost:
        write only what does no harm when it is repeated.
        """
        ...

    def scrub(self) -> None:
        """Take what was deleted out of the files, where the kind can do that."""
        ...

    def close(self) -> None: ...


class Local:
    """A libSQL file. Any number of processes may use it at the same time.

    A write is on the disk when it returns: it survives a kill and a power cut.
    """

    def __init__(self, path: Path, *, encryption_key: str = "", create: bool = True) -> None:
        """An encryption key encrypts the whole file; it opens with the same key only, and cannot be changed."""
        self._path = path
        self._connection: Any = None
        _prepare(path, create)
        try:
            import libsql
        except ImportError as error:
            message = "memory in a local file needs the package libsql: pip install 'voice-bridge[memory]'"
            raise StoreError(message) from error

        # libSQL holds the interpreter's lock while it waits for the file's: it must not wait, `_patiently` does.
        options: dict[str, Any] = {"timeout": 0.0, "isolation_level": None}
        if encryption_key:
            options["encryption_key"] = encryption_key
        try:
            self._connection = libsql.connect(str(path), **options)
            for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                self._patiently(f"PRAGMA {setting}")
        except ValueError as error:
            raise self._failure(error) from error

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        try:
            return self._patiently(sql, args)
        except ValueError as error:
            raise self._failure(error) from error

    def write(self, statements: Sequence[Statement]) -> None:
        try:
            self._patiently("BEGIN IMMEDIATE")
            try:
                for sql, args in statements:
                    self._connection.execute(sql, _bound(args))
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # some errors have rolled it back already
                    self._connection.execute("ROLLBACK")
                raise
        except ValueError as error:
            raise self._failure(error) from error

    def scrub(self) -> None:
        """Write the file anew without what was deleted, and empty the log beside it."""
        self.query("VACUUM")
        until = time.monotonic() + LOCK_SECONDS
        while self.query("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:  # somebody reads what is still in the log
            if time.monotonic() > until:
                raise self._failure(ValueError("database is locked"))
            time.sleep(LOCK_PAUSE)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _patiently(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run a statement that may find the file locked, until it is not."""
        if self._connection is None:
            raise StoreError(f"memory at {self._path}: it is closed")
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                rows: list[Row] | None = self._connection.execute(sql, _bound(args)).fetchall()
            except ValueError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(random.uniform(0, LOCK_PAUSE))
            else:
                return rows or []

    def _failure(self, error: ValueError) -> StoreError:
        said = str(error)
        for sign, remedy in REMEDIES:
            if sign in said.lower():
                return StoreError(f"memory at {self._path}: {remedy}")
        return StoreError(f"memory at {self._path}: libSQL failed: {said}")


def _bound(args: Sequence[Value]) -> tuple[Value, ...]:
    """The arguments as libSQL gets them right: a large integer as text, which a column of integers makes one again."""
    return tuple(str(arg) if isinstance(arg, int) and abs(arg) >= EXACT else arg for arg in args)


def _prepare(path: Path, create: bool) -> None:
    """Make the file that libSQL opens, readable for its owner alone; the files beside it inherit that."""
    try:
        if not create:
            if not path.exists():
                raise StoreError(f"memory at {path}: there is none yet")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # its name must survive a power cut too
        finally:
            os.close(folder)
    except FileExistsError as error:
        if not path.is_file():
            raise StoreError(f"memory at {path}: that is not a file, or its folder is none") from error
    except OSError as error:
        raise StoreError(f"memory at {path}: it cannot be made: {error.strerror}") from error
