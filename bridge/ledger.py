"""A call in figures: what operators see of it while it lives, and what is written down when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .observe.records import CallRecord, measured

if TYPE_CHECKING:
    from .call import Call


def describe(call: Call) -> dict[str, Any]:
    """The call as operators see it."""
    stats, ticket, party = call.stats, call.ticket, call.party
    return {
        "call": call.id,
        "line": call.line.name,
        "direction": ticket.direction,
        "caller": ticket.caller,
        "number": ticket.number,
        "seconds": round(call.seconds, 1),
        "engine": call.board.engine.name,
        "state": "engine lost" if call.lost else "talking" if call.link.here else "client away",
        "lead_ms": party.lead_ms,
        "mouth_to_ear_ms": round((stats.mouth_to_ear.quantile(0.5) or 0) * 1000),
        "frames": stats.frames,
        "underruns": stats.underruns,
        "memories": party.memories,
    }


def record(call: Call, end: str) -> CallRecord:
    ticket = call.ticket
    return CallRecord(
        call=call.id,
        line=call.line.name,
        direction=ticket.direction,
        caller=ticket.caller,
        number=ticket.number,
        engine=call.board.engine.name,
        started=call.started,
        seconds=round(call.seconds, 3),
        end=end,
        recording=call.party.recording,
        memories=call.party.memories,
        **measured(call.stats),
    )
