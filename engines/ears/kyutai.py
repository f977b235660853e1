"""Kyutai's transcription models as an ear: all streams in one batch, frame by frame, on a thread of its own.

Such a model writes what it hears some way behind it, half a second or two and a half. Some of them say besides how
likely the speaker has come to a pause. Then the ear does not wait for the rest of his words: it lets the model hear
silence, as fast as it can, until they are written.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from ..base import FRAME, RATE, Frame, TextEvent, Words
from ..moshi.config import ModelConfig
from ..moshi.model import Floats, Place
from ..moshi.script import GAP, TimedWord, Transcript
from ..moshi.tokenizer import Tokenizer
from ..moshi.torch.engine import load
from .base import Began, EarEvent, Heard, Word

log = logging.getLogger("voice_bridge.ears")

STREAMS = 16  # at once, unless it is told otherwise: a stream takes 100 MB of keys and values in 16 bits
QUEUE = 64  # frames (5 s) that a stream may wait: what is heard later than that calls nothing to mind in time
PAUSE_HEAD = 2  # of those for pauses of 0.5, 1, 2 and 3 seconds: the one that the models' makers take for the end
PAUSE = 0.5  # and how likely it must be for them
LAST_WORD = 2  # frames more than the delay: the last word may have several tokens
SILENCE: Frame = np.zeros(FRAME, np.float32)


class Kyutai:
    """An ear on a transcription model. A stream beyond `streams` is heard as soon as another has closed."""

    name = "kyutai"

    def __init__(
        self,
        tell: Callable[[int, EarEvent], None],
        model: str,
        device: str = "",
        weights: str = "",
        keys: str = "",
        threads: int = 1,
        streams: int = STREAMS,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Load `model`, a folder or a repository, in the form that `weights` and `keys` say. Raises `ModelError`."""
        self.dropped = 0
        self._tell = tell
        self._model, self._tokenizer = load(streams, progress, model, device, weights, keys, threads, only="stt")
        self._streams: dict[int, _Stream] = {}
        self._free = list(range(streams - 1, -1, -1))
        self._stopped = False
        self._changed = threading.Condition()  # guards all of these
        self._telling = threading.RLock()  # held while something is told, which may take its time
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)
        self._thread.start()

    def open(self, stream: int) -> None:
        with self._changed:
            self._streams[stream] = _Stream(stream, self._model.config, self._tokenizer)

    def hear(self, stream: int, frame: Frame, at: int) -> None:
        with self._changed:
            if found := self._streams.get(stream):
                self.dropped += found.hear(frame, at)
                self._changed.notify()

    def close(self, stream: int) -> None:
        with self._changed:
            gone = self._streams.pop(stream, None)
            if gone and gone.slot is not None:
                self._free.append(gone.slot)
                self._changed.notify()
        with self._telling:
            pass  # whatever is being told is told before this returns

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._streams.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._listen()
        except Exception:  # a device that is gone: the process must go too, so that its owner starts another
            log.exception("the ear cannot go on")
            os._exit(1)

    def _listen(self) -> None:
        while True:
            with self._changed:
                while not (due := self._due()):
                    if self._stopped:
                        return
                    self._changed.wait()
            events = self._step(due)
            with self._telling:
                for stream, event in events:
                    if self._streams.get(stream.id) is stream:  # else it has been closed
                        self._tell(stream.id, event)

    def _due(self) -> list[_Due]:
        """A frame of each stream that has one, and a slot."""
        due = []
        for stream in self._streams.values():
            if stream.slot is None and self._free:
                stream.slot = self._free.pop()
            if stream.slot is not None and (frame := stream.next()) is not None:
                due.append(_Due(stream, stream.slot, frame))
        return due

    def _step(self, due: Sequence[_Due]) -> list[tuple[_Stream, EarEvent]]:
        pcm = np.nan_to_num([one.frame for one in due], posinf=1.0, neginf=-1.0)  # one NaN would never leave its slot
        places = [_place(one.slot, one.stream.steps) for one in due]
        greedy = np.zeros((len(due), 3), np.float32)
        heard = self._model.collect(self._model.tick(pcm, np.array(places), greedy, None))
        return [
            (one.stream, event)
            for one, token, pauses in zip(due, heard.text, heard.pauses, strict=True)
            for event in one.stream.took(int(token), pauses)
        ]


