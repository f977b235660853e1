"""The bridge and its calls in figures: what operators see of them, and what is written down of a call that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .observe.records import CallRecord, measured
from .shapes import Board, BoardNow, CallState, LiveCall, Memory, WholeCall

if TYPE_CHECKING:
    from .call import Call
    from .memory.client import Mind
    from .switchboard import Switchboard


def board(board: Switchboard) -> Board:
    """The bridge and its live calls as operators see them."""
    engine, metrics, machine = board.engine, board.metrics, board.machine
    return Board(
        engine=engine.name,
        ready=engine.ready,
        draining=board.admission.draining,
        trouble=engine.trouble,
        slots=engine.capacity(),
        step_ms=_ms(engine.step_seconds),
        frame_ms=None if metrics.frame_seconds is None else _ms(metrics.frame_seconds),
        lag_ms=_ms(metrics.lag),
        dropped_frames=engine.dropped,
        restarts=engine.restarts,
        level=machine.tier if machine else None,
        machine=str(machine) if machine else "",
        memory=_memory(board.mind) if board.mind else None,
        calls=[describe(call) for call in board.calls.values()],
    )


def board_now(now: Switchboard) -> BoardNow:
    """The same, for whoever watches."""
    return BoardNow(**msgspec.structs.asdict(board(now)))


def describe(call: Call) -> LiveCall:
    """The call as operators see it."""
    stats, ticket, party = call.stats, call.ticket, call.party
    return LiveCall(
        call=call.id,
        line=call.line.name,
        direction=ticket.direction,
        caller=ticket.caller,
        number=ticket.number,
        seconds=round(call.seconds, 1),
        engine=call.board.engine.name,
        state=_state(call),
        lead_ms=party.lead_ms,
        mouth_to_ear_ms=round((stats.mouth_to_ear.quantile(0.5) or 0) * 1000),
        frames=stats.frames,
        underruns=stats.underruns,
        memories=party.memories,
    )


def whole(call: Call) -> WholeCall:
    """The same, with what was said last."""
    return WholeCall(**msgspec.structs.asdict(describe(call)), words=call.board.feed.words(call.id))


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


def _state(call: Call) -> CallState:
    if call.lost:
        return "engine-lost"
    return call.board.feed.state(call.id) if call.link.here else "client-away"


def _memory(mind: Mind) -> Memory:
    return Memory(ready=mind.ready, trouble=mind.trouble, written=mind.written, reminders=dict(mind.counts))


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
