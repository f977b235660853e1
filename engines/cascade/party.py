"""One call on the cascade: a frame of the caller in, a frame of the agent out, and what happens between them.

All of it runs on the engine's own thread. Ear and brain work on theirs, and put what they have to say into an inbox
that is read here.
"""

from __future__ import annotations

import re
import time
from itertools import count
from typing import Protocol

import numpy as np

from ..base import FRAME, OPENING, RATE, Cut, Event, Flush, Frame, Injected, Opening, Remember, Said, Turn, Words
from ..ears.base import EarEvent, Heard
from ..ears.voice import EARLY, Voice
from .brain import Brain, Thoughts
from .floor import Floor
from .speech import Speech
from .trace import Times, Trace
from .turns import Turns

HELD = EARLY + FRAME  # of silence after which a caller without words was no caller: the ear has decoded it by then
BRIEF = round(0.7 * RATE)  # of an answer: a caller who heard no more is still in the same turn, it came too early
# What the ear makes of hums and coughs. Nobody takes the floor with these.
NOTHING = re.compile(r"(?:m+|mm+-?h[mu]+|h+m+|u+h+(?:-huh)?|a+h+|o+h+|huh|you|the|a|i)(?: (?:m+|h+m+|u+h+))*")


class Ear(Protocol):
    """What a call needs of the ear: `Moonshine` has it."""

    def hear(self, stream: int, frame: Frame, at: int) -> None: ...
    def voice(self, stream: int) -> Voice: ...
    def decoding(self, stream: int) -> bool: ...


