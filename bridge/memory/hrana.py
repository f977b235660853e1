"""A libSQL server somewhere else, over Hrana: SQL in JSON over HTTP.

The libsql package could do this too, but it holds the interpreter's lock while it waits for the network, and waits
for ever. Here every request has a time limit, and other threads run meanwhile.
"""

from __future__ import annotations

import binascii
import http.client
import random
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from .database import LOCK_PAUSE, LOCK_SECONDS, Row, Statement, StoreError, Value

SECURE = {"libsql": True, "https": True, "wss": True, "http": False, "ws": False}
"""Whether an address that begins so means TLS."""

ADDRESS = "the memory's address must look like libsql://host or http://host:8080, with no token in it"
CHUNK = 1 << 16  # bytes read between two looks at the clock


class Remote:
    """A libSQL primary. Other bridges may use it at the same time.

    What is written is as durable as the server makes it: sqld survives a kill, but not every power cut; and what is
    deleted stays in the server's own files and logs until they are written over.
    """

    def __init__(self, url: str, *, auth_token: str = "", seconds: float) -> None:
        """No request takes longer than `seconds`, unless the machine's own name lookup does."""
        address = urlsplit(url)
        try:
            secure, port = SECURE[address.scheme] and address.query != "tls=0", address.port
        except (LookupError, ValueError):
            raise StoreError(ADDRESS) from None
        if not address.hostname or address.username or address.query not in {"", "tls=0"}:
            raise StoreError(ADDRESS)
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._where = address.netloc
        self._path = address.path.rstrip("/") + "/v2/pipeline"
        self._headers = {"Content-Type": "application/json"}
        if auth_token:
            self._headers["Authorization"] = f"Bearer {auth_token}"
        self._seconds = seconds
        self._connection = kind(address.hostname, port, timeout=seconds)

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        rows = self._ask({"type": "execute", "stmt": _statement(sql, args)})["rows"]
        return [tuple(_value(cell) for cell in row) for row in rows]

    def write(self, statements: Sequence[Statement]) -> None:
        """One request holds the whole transaction: a connection that breaks leaves nothing open at the server."""
        steps: list[dict[str, Any]] = [{"stmt": _statement("BEGIN IMMEDIATE", ())}]
        for sql, args in (*statements, ("COMMIT", ())):
            steps.append({"condition": _ok(len(steps) - 1), "stmt": _statement(sql, args)})
        begun_in_vain = {"type": "and", "conds": [_ok(0), {"type": "not", "cond": _ok(len(steps) - 1)}]}
        steps.append({"condition": begun_in_vain, "stmt": _statement("ROLLBACK", ())})
        until = time.monotonic() + LOCK_SECONDS
        while error := next(filter(None, self._ask({"type": "batch", "batch": {"steps": steps}})["step_errors"]), None):
            if "locked" not in error["message"] or time.monotonic() > until:
                raise self._failure(f"the server failed: {error['message']}")
            time.sleep(random.uniform(0, LOCK_PAUSE))

    def scrub(self) -> None:
        """A primary does not let its clients do that."""

    def close(self) -> None:
        self._connection.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        """The result of one request of a pipeline."""
        body = msgspec.json.encode({"requests": [request, {"type": "close"}]})
        try:
            status, answer = self._post(body)
        except TimeoutError as error:
            raise self._failure(f"it did not answer within {self._seconds:g} seconds: is it reachable?") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(f"it cannot be reached ({error}): check the address and the server") from error
        if status in {401, 403}:
            raise self._failure("it refuses the token: give it one that may read and write")
        if status != http.client.OK:
            raise self._failure(f"it answers with HTTP {status}: check that the address is a libSQL server's")
        try:
            first = msgspec.json.decode(answer)["results"][0]
            if first["type"] == "ok":
                return first["response"]["result"]
            message = first["error"]["message"]
        except (msgspec.DecodeError, LookupError, TypeError) as error:
            raise self._failure("it does not speak Hrana: check that the address is a libSQL server's") from error
        raise self._failure(f"the server failed: {message}")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. The server may have closed a connection that was idle: then on a new one."""
        until = time.monotonic() + self._seconds
        used = self._connection.sock is not None
        try:
            return self._exchange(body, until)
        except (ConnectionError, http.client.BadStatusLine):
            if not used:
                raise
            return self._exchange(body, until)

    def _exchange(self, body: bytes, until: float) -> tuple[int, bytes]:
        connection = self._connection
        answer = bytearray()
        try:
            if connection.sock is None:
                connection.connect()
            sock = connection.sock
            sock.settimeout(_left(until))
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            while chunk := response.read1(CHUNK):
                answer += chunk
                sock.settimeout(_left(until))
            response.close()  # or the connection takes no other request
        except BaseException:
            connection.close()
            raise
        return response.status, bytes(answer)

    def _failure(self, what: str) -> StoreError:
        return StoreError(f"memory at {self._where}: {what}")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ok(step: int) -> dict[str, Any]:
    """The condition that a step before has succeeded."""
    return {"type": "ok", "step": step}


def _statement(sql: str, args: Sequence[Value]) -> dict[str, Any]:
    return {"sql": sql, "args": [_cell(arg) for arg in args]}


def _cell(value: Value) -> dict[str, Any]:
    match value:
        case None:
            return {"type": "null"}
        case int():
            return {"type": "integer", "value": str(value)}
        case float():
            return {"type": "float", "value": value}
        case str():
            return {"type": "text", "value": value}
    return {"type": "blob", "base64": binascii.b2a_base64(value, newline=False).decode()}


def _value(cell: dict[str, Any]) -> Value:
    match cell["type"]:
        case "integer":
            return int(cell["value"])
        case "blob":
            return binascii.a2b_base64(cell["base64"] + "==")  # the server leaves the padding out
    value: Value = cell.get("value")
    return value
