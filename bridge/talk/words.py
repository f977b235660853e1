"""What was said, by both sides, and what happened between: the transcript as people read it."""

from __future__ import annotations

from dataclasses import dataclass

from ..lines import notes
from .client import Event, Link

HAPPENED = "·"  # the speaker of what nobody said


@dataclass
class Utterance:
    speaker: str
    text: str
    final: bool = True


class Words:
    """The transcript. It grows by what a client tells; `of` gives the utterance that an event began or changed."""

    def __init__(self) -> None:
        self.utterances: list[Utterance] = []
        self._open: dict[tuple[str, int], Utterance] = {}

    def of(self, event: Event) -> Utterance | None:
        if isinstance(event, notes.Transcript):
            return self._said(event)
        text = happened(event)
        return self._add(Utterance(HAPPENED, text)) if text else None

    def _said(self, note: notes.Transcript) -> Utterance | None:
        """The next with an id replaces what stood under it, unless that was final: then it is another's."""
        key = (note.speaker, note.id)
        text = one_line(note.text)
        utterance = self._open.get(key)
        if utterance is None:
            if not text:
                return None
            utterance = self._open[key] = self._add(Utterance(one_line(note.speaker), text, note.final))
        utterance.text, utterance.final = text, note.final
        if note.final:
            del self._open[key]
        return utterance

    def _add(self, utterance: Utterance) -> Utterance:
        self.utterances.append(utterance)
        return utterance


def happened(event: Event) -> str:
    """An event that is worth a line, in words; nothing for what meters and transcripts show."""
    match event:
        case Link("broken"):
            return "the connection broke; trying to come back"
        case Link("resumed"):
            return "back in the same conversation"
        case Link("renewed"):
            return "back, in a new conversation: the old one was gone"
        case notes.Status("engine-lost"):
            return "the agent has to begin anew; one moment"
        case notes.Memory(injected):
            return f"reminded: {one_line('; '.join(injected))}"
        case notes.Injected():
            return "the agent knows it now"
        case notes.Trouble(message):
            return one_line(message)
        case _:
            return ""


def one_line(text: str) -> str:
    """What came from elsewhere, without what a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
