"""Hostile calls against the Twilio line, by hypothesis, for as long as asked; what fails is kept for the tests.

.venv/bin/python benchmarks/fuzz.py                 ten minutes
.venv/bin/python benchmarks/fuzz.py --minutes 0.5   a short one
.venv/bin/python benchmarks/fuzz.py --seed 7        the same calls again
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import psutil
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that our folders hide nothing of the standard library's

from tests.test_fuzz import CORPUS, KEPT, Call, Step, calls, dump, load, offspring  # noqa: E402

ROUND = 400  # calls from one seed: a few seconds, after which the clock is looked at
SPEAKS = 1.0 if sys.stdout.isatty() else 30.0  # seconds between two lines of progress


@dataclass
class Fuzz:
    began: float = field(default_factory=time.monotonic)
    calls: int = 0
    messages: int = 0
    refused: int = 0
    frames: int = 0
    finds: dict[str, Path] = field(default_factory=dict)  # by where it went wrong
    _steps: list[Step] = field(default_factory=list)
    _spoke: float = 0.0

    def play(self, steps: list[Step]) -> None:
        self._steps = steps
        call = Call()
        try:
            call.play(steps)
        finally:
            self.calls += 1
            self.messages += len(steps)
            self.refused += call.line.errors
            self.frames += call.frames
            self._progress()

    def round(self, steps: st.SearchStrategy[list[Step]], seed: int) -> None:
        """Play `ROUND` calls; the shortest that fails is the last that hypothesis plays."""
        quiet = hypothesis.settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        try:
            hypothesis.seed(seed)(quiet(hypothesis.given(steps)(self.play)))()
        except Exception as error:
            self._keep(error)

    def _keep(self, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        if where not in self.finds:
            case = dump(self._steps)
            path = CORPUS / f"found-{hashlib.sha256(case.encode()).hexdigest()[:8]}.json"
            path.write_text(case)
            self.finds[where] = path
            print(f"\nFOUND {where}: {error!s:.200}\n  kept as {path}", flush=True)

    def _progress(self) -> None:
        now = time.monotonic()
        if now - self._spoke >= SPEAKS:
            self._spoke = now
            print(f"{self}", end="\r" if sys.stdout.isatty() else "\n", flush=True)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"{seconds:4.0f} s  {self.calls} calls  {self.messages} messages  {self.refused} refused  "
            f"{self.frames} frames  {len(self.finds)} finds"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, help="begin with this seed (default: a random one)")
    options = parser.parse_args()
    seed = random.randrange(10**9) if options.seed is None else options.seed
    cases = [load(path) for path in KEPT]
    print(f"{options.minutes:g} minutes from seed {seed}, {len(cases)} kept cases first", flush=True)

    fuzz = Fuzz()
    for case in cases:
        fuzz.play(case)
    kinds = [calls(), offspring(cases)]
    memory = 0
    while time.monotonic() - fuzz.began < options.minutes * 60:
        fuzz.round(kinds[seed % len(kinds)], seed)
        seed += 1
        memory = memory or psutil.Process().memory_info().rss
    grown = (psutil.Process().memory_info().rss - memory) / 2**20
    print(f"\n{fuzz}\nmemory grew by {grown:.1f} MiB, hypothesis included; the next seed is {seed}")
    for where, path in fuzz.finds.items():
        print(f"FOUND {where}: {path}")
    return 1 if fuzz.finds else 0


if __name__ == "__main__":
    sys.exit(main())
