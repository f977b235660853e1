"""Who may come in. On a turned clock: reservations run out in no time, and the bridge's own reaper finds them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.turned import bridge, turned
from voice_bridge.bridge.admission import REAP, REMEMBERED, Admission, Refused, Ticket
from voice_bridge.bridge.daemon import Daemon

CALLER = "+15550100001"
OURS = "+15550100000"
NIGHT_DESK = "+15550100009"
RESERVED = 15.0  # seconds, as the settings have it by default

# What Twilio gives as the number of who has none: the words, or their spelling on a keypad.
NOBODY = ("", "anonymous", "Restricted", "+266696687", "+7378742833", "+86282452253", "+2562533", "+8656696")


def reserve(admission: Admission, call: str, caller: str = "", number: str = OURS) -> Ticket:
    """Callers who are not to be counted together have no number."""
    return admission.reserve(call, caller, number)


def why(admission: Admission, call: str, caller: str = "", number: str = OURS) -> str:
    with pytest.raises(Refused) as refused:
        reserve(admission, call, caller, number)
    return refused.value.why


def refused_token(admission: Admission, call: str, token: str) -> str:
    with pytest.raises(Refused) as refused:
        admission.confirm(call, token)
    assert refused.value.why == "token"
    return str(refused.value)


def slots(daemon: Daemon) -> tuple[int, int]:
    """Reserved, and free."""
    capacity = daemon.engine.capacity()
    return capacity.reserved, capacity.free


@turned
async def test_a_slot_is_reserved_at_the_webhook_and_confirmed_at_the_start(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=2) as daemon:
        admission = daemon.board.admission
        ticket = reserve(admission, "CA1", CALLER)
        assert slots(daemon) == (1, 1)
        assert (ticket.call, ticket.caller, ticket.number, ticket.direction) == ("CA1", CALLER, OURS, "inbound")
        assert admission.confirm("CA1", ticket.token) is ticket
        admission.leave(ticket, "caller")
        assert slots(daemon) == (0, 2)


@turned
async def test_a_reservation_that_nobody_comes_for_ends_by_itself(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1, calls__max_calls=1) as daemon:
        admission = daemon.board.admission
        late = reserve(admission, "CA1").token
        await asyncio.sleep(RESERVED - 0.1)
        assert why(admission, "CA2") == "busy"
        await asyncio.sleep(0.1 + 2 * REAP)
        reserve(admission, "CA2")
        refused_token(admission, "CA1", late)


@turned
async def test_a_stream_that_comes_after_its_time_is_refused_before_the_reaper_has_looked(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1, calls__max_calls=1, calls__reserve_seconds=0.3) as daemon:
        admission = daemon.board.admission
        ticket = reserve(admission, "CA1")
        await asyncio.sleep(0.3)
        assert "expired" in refused_token(admission, "CA1", ticket.token)
        assert slots(daemon) == (0, 1)
        reserve(admission, "CA2")


@turned
async def test_a_live_call_outlasts_its_reservation(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__max_calls=1) as daemon:
        admission = daemon.board.admission
        admission.confirm("CA1", reserve(admission, "CA1").token)
        await asyncio.sleep(RESERVED * 2)
        assert why(admission, "CA2") == "busy"


@turned
async def test_a_repeated_webhook_replaces_the_reservation(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1, calls__max_calls=1, calls__max_per_caller=1) as daemon:
        admission = daemon.board.admission
        first = reserve(admission, "CA1", CALLER)
        second = reserve(admission, "CA1", CALLER)
        assert slots(daemon) == (1, 0)
        refused_token(admission, "CA1", first.token)
        admission.confirm("CA1", second.token)


@turned
async def test_a_webhook_for_a_connected_call_takes_nothing_from_it(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        admission = daemon.board.admission
        ticket = reserve(admission, "CA1")
        admission.confirm("CA1", ticket.token)
        assert why(admission, "CA1") == "token"
        assert admission.confirm("CA2", reserve(admission, "CA2").token)
        admission.leave(ticket, "caller")
        reserve(admission, "CA1")


@turned
async def test_one_caller_takes_only_so_many_slots(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__max_per_caller=2) as daemon:
        admission = daemon.board.admission
        first = reserve(admission, "CA1", CALLER)
        admission.confirm("CA1", first.token)
        reserve(admission, "CA2", CALLER)
        assert why(admission, "CA3", CALLER) == "caller"
        reserve(admission, "CA4", "+15550100002")
        admission.leave(first, "caller")
        reserve(admission, "CA3", CALLER)


@pytest.mark.parametrize("nobody", NOBODY)
def test_callers_without_a_number_are_not_counted_as_one(tmp_path: Path, nobody: str) -> None:
    @turned
    async def scenario() -> None:
        async with bridge(tmp_path, calls__max_per_caller=1) as daemon:
            for n in range(3):
                reserve(daemon.board.admission, f"CA{n}", nobody)

    scenario()


@turned
async def test_no_limit_of_callers_is_no_limit(tmp_path: Path) -> None:
    async with bridge(tmp_path, calls__max_per_caller=0) as daemon:
        for n in range(10):
            reserve(daemon.board.admission, f"CA{n}", CALLER)


@turned
async def test_a_number_has_its_own_limit_and_its_own_settings(tmp_path: Path) -> None:
    numbers: list[dict[str, Any]] = [{"number": NIGHT_DESK, "max_calls": 1, "greeting": "Good night."}]
    async with bridge(tmp_path, numbers=numbers, calls__greeting="Good day.") as daemon:
        admission = daemon.board.admission
        assert reserve(admission, "CA1", number=NIGHT_DESK).settings.greeting == "Good night."
        assert why(admission, "CA2", number=NIGHT_DESK) == "number"
        assert [reserve(admission, call).settings.greeting for call in ("CA2", "CA3")] == ["Good day."] * 2


@turned
async def test_the_limit_of_the_whole_bridge_counts_for_every_number(tmp_path: Path) -> None:
    numbers: list[dict[str, Any]] = [{"number": NIGHT_DESK, "max_calls": 5}]
    async with bridge(tmp_path, numbers=numbers, calls__max_calls=2) as daemon:
        admission = daemon.board.admission
        reserve(admission, "CA1")
        reserve(admission, "CA2", number=NIGHT_DESK)
        assert why(admission, "CA3", number=NIGHT_DESK) == "busy"
        assert why(admission, "CA3") == "busy"


@turned
async def test_a_bridge_that_stops_lets_nobody_in_and_takes_whom_it_has_promised_to(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        admission = daemon.board.admission
        promised = reserve(admission, "CA1")
        admission.draining = True
        assert why(admission, "CA2") == "draining"
        admission.confirm("CA1", promised.token)


@turned
async def test_without_an_engine_nobody_comes_in(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        daemon.engine.child.lose()  # type: ignore[attr-defined]
        assert why(daemon.board.admission, "CA1") == "engine"
        daemon.engine.child.come_back()  # type: ignore[attr-defined]
        reserve(daemon.board.admission, "CA1")


@turned
async def test_an_attack_on_a_token_neither_gets_in_nor_spoils_it(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=2) as daemon:
        admission = daemon.board.admission
        mine, theirs = reserve(admission, "CA1"), reserve(admission, "CA2")
        for token in ("", "guess", "\ud83c", theirs.token, mine.token + " ", mine.token[:-1], mine.token.swapcase()):
            assert "not one that was given" in refused_token(admission, "CA1", token)
        refused_token(admission, "CA3", mine.token)
        assert slots(daemon) == (2, 0)
        assert admission.confirm("CA1", mine.token) is mine
        assert admission.confirm("CA2", theirs.token) is theirs


@turned
async def test_a_token_lets_in_once(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        admission = daemon.board.admission
        ticket = reserve(admission, "CA1")
        admission.confirm("CA1", ticket.token)
        assert "used" in refused_token(admission, "CA1", ticket.token)
        assert ticket.live
        admission.leave(ticket, "caller")
        refused_token(admission, "CA1", ticket.token)


@turned
async def test_a_token_shows_nowhere(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        ticket = reserve(daemon.board.admission, "CA1")
        assert len(ticket.token) >= 32
        assert ticket.token not in repr(ticket)


@turned
async def test_a_caller_who_hangs_up_before_the_stream_frees_the_slot(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=1) as daemon:
        admission = daemon.board.admission
        token = reserve(admission, "CA1").token
        admission.forget("CA1")
        admission.forget("CAunknown")
        assert slots(daemon) == (0, 1)
        refused_token(admission, "CA1", token)
        live = reserve(admission, "CA2")
        admission.confirm("CA2", live.token)
        admission.forget("CA2")
        assert why(admission, "CA2") == "token"


@turned
async def test_how_a_call_ended_is_told_once_and_kept_for_so_many_calls(tmp_path: Path) -> None:
    async with bridge(tmp_path) as daemon:
        admission = daemon.board.admission
        for n in range(REMEMBERED + 1):
            ticket = reserve(admission, f"CA{n}")
            admission.confirm(ticket.call, ticket.token)
            admission.leave(ticket, "transfer:+15550100002")
        assert admission.end_of("CA0") == ""
        assert admission.end_of("CA1") == "transfer:+15550100002"
        assert admission.end_of("CA1") == ""
        assert admission.end_of("CAunknown") == ""


@turned
async def test_200_callers_at_a_door_for_10(tmp_path: Path) -> None:
    async with bridge(tmp_path, slots=10) as daemon:
        admission = daemon.board.admission
        let_in, sent_away = [], []
        for n in range(200):
            try:
                let_in.append(reserve(admission, f"CA{n}", f"+1555{n:07}"))
            except Refused as refused:
                sent_away.append(refused.why)
        assert (len(let_in), sent_away) == (10, ["busy"] * 190)
        for ticket in let_in[:5]:
            admission.confirm(ticket.call, ticket.token)
            admission.leave(ticket, "caller")
        assert slots(daemon) == (5, 5)
        await asyncio.sleep(RESERVED + 2 * REAP)
        assert slots(daemon) == (0, 10)
        for n in range(10):
            reserve(admission, f"CB{n}", f"+1555{n:07}")
        assert why(admission, "CB10") == "busy"