class _Due(NamedTuple):
    stream: _Stream
    slot: int
    frame: Frame


class _Waiting(NamedTuple):
    frame: Frame
    at: int


def _place(slot: int, steps: int) -> Place:
    """A stream's place at its next step; its keys and values are never renewed, but roll as in training."""
    return Place(slot, slot, steps, steps, steps, decoded=0, forced=-1, text_top_k=0, audio_top_k=0)


class _Clock:
    """Which sample of the caller the model writes about, whatever it was given: frames may be lost or put in."""

    def __init__(self, delay: int) -> None:
        """`delay` is by how many samples the model writes behind what it hears."""
        self.frames = ceil(delay / FRAME)
        """In which the whole of the delay lies."""
        self._into = self.frames * FRAME - delay
        self._given: deque[tuple[int, int]] = deque(maxlen=self.frames + 1)

    def gave(self, at: int, length: int) -> None:
        """The model is given a frame of which `length` samples are the caller's, from `at` on."""
        self._given.append((at, length))

    @property
    def written(self) -> int:
        """Where that begins of which the model writes in this step."""
        at, length = self._given[0]
        return at + min(self._into, length) if len(self._given) > self.frames else at


class _Stream:
    """One caller. What is behind `next` and `took` belongs to the ear's thread."""

    def __init__(self, id: int, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self.id = id
        self.slot: int | None = None
        self.steps = 0
        self._waiting: deque[_Waiting] = deque(maxlen=QUEUE)
        self._heard_to: int | None = None
        self._given_to = 0  # of the caller's clock, to the model
        self._silent = ceil(config.stt_prefix * RATE / FRAME)  # frames of silence to put in before what waits
        self._ending = False  # they are to bring out the last words of the utterance
        self._clock = _Clock(round(config.stt_delay * RATE))
        self._transcript = Transcript(tokenizer, config.lm.padding, config.lm.end_of_padding, "caller")
        self._words: list[TimedWord] = []  # of the utterance under way
        self._utterance = 0

    def hear(self, frame: Frame, at: int) -> int:
        """Gives how many frames had to go for it."""
        began = at if self._heard_to is None else self._heard_to
        most = self._clock.frames + GAP  # that much silence ends whatever was being said
        missing = min(most, round((at - began) / FRAME))
        frames = [_Waiting(SILENCE, began + index * FRAME) for index in range(missing)] + [_Waiting(frame, at)]
        lost = max(0, len(self._waiting) + len(frames) - QUEUE)
        self._waiting.extend(frames)
        self._heard_to = at + FRAME
        return lost

    def next(self) -> Frame | None:
        """The frame that the model is given now."""
        if self._silent:
            self._silent -= 1
            self._clock.gave(self._given_to, 0)
            return SILENCE
        if not self._waiting:
            return None
        frame, at = self._waiting.popleft()
        self._clock.gave(at, FRAME)
        self._given_to = at + FRAME
        return frame

    def took(self, token: int, pauses: Floats) -> list[EarEvent]:
        """What the model made of it."""
        self.steps += 1
        at = self._clock.written
        events = self._told(self._transcript.took(token, at, at + FRAME))
        if self._ending:
            if not self._silent:
                self._ending = False
                events += self._told(self._transcript.finish())
        elif self._transcript.under_way and len(pauses) > PAUSE_HEAD and pauses[PAUSE_HEAD] > PAUSE:
            self._ending = True
            self._silent = self._clock.frames + LAST_WORD
        return events

    def _told(self, events: Sequence[TextEvent]) -> list[EarEvent]:
        told: list[EarEvent] = []
        for event in events:
            assert isinstance(event, Words)  # nothing else comes of a caller
            if event.id != self._utterance:
                self._utterance = event.id
                told.append(Began(event.start))
            told.append(self._heard(event))
        return told

    def _heard(self, event: Words) -> Heard:
        transcript = self._transcript
        self._words += transcript.words
        transcript.words.clear()
        word = transcript.under_way
        all_words = [*self._words, *([word] if word else [])]
        words = tuple(Word(*word[1:]) for word in all_words if word.utterance == event.id)
        if event.final:
            self._words = [word for word in self._words if word.utterance != event.id]
        return Heard(-event.id // 2, event.text, words, event.start, event.end, event.final)
