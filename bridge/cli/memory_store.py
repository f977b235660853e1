"""What the sub-verbs of `voice-bridge memory` share: the store, who is meant by a caller, and the embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..config.memory import Memory
from ..memory.callers import SUFFIX, Callers, NoKey, load_key, normal
from ..memory.embed import Embedder, NoEmbedding, embedder
from ..memory.store import REMOTE_SECONDS, CallerSummary, Store, StoreError
from . import operator

SHORT = 10  # characters of a hashed caller's key: "n-" and as many as tell some thousand callers apart
IN_THE_CLEAR = b"SQLite format 3\0"  # how a file begins that is not encrypted


def counted(count: int, what: str) -> str:
    """3 memories, 1 caller."""
    return f"{count:,} {what if count == 1 else {'memory': 'memories'}.get(what, what + 's')}"


def remote(given: Memory) -> bool:
    return "://" in given.store


def connect(given: Memory, *, create: bool = False, seconds: float = REMOTE_SECONDS) -> Store:
    """The store of the configuration; `seconds` is what a server may take. Raises StoreError."""
    token, key = given.token.get_secret_value(), given.encryption.get_secret_value()
    return Store.open(given.store, auth_token=token, encryption_key=key, create=create, seconds=seconds)


@contextmanager
def opened(given: Memory, *, create: bool = False) -> Iterator[Store]:
    """The store of the configuration. What fails, here or in the block, ends the program with one line."""
    if not (create or remote(given) or Path(given.store).exists()):
        operator.fail(
            f"nothing is remembered yet: there is no {Path(given.store).absolute()}; the first call makes it, or"
            " memory.store in the configuration names another file"
        )
    try:
        with closing(connect(given, create=create)) as store:
            yield store
    except (StoreError, NoEmbedding, NoKey) as error:
        operator.fail(str(error))


def key_file(given: Memory) -> Path | None:
    """Where the key of callers' numbers lies that the bridge makes; None when it is configured."""
    return None if given.key.get_secret_value() else Path(given.store + SUFFIX)


def caller(given: Memory, store: Store, who: str, *, new: bool = False) -> CallerSummary:
    """Who is meant: by a number, a key, the beginning of one, or a name. Ends the program when nobody is, or several.

    With `new` it may be somebody of whom nothing is remembered, by a number or by the whole key of a client.
    """
    known = {one.key: one for one in store.callers()}
    key = _key(given, who, may_be_made=new and not known) if normal(who) else who
    if key in known:
        return known[key]
    if new and key and (key != who or who.startswith("s-")):
        return CallerSummary(key, "", 0, 0.0, 0.0, 0)
    if key != who:
        operator.fail(f"nobody who called from {who} is remembered; `voice-bridge memory list` shows who is")
    meant = [one for one in known.values() if who and (one.key.startswith(who) or _is_called(one, who))]
    if len(meant) > 1:
        operator.fail(f"{who!r} may be {', '.join(one.key for one in meant)}: give one of these keys")
    if not meant:
        operator.fail(
            f"no caller is known as {who!r}: give a number with its country code, a key or its beginning, or a name;"
            " `voice-bridge memory list` shows them"
        )
    return meant[0]


def _key(given: Memory, number: str, may_be_made: bool) -> str:
    """The key of whoever calls from a number; empty for one that carriers send for a withheld one. Raises NoKey."""
    file = key_file(given)
    if file and not file.exists() and not may_be_made:
        operator.fail(
            f"nobody can be told by number, because {file} is not there: restore it, or give the caller's key"
        )
    return Callers(load_key(given.key.get_secret_value(), given.store)).of_number(number)


def _is_called(one: CallerSummary, name: str) -> bool:
    """By the whole name or a part of it, as first names."""
    return name.casefold() in (one.name.casefold(), *one.name.casefold().split())


def short(key: str) -> str:
    """A caller's key for people: its beginning does, wherever a caller is asked for."""
    return key[:SHORT] if key.startswith("n-") else key


def matched(given: Memory, store: Store, silent: bool) -> Embedder:
    """The embedder of the configuration; memories that have no vector of it get one, with a progress bar."""
    maker = embedder(given.embedder, given.embedder_key.get_secret_value())
    with _shown(f"embedding anew with {maker.name}", silent) as report:
        store.reembed(maker.name, maker.dim, maker.embed, report)
    return maker


def size(given: Memory) -> int | None:
    """Bytes on this machine's disk; None when it is another's."""
    if remote(given):
        return None
    return sum(file.stat().st_size for end in ("", "-wal") if (file := Path(given.store + end)).exists())


def encryption(given: Memory) -> str:
    """Whether the file can be read by whoever gets at it, by what is in it; plainly."""
    if remote(given):
        wire = "in the clear on the way" if given.store.startswith("http:") else "encrypted on the way"
        return f"{wire}; on its disk as that server does it"
    try:
        with open(given.store, "rb") as file:
            begin = file.read(len(IN_THE_CLEAR))
    except OSError:
        begin = b""
    clear = begin == IN_THE_CLEAR if begin else not given.encryption.get_secret_value()
    return "in the clear: memory.encryption is not set" if clear else "encrypted"


@contextmanager
def _shown(what: str, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress on the terminal, if there is any."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    tasks: list[TaskID] = []

    def report(done: int, total: int) -> None:
        if silent:
            return
        if not tasks:
            progress.start()
            tasks.append(progress.add_task(what, total=total))
        progress.update(tasks[0], completed=done)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()
