"""The memories of all callers: what the mind and the command line read and write.

A `Store` is used by one thread at a time and waits for its disk or its server. Any number of them may be open on the
same memory, in any number of processes and machines. Everything raises `StoreError` when the database fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from . import words
from .database import Database, Local, Statement, StoreError, Value
from .kinds import Link, Memory, Thought, new_id
from .rows import CHANGE, EMBEDDER, FIELDS, IDS, cells, ids, memory
from .schema import migrate
from .shelf import MAX_ID, Shelf, read

__all__ = ["CallSummary", "CallerSummary", "Shelf", "Store", "StoreError", "StoreStats"]

Vector = NDArray[np.float32]
Embed = Callable[[list[str]], NDArray[np.float32]]

REMOTE_SECONDS = 10.0  # that a primary may take: it gives a writer five before it lets the next one in
BATCH = 200  # memories that are embedded, expired or imported at a time: others get their turn in between

NEXT_CHANGE: Statement = ("UPDATE meta SET value = value + 1 WHERE key = 'change'", ())
KNOW_CALLER = f"""INSERT INTO caller(key, revision, pruned) VALUES (?, {CHANGE}, {CHANGE})
    ON CONFLICT(key) DO UPDATE SET revision = excluded.revision"""
TOUCH_CALLERS = f"UPDATE caller SET revision = {CHANGE} WHERE key IN (SELECT caller FROM memory WHERE id IN {IDS})"
OUR_VECTOR = f"CASE WHEN {EMBEDDER} = ? THEN ? END"  # another bridge may have begun to use another embedder
ADD_MEMORY = f"""INSERT INTO memory({FIELDS}, embedding, change)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {OUR_VECTOR}, {CHANGE}) ON CONFLICT(id) DO NOTHING"""
ADD_LINK = """INSERT INTO graph_links SELECT parent.id, child.id, ? FROM memory parent JOIN memory child USING (caller)
    WHERE parent.id = ? AND child.id = ? ON CONFLICT DO NOTHING"""


class CallerSummary(msgspec.Struct, frozen=True):
    """What is known of a caller, at a glance. Times are in seconds since 1970."""

    key: str
    name: str
    """As the newest memory of it says; empty when none does."""
    memories: int
    first: float
    last: float
    calls: int


class CallSummary(msgspec.Struct, frozen=True):
    """A call in which something came to mind."""

    call: str
    caller: str
    began: float
    """When something first did, in seconds since 1970."""
    moments: int


class StoreStats(msgspec.Struct, frozen=True):
    """What the memory holds, at a glance."""

    callers: int
    memories: int
    superseded: int
    links: int
    thoughts: int
    vectorless: int
    embedder: str
    dim: int


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of an export: a memory or a link."""

    memory: Memory | None = None
    link: Link | None = None


