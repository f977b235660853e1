"""Texts become vectors of unit length: built in without a network, or from an endpoint that is really asked."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from voice_bridge.bridge.memory.embed import BATCH, Embedder, NoEmbedding, embedder

DIM = 8
SECRET = "the gate code is 4417"


def of_text(text: str) -> list[float]:
    """A vector that is always the same for a text, of any length."""
    return [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.change: Callable[[list[dict[str, Any]]], Any] = lambda data: {"data": data}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def texts(self) -> list[str]:
        return [text for asked in self.asked for text in asked["input"]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.keys.append(self.headers["Authorization"])
        data = [{"index": at, "embedding": of_text(text)} for at, text in enumerate(asked["input"])]
        right = self.path == "/v1/embeddings" and self.server.status == 200
        body = json.dumps(self.server.change(data) if right else {"error": asked["input"]}).encode()
        self.send_response(self.server.status if self.path == "/v1/embeddings" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def built_in() -> Embedder:
    pytest.importorskip("wordllama")
    return embedder("wordllama")


def test_the_built_in_embedder_brings_texts_of_one_meaning_together(built_in: Embedder) -> None:
    film, movie, dog = built_in.embed(["I love this film", "This movie is my favourite", "The dog needs his dinner"])
    assert film @ movie > film @ dog + 0.2


def test_vectors_have_unit_length_and_an_empty_text_gives_zeros(built_in: Embedder) -> None:
    found = built_in.embed(["My gate code is 4417.", "", "Anna"])
    assert found.shape == (3, built_in.dim)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), [1, 0, 1], atol=1e-5)


def test_case_makes_no_difference_to_the_built_in_embedder(built_in: Embedder) -> None:
    small, large = built_in.embed(["the garden gate", "The Garden GATE"])
    assert np.allclose(small, large)


def test_the_built_in_embedder_needs_no_network(built_in: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    from voice_bridge.bridge.memory import embed

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a name was looked up"))
    embed.wordllama_model.cache_clear()
    assert np.allclose(embedder("wordllama").embed(["hello"]), built_in.embed(["hello"]))


def test_loading_the_built_in_embedder_leaves_logging_alone() -> None:
    pytest.importorskip("wordllama")
    from voice_bridge.bridge.memory import embed

    for name in [name for name in sys.modules if name.partition(".")[0] == "wordllama"]:
        del sys.modules[name]
    embed.wordllama_model.cache_clear()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        embedder("wordllama")
        assert root.handlers == []
        assert root.level == level
    finally:
        root.handlers[:] = before


def test_an_endpoint_is_asked_in_batches_and_answers_in_any_order(server: Server) -> None:
    server.change = lambda data: {"data": data[::-1]}
    texts = [f"text {number}" for number in range(BATCH + 3)]
    maker = embedder(f"{server.url}#small", "key")
    found = maker.embed(texts)
    wanted = np.array([of_text(text) for text in texts])
    assert np.allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
    assert [len(asked["input"]) for asked in server.asked[1:]] == [BATCH, 3]
    assert {asked["model"] for asked in server.asked} == {"small"}
    assert set(server.keys) == {"Bearer key"}
    assert (maker.name, maker.dim) == (f"{server.url}#small", DIM)


def test_an_endpoint_without_a_key_gets_none(server: Server) -> None:
    embedder(f"{server.url}#small").embed(["hello"])
    assert set(server.keys) == {None}


def test_an_empty_text_is_not_sent(server: Server) -> None:
    found = embedder(f"{server.url}#small").embed(["", "hello", "  "])
    assert np.allclose(np.linalg.norm(found, axis=1), [0, 1, 0], atol=1e-5)
    assert not {"", "  "} & set(server.texts)


@pytest.mark.parametrize(
    ("status", "change", "says"),
    [
        (401, None, "answered 401: is the key right?"),
        (404, None, "answered 404: is the address, up to /v1, and the model's name right?"),
        (500, None, "answered 500"),
        (200, lambda data: {"vectors": data}, "did not answer as an /embeddings endpoint does"),
        (200, lambda data: "no", "did not answer as an /embeddings endpoint does"),
        (200, lambda data: {"data": data[:-1]}, "answered 1 vectors"),
        (200, lambda data: {"data": [row | {"embedding": row["embedding"][:3]} for row in data]}, r"of \{3\} numbers"),
    ],
)
def test_a_failing_endpoint_is_named_and_no_words_are_told(
    server: Server, status: int, change: Callable[[Any], Any] | None, says: str
) -> None:
    maker = embedder(f"{server.url}#small")
    assert maker.dim == DIM
    server.status = status
    server.change = change or server.change
    with pytest.raises(NoEmbedding, match=says) as failed:
        maker.embed([SECRET, "hello"])
    assert server.url in str(failed.value)
    assert SECRET not in repr(failed.value) + repr(failed.value.__cause__)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(NoEmbedding, match=f"{url}/embeddings cannot be reached: .*refused"):
            embedder(f"{url}#small").embed(["hello"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("word2vec", "no embedder 'word2vec': use wordllama, http"),
        ("http://localhost:1/v1", "which model at http://localhost:1/v1"),
    ],
)
def test_an_embedder_that_cannot_be_meant_is_refused(asked: str, says: str) -> None:
    with pytest.raises(NoEmbedding, match=says):
        embedder(asked)


def test_a_sentence_transformer_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(NoEmbedding, match=r"pip install 'voice-bridge\[sentences\]'"):
        embedder("sentence-transformers:all-MiniLM-L6-v2")
