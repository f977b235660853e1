"""From the runs of a benchmark to the figures that matter.

Processor time is that of the cheapest round, since whatever else a machine does only adds to it. Latency is the
median of the rounds that were held.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

Run = Mapping[str, Any]
Runs = Mapping[str, Sequence[Run]]

SIZES = (64, 200)
CROWD = 100  # calls of the built-in phone at once
CLIENTS = 100  # of /v1/stream at once
OWN = 10.0  # milliseconds of the bridge's own in a client's round trip, median
LATE = 20.0  # milliseconds that the bridge may add, p99
LOST = 0.001  # share of the replies that may be missing from a load that counts as held
SHORT = 0.1  # and of the sound, where replies cannot be counted
UNMATCHED = 1  # calls of the phone in which a reply is too few or too many, so that they cannot be paired
CPU = 45.0  # microseconds of the bridge for each 20 ms of a call
SHARE = {64: 15.0}  # per cent of a core
OTHERS = {
    "aiohttp": None,
    "pipecat at 8 kHz": 4.0,
    "pipecat at 24 kHz": None,
}  # times ours that they must take at least
AT_FIRST, SETTLED = 150.0, 130.0  # milliseconds from mouth to ear


@dataclass(frozen=True)
class Row:
    what: str
    value: str
    limit: str = ""
    ok: bool | None = None


def held(run: Run) -> bool:
    """Whether the server kept up with its load."""
    if run["stopped"]:
        return False
    if run["unit"]:
        return bool(run["missing"] <= LOST * run["messages"] / run["unit"])
    return bool(run["returned"] > 1 - SHORT)


def in_time(run: Run) -> bool:
    return held(run) and run["latency_ms"]["p99"] < LATE


def rows(runs: Runs, search: Sequence[Run], phones: Mapping[str, Run], clients: Run) -> list[Row]:
    """Every figure that there are runs for."""
    found: list[Row] = []
    for calls in SIZES:
        found += _cost(runs, calls)
    for calls in SIZES:
        found += _latency(runs[f"bridge {calls}"], calls)
    if search:
        found += _most(search)
    for key, run in phones.items():
        name, _, number = key.rpartition(" ")
        found += _crowd(run) if int(number) > 1 else _mouth_to_ear(run, name)
    return found + _clients(clients)


def _cost(runs: Runs, calls: int) -> list[Row]:
    what = f"processor time for 20 ms of a call, {calls} calls"
    kept = [run for run in runs[f"bridge {calls}"] if held(run)]
    if not kept:
        return [_lost(what, runs[f"bridge {calls}"], ok=False)]
    ours = min(kept, key=lambda run: run["cpu_us"]["bridge"])
    used = ours["cpu_us"]["bridge"]
    found = [
        _row(what, used, "us", CPU),
        _row(f"- in shares of a core, {calls} calls", ours["share"]["bridge"] * 100, "%", SHARE.get(calls)),
        _row(f"- the engine process, {calls} calls", ours["cpu_us"]["engine"], "us"),
    ]
    for name, least in OTHERS.items():
        others = runs.get(f"{name} {calls}", ())
        theirs = [run["cpu_us"][name] for run in others if held(run)]
        if theirs:
            times = min(theirs) / used
            value = f"{min(theirs):.0f} us, {times:.1f} times ours"
            if least is None:
                found.append(Row(f"- {name}, {calls} calls", value))
            else:
                found.append(Row(f"- {name}, {calls} calls", value, f"{least:g} times ours", times >= least))
        elif others:
            found.append(_lost(f"- {name}, {calls} calls", others))
    return found


def _latency(runs: Sequence[Run], calls: int) -> list[Row]:
    what = f"latency that the bridge adds, p99, {calls} calls"
    kept = [run for run in runs if held(run)]
    if 2 * len(kept) <= len(runs):
        return [_lost(what, runs, ok=False)]
    return [
        _row(what, median(run["latency_ms"]["p99"] for run in kept), "ms", LATE),
        _row(f"- how late the load itself is, p99, {calls} calls", median(_late(run) for run in kept), "ms"),
    ]


def _most(search: Sequence[Run]) -> list[Row]:
    what = f"most calls on one core, p99 under {LATE:g} ms"
    good = [run for run in search if in_time(run)]
    if not good:
        return [_lost(what, search, ok=False)]
    best = max(good, key=lambda run: run["calls"])
    return [
        Row(what, str(best["calls"])),
        _row("- with them, latency that the bridge adds, p99", best["latency_ms"]["p99"], "ms"),
        _row("- with them, how late the load itself is, p99", _late(best), "ms"),
        _row("- with them, the bridge's share of its core", best["share"]["bridge"] * 100, "%"),
        _row("- with them, the load's share of the other core", best["share"]["generator"] * 100, "%"),
        _row("- with them, the engine's share of the other core", best["share"]["engine"] * 100, "%"),
    ]


def _crowd(run: Run) -> list[Row]:
    what = f"latency that the bridge adds, p99, {CROWD} calls of the built-in phone beside it"
    if _failed(run) or run["unmatched"] > UNMATCHED:
        return [_lost(what, [run], ok=False)]
    return [
        _row(what, run["latency_ms"]["p99"], "ms", LATE),
        _row("- how late the phone itself is, p99", _late(run), "ms"),
    ]


def _clients(run: Run) -> list[Row]:
    what = f"frames answered later than 80 ms, {CLIENTS} clients beside the bridge"
    if _failed(run):
        return [_lost(what, [run], ok=False)]
    missed = run["deadline_misses"] + run["missing"]
    return [
        Row(what, f"{missed} of {run['frames']}", "0", missed == 0),
        _row("- the bridge's own share of a round trip, median", run["share_ms"], "ms", OWN),
        _row("- the round trip as the clients see it, median", run["latency_ms"]["p50"], "ms"),
        _row("- the round trip as the clients see it, p99", run["latency_ms"]["p99"], "ms"),
        _row("- how late the clients themselves are, p99", _late(run), "ms"),
    ]


def _mouth_to_ear(run: Run, name: str) -> list[Row]:
    ours = name == "bridge"
    if _failed(run):
        return [_lost(f"mouth to ear, {name}", [run], ok=False if ours else None)]
    return [
        _row(f"mouth to ear at first, median, {name}", run["at_first_ms"], "ms", AT_FIRST if ours else None),
        _row(f"mouth to ear after 10 s, median, {name}", run["settled_ms"], "ms", SETTLED if ours else None),
    ]


def _late(run: Run) -> float:
    late: float = run["lateness_ms"]["p99"]
    return late


def _failed(run: Run) -> str:
    """Why a run is none, if so."""
    return str(run.get("stopped") or "; ".join(run.get("failed", ())[:1]))


def _row(what: str, value: float | None, unit: str, limit: float | None = None) -> Row:
    if value is None:
        return Row(what, "nothing heard", ok=None if limit is None else False)
    shown = f"{value:#.3g}".rstrip(".") if value < 100 else f"{value:.0f}"
    if limit is None:
        return Row(what, f"{shown} {unit}")
    return Row(what, f"{shown} {unit}", f"{limit:g} {unit}", value <= limit)


def _lost(what: str, runs: Sequence[Run], ok: bool | None = None) -> Row:
    why = next(filter(None, (_failed(run) for run in runs)), "replies are missing")
    return Row(what, f"not held: {why}", ok=ok)


def machine() -> str:
    """Where and when, in a line."""
    names = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC).date()}, {names[0].strip()}, {len(names)} cores, {system}"


def markdown(rows: Sequence[Row]) -> str:
    lines = [machine(), "", "| | measured | limit |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.what} | {row.value}{_verdict(row)} | {row.limit} |" for row in rows])


def table(rows: Sequence[Row]) -> Table:
    shown = Table("", "measured", "limit", title=machine(), title_style="")
    for row in rows:
        style = {True: "green", False: "bold red", None: ""}[row.ok]
        shown.add_row(row.what, row.value, row.limit, style=style)
    return shown


def _verdict(row: Row) -> str:
    return " (missed)" if row.ok is False else ""
