"""How well memories are found and judged, without ears and without a model, and how fast.

    python benchmarks/recall.py            the set of tests/data/recall, both halves, stage by stage; then the speed
    python benchmarks/recall.py --json     the same for programs
    python benchmarks/recall.py --misses   also every question that failed, with the stage at which it did

Everything that the callers of the set said goes through notice and scribe into a store; then every question is asked.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what one core does

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import recall_set, recall_stages  # noqa: E402
from tests.recall_stages import DAY, NOW, STAGES, Report  # noqa: E402
from voice_bridge.bridge.memory.embed import embedder  # noqa: E402
from voice_bridge.bridge.memory.kinds import Memory, Moment  # noqa: E402
from voice_bridge.bridge.memory.recall import Recall  # noqa: E402
from voice_bridge.bridge.memory.scribe import Scribe  # noqa: E402
from voice_bridge.bridge.memory.store import Store  # noqa: E402
from voice_bridge.bridge.memory.think import Rules  # noqa: E402

SIZES = (200, 10_000, 100_000)
LIMITS = {10_000: 30.0, 100_000: 60.0}  # milliseconds
BATCH = 5000  # memories written at a time
WARM = 20  # questions that are not measured
MEASURED = 150
CALLER = "caller"


def made_set(split: recall_set.Split) -> Report:
    vectors = embedder("wordllama")
    callers = [caller for caller in recall_set.load() if caller.split == split]
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "memory.db"))
        store.set_embedder(vectors.name, vectors.dim)
        ids = recall_stages.tell(callers, Scribe(store, vectors))
        report = recall_stages.ask(callers, ids, store, Recall(store, vectors), Rules())
        store.close()
    return report


def speed(size: int) -> dict[str, float]:
    """Milliseconds of recall and thinking with so many memories of one caller, each of them another sentence."""
    vectors, draw = embedder("wordllama"), random.Random(size)
    callers = recall_set.load()
    said = [fact.text.rstrip(".") for caller in callers for fact in caller.facts]
    words = sorted({word for text in said for word in text.split()})
    questions = [question.text for caller in callers for question in caller.questions]
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "memory.db"))
        store.set_embedder(vectors.name, vectors.dim)
        for start in range(0, size, BATCH):
            texts = [f"{draw.choice(said)} {' '.join(draw.sample(words, 3))}." for _ in range(min(BATCH, size - start))]
            memories = [Memory(start + at, CALLER, text, NOW - at * DAY) for at, text in enumerate(texts, 1)]
            store.add(list(zip(memories, vectors.embed(texts), strict=True)))
        recall, rules = Recall(store, vectors), Rules()
        took = []
        for text in draw.sample(questions, WARM + MEASURED):
            moment = Moment(text, True, (), frozenset(), NOW)
            began = time.perf_counter()
            candidates = recall.candidates(CALLER, moment)
            found = time.perf_counter()
            asyncio.run(rules.judge(moment, candidates))
            took.append((found - began, time.perf_counter() - found))
        store.close()
    recalled, thought = 1000 * np.array(took[WARM:]).T
    both = recalled + thought
    return {
        "recall": float(np.median(recalled)),
        "thinking": float(np.median(thought)),
        "median": float(np.median(both)),
        "p95": float(np.quantile(both, 0.95)),
    }


def as_json(report: Report) -> dict[str, Any]:
    return {
        "answered": report.answered,
        **{stage: report.share(stage) for stage in STAGES},
        "by chance in 15": report.by_chance / report.answered,
        "unanswered": sum(report.unanswered.values()),
        "falsely injected": report.false_share,
        "falsely injected by kind": {kind: report.false[kind] / count for kind, count in report.unanswered.items()},
        "misses": report.misses,
    }


def show(console: Console, reports: dict[str, dict[str, Any]], speeds: dict[int, dict[str, float]]) -> None:
    table = Table("the right memory is", *(f"{split} ({report['answered']})" for split, report in reports.items()))
    for stage in (*STAGES, "by chance in 15"):
        table.add_row(stage, *(f"{report[stage]:.1%}" for report in reports.values()))
    console.print(table)
    table = Table("injected though nothing answers", *(f"{s} ({r['unanswered']})" for s, r in reports.items()))
    table.add_row("of all", *(f"{report['falsely injected']:.1%}" for report in reports.values()))
    for kind in ("same topic", "general", "small talk", "injection"):
        shares = (report["falsely injected by kind"].get(kind, 0.0) for report in reports.values())
        table.add_row(kind, *(f"{share:.1%}" for share in shares))
    console.print(table)
    table = Table("memories of one caller", "recall ms", "thinking ms", "both: median", "p95", "limit")
    for size, took in speeds.items():
        limit = f"{LIMITS[size]:.0f}" if size in LIMITS else ""
        table.add_row(f"{size:,}", *(f"{took[name]:.1f}" for name in ("recall", "thinking", "median", "p95")), limit)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--misses", action="store_true")
    given = parser.parse_args()
    console = Console(stderr=given.json)
    with console.status("asking"):
        reports = {split: as_json(made_set(split)) for split in get_args(recall_set.Split)}
        speeds = {size: speed(size) for size in SIZES}
    if given.json:
        print(json.dumps({"set": reports, "milliseconds": speeds}))
        return
    show(console, reports, speeds)
    if given.misses:
        for split, report in reports.items():
            for stage, text in report["misses"]:
                console.print(f"{split}: not {stage}: {text}")


if __name__ == "__main__":
    main()