class Party:
    def __init__(self, slot: int, ear: Ear, brain: Brain, opening: Opening, trace: Trace | None) -> None:
        self.events: list[Event] = []
        """What there is to report."""
        self._slot = slot
        self._ear = ear
        self._brain = brain
        self._trace = trace
        self._ids = count(-1, -1)  # of what nobody asked for; what was asked for has an id from 0 on
        self._turns = Turns()
        self._floor = Floor()
        self._turn = 0  # the id of the caller's turn under way; 0 is none
        self._said: dict[int, Speech] = {}  # what was asked to be said, by its id
        self._now = 0
        self._heard_at = 0.0  # when the ear told something last, on the monotonic clock
        self._over = False
        self._thoughts: Thoughts = brain.open(opening)
        greets = OPENING if opening.greeting else next(self._ids)
        self._say(Speech(greets, OPENING, opening.interruptible), opening.greeting)
        if opening.known:
            self.events.append(Injected(OPENING))

    # -- what the call asks for ------------------------------------------------------------------------------------

    def say(self, id: int, text: str, interruptible: bool) -> None:
        if not text.strip():
            raise ValueError("there is nothing to say")
        self._say(Speech(id, id, interruptible), text)

    def inject(self, id: int, context: str, turn: int | None) -> None:
        self._brain.do(self._thoughts.recall, context, turn)
        self.events.append(Injected(id))

    def cancel(self, id: int) -> None:
        if speech := self._said.get(id):
            self._give_up(speech)

    def forget(self) -> None:
        self._brain.do(self._thoughts.forget)

    def played(self, at: int) -> None:
        self._floor.played(at, self._now)

    def close(self) -> None:
        self._over = True
        self._brain.do(self._thoughts.close)

    # -- what the ear tells ----------------------------------------------------------------------------------------

    def heard(self, event: EarEvent) -> None:
        """Take what the ear has made of the caller."""
        if self._over or not isinstance(event, Heard) or self._is_nothing(event) or not self._turns.heard(event):
            return
        self._heard_at = time.monotonic()
        if not self._turn:
            self._turn = next(self._ids)
            self.events.append(Turn(self._turn, "caller", self._turns.start))
        turns = self._turns
        self.events.append(Words(self._turn, "caller", turns.text, turns.start, turns.end, final=False))
        self._yield()

    def _is_nothing(self, heard: Heard) -> bool:
        """Whether it is a hum while the agent talks: a listener's, not one who wants the floor."""
        return bool(self._floor.queue) and NOTHING.fullmatch(heard.text.lower().strip(" .,?!-")) is not None

    def _yield(self) -> None:
        """The caller has words: the agent gives up what it says, and answers that were not heard yet."""
        for speech in list(self._floor.queue):
            if speech.interruptible and (speech.began is not None or speech.id is None):
                self._give_up(speech)

    def _give_up(self, speech: Speech) -> None:
        heard = self._floor.give_up(speech, self._now)
        counts = speech.began is not None and (speech.id is not None or heard >= BRIEF)
        self._brain.do(self._thoughts.drop, speech, not counts)
        if speech.began is not None:
            self.events += Flush(), self._words(speech, speech.heard(heard), final=True)
        if counts:
            self._brain.do(self._thoughts.said, speech.heard(heard), True)
        if speech.id is not None:
            del self._said[speech.id]
            self.events.append(Cut(speech.id))

    # -- a frame, in two halves: between them the inbox is read ----------------------------------------------------

    def hear(self, frame: Frame, at: int) -> None:
        self._now = at + FRAME
        self._ear.hear(self._slot, frame, at)

    def reply(self, at: int) -> Frame:
        """The agent's frame, in answer to the one at `at`."""
        voice = self._ear.voice(self._slot)
        self._turns.pace(voice.end, self._now)
        self.events += self._floor.mind(voice, self._now)
        if not (voice.stirring or self._now - voice.end < EARLY or self._ear.decoding(self._slot)):
            self._all_is_heard(voice)
        return self._speak(voice, at)

    def _all_is_heard(self, voice: Voice) -> None:
        """The caller is silent, and the ear has told all that there was: perhaps the turn is over."""
        silent = self._now - voice.end
        if said := self._turns.over(voice.end, self._now):
            self.events.append(Words(self._turn, "caller", said.text, said.start, said.end, final=True))
            speech = Speech(next(self._ids), not_before=said.sound)
            if self._trace:
                speech.times = Times.of(silent, self._heard_at)
            self._floor.queue.append(speech)
            self._brain.do(self._thoughts.answer, speech, said.text, self._turn)
            self._turn = 0
        elif silent >= HELD:
            self._floor.resume()

    def _speak(self, voice: Voice, at: int) -> Frame:
        floor = self._floor
        while (speech := floor.speech) and speech.over:
            self._finish(speech)  # there was nothing to say
        if speech is None or not self._may_speak(speech, voice):
            return np.zeros(FRAME, np.float32)
        before, began = speech.at, speech.began
        frame = floor.frame(at)
        if began is None and speech.began is not None:
            self._begins(speech)
        elif any(before <= start < speech.at for start, _ in speech.sentences):
            self.events.append(self._words(speech, speech.text, final=False))
        if speech.over:
            self._finish(speech)
        elif speech.began is not None:
            self._bring(speech)
        return frame

    def _may_speak(self, speech: Speech, voice: Voice) -> bool:
        """Whether a speech goes on, or may begin: not into the caller's words."""
        if speech.began is not None or not speech.interruptible:
            return True
        return self._now >= speech.not_before and self._floor.is_free(voice, self._now)

    def _begins(self, speech: Speech) -> None:
        assert speech.began is not None
        self._turns.answered()
        self.events += Turn(speech.words, "agent", speech.began), self._words(speech, speech.text, final=False)
        if self._trace and speech.times:
            speech.mark("first")
            self._trace.write(speech.times)

    def _bring(self, speech: Speech) -> None:
        """Report what came with it; that the call is over only when all was said."""
        for brought in list(speech.brings):
            if isinstance(brought, Remember) or speech.over:
                self.events.append(brought)
                speech.brings.remove(brought)

    def _finish(self, speech: Speech) -> None:
        self._floor.queue.remove(speech)
        if speech.began is not None:
            self.events.append(self._words(speech, speech.text, final=True))
            self._brain.do(self._thoughts.said, speech.text, False)
        self._bring(speech)
        if speech.id is not None:
            del self._said[speech.id]
            self.events.append(Said(speech.id, self._now))

    def _words(self, speech: Speech, text: str, final: bool) -> Words:
        assert speech.began is not None
        return Words(speech.words, "agent", text, speech.began, self._now, final, forced=speech.words == speech.id)

    def _say(self, speech: Speech, text: str) -> None:
        """Say it after what is being said; without a text it is for the wits to say what."""
        assert speech.id is not None
        self._said[speech.id] = speech
        self._floor.queue.append(speech)
        if text:
            self._brain.do(self._thoughts.speak, speech, text)
        else:
            self._brain.do(self._thoughts.greet, speech)
