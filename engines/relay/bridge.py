"""The wire between bridges: the relay form of `/v1/stream`, and `/v1/capacity`. docs/clients.md has it."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import aiohttp
import msgspec
import numpy as np

from ...codecs.resample import FULL_SCALE
from .. import wire
from ..base import (
    FRAME,
    Cut,
    Event,
    Frame,
    Injected,
    Opening,
    Refused,
    Said,
    Sound,
    TextEvent,
    Turn,
    Words,
)
from .endpoint import PATHS, Endpoint
from .link import CLOSING, DENIED, HEARTBEAT, LONGEST_WHY, Broken, Link, Over, Reading, Unusable, Wrong, denied, refused

PROTOCOL = 1
FIRST = 4.0  # seconds to the first reply: a persona is read before it
MOST_WORDS = 4000  # characters that a bridge takes at once
MOST_POSITION = 10**12  # samples; a bridge takes no position beyond
HELD = 64  # events that wait for the id of what they are about; they come together, so more is a fault
CLOCK = struct.Struct("<q")
SAMPLE = np.dtype("<i2")

Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[Any]"
Named: TypeAlias = Words | Turn | Said | Cut | Injected | Refused


class Down(msgspec.Struct, tag_field="type"):
    pass


class Ready(Down, tag="ready"):
    ticket: str = ""


class Pong(Down, tag="pong"):
    pass


class Asked(Down, tag="asked"):
    id: int


class Trouble(Down, tag="error"):
    message: str = ""
    code: str = ""


class Ended(Down, tag="ended"):
    code: str


class Told(Down, tag="event"):
    event: msgspec.Raw


class Capacity(msgspec.Struct):
    state: str
    free: int
    engine: str = ""
    step_ms: float = 0.0
    protocol: int = PROTOCOL


_down: msgspec.json.Decoder[Ready | Pong | Asked | Trouble | Ended | Told] = msgspec.json.Decoder(
    Ready | Pong | Asked | Trouble | Ended | Told
)
_capacity: msgspec.json.Decoder[Capacity] = msgspec.json.Decoder(Capacity)


def pack(frame: Frame, at: int) -> bytes:
    """A frame as it goes over this wire, and what clock it has there."""
    steps = np.rint(np.nan_to_num(frame).clip(-1, 1) * np.float32(FULL_SCALE))
    return CLOCK.pack(at) + np.minimum(steps, FULL_SCALE - 1).astype(SAMPLE).tobytes()


def unpack(data: bytes) -> Sound:
    """Raises ValueError for what is no frame."""
    if len(data) != CLOCK.size + FRAME * SAMPLE.itemsize:
        raise ValueError(f"a frame of {len(data)} bytes")
    pcm = np.frombuffer(data, SAMPLE, offset=CLOCK.size)
    return Sound(np.divide(pcm, np.float32(FULL_SCALE), dtype=np.float32), CLOCK.unpack_from(data)[0])


class Ids:
    """What was asked for has one number here, which is known at once, and one there, which is told later.

    Utterances, and what the far end asks for by itself, are numbered there: those below 1 are the same here, the others
    are given one of ours.
    """

    def __init__(self, fresh: Callable[[], int]) -> None:
        self.waiting: deque[int] = deque()
        """Ours that have none there yet, in the order in which they were asked for."""
        self._fresh = fresh
        self._ours: dict[int, int] = {}
        self._theirs: dict[int, int] = {}

    def told(self, theirs: int) -> int | None:
        """The oldest of `waiting` has this number there; None if it was nobody's."""
        if not self.waiting:
            return None
        self._pair(ours := self.waiting.popleft(), theirs)
        return ours

    def ours(self, theirs: int) -> int | None:
        """None while it may be one of those that are waiting."""
        if theirs < 1:
            return theirs
        if theirs not in self._ours:
            if self.waiting:
                return None
            self._pair(self._fresh(), theirs)
        return self._ours[theirs]

    def theirs(self, ours: int) -> int | None:
        return ours if ours < 1 else self._theirs.get(ours)

    def _pair(self, ours: int, theirs: int) -> None:
        self._ours[theirs], self._theirs[ours] = ours, theirs


