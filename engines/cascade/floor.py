"""Who has the floor: what the agent says, one speech after another, and how it yields when the caller speaks up.

It yields in two steps. At the first sign of a voice it ducks: goes on, but low. For real speech, a third of a second
of it, it falls silent; and when words are recognised it gives up what it was saying. What only sounded like a voice
costs it nothing: after a cough it goes on at its usual level, after a longer noise with the sentence that it was in.

Pure: no threads, no clock. Times are samples of the caller's 24 kHz clock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from ..base import FRAME, RATE, Event, Flush, Frame
from ..ears.voice import EARLY, Voice
from .speech import Speech

DUCKED = 0.1  # of full level, -20 dB: out of the caller's way, and still there when it was nothing
FADE = RATE // 200  # samples, 5 ms, in which the level changes: faster would click
# From its first sign to its last piece, for real speech: by the time that this is heard, a third of a second.
SPEECH = round(0.2 * RATE)
UTTERANCE = round(0.26 * RATE)  # the same, where hisses and closures count too: there is an utterance under way
VOICED = round(0.12 * RATE)  # of that, like a voice: a fit of coughing is long, and mostly noise
POLITE = RATE  # for which an agent with something to say waits for a sound that is no voice to end: it may become one
CALM = round(0.24 * RATE)  # without a voice after which a ducked agent is loud again
LAG = FRAME + round(0.1 * RATE)  # from a frame's coming to its answer's being heard, until the line tells
MOST_LAG = RATE  # beyond that the line speaks of something else
SENT = 32  # frames that are remembered (2.5 s): longer than any lag


class _Sent(NamedTuple):
    speech: Speech
    answers: int
    to: int
    """The sample of the speech behind the last that went with it."""


class Floor:
    def __init__(self) -> None:
        self.queue: deque[Speech] = deque()
        self.silenced = False
        """Whether the agent has stopped for a caller of whom no words are known yet."""
        self._gain = 1.0
        self._level = 1.0
        """Towards which the gain goes."""
        self._stirred_at = 0
        self._since = 0  # the first sign for which it has ducked
        self._voiced = 0  # of the caller, before that
        self._voiced_before = 0  # and before this frame
        self._lag = LAG
        self._sent: deque[_Sent] = deque(maxlen=SENT)

    @property
    def speech(self) -> Speech | None:
        """What is said now, or next."""
        return self.queue[0] if self.queue else None

    def played(self, at: int, now: int) -> None:
        """The line says that the caller has heard the answers up to `at`."""
        self._lag = min(max(0, now - at), MOST_LAG)

    def mind(self, voice: Voice, now: int) -> list[Event]:
        """Yield to the caller, or take the floor again; once a frame."""
        voiced, self._voiced_before = self._voiced_before, voice.voiced
        if voice.stirring:
            self._stirred_at = now
        speech = self.speech
        if speech is None or not speech.interruptible or speech.began is None:
            self._level = 1.0
        elif self.silenced:
            pass
        elif self._level == 1.0 and voice.stirring:
            self._level = DUCKED
            self._since, self._voiced = voice.sign_at or now, voiced
            return self._back(speech, now)
        elif self._level != 1.0 and self._is_speech(voice):
            self.silenced = True
            return self._back(speech, now)
        elif now - max(self._stirred_at, voice.voiced_to, voice.end if voice.talking else 0) >= CALM:
            self._level = 1.0
        return []

    def _is_speech(self, voice: Voice) -> bool:
        """Whether what it has ducked for has lasted as a voice does, or as an utterance."""
        if voice.voiced - self._voiced < VOICED:
            return False
        return voice.voiced_to - self._since >= SPEECH or (voice.talking and voice.end - self._since >= UTTERANCE)

    def is_free(self, voice: Voice, now: int) -> bool:
        """Whether the caller leaves the floor to the agent, who has something to say."""
        speech = self.speech
        if voice.stirring or (voice.talking and now - voice.end < EARLY):
            return False
        waited = now - speech.not_before if speech else 0
        return now - voice.sounded_to >= FRAME or waited >= POLITE

    def resume(self) -> None:
        """It was no speech: go on with the sentence that was broken off."""
        if self.silenced and (speech := self.speech):
            speech.at = speech.sentence_at(speech.at)
            self._take()

    def give_up(self, speech: Speech, now: int) -> int:
        """Drop a speech; returns up to which sample it was heard."""
        heard = speech.at if self.silenced else self._heard_to(speech, now)
        if speech is self.speech:
            self._take()
        self.queue.remove(speech)
        return heard

    def _take(self) -> None:
        """What is said next is said aloud."""
        self.silenced = False
        self._level = self._gain = 1.0

    def frame(self, at: int) -> Frame:
        """The next 80 ms of the agent, in answer to the frame at `at`."""
        frame = np.zeros(FRAME, np.float32)
        speech = self.speech
        if speech is None or self.silenced:
            return frame
        pcm = speech.take(FRAME)
        if len(pcm):
            if speech.began is None:
                speech.began = at
            frame[: len(pcm)] = pcm
        if self._gain != 1.0 or self._level != 1.0:
            frame[:FADE] *= np.linspace(self._gain, self._level, FADE, dtype=np.float32)
            frame[FADE:] *= np.float32(self._level)
            self._gain = self._level
        self._sent.append(_Sent(speech, at, speech.at))
        return frame

    def _back(self, speech: Speech, now: int) -> list[Event]:
        """Void what was sent and not heard, and go on behind what was."""
        speech.at = self._heard_to(speech, now)
        while self._sent and not self._is_heard(self._sent[-1], now):
            self._sent.pop()
        return [Flush()]

    def _heard_to(self, speech: Speech, now: int) -> int:
        heard = (sent.to for sent in reversed(self._sent) if sent.speech is speech and self._is_heard(sent, now))
        return next(heard, 0)

    def _is_heard(self, sent: _Sent, now: int) -> bool:
        return sent.answers + FRAME <= now - self._lag
