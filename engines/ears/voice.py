"""Voice activity of one caller: when he begins to talk, when he pauses, when he is done.

Pure: frames in, small events out, no threads and no clock. For whatever hears a caller, and for whatever must know
whether he wants the floor. Takes about 0.1 ms a frame while there is sound, a third of that in silence.

A piece of 20 ms counts as sound when webrtcvad takes it for speech and it is louder than the noise on the line. That
is true of tones, music and bursts of noise too. So an utterance begins, and goes on, only with pieces that are like a
voice besides: periodic, which noise is not, and unlike the pieces shortly before, which a tone is not.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from ...codecs.framing import FRAME, RATE
from ...codecs.resample import FULL_SCALE, RATIO, Down
from ..base import Frame
from .base import Began

PIECE = RATE // 50  # samples in 20 ms, what webrtcvad takes
SHORT = PIECE // RATIO  # and at its 8 kHz
PIECES = FRAME // PIECE

EARLY = round(0.24 * RATE)  # a pause this long may be the end: closures of consonants last half of it
END = round(0.56 * RATE)  # a pause this long is the end: pauses in a sentence are mostly shorter
LONGEST = 20 * RATE  # of an utterance: longer than one says without a breath, and decoding it takes over a second
CUT_WITHIN = 5 * RATE  # of its end, an utterance that is too long is cut: there is a breath in every five seconds
QUIET = 5  # pieces, 100 ms, that are the least loud there

STRICTNESS = 2  # of webrtcvad, 0 to 3; at 3 it misses soft beginnings
WINDOW, ENOUGH = 9, 6  # an utterance begins when 6 of 9 pieces (120 of 180 ms) are a voice: "no" has that, a key not
LOOK_BACK = 20  # pieces before that, in which its beginning is looked for: a long "sh" is 200 ms without a tone
BEFORE = (WINDOW + LOOK_BACK) * PIECE  # how long before it is noticed an utterance may have begun
CLOSURE = 3  # pieces of silence that may lie in there: the closure of a consonant, 60 ms
TAIL = round(0.3 * RATE)  # how long sound that is not like a voice may follow it: the end of "six"

QUIETEST = -55.0  # dB of full scale; below that is the rounding of mu-law, and nobody talks so low
ABOVE_NOISE = 6.0  # dB
NOISE_AT_FIRST, NOISE_MOST = -50.0, -30.0  # dB: callers talk at -35 to -15
NOISE_RISE = 3.0 * PIECE / RATE  # dB a piece: slower than a sentence, faster than a call
NOISE_FALL = 0.2  # of the way down to a quieter piece

SPECTRUM = 512  # points: two pieces and as much of zeros as the longest lag, so that lags do not wrap
LAGS = slice(20, 101)  # samples of 8 kHz: voices of 80 to 400 Hz
PERIODIC = 0.5  # share of the energy that repeats; voices reach 0.6 to 1, white noise 0.4
APART = (3, 5)  # pieces, 60 and 100 ms, over which spectra are compared: where two tones that beat are alike again
PAST = max(APART)

STEADY = 0.99  # cosine of their amplitudes; tones have 0.998, sustained vowels 0.98 at most

# The first sign of a voice, in one piece: by what tells the beginnings of words, hisses among them, from coughs, clicks
# and bursts of noise. Weights by logistic regression on made sounds of both sorts, through a telephone.
HIGH = 2000  # Hz
BAND = slice(8, 220)  # of the spectrum, 125 to 3440 Hz: what a telephone passes
LATELY = 5  # pieces
SIGN_WEIGHTS = {
    "level": -0.052,  # dB above -35
    "sound before last": 1.47,  # whether there was sound two pieces ago
    "high before": 1.95,  # share of the last piece's energy above 2 kHz
    "flat": -14.9,  # flatness of the spectrum: noise is flat
    "log flat": 1.16,  # its logarithm
    "periodic": 6.71,  # how periodic this piece and the last are, multiplied
    "lately": -6.9,  # share of the last five pieces with sound: it is about beginnings
}
SIGN_EVEN = -6.5  # the sum from which it is one
_WEIGHTS = np.array(list(SIGN_WEIGHTS.values()), np.float32)
_HIGH = HIGH * SPECTRUM * RATIO // RATE
_LOW = 150 * SPECTRUM * RATIO // RATE  # below it is hum

_TAPER = np.hanning(2 * SHORT).astype(np.float32)
_FADE = np.fft.irfft(np.abs(np.fft.rfft(_TAPER, SPECTRUM)) ** 2, SPECTRUM)
_UNFADE = (_FADE[0] / _FADE[LAGS]).astype(np.float32)  # what the taper takes from each lag
_NONE = (False,) * PIECES


class Paused(NamedTuple):
    """The caller has been silent for a moment: this may be all."""

    start: int
    end: int


class Ended(NamedTuple):
    """An utterance is over. `whole` is false when it was cut for its length: the next goes on where it ends."""

    start: int
    end: int
    whole: bool


VoiceEvent: TypeAlias = Began | Paused | Ended


class _Piece(NamedTuple):
    at: int
    level: float
    sound: bool
    voice: bool
    sign: bool = False


class Voice:
    """Feed it every frame of a call. Times are samples of the caller's clock and true to about 20 ms."""

    def __init__(self) -> None:
        self.talking = False
        """Whether an utterance is under way; the pause that ends it is a part of it."""
        self.start = 0
        self.end = 0
        """Of the utterance under way, or of the last: its first sample and the one after the last with sound."""
        self.voiced = 0
        """Samples so far that were like a voice, in utterances or not; speech has pauses and consonants besides."""
        self._vad = webrtcvad.Vad(STRICTNESS)
        self._down = Down()
        self._past = np.zeros(SHORT, np.int16)
        self._shapes = np.zeros((PAST, SPECTRUM // 2 + 1), np.float32)
        self._noise = NOISE_AT_FIRST
        self._next: int | None = None
        self._recent: deque[_Piece] = deque(maxlen=WINDOW + LOOK_BACK)
        self._pieces: list[_Piece] = []
        self.sounded_to = 0
        """The sample after the last piece with any sound, like a voice or not."""
        self.voiced_to = 0
        """The sample after the last of those."""
        self._sounds = [False] * (LATELY - 1)  # whether the last pieces were sound
        self._looked = np.zeros((2, 1), np.float32)  # of the last piece: how periodic, how high
        self.sign_at: int | None = None
        """Where the last first sign of a voice was."""
        self._voice_at = 0  # the end of the last piece that was like a voice
        self._paused = False

    def hear(self, frame: Frame, at: int) -> list[VoiceEvent]:
        """Take one frame that began at `at`. What was heard already is left out, what is missing is silence."""
        events: list[VoiceEvent] = []
        if self._next is not None and at != self._next:
            if at < self._next:
                return events
            self._miss(at, events)
        self._next = at + FRAME
        pcm = self._down.push(frame)
        blocks = pcm.reshape(PIECES, SHORT)
        power = np.square(blocks, dtype=np.float32).mean(1)
        levels = (10 * np.log10(power / FULL_SCALE**2 + 1e-10)).tolist()
        sounds = [self._is_sound(block, level) for block, level in zip(blocks, levels, strict=True)]
        if any(sounds):
            voices, signs = self._look(np.concatenate((self._past, pcm)), levels, sounds)
        else:
            voices = signs = _NONE
            self._shapes[:] = 0
            self._looked[:] = 0
            self._sounds = [False] * (LATELY - 1)
        self._past = blocks[-1]
        for i, (level, sound, voice, sign) in enumerate(zip(levels, sounds, voices, signs, strict=True)):
            self._take(_Piece(at + i * PIECE, level, sound, sound and voice, sound and sign), events)
        return events

    @property
    def stirring(self) -> bool:
        """Whether the last frame had the first sign of a voice; sometimes it is a cough."""
        return self.sign_at is not None and self._next is not None and self._next - self.sign_at <= FRAME

    def stretches(self, start: int, end: int) -> list[tuple[int, int]]:
        """Where between these samples of the utterance under way, or just ended, there was sound."""
        found: list[tuple[int, int]] = []
        for piece in self._pieces:
            if piece.sound and start <= piece.at < end:
                if found and found[-1][1] == piece.at:
                    found[-1] = (found[-1][0], piece.at + PIECE)
                else:
                    found.append((piece.at, piece.at + PIECE))
        return found

    def _is_sound(self, block: NDArray[np.int16], level: float) -> bool:
        rise = NOISE_RISE if level > self._noise else NOISE_FALL * (level - self._noise)
        self._noise = min(max(self._noise + rise, QUIETEST - ABOVE_NOISE), NOISE_MOST)
        speech: bool = self._vad.is_speech(block.tobytes(), RATE // RATIO)
        return speech and level > self._noise + ABOVE_NOISE

    def _look(
        self, pcm: NDArray[np.int16], levels: list[float], sounds: list[bool]
    ) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """For each piece after the first of `pcm` whether it is like a voice, and whether the first sign of one."""
        windows = np.ndarray((PIECES, 2 * SHORT), pcm.dtype, pcm, strides=(SHORT * pcm.itemsize, pcm.itemsize))
        shapes = np.abs(np.fft.rfft(windows * _TAPER, SPECTRUM))
        powers = np.square(shapes)
        repeats = np.fft.irfft(powers, SPECTRUM)
        periodic = (repeats[:, LAGS] * _UNFADE).max(1) / (repeats[:, 0] + 1e-9)
        shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + 1e-6
        row = np.concatenate((self._shapes, shapes))
        self._shapes = row[-PAST:]
        alike = [(shapes * row[PAST - apart : -apart]).sum(1) for apart in APART]
        moving = np.maximum(*alike) < STEADY
        signs = self._evidence(powers, periodic.clip(0, 1.2), levels, sounds) > SIGN_EVEN
        return tuple(((periodic > PERIODIC) & moving).tolist()), tuple(signs.tolist())

    def _evidence(
        self, powers: NDArray[Any], periodic: NDArray[Any], levels: list[float], sounds: list[bool]
    ) -> NDArray[Any]:
        """How much speaks for each piece being the first sign of a voice."""
        high = powers[:, _HIGH:].sum(1) / (powers[:, _LOW:].sum(1) + 1e-9)
        looked = np.concatenate((self._looked, (periodic, high)), axis=1)
        self._looked = looked[:, -1:]
        heard = np.array(self._sounds + sounds, np.float32)
        self._sounds = (self._sounds + sounds)[1 - LATELY :]
        band = powers[:, BAND] + 1e-3
        flat = np.exp(np.log(band).mean(1)) / band.mean(1)
        lately = np.convolve(heard, np.ones(LATELY), "valid") / LATELY
        above = np.clip(levels, -55, -10) + 35
        of_last, before_last = looked[:, :-1], heard[LATELY - 3 : -2]
        features = (above, before_last, of_last[1], flat, np.log(flat + 1e-4), periodic * of_last[0], lately)
        evidence: NDArray[Any] = _WEIGHTS @ np.stack(features)
        return evidence

    def _miss(self, at: int, events: list[VoiceEvent]) -> None:
        """Silence from where we are to `at`, as far as it matters."""
        assert self._next is not None
        for missing in range(self._next, min(at, self._next + END + PIECE), PIECE):
            self._take(_Piece(missing, QUIETEST, False, False), events)
        self._down = Down()
        self._past = np.zeros(SHORT, np.int16)
        self._shapes[:] = 0

    def _take(self, piece: _Piece, events: list[VoiceEvent]) -> None:
        if piece.sign:
            self.sign_at = piece.at
        if piece.sound:
            self.sounded_to = piece.at + PIECE
        if piece.voice:
            self.voiced += PIECE
            self.voiced_to = piece.at + PIECE
        if self.talking:
            self._go_on(piece, events)
            return
        self._recent.append(piece)
        window = list(self._recent)[-WINDOW:]
        if piece.voice and sum(each.voice for each in window) >= ENOUGH:
            self._begin(events)

    def _begin(self, events: list[VoiceEvent]) -> None:
        pieces = list(self._recent)
        self._recent.clear()
        first, silent = len(pieces) - 1, 0
        for i in range(len(pieces) - 1, -1, -1):
            if pieces[i].sound:
                first, silent = i, 0
            else:
                silent += 1
                if silent > CLOSURE and i < len(pieces) - WINDOW:
                    break
        self._pieces = pieces[first:]
        self.talking, self._paused = True, False
        self.start = self._pieces[0].at
        self.end = self._voice_at = self._pieces[-1].at + PIECE
        events.append(Began(self.start))

    def _go_on(self, piece: _Piece, events: list[VoiceEvent]) -> None:
        self._pieces.append(piece)
        now = piece.at + PIECE
        if piece.voice:
            self._voice_at = now
        if piece.sound and now - self._voice_at <= TAIL:
            self.end = now
            self._paused = False
        elif now - self.end >= END:
            self.talking = False
            events.append(Ended(self.start, self.end, whole=True))
        elif now - self.end >= EARLY and not self._paused:
            self._paused = True
            events.append(Paused(self.start, self.end))
        if piece.sound and now - self.start >= LONGEST:
            self._cut(events)

    def _cut(self, events: list[VoiceEvent]) -> None:
        """End the utterance where it was least loud of late, and begin another there."""
        self._pieces = [piece for piece in self._pieces if piece.at >= self.start]
        levels = np.array([piece.level for piece in self._pieces[-CUT_WITHIN // PIECE : -EARLY // PIECE]])
        levels = np.convolve(levels, np.ones(QUIET), "valid")
        middle = self._pieces[-CUT_WITHIN // PIECE + int(levels.argmin()) + QUIET // 2].at
        events += Ended(self.start, middle, whole=False), Began(middle)
        self.start = middle
