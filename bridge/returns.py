"""Who may come back to which conversation, when its connection has broken."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Call


class Returns:
    """Each conversation has one ticket at a time, for one use by whoever began it."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}

    def issue(self, call: Call) -> str:
        """A ticket for the next return to `call`; by that, the one before is used up."""
        self.void(call)
        ticket = secrets.token_urlsafe(24)
        self._calls[ticket] = call
        return ticket

    def to(self, ticket: str, subject: str) -> Call | None:
        """The conversation to which `subject` may return by this ticket; None if to none."""
        call = self._calls.get(ticket)
        return call if call and call.ticket.caller == subject else None

    def void(self, call: Call) -> None:
        """Nobody can come back to `call`."""
        for ticket, other in list(self._calls.items()):
            if other is call:
                del self._calls[ticket]

    def awaited(self, subject: str, now: float) -> int:
        """The conversations to which `subject` may be on the way back."""
        return sum(call.ticket.caller == subject and call.link.doubtful(now) for call in self._calls.values())
