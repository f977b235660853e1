"""The tables of the memory, and how older ones become these.

`active` is what recall may see: memories that no newer one supersedes. The words index holds exactly those, under a
token for their caller: a search visits no other caller's rows.

Every change has a number, greater than all before it (`meta.change`). A memory bears the number of its last change, a
caller the number of the last change to any of theirs (`revision`) and of the last that took one away (`pruned`).
"""

from __future__ import annotations

from .database import Database, Statement, StoreError

_FIRST = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO meta(key, value) VALUES ('change', 0)",
    """CREATE TABLE caller(
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, pruned INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE memory(
        id INTEGER PRIMARY KEY, caller TEXT NOT NULL, text TEXT NOT NULL, embedding BLOB, timestamp REAL NOT NULL,
        speaker TEXT NOT NULL, entities TEXT NOT NULL, emotions TEXT NOT NULL, importance REAL NOT NULL,
        source_call TEXT NOT NULL, change INTEGER NOT NULL
    )""",
    "CREATE INDEX memory_change ON memory(caller, change)",
    "CREATE INDEX memory_standing ON memory(caller, importance, timestamp)",
    "CREATE INDEX memory_about ON memory(caller, json_extract(entities, '$.about'))",
    "CREATE INDEX memory_timestamp ON memory(timestamp)",
    "CREATE INDEX memory_without_vector ON memory(id) WHERE embedding IS NULL",
    """CREATE TABLE graph_links(
        parent_id INTEGER NOT NULL REFERENCES memory(id) ON DELETE CASCADE,
        child_id INTEGER NOT NULL REFERENCES memory(id) ON DELETE CASCADE,
        relation TEXT NOT NULL, PRIMARY KEY (parent_id, child_id, relation)
    ) WITHOUT ROWID""",
    "CREATE INDEX graph_links_child ON graph_links(child_id, relation)",
    """CREATE TABLE thought(
        id INTEGER PRIMARY KEY, call TEXT NOT NULL, caller TEXT NOT NULL, timestamp REAL NOT NULL, json TEXT NOT NULL
    )""",
    "CREATE INDEX thought_call ON thought(call)",
    "CREATE INDEX thought_caller ON thought(caller)",
    "CREATE INDEX thought_timestamp ON thought(timestamp)",
    """CREATE VIEW active AS SELECT * FROM memory WHERE NOT EXISTS (
        SELECT 1 FROM graph_links WHERE child_id = memory.id AND relation = 'supersedes'
    )""",
    """CREATE VIEW active_words AS SELECT active.id, 'c' || caller.id AS caller, active.text
        FROM active JOIN caller ON caller.key = active.caller""",
    """CREATE VIRTUAL TABLE memory_fts USING fts5(
        caller, text, content = 'active_words', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
    )""",
    """CREATE TRIGGER memory_added AFTER INSERT ON memory BEGIN
        INSERT INTO memory_fts(rowid, caller, text) SELECT id, caller, text FROM active_words WHERE id = new.id;
    END""",
    """CREATE TRIGGER memory_removed BEFORE DELETE ON memory BEGIN
        INSERT INTO memory_fts(memory_fts, rowid, caller, text)
            SELECT 'delete', id, caller, text FROM active_words WHERE id = old.id;
    END""",
    """CREATE TRIGGER memory_superseded BEFORE INSERT ON graph_links WHEN new.relation = 'supersedes' BEGIN
        INSERT INTO memory_fts(memory_fts, rowid, caller, text)
            SELECT 'delete', id, caller, text FROM active_words WHERE id = new.child_id;
    END""",
    """CREATE TRIGGER memory_valid_again AFTER DELETE ON graph_links WHEN old.relation = 'supersedes' BEGIN
        INSERT INTO memory_fts(rowid, caller, text) SELECT id, caller, text FROM active_words WHERE id = old.child_id;
    END""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Each takes a database from the version that is its index to the next. One that was released is never changed."""


def migrate(database: Database, where: str) -> None:
    """Bring the tables of a database up to what this bridge knows; other processes may do the same just now."""
    while (version := _version(database, where)) < len(MIGRATIONS):
        steps: list[Statement] = [(sql, ()) for sql in MIGRATIONS[version]]
        steps.append(("INSERT OR REPLACE INTO meta(key, value) VALUES ('schema', ?)", (version + 1,)))
        try:
            database.write(steps)
        except StoreError:
            if _version(database, where) == version:  # nobody else was faster
                raise
    if version > len(MIGRATIONS):
        message = f"a newer bridge wrote it (schema {version}, this one knows {len(MIGRATIONS)}): update voice-bridge"
        raise StoreError(f"memory at {where}: {message}")


def _version(database: Database, where: str) -> int:
    """The version of the tables; 0 when there are none."""
    tables = {name for (name,) in database.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" in tables and (rows := database.query("SELECT value FROM meta WHERE key = 'schema'")):
        return int(rows[0][0])
    if any(not name.startswith(("sqlite_", "libsql_")) for name in tables):
        raise StoreError(f"memory at {where}: it holds something else: give the memory a database of its own")
    return 0
