"""What a peer that can read is told of its conversation: the engine's events as notes of a line."""

from __future__ import annotations

from ..engines import base as engines
from .lines import notes
from .lines.notes import Note

PAUSE = 0.5  # seconds of the agent's silence after which it listens; between words there is less


class Reports:
    """Of one call. Who talks is taken from the sound, since not every engine tells."""

    def __init__(self) -> None:
        self._state: str | None = None
        self._talked_at = 0.0

    def voice(self, silent: bool, now: float) -> Note | None:
        """The agent's next frame is `silent` or not. Without an engine what is heard is not the agent."""
        if self._state == "engine-lost":
            return None
        if not silent:
            self._talked_at = now
        elif self._state == "talking" and now - self._talked_at < PAUSE:
            return None
        return self._status("listening" if silent else "talking")

    def of(self, event: engines.TextEvent) -> Note | None:
        match event:
            case engines.Words(id, speaker, text, final=final):
                return notes.Transcript(text, speaker, id, final)
            case engines.Said(id):
                return notes.Said(id)
            case engines.Cut(id):
                return notes.Cut(id)
            case engines.Injected(id):
                return notes.Injected(id)
            case engines.Refused(id):
                return notes.Trouble("the engine cannot say or read this, or it is over memory.share", "refused", id)
            case engines.Lost():
                return self._status("engine-lost")
            case engines.Back():
                return self._status("listening")
            case _:
                return None

    def _status(self, state: notes.State) -> Note | None:
        if state == self._state:
            return None
        self._state = state
        return notes.Status(state)
