"""The wire of the servers that come with Moshi: moshi.server, moshi_mlx.local_web, moshi-backend, and PersonaPlex's.

They serve one conversation at a time and let whoever else comes wait in silence. Sound is Ogg Opus; of what the model
says there are pieces of text. Nothing can be asked of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, TypeAlias

import aiohttp
import numpy as np
from numpy.typing import NDArray

from ...codecs.opus import Decoder, Encoder
from .. import wire
from ..base import FRAME, OPENING, Event, Frame, Injected, Opening, Refused, Sound, Words
from .endpoint import PATHS, Endpoint
from .link import CLOSING, DENIED, HEARTBEAT, LONGEST_WHY, Broken, Link, Over, Reading, Unusable, Wrong, denied, refused

HANDSHAKE = 10.0  # seconds to the first reply: PersonaPlex reads its prompts before, and a busy server says nothing
BEHIND = 25  # frames without a reply (2 s): what comes then is left out, since these servers never catch up otherwise
PAUSE = 10  # frames without a text (0.8 s) that end an utterance
LONGEST = 300  # characters of one; a model that never pauses would have it told again and again in full
NOT_UPGRADED = (400, 426)  # what a WebSocket answers to a plain request

# What we call a setting of sampling, and what moshi-backend does in an address. The others do not look.
QUERY = {
    "text_temperature": "text_temperature",
    "text_top_k": "text_topk",
    "audio_temperature": "audio_temperature",
    "audio_top_k": "audio_topk",
}

Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[Any]"

log = logging.getLogger("voice_bridge.relay")


class Kind(IntEnum):
    """Of a message, by its first byte. Those that are left out mean nothing to us."""

    SHAKE = 0
    SOUND = 1
    TEXT = 2
    ERROR = 5
    COLOURED = 7


class Utterance:
    """Pieces of text to what has been said so far; numbered from -1 down, with odd numbers, as our own engines' are."""

    def __init__(self) -> None:
        self._id = 1
        self._text = ""
        self._began = self._end = 0

    def add(self, piece: str, at: int) -> Iterator[Words]:
        if len(self._text) > LONGEST and piece.startswith(" "):
            yield from self._over()
        if not self._text:
            self._id -= 2
            self._began = at
        self._text += piece
        self._end = at + FRAME
        if self._text.strip():
            yield self._words(final=False)

    def pause(self, at: int) -> Iterator[Words]:
        """A frame has passed."""
        if at - self._end >= PAUSE * FRAME:
            yield from self._over()

    def _over(self) -> Iterator[Words]:
        if self._text.strip():
            yield self._words(final=True)
        self._text = ""

    def _words(self, final: bool) -> Words:
        return Words(self._id, "agent", self._text.strip(), self._began, self._end, final)


