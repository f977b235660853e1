"""`voice-bridge talk` as a person, a pipe and a script have it, against bridges that run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.clients import SECRET, token
from tests.conftest import Bridge
from voice_bridge.bridge.cli import app
from voice_bridge.bridge.config import load
from voice_bridge.bridge.talk.address import address
from voice_bridge.bridge.talk.plain import Plain
from voice_bridge.bridge.talk.session import Plan

VOICE_BRIDGE = Path(sys.executable).with_name("voice-bridge")
PATIENCE = 30.0  # seconds for a process on a busy machine


def run(*words: str, **variables: str) -> Result:
    variables = {"COLUMNS": "200", "VOICE_BRIDGE_TOKEN": ""} | variables
    return CliRunner().invoke(app, ["talk", *words], env=variables)


async def say(url: str, typed: str, *, as_json: bool) -> str:
    """Talk by a pipe with these lines; gives how it ended."""
    ours, theirs = os.pipe()
    os.write(theirs, typed.encode())
    os.close(theirs)
    try:
        async with asyncio.timeout(PATIENCE):
            return await Plain(Plan(address(url), text=True), as_json=as_json, typed_at=ours).run()
    finally:
        os.close(ours)


async def test_lines_from_a_pipe_are_said_and_printed_and_then_it_is_over(
    bridge: Bridge, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = await bridge()
    capsys.readouterr()
    assert await say(daemon.url, "Good day.\n\n/nonsense\n/inject It rains.\nGood night.", as_json=False) == "caller"
    out, aside = capsys.readouterr()
    said = [line for line in out.splitlines() if ": " in line and "[info" not in line]
    assert said == ["agent: Good day.", "agent: Good night."]
    for part in ("(talking, as call VB", "/inject TEXT", "(the agent knows it now)"):
        assert part in aside
    assert aside.endswith(" underruns; hung up)\n")


async def test_json_is_all_that_the_bridge_tells_and_a_summary(
    bridge: Bridge, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = await bridge()
    capsys.readouterr()
    await say(daemon.url, "Good day.\n", as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert {"type": "transcript", "text": "Good day.", "speaker": "agent", "id": 1, "final": True} in told
    assert {"ready", "connection", "asked", "said", "ended"} <= {each["type"] for each in told}
    assert told[-1].items() >= {"type": "summary", "end": "caller", "resumes": 0}.items()


async def test_control_c_hangs_up_and_a_token_from_the_environment_is_never_shown(bridge: Bridge) -> None:
    daemon = await bridge(auth__secret=SECRET)
    pipe = asyncio.subprocess.PIPE
    environment = os.environ | {"VOICE_BRIDGE_TOKEN": token()}
    process = await asyncio.create_subprocess_exec(
        VOICE_BRIDGE, "talk", daemon.url, "--text", stdin=pipe, stderr=pipe, env=environment
    )
    assert process.stderr
    async with asyncio.timeout(PATIENCE):
        begun = await process.stderr.readline()
        assert begun.startswith(b"(talking, as call VB")
        (live,) = daemon.board.calls.values()
        process.send_signal(signal.SIGINT)
        _, aside = await process.communicate()
        assert await live.over == "caller"
    assert (process.returncode, aside.endswith(b"hung up)\n")) == (0, True)
    assert token().encode()[:20] not in begun + aside


async def test_it_ends_quietly_when_nobody_reads_along_any_more(bridge: Bridge) -> None:
    daemon = await bridge()
    pipe = asyncio.subprocess.PIPE
    ours, theirs = os.pipe()
    process = await asyncio.create_subprocess_exec(
        VOICE_BRIDGE, "talk", daemon.url, "--text", "--json", stdin=pipe, stdout=theirs, stderr=pipe
    )
    os.close(theirs)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(os.read, ours, 20)
        os.close(ours)
        _, aside = await process.communicate(b"Is anybody there?\n")
    assert (process.returncode, aside) == (0, b"")


async def test_a_token_comes_from_a_file_and_a_wrong_one_is_told_but_not_shown(bridge: Bridge, tmp_path: Path) -> None:
    daemon = await bridge(auth__secret=SECRET)
    (tmp_path / "token.txt").write_text(token() + "\n")
    words = (daemon.url, "--text", "--seconds", "0.2", "--token-file", str(tmp_path / "token.txt"))
    good = await asyncio.to_thread(run, *words)
    assert good.exit_code == 0, good.output
    wrong = token(secret="another-secret-that-is-long-enough")
    bad = await asyncio.to_thread(run, daemon.url, "--text", "--token", wrong)
    assert bad.exit_code == 1
    assert bad.stderr.startswith("voice-bridge talk: the bridge does not take this token")
    assert wrong not in bad.output


def test_a_bridge_that_is_not_there_is_one_line_with_the_remedy(unused_port: int) -> None:
    result = run(f"127.0.0.1:{unused_port}", "--text")
    assert result.exit_code == 1
    assert result.output == (
        f"voice-bridge talk: nothing answers at 127.0.0.1:{unused_port} (Connection refused);"
        " start a bridge with: voice-bridge serve\n"
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ftp://there"], "is no address of a bridge"),
        (["--text", "--wav", __file__], "exclude each other"),
        (["--record", "nowhere/talk.wav"], "there is no folder nowhere"),
        (["--wav", "missing.wav"], "does not exist"),
        (["--token", "two words"], "characters that no token has"),
        (["--seconds", "0"], "0.1"),
    ],
)
def test_what_cannot_be_done_is_said_before_anybody_is_called(words: list[str], why: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())


def test_a_file_that_is_no_recording_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(b"ID3 and more")
    result = run("--wav", str(tmp_path / "song.wav"))
    assert result.exit_code == 1
    assert "is MP3, not a WAV; convert it with" in result.stderr


def test_without_a_microphone_one_learns_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run()
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "voice-bridge talk: sounddevice is not installed; get it with: pip install 'voice-bridge[talk]';"
        " or talk by --wav FILE or --text"
    ]


def test_a_token_in_the_environment_is_no_setting_of_a_bridge(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    load(tmp_path / "config.toml", env={"VOICE_BRIDGE_TOKEN": token()})
