"""What goes between the daemon and the mind, in the packets of engines/wire.py.

A caller's sound goes as `Kind.FRAME`: 16-bit samples at the line's rate; or, where the engine hears, the words that it
heard go in place of it. Everything else is JSON.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Injection: TypeAlias = Literal["silent", "add_to_input", "spoken"]


class Endpoint(msgspec.Struct, frozen=True):
    """A language model behind an OpenAI-compatible API."""

    url: str
    model: str
    key: str = msgspec.field(default="")

    def __repr__(self) -> str:
        return f"Endpoint({self.url}, {self.model})"


class MindInit(msgspec.Struct, frozen=True):
    """Everything that the mind is told of the configuration; the first message."""

    store: str
    store_token: str
    encryption_key: str
    key: str
    """With which callers' numbers are hashed; empty: the one beside the store."""
    retention_days: float
    """For which memories are kept; 0 is for ever."""
    explain_days: float
    """For which is kept what was thought."""
    ear: str
    ear_model: str
    embedder: str
    embedder_key: str
    thinker: str
    endpoints: tuple[Endpoint, ...]
    seconds: float
    tokens: int
    injection: Injection
    standing: int
    """How many facts a call begins with at most."""
    calls: int
    """That there may be at once."""
    gpu: str
    """The UUID of the GPU to take, where there are several."""

    def __repr__(self) -> str:
        return f"MindInit({self.store}, ear {self.ear}, thinker {self.thinker})"


class Tell(msgspec.Struct, frozen=True, tag_field="tell", omit_defaults=True):
    """To the mind, of one call."""


class Begin(Tell, frozen=True, tag="begin"):
    call: str
    caller: str
    """The number; empty for somebody who withholds it."""
    rate: int
    """Samples a second of the frames to come."""
    given: tuple[int, ...] = ()
    """Memories that the model has already, when the mind is new and the call is not."""


class Heard(Tell, frozen=True, tag="heard"):
    """An utterance of the caller so far, by an engine that hears. Each final one is answered by one `Remind`."""

    id: int
    text: str
    start: int
    end: int
    final: bool


class Said(Tell, frozen=True, tag="said"):
    """What the agent said, in its own words."""

    text: str


class Took(Tell, frozen=True, tag="took"):
    """What became of a reminder: `taken` when the model has it."""

    memories: tuple[int, ...]
    taken: bool
    seconds: float
    """From the reminder's coming to the daemon until the model had it."""
    again: bool = False
    """Whether it may be asked once more: it was broken off."""


class Anew(Tell, frozen=True, tag="anew"):
    """The model has lost all that it was given."""


class Keep(Tell, frozen=True, tag="keep"):
    """Something that the engine wants to be remembered."""

    text: str


class Forget(Tell, frozen=True, tag="forget"):
    """The caller wants everything about him to be forgotten."""


class End(Tell, frozen=True, tag="end"):
    pass


class Quit(Tell, frozen=True, tag="quit"):
    """Finish what is under way and say `Done`. Of no call."""


class Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True):
    """To the daemon, of one call."""


class Known(Event, frozen=True, tag="known"):
    """The answer to `Begin`: what the call may begin with."""

    name: str = ""
    context: str = ""
    """The caller's standing facts, as the model shall read them."""
    memories: tuple[int, ...] = ()


class Remind(Event, frozen=True, tag="remind"):
    """Give this to the model now."""

    text: str
    memories: tuple[int, ...]
    facts: tuple[str, ...]
    """The memories themselves, as a client is shown them."""
    turn: int | None = None
    """The id of what it answers, a `Heard` that was final: then it may be empty. None when nobody waits for it."""


def nothing(turn: int) -> Remind:
    """That nothing came to mind."""
    return Remind("", (), (), turn)


class Forgotten(Event, frozen=True, tag="forgotten"):
    memories: int


class Overheard(Event, frozen=True, tag="overheard"):
    """An utterance of the caller so far, by the mind's own ear."""

    id: int
    text: str
    final: bool


class State(Event, frozen=True, tag="state"):
    """How the mind is, whenever that changes. Of no call."""

    trouble: str = ""
    """Why nothing is remembered or recalled just now; empty when all is well."""
    written: int = 0
    """Memories, since it began."""
    errors: int = 0
    """Times that the store or the embedder failed, since it began."""
    judged: dict[str, int] = {}
    """Questions to a language model, by how they ended."""


class Done(Event, frozen=True, tag="done"):
    """Nothing is under way any more. Of no call."""


AnyTell: TypeAlias = Begin | Heard | Said | Took | Anew | Keep | Forget | End | Quit
AnyEvent: TypeAlias = Known | Remind | Forgotten | Overheard | State | Done

decode_tell: msgspec.json.Decoder[AnyTell] = msgspec.json.Decoder(AnyTell)
decode_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
