"""The ear that runs on every machine: moonshine-voice 0.1.0, whose package carries its English model.

It would find utterances by itself, but hears "You" in silence and noise; so it gets only what `Voice` takes for an
utterance, each in one piece. It tells no times of words with this model: they are estimated, see `spread`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...codecs.framing import FRAME, RATE
from ...codecs.resample import resample
from ..base import Frame
from .base import Began, EarEvent, Heard, Word
from .voice import BEFORE, EARLY, Ended, Paused, Voice

log = logging.getLogger("voice_bridge.ears")

PCM: TypeAlias = NDArray[np.float32]
Decode: TypeAlias = Callable[[PCM], str]
"""From an utterance at 16 kHz to its text."""

MODEL_RATE = 16_000
HOP = 512  # samples: the library leaves out what does not fill one
TINY = 0  # the library's number for the kind of model that it carries
LIMIT = "3600"  # seconds after which the library cuts a piece in two: never

PAD = round(0.3 * RATE)  # around an utterance: with less, first and last words suffer
PEAK = 0.95  # that an utterance is brought to: quiet callers are heard as well as loud ones
KEEP = BEFORE + PAD  # of sound to keep while nobody talks
FIRST = round(0.9 * RATE)  # of speech before the first partial: two or three words
NEXT = RATE  # of speech between partials
SHARE = 4  # or a quarter of the utterance, if that is more: all of it is decoded anew each time
DIGIT = 4  # letters that a digit counts for: most names of digits have four
WAITING = 32  # decodings: about three seconds of work for one thread; what is later than that comes too late


class Library:
    """The model, loaded. One decoding at a time."""

    def __init__(self) -> None:
        try:
            from moonshine_voice import moonshine_api as api
        except ImportError as error:
            raise RuntimeError(f"{error}: install moonshine-voice 0.1.0, or voice-bridge[memory]") from None
        folder = Path(api.__file__).parent / "assets" / "tiny-en"
        if not folder.is_dir():
            raise RuntimeError(f"no model in {folder}: only release 0.1.0 of moonshine-voice carries it, install that")
        # It can be told this way only. Threads of its own spin while they wait, and so take twice the time of a core.
        os.environ["MOONSHINE_ORT_SINGLE_THREAD"] = "1"
        options = {
            "vad_threshold": "0",  # everything is speech
            "vad_max_segment_duration": LIMIT,
            "identify_speakers": "false",
            "return_audio_data": "false",
        }
        array, count, _alive = api.moonshine_options_array(options)
        self._lib: Any = api._MoonshineLib().lib
        self._transcript = ctypes.POINTER(api.TranscriptC)
        self._handle: int = self._lib.moonshine_load_transcriber_from_files(
            os.fsencode(folder), TINY, array, count, api.MOONSHINE_HEADER_VERSION
        )
        self._check(self._handle)

    def __call__(self, pcm: PCM) -> str:
        # The package's own way makes a Python number of every sample, and no other thread runs while it does.
        pcm = np.pad(pcm.astype(np.float32, copy=False), (0, -len(pcm) % HOP))
        found = self._transcript()
        self._check(
            self._lib.moonshine_transcribe_without_streaming(
                self._handle,
                pcm.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                len(pcm),
                MODEL_RATE,
                0,
                ctypes.byref(found),
            )
        )
        lines = found.contents.lines[: found.contents.line_count] if found else ()
        texts = (ctypes.string_at(line.text).decode(errors="replace") for line in lines if line.text)
        return " ".join(filter(None, (text.strip() for text in texts)))

    def _check(self, code: int) -> None:
        if code < 0:
            raise RuntimeError(f"moonshine-voice: {self._lib.moonshine_error_to_string(code).decode()} ({code})")

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:
            self._lib.moonshine_free_transcriber(self._handle)


class _Stream:
    def __init__(self) -> None:
        self.voice = Voice()
        self.closed = False
        self.count = 0
        """Utterances so far."""
        self.utterance = _Utterance(self, 0)
        """The latest."""
        self.asked = 0
        """Where the latest decoding ends that was asked for."""
        self._sound: deque[tuple[int, Frame]] = deque()
        self._since = 0  # sound before this belongs to nothing that may still be decoded

    def keep(self, frame: Frame, at: int) -> None:
        if not self._sound or at > self._sound[-1][0]:
            self._sound.append((at, frame.copy()))

    def forget(self, before: int) -> None:
        self._since = max(self._since, before)
        while self._sound and self._sound[0][0] + FRAME <= self._since:
            self._sound.popleft()

    def sound(self, start: int, end: int, stop: int) -> PCM:
        """From `start` to `end` with padding on both sides: sound where there is any before `stop`, else silence."""
        first = start - PAD
        pcm = np.zeros(end + PAD - first, np.float32)
        low, high = max(first, self._since), min(end + PAD, stop)
        for at, frame in self._sound:
            begin, until = max(at, low), min(at + FRAME, high)
            if begin < until:
                pcm[begin - first : until - first] = frame[begin - at : until - at]
        return pcm


@dataclass(eq=False)
class _Utterance:
    stream: _Stream
    id: int
    told: Heard | None = None
    """What was told of it last."""
    latest: Heard | None = None
    """What was decoded of it last; its text may be empty."""
    over: int | None = None
    """Where it ended, once it has."""
    done: bool = False


@dataclass(eq=False)
class _Job:
    number: int
    """Of the stream."""
    utterance: _Utterance
    start: int
    end: int
    pcm: PCM
    stretches: list[tuple[int, int]]

    @property
    def final(self) -> bool:
        return self.utterance.over == self.end


class Moonshine:
    """Hears any number of streams; may be used from any thread.

    `tell` must return at once. It is called within `hear` for what needs no decoding, else from a thread of our own,
    and never from two at a time. Decodings wait for a thread, final ones first, and a partial makes way for a newer one
    of its stream. A pause in speech is decoded early: if it turns out to be the end, its text is the final one.
    """

    name = "moonshine"

    def __init__(
        self, tell: Callable[[int, EarEvent], None], threads: int = 1, load: Callable[[], Decode] = Library
    ) -> None:
        """Loads the model, half a second for each thread. `load` makes what decodes, for one thread."""
        self.dropped = 0
        self._tell = tell
        self._streams: dict[int, _Stream] = {}
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._stopping = False
        self._news = threading.Condition()
        decoders = [load() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(decode,), name="ear", daemon=True) for decode in decoders
        ]
        for thread in self._threads:
            thread.start()

    def open(self, stream: int) -> None:
        with self._news:
            self.close(stream)
            self._streams[stream] = _Stream()

    def close(self, stream: int) -> None:
        with self._news:
            if heard := self._streams.pop(stream, None):
                heard.closed = True
                self._waiting = [job for job in self._waiting if not job.utterance.stream.closed]

    def voice(self, stream: int) -> Voice:
        """The voice activity of an open stream, as of its last frame; for whoever calls `hear`, to look at."""
        return self._streams[stream].voice

    def decoding(self, stream: int) -> bool:
        """Whether there is more to tell of what a stream has heard; once False, it has been told."""
        with self._news:
            return any(job.number == stream for job in self._waiting + self._running)

    def stop(self) -> None:
        with self._news:
            for stream in list(self._streams):
                self.close(stream)
            self._stopping = True
            self._news.notify_all()
        for thread in self._threads:
            thread.join()

    def hear(self, stream: int, frame: Frame, at: int) -> None:
        with self._news:
            heard = self._streams.get(stream)
            if heard is None:
                return
            voice = heard.voice
            heard.keep(frame, at)
            for event in voice.hear(frame, at):
                match event:
                    case Began():
                        heard.count += 1
                        heard.utterance = _Utterance(heard, heard.count)
                        self._tell(stream, event)
                    case Paused(start, end):
                        self._ask(stream, heard, start, end, end + PAD)
                    case Ended(start, end, whole):
                        self._ended(stream, heard, start, end, whole)
            if not voice.talking:
                heard.forget(at + FRAME - KEEP)
            elif at + FRAME - voice.end < EARLY and self._is_due(heard):
                self._ask(stream, heard, voice.start, voice.end, voice.end)

    def _ended(self, stream: int, heard: _Stream, start: int, end: int, whole: bool) -> None:
        utterance = heard.utterance
        utterance.over = end
        if utterance.latest and utterance.latest.end == end:
            self._finish(stream, utterance)
        elif not any(job.utterance is utterance and job.final for job in self._waiting + self._running):
            self._ask(stream, heard, start, end, end + PAD if whole else end)
        if not whole:
            heard.forget(end)

    def _is_due(self, heard: _Stream) -> bool:
        """Whether there is enough new speech for a partial."""
        start, end = heard.voice.start, heard.voice.end
        if heard.asked <= start:
            return end - start >= FIRST
        return end - heard.asked >= max(NEXT, (end - start) // SHARE)

    def _ask(self, stream: int, heard: _Stream, start: int, end: int, stop: int) -> None:
        heard.asked = end
        for job in self._waiting:
            if job.number == stream and not job.final:
                self._drop(job)
                break
        pcm, stretches = heard.sound(start, end, stop), heard.voice.stretches(start, end)
        self._waiting.append(_Job(stream, heard.utterance, start, end, pcm, stretches))
        if len(self._waiting) > WAITING:
            self._drop(next((job for job in self._waiting if not job.final), self._waiting[0]))
        self._news.notify()

    def _drop(self, job: _Job) -> None:
        self._waiting.remove(job)
        self.dropped += 1
        if job.final:
            self._finish(job.number, job.utterance)

    def _work(self, decode: Decode) -> None:
        while True:
            with self._news:
                while not (job := self._next()):
                    if self._stopping:
                        return
                    self._news.wait()
                self._waiting.remove(job)
                self._running.append(job)
            try:
                text = decode(resample(job.pcm * (PEAK / np.abs(job.pcm).max()), RATE, MODEL_RATE))
            except Exception:
                log.exception("an utterance could not be decoded")
                text = ""
            with self._news:
                self._running.remove(job)
                if not (self._stopping or job.utterance.done or job.utterance.stream.closed):
                    self._decoded(job, text if any(map(str.isalnum, text)) else "")
                self._news.notify_all()

    def _next(self) -> _Job | None:
        """What to decode now: one of each stream at a time, so that they are told in their order."""
        busy = {job.number for job in self._running}
        free = [job for job in self._waiting if job.number not in busy]
        return next((job for job in free if job.final), free[0] if free else None)

    def _decoded(self, job: _Job, text: str) -> None:
        utterance = job.utterance
        heard = Heard(utterance.id, text, spread(text, job.stretches), job.start, job.end, final=False)
        utterance.latest = heard
        if job.final:
            self._finish(job.number, utterance)
        elif text:
            utterance.told = heard
            self._tell(job.number, heard)

    def _finish(self, stream: int, utterance: _Utterance) -> None:
        """Tell the final text: the latest, or what was told before if that is empty."""
        utterance.done = True
        self._waiting = [job for job in self._waiting if job.utterance is not utterance]
        latest = utterance.latest
        if heard := latest if latest and latest.text else utterance.told:
            self._tell(stream, heard._replace(final=True))


def spread(text: str, stretches: Sequence[tuple[int, int]]) -> tuple[Word, ...]:
    """The words of an utterance, its letters spread evenly over the stretches in which there was sound."""
    words = text.split()
    ends = np.cumsum([sum(_letters(sign) for sign in word) or 1 for word in words], dtype=np.float64)
    lasts = np.cumsum([end - start for start, end in stretches])
    if not words or not stretches:
        return ()
    ends *= lasts[-1] / ends[-1]
    ends[-1] = lasts[-1]
    starts = np.concatenate(([0.0], ends[:-1]))
    offsets = np.array([start for start, _ in stretches]) - np.concatenate(([0], lasts[:-1]))
    starts += offsets[np.searchsorted(lasts, starts, "right")]
    ends += offsets[np.searchsorted(lasts, ends, "left")]
    return tuple(Word(word, round(start), round(end)) for word, start, end in zip(words, starts, ends, strict=True))


def _letters(sign: str) -> int:
    return DIGIT if sign.isdigit() else int(sign.isalpha())
