"""How a request is refused."""

from __future__ import annotations


class Denied(Exception):
    """Not allowed; the message says why and what to do, and may be shown to whoever asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
