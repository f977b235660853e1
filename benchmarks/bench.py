"""What a call costs and how late its sound is: against our own limits, and against others on the same machine.

    python benchmarks/bench.py             all of it, about six minutes
    python benchmarks/bench.py --quick     the bridge alone, under a minute
    python benchmarks/bench.py --markdown  the table of docs/performance.md

A server under load has a core to itself; the load, and the bridge's engine process, share another one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import figures
import servers
from load import Plan
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from servers import Server, Unavailable

HERE = Path(__file__).parent
CLOSE = 0.05  # the search for the most calls ends when they are known as closely as this
FIRST = 400  # calls that it begins with
MOST = 3200  # calls at which it gives up


@dataclass(frozen=True)
class Effort:
    rounds: int
    seconds: float
    """Of each window that is measured."""
    warm_up: float
    alone: float
    """Seconds of the phone's single call; it counts as settled after ten."""
    crowd: float
    """Seconds of the phone's many calls, and of the clients."""
    search: bool
    others: bool


FULL = Effort(rounds=3, seconds=5, warm_up=3, alone=16, crowd=10, search=True, others=True)
QUICK = Effort(rounds=1, seconds=3, warm_up=2.5, alone=13, crowd=6, search=False, others=False)


class Bench:
    """Makes the runs and keeps their outcomes; `say` is told what is being done."""

    def __init__(self, effort: Effort, in_phase: bool, cores: tuple[int, int], say: Callable[[str], None]) -> None:
        self.runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """By server and number of calls."""
        self.search: list[dict[str, Any]] = []
        self.phones: dict[str, dict[str, Any]] = {}
        self.clients: dict[str, Any] = {}
        self.left_out: list[str] = []
        self._effort = effort
        self._in_phase = in_phase
        self._core, self._other = cores
        self._say = say

    def run(self) -> None:
        effort = self._effort
        kinds = self._kinds()
        for number in range(effort.rounds):
            for kind in kinds:
                with servers.running(kind, self._core, self._other) as server:
                    for calls in figures.SIZES:
                        before = self.runs[f"{kind.name} {calls}"]
                        if kind.name == "bridge" or all(figures.held(run) for run in before):
                            self._say(f"round {number + 1} of {effort.rounds}: {kind.name}, {calls} calls")
                            before.append(self._load(server, calls))
        for kind, calls, seconds in [
            *((kind, 1, effort.alone) for kind in kinds if kind.name != "aiohttp"),  # no phone takes what it says
            (servers.bridge(), figures.CROWD, effort.crowd),
        ]:
            self._say(f"the phone: {kind.name}, {calls} call{'s' * (calls > 1)}")
            with servers.running(kind) as server:
                outcome = _outcome("phones.py", server.webhook, str(calls), str(seconds))
            self.phones[f"{kind.name} {calls}"] = outcome
        self._say(f"clients: {figures.CLIENTS} of them")
        with servers.running(servers.bridge()) as server:
            self.clients = _outcome("clients.py", server.url, str(figures.CLIENTS), str(effort.crowd))
        if effort.search:
            self._find_most()

    def _kinds(self) -> list[Server]:
        kinds = [servers.bridge()]
        if self._effort.others:
            kinds.append(servers.aiohttp())
            self._say(f"setting up {servers.PIPECAT}")
            try:
                kinds += [servers.pipecat(8000), servers.pipecat(24000)]
            except Unavailable as error:
                self.left_out.append(str(error))
        return kinds

    def _find_most(self) -> None:
        """Double, then halve what lies between."""
        low, high, calls = 0, 0, FIRST
        while calls <= MOST and (not high or high - low > CLOSE * high):
            if self._holds(calls):
                low = calls
            else:
                high = calls
            calls = (low + high) // 2 if high else 2 * calls

    def _holds(self, calls: int) -> bool:
        """Tried twice: a machine that was busy for a moment is not a bridge that is full."""
        for _ in range(2):
            self._say(f"the most calls: {calls}")
            with servers.running(servers.bridge(), self._core, self._other) as server:
                run = self._load(server, calls)
            self.search.append(run)
            if figures.in_time(run):
                return True
        return False

    def _load(self, server: Server, calls: int) -> dict[str, Any]:
        plan = Plan(
            url=server.webhook,
            calls=calls,
            warm_up=self._effort.warm_up,
            seconds=self._effort.seconds,
            unit=server.unit,
            in_phase=self._in_phase,
            core=self._other,
            watch=server.pids,
        )
        return {"calls": calls} | _outcome("load.py", json.dumps(asdict(plan)))


def _outcome(script: str, *arguments: str) -> dict[str, Any]:
    """What a script of ours measured, or why it could not."""
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{script} ended with status {done.returncode}"]
        return {"stopped": said[-1]}
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        raise Unavailable("the benchmarks need Linux and two cores: one for the server, one for the load")
    return cores[0], cores[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the bridge alone, one round, no search")
    parser.add_argument("--in-phase", action="store_true", help="all calls send at once instead of evenly spread")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no server is left behind
    progress = Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )
    try:
        with progress:
            task = progress.add_task("")
            effort = QUICK if given.quick else FULL
            bench = Bench(effort, given.in_phase, _cores(), lambda text: progress.update(task, description=text))
            bench.run()
    except Unavailable as error:
        sys.exit(f"bench: {error}")
    if given.json:
        print(
            json.dumps(
                {
                    "machine": figures.machine(),
                    "runs": bench.runs,
                    "search": bench.search,
                    "phones": bench.phones,
                    "clients": bench.clients,
                }
            )
        )
        return
    rows = figures.rows(bench.runs, bench.search, bench.phones, bench.clients)
    for line in bench.left_out:
        print(f"Left out: {line}", file=sys.stderr)
    if given.markdown:
        print(figures.markdown(rows))
    else:
        Console().print(figures.table(rows))


if __name__ == "__main__":
    main()
