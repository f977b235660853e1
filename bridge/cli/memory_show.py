"""How memories, callers and thoughts look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box, filesize
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..memory.kinds import Judged, Memory, Thought
from ..memory.store import CallerSummary, CallSummary
from .memory_store import short

ID = 6  # digits of a memory's id, the last ones: they are drawn, and tell a caller's memories apart
CALL = 6  # characters of a call's id, as `voice-bridge status` shows it
INDENT = 2
FIRST = 5  # candidates of a moment that are shown without --all; the rest is rarely of interest


def when(timestamp: float) -> str:
    """Local time."""
    return datetime.fromtimestamp(timestamp).strftime("%Y-%m-%d %H:%M")


def plain(text: str, style: str = "") -> Text:
    """What callers said, or call themselves; nothing in it means anything to the terminal."""
    return Text("".join(sign if sign.isprintable() else " " for sign in text), style)


def whom(caller: CallerSummary) -> str:
    return f"{short(caller.key)} ({caller.name})" if caller.name else short(caller.key)


def callers(known: Iterable[CallerSummary]) -> Table:
    table = _table()
    table.add_column("caller", overflow="fold")
    table.add_column("name", overflow="fold")
    for count in ("memories", "calls"):
        table.add_column(count, justify="right")
    table.add_column("first", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for one in known:
        numbers = (f"{one.memories:,}", f"{one.calls:,}")
        table.add_row(plain(short(one.key), "cyan"), plain(one.name), *numbers, when(one.first)[:10], when(one.last))
    return table


def memories(found: Iterable[Memory], newer: Mapping[int, int]) -> Table:
    """`newer` says by which other one a memory is superseded."""
    table = _table()
    table.add_column("memory", style="cyan", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("what", ratio=1, overflow="fold")
    for one in found:
        text = plain(one.text, "dim strike" if one.id in newer else "")
        about = Text(_about(one), "dim")
        if one.id in newer:
            about = Text.assemble((f"superseded by {_id(newer[one.id])}", "yellow"), (" · ", "dim"), about)
        source = f"call {one.source_call[-CALL:]}" if one.source_call else ""
        table.add_row(_id(one.id), Group(when(one.timestamp), plain(source, "dim")), Group(text, about))
    return table


def judged(candidates: Iterable[Judged]) -> Table:
    """Memories with what speaks for them."""
    table = _table()
    table.add_column("memory", style="cyan", no_wrap=True)
    for score in ("near", "words", "relev.", "import."):
        table.add_column(score, justify="right", no_wrap=True)
    table.add_column("what, and why", ratio=1, overflow="fold")
    for one in candidates:
        what = plain(one.memory.text, "bold" if one.injected else "")
        why = plain(one.why, "green" if one.injected else "dim")
        if one.injected:
            why = Text.assemble(("injected: " if one.why else "injected", "bold green"), why)
        if why:
            what = Text.assemble(what, "\n", why)
        scores = (f"{score:.2f}" for score in (one.similarity, one.words, one.relevance, one.importance))
        table.add_row(_id(one.memory.id), *scores, what)
    return table


def calls(recent: Iterable[CallSummary]) -> Table:
    table = _table()
    table.add_column("call", style="cyan", no_wrap=True)
    table.add_column("caller", overflow="fold")
    table.add_column("began", no_wrap=True)
    table.add_column("moments", justify="right")
    for one in recent:
        table.add_row(plain(one.call[-CALL:]), plain(short(one.caller)), when(one.began), f"{one.moments:,}")
    return table


def explain(console: Console, thoughts: Sequence[Thought], caller: CallerSummary | None, everything: bool) -> None:
    """Every moment of a call."""
    first = thoughts[0]
    name = whom(caller) if caller else short(first.caller)
    console.print(plain(f"call {first.call}, {when(first.timestamp)}", "bold"))
    console.print(plain(name))
    console.print()
    for thought in thoughts:
        console.print(_heard(thought))
        ranked = sorted(thought.judged, key=worth, reverse=True)
        shown = [one for at, one in enumerate(ranked) if everything or one.injected or at < FIRST]
        console.print(Padding(judged(shown), (0, 0, 0, INDENT)))
        if left := len(ranked) - len(shown):
            console.print(Padding(Text(f"and {left} that matter less: --all shows them", "dim"), (0, 0, 1, INDENT)))


def stats(told: Mapping[str, Any]) -> Table:
    counts = {name: f"{told[name]:,}" for name in ("callers", "memories", "superseded", "links", "thoughts")}
    missing = f"; {told['vectorless']:,} have no vector yet" if told["vectorless"] else ""
    rows = {
        "store": told["store"] + (f", {filesize.decimal(told['bytes'])}" if told["bytes"] is not None else ""),
        "encryption": told["encryption"],
        **counts,
        "embedder": (f"{told['embedder']}, {told['dim']} dimensions" if told["embedder"] else "none yet") + missing,
        "oldest": when(told["oldest"]) if told["oldest"] else "-",
        "newest": when(told["newest"]) if told["newest"] else "-",
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, plain(value))
    return table


def _heard(thought: Thought) -> RenderableType:
    minutes, seconds = divmod(int(10 * thought.into_call), 600)
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold cyan", no_wrap=True)
    head.add_column(overflow="fold")
    said = plain(f"“{thought.said}”", "bold")
    said.append("" if thought.final else "  while speaking", "yellow not bold")
    took = ", ".join(f"{stage} {took:.{1 if took < 10 else 0}f} ms" for stage, took in thought.milliseconds.items())
    head.add_row(f"{minutes}:{seconds / 10:04.1f}", Group(said, Text(f"{took}; thought by {thought.thinker}", "dim")))
    return head


def worth(one: Judged) -> tuple[bool, float]:
    """What is to be shown first."""
    return one.injected, one.relevance


def _id(id: int) -> str:
    return str(id)[-ID:]


def _about(one: Memory) -> str:
    about = one.entities.about + (f" = {one.entities.value}" if one.entities.value else "")
    parts = (f"{one.entities.kind} {one.importance:.2f}", about, ", ".join(one.emotions))
    return "".join(sign if sign.isprintable() else " " for sign in " · ".join(filter(None, parts)))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
