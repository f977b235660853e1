"""What happens in the calls, told to whoever watches; and what was said last in each."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from ..engines.base import Speaker
from .lines import notes
from .lines.notes import Note
from .shapes import Begun, BoardNow, CallState, Ended, LiveCall, StateNow, Utterance, Watched, Words

if TYPE_CHECKING:
    from .call import Call

RECENT = 50  # utterances kept of a live call: a few minutes, enough to join it
BEHIND = 1024  # messages that a watcher may be behind: seconds of a full bridge, and by far not its memory


class Trail:
    """Of one call: who talks, and what was said last."""

    def __init__(self) -> None:
        self.state: CallState = "listening"
        self._words: dict[int, Utterance] = {}
        self._ids = count(1)
        self._unfinished: dict[tuple[Speaker, int], int] = {}

    @property
    def words(self) -> list[Utterance]:
        return list(self._words.values())

    def said(self, speaker: Speaker, id: int, text: str, final: bool) -> Utterance:
        """An utterance so far, under its speaker's own id, which may come again once it is final."""
        key = speaker, id
        number = self._unfinished.get(key) or next(self._ids)
        if final:
            self._unfinished.pop(key, None)
        else:
            self._unfinished[key] = number
        self._words[number] = utterance = Utterance(number, speaker, text, final)
        if len(self._words) > RECENT:
            del self._words[next(iter(self._words))]
        return utterance

    def lost(self) -> None:
        """The engine went away: what it was saying stays as it is, and its ids begin anew."""
        self._unfinished.clear()


class Watcher:
    """The messages for one watcher, in their order and without an end; but see `over`."""

    def __init__(self, first: list[bytes]) -> None:
        self.over = asyncio.Event()
        """He is too far behind, or the bridge stops: nothing more is for him."""
        self.behind = False
        """Which of the two it was."""
        self._waiting = deque(first)
        self._most = len(first) + BEHIND
        self._news = asyncio.Event()

    def put(self, message: bytes) -> None:
        if self.over.is_set():
            return
        if len(self._waiting) < self._most:
            self._waiting.append(message)
            self._news.set()
        else:
            self.behind = True
            self.over.set()

    async def next(self) -> bytes:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Feed:
    """Nothing here waits for a watcher: a call pays for one encoding, and only while somebody watches."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self._trails: dict[str, Trail] = {}
        self._left = asyncio.Event()  # by the last of them
        self._encode = msgspec.json.Encoder().encode

    # -- what the calls tell ---------------------------------------------------------------------------------------

    def begin(self, call: LiveCall) -> None:
        self._trails[call.call] = Trail()
        self._send(Begun(call))

    def end(self, call: str, end: str) -> None:
        self._trails.pop(call, None)
        self._send(Ended(call, end))

    def note(self, call: Call, note: Note) -> None:
        """What the call's peer is told; others than words and states are not for watchers."""
        match note:
            case notes.Transcript(text, speaker, id, final):
                self._said(call.id, speaker, id, text, final)
            case notes.Status(state) if trail := self._trails.get(call.id):
                trail.state = state
                if state == "engine-lost":
                    trail.lost()
                self._send(StateNow(call.id, state))
            case _:
                pass

    def overheard(self, call: str, id: int, text: str, final: bool) -> None:
        """The caller's words, of an ear beside the engine."""
        self._said(call, "caller", id, text, final)

    def _said(self, call: str, speaker: Speaker, id: int, text: str, final: bool) -> None:
        if trail := self._trails.get(call):
            self._send(_words(call, trail.said(speaker, id, text, final)))

    # -- what is seen of them --------------------------------------------------------------------------------------

    def state(self, call: str) -> CallState:
        trail = self._trails.get(call)
        return trail.state if trail else "listening"

    def words(self, call: str) -> list[Utterance]:
        """What was said last in a live call, the oldest first."""
        return self._trails[call].words

    def watch(self, board: BoardNow) -> Watcher:
        """Let somebody watch from now on; he is told first how things are."""
        said = [_words(call, utterance) for call, trail in self._trails.items() for utterance in trail.words]
        watcher = Watcher([self._encode(message) for message in (board, *said)])
        self.watchers.add(watcher)
        self._left.clear()
        return watcher

    def tell(self, board: BoardNow) -> None:
        self._send(board)

    def leave(self, watcher: Watcher) -> None:
        self.watchers.discard(watcher)
        if not self.watchers:
            self._left.set()

    async def close(self) -> None:
        """Nothing comes any more; returns when all watchers have left."""
        for watcher in self.watchers:
            watcher.over.set()
        if self.watchers:
            await self._left.wait()

    def _send(self, message: Watched) -> None:
        if self.watchers:
            encoded = self._encode(message)
            for watcher in self.watchers:
                watcher.put(encoded)


def _words(call: str, said: Utterance) -> Words:
    return Words(said.id, said.speaker, said.text, said.final, call)
