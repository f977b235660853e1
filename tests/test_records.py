import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from voice_bridge.bridge.observe.metrics import CallStats
from voice_bridge.bridge.observe.records import WAITING, CallRecord, Records, measured

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def record(call: str = "CA1", **more: object) -> CallRecord:
    fields = {
        "call": call,
        "line": "twilio",
        "direction": "inbound",
        "caller": "+15550000001",
        "number": "+15550000002",
        "engine": "echo",
        "started": NOON,
        "seconds": 12.5,
        "end": "hangup",
    }
    return msgspec.convert(fields | more, CallRecord)


def read(path: Path) -> list[CallRecord]:
    return [msgspec.json.decode(line, type=CallRecord) for line in path.read_bytes().splitlines()]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Records]]:
    made = []

    def make(clock: Callable[[], datetime] = lambda: NOON) -> Records:
        made.append(Records(str(tmp_path), clock))
        return made[-1]

    yield make
    for records in made:
        records.close()


def test_each_call_is_one_line_and_close_writes_them_all(make: Callable[..., Records], tmp_path: Path) -> None:
    records = make()
    written = [record(f"CA{n}", digits=n, mouth_to_ear_ms={"p50": 130.0, "p95": 150.1}) for n in range(300)]
    for each in written:
        records.add(each)
    records.close()
    path = tmp_path / "calls-2026-03-01.jsonl"
    assert read(path) == written
    assert b'"started":"2026-03-01T12:00:00Z"' in path.read_bytes()
    assert b'"caller":"+15550000001"' in path.read_bytes()
    assert path.stat().st_mode & 0o007 == 0


def test_files_are_by_day_in_utc(make: Callable[..., Records], tmp_path: Path) -> None:
    kyiv = timezone(timedelta(hours=2))
    for moment in (datetime(2026, 3, 2, 1, 59, tzinfo=kyiv), datetime(2026, 3, 2, 2, tzinfo=kyiv)):
        records = make(lambda moment=moment: moment)
        records.add(record())
        records.close()
    assert len(read(tmp_path / "calls-2026-03-01.jsonl")) == 1
    assert len(read(tmp_path / "calls-2026-03-02.jsonl")) == 1


def test_a_folder_is_made_and_earlier_records_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for call in ("CA1", "CA2"):
        records = Records(str(folder), lambda: NOON)
        records.add(record(call))
        records.close()
    assert [each.call for each in read(folder / "calls-2026-03-01.jsonl")] == ["CA1", "CA2"]


def test_a_folder_that_cannot_be_used_is_an_error_at_start_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write call records to '.*/file/calls': Not a directory; name a"):
        Records(str(tmp_path / "file" / "calls"))


def test_half_a_line_left_by_a_crash_does_not_spoil_the_next(make: Callable[..., Records], tmp_path: Path) -> None:
    path = tmp_path / "calls-2026-03-01.jsonl"
    path.write_bytes(b'{"call":"CA')
    records = make()
    records.add(record("CA2"))
    records.close()
    half, whole = path.read_bytes().splitlines()
    assert half == b'{"call":"CA'
    assert msgspec.json.decode(whole, type=CallRecord).call == "CA2"


@full_disk
def test_a_full_disk_costs_counted_records_one_log_line_and_nothing_more(
    make: Callable[..., Records], tmp_path: Path
) -> None:
    structlog.reset_defaults()
    path = tmp_path / "calls-2026-03-01.jsonl"
    path.symlink_to("/dev/full")
    with capture_logs() as told:
        records = make()
        for n in range(5):
            records.add(record(f"CA{n}"))
        records.close()
        assert records.lost == 5
        assert [(each["event"], each["log_level"]) for each in told] == [("call records cannot be written", "warning")]
        assert "No space left" in told[0]["reason"]


NEARLY_FULL = """
import resource, sys
import msgspec
from voice_bridge.bridge.observe.records import CallRecord, Records

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
records = Records(sys.argv[1])
for _ in range(5):
    records.add(msgspec.json.decode(sys.argv[2], type=CallRecord))
records.close()
print(records.lost)
"""


def test_a_record_that_does_not_fit_leaves_no_half_a_line(tmp_path: Path) -> None:
    line = msgspec.json.encode(record()).decode()
    command = [sys.executable, "-c", NEARLY_FULL, str(tmp_path), line]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    (path,) = tmp_path.iterdir()
    fit = 1000 // (len(line) + 1)
    assert path.read_text() == f"{line}\n" * fit
    assert result.stdout.splitlines()[-1] == str(5 - fit)


@full_disk
def test_a_disk_that_has_room_again_is_used_again(make: Callable[..., Records], tmp_path: Path) -> None:
    structlog.reset_defaults()
    (tmp_path / "calls-2026-03-01.jsonl").symlink_to("/dev/full")
    days = iter([NOON, NOON, NOON + timedelta(days=1), NOON + timedelta(days=1)])  # at start, then a record each
    with capture_logs() as told:
        records = make(days.__next__)
        records.add(record("CA1"))
        records.add(record("CA2"))
        records.add(record("CA3"))
        records.close()
    assert [each["event"] for each in told] == [
        "call records cannot be written",
        "call records are written again",
    ]
    assert told[-1]["lost"] == 1
    assert [each.call for each in read(tmp_path / "calls-2026-03-02.jsonl")] == ["CA2", "CA3"]


def test_a_disk_that_hangs_makes_nobody_wait_and_loses_only_what_does_not_fit(
    make: Callable[..., Records], tmp_path: Path
) -> None:
    path = tmp_path / "calls-2026-03-01.jsonl"
    os.mkfifo(path)  # full after 64 KiB: the writer hangs as it would on a dead network disk
    reader = os.open(path, os.O_RDWR)
    records = make()
    for n in range(3 * WAITING):
        records.add(record(f"CA{n}"))
    assert WAITING < records.lost <= 2 * WAITING
    with os.fdopen(reader, "rb") as pipe:
        for _ in range(3 * WAITING - records.lost):
            pipe.readline()
        records.close()
    assert not records._thread.is_alive()


def test_a_record_holds_what_the_call_counted() -> None:
    stats = CallStats("twilio", 8000)
    stats.frames = 100
    stats.gap_fill_samples = 800
    stats.late_samples = 80
    stats.dropped_samples = 160
    stats.underruns, stats.recoveries, stats.engine_losses, stats.digits = 1, 2, 3, 4
    stats.first_audio = 0.25
    stats.replied(0.02)
    stats.replied(0.09)
    made = msgspec.structs.replace(record(), **measured(stats))
    assert (made.frames, made.gap_fill_ms, made.dropped_ms) == (100, 100, 30)
    assert (made.underruns, made.recoveries, made.engine_losses, made.digits) == (1, 2, 3, 4)
    assert (made.first_audio_ms, made.deadline_misses, made.mouth_to_ear_ms) == (250.0, 1, None)
    assert made.frame_ms is not None
    assert list(made.frame_ms) == ["p50", "p95", "p99"]
    assert made.frame_ms["p50"] == pytest.approx(20, rel=0.09)
    assert made.frame_ms["p99"] == pytest.approx(90, rel=0.09)
