"""Databases of memories: a libSQL file and a real libSQL server, and what each says when it fails."""

from __future__ import annotations

import re
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TypeAlias

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.sqld import Sqld
from voice_bridge.bridge.memory import schema
from voice_bridge.bridge.memory.database import Database, Local, StoreError
from voice_bridge.bridge.memory.hrana import Remote

pytest.importorskip("libsql")

Connect: TypeAlias = Callable[[], Database]

TABLE = ("CREATE TABLE t(id INTEGER PRIMARY KEY, value)", ())
WRITERS = 50  # calls that write at once
PAUSE = 0.2  # seconds that a thread may wait for the interpreter: a busy machine makes it wait too
SECRET = "the gate code is 4417"


@pytest.fixture(params=["local", "remote"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Another connection to the same database with every call."""
    opened: list[Database] = []

    def local() -> Database:
        opened.append(Local(tmp_path / "memory.db"))
        return opened[-1]

    def remote() -> Database:
        opened.append(Remote(server.url, seconds=30))
        return opened[-1]

    if request.param == "local":
        yield local
    else:
        with Sqld(tmp_path / "sqld", request.getfixturevalue("unused_port")) as server:
            yield remote
    for database in opened:
        database.close()


def test_values_come_back_as_they_were(connect: Connect) -> None:
    database = connect()
    ids = [0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]
    values = [None, 1, 0.1, "Zoë's 'quoted\" words", *(b"\xff\x00\x01\x02\x03"[:n] for n in range(6))]
    database.write([TABLE, *(("INSERT INTO t(id) VALUES (?)", (id,)) for id in ids)])
    assert {id for (id,) in database.query("SELECT id FROM t")} == set(ids)
    assert [database.query("SELECT count(*) FROM t WHERE id = ?", (id,)) for id in ids] == [[(1,)]] * len(ids)
    for value in values:
        assert database.query("SELECT ?", (value,)) == [(value,)]


def test_a_write_that_fails_changes_nothing_and_holds_nobody_up(connect: Connect) -> None:
    one, other = connect(), connect()
    one.write([TABLE])
    with pytest.raises(StoreError, match="no such table"):
        one.write([("INSERT INTO t(id) VALUES (1)", ()), ("INSERT INTO absent VALUES (1)", ())])
    other.write([("INSERT INTO t(id) VALUES (2)", ())])
    one.write([("INSERT INTO t(id) VALUES (3)", ())])
    assert one.query("SELECT id FROM t ORDER BY id") == [(2,), (3,)]


def test_fifty_write_at_once_and_none_finds_it_locked(connect: Connect) -> None:
    connect().write([TABLE, ("INSERT INTO t VALUES (1, 0)", ())])
    databases = [connect() for _ in range(WRITERS)]
    failed: list[Exception] = []

    def write(database: Database) -> None:
        try:
            for _ in range(3):
                database.write([("UPDATE t SET value = value + 1", ())])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert databases[0].query("SELECT value FROM t") == [(3 * WRITERS,)]


# The file.


def test_only_its_owner_may_read_the_file_and_those_beside_it(tmp_path: Path) -> None:
    with closing(Local(tmp_path / "made" / "memory.db")) as database:
        database.write([TABLE])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "made").iterdir()}
    assert modes == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}


def test_an_encrypted_file_opens_with_its_key_only(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with closing(Local(path, encryption_key="right")) as database:
        database.write([TABLE, ("INSERT INTO t VALUES (1, ?)", (SECRET,))])
        database.write([("UPDATE t SET id = 2", ())])
        assert SECRET.encode() not in path.read_bytes() + path.with_name("memory.db-wal").read_bytes()
    for key in ("wrong", ""):
        with pytest.raises(StoreError, match="encrypted with another key: check the path and the key"):
            Local(path, encryption_key=key)
    with closing(Local(path, encryption_key="right")) as database:
        assert database.query("SELECT value FROM t") == [(SECRET,)]


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("not a database, " * 1000)
    for path, create, why in (
        (tmp_path / "note.txt", True, "not a libSQL file"),
        (tmp_path / "none.db", False, "there is none yet"),
        (tmp_path, True, "not a file"),
        (tmp_path / "note.txt" / "memory.db", True, "not a file, or its folder is none"),
    ):
        with pytest.raises(StoreError, match=why) as error:
            Local(path, create=create)
        assert str(path) in str(error.value)
    assert not (tmp_path / "none.db").exists()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = Local(tmp_path / "memory.db")
    database.close()
    database.close()
    with pytest.raises(StoreError, match="closed"):
        database.query("SELECT 1")


def test_a_writer_waits_for_its_turn_and_other_threads_run_meanwhile(tmp_path: Path) -> None:
    with closing(Local(tmp_path / "memory.db")) as holder, closing(Local(tmp_path / "memory.db")) as waiting:
        holder.write([TABLE])
        holder.query("BEGIN IMMEDIATE")
        writer = threading.Thread(target=waiting.write, args=([("INSERT INTO t(id) VALUES (1)", ())],))
        assert _longest_pause(writer, 0.3) < PAUSE
        assert writer.is_alive()
        holder.query("COMMIT")
        writer.join(10)
        assert holder.query("SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize("how", ["full", "refused"])
def test_a_full_disk_loses_nothing_and_it_works_again_when_there_is_room(tmp_path: Path, how: str) -> None:
    path = tmp_path / "memory.db"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Local(path)) as database:
        database.write([TABLE])
        try:
            if how == "full":  # what libSQL says then
                database.query("PRAGMA max_page_count = 40")
            else:  # what the system says: no file grows beyond this
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
            refused, kept = _fill(database)
            assert re.search(r"there is no room on its disk|full or failing disk", refused)
            assert database.query("SELECT count(*) FROM t") == [(kept,)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            database.query("PRAGMA max_page_count = 1000000")
        database.write([("INSERT INTO t(value) VALUES (zeroblob(10000))", ())])
        assert database.query("SELECT count(*) FROM t") == [(kept + 1,)]
        assert database.query("PRAGMA integrity_check") == [("ok",)]
    assert kept > 5


# The server.


def test_a_server_that_was_started_again_is_used_on(tmp_path: Path, unused_port: int) -> None:
    with Sqld(tmp_path / "sqld", unused_port) as server, closing(Remote(server.url, seconds=30)) as database:
        database.write([TABLE, ("INSERT INTO t(id) VALUES (1)", ())])
        server.kill()
        with pytest.raises(StoreError, match="cannot be reached"):
            database.query("SELECT id FROM t")
        server.start()
        assert database.query("SELECT id FROM t") == [(1,)]
        server.kill()
        server.start()  # the connection that it had is gone, and nobody noticed
        database.write([("INSERT INTO t(id) VALUES (2)", ())])
        assert database.query("SELECT id FROM t") == [(1,), (2,)]


def test_a_server_wants_its_token(tmp_path: Path, unused_port: int) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    token = jwt.encode({"a": "rw"}, key, algorithm="EdDSA")
    with Sqld(tmp_path / "sqld", unused_port, "--auth-jwt-key-file", str(tmp_path / "key.pem")) as server:
        with closing(Remote(server.url, auth_token=token, seconds=30)) as database:
            database.write([TABLE])
        for wrong in ("", "abc", token[:-5] + "aaaaa"):
            with closing(Remote(server.url, auth_token=wrong, seconds=30)) as database:
                with pytest.raises(StoreError, match="refuses the token") as error:
                    database.query("SELECT 1")
                assert token[:20] not in str(error.value)


def test_a_server_that_does_not_answer_costs_its_time_limit_and_stops_no_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, closing(_remote(server.getsockname()[1], 0.5)) as database:
        _fails_in_time(database)


def test_a_server_whose_answer_never_ends_costs_its_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, closing(_remote(server.getsockname()[1], 0.5)) as database:

        def drip() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while True:
                    peer.sendall(b" ")
                    time.sleep(0.01)

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        _fails_in_time(database)
        dripping.join(10)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, b"", "refuses the token"),
        (404, b"", "HTTP 404: check that the address is a libSQL server's"),
        (503, b"busy", "HTTP 503"),
        (200, b"<html>", "does not speak Hrana"),
        (200, b"[]", "does not speak Hrana"),
        (200, b'{"results":[]}', "does not speak Hrana"),
        (200, b'{"results":[{"type":"error","error":{"message":"on fire"}}]}', "on fire"),
    ],
)
def test_a_server_that_answers_something_else_is_told(status: int, body: bytes, why: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server, closing(_remote(server.server_port, 10)) as database:
        threading.Thread(target=server.handle_request).start()
        with pytest.raises(StoreError, match=why):
            database.query("SELECT ?", (SECRET,))


def test_nobody_at_the_address_is_told(unused_port: int) -> None:
    with closing(_remote(unused_port, 10)) as database, pytest.raises(StoreError, match="cannot be reached"):
        database.write([TABLE])


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "libsql://", "https://user:secret@host", "https://host?authToken=secret", "http://host:port"],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError, match="must look like libsql://host") as error:
        Remote(url, seconds=1)
    assert "secret" not in str(error.value)


# The tables.


def test_tables_are_made_once_whoever_comes_first(connect: Connect) -> None:
    databases = [connect() for _ in range(5)]
    failed: list[Exception] = []

    def migrate(database: Database) -> None:
        try:
            schema.migrate(database, "here")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert databases[0].query("SELECT value FROM meta WHERE key = 'schema'") == [(len(schema.MIGRATIONS),)]


def test_every_older_version_becomes_this_one(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    database = connect()
    last = ("ALTER TABLE memory ADD COLUMN mood TEXT", "UPDATE memory SET mood = 'glad'")
    steps = (*schema.MIGRATIONS, last)
    for version in range(1, len(steps) + 1):
        monkeypatch.setattr(schema, "MIGRATIONS", steps[:version])
        schema.migrate(database, "here")
        if version == 1:
            database.write(
                [("INSERT INTO memory VALUES (1, 'k', 'hello', NULL, 1.0, 'caller', '{}', '[]', 0.5, '', 1)", ())]
            )
    assert database.query("SELECT text, mood FROM memory") == [("hello", "glad")]


def test_a_step_that_fails_leaves_the_older_tables(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    database = connect()
    schema.migrate(database, "here")
    before = database.query("SELECT name, sql FROM sqlite_master ORDER BY name")
    broken = ("CREATE TABLE new(id INTEGER)", "INSERT INTO absent VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    with pytest.raises(StoreError, match="no such table"):
        schema.migrate(database, "here")
    assert database.query("SELECT name, sql FROM sqlite_master ORDER BY name") == before


def test_what_a_newer_bridge_or_somebody_else_wrote_is_left_alone(connect: Connect) -> None:
    database = connect()
    database.write([TABLE])
    with pytest.raises(StoreError, match="here: it holds something else"):
        schema.migrate(database, "here")
    database.write([("DROP TABLE t", ())])
    schema.migrate(database, "here")
    database.write([("UPDATE meta SET value = 99 WHERE key = 'schema'", ())])
    with pytest.raises(StoreError, match=r"schema 99, this one knows \d+\): update voice-bridge"):
        schema.migrate(database, "here")


def _fill(database: Database) -> tuple[str, int]:
    """What it says when nothing more goes in, and how many rows did."""
    for kept in range(1000):
        try:
            database.write([("INSERT INTO t(value) VALUES (zeroblob(10000))", ())])
        except StoreError as error:
            return str(error), kept
    raise AssertionError("it was never full")


def _remote(port: int, seconds: float) -> Remote:
    return Remote(f"http://127.0.0.1:{port}", seconds=seconds)


def _fails_in_time(database: Database) -> None:
    """It fails after its half second, and other threads go on meanwhile."""
    errors: list[StoreError] = []

    def query() -> None:
        with pytest.raises(StoreError, match=r"did not answer within 0.5 seconds") as error:
            database.query("SELECT 1")
        errors.append(error.value)

    began = time.monotonic()
    asking = threading.Thread(target=query, daemon=True)
    assert _longest_pause(asking, 0.3) < PAUSE
    asking.join(10)
    assert errors
    assert 0.4 < time.monotonic() - began < 2


def _longest_pause(thread: threading.Thread, seconds: float) -> float:
    """Start a thread; how long this one then had to wait at most for the interpreter, in some seconds of work."""
    began = last = time.monotonic()
    longest = 0.0
    thread.start()
    while last - began < seconds:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest
