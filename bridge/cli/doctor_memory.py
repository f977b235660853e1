"""What `voice-bridge doctor` says of memory. Nothing is made, changed or fetched by looking."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rich import filesize

from ...engines import registry
from ...engines.hardware import GB, Machine
from ...engines.moshi.config import ModelError
from ..config.memory import Memory
from ..memory import begin, ladder
from ..memory.callers import NoKey, load_key
from ..memory.database import StoreError
from ..memory.llm import NoAnswer, models
from ..memory.store import StoreStats
from ..memory.wire import Endpoint
from . import memory_store
from .finding import Row, State
from .memory_store import counted

SECONDS = 3.0  # that a libSQL server may take to answer: one that is well needs a hundredth of it
MEANWHILE = "Calls go on without memory meanwhile."


def check_memory(memory: Memory, machine: Machine, choice: registry.Choice) -> Iterator[Row]:
    """`choice` is the engine beside which a language model must find room."""
    if memory.enabled == "off":
        yield _row("Callers", "ok", "nothing is remembered: memory.enabled = off")
        return
    if lacks := begin.missing(memory, choice):
        state: State = "problem" if memory.enabled == "on" else "note"
        remedy = f"`{begin.remedy(lacks)}`; memory.enabled = off if that is meant."
        yield _row("Callers", state, f"nothing can be remembered: {', '.join(lacks)} not installed", remedy)
        return
    kept = f"for {memory.retention_days:g} days" if memory.retention_days else "for ever: memory.retention_days = 0"
    yield _row("Callers", "ok", f"remembered {kept}")
    store, counts = check_store(memory)
    yield store
    yield check_key(memory, counts)
    yield check_ear(memory, choice)
    yield check_embedder(memory, counts)
    yield from check_thinker(memory, begin.model(machine, choice))


def check_store(memory: Memory) -> tuple[Row, StoreStats | None]:
    """Whether what is remembered can be had, and how much that is; None when there is none yet, or it cannot."""
    protection = memory_store.encryption(memory)
    if not memory_store.remote(memory):
        path = Path(memory.store)
        if trouble := _unwritable(path):
            remedy = f"Let this user write there, or set memory.store to another file. {MEANWHILE}"
            return _row("Store", "note", trouble, remedy), None
        if not path.exists():
            return _row("Store", "ok", f"{path}: none yet, the first call makes it, {protection}"), None
    try:
        counts = _counts(memory)
    except StoreError as error:
        return _row("Store", "note", str(error), f"Correct that, or memory.store. {MEANWHILE}"), None
    size = memory_store.size(memory)
    held = f"{counted(counts.memories, 'memory')} of {counted(counts.callers, 'caller')}"
    held += f", {filesize.decimal(size)}" if size is not None else ""
    return _row("Store", "ok", f"{memory.store}: {held}; {protection}"), counts


def _unwritable(path: Path) -> str:
    """Why a file cannot be written, or made, tried in its folder or in the one where that would be made."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return f"{path} cannot be written: {there}: {error.strerror}"
    return f"{path} may not be written" if path.exists() and not os.access(path, os.W_OK) else ""


def _counts(memory: Memory) -> StoreStats:
    with closing(memory_store.connect(memory, seconds=SECONDS)) as store:
        return store.stats()


def check_key(memory: Memory, counts: StoreStats | None) -> Row:
    """With what callers' numbers are hashed."""
    file = memory_store.key_file(memory)
    if file and not file.exists():
        if counts and counts.memories:
            remedy = f"Restore it from a copy: with a new one nobody who called before is known. {MEANWHILE}"
            return _row("Key", "note", f"{file} is not there, with which callers' numbers are hashed", remedy)
        return _row("Key", "ok", f"callers' numbers are hashed with {file}, which the first start makes")
    try:
        load_key(memory.key.get_secret_value(), memory.store)
    except NoKey as error:
        return _row("Key", "note", str(error), MEANWHILE)
    return _row("Key", "ok", f"callers' numbers are hashed with {file or 'memory.key'}; keep a copy of it")


