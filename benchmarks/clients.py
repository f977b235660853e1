"""Many clients of `/v1/stream` from one process: `python clients.py URL CLIENTS SECONDS` prints JSON.

Each sends a frame of 80 ms at a time, on raw sockets and an absolute clock, and every frame is built before that
starts. What the bridge says of it (its metrics) is told beside what the clients have seen.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import sys
import time
from array import array
from collections.abc import Iterable
from urllib.parse import urlsplit

from load import LEVELS, READ, TIMEOUT, open_stream, spread

FRAME = 1920  # samples of 24 kHz
EVERY = 0.080  # seconds that they last
JOINING = 16  # clients that begin in each 80 ms, so that a full house does not come through the door at once
WARM_UP = 2.0  # seconds between the beginning of the last client and the window that is measured
TAIL = 1.0  # seconds for the last replies
UNMASKED = bytes(4)  # a mask that changes nothing: the load need not pay for it
SOUND = 0x82  # the first byte of a WebSocket message of bytes
TEXT = 0x81
GOODBYE = b"\x88\x82" + UNMASKED + (1000).to_bytes(2, "big")


def message(first: int, payload: bytes) -> bytes:
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((first,)) + size + UNMASKED + payload


# A steady level each, so that a reply shows which frame it answers.
LOUD = [1000 * (1 + number) for number in range(len(LEVELS))]
FRAMES = [message(SOUND, array("h", [level] * FRAME).tobytes()) for level in LOUD]
NUMBER_OF = {level: number for number, level in enumerate(LOUD)}
OPEN = message(TEXT, b'{"type":"open","protocol":1}')


class Client:
    __slots__ = ("number", "rest", "sent", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.number = 0  # frames sent
        self.sent = [0.0] * len(LOUD)  # when the newest frame of each level was; 0 outside the window or answered
        self.rest = b""


class Clients:
    def __init__(self, url: str, calls: int, seconds: float) -> None:
        place = urlsplit(url)
        self._place = (place.hostname or "", place.port or 80)
        self._url = f"ws://{place.netloc}/v1/stream"
        self._calls = calls
        self._seconds = seconds
        self._epoll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._asked = self._frames = self._ended = 0
        self._latencies: list[float] = []
        self._lateness: list[float] = []

    def run(self) -> dict[str, object]:
        # Evenly over 80 ms, as people who begin when they like: the dear case for the bridge.
        steps = -(-self._calls // JOINING)
        phases = [EVERY * (n / self._calls + n % steps) for n in range(self._calls)]
        warm = EVERY * steps + WARM_UP
        turns = int((warm + self._seconds) / EVERY)
        start = time.monotonic() + EVERY
        opens, closes = start + warm, start + warm + self._seconds
        clients: dict[int, Client] = {}
        for due, n in sorted(
            (start + phase + turn * EVERY, n) for n, phase in enumerate(phases) for turn in range(turns)
        ):
            if due >= closes:
                break
            self._read_until(due)
            if n not in clients:
                clients[n] = self._dial()
            self._send(clients[n], due, measured=due >= opens)
        self._read_until(closes + TAIL)
        return self._outcome(clients.values())

    def _dial(self) -> Client:
        sock = open_stream(self._place, self._url)
        sock.sendall(OPEN)
        sock.setblocking(False)
        client = self._by_fd[sock.fileno()] = Client(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return client

    def _send(self, client: Client, due: float, measured: bool) -> None:
        level = client.number % len(LOUD)
        now = time.monotonic()
        client.sock.send(FRAMES[level])
        client.number += 1
        self._frames += 1
        client.sent[level] = now if measured else 0.0
        if measured:
            self._asked += 1
            self._lateness.append(now - due)

    def _read_until(self, due: float) -> None:
        while True:
            now = time.monotonic()
            for fd, _ in self._epoll.poll(max(0.0, due - now)):
                self._read(self._by_fd[fd])
            if now >= due:
                return

    def _read(self, client: Client) -> None:
        now = time.monotonic()
        received = client.sock.recv(READ)
        if not received:
            self._ended += 1
            self._epoll.unregister(client.sock.fileno())
            return
        data = client.rest + received
        at = 0
        while len(data) - at >= 4:
            size, head = data[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            end = at + head + size
            if end > len(data):
                break
            if data[at] == SOUND:
                self._take(client, int.from_bytes(data[end - 2 : end], "little", signed=True), now)
            at = end
        client.rest = data[at:]

    def _take(self, client: Client, level: int, now: float) -> None:
        number = NUMBER_OF.get(level)
        if number is not None and client.sent[number]:
            self._latencies.append(now - client.sent[number])
            client.sent[number] = 0.0

    def _outcome(self, clients: Iterable[Client]) -> dict[str, object]:
        web = http.client.HTTPConnection(*self._place, timeout=TIMEOUT)
        web.request("GET", "/metrics")
        metrics = web.getresponse().read().decode()
        for client in clients:
            client.sock.setblocking(True)
            client.sock.sendall(GOODBYE)
            client.sock.close()
        return {
            "calls": self._calls,
            "stopped": f"{self._ended} of {self._calls} clients were closed" if self._ended else "",
            "frames": self._frames,
            "missing": self._asked - len(self._latencies),
            "latency_ms": spread(self._latencies),
            "lateness_ms": spread(self._lateness),
            "deadline_misses": round(value(metrics, "voice_bridge_deadline_misses_total")),
            "share_ms": 1000 * median(metrics, "voice_bridge_frame_seconds"),
        }


def value(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    if found is None:
        raise LookupError(f"the bridge has no metric {name}")
    return float(found[1])


def median(metrics: str, name: str) -> float:
    """Of a histogram: where a half of all are below, evenly within a bucket."""
    found = re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', metrics, re.MULTILINE)
    buckets = [(float(bound), float(upto)) for bound, upto in found]
    wanted = buckets[-1][1] / 2
    low, below = 0.0, 0.0
    for bound, upto in buckets:
        if upto >= wanted:
            return low + (bound - low) * (wanted - below) / (upto - below)
        low, below = bound, upto
    raise AssertionError("half of all are below infinity")


def main() -> None:
    url, calls, seconds = sys.argv[1:]
    print(json.dumps(Clients(url, int(calls), float(seconds)).run()))


if __name__ == "__main__":
    main()