class BridgeLink:
    patience = FIRST

    def __init__(self, socket: Socket, ids: Ids) -> None:
        self.early: list[Event] = []
        self.ticket = ""
        self.ids = ids
        self.unsure: tuple[int, ...] = ()
        """Of a resumed conversation: what was asked for when the connection broke, and may never have arrived."""
        self._socket = socket
        self._held: list[TextEvent] = []
        self._unwanted: set[int] = set()  # asked for and cancelled before it had a number there
        self._why = ""

    @property
    def resumable(self) -> bool:
        return bool(self.ticket)

    async def send(self, frame: Frame, at: int) -> bool:
        await self._socket.send_bytes(pack(frame, at))
        return True

    async def say(self, kind: str, **fields: object) -> None:
        """One text of the wire."""
        await self._socket.send_frame(wire.encode({"type": kind, **fields}), aiohttp.WSMsgType.TEXT)

    async def tell(self, tell: wire.AnyTell) -> list[Event]:
        match tell:
            case wire.Say(id, text, interruptible):
                return await self._ask(id, text, bool(text.strip()), "say", text=text, interruptible=interruptible)
            case wire.Inject(id, context, how, turn):
                turn = turn if turn is None else self.ids.theirs(turn)
                fields = {"context": context, "how": how} | ({} if turn is None else {"turn": turn})
                return await self._ask(id, context, bool(context.strip()) or turn is not None, "inject", **fields)
            case wire.Cancel(id):
                await self._cancel(id)
            case wire.Forget():
                await self.say("forget")
            case wire.Played(at) if 0 <= at < MOST_POSITION:
                await self.say("played", at=at)
            case wire.Digit(digit):
                await self.say("digit", digit=digit)
            case wire.Close():
                await self.say("close")
            case _:
                pass
        return []

    async def receive(self) -> list[Event]:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            try:
                return [unpack(message.data)]
            except ValueError as error:
                raise Over("protocol", f"it sent {error}") from None
        if message.type is aiohttp.WSMsgType.TEXT:
            return await self._text(message.data)
        raise Broken(self._why or str(self._socket.exception() or "the connection broke"))

    async def close(self) -> None:
        await self._socket.close()

    async def _ask(self, id: int, words: str, means: bool, kind: str, **fields: object) -> list[Event]:
        """What a bridge would not take is refused here, so that each that is sent is answered by a number."""
        if not means or len(words) > MOST_WORDS:
            return [Refused(id)]
        self.ids.waiting.append(id)
        await self.say(kind, **fields)
        return []

    async def _cancel(self, id: int) -> None:
        theirs = self.ids.theirs(id)
        if theirs is not None:
            await self.say("cancel", id=theirs)
        elif id in self.ids.waiting:
            self._unwanted.add(id)

    async def _text(self, data: str | bytes) -> list[Event]:
        try:
            message = _down.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            return []  # of a kind that a later bridge has
        match message:
            case Ready(ticket):
                self.ticket = ticket
            case Told(event):
                return self._event(event)
            case Asked(id):
                return await self._asked(id)
            case Pong():
                return self._resumed()
            case Trouble(why, code):
                self._why = f"{code}: {why}"[:LONGEST_WHY]
                if code == "resume":
                    raise Over("resume", why)
            case Ended(code):
                raise Over(code, self._why)
        return []

    def _event(self, raw: msgspec.Raw) -> list[Event]:
        try:
            event = wire.decode_event.decode(raw)
        except msgspec.DecodeError:
            return []  # of a kind that a later bridge has
        if self._held:  # what came before it waits: they stay in order
            self._held.append(event)
            return self._release() if len(self._held) > HELD else []
        here = self._here(event)
        if here is None:
            self._held.append(event)
            return []
        return [here]

    def _here(self, event: TextEvent) -> TextEvent | None:
        """The event under the number that it has here; None while that is not known."""
        if not isinstance(event, Named):
            return event
        ours = self.ids.ours(event.id)
        return None if ours is None else msgspec.structs.replace(event, id=ours)

    async def _asked(self, theirs: int) -> list[Event]:
        ours = self.ids.told(theirs)
        if ours in self._unwanted:
            self._unwanted.discard(ours)
            await self.say("cancel", id=theirs)
        return self._release()

    def _resumed(self) -> list[Event]:
        """All that had been asked for before the connection broke has been answered by now, or never arrived."""
        lost = [id for id in self.unsure if id in self.ids.waiting]
        for id in lost:
            self.ids.waiting.remove(id)
        self.unsure = ()
        return [*(Refused(id) for id in lost), *self._release()]

    def _release(self) -> list[Event]:
        """What was held and whose number is known now."""
        known: list[Event] = []
        while self._held and (here := self._here(self._held[0])) is not None:
            known.append(here)
            del self._held[0]
        if len(self._held) > HELD:
            del self._held[0]
        return known


class BridgeWire:
    def __init__(self, endpoint: Endpoint, http: aiohttp.ClientSession) -> None:
        self.token = ""
        self._endpoint = endpoint
        self._http = http

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def probe(self, used: int) -> Reading:
        url = f"{self._endpoint.url}/v1/capacity"
        async with self._http.get(url, headers=self._headers, allow_redirects=False) as answer:
            body = await answer.read()
            if answer.status in DENIED:
                raise denied(answer.status, _said(body))
            if answer.status == 404:
                raise Wrong(
                    "is no voice-bridge, or one of before relays: write wss://HOST/api/chat for a server of Moshi's"
                )
            if answer.status != 200:
                raise Unusable(f"answers {answer.status} when asked how it is")
        try:
            told = _capacity.decode(body)
        except (msgspec.DecodeError, UnicodeError):
            raise Wrong("does not answer as a voice-bridge does: correct its address") from None
        if told.protocol != PROTOCOL:
            raise Wrong(f"speaks protocol {told.protocol} and we {PROTOCOL}: upgrade the older of the two")
        return Reading(max(0, told.free), told.state, told.engine, told.step_ms / 1000)

    async def connect(self, opening: Opening, fresh: Callable[[], int]) -> BridgeLink:
        asked = msgspec.to_builtins(msgspec.structs.replace(opening, call=""))
        return await self._open(BridgeLink(await self._socket(), Ids(fresh)), relay=asked)

    async def resume(self, link: Link) -> BridgeLink:
        assert isinstance(link, BridgeLink)
        again = BridgeLink(await self._socket(), link.ids)
        again.unsure = tuple(link.ids.waiting)
        await self._open(again, resume=link.ticket)
        try:
            while not again.ticket:
                again.early += await again.receive()
            await again.say("ping")
        except BaseException:
            await again.close()
            raise
        return again

    async def _open(self, link: BridgeLink, **fields: object) -> BridgeLink:
        try:
            await link.say("open", protocol=PROTOCOL, **fields)
        except BaseException:
            await link.close()
            raise
        return link

    async def _socket(self) -> Socket:
        """On the connection that the last probe left open, if nobody else took it."""
        try:
            return await self._http.ws_connect(
                self._endpoint.url + PATHS["bridge"],
                headers=self._headers,
                heartbeat=HEARTBEAT,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise refused(error) from None


def _said(body: bytes) -> str:
    """The reason that a bridge gives."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("error", ""))[:LONGEST_WHY]
    except (msgspec.DecodeError, UnicodeError):
        return ""