class MoshiLink:
    patience = HANDSHAKE
    resumable = False

    def __init__(self, socket: Socket, early: list[Event]) -> None:
        self.early = early
        self._socket = socket
        self._encoder, self._decoder = Encoder(), Decoder()
        self._shaken = asyncio.Event()
        self._asked: deque[int] = deque()  # the clocks of frames without a reply
        self._replied = False
        self._answers = 0
        self._pcm: NDArray[np.float32] = np.zeros(0, np.float32)
        self._utterance = Utterance()

    async def send(self, frame: Frame, at: int) -> bool:
        await self._shaken.wait()
        if len(self._asked) >= BEHIND:
            return False
        self._asked.append(at)
        if opus := self._encoder.push(frame):
            await self._socket.send_bytes(bytes((Kind.SOUND,)) + opus)
        return True

    async def tell(self, tell: wire.AnyTell) -> list[Event]:
        match tell:
            case wire.Say(id) | wire.Inject(id):
                return [Refused(id)]
            case wire.Close():
                await self._socket.close()
            case _:
                pass
        return []

    async def receive(self) -> list[Event]:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return list(self._take(message.data))
        if message.type is aiohttp.WSMsgType.TEXT:
            return []
        if not self._shaken.is_set():
            raise Broken("it hung up before it began: a PersonaPlex server wants its voice in voice.cloud.voice")
        raise Broken(str(self._socket.exception() or "the connection broke"))

    async def close(self) -> None:
        await self._socket.close()

    def _take(self, data: bytes) -> Iterator[Event]:
        body = data[1:]
        match data[0] if data else None:
            case Kind.SHAKE:
                self._shaken.set()
            case Kind.SOUND:
                yield from self._sound(body)
            case Kind.TEXT:
                yield from self._utterance.add(body.decode(errors="replace"), self._answers)
            case Kind.COLOURED:
                yield from self._utterance.add(body[1:].decode(errors="replace"), self._answers)
            case Kind.ERROR:
                raise Over("engine", body.decode(errors="replace")[:LONGEST_WHY])

    def _sound(self, opus: bytes) -> Iterator[Event]:
        try:
            pcm = self._decoder.push(opus)
        except ValueError as error:
            raise Over("protocol", f"it sent sound that is no Opus: {error}") from None
        self._pcm = np.concatenate((self._pcm, pcm))
        while len(self._pcm) >= FRAME:
            frame, self._pcm = self._pcm[:FRAME], self._pcm[FRAME:]
            self._count()
            yield Sound(frame, self._answers)
            yield from self._utterance.pause(self._answers)

    def _count(self) -> None:
        """Which frame the next reply answers: their model has none for the first, and one for each that follows."""
        if not self._replied and len(self._asked) > 1:
            self._asked.popleft()
        self._replied = True
        self._answers = self._asked.popleft() if self._asked else self._answers + FRAME


class MoshiWire:
    def __init__(self, endpoint: Endpoint, http: aiohttp.ClientSession) -> None:
        self.token = ""
        self._endpoint = endpoint
        self._http = http
        self._url = endpoint.url + PATHS["moshi"]
        self._told = False

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def probe(self, used: int) -> Reading:
        """A plain request for the WebSocket: it takes nobody's place, and shows that there is one."""
        async with self._http.get(self._url, headers=self._headers, allow_redirects=False) as answer:
            await answer.read()
            if answer.status in DENIED:
                raise denied(answer.status, "")
            if answer.status == 404:
                raise Wrong("has no /api/chat: leave that path out for another voice-bridge, or correct the address")
            if answer.status not in NOT_UPGRADED:
                raise Unusable(f"answers {answer.status} where a server of Moshi's has its WebSocket")
        return Reading(max(0, 1 - used), engine="moshi")

    async def connect(self, opening: Opening, fresh: Callable[[], int]) -> MoshiLink:
        endpoint = self._endpoint
        if not self._told:
            self._told = True
            log.warning(
                "the endpoint %s is a server of Moshi's: greetings, reminders and words of ours cannot be said there%s",
                endpoint.name,
                "" if endpoint.voice else ", and it is given no persona",
            )
        early: list[Event] = []
        if opening.known:
            early.append(Injected(OPENING) if endpoint.voice else Refused(OPENING))
        try:
            socket = await self._http.ws_connect(
                self._url,
                params=_query(opening, endpoint.voice),
                headers=self._headers,
                heartbeat=HEARTBEAT,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise refused(error) from None
        return MoshiLink(socket, early)

    async def resume(self, link: Link) -> MoshiLink:
        raise Over("resume", "these servers keep nothing")


def _query(opening: Opening, voice: str) -> dict[str, str]:
    """PersonaPlex wants both prompts to be there; the others leave what they do not know."""
    prompt = "\n".join(filter(None, (opening.persona, opening.known))) if voice else ""
    asked = {"text_prompt": prompt, "voice_prompt": voice}
    if opening.seed is not None:
        asked |= {"seed": str(opening.seed), "text_seed": str(opening.seed), "audio_seed": str(opening.seed)}
    for name, value in opening.sampling.items():
        if name in QUERY:
            asked[QUERY[name]] = f"{value:g}"
    return asked