def check_ear(memory: Memory, choice: registry.Choice) -> Row:
    if choice.hears:
        return _row("Ear", "ok", f"none is needed: the engine {choice.name} tells what callers say")
    if memory.ear == "off":
        remedy = "Set memory.ear = moonshine for callers to be heard."
        return _row("Ear", "note", "off: what callers say is not heard, so nothing of it is remembered", remedy)
    if memory.ear == "moonshine":
        return _row("Ear", "ok", "moonshine, on this machine's processor; its model is installed with it")
    try:
        folder = registry.at_hand(memory.ear_model)
    except ModelError as error:
        return _row("Ear", "note", str(error), f"Correct memory.ear_model. {MEANWHILE}")
    if not folder:
        remedy = f"Fetch it before: `voice-bridge download {memory.ear_model}`."
        return _row("Ear", "note", f"kyutai: {memory.ear_model} is not on this disk", remedy)
    return _row("Ear", "ok", f"kyutai: {memory.ear_model} in {folder}")


def check_embedder(memory: Memory, counts: StoreStats | None) -> Row:
    """Whether it can be had, and whether the memories have its vectors."""
    name = memory.embedder
    if "://" in name:
        url, _, model = name.partition("#")
        try:
            asyncio.run(models(Endpoint(url, model, memory.embedder_key.get_secret_value()), ladder.LOOK))
        except NoAnswer as error:
            if error.reason in ("late", "unreachable"):
                remedy = f"Start that server, or correct memory.embedder. {MEANWHILE}"
                return _row("Embedder", "note", f"{url} {error}", remedy)
    if counts and counts.embedder not in ("", name):
        text = f"{name}, but the vectors of {counted(counts.memories, 'memory')} are by {counts.embedder}"
        remedy = f"The next start makes them anew; memory.embedder = {counts.embedder} would keep them."
        return _row("Embedder", "note", text, remedy)
    if counts and counts.vectorless:
        text = f"{name}; the next start makes vectors for {counted(counts.vectorless, 'memory')} without one"
        return _row("Embedder", "ok", text)
    return _row("Embedder", "ok", name)


def check_thinker(memory: Memory, choice: ladder.Choice) -> Iterator[Row]:
    """What judges memories, and the language model to ask: of this machine's level, beside the engine."""
    rung = choice.rung
    if memory.thinker == "rules":
        yield _row("Thinker", "ok", "rules; no language model is asked")
        own = f"`ollama pull {rung.ollama}` ({rung.weights / GB:.1f} GB), " if rung.ollama else ""
        remedy = f"To ask {rung.model if own else 'an API'}: {own}set memory.llm.url, and memory.thinker = hybrid."
        yield _row("LLM", "ok", choice.why, remedy)
        return
    try:
        endpoints = begin.endpoints(memory, rung)
    except begin.NoModel as error:
        yield _row("Thinker", "problem", str(error), "Or take memory.thinker = rules.")
        return
    asked = "a language model where the rules are unsure" if memory.thinker == "hybrid" else "a language model"
    yield _row("Thinker", "ok", f"{memory.thinker}: {asked}; the rules alone when it does not answer in time")
    for name, endpoint, told in zip(
        ("LLM", "Fallback"), endpoints, asyncio.run(_look(choice, endpoints)), strict=False
    ):
        yield check_model(name, memory, endpoint, told)


async def _look(choice: ladder.Choice, endpoints: tuple[Endpoint, ...]) -> list[ladder.Description]:
    return await asyncio.gather(*(ladder.describe(choice, endpoint) for endpoint in endpoints))


def check_model(name: str, memory: Memory, endpoint: Endpoint, told: ladder.Description) -> Row:
    """Whether an endpoint answers and has the model that it is to be asked for."""
    context = f"; serve it with {told.context:,} tokens of context" if told.context else ""
    seconds = memory.llm.seconds or told.seconds
    text = (
        f"{told.model} at {endpoint.url}{'' if told.answers else ', which does not answer'}: {told.why}{context};"
        f" a question takes {told.tokens:,} tokens at most, an answer {seconds:g} s"
    )
    remedy = f"{told.remedy[:1].upper()}{told.remedy[1:]}." if told.remedy else ""
    if name == "Fallback":
        text, remedy = (each.replace("memory.llm.", "memory.fallback.") for each in (text, remedy))
    return _row(name, "note" if remedy else "ok", text, remedy)


def _row(name: str, state: State, text: str, remedy: str = "") -> Row:
    return Row("Memory", name, state, text, remedy)
