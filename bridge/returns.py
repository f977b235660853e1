"""Who may come back to which conversation, when its connection has broken."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Call


class Returns:
    """Each conversation has one ticket at a time, for one use by whoever began it."""

    def __init__(self) -> None:
        self._tickets: dict[Call, str] = {}

    def issue(self, call: Call) -> str:
        """A ticket for the next return to `call`; by that, the one before is used up."""
        ticket = self._tickets[call] = secrets.token_urlsafe(24)
        return ticket

    def to(self, ticket: str, subject: str) -> Call | None:
        """The conversation to which `subject` may return by this ticket; None if to none."""
        call = next((call for call, current in self._tickets.items() if current == ticket), None)
        return call if call and call.ticket.caller == subject else None

    def void(self, call: Call) -> None:
        """Nobody can come back to `call`."""
        self._tickets.pop(call, None)

    def awaited(self, subject: str, now: float) -> int:
        """The conversations to which `subject` may be on the way back."""
        return sum(call.ticket.caller == subject and call.link.doubtful(now) for call in self._tickets)
