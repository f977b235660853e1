"""Models of the Hugging Face hub: found in its cache, or fetched into it, resumed where they broke off, and verified.

The hub's library keeps the cache, the token and the offline setting. It begins a broken file again from nothing, which
is why the bytes are fetched here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.error import HTTPError, URLError

from . import config, names
from .config import Json, ModelError

log = logging.getLogger("voice_bridge.model")

Report: TypeAlias = Callable[[str, int, int], None]
"""Told of progress: of what ("fetching model.safetensors"), bytes so far, bytes in all."""

# Often asked for, never published; the others hold the same models.
INSTEAD = {f"kyutai/{voice}-pytorch-q4": f"kyutai/{voice}-mlx-q4" for voice in ("moshika", "moshiko")}

CHUNK = 1 << 20  # bytes a read
TRIES = 5  # attempts in a row that bring no byte; a download that gets on may break as often as it likes
PAUSE = 1.0  # seconds before the next attempt
TIMEOUT = 30.0  # seconds of silence after which a connection is dead
GIT_DIGITS = 40  # of the hash of a small file; large ones have a SHA-256
PARTIAL_CONTENT = 206
LATER = (408, 429, 500, 502, 503, 504)  # answers after which another attempt may do
DENIED = (401, 403)
OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
BROKEN = (HTTPException, URLError, ConnectionError, TimeoutError)


class Unreachable(ModelError):
    """The hub does not answer; what is in its cache may still do."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def find(model: str | Path, revision: str | None = None, report: Report = quiet) -> Path:
    """The folder of a model: a local one, or the hub's cache, or else a download.

    What is complete in the cache is taken as it is, without asking the hub: a service must start without it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    repo, revision = identify(str(model), revision)
    with _explained(_hub(repo), repo, revision):
        found = cached(repo, revision)
    return found or fetch(repo, revision, report=report)


def identify(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """Repository and revision of owner/name or owner/name@revision."""
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(.+))?", model)
    if not found:
        raise ModelError(f"{model}: there is no such folder, and a repository is written owner/name")
    repo = INSTEAD.get(found[1], found[1])
    if repo != found[1]:
        log.warning("%s is not published; taking %s, which is the same model in 4 bits", found[1], repo)
    return repo, revision or found[2]


def cached(repo: str, revision: str | None = None) -> Path | None:
    """The model's folder in the hub's cache, if all its files are there."""
    hub = _hub(repo)
    for name in ("config.json", *names.WEIGHTS):
        path = hub.try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(path, str):
            folder = Path(path).parent
            return folder if all(path.exists() for path in contents(folder).values()) else None
    return None


def contents(folder: Path) -> dict[str, Path]:
    """Where the files of a model lie, by the names that its config.json gives them; some may be missing."""
    path = folder / "config.json"
    raw = config.settings(path) if path.exists() else {}
    files = names.files(raw, {path.name for path in folder.iterdir()})
    found = {name: _locate(folder, name) for name in files}
    for index in [path for path in found.values() if path.name.endswith(names.INDEX) and path.exists()]:
        found |= {name: folder / name for name in names.shards(index)}
    return found


def _locate(folder: Path, name: str) -> Path:
    other = names.elsewhere(name)
    if other is None:
        return folder / name
    beside = folder / other[1]
    if beside.exists():
        return beside
    path = _hub(other[0]).try_to_load_from_cache(*other)
    return Path(path) if isinstance(path, str) else beside


def fetch(model: str, revision: str | None = None, folder: Path | None = None, report: Report = quiet) -> Path:
    """Bring a model here, into the hub's cache or a folder, and verify every file; returns where it is.

    What is there already is only verified, and fetched again if it is damaged. Raises `ModelError`.
    """
    repo, revision = identify(model, revision)
    hub = _hub(repo)
    try:
        with _explained(hub, repo, revision):
            _fetch(hub, repo, revision, folder, report)
    except Unreachable as error:
        found = None if folder else cached(repo, revision)
        if found is None:
            raise
        log.warning("%s; taking what is in the cache", error)
        return found
    found = folder or cached(repo, revision)
    assert found, "what was just fetched is in the cache"
    return found


def _fetch(hub: Any, repo: str, revision: str | None, folder: Path | None, report: Report) -> None:
    main = _Repository(hub, repo, revision, folder)
    raw: Json = {}
    if "config.json" in main.files:
        raw = config.settings(main.get("config.json", report))
        config.model(raw, {})  # what cannot run here is not downloaded
    wanted: list[tuple[_Repository, str]] = []
    for name in names.files(raw, main.files):
        other = names.elsewhere(name)
        wanted.append((_Repository(hub, other[0], None, folder), other[1]) if other else (main, name))
        if name in main.files and name.endswith(names.INDEX):
            wanted += [(main, shard) for shard in names.shards(main.get(name, report))]
    for source, name in wanted:
        if name not in source.files:
            raise ModelError(f"{source.repo} has no {name}: it is no model of this kind, or is incomplete")
    _check_room(wanted)
    for source, name in wanted:
        source.get(name, report)


class _Repository:
    """One repository at one revision: what is in it, and where that goes on this machine."""

    def __init__(self, hub: Any, repo: str, revision: str | None, folder: Path | None) -> None:
        self.repo = repo
        self._hub, self._revision, self._folder = hub, revision, folder
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        self._commit: str = info.sha
        self.files = {one.rfilename: one for one in info.siblings}

    def target(self, name: str) -> Path:
        if self._folder:
            return self._folder / name
        storage = self._hub.file_download.repo_folder_name(repo_id=self.repo, repo_type="model")
        return Path(self._hub.constants.HF_HUB_CACHE, storage, "blobs", self._digest(name))

    def lacking(self, name: str) -> int:
        """Bytes of a file that have still to come."""
        target = self.target(name)
        partial = _partial(target)
        there = partial.stat().st_size if partial.exists() else 0
        return 0 if target.exists() else int(self.files[name].size) - there

    def get(self, name: str, report: Report) -> Path:
        """The file, verified; fetched if it is not there or is damaged."""
        target, digest, size = self.target(name), self._digest(name), int(self.files[name].size)
        if not _intact(target, size, digest, name, report):
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = _partial(target)
            with partial.open("ab") as file:
                self._stream(name, file, size, report)
            if not _intact(partial, size, digest, name, report):
                partial.unlink()
                raise ModelError(f"{self.repo}: {name} arrived damaged and was removed; download it again")
            partial.replace(target)
        if self._folder:
            return target
        # The library finds the bytes in its cache and enters them there under their name and revision.
        return Path(self._hub.hf_hub_download(self.repo, name, revision=self._revision))

    def _digest(self, name: str) -> str:
        one = self.files[name]
        return str(one.lfs.sha256 if one.lfs else one.blob_id)

    def _stream(self, name: str, file: IO[bytes], size: int, report: Report) -> None:
        """Append what is lacking, over as many connections as it takes."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(f"{self.repo}: another process is downloading {name}; wait for it") from error
        headers = self._hub.utils.build_hf_headers()
        url = self._hub.hf_hub_url(self.repo, name, revision=self._commit)
        failures = 0
        while (done := file.tell()) < size:
            try:
                request = urllib.request.Request(url, headers={**headers, "Range": f"bytes={done}-"})
                with _opener.open(request, timeout=TIMEOUT) as answer:
                    if answer.status != PARTIAL_CONTENT:
                        file.seek(0)
                        file.truncate()
                    while chunk := answer.read(CHUNK):
                        file.write(chunk)
                        report(f"fetching {name}", file.tell(), size)
                broken = None
            except BROKEN as error:
                if isinstance(error, HTTPError) and error.code not in LATER:
                    raise
                broken = error
            if file.tell() < size:
                failures = 0 if file.tell() > done else failures + 1
                if failures == TRIES:
                    raise broken or ConnectionError("it sends nothing")
                time.sleep(PAUSE)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The hub sends large files from other hosts, which must not see the token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request and request.host != req.host:
            request.remove_header("Authorization")
        return request


