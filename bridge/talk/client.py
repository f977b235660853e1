"""A conversation over `/v1/stream`, from the client's end: connecting, coming back, sound and notes. No interface."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ..lines import notes
from ..lines.notes import Note
from .address import Address, Unreachable, unreachable
from .playback import Pcm, Playback

OPEN_LIMIT = 10.0  # seconds until a bridge has answered; its own limit for a start
CLOSE_LIMIT = 0.5  # seconds for a goodbye: whoever ends a talk wants it ended
RESUME_LIMIT = 10.0  # seconds for which a bridge keeps a conversation whose client is gone
GIVE_UP = 60.0  # seconds without a bridge after which nobody waits any longer
FIRST_PAUSE, MOST_PAUSE = 0.1, 3.0  # seconds between two tries, doubling: most breaks are short, a restart takes longer
PING_EVERY = 2.0  # seconds: often enough for a figure that people look at
PONG_LIMIT = 5.0  # seconds without an answer after which the connection is taken for broken
WORDS_EVERY = 0.5  # seconds between two texts to say or to know; a bridge ends a call for more
MOST_AHEAD = 4  # frames (320 ms) that wait for a slow network; the oldest goes, as it does at the bridge
MOST_MESSAGE = 1 << 20  # bytes; a second of sound has a tenth of it
LOST = "resume"  # the code with which a bridge says that a conversation cannot be come back to
SMOOTH = 16  # frames over which a figure is averaged: about a second
FRAME = 0.080  # seconds that an engine hears at once

Connection: TypeAlias = Literal["connected", "broken", "resumed", "renewed"]


class Link(NamedTuple):
    """What became of the connection; `renewed` is one that came back with a fresh conversation."""

    state: Connection
    call: str = ""


Event: TypeAlias = Note | Link

_decode: Callable[[str], Note] = msgspec.json.Decoder(
    notes.Ready
    | notes.Status
    | notes.Transcript
    | notes.Memory
    | notes.Asked
    | notes.Said
    | notes.Cut
    | notes.Injected
    | notes.Pong
    | notes.Flushed
    | notes.Trouble
    | notes.Over
).decode


class Client:
    """One conversation, over as many connections as it takes.

    `tell` gets what happens; `read`, if given, every text as it came. `playback` fills with what is to be heard, at
    its rate; `send` takes as much, a frame at a time. Everything runs on the loop of `run`.
    """

    def __init__(
        self,
        where: Address,
        playback: Playback,
        tell: Callable[[Event], None],
        *,
        persona: str | None = None,
        read: Callable[[str], None] | None = None,
    ) -> None:
        self.playback = playback
        self.delay = (0.0, 0.0)  # seconds from the mouth to `send`, and from the playback to the ear
        self.round_trip: float | None = None  # seconds to the bridge and back
        self.mouth_to_ear: float | None = None  # seconds, as well as they can be known here
        self.jitter = 0.0  # seconds by which sound comes unevenly, on average
        self.resumes = 0
        self._where = where
        self._tell = tell
        self._read = read
        self._opening: dict[str, Any] = {"type": "open", "rate": playback.rate, "protocol": notes.PROTOCOL}
        if persona is not None:
            self._opening["persona"] = persona
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._socket: ClientConnection | None = None
        self._live = asyncio.Event()  # the bridge has said that it is ready, on this connection
        self._ended: str | None = None
        self._closing = asyncio.Event()
        self._ticket = ""
        self._tried = ""  # the ticket that this connection was opened with
        self._call = ""
        self._broken_at: float | None = None
        self._trouble = ""
        self._frames: deque[bytes] = deque(maxlen=MOST_AHEAD)
        self._texts: deque[str] = deque()
        self._waiting = asyncio.Event()
        self._words: asyncio.Queue[str] = asyncio.Queue()
        self._unanswered = 0  # words that were sent or wait, and have no id yet
        self._asked: set[int] = set()
        self._sent_at: float | None = None  # when the last frame went
        self._pinged_at: float | None = None
        self._sound_due: float | None = None  # when the next sound would come, if the way took the same time always

    # -- what the interfaces ask for -----------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._live.is_set()

    @property
    def busy(self) -> bool:
        """Whether something that was asked for has not been said or read yet."""
        return bool(self._unanswered or self._asked)

    def send(self, frame: Pcm) -> None:
        """What was said; sound that no connection takes is gone, as on a telephone."""
        if self.connected:
            self._frames.append(frame.astype("<i2", copy=False).tobytes())
            self._waiting.set()

    def played(self, position: int) -> None:
        """The playback has gone up to there; the bridge is told when the ear has got it."""
        self._loop.call_later(self.delay[1], self._report, position)

    def say(self, text: str) -> None:
        self._ask({"type": "say", "text": text})

    def inject(self, context: str) -> None:
        self._ask({"type": "inject", "context": context})

    def press(self, digit: str) -> None:
        self._post("digit", digit=digit)

    def close(self) -> None:
        """End the conversation; `run` returns soon."""
        self._closing.set()
        self._post("close")

    async def run(self) -> str:
        """Talk until it is over; gives how it ended, in the bridge's words (docs/clients.md, `ended`).

        Raises Unreachable where there is no way in, or back in.
        """
        pause = FIRST_PAUSE
        while self._ended is None and not self._closing.is_set():
            try:
                await self._connect()
                pause = FIRST_PAUSE if self._broken_at is None else pause
            except Unreachable as why:
                if not self._worth_trying(why):
                    raise
            if self._broken_at is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._closing.wait()
                pause = min(MOST_PAUSE, pause * 2)
        return self._ended or "caller"

    # -- connections ---------------------------------------------------------------------------------------------

    def _worth_trying(self, why: Unreachable) -> bool:
        return self._broken_at is not None and why.passing and self._now() - self._broken_at < GIVE_UP

    async def _connect(self) -> None:
        """One connection, from its beginning to its end."""
        connecting = connect(
            self._where.url,
            additional_headers=self._where.headers,
            compression=None,
            proxy=None,
            open_timeout=OPEN_LIMIT,
            ping_interval=None,
            close_timeout=CLOSE_LIMIT,
            max_size=MOST_MESSAGE,
        )
        try:
            self._socket = await connecting
        except (OSError, WebSocketException, TimeoutError) as error:
            raise unreachable(self._where, error) from error
        try:
            async with self._socket as socket:
                await self._talk(socket)
        finally:
            self._live.clear()
            self._socket = None
        if self._ended is None and not self._closing.is_set():
            self._broke()

    async def _talk(self, socket: ClientConnection) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            await socket.send(json.dumps(self._open()))
            tasks = [asyncio.create_task(work) for work in self._chores(socket)]
            async for message in socket:
                if isinstance(message, bytes):
                    self._sound(message)
                else:
                    self._text(message)
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _chores(self, socket: ClientConnection) -> list[Coroutine[Any, Any, None]]:
        return [self._write(socket), self._speak(), self._ping(socket)]

    def _open(self) -> dict[str, Any]:
        """The first message: of the conversation that broke, if it may still be there."""
        late = self._broken_at is None or self._now() - self._broken_at > RESUME_LIMIT
        self._tried = "" if late else self._ticket
        self._trouble = ""
        return {**self._opening, "resume": self._tried} if self._tried else self._opening

    def _broke(self) -> None:
        """The connection ended without a goodbye."""
        if self._broken_at is None:
            if not self._call:
                told = self._trouble or "no reason was given"
                raise Unreachable(f"the bridge at {self._where.host} closed the connection: {told}", passing=False)
            self._broken_at = self._now()
            self._tell(Link("broken", self._call))
        self.playback.flush()
        self._frames.clear()
        self._texts.clear()
        self._asked.clear()
        self._unanswered = self._words.qsize()
        self.round_trip = self.mouth_to_ear = self._pinged_at = self._sent_at = self._sound_due = None

    # -- up ------------------------------------------------------------------------------------------------------

    def _ask(self, message: dict[str, Any]) -> None:
        self._unanswered += 1
        self._words.put_nowait(json.dumps(message))

    def _post(self, kind: str, **fields: Any) -> None:
        if self._socket is not None:
            self._texts.append(json.dumps({"type": kind, **fields}))
            self._waiting.set()

    def _report(self, position: int) -> None:
        if 0 < position <= self.playback.position and self.connected:  # not of before a flush
            self._post("played", at=position)

    async def _write(self, socket: ClientConnection) -> None:
        """Texts and frames, as they come and the network takes them."""
        with suppress(ConnectionClosed):
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                while self._texts or self._frames:
                    while self._texts:
                        await socket.send(self._texts.popleft())
                    if self._frames:
                        self._sent_at = self._now()
                        await socket.send(self._frames.popleft())

    async def _speak(self) -> None:
        """Words, no faster than a bridge takes them."""
        while True:
            await self._live.wait()
            self._texts.append(await self._words.get())
            self._waiting.set()
            await asyncio.sleep(WORDS_EVERY)

    async def _ping(self, socket: ClientConnection) -> None:
        """Time the way; a connection on which nothing comes back is cut, so that another is made."""
        while True:
            if self._pinged_at is None:
                self._pinged_at = self._now()
                self._post("ping")
            elif self._now() - self._pinged_at > PONG_LIMIT:
                socket.transport.abort()
            await asyncio.sleep(PING_EVERY)

    # -- down ----------------------------------------------------------------------------------------------------

    def _sound(self, data: bytes) -> None:
        now = self._now()
        if self._sound_due is not None:
            self.jitter += (abs(now - self._sound_due) - self.jitter) / SMOOTH
        self._sound_due = now + len(data) / 2 / self.playback.rate
        if self._sent_at is not None and self.round_trip is not None:
            answered = now - self._sent_at
            while answered < self.round_trip:  # it answers an earlier frame
                answered += FRAME
            heard = FRAME + answered + self.playback.held + sum(self.delay)
            before = self.mouth_to_ear
            self.mouth_to_ear = heard if before is None else before + (heard - before) / SMOOTH
        self.playback.put(np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16, copy=False))

    def _text(self, text: str) -> None:
        try:
            note = _decode(text)
        except msgspec.DecodeError:  # of a bridge that knows more than we do
            note = None
        if self._is_ours(note):
            return
        if self._read:
            self._read(text)
        if note is not None:
            self._take(note)

    def _is_ours(self, note: Note | None) -> bool:
        """Whether it is between us and the bridge: pongs, and a conversation that cannot be come back to."""
        if isinstance(note, notes.Pong):
            if self._pinged_at is not None:
                self.round_trip, self._pinged_at = self._now() - self._pinged_at, None
            return True
        if not self._tried or self.connected:
            return False
        if isinstance(note, notes.Trouble) and note.code == LOST:
            self._ticket = ""
        return not self._ticket and isinstance(note, notes.Trouble | notes.Over)

    def _take(self, note: Note) -> None:
        match note:
            case notes.Ready():
                self._begin(note)
                return
            case notes.Flushed():
                self.playback.flush()
            case notes.Asked(id):
                self._unanswered = max(0, self._unanswered - 1)
                self._asked.add(id)
            case notes.Injected(id) if id not in self._asked:
                return  # a reminder of the memory's
            case notes.Said(id) | notes.Cut(id) | notes.Injected(id):
                self._asked.discard(id)
            case notes.Trouble(message, code, id):
                self._trouble = message
                if isinstance(id, int):
                    self._asked.discard(id)
                elif code == "message":  # perhaps something to say that was too long
                    self._unanswered = max(0, self._unanswered - 1)
            case notes.Over(code):
                self._ended = code
        self._tell(note)

    def _begin(self, ready: notes.Ready) -> None:
        resumed = bool(self._tried) and ready.call == self._call
        came_back = self._broken_at is not None
        self._call, self._ticket = ready.call, ready.ticket or ""
        self._broken_at = None
        self._live.set()
        self.resumes += resumed
        self._tell(Link("resumed" if resumed else "renewed" if came_back else "connected", ready.call))
