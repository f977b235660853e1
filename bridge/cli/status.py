"""voice-bridge status: what the running bridge does."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import operator

SHORT = 6  # characters of a call's id: enough to tell calls apart, and what the log shows of it


def status(config: operator.Config = None, url: operator.Url = None, as_json: operator.Json = False) -> None:
    """Show the running bridge: its engine, its slots and its calls.

    Examples:

      voice-bridge status

      voice-bridge status --json
    """
    state = operator.ask(operator.settings(config), url, "GET", "/v1/calls")
    if as_json:
        typer.echo(json.dumps(state))
        return
    console = Console()
    slots = state["slots"]
    how = "draining" if state["draining"] else "ready" if state["ready"] else "engine not ready"
    console.print(
        f"engine [bold]{state['engine']}[/], {how}; slots: {slots['used']} in use, {slots['reserved']} reserved,"
        f" {slots['offered']} offered; a step of all of them: {state['step_ms']} ms;"
        f" frames dropped: {state['dropped_frames']}; engine restarts: {state['restarts']}"
    )
    if state["machine"]:
        console.print(f"machine: {escape(state['machine'])}; level {state['level']} of 6")
    if state["trouble"]:
        console.print(f"[yellow]no call can come in:[/] {escape(state['trouble'])}")
    if memory := state["memory"]:
        console.print(_memory(memory))
    console.print(_table(state["calls"]) if state["calls"] else "no calls")


def _memory(memory: dict[str, Any]) -> str:
    if memory["trouble"]:
        return f"[yellow]nothing is remembered:[/] {escape(memory['trouble'])}"
    reminders = ", ".join(f"{count} {what}" for what, count in memory["reminders"].items()) or "none"
    return f"memory: {memory['written']} written since it began; reminders: {reminders}"


def _table(calls: list[dict[str, Any]]) -> Table:
    table = Table("call", "from", "to", "time", "state", "ear", "lead", "gaps")
    for call in calls:
        minutes, seconds = divmod(int(call["seconds"]), 60)
        table.add_row(
            escape(call["call"][-SHORT:]),
            escape(call["caller"]),
            escape(call["number"]),
            f"{minutes}:{seconds:02}",
            call["state"],
            f"{call['mouth_to_ear_ms']} ms",
            f"{call['lead_ms']} ms",
            str(call["underruns"]),
        )
    return table
