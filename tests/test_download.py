"""`voice-bridge download`: a model comes whole from a hub on loopback, whatever happens on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

constants = pytest.importorskip("huggingface_hub.constants")
pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from tests.checkpoints import ORACLE, load, write  # noqa: E402
from voice_bridge.bridge.cli import app  # noqa: E402
from voice_bridge.engines.moshi import download  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint  # noqa: E402
from voice_bridge.engines.moshi.config import ModelError  # noqa: E402

REPO = "kyutai/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 100_000  # bytes from which the hub keeps a file outside git
VOICE_BRIDGE = Path(sys.executable).with_name("voice-bridge")


class Hub:
    """The part of the hub that serves models: `async with Hub() as hub`, then put folders into `hub.repos`.

    Large files come from another host name, as they do from the real one. `allowance` are bytes after which the next
    answers break off; `spoiled` files arrive with another last byte; without `ranges` every answer is the whole file.
    A repository in `gated` takes the token "friend".
    """

    def __init__(self) -> None:
        self.url = self.elsewhere = ""
        self.repos: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.allowance: list[int] = []
        self.spoiled: set[str] = set()
        self.ranges = True
        self.sent: list[tuple[str, int]] = []  # file, and the first byte of what was asked for
        self.strangers_saw: set[str] = set()  # tokens that came along to the other host
        app = web.Application()
        app.router.add_get("/api/models/{owner}/{name}", self._info)
        app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self._info)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{file}", self._resolve)
        app.router.add_get("/blobs/{owner}/{name}/{file}", self._blob)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Hub:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        self.url, self.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _refusal(self, request: web.Request) -> web.Response | None:
        repo = f"{request.match_info['owner']}/{request.match_info['name']}"
        if repo not in self.repos:
            return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        if request.match_info.get("revision", "main") not in ("main", COMMIT):
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return None

    async def _info(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        repo = f"{request.match_info['owner']}/{request.match_info['name']}"
        files = [self._listed(path) for path in sorted(self.repos[repo].iterdir())]
        return web.json_response({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": files, "private": False})

    def _listed(self, path: Path) -> dict[str, Any]:
        digest, size = blob(path), path.stat().st_size
        large = {"lfs": {"sha256": digest, "size": size, "pointerSize": 130}} if size >= LARGE else {}
        return {"rfilename": path.name, "size": size, "blobId": digest if not large else "0" * 40, **large}

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        repo, file = f"{request.match_info['owner']}/{request.match_info['name']}", request.match_info["file"]
        if repo in self.gated and request.headers.get("Authorization") != "Bearer friend":
            return web.Response(status=401, headers={"X-Error-Code": "GatedRepo"})
        path = self.repos[repo] / file
        if not path.exists():
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        size = path.stat().st_size
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{blob(path)}"', "X-Linked-Size": str(size)}
        if size < LARGE:
            return await self._send(request, path, headers)
        headers |= {"X-Linked-ETag": f'"{blob(path)}"', "Location": f"{self.elsewhere}/blobs/{repo}/{file}"}
        return web.Response(status=302, headers=headers)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        self.strangers_saw |= {request.headers.get("Authorization", "")} - {""}
        repo, file = f"{request.match_info['owner']}/{request.match_info['name']}", request.match_info["file"]
        return await self._send(request, self.repos[repo] / file, {})

    async def _send(self, request: web.Request, path: Path, headers: dict[str, str]) -> web.StreamResponse:
        data = self._data(path)
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(data))})
        asked = request.http_range.start if self.ranges else None
        first = asked or 0
        self.sent.append((path.name, first))
        answer = web.StreamResponse(status=200 if asked is None else 206, headers=headers)
        answer.content_length = len(data) - first
        await answer.prepare(request)
        if len(data) >= LARGE and self.allowance:
            await answer.write(data[first : first + self.allowance.pop(0)])
            assert request.transport
            request.transport.close()
        else:
            await answer.write(data[first:])
        return answer

    def _data(self, path: Path) -> bytes:
        data = path.read_bytes()
        return data[:-1] + bytes([data[-1] ^ 1]) if path.name in self.spoiled else data


def blob(path: Path) -> str:
    """The hash under which the hub keeps a file."""
    data = path.read_bytes()
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub with one model; its library's cache is in the test's folder."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    async with Hub() as server:
        server.repos[REPO] = ORACLE / "moshi"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


async def fetch(*args: Any, **options: Any) -> Path:
    return await asyncio.to_thread(download.fetch, *args, **options)


async def opened(model: str, **options: Any) -> Checkpoint:
    return await asyncio.to_thread(Checkpoint.open, model, **options)


async def run(*args: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["download", *args])


def names(server: Hub) -> list[str]:
    return [file for file, _ in server.sent]


async def test_only_the_files_that_are_needed_come_and_then_open(server: Hub) -> None:
    folder = await fetch(REPO)
    assert folder.name == COMMIT
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "mimi.safetensors",
        "mimi_config.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    assert names(server)[0] == "config.json"
    assert len(names(server)) == 5
    assert (folder / "model.safetensors").read_bytes() == (ORACLE / "moshi" / "model.safetensors").read_bytes()
    assert len((await opened(REPO)).lm()) == 129


async def test_what_is_in_the_cache_is_used_without_asking_the_hub(server: Hub) -> None:
    folder = await fetch(REPO)
    server.repos.clear()
    assert await asyncio.to_thread(download.find, REPO) == folder
    assert await asyncio.to_thread(download.find, f"{REPO}@main") == folder


async def test_what_is_not_in_the_cache_is_fetched_when_it_is_opened(server: Hub) -> None:
    seen = []
    found = await opened(REPO, report=lambda what, done, total: seen.append((what, done, total)))
    size = (ORACLE / "moshi" / "model.safetensors").stat().st_size
    assert ("fetching model.safetensors", size, size) in seen
    assert len(found.lm()) == 129


async def test_a_second_download_only_verifies(server: Hub) -> None:
    folder = await fetch(REPO)
    server.sent.clear()
    assert await fetch(REPO) == folder
    assert not server.sent


async def test_a_connection_that_breaks_is_taken_up_again(server: Hub) -> None:
    server.allowance = [100_000, 0, 60_000]
    folder = await fetch(REPO)
    assert (folder / "tokenizer.model").read_bytes() == (ORACLE / "moshi" / "tokenizer.model").read_bytes()
    pieces = [first for file, first in server.sent if file == "tokenizer.model"]
    assert pieces == [0, 100_000, 100_000, 160_000]


async def test_a_hub_that_knows_no_ranges_sends_the_file_again(server: Hub) -> None:
    server.ranges = False
    server.allowance = [100_000]
    folder = await fetch(REPO)
    assert names(server).count("tokenizer.model") == 2
    assert (folder / "tokenizer.model").read_bytes() == (ORACLE / "moshi" / "tokenizer.model").read_bytes()


async def test_an_interrupted_download_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "fetching model.safetensors" and done < total:
            raise Interrupted

    with pytest.raises(Interrupted):
        await fetch(REPO, report=interrupt)
    (left,) = (tmp_path / "cache").rglob("*.part")
    there = left.stat().st_size
    assert there == download.CHUNK
    server.sent.clear()
    folder = await fetch(REPO)
    assert server.sent == [("model.safetensors", there)]
    assert (folder / "model.safetensors").read_bytes() == (ORACLE / "moshi" / "model.safetensors").read_bytes()
    assert not list((tmp_path / "cache").rglob("*.part"))


async def test_a_hub_that_sends_nothing_is_given_up(server: Hub) -> None:
    server.allowance = [0] * 100
    with pytest.raises(ModelError, match="the hub does not answer"):
        await fetch(REPO)
    assert len(server.sent) < 12


async def test_what_arrives_damaged_is_thrown_away(server: Hub, tmp_path: Path) -> None:
    server.spoiled = {"model.safetensors"}
    with pytest.raises(ModelError, match=r"model\.safetensors arrived damaged and was removed"):
        await fetch(REPO)
    assert not list((tmp_path / "cache").rglob("*.part"))
    server.spoiled.clear()
    assert len(Checkpoint.open(await fetch(REPO)).lm()) == 129


@pytest.mark.parametrize("to", [False, True], ids=["cache", "folder"])
async def test_a_damaged_file_is_found_and_fetched_again(to: bool, server: Hub, tmp_path: Path) -> None:
    folder = await fetch(REPO, folder=tmp_path / "here" if to else None)
    file = (folder / "mimi.safetensors").resolve()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    server.sent.clear()
    await fetch(REPO, folder=tmp_path / "here" if to else None)
    assert server.sent == [("mimi.safetensors", 0)]
    assert (folder / "mimi.safetensors").read_bytes() == (ORACLE / "moshi" / "mimi.safetensors").read_bytes()


async def test_files_of_another_repository_come_along(server: Hub, tmp_path: Path) -> None:
    tiny = write("moshi", tmp_path / "hub", load("moshi"), mimi_name="hf://kyutai/mimi/codec.safetensors")
    codec = tmp_path / "mimi"
    codec.mkdir()
    (tiny / "mimi.safetensors").rename(codec / "codec.safetensors")
    server.repos |= {REPO: tiny, "kyutai/mimi": codec}
    await fetch(REPO)
    assert len((await opened(REPO)).mimi()) == 118
    here = await fetch(REPO, folder=tmp_path / "here")
    assert Checkpoint.open(here).codec == here / "codec.safetensors"


async def test_all_shards_come(server: Hub, tmp_path: Path) -> None:
    tensors = list(load("moshi").items())
    shards = {"model-1.safetensors": dict(tensors[::2]), "model-2.safetensors": dict(tensors[1::2])}
    for file, part in shards.items():
        server.repos[REPO] = write("moshi", tmp_path / "hub", part, file, moshi_name="model.safetensors")
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(Checkpoint.open(await fetch(REPO)).lm()) == 129


async def test_a_gated_model_needs_consent_and_a_token_that_no_other_host_sees(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated.add(REPO)
    with pytest.raises(ModelError, match=r"is gated: accept its terms at https://huggingface\.co/kyutai/tiny"):
        await fetch(REPO)
    monkeypatch.setenv("HF_TOKEN", "friend")
    await fetch(REPO)
    assert "model.safetensors" in names(server)
    assert not server.strangers_saw


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("kyutai/nothing", "kyutai/nothing: there is no such folder, and no such repository on the hub"),
        (f"{REPO}@v9", "kyutai/tiny has no revision v9"),
        ("nothing", "nothing: there is no such folder, and a repository is written owner/name"),
        ("a/" + "b" * 100, "a/bbb"),
        ("./kyutai/tiny", "./kyutai/tiny: there is no such folder"),
    ],
)
async def test_what_is_not_there_is_said_in_one_line(asked: str, complaint: str, server: Hub) -> None:
    result = await run(asked)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"voice-bridge: {complaint}")
    assert result.stderr.count("\n") == 1


async def test_a_model_without_a_file_that_it_names_is_not_begun(server: Hub, tmp_path: Path) -> None:
    server.repos[REPO] = write("moshi", tmp_path / "hub", load("moshi"))
    (tmp_path / "hub" / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match=r"kyutai/tiny has no tokenizer\.model"):
        await fetch(REPO)
    assert names(server) == ["config.json"]


async def test_a_text_to_speech_model_is_not_downloaded(server: Hub, tmp_path: Path) -> None:
    server.repos[REPO] = write("moshi", tmp_path / "hub", load("moshi"), model_type="tts")
    with pytest.raises(ModelError, match="text-to-speech"):
        await fetch(REPO)
    assert names(server) == ["config.json"]


async def test_a_full_disk_is_seen_before_anything_comes(
    server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    with pytest.raises(ModelError, match=r"3,0\d\d,\d\d\d bytes have to come, and 1,000 are free in /"):
        await fetch(REPO, folder=tmp_path / "here")
    assert names(server) == ["config.json"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    await fetch(REPO, folder=tmp_path / "here")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    await fetch(REPO, folder=tmp_path / "here")  # all is there


async def test_without_the_hub_only_the_cache_counts(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="the hub was not asked, HF_HUB_OFFLINE is set"):
        await fetch(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = await fetch(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert await fetch(REPO) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert await fetch(REPO) == folder
    with pytest.raises(ModelError, match="the hub does not answer"):
        await fetch(REPO, folder=folder)


async def test_a_name_that_was_never_published_is_taken_for_the_one_that_was(
    server: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    server.repos["kyutai/moshika-mlx-q4"] = ORACLE / "moshi"
    folder = await fetch("kyutai/moshika-pytorch-q4")
    assert "models--kyutai--moshika-mlx-q4" in folder.parts
    (line,) = caplog.messages
    assert line.startswith("kyutai/moshika-pytorch-q4 is not published; taking kyutai/moshika-mlx-q4")


async def test_two_downloads_of_a_file_do_not_mix(server: Hub, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "here").mkdir()
    with (tmp_path / "here" / "model.safetensors.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="another process is downloading model"):
            await fetch(REPO, folder=tmp_path / "here")


# The verb


async def test_the_verb_says_what_came_and_how_to_use_it(server: Hub, tmp_path: Path) -> None:
    result = await run(REPO)
    assert result.exit_code == 0, result.output
    assert "moshi, 506,752 parameters, F32, 2.7 MB, context of 16 frames (1 s)" in result.stdout
    assert f'[voice]\nmodel = "{REPO}"' in result.stdout
    result = await run(REPO, "--to", str(tmp_path / "here"), "--json")
    assert json.loads(result.stdout) == {
        "model": str(tmp_path / "here"),
        "folder": str(tmp_path / "here"),
        "kind": "moshi",
        "parameters": 506_752,
        "form": "F32",
        "bytes": 2_650_324,
        "context_frames": 16,
        "context_seconds": 1.28,
    }


async def test_a_local_model_is_checked_without_any_hub(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"))
    result = await run("--check", str(folder), "--values", "--json")
    assert json.loads(result.stdout)["parameters"] == 506_752
    tensors = load("moshi")
    tensors["linears.3.weight"][1, 1] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    assert (await run("--check", str(folder))).exit_code == 0
    result = await run("--check", str(folder), "--values")
    assert result.exit_code == 1
    assert "linears.3.weight of the language model holds numbers that are not finite" in result.stderr


@pytest.mark.parametrize("args", [[], ["a/b", "--check", "."]])
async def test_the_verb_takes_a_repository_or_a_folder(args: list[str]) -> None:
    result = await run(*args)
    assert result.exit_code == 2
    assert "name a repository, or a folder with --check" in result.stderr


async def test_the_environment_names_hub_cache_and_token(server: Hub, tmp_path: Path) -> None:
    """As a process of its own, as it is used."""
    server.gated.add(REPO)
    surroundings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "friend"}

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | surroundings | more
        return subprocess.run(
            [VOICE_BRIDGE, "download", REPO], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    done = await asyncio.to_thread(start)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "home" / "hub") in done.stdout
    server.repos.clear()
    done = await asyncio.to_thread(lambda: start(HF_HUB_OFFLINE="1"))
    assert done.returncode == 0, done.stderr
    assert "HF_HUB_OFFLINE is set; taking what is in the cache" in done.stderr
