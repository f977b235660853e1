"""Memories as JSON lines, in a file or on the terminal."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from ..memory.store import Line
from . import operator


def write(exported: Iterable[dict[str, Any]], file: Path | None) -> int:
    """Write an export to the terminal, or to a file for its owner alone; returns how many memories it holds.

    The file is there when it is whole, and what was there before stays until then.
    """
    if file is None:
        return _write(exported, sys.stdout)
    try:
        descriptor, own = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.absolute().parent)
        try:
            with open(descriptor, "w") as out:
                count = _write(exported, out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(own, file)
        except BaseException:
            os.unlink(own)
            raise
    except OSError as error:
        operator.fail(f"{file} cannot be written: {error.strerror}")
    return count


def check(file: Path) -> None:
    """Read all of an export; ends the program, naming the line, if it is none."""
    try:
        with file.open("rb") as opened:
            wrong = next((number for number, line in enumerate(opened, 1) if not _is_one(line)), 0)
    except OSError as error:
        operator.fail(f"{file} cannot be read: {error.strerror}")
    if wrong:
        operator.fail(f"{file}, line {wrong}: neither a memory nor a link of an export; nothing was imported")


def lines(opened: Iterable[bytes]) -> Iterator[Any]:
    """What the lines of an export hold."""
    return (json.loads(line) for line in opened if line.strip())


def _write(exported: Iterable[dict[str, Any]], out: TextIO) -> int:
    count = 0
    for line in exported:
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
        count += "memory" in line
    return count


def _is_one(line: bytes) -> bool:
    try:
        return not line.strip() or msgspec.json.decode(line, type=Line) != Line()
    except ValueError:
        return False
