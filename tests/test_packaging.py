"""What people install: a wheel and an sdist with every module, and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("bridge", "codecs", "engines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BUILD = """
import sys
from setuptools.build_meta import build_sdist, build_wheel
{"wheel": build_wheel, "sdist": build_sdist}[sys.argv[1]](sys.argv[2])
"""


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build as a front end does, without the isolation that would need a network."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, out], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "tree"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "recordings", "records")
    return shutil.copytree(ROOT, copy, ignore=unwanted)


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


def names(wheel: Path) -> set[str]:
    return {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    """Data counts too: what package-data forgets is missed here."""
    ours = {
        f"voice_bridge/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names(wheel) == ours


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["Name"] == "voice-bridge"
    assert said["Version"] == PROJECT["version"]
    assert said["License-Expression"] == "MIT"
    assert said["Requires-Python"] == ">=3.11"
    needed = [need for need in said.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert len(needed) == len(PROJECT["dependencies"])
    with ZipFile(wheel) as archive:
        told = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert "licenses/LICENSE" in told
        assert b"voice-bridge = voice_bridge.bridge.cli:main" in archive.read(told["entry_points.txt"])


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Unpacked in front of the editable install, its modules find one another."""
    ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.argv = ['voice-bridge', '--help'];"
        "import voice_bridge.bridge.cli as cli; assert cli.__file__.startswith(sys.path[0]), cli.__file__;"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_the_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tree, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    assert names(build("wheel", unpacked, tmp_path / "wheel")) == names(wheel)
