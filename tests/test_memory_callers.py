"""The names that memory has for callers, and the key that they are made with."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from voice_bridge.bridge.config.kinds import SHORTEST_SECRET
from voice_bridge.bridge.memory.callers import Callers, NoKey, load_key

KEY = b"k" * 32
ALICE = "+15551234567"
WITHHELD = "+266696687"


@pytest.fixture
def callers() -> Callers:
    return Callers(KEY)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def test_a_number_has_one_name_and_it_stays(callers: Callers) -> None:
    # By openssl: printf +15551234567 | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
    assert callers.of_number(ALICE) == "n-447000a1610f9e486f53a73d75e627d0"


def test_another_number_or_another_key_makes_another_name(callers: Callers) -> None:
    names = {callers.of_number(ALICE), callers.of_number("+15551234568"), Callers(b"other" * 7).of_number(ALICE)}
    assert len(names) == 3


@pytest.mark.parametrize(
    "written",
    [
        " +1 555 123-4567 ",
        "+1 (555) 123.4567",
        "0015551234567",
        "00 1 555 1234567",
        "%2B15551234567",
        " tel:+1-555-123-4567",
        "sip:+15551234567@pbx.example.com:5060;user=phone",
        "SIPS:%2B15551234567@pbx.example.com",
    ],
)
def test_one_number_in_any_notation_is_one_caller(callers: Callers, written: str) -> None:
    assert callers.of_number(written) == callers.of_number(ALICE)


def test_the_zero_that_is_dialled_only_at_home_does_not_count(callers: Callers) -> None:
    assert callers.of_number("+44 (0)20 7946 0958") == callers.of_number("+442079460958") != ""


@pytest.mark.parametrize(
    "number",
    [
        "",
        " ",
        "+",
        "anonymous",
        "Anonymous",
        "unknown",
        "restricted",
        "unavailable",
        "sip:anonymous@anonymous.invalid",
        "sip:alice@+15551234567",
        "sip:1001@pbx.example.com",
        "client:alice",
        "client:+15551234567",
        "5551234567",
        "15551234567",
        "+0123456789",
        "+12345",
        "+1234567890123456",
        "+1555123456a",
        "+1\u0665\u0665\u0665\u0661\u0662\u0663\u0664\u0665\u0666\u0667",
        WITHHELD,
        "+266 696 687",
    ],
)
def test_who_withholds_his_number_is_nobody(callers: Callers, number: str) -> None:
    assert callers.of_number(number) == ""


# The key


def test_a_configured_key_is_the_key_and_no_file_is_made(store: Path) -> None:
    assert load_key("c" * 40, str(store)) == b"c" * 40
    assert list(store.parent.iterdir()) == []


def test_a_key_is_made_once_beside_the_store_for_its_owner_only(store: Path) -> None:
    store = store.parent / "made" / "for it" / "memory.db"
    key = load_key("", str(store))
    assert len(key) >= SHORTEST_SECRET
    (file,) = store.parent.iterdir()
    assert file.name == "memory.db.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key("", str(store)) == key
    assert load_key(file.read_text().strip(), "libsql://memory.example.com") == key  # moved into the configuration
    assert load_key("", str(store.with_name("another.db"))) != key


def test_threads_that_make_the_key_at_once_get_the_same(store: Path) -> None:
    barrier, keys = threading.Barrier(16), []

    def load() -> None:
        barrier.wait()
        keys.append(load_key("", str(store)))

    threads = [threading.Thread(target=load) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 16
    assert len(set(keys)) == 1
    assert [file.name for file in store.parent.iterdir()] == ["memory.db.key"]


def test_processes_that_make_the_key_at_once_get_the_same(store: Path) -> None:
    """Each imports first and then waits for a line, so that all of them make it at the same moment."""
    code = (
        "import sys; from voice_bridge.bridge.memory.callers import load_key; print('ready', flush=True);"
        " sys.stdin.readline(); print(load_key('', sys.argv[1]).decode())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate()[0].strip() for process in processes}
    assert len(keys) == 1
    assert keys == {store.with_name("memory.db.key").read_text().strip()}


def test_a_file_that_has_a_key_is_never_overwritten(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process made it after this one had looked."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    file = store.with_name("memory.db.key")
    file.write_text("theirs" * 10)
    assert load_key("", str(store)) == b"theirs" * 10
    assert list(store.parent.iterdir()) == [file]


@pytest.mark.parametrize("store_url", ["libsql://memory.example.com", "https://memory.example.com"])
def test_bridges_that_share_a_store_must_be_given_the_key(store_url: str) -> None:
    with pytest.raises(NoKey, match=r"memory\.key"):
        load_key("", store_url)
    assert load_key("c" * 40, store_url) == b"c" * 40


def test_a_short_key_is_refused_and_not_shown(store: Path) -> None:
    with pytest.raises(NoKey, match=r"memory\.key: is too short: 6 characters") as refused:
        load_key("sesame", str(store))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"sesame\n", b"\xff" * 64])
def test_a_file_that_holds_no_key_is_refused_and_kept(store: Path, content: bytes) -> None:
    file = store.with_name("memory.db.key")
    file.write_bytes(content)
    with pytest.raises(NoKey, match=r"memory\.db\.key") as refused:
        load_key("", str(store))
    assert "sesame" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert file.read_bytes() == content


def test_a_key_that_cannot_be_read_or_made_is_one_clear_line(store: Path) -> None:
    store.with_name("memory.db.key").mkdir()
    with pytest.raises(NoKey, match=r"memory\.db\.key: cannot be used: .*memory\.key"):
        load_key("", str(store))
    store.write_text("a file, not a folder")
    with pytest.raises(NoKey, match=r"cannot be used"):
        load_key("", str(store / "memory.db"))
    if os.getuid():
        store.parent.chmod(0o500)
        with pytest.raises(NoKey, match=r"cannot be used: Permission denied"):
            load_key("", str(store.with_name("another.db")))
