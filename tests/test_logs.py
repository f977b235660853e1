import io
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_bridge.bridge.observe import logs

Lines = Callable[[], list[str]]

SECRETS = [
    "token",
    "auth_token",
    "Token",
    "AuthToken",
    "client_secret",
    "secret",
    "Authorization",
    "password",
]
SECRETS += ["signature", "X-Twilio-Signature", "OPENAI_API_KEY"]
CONTENT = ["payload", "pcm", "audio", "TEXT", "words", "transcript"]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What has been logged to stderr since the last call."""

    def written() -> list[str]:
        logs.flush()
        return capsys.readouterr().err.splitlines()

    yield written
    logs.flush()
    structlog.reset_defaults()
    for handler in ours():
        logging.getLogger().removeHandler(handler)


def ours() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if type(handler).__module__ == logs.__name__]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_json_is_one_object_a_line_with_iso_time_level_event_and_call(lines: Lines) -> None:
    logs.configure("json", "info")
    logs.get(call="CA1").bind(line="twilio").info("call\nanswered", slot=3)
    (line,) = lines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"level": "info", "event": "call\nanswered", "call": "CA1", "line": "twilio", "slot": 3}


def test_auto_is_json_where_there_is_no_terminal(lines: Lines) -> None:
    logs.configure()
    logs.get().info("hello")
    assert json.loads(lines()[0])["event"] == "hello"


def test_auto_on_a_terminal_is_coloured_and_shows_the_end_of_the_call_id(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    logs.configure()
    logs.get(call="CA0123456789abcdef").info("call answered", line="twilio", why="it rang")
    logs.flush()
    line = terminal.getvalue()
    assert "\x1b[" in line
    assert "abcdef" in line
    assert "CA0123" not in line


def test_console_without_a_terminal_has_no_colours(lines: Lines) -> None:
    logs.configure("console")
    logs.get(call="CA0123456789abcdef").info("call answered", line="twilio", why="it rang", seconds=0.123456)
    (line,) = lines()
    assert line[12:] == " info    abcdef call answered  line=twilio why='it rang' seconds=0.123"


@pytest.mark.parametrize("format", ["json", "console"])
def test_what_a_stranger_sends_cannot_break_a_line_or_drive_the_terminal(lines: Lines, format: Any) -> None:
    logs.configure(format)
    logs.get(call="x\x1b[2J").info("a\x1b[2Jb", name="evil\x1b[2J\nlevel=error", **{"k\x1b": 1})
    (line,) = lines()
    assert "\x1b" not in line


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("key", SECRETS + CONTENT)
def test_secrets_sound_and_words_are_never_shown(lines: Lines, format: Any, key: str) -> None:
    logs.configure(format)
    log = logs.get()
    log.info("flat", **{key: "hush-hush"})
    log.info("nested", request={"headers": [{key: ["hush-hush"]}]})
    written = lines()
    assert len(written) == 2
    assert all("***" in line and "hush-hush" not in line for line in written)


def test_sound_under_any_key_is_shown_by_its_size(lines: Lines) -> None:
    logs.configure("json")
    logs.get().info("x", a=b"\x01" * 160, b=bytearray(7), c=memoryview(b"12"), d=np.zeros(1920, np.float32), e=[b"1"])
    event = json.loads(lines()[0])
    assert [event[key] for key in "abcd"] == ["<160 bytes>", "<7 bytes>", "<2 bytes>", "<7680 bytes>"]
    assert event["e"] == ["<1 bytes>"]


@pytest.mark.parametrize("key", ["caller", "From", "to", "number"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+15550000001", "+1555…0001"),
        ("+1234567", "+12…67"),
        ("sip:+15550000001@example.com", "sip:+1555…0001@example.com"),
        ("anonymous", "anonymous"),
    ],
)
def test_telephone_numbers_lose_their_middle(lines: Lines, key: str, value: str, shown: str) -> None:
    logs.configure("json")
    logs.get().info("x", **{key: value}, nested={key: value})
    event = json.loads(lines()[0])
    assert event[key] == event["nested"][key] == shown


def test_numbers_that_are_not_telephone_numbers_stay_as_they_are(lines: Lines) -> None:
    logs.configure("json")
    logs.get().info("x", number=3, port=15550000001, share=np.float32(0.5), slots=np.int64(7), none=None, no=False)
    event = json.loads(lines()[0])
    assert [event[k] for k in ("number", "port", "share", "slots", "none", "no")] == [
        3,
        15550000001,
        0.5,
        7,
        None,
        False,
    ]


def test_what_json_has_no_number_for_is_shown_as_text(lines: Lines) -> None:
    logs.configure("json")
    logs.get().info("x", lag=math.nan, lead=[math.inf])
    event = json.loads(lines()[0], parse_constant=pytest.fail)
    assert (event["lag"], event["lead"]) == ("nan", ["inf"])


def test_a_long_value_is_cut(lines: Lines) -> None:
    logs.configure("json")
    logs.get().info("x", message="a" * 100_000, items=list(range(100_000)))
    assert len(lines()[0]) < 2 * logs.LONGEST


def test_our_fault_shows_a_traceback_and_their_fault_does_not(lines: Lines) -> None:
    logs.configure("json")
    log = logs.get()
    try:
        raise KeyError("slot")
    except KeyError as error:
        log.error("ours")
        log.error("ours too", exc_info=error)
        log.warning("theirs", reason=error)
        log.error("known", exc_info=False)
    log.error("no exception in hand")
    ours, ours_too, theirs, known, none = map(json.loads, lines())
    assert "test_logs.py" in ours["exception"]
    assert ours["exception"].endswith("KeyError: 'slot'")
    assert ours_too["exception"] == ours["exception"]
    assert theirs["reason"] == "KeyError: 'slot'"
    assert all("exception" not in event for event in (theirs, known, none))


def test_console_puts_the_traceback_under_the_line(lines: Lines) -> None:
    logs.configure("console")
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError:
        logs.get().exception("our fault")
    first, *rest = lines()
    assert first.endswith("error   our fault")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: bad?[2J"


def test_level_holds_back_what_is_below(lines: Lines) -> None:
    logs.configure("json", "warning")
    logs.get().info("no")
    logs.get().warning("yes")
    assert [json.loads(line)["event"] for line in lines()] == ["yes"]


def test_libraries_speak_through_the_same_renderer_from_warning_up(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("json", "debug")
    logs.configure("json", "debug")  # a second time adds no second handler
    library = logging.getLogger("aiohttp.server")
    monkeypatch.setattr(library, "level", logging.DEBUG)
    library.info("no")
    library.warning("yes %d", 1)
    logging.getLogger("aiohttp.access").warning("no")
    (event,) = map(json.loads, lines())
    assert (event["event"], event["logger"], event["level"]) == ("yes 1", "aiohttp.server", "warning")


def test_a_library_record_whose_arguments_do_not_fit_is_still_shown(lines: Lines) -> None:
    logs.configure("json")
    (handler,) = ours()
    handler.handle(logging.LogRecord("twilio", logging.ERROR, "", 0, "misfit %d", ("x", "y"), None))
    assert json.loads(lines()[0])["event"] == "misfit %d"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_value_that_cannot_be_shown_costs_the_values_of_its_line_and_nothing_else(lines: Lines, format: Any) -> None:
    logs.configure(format)
    endless: dict[str, Any] = {}
    endless["self"] = endless
    logs.get().info("endless", value=endless)
    logs.get(call="CA1").info("bad", value=Unshowable(), huge=10**5000)
    logs.get().info(Unshowable())  # type: ignore[arg-type]
    logs.get().info(KeyError("slot"))  # type: ignore[arg-type]
    first, second, third, fourth = lines()
    assert "endless" in first
    assert "Unshowable" in third
    assert "'slot'" in fourth
    assert all(part in second for part in ("bad", "CA1", "not_shown", "RuntimeError"))


@pytest.mark.parametrize(("format", "level"), [("xml", "info"), ("json", "loud")])
def test_an_unknown_format_or_level_is_named_with_the_known_ones(format: Any, level: str) -> None:
    with pytest.raises(ValueError, match=r"log (format 'xml' is none of auto|level 'loud' is none of debug)"):
        logs.configure(format, level)


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
_VALUES = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@settings(deadline=None, max_examples=50)
@given(event=st.dictionaries(st.text(), _VALUES), message=st.text())
def test_any_event_becomes_one_json_object_and_one_printable_line(event: dict[str, Any], message: str) -> None:
    rendered = logs._Renderer(logs._json)(None, "info", {"event": message, **event})
    assert json.loads(rendered, parse_constant=pytest.fail)["event"] == message
    logs._Renderer(logs._Console(colour=False))(None, "info", {"event": message, **event})


def _program(body: str) -> list[str]:
    return [sys.executable, "-c", f"from voice_bridge.bridge.observe import logs\n{body}"]


def test_a_broken_stderr_does_not_stop_the_program() -> None:
    body = """
import os, sys
logs.configure("json")
for _ in range(100):
    logs.get().error("nobody reads this")
    logs.flush()
sys.stderr.close()
logs.get().error("closed")
logs.flush()
sys.stderr = None
logs.configure("auto")
logs.get().error("gone")
logs.flush()
print("alive", flush=True)
"""
    with subprocess.Popen(_program(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stderr.close()
        assert process.stdout.read() == b"alive\n"


def test_a_stderr_that_nobody_reads_stops_nothing_and_the_loss_is_told() -> None:
    body = """
logs.configure("json")
for n in range(4000):
    logs.get().info("a line that fills the pipe", n=n)
print("alive", flush=True)
input()
"""
    with subprocess.Popen(
        _program(body), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"alive\n"
        _, stderr = process.communicate(b"\n")
    events = [json.loads(line) for line in stderr.splitlines()]
    lost = [event for event in events if event["event"].startswith("log lines lost")]
    assert lost
    assert sum(event["lines"] for event in lost) + len(events) - len(lost) == 4000
