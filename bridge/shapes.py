"""What operators see of the bridge and its calls, and what they ask: the JSON of their API and of `/v1/watch`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from ..engines.base import Capacity, Speaker

CallState: TypeAlias = Literal["listening", "talking", "engine-lost", "client-away"]
Id: TypeAlias = Annotated[str, msgspec.Meta(description="The call's id: Twilio's CallSid, or the bridge's own.")]
Text: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\S", description="Not nothing.")]

MAX_DIGITS = 64  # keys; ten seconds of tones, during which the agent is not heard
MAX_ADDRESS = 320  # characters; the longest SIP address that is in use anywhere
NOT_BOTH = {
    "not": {
        "properties": {
            "machine_detection": {"enum": ["Enable", "DetectMessageEnd"]},
            "send_digits": {"type": "string", "minLength": 1},
        },
        "required": ["machine_detection", "send_digits"],
    }
}


# What operators ask.


class PlaceCall(msgspec.Struct, forbid_unknown_fields=True):
    """Machines are not detected in a call that sends digits."""

    to: Annotated[
        str,
        msgspec.Meta(pattern=r"\S", max_length=MAX_ADDRESS, description="The number to call, with its country code."),
    ]
    from_: Annotated[
        str, msgspec.Meta(max_length=MAX_ADDRESS, description="Our number; `twilio.caller_id` if empty.")
    ] = msgspec.field(default="", name="from")
    machine_detection: Literal["", "Enable", "DetectMessageEnd"] = ""
    send_digits: Annotated[
        str, msgspec.Meta(pattern=r"^[0-9*#wW]*(?!\n)$", description="To be dialled after the answer.")
    ] = ""


class SayText(msgspec.Struct, forbid_unknown_fields=True):
    text: Text
    interruptible: bool = True


class InjectContext(msgspec.Struct, forbid_unknown_fields=True):
    context: Text


class PressDigits(msgspec.Struct, forbid_unknown_fields=True):
    digits: Annotated[
        str,
        msgspec.Meta(
            max_length=MAX_DIGITS, pattern=r"^[0-9A-D*#w]*(?!\n)$", description="Keys; w is a pause of half a second."
        ),
    ]


class TransferTo(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[
        str,
        msgspec.Meta(pattern=r"^\+[1-9][0-9]{1,14}(?!\n)$", description="In full, with its country code."),
    ]


# What they are answered.


class Error(msgspec.Struct, frozen=True):
    error: Annotated[str, msgspec.Meta(description="What was wrong, and what to do.")]


class Alive(msgspec.Struct, frozen=True):
    alive: bool


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    state: Literal["ready", "draining", "engine not ready", "no slot"]
    why: str = ""


class Placed(msgspec.Struct, frozen=True):
    call: Id


class Asked(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(description="Under which the engine says or reads it.")]


class Memory(msgspec.Struct, frozen=True):
    """How the memory of callers is."""

    ready: bool
    trouble: str
    written: int
    reminders: Annotated[dict[str, int], msgspec.Meta(description="By what became of them.")]


class LiveCall(msgspec.Struct, frozen=True):
    call: Id
    line: Annotated[str, msgspec.Meta(description="What it came in on.")]
    direction: str
    caller: str
    number: str
    seconds: float
    engine: str
    state: Annotated[CallState, msgspec.Meta(description="Whether the agent talks just now, or who is away.")]
    lead_ms: int
    mouth_to_ear_ms: Annotated[int, msgspec.Meta(description="From the caller's sound to the reply's; 0: not known.")]
    frames: int
    underruns: Annotated[int, msgspec.Meta(description="Times that the caller's player ran dry.")]
    memories: Annotated[int, msgspec.Meta(description="That the model was given.")]


class Utterance(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(description="Counts up within the call, both speakers together.")]
    speaker: Speaker
    text: Annotated[str, msgspec.Meta(description="The whole utterance so far.")]
    final: bool


class WholeCall(LiveCall, frozen=True):
    """One call, with what was said last."""

    words: list[Utterance]


class Board(msgspec.Struct, frozen=True):
    """The bridge and its live calls."""

    engine: str
    ready: bool
    draining: bool
    trouble: Annotated[str, msgspec.Meta(description="Why no call can come in; empty when all is well.")]
    slots: Capacity
    step_ms: Annotated[float, msgspec.Meta(description="What a step of all offered slots is expected to take.")]
    frame_ms: Annotated[
        float | None,
        msgspec.Meta(description="From a frame's hand-over to the engine's reply, of late; null without a call."),
    ]
    lag_ms: Annotated[float, msgspec.Meta(description="How late the event loop was at worst in the last second.")]
    dropped_frames: int
    restarts: int
    level: Annotated[int | None, msgspec.Meta(description="Of the machine, 0 to 6; null where it was not looked at.")]
    machine: Annotated[str, msgspec.Meta(description="What the machine is, in a line.")]
    memory: Annotated[Memory | None, msgspec.Meta(description="Null when memory is off.")]
    calls: list[LiveCall]


# What `/v1/watch` sends, each by its `type`.


class BoardNow(Board, frozen=True, tag_field="type", tag="board"):
    """At first, and then once a second."""


class Begun(msgspec.Struct, frozen=True, tag_field="type", tag="begun"):
    call: LiveCall


class Ended(msgspec.Struct, frozen=True, tag_field="type", tag="ended"):
    call: Id
    end: Annotated[str, msgspec.Meta(description="Why, in the words of the call records.")]


class Words(Utterance, frozen=True, tag_field="type", tag="words"):
    """An utterance so far; the next with this `id` replaces it."""

    call: Id


class StateNow(msgspec.Struct, frozen=True, tag_field="type", tag="state"):
    call: Id
    state: CallState


Watched: TypeAlias = BoardNow | Begun | Ended | Words | StateNow
