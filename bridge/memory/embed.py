"""Texts to vectors: the built-in embedder, an OpenAI-compatible endpoint, or a sentence-transformers model."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

BATCH = 64  # texts in a request: under the limits of the endpoints in use, and small enough to answer in seconds
TIMEOUT = 5.0  # seconds for a batch: more than a busy endpoint takes, and memory of all calls waits for it

CHUNK = 1 << 16  # bytes read between two looks at the clock
LONGEST = 1 << 24  # bytes of an answer: 64 vectors of 4096 numbers take six million

SENTENCES = "sentence-transformers:"


class NoEmbedding(Exception):
    """The embedder cannot be had or did not answer; the message says why and never holds a caller's words."""


class Embedder(Protocol):
    """Turns texts into vectors whose product says how near they are."""

    @property
    def name(self) -> str:
        """What a store writes down: vectors of two names cannot be compared."""

    @property
    def dim(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[n, dim], of unit length; an empty text gives zeros. Raises NoEmbedding."""


def embedder(asked: str, key: str = "") -> Embedder:
    """The embedder of a name: `wordllama`, `http(s)://host/v1#model` or `sentence-transformers:NAME_OR_FOLDER`."""
    if asked == "wordllama":
        return Wordllama()
    if asked.startswith(("http://", "https://")):
        return Endpoint(asked, key)
    if asked.startswith(SENTENCES):
        return Sentences(asked)
    raise NoEmbedding(f"no embedder {asked!r}: use wordllama, http(s)://host/v1#model or {SENTENCES}NAME")


class Wordllama:
    """The model in wordllama's wheel: 256 dimensions, tens of microseconds a sentence, no network."""

    name = "wordllama"

    def __init__(self) -> None:
        self._model = wordllama_model()
        self.dim = int(self._model.embedding.shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        return unit(self._model.embed([text.lower() for text in texts]))


@cache
def wordllama_model() -> Any:
    """The one of this process; raises NoEmbedding."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama
    except ImportError as error:
        raise NoEmbedding("wordllama is not installed: pip install 'voice-bridge[memory]'") from error
    finally:  # importing it sets up logging for the whole process
        root.handlers[:] = handlers
        root.setLevel(level)
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


class Endpoint:
    """Anything that answers `POST /embeddings` as OpenAI does."""

    def __init__(self, asked: str, key: str) -> None:
        self.name = asked
        base, _, self._model = asked.partition("#")
        if not self._model:
            raise NoEmbedding(f"which model at {asked}? name it after a #: {asked}#MODEL")
        self._url = base.rstrip("/") + "/embeddings"
        self._key = key

    @cached_property
    def dim(self) -> int:
        return len(self._ask(["dimensions"])[0])

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), self.dim), np.float32)
        full = [at for at, text in enumerate(texts) if text.strip()]  # some endpoints refuse an empty one
        for start in range(0, len(full), BATCH):
            batch = full[start : start + BATCH]
            found[batch] = self._ask([texts[at] for at in batch], self.dim)
        return unit(found)

    def _ask(self, texts: list[str], dim: int = 0) -> list[list[float]]:
        request = urllib.request.Request(
            self._url,
            msgspec.json.encode({"model": self._model, "input": texts, "encoding_format": "float"}),
            {"Content-Type": "application/json"},
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                answer = msgspec.json.decode(_whole(response), type=_Answer)
        except urllib.error.HTTPError as error:
            error.close()  # unread: its body may hold what was sent
            raise NoEmbedding(f"{self._url} answered {error.code}{_remedy(error.code)}") from None
        except msgspec.MsgspecError:
            raise NoEmbedding(f"{self._url} did not answer as an /embeddings endpoint does") from None
        except OSError as error:
            raise NoEmbedding(f"{self._url} cannot be reached: {getattr(error, 'reason', error)}") from None
        vectors = [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
        dims = {len(vector) for vector in vectors}
        if len(vectors) != len(texts) or len(dims) != 1 or (dim and dims != {dim}):
            raise NoEmbedding(f"{self._url} answered {len(vectors)} vectors of {dims} numbers for {len(texts)} texts")
        return vectors


def _whole(response: http.client.HTTPResponse) -> bytes:
    """All of an answer, in time: `timeout` by itself is for each piece of it."""
    until, body = time.monotonic() + TIMEOUT, bytearray()
    while piece := response.read1(CHUNK):
        body += piece
        if time.monotonic() > until or len(body) > LONGEST:
            raise TimeoutError("it took too long, or said too much")
    return bytes(body)


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Answer(msgspec.Struct):
    data: list[_Row]


def _remedy(code: int) -> str:
    if code in {401, 403}:
        return ": is the key right?"
    return ": is the address, up to /v1, and the model's name right?" if code in {400, 404, 405} else ""


class Sentences:
    """A sentence-transformers model, by name or folder."""

    def __init__(self, asked: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise NoEmbedding(
                "sentence-transformers is not installed: pip install 'voice-bridge[sentences]'"
            ) from error
        self.name = asked
        self._model: Any = SentenceTransformer(asked.removeprefix(SENTENCES))
        self.dim = int(self._model.get_sentence_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = self._model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        empty = [at for at, text in enumerate(texts) if not text.strip()]
        found[empty] = 0
        return unit(found)


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows of length one; rows of zeros stay."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
