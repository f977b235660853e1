"""What thinks and speaks for all calls, on an event loop of its own: wits write, the mouth says it, while both go on.

The engine's thread gives it work by `do` and never waits for it. What comes of the work goes into the inbox, as
functions that the engine's thread calls.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

from ..base import RATE, Opening
from ..mouths.base import NoVoice, Voice
from ..mouths.sentences import Sentences
from ..mouths.speakable import speakable
from ..wits.base import Line, Reply, Talk, Wits
from .speech import Speech

log = logging.getLogger("voice_bridge.cascade")

Soon: TypeAlias = Callable[[Callable[[], Any]], None]
"""Puts a function into the inbox of the engine's thread."""

RECALL = 0.15  # seconds that an answer waits for what memory has to say to it
AHEAD = 5.0  # seconds of sound that are made before they are wanted: more would be wasted when it is broken off
FACTS = 50  # that memory has given in a call; the oldest go, a model of language reads a few thousand words
TRIES = 2  # at a sentence: a mouth that goes away is back in two seconds, mostly
LOST = "I am sorry, I have lost the thread."


class Brain:
    def __init__(self, wits: Wits, voice: Voice, soon: Soon) -> None:
        self.wits = wits
        self.voice = voice
        self.soon = soon
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="brain", daemon=True)

    def start(self) -> None:
        """Returns when the mouth can speak; raises what its `start` raises."""
        self._thread.start()
        for part in (self.wits.start, self.voice.start):
            asyncio.run_coroutine_threadsafe(part(), self._loop).result()

    def stop(self) -> None:
        for part in (self.wits.close, self.voice.stop):
            asyncio.run_coroutine_threadsafe(part(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Callable[..., None], *given: Any) -> None:
        """Have it done soon, in the order of the calls."""
        self._loop.call_soon_threadsafe(work, *given)

    def open(self, opening: Opening) -> Thoughts:
        return Thoughts(self, Talk(opening.persona, [opening.known] if opening.known else []))


class Thoughts:
    """Of one call. Every method but the first runs on the brain's loop."""

    def __init__(self, brain: Brain, talk: Talk) -> None:
        self._brain = brain
        self._talk = talk
        self._turn = 0
        self._recalled = asyncio.Event()  # memory has answered for that turn
        self._tasks: dict[Speech, asyncio.Task[None]] = {}
        self._latest: Speech | None = None
        self._notes: list[str] = []  # as they were before that answer

    def speak(self, speech: Speech, text: str) -> None:
        """Say this as it is."""

        async def told() -> AsyncGenerator[Reply, None]:
            yield text

        self._begin(speech, self._say(speech, told()))

    def greet(self, speech: Speech) -> None:
        """Say what the wits say first."""
        self._begin(speech, self._say(speech, self._brain.wits.greet(self._talk)))

    def answer(self, speech: Speech, text: str, turn: int) -> None:
        """Say what the wits say to what the caller has said."""
        lines = self._talk.lines
        if lines and lines[-1].speaker == "caller":  # whoever went on before there was an answer
            text = f"{lines.pop().text} {text}"
        lines.append(Line("caller", text))
        if turn != self._turn:
            self._turn = turn
            self._recalled.clear()
        self._latest, self._notes = speech, list(self._talk.notes)
        self._begin(speech, self._answer(speech))

    def recall(self, context: str, turn: int | None) -> None:
        """Memory gives this; with a `turn` it is all that it has to say to it, possibly nothing."""
        if context:
            self._talk.facts.append(context)
            del self._talk.facts[:-FACTS]
        if turn is not None and turn <= self._turn:  # of this one, or one to come: they count down
            self._turn = turn
            self._recalled.set()

    def said(self, text: str, cut: bool) -> None:
        """The caller has heard this."""
        if text:
            self._talk.lines.append(Line("agent", text, cut))

    def drop(self, speech: Speech, unheard: bool) -> None:
        """Nobody waits for it any more; what was `unheard` has changed nothing."""
        if task := self._tasks.get(speech):
            task.cancel()
        if unheard and speech is self._latest:
            self._talk.notes[:] = self._notes

    def forget(self) -> None:
        self._talk.facts.clear()
        self._talk.notes.clear()
        self._brain.voice.forget()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _begin(self, speech: Speech, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[speech] = task
        task.add_done_callback(lambda _: self._tasks.pop(speech, None))

    async def _answer(self, speech: Speech) -> None:
        try:
            async with asyncio.timeout(RECALL):
                await self._recalled.wait()
        except TimeoutError:
            pass
        speech.mark("recalled")
        await self._say(speech, self._brain.wits.answer(self._talk))

    async def _say(self, speech: Speech, replies: AsyncGenerator[Reply, None]) -> None:
        """Write and speak side by side, a sentence at a time."""
        written: asyncio.Queue[str | None] = asyncio.Queue()
        writing = asyncio.ensure_future(self._write(speech, replies, written))
        try:
            while (sentence := await written.get()) is not None:
                speech.mark("thought")
                await self._voice(speech, sentence)
        finally:
            writing.cancel()
            self._brain.soon(speech.end)

    async def _write(
        self, speech: Speech, replies: AsyncGenerator[Reply, None], written: asyncio.Queue[str | None]
    ) -> None:
        sentences = Sentences()
        try:
            async with aclosing(replies) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        for sentence in sentences.push(piece):
                            written.put_nowait(sentence)
                    else:
                        self._brain.soon(partial(speech.brings.append, piece))
        except Exception as error:  # a fault of ours; what stood in it may be a caller's words
            log.error("the wits failed: %s", type(error).__name__)
            written.put_nowait(LOST)
        for sentence in sentences.rest():
            written.put_nowait(sentence)
        written.put_nowait(None)

    async def _voice(self, speech: Speech, sentence: str) -> None:
        brain, loop = self._brain, asyncio.get_running_loop()
        words = speakable(sentence)
        if not words:
            return
        ahead = (speech.made - speech.at) / RATE
        if ahead > AHEAD:
            await asyncio.sleep(ahead - AHEAD)
            ahead = AHEAD
        for _ in range(TRIES):
            begun = False
            try:
                async with aclosing(brain.voice.say(words, loop.time() + ahead)) as pieces:
                    async for pcm in pieces:
                        speech.mark("spoken")
                        brain.soon(partial(speech.add, pcm, "" if begun else sentence))
                        begun = True
                return
            except NoVoice as error:
                log.error("a sentence was not spoken%s: %s", " to its end" if begun else "", error)
                if begun:
                    return
