"""The servers that are put under load, each started for the purpose."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

HERE = Path(__file__).parent
START = 60.0  # seconds for a server to answer; pipecat imports much
STOP = 10.0  # seconds for it to end before it is killed
PIPECAT = "pipecat-ai[websocket]==1.14.0"  # the release that our figures are compared with
PIPECAT_VENV = HERE.parent / ".venv-pipecat"
UNWANTED = ("torch", "nvidia")  # gigabytes that an echo has no use for

# Room for every call that is tried, all of them from this machine.
BRIDGE = {
    "VOICE_BRIDGE_ENGINE__SLOTS": "2000",
    "VOICE_BRIDGE_CALLS__MAX_PER_CALLER": "0",
    "VOICE_BRIDGE_VOICE__PROVIDER": "echo",
    "VOICE_BRIDGE_LOG__LEVEL": "warning",
}


class Unavailable(Exception):
    """The server cannot be had; the message is one line."""


@dataclass(frozen=True)
class Server:
    name: str
    command: Sequence[str]
    """The port is added."""
    ready: str = "/"
    """What answers without a server error once it is up."""
    unit: int = 0
    """Chunks of 20 ms that one of its replies answers; 0 where replies cannot be told apart."""
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def webhook(self) -> str:
        return self.url + "/twilio/voice"


def bridge() -> Server:
    command = Path(sys.executable).with_name("voice-bridge")
    return Server("bridge", (str(command), "serve", "--port"), "/readyz", 4, BRIDGE)


def aiohttp() -> Server:
    return Server("aiohttp", (sys.executable, str(HERE / "echo_aiohttp.py")), unit=1)


def pipecat(rate: int) -> Server:
    """With a pipeline at this rate. Installs it on first use; raises `Unavailable` if that does not work."""
    python = PIPECAT_VENV / "bin" / "python"
    if not (PIPECAT_VENV / ".installed").exists():
        _install_pipecat(python)
    return Server(f"pipecat at {rate // 1000} kHz", (str(python), str(HERE / "echo_pipecat.py"), str(rate)))


def _install_pipecat(python: Path) -> None:
    packages = (PIPECAT, "uvicorn", "uvloop")
    print(f"Installing {PIPECAT} into {PIPECAT_VENV.name}: about 550 MB", file=sys.stderr)
    try:
        _quietly(sys.executable, "-m", "venv", str(PIPECAT_VENV))
        plan = _quietly(str(python), "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *packages)
        unwanted = [name for name in UNWANTED if f'"name": "{name}' in plan]
        if unwanted:
            raise Unavailable(f"{PIPECAT} would bring {' and '.join(unwanted)}")
        _quietly(str(python), "-m", "pip", "install", "--quiet", *packages)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "it said nothing").strip().splitlines()
        raise Unavailable(f"{PIPECAT} cannot be installed: {said[-1]}") from None
    (PIPECAT_VENV / ".installed").touch()


def _quietly(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def running(server: Server, core: int | None = None, others: int | None = None) -> Iterator[Server]:
    """The server, up, on `core`, and whatever it has started on `others`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w+") as said:
        process = psutil.Popen(
            [*server.command, str(port)],
            cwd=folder,  # as the environment, without the configuration of whoever runs this
            env=_clean(os.environ) | server.environment,
            stdout=said,
            stderr=said,
        )
        try:
            if core is not None:
                process.cpu_affinity([core])
            _wait(process, port, server.ready, Path(said.name))
            pids = {server.name: process.pid}
            for child in process.children():
                pids["engine"] = child.pid
                if others is not None:
                    child.cpu_affinity([others])
            yield replace(server, port=port, pids=pids)
        finally:
            _end(process)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(("VOICE_BRIDGE_", "TWILIO_"))}


def _wait(process: psutil.Popen, port: int, path: str, said: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    last = said.read_text().strip().splitlines()[-1:] or ["it said nothing"]
    raise Unavailable(f"{process.args[0]} does not start: {last[0]}")


def _end(process: psutil.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
