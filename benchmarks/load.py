"""The load: many callers in one process, on raw sockets, with every message built before the clock starts.

It speaks Twilio's side of the wire with as little work as will do, so that what is measured is the server. A run
is described by a `Plan` as JSON in the first argument; its outcome is printed as JSON.
"""

from __future__ import annotations

import contextlib
import heapq
import http.client
import itertools
import json
import os
import re
import select
import socket
import sys
import time
import uuid
from base64 import b64encode
from binascii import a2b_base64
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

CHUNK = 0.020  # seconds in one of Twilio's messages
RATE = 8000
FRAME = 4  # chunks in a frame of 80 ms
JOINING = 16  # calls that begin in each 80 ms, so that a full house does not come through the door at once
TAIL = 25  # chunks after the window, so that its last replies come from a server still under load
CHECK = 50  # chunks between two looks whether it is worth going on
OWED = 6  # frames that every call waits for, on average, when the server has plainly lost (half a second)
LATE = 0.5  # seconds that it may miss its own clock by; after that it measures itself
LOOK = 0.0005  # seconds between two looks for replies while nothing is to be sent; they count as the server's
READ = 1 << 16
TIMEOUT = 10.0  # seconds for a call to be put through

# Each unit of sound is one steady level out of these, loud and far apart: a steady level comes through every
# filter, so the end of a reply shows what it answers.
LEVELS = [0x84 + 6 * step for step in range(16)]
LEVEL_OF = bytes(min(range(16), key=lambda n: abs(LEVELS[n] - code)) for code in range(256))

MASK = 0x5A  # four times, so that a message can be masked in pieces and put together
MASKED = bytes(byte ^ MASK for byte in range(256))


@dataclass(frozen=True)
class Plan:
    url: str
    """The voice webhook."""
    calls: int
    warm_up: float = 3.0
    """Seconds between the beginning of the last call and the window that is measured."""
    seconds: float = 10.0
    unit: int = FRAME
    """Chunks that one reply answers; 0 for a server whose replies cannot be told apart."""
    in_phase: bool = False
    """All calls send at the same moment; otherwise spread evenly over 20 ms, their frames over 80 ms."""
    core: int | None = None
    watch: dict[str, int] = field(default_factory=dict)
    """Processes whose processor time is wanted, by name."""


class Failed(Exception):
    """The run cannot be made; the message is one line."""


class Stopped(Exception):
    """The run ended early; the message says who could not keep up."""


class Caller:
    __slots__ = ("answered", "asked", "first", "handed", "phase", "plays_until", "rest", "sock", "tail")

    def __init__(self, phase: float, first: int) -> None:
        self.phase = phase  # seconds into each 20 ms
        self.first = first  # tick of its first chunk
        self.sock: socket.socket
        self.tail = b""  # of its messages, which are alike but for this
        self.rest = b""
        self.handed = [0.0] * len(LEVELS)  # when the newest unit of each level was complete; 0 outside the window
        self.asked = -1  # newest unit that was sent whole
        self.answered = -1
        self.plays_until = 0.0  # when the sound that came will have been heard


class Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        steps = -(-plan.calls // JOINING)
        offsets = [0.0 if plan.in_phase else FRAME * n / plan.calls for n in range(plan.calls)]
        self._callers = [Caller(o % 1 * CHUNK, int(o) + FRAME * (n % steps)) for n, o in enumerate(offsets)]
        self._callers.sort(key=lambda caller: caller.phase)
        self._opens = FRAME * steps + round(plan.warm_up / CHUNK)
        self._closes = self._opens + round(plan.seconds / CHUNK)
        self._heads = [_media(chunk, plan.unit or FRAME) for chunk in range(self._closes + TAIL)]
        self._by_fd: dict[int, Caller] = {}
        self._marks: list[tuple[float, int, Caller, bytes]] = []  # to be sent back, the first one due on top
        self._serial = itertools.count()
        self._epoll = select.epoll()
        place = urlsplit(plan.url)
        self._place = (place.hostname or "", place.port or 80)
        self._web = http.client.HTTPConnection(*self._place, timeout=TIMEOUT)
        self._measuring = False
        self._messages = self._asked = self._returned = 0
        self._latencies: list[float] = []
        self._lateness: list[float] = []

    def run(self) -> dict[str, object]:
        stopped = ""
        opened = closed = self._used()
        start = time.monotonic() + CHUNK
        try:
            for tick in range(self._closes + TAIL):
                at = start + tick * CHUNK
                if tick == self._opens:
                    opened = self._used()
                elif tick == self._closes:
                    closed = self._used()
                if tick % CHECK == 0:
                    self._check(at)
                self._measuring = self._opens <= tick < self._closes
                self._tick(tick, at)
        except Stopped as reason:
            stopped = str(reason)
            closed = self._used()
        self._hang_up()
        return self._outcome({name: closed[name] - opened[name] for name in closed}, stopped)

    def _tick(self, tick: int, at: float) -> None:
        """The 20 ms from `at` on: every call sends one chunk, at its own phase."""
        measuring, unit = self._measuring, self.plan.unit
        for caller in self._callers:
            chunk = tick - caller.first
            if chunk < 0:
                continue
            due = at + caller.phase
            self._read_until(due)
            if chunk == 0:
                self._dial(caller)
            now = time.monotonic()
            self._send(caller, self._heads[chunk] + caller.tail)
            if unit and chunk % unit == unit - 1:
                caller.asked += 1
                caller.handed[caller.asked % len(LEVELS)] = now if measuring else 0.0
                self._asked += measuring
            if measuring:
                self._messages += 1
                self._lateness.append(now - due)

    def _read_until(self, due: float) -> None:
        """Take what comes until it is time to send; once, if it is time already."""
        while True:
            now = time.monotonic()
            while self._marks and self._marks[0][0] <= now:
                _, _, caller, name = heapq.heappop(self._marks)
                self._send(caller, _mark(name) + caller.tail)
            if now < due:  # to sleep in epoll would let the server pay for waking us, which no network asks of it
                time.sleep(min(due - now, LOOK))
            for fd, _ in self._epoll.poll(0):
                self._read(self._by_fd[fd])
            if now >= due:
                return

    def _read(self, caller: Caller) -> None:
        try:
            received = caller.sock.recv(READ)
        except ConnectionError:
            received = b""
        if not received:
            raise Stopped("the server closed a stream")
        now = time.monotonic()
        data = caller.rest + received
        at = 0
        while len(data) - at >= 4:
            length, begins = data[at + 1], at + 2
            if length == 126:
                length, begins = data[at + 2] << 8 | data[at + 3], at + 4
            if begins + length > len(data):
                break
            if data[at] != 0x81 or length == 127:
                raise Stopped(f"the server sent a frame that begins with {data[at]:#x}, and not a short text")
            at = begins + length
            self._take(caller, data[begins:at], now)
        caller.rest = data[at:]

    def _take(self, caller: Caller, message: bytes, now: float) -> None:
        kind = message[:18]
        if b'"media"' in kind:
            sound = _value(message, b'"payload"')
            samples = len(sound) // 4 * 3 - sound.count(b"=")
            caller.plays_until = max(now, caller.plays_until) + samples / RATE
            self._returned += samples * self._measuring
            if self.plan.unit:
                self._answered(caller, LEVEL_OF[a2b_base64(sound[-8:-4])[0]], now)
        elif b'"mark"' in kind:
            due = max(now, caller.plays_until)
            heapq.heappush(self._marks, (due, next(self._serial), caller, _value(message, b'"name"')))

    def _answered(self, caller: Caller, level: int, now: float) -> None:
        """A reply answers the newest unit of its level that was sent."""
        unit = caller.asked - (caller.asked - level) % len(LEVELS)
        if unit > caller.answered:
            caller.answered = unit
            if caller.handed[level]:
                self._latencies.append(now - caller.handed[level])

    def _dial(self, caller: Caller) -> None:
        call, stream = f"CA{uuid.uuid4().hex}", f"MZ{uuid.uuid4().hex}"
        url, token = self._webhook(call)
        caller.tail = _tail(stream)
        caller.sock = open_stream(self._place, url)
        caller.sock.sendall(_frame(b'{"event":"connected","protocol":"Call","version":"1.0.0"}'))
        caller.sock.sendall(_start(call, stream, token))
        caller.sock.setblocking(False)
        self._by_fd[caller.sock.fileno()] = caller
        self._epoll.register(caller.sock, select.EPOLLIN)

    def _webhook(self, call: str) -> tuple[str, str]:
        """The address of the stream and its token, from the TwiML."""
        number = f"+1555{len(self._by_fd):07d}"
        form = {"CallSid": call, "AccountSid": "AC" + "0" * 32, "From": number, "To": "+15550100000"}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        self._web.request("POST", urlsplit(self.plan.url).path, urlencode(form), kind)
        twiml = self._web.getresponse().read().decode()
        url = re.search(r'<Stream[^>]* url="([^"]+)"', twiml)
        token = re.search(r'<Parameter[^>]* value="([^"]+)"', twiml)
        if not url:
            raise Failed(f"call {len(self._by_fd) + 1} was not let in: {twiml[:200]}")
        return url[1], token[1] if token else ""

    def _send(self, caller: Caller, frame: bytes) -> None:
        try:
            if caller.sock.send(frame) == len(frame):
                return
        except BlockingIOError:
            pass
        except ConnectionError:
            raise Stopped("the server closed a stream") from None
        raise Stopped("the server does not read")

    def _check(self, due: float) -> None:
        """Whether it is worth going on."""
        late = time.monotonic() - due
        if self._measuring and late > LATE:
            raise Stopped(f"the load is {late:.1f} s behind its own clock")
        owed = sum(caller.asked - caller.answered for caller in self._callers)
        if self.plan.unit and owed * self.plan.unit > OWED * FRAME * len(self._callers):
            raise Stopped(f"the server owes {owed} replies")

    def _used(self) -> dict[str, float]:
        """The time, and processor time used so far, in seconds."""
        pids = {**self.plan.watch, "generator": os.getpid()}
        return {"wall": time.monotonic(), **{name: processor(pid) for name, pid in pids.items()}}

    def _hang_up(self) -> None:
        for caller in self._by_fd.values():
            with contextlib.suppress(OSError):
                caller.sock.sendall(STOP + caller.tail)
            caller.sock.close()

    def _outcome(self, used: dict[str, float], stopped: str) -> dict[str, object]:
        wall = used.pop("wall")
        return {
            **asdict(self.plan),
            "stopped": stopped,
            "messages": self._messages,
            "share": {name: seconds / wall for name, seconds in used.items()},
            "cpu_us": {name: seconds * 1e6 / max(1, self._messages) for name, seconds in used.items()},
            "returned": self._returned / RATE / CHUNK / max(1, self._messages),
            "missing": self._asked - len(self._latencies),
            "latency_ms": spread(self._latencies),
            "lateness_ms": spread(self._lateness),
        }


def open_stream(place: tuple[str, int], url: str) -> socket.socket:
    """A WebSocket, by hand."""
    sock = socket.create_connection(place, timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked = urlsplit(url)
    sock.sendall(
        f"GET {asked.path} HTTP/1.1\r\nHost: {asked.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and (received := sock.recv(READ)):
        answer += received
    if b" 101 " not in answer:
        raise Failed(f"no stream; the server answers: {answer.decode(errors='replace').splitlines()[:1]}")
    return sock


def _frame(message: bytes, more: int = 0) -> bytes:
    """A WebSocket frame of text, or the beginning of one that ends with so many more bytes, masked already."""
    length = len(message) + more
    size = bytes((0x80 | length,)) if length < 126 else bytes((0x80 | 126, length >> 8, length & 0xFF))
    return b"\x81" + size + bytes((MASK,)) * 4 + message.translate(MASKED)


def _value(message: bytes, name: bytes) -> bytes:
    """The text that has this name, without reading the JSON."""
    begins = message.index(b'"', message.index(name) + len(name)) + 1
    return message[begins : message.index(b'"', begins)]


def _tail(stream: str) -> bytes:
    return f'"streamSid":"{stream}"}}'.encode().translate(MASKED)


TAIL_BYTES = len(_tail("MZ" + "0" * 32))
STOP = _frame(b'{"event":"stop","sequenceNumber":"0","stop":{},', TAIL_BYTES)


def _start(call: str, stream: str, token: str) -> bytes:
    start = {
        "accountSid": "AC" + "0" * 32,
        "streamSid": stream,
        "callSid": call,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
        "customParameters": {"token": token},
    }
    return _frame(json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream}).encode())


def _media(chunk: int, unit: int) -> bytes:
    sound = bytes((LEVELS[chunk // unit % len(LEVELS)],)) * int(CHUNK * RATE)
    return _frame(
        b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%b"},'
        % (chunk + 2, chunk + 1, chunk * 20, b64encode(sound)),
        TAIL_BYTES,
    )


def _mark(name: bytes) -> bytes:
    return _frame(b'{"event":"mark","sequenceNumber":"0","mark":{"name":"%b"},' % name, TAIL_BYTES)


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(seconds: list[float]) -> dict[str, float] | None:
    """In milliseconds."""
    if not seconds:
        return None
    seconds = sorted(seconds)
    at = {"p50": len(seconds) // 2, "p99": int(len(seconds) * 0.99), "max": len(seconds) - 1}
    return {name: round(seconds[index] * 1000, 3) for name, index in at.items()}


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    try:
        print(json.dumps(Load(plan).run()))
    except (Failed, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