class Store:
    """The memories of all callers. Ids say whose a memory is: ask `get` and `linked` only for those of your caller."""

    def __init__(self, database: Database, where: str) -> None:
        self._database = database
        migrate(database, where)
        self._embedder = self.embedder

    @classmethod
    def open(
        cls,
        where: str,
        *,
        auth_token: str = "",
        encryption_key: str = "",
        create: bool = True,
        seconds: float = REMOTE_SECONDS,
    ) -> Store:
        """The memory in a file, or at a primary's address, which may take so many seconds to answer.

        What is not there yet is made, if `create`.
        """
        database: Database
        if "://" in where:
            from .hrana import Remote

            database = Remote(where, auth_token=auth_token, seconds=seconds)
        else:
            database = Local(Path(where), encryption_key=encryption_key, create=create)
        try:
            return cls(database, where)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        self._database.close()

    @property
    def embedder(self) -> tuple[str, int] | None:
        """The name of the embedder whose vectors the memory holds, and their length; None when it holds none yet."""
        rows = self._database.query("SELECT value FROM meta WHERE key = 'embedder'")
        return msgspec.json.decode(rows[0][0], type=tuple[str, int]) if rows else None

    def set_embedder(self, name: str, dim: int) -> None:
        """Vectors of this one from now on. Those of another are dropped: `reembed` makes them anew."""
        label = _label((name, dim))
        other = f"{EMBEDDER} IS NOT ?"
        self._database.write(
            [
                NEXT_CHANGE,
                (f"UPDATE caller SET revision = {CHANGE}, pruned = {CHANGE} WHERE {other}", (label,)),
                (f"UPDATE memory SET embedding = NULL WHERE embedding IS NOT NULL AND {other}", (label,)),
                ("INSERT OR REPLACE INTO meta(key, value) VALUES ('embedder', ?)", (label,)),
            ]
        )
        self._embedder = (name, dim)

    def vectorless(self) -> int:
        """How many memories have no vector: they came without one, or `reembed` has not been at them."""
        return self._number("SELECT count(*) FROM memory WHERE embedding IS NULL")

    def reembed(self, name: str, dim: int, embed: Embed, progress: Callable[[int, int], None]) -> None:
        """Give every memory a vector of this embedder; costs next to nothing when all have one.

        Others may use the memory meanwhile, its vectors grow in number. What was done before a kill stays done: call
        this whenever the memory is opened. `progress` is told how many are done and of how many.
        """
        if self.embedder != (name, dim):
            self.set_embedder(name, dim)
        self._embedder = (name, dim)
        total, done, last = self.vectorless(), 0, -1
        some = "SELECT id, text FROM memory WHERE embedding IS NULL AND id > ? ORDER BY id LIMIT ?"
        while rows := self._database.query(some, (last, BATCH)):
            steps: list[Statement] = [NEXT_CHANGE]
            for (id, _), vector in zip(rows, embed([text for _, text in rows]), strict=True):
                change = f"UPDATE memory SET embedding = {OUR_VECTOR}, change = {CHANGE} WHERE id = ?"
                steps.append((change, (*self._vector(vector), id)))
            steps.append((TOUCH_CALLERS, (ids(id for id, _ in rows),)))
            self._database.write(steps)
            done, last = done + len(rows), rows[-1][0]
            progress(done, total)

    def add(self, memories: Sequence[tuple[Memory, Vector | None]], links: Sequence[Link] = ()) -> None:
        """Keep these, all or none; they are kept when this returns. A memory that is there already stays as it is,
        so it does no harm to add it again.

        A link joins two memories of one caller, or is left out. A vector is left out when another bridge has begun
        to use another embedder.
        """
        steps: list[Statement] = [NEXT_CHANGE]
        steps += [(KNOW_CALLER, (caller,)) for caller in sorted({memory.caller for memory, _ in memories})]
        steps += [(ADD_MEMORY, (*cells(memory), *self._vector(vector))) for memory, vector in memories]
        steps += [(ADD_LINK, (link.relation, link.parent_id, link.child_id)) for link in links]
        if links:
            children = ids(link.child_id for link in links)
            steps.append((f"UPDATE memory SET change = {CHANGE} WHERE id IN {IDS}", (children,)))
            steps.append((TOUCH_CALLERS, (children,)))
        self._database.write(steps)

    def revision(self, caller: str) -> int:
        """Another one after every change to the caller's memories, whoever made it; 0 when there are none."""
        return self._number("SELECT coalesce(max(revision), 0) FROM caller WHERE key = ?", caller)

    def vectors(self, caller: str, after: int = 0) -> Shelf:
        """The caller's active memories that have a vector of the embedder that this store was given.

        With the revision of an earlier shelf only what changed since then, unless memories were taken away.
        """
        name, dim = self._embedder or ("", 1)
        return read(self._database, caller, after, _label((name, dim)), dim)

    def get(self, wanted: Iterable[int]) -> list[Memory]:
        """These memories, as far as they are there, oldest first."""
        return self._memories(f"SELECT {FIELDS} FROM memory WHERE id IN {IDS} ORDER BY id", ids(wanted))

    def linked(self, wanted: Iterable[int]) -> list[Link]:
        """The links that begin or end at these memories."""
        these = ids(wanted)
        sql = f"""SELECT parent_id, child_id, relation FROM graph_links WHERE parent_id IN {IDS}
            UNION SELECT parent_id, child_id, relation FROM graph_links WHERE child_id IN {IDS}"""
        return [Link(*row) for row in self._database.query(sql, (these, these))]

    def search(self, caller: str, wanted: Sequence[str], limit: int) -> list[tuple[int, float]]:
        """Ids of the caller's active memories in which these words are, in any form, best first.

        The score says which part of the words' weight is in the memory, 0 to 1; rare words weigh more. Leave out
        words that say nothing. What a caller says has no meaning to the search beyond its words.
        """
        return words.search(self._database, caller, wanted, limit)

    def about(self, caller: str, about: str) -> list[Memory]:
        """The active memories that tell something about this, oldest first."""
        sql = f"""SELECT {FIELDS} FROM active WHERE caller = ? AND json_extract(entities, '$.about') = ?
            ORDER BY timestamp, id"""
        return self._memories(sql, caller, about)

    def standing(self, caller: str, limit: int) -> list[Memory]:
        """The most important active memories, newest first among equals."""
        sql = f"SELECT {FIELDS} FROM active WHERE caller = ? ORDER BY importance DESC, timestamp DESC LIMIT ?"
        return self._memories(sql, caller, limit)

    def page(self, caller: str = "", limit: int = 100, before: int = MAX_ID) -> list[Memory]:
        """Memories of a caller, or of all, with the superseded ones, newest first, from below an id."""
        mine = "caller = ?" if caller else "'' = ?"
        sql = f"SELECT {FIELDS} FROM memory WHERE {mine} AND id < ? ORDER BY id DESC LIMIT ?"
        return self._memories(sql, caller, before, limit)

    def callers(self) -> list[CallerSummary]:
        """Everyone of whom there is a memory; who spoke last comes first."""
        names: dict[str, str | None] = dict(
            self._database.query(
                """SELECT caller, json_extract(entities, '$.value') FROM active
                WHERE json_extract(entities, '$.kind') = 'name' ORDER BY timestamp, id"""
            )
        )
        rows = self._database.query(
            """SELECT caller, count(*), min(timestamp), max(timestamp), count(DISTINCT nullif(source_call, ''))
            FROM memory GROUP BY caller ORDER BY 4 DESC"""
        )
        return [CallerSummary(key, names.get(key) or "", *numbers) for key, *numbers in rows]

    def stats(self) -> StoreStats:
        return StoreStats(
            self._number("SELECT count(*) FROM caller"),
            self._number("SELECT count(*) FROM memory"),
            self._number("SELECT count(DISTINCT child_id) FROM graph_links WHERE relation = 'supersedes'"),
            self._number("SELECT count(*) FROM graph_links"),
            self._number("SELECT count(*) FROM thought"),
            self.vectorless(),
            *(self.embedder or ("", 0)),
        )

    def forget(self, caller: str) -> int:
        """Everything of a caller; returns how many memories there were. Then `scrub` takes them out of the files."""
        count = self._number("SELECT count(*) FROM memory WHERE caller = ?", caller)
        self._database.write(
            [
                NEXT_CHANGE,
                ("DELETE FROM memory WHERE caller = ?", (caller,)),
                ("DELETE FROM thought WHERE caller = ?", (caller,)),
                ("DELETE FROM caller WHERE key = ?", (caller,)),
            ]
        )
        return count

    def forget_memories(self, wanted: Iterable[int]) -> int:
        """These memories, and what was thought in the calls in which they were said; returns how many there were.

        One that was superseded by nothing but a forgotten memory is active again.
        """
        these = (ids(wanted),)
        of_these = f"FROM memory WHERE id IN {IDS}"
        count = self._number(f"SELECT count(*) {of_these}", *these)
        self._database.write(
            [
                NEXT_CHANGE,
                (
                    f"UPDATE caller SET revision = {CHANGE}, pruned = {CHANGE} WHERE key IN (SELECT caller {of_these})",
                    these,
                ),
                (f"DELETE FROM thought WHERE call IN (SELECT source_call {of_these})", these),
                (f"DELETE {of_these}", these),
                ("DELETE FROM caller WHERE NOT EXISTS (SELECT 1 FROM memory WHERE caller = key)", ()),
                ("DELETE FROM thought WHERE NOT EXISTS (SELECT 1 FROM caller WHERE key = thought.caller)", ()),
            ]
        )
        return count

    def expire(self, before: float, thoughts_before: float) -> int:
        """Forget memories, and thoughts, that are older than these; returns how many memories there were."""
        count = 0
        while rows := self._database.query("SELECT id FROM memory WHERE timestamp < ? LIMIT ?", (before, BATCH)):
            count += self.forget_memories(id for (id,) in rows)
        self._database.write([("DELETE FROM thought WHERE timestamp < ?", (thoughts_before,))])
        return count

    def scrub(self) -> None:
        """Take what was forgotten out of the files. It goes through all of them and holds up other writers.

        A remote primary lets nobody do that: it keeps what was forgotten until it writes over it.
        """
        self._database.write([("INSERT INTO memory_fts(memory_fts) VALUES ('rebuild')", ())])
        self._database.scrub()

    def log(self, thought: Thought) -> None:
        """Keep what was thought, for `thoughts`. Of memories it keeps the ids: they may be forgotten."""
        bare = tuple(replace(judged, memory=Memory(judged.memory.id, "", "", 0.0)) for judged in thought.judged)
        json = msgspec.json.encode(replace(thought, judged=bare)).decode()
        row = (new_id(thought.timestamp), thought.call, thought.caller, thought.timestamp, json)
        self._database.write([("INSERT INTO thought VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)])

    def thoughts(self, call: str) -> list[Thought]:
        """What was thought in a call, oldest first. The last characters of its id do, when no other ends so."""
        found = self._database.query(
            "SELECT DISTINCT call FROM thought WHERE substr(call, -length(?)) = ?", (call, call)
        )
        calls = [name for (name,) in found]
        if len(calls) > 1 and call not in calls:
            raise StoreError(f"{len(calls)} calls end in {call!r}: give more of the id")
        name = call if call in calls else "".join(calls)
        rows = self._database.query("SELECT json FROM thought WHERE call = ? ORDER BY timestamp, id", (name,))
        thoughts = [msgspec.json.decode(json, type=Thought) for (json,) in rows]
        known = {each.id: each for each in self.get({each.memory.id for one in thoughts for each in one.judged})}
        return [
            replace(
                thought,
                judged=tuple(
                    replace(one, memory=known[one.memory.id]) for one in thought.judged if one.memory.id in known
                ),
            )
            for thought in thoughts
        ]

    def calls(self, limit: int) -> list[CallSummary]:
        """The last calls in which something came to mind, the newest first."""
        sql = """SELECT call, caller, min(timestamp), count(*) FROM thought
            GROUP BY call, caller ORDER BY 3 DESC LIMIT ?"""
        return [CallSummary(*row) for row in self._database.query(sql, (limit,))]

    def export(self, caller: str = "") -> Iterator[dict[str, Any]]:
        """Every memory and link of a caller, or of all, as lines for `import_`. Vectors are not among them."""
        before = MAX_ID
        while memories := self.page(caller, BATCH, before):
            before = memories[-1].id
            yield from (msgspec.to_builtins(Line(memory=memory)) for memory in memories)
        mine = "parent_id IN (SELECT id FROM memory WHERE caller = ?)" if caller else "'' = ?"
        for row in self._database.query(
            f"SELECT parent_id, child_id, relation FROM graph_links WHERE {mine}", (caller,)
        ):
            yield msgspec.to_builtins(Line(link=Link(*row)))

    def import_(self, lines: Iterable[Any]) -> int:
        """Add what `export` gave, with its ids; returns how many memories it held. `reembed` gives them vectors."""
        count = 0
        memories: list[tuple[Memory, None]] = []
        links: list[Link] = []
        for number, line in enumerate(lines, 1):
            try:
                parsed = msgspec.convert(line, Line)
            except msgspec.ValidationError as error:
                raise StoreError(f"line {number} is not from an export: look at how one looks") from error
            if parsed.link:
                links.append(parsed.link)
            if parsed.memory:
                memories.append((parsed.memory, None))
                count += 1
            if len(memories) == BATCH:
                self.add(memories)
                memories.clear()
        self.add(memories)
        for start in range(0, len(links), BATCH):
            self.add((), links[start : start + BATCH])
        return count

    def _vector(self, vector: Vector | None) -> tuple[str, bytes | None]:
        """The arguments of `OUR_VECTOR`."""
        if vector is None:
            return "", None
        if self._embedder is None or vector.shape != (self._embedder[1],):
            expected = self._embedder[1] if self._embedder else "no"
            raise StoreError(
                f"a vector of {vector.size} numbers in a memory whose embedder makes {expected}: reembed it"
            )
        return _label(self._embedder), vector.astype("<f4").tobytes()

    def _memories(self, sql: str, *args: Value) -> list[Memory]:
        return [memory(row) for row in self._database.query(sql, args)]

    def _number(self, sql: str, *args: Value) -> int:
        return int(self._database.query(sql, args)[0][0])


def _label(embedder: tuple[str, int]) -> str:
    return msgspec.json.encode(embedder).decode()
