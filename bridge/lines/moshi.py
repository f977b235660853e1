"""The line of the clients that come with Moshi: their Python and Rust programs, and their page. No socket, no clock.

A binary message a unit; its first byte says what the rest is. These clients wait for a handshake and send nothing
before, so whoever has their socket gives the line an empty message first, which means nothing later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...codecs.opus import Decoder, Encoder
from ...codecs.resample import FULL_SCALE
from .base import In, Out, ProtocolError, Started
from .client import ClientLine
from .notes import Note, Over, Ready, Transcript, Trouble
from .texts import COST, MAX_REASON, TEXTS, Pace

MAX_MESSAGE = 64 * 1024  # bytes, for the socket: a second of Opus at its highest rate
HANDSHAKE = bytes(8)  # two numbers of 32 bits, the protocol's and the model's; their servers send zeros or nothing
MOST_SEEDS = 1 << 64  # their servers take that many
MOST_SEED = 1 << 63  # of ours, which goes to the engine as a number of 64 bits with a sign
TEMPERATURES = (0.0, 2.0)  # beyond, what is drawn is noise; their page offers 0.2 to 1.2
TOP_KS = (1, 32_000)  # no more tokens are there to choose from; their page offers 10 to 500

_SCALE = np.array(FULL_SCALE, np.float32)


class Kind(IntEnum):
    """Of a message. What else there is means nothing to a bridge: control, metadata, ping, coloured text."""

    SHAKE = 0
    SOUND = 1
    TEXT = 2
    ERROR = 5


class Wishes(NamedTuple):
    """What a client asks for in its address."""

    persona: str | None = None
    sampling: Mapping[str, float] = MappingProxyType({})
    seed: int | None = None


def wishes(query: Mapping[str, str]) -> Wishes:
    """Names are those of Moshi's page and of PersonaPlex's; raises ValueError for a value that makes no sense."""
    numbers = {
        ours: _number(theirs, query[theirs], kind, bounds)
        for ours, theirs, kind, bounds in (
            ("text_temperature", "text_temperature", float, TEMPERATURES),
            ("audio_temperature", "audio_temperature", float, TEMPERATURES),
            ("text_top_k", "text_topk", int, TOP_KS),
            ("audio_top_k", "audio_topk", int, TOP_KS),
        )
        if theirs in query
    }
    return Wishes(query.get("text_prompt") or None, numbers, _seed(query))


def _seed(query: Mapping[str, str]) -> int | None:
    """Theirs may be two, one for each kind of token. PersonaPlex's -1 means none."""
    bounds = (-1, MOST_SEEDS - 1)
    given = [
        int(_number(name, query[name], int, bounds)) for name in ("seed", "audio_seed", "text_seed") if name in query
    ]
    if not given or given[0] == -1:
        return None
    return sum(seed << (32 * place) for place, seed in enumerate(given)) % MOST_SEED


def _number(name: str, given: str, kind: type[int] | type[float], bounds: tuple[float, float]) -> float:
    least, most = bounds
    try:
        value = kind(given)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise ValueError(f"{name}={given[:20]!r}: take a number from {least} to {most}")
    return value


def goodbye(why: str) -> tuple[Out, Out]:
    """Why there is no conversation, or no more: as an error for programs, and as text, which is all that is shown."""
    return _out(Kind.ERROR, why.encode()), _out(Kind.TEXT, f" [{why}]".encode())


class MoshiLine:
    name = "moshi"
    rate = ClientLine.rate
    start_limit = ClientLine.start_limit
    by_carrier = False

    def __init__(self, call: str, token: str, wanted: Wishes) -> None:
        """`call` and `token` are those of the ticket that was made at the handshake."""
        self._line = ClientLine(call, token)  # what a second of sound may weigh, and when silence is due
        self._wanted = wanted
        self._encoder, self._decoder = Encoder(), Decoder()
        self._pace = Pace(TEXTS)
        self._told = Transcript("", "agent", 0, final=True)
        self._why: str | None = None

    @property
    def gap_samples(self) -> int:
        return self._line.gap_samples

    @property
    def late_samples(self) -> int:
        return self._line.late_samples

    def receive(self, data: str | bytes, now: float) -> list[In]:
        pcm = np.zeros(0, np.float32)
        if isinstance(data, bytes) and data[:1] == bytes((Kind.SOUND,)):
            try:
                pcm = self._decoder.push(data[1:])
            except ValueError as error:
                raise ProtocolError(f"sound that is {error}"[:MAX_REASON]) from None
        if not len(pcm) and not self._pace.take(COST, now):
            raise ProtocolError("messages without sound come faster than any client has to send")
        return [self._with_wishes(event) for event in self._line.receive(self.render(pcm).tobytes(), now)]

    def fill(self, now: float) -> list[In]:
        return self._line.fill(now)

    def dead(self, now: float) -> bool:
        return self._line.dead(now)

    def render(self, frame: NDArray[np.float32]) -> NDArray[np.int16]:
        return self._line.render(frame)

    def sound(self, pcm: NDArray[np.int16]) -> Out | None:
        """None while less than a page has come."""
        opus = self._encoder.push(np.divide(pcm, _SCALE, dtype=np.float32))
        return _out(Kind.SOUND, opus) if opus else None

    def mark(self, position: int) -> None:
        """These clients do not tell what they have played."""

    def flush(self) -> None:
        """They cannot be told to throw anything away: what they hold is played."""

    def tell(self, note: Note) -> Out | None:
        match note:
            case Ready():
                return _out(Kind.SHAKE, HANDSHAKE)
            case Transcript(speaker="agent"):
                piece = self._piece(note)
                return _out(Kind.TEXT, piece.encode(errors="replace")) if piece else None
            case Trouble(message=why, code=code) if code != "refused":
                self._why = why
                return goodbye(why)[0]
            case Over() if self._why is not None:
                return goodbye(self._why)[1]
        return None

    def _piece(self, said: Transcript) -> str:
        """What is new in it, as these servers send it: the first word of all with a space before it, too.

        What has been said cannot be taken back, so of an utterance that reads differently now only the rest is told.
        """
        before = self._told.text if said.id == self._told.id else ""
        self._told = said
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, said.text, strict=False)))
        piece = said.text[kept:]
        return f" {piece}" if piece and (kept < len(before) or not before) else piece

    def _with_wishes(self, event: In) -> In:
        if not isinstance(event, Started):
            return event
        wanted = self._wanted
        return replace(event, persona=wanted.persona, sampling=dict(wanted.sampling), seed=wanted.seed)


def _out(kind: Kind, data: bytes) -> Out:
    return Out(bytes((kind,)) + data, text=False)
