"""Logs: coloured lines on a terminal, one JSON object a line everywhere else.

`error` is for our own faults and shows the traceback of the exception in hand. A peer's fault is a `warning`
and shows none. No line holds sound, a caller's words, a secret or a whole telephone number, and nothing that
happens to a log line, or to stderr, reaches whoever wrote it.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from itertools import islice
from numbers import Number
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias, get_args

import structlog
from aiohttp.http_exceptions import BadHttpMessage
from structlog.typing import FilteringBoundLogger

Format: TypeAlias = Literal["auto", "console", "json"]
Logger: TypeAlias = FilteringBoundLogger
_Line: TypeAlias = Callable[[Mapping[str, Any]], str]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

SECRETS = ("token", "secret", "authorization", "signature", "password", "api_key")  # how a secret's key ends
CONTENT = frozenset({"payload", "pcm", "audio", "text", "words", "transcript"})  # what was said, or its sound
NUMBERS = frozenset({"caller", "from", "to", "number"})  # telephone numbers, shown without their middle
LONGEST = 1000  # characters of one value: a stranger's message must not become a page of log
MOST = 20  # items of a list or a mapping, for the same reason
DEEPEST = 4  # levels of nesting: a value that holds itself must end somewhere
WAITING = 2000  # lines that wait for a stderr that takes none, a few hundred kilobytes

_TELEPHONE = re.compile(r"\+?\d{7,15}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would move the cursor or colour the operator's terminal
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_CALL_COLOURS = ("36", "35", "34", "96", "95", "94")  # none that a level has


def configure(format: Format = "auto", level: str = "info") -> None:
    """Log to stderr from now on: ours from `level` up, the libraries' from warning up.

    `auto` is console on a terminal and JSON elsewhere.
    """
    if format not in get_args(Format):
        raise ValueError(f"log format {format!r} is none of {', '.join(get_args(Format))}")
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    console = format == "console" or (format == "auto" and terminal)
    render = _Renderer(_Console(colour=terminal and "NO_COLOR" not in os.environ) if console else _json)
    _sink.start(render)
    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(render, max(LEVELS[level], logging.WARNING)))
    logging.getLogger("aiohttp.server").addFilter(_peers_fault)
    logging.getLogger("aiohttp.access").disabled = True  # a line for every request says nothing about a call


def _peers_fault(record: logging.LogRecord) -> bool:
    """A request that is no HTTP is its sender's fault: no traceback, or any scanner could fill the log."""
    if record.exc_info and isinstance(record.exc_info[1], BadHttpMessage):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = f"no HTTP request: {type(record.exc_info[1]).__name__}", ()
        record.exc_info = None
    return True


def get(**bound: Any) -> Logger:
    """A logger that puts `bound` on each of its lines; a call's carries `call=<its id>`."""
    logger: Logger = structlog.get_logger(**bound)
    return logger


def flush(timeout: float = 1.0) -> None:
    """Wait until the lines so far are on stderr, for at most `timeout` seconds."""
    _sink.flush(timeout)


class _Sink:
    """Writes to stderr from a thread of its own: a paused terminal or a full pipe must not stop the calls."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lost = 0

    def start(self, render: _Renderer) -> None:
        self._render = render
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
            self._thread.start()
            atexit.register(self.flush, 1.0)

    def write(self, line: str) -> None:
        if self._queue.qsize() < WAITING:
            self._queue.put(line)
        else:
            self._lost += 1

    def flush(self, timeout: float) -> None:
        if self._thread is not None:
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                sys.stderr.write(item + "\n")
                if self._lost:
                    lost, self._lost = self._lost, 0
                    told = {"event": "log lines lost: stderr did not take them in time", "lines": lost}
                    sys.stderr.write(self._render(None, "warning", told) + "\n")
                sys.stderr.flush()
            except Exception:  # closed, broken or None: there is nobody left to tell
                continue


_sink = _Sink()


class _Stderr:
    """What structlog hands its rendered lines to."""

    def __init__(self, *names: Any) -> None:
        pass

    def debug(self, line: str) -> None:
        _sink.write(line)

    info = warning = error = critical = debug


class _Handler(logging.Handler):
    """Brings the libraries' records onto the same stderr in the same form."""

    def __init__(self, render: _Renderer, level: int) -> None:
        super().__init__(level)
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the message
            message = record.msg
        event = {"event": message, "logger": record.name, "exc_info": record.exc_info or False}
        _sink.write(self._render(None, record.levelname.lower(), event))


class _Renderer:
    """The whole way of an event to its line, as one structlog processor that never raises."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def __call__(self, logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        message = event.pop("event", "")
        first = {"time": time.time(), "level": level, "event": type(message).__name__}
        try:
            first["event"] = str(message)
            trace = _traceback(event.pop("exc_info", LEVELS.get(level, 0) >= logging.ERROR))
            shown = {key: _shown(key, value) for key, value in event.items() if key not in first}
            return self._line(first | shown | ({"exception": trace} if trace else {}))
        except Exception as error:
            call = {"call": event["call"]} if isinstance(event.get("call"), str) else {}
            return self._line(first | call | {"not_shown": type(error).__name__})


def _traceback(error: Any) -> str:
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if not isinstance(error, BaseException):
        return ""
    return "".join(traceback.format_exception(error)).rstrip()


def _shown(key: str, value: Any, depth: int = 0) -> Any:
    """`value` as a log may show it: plain, short, and without what is nobody's business."""
    name = key.lower()
    if name.endswith(SECRETS) or name in CONTENT:
        return "***"
    if isinstance(value, str):
        return _short(_TELEPHONE.sub(_masked, value) if name in NUMBERS else value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Number):
        return value.item() if hasattr(value, "item") else str(value)
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(getattr(value, "nbytes", None), int):  # an array, a tensor, a memoryview
        return f"<{value.nbytes} bytes>"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)) and depth == DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(k): _shown(str(k), v, depth + 1) for k, v in islice(value.items(), MOST)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(key, item, depth + 1) for item in islice(value, MOST)]
    if isinstance(value, BaseException):
        return _short(f"{type(value).__name__}: {value}")
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _masked(match: re.Match[str]) -> str:
    number = match[0]
    head, tail = (5, 4) if len(number) >= 12 else (3, 2)
    return f"{number[:head]}…{number[-tail:]}"


def _json(event: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(event["time"], UTC).isoformat(timespec="milliseconds")
    return json.dumps(
        {"timestamp": at.replace("+00:00", "Z"), **{k: v for k, v in event.items() if k != "time"}},
        ensure_ascii=False,
    )


class _Console:
    """`14:03:22.481 info    3f9a1c call answered  line=twilio caller=+1555…0001`"""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, event: Mapping[str, Any]) -> str:
        fields = dict(event)
        at, level = fields.pop("time"), fields.pop("level")
        message = _CONTROL.sub("?", fields.pop("event"))
        call, trace = fields.pop("call", None), fields.pop("exception", None)
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
        parts = [self._paint(clock, "2"), self._paint(f"{level:<7}", _COLOURS.get(level, "0"))]
        if call is not None:
            tail = _value(str(call)[-6:])  # the end of a call's id is enough to tell calls apart by eye
            parts.append(self._paint(tail, _CALL_COLOURS[zlib.crc32(tail.encode()) % len(_CALL_COLOURS)]))
        parts.append(self._paint(message, "1") + (" " if fields else ""))
        parts += [f"{self._paint(_value(key) + '=', '2')}{_value(value)}" for key, value in fields.items()]
        return " ".join(parts) + (f"\n{_CONTROL.sub('?', trace)}" if trace else "")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return str(round(value, 3))
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return value
    return repr(value)