_opener = urllib.request.build_opener(_Redirects)


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _intact(path: Path, size: int, digest: str, name: str, report: Report) -> bool:
    """Whether a file is what the hub says it is, by the hash under which it is kept there."""
    if not path.exists() or path.stat().st_size != size:
        return False
    # Small files are kept by git, which hashes a heading along.
    counted = hashlib.sha1(b"blob %d\0" % size) if len(digest) == GIT_DIGITS else hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            counted.update(chunk)
            report(f"verifying {name}", file.tell(), size)
    return counted.hexdigest() == digest


def _check_room(wanted: list[tuple[_Repository, str]]) -> None:
    needed = sum(source.lacking(name) for source, name in wanted)
    folder = wanted[0][0].target(wanted[0][1])
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{needed:,} bytes have to come, and {free:,} are free in {folder}:"
            " make room, or choose another place with --to or HF_HOME"
        )


def _hub(repo: str) -> Any:
    """The hub's library, which a local folder does not need."""
    try:
        import huggingface_hub
        import huggingface_hub.file_download
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{repo} is no folder here, and the hub needs huggingface-hub: pip install 'voice-bridge[torch]'"
        ) from error
    return huggingface_hub


@contextmanager
def _explained(hub: Any, repo: str, revision: str | None) -> Iterator[None]:
    """The hub's errors in one line, with the remedy."""
    errors = hub.errors
    gated = f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and set HF_TOKEN to your token"
    try:
        yield
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(gated) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision}; without one, main is taken") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"{repo}: there is no such folder, and no such repository on the hub; for a private one set HF_TOKEN"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise Unreachable(f"{repo}: the hub was not asked, HF_HUB_OFFLINE is set") from error
    # The library's transport changes with its version; its own errors are made of the transport's.
    except (HTTPException, *errors.HfHubHTTPError.__bases__) as error:
        if isinstance(error, HTTPError) and error.code in DENIED:
            raise ModelError(gated) from error
        if isinstance(error, OSError) and error.errno in OUR_DISK:
            raise ModelError(f"{repo}: cannot be written here: {error}") from error
        reason = str(error).strip() or type(error).__name__
        raise Unreachable(f"{repo}: the hub does not answer ({reason.splitlines()[0]})") from error
