"""`voice-bridge dial`: what a person types, sees and is left with."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.phone_bridge import Bridge, echo, serving
from voice_bridge.bridge.cli.dial import dial as verb
from voice_bridge.bridge.cli.dial_mic import Microphone
from voice_bridge.bridge.phone.sound import tone
from voice_bridge.codecs import g711, wav

app = typer.Typer()
app.command()(verb)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    """An echoing bridge in a thread of its own, as `dial` brings its own event loop."""
    bridges: list[Bridge] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(talk=echo) as bridge:
            bridges.append(bridge)
            bridge.twiml["/twilio/voice"] = bridge.twiml["/voice"]
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    yield bridges[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TWILIO_AUTH_TOKEN": ""})


def test_a_call_is_reported_recorded_and_drawn(bridge: Bridge, tmp_path: Path) -> None:
    picture, record = tmp_path / "call.svg", tmp_path / "call.wav"
    result = run(bridge.url, "--seconds", "1.8", "--picture", str(picture), "--record", str(record))
    assert result.exit_code == 0, result.output
    assert "mouth to ear" in result.stdout
    assert "2 of 2 sounds came back" in result.stdout
    assert ET.parse(picture).getroot().tag.endswith("svg")
    data = np.frombuffer(record.read_bytes()[44:], "<i2").reshape(-1, 2)
    said = tone()
    assert data[: 90 * 160, 0].tolist() == g711.decode(b"".join(said(n) for n in range(90))).tolist()
    assert data[:, 1].any(), "the right side is what was heard"


def test_json_is_all_that_is_printed(bridge: Bridge) -> None:
    result = run(bridge.url, "--seconds", "0.3", "--calls", "3", "--json")
    data = json.loads(result.stdout)
    assert [call["from"] for call in data["calls"]] == ["+15550100001", "+15550100002", "+15550100003"]
    assert data["summary"]["completed"] == 3
    assert len({form["CallSid"] for form in bridge.forms("/twilio/voice")}) == 3


def test_a_recording_is_said_to_its_end(bridge: Bridge, tmp_path: Path) -> None:
    hello = tmp_path / "hello.wav"
    with wav.Writer(hello, 16_000, 1) as file:
        file.write((8000 * np.sin(np.arange(3200) / 9)).astype(np.int16))
    result = run(bridge.url + "/voice", "--wav", str(hello), "--get", "--number", "+15559", "--json")
    (call,) = json.loads(result.stdout)["calls"]
    assert call["seconds"] == pytest.approx(0.2 + 2.0)
    assert call["to"] == "+15559"
    assert [request[:2] for request in bridge.requests] == [("GET", "/voice")]


def test_a_bridge_that_is_not_there_is_one_line_with_the_remedy() -> None:
    result = run("http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "voice-bridge dial: nothing answers at http://127.0.0.1:9 (Connection refused); "
        "start the bridge with: make serve"
    ]


def test_a_call_that_is_refused_fails_and_says_why(bridge: Bridge) -> None:
    bridge.twiml["/twilio/voice"] = '<Response><Reject reason="busy"/></Response>'
    result = run(bridge.url)
    assert result.exit_code == 1
    assert "did not take the call: rejected: busy" in result.stderr


def test_a_call_that_is_only_spoken_to_is_a_good_call(bridge: Bridge) -> None:
    bridge.twiml["/twilio/voice"] = "<Response><Say>We are closed.</Say><Hangup/></Response>"
    result = run(bridge.url)
    assert result.exit_code == 0
    assert "Say: We are closed., then Hangup" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stall", "5"], "AT:FOR"),
        (["--loss", "150"], "loss is 1.5"),
        (["--digits", "x"], "cannot press 'x'"),
        (["localhost:8080"], "is no address"),
        (["--mic", "--calls", "2"], "--mic is one call"),
        (["--wav", "missing.wav"], "does not exist"),
        (["--record", "nowhere/call.wav"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_before_anyone_is_called(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_missing_microphone_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run("--mic")
    assert result.exit_code == 2
    assert "pip install 'voice-bridge[talk]'" in " ".join(result.output.split())


def test_the_microphone_is_the_mouth_and_the_speaker_the_ear(monkeypatch: pytest.MonkeyPatch) -> None:
    device = MagicMock()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    with Microphone() as microphone:
        exchange = device.RawStream.call_args.kwargs["callback"]
        said = np.arange(-8000, 8000, 100, dtype=np.int16)
        speaker = bytearray(320)
        microphone.ear(g711.encode(said[::-1]))
        exchange(said.tobytes(), speaker, 160, None, None)
        assert microphone.mouth(0) == g711.encode(said)
        assert bytes(speaker) == g711.decode(g711.encode(said[::-1])).tobytes()
        assert microphone.mouth(1) == b"\xff" * 160, "nothing new was said"
        for number in range(10):
            exchange(np.full(160, number * 1000, np.int16).tobytes(), speaker, 160, None, None)
        oldest = g711.decode(microphone.mouth(2))[0]
        assert oldest == pytest.approx(5000, rel=0.05), "what is over 100 ms old is left out"
    device.RawStream.return_value.close.assert_called_once()


def test_control_c_hangs_up_and_still_reports(bridge: Bridge) -> None:
    code = "import typer; from voice_bridge.bridge.cli.dial import dial; typer.run(dial)"
    process = subprocess.Popen([sys.executable, "-c", code, bridge.url, "--json"], stdout=subprocess.PIPE, text=True)
    while not any(line.of("media") for line in bridge.lines):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    (call,) = json.loads(output)["calls"]
    assert call["ended"] == "the caller hung up"
    assert process.returncode == 0
