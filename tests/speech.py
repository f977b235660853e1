"""Synthetic speech for tests of ears, by the programs espeak-ng and flite, and the telephone that it comes through."""

from __future__ import annotations

import re
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path
from shutil import which

import numpy as np
from numpy.typing import NDArray

from voice_bridge.codecs import g711
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.resample import Down, Up, resample

Sound = NDArray[np.float32]

LOUDNESS = 0.05  # root mean square over the sentence, full scale 1: -26 dB, what telephones aim at
BURR = 7  # seed of the noise on the line

VOICES = {
    "formant": ("espeak-ng", "-v", "en-us", "-w"),
    "diphone": ("flite", "-voice", "slt", "-o"),
}
"""Kinds of voices, and what speaks in them: espeak-ng makes its sounds by rule, flite joins pieces of recordings."""


def missing() -> list[str]:
    """The programs that are wanted and not installed."""
    return sorted({program for program, *_ in VOICES.values() if which(program) is None})


@cache
def say(text: str, voice: str = "diphone") -> Sound:
    """A sentence at 24 kHz, as loud as on a telephone, without silence before and behind. Not to be written to."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        command = [*VOICES[voice], str(file)]
        subprocess.run([*command, *(["-t", text] if voice == "diphone" else [text])], check=True, capture_output=True)
        with wave.open(str(file)) as said:
            pcm = np.frombuffer(said.readframes(said.getnframes()), np.int16).astype(np.float32) / 32768
            rate = said.getframerate()
    sound = tidy(resample(pcm, rate, RATE))
    sound.setflags(write=False)
    return sound


def tidy(sound: Sound) -> Sound:
    """As loud as on a telephone, and without what is 40 dB below the loudest at either end."""
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    return sound * np.float32(LOUDNESS / np.sqrt(np.mean(sound**2)))


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float, seed: int = BURR) -> Sound:
    """White noise of this root mean square."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def vowels(seconds: float) -> Sound:
    """What passes for a voice: a buzz through a mouth that moves, as loud as on a telephone."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 1.5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formant = 900 + 700 * np.sin(2 * np.pi * 3 * time)
    sound = sum(np.exp(-(((n * pitch - formant) / 400) ** 2)) * np.sin(n * phase) for n in range(1, 25))
    return (LOUDNESS * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def join(*parts: Sound) -> Sound:
    return np.concatenate(parts)


def telephone(sound: Sound, snr: float | None = None) -> Sound:
    """As it comes out of a call: 8 kHz, mu-law; with white noise so many dB below a sentence if asked for."""
    if snr is not None:
        sound = sound + noise(len(sound) / RATE, LOUDNESS * 10 ** (-snr / 20))[: len(sound)]
    return Up().push(g711.decode(g711.encode(Down().push(sound))))


def frames(sound: Sound) -> list[Sound]:
    """In frames of 1920, the last filled up with silence."""
    filled = np.pad(sound, (0, -len(sound) % FRAME))
    return list(filled.reshape(-1, FRAME))


UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
SMALL = [*UNITS.split(), "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS |= {"twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}


def number(digits: str) -> list[str]:
    """How one says it: up to 99 as a number, longer ones digit by digit."""
    value = int(digits)
    if len(digits) > 2 or digits.startswith("0"):
        return [SMALL[int(digit)] for digit in digits]
    if value < 20:
        return [SMALL[value]]
    return [TENS[value // 10 - 2], *([SMALL[value % 10]] if value % 10 else [])]


def words(text: str) -> list[str]:
    """What is compared: lower case, without punctuation, numbers as words."""
    found: list[str] = []
    for token in re.findall(r"\d+(?:st|nd|rd|th)?|[a-z']+", text.lower().replace("\u2019", "'")):
        if not token[0].isdigit():
            found.append(token.replace("'", ""))
            continue
        spelled = number(token.rstrip("stndrh"))
        if not token.isdigit():
            spelled[-1] = ORDINALS.get(spelled[-1], spelled[-1] + "th")
        found += spelled
    return found


def word_errors(said: str, heard: str) -> int:
    """Words to replace, leave out or put in to make one of the other."""
    ours, theirs = words(said), words(heard)
    row = list(range(len(theirs) + 1))
    for i, our in enumerate(ours, 1):
        last, row = row, [i]
        for j, their in enumerate(theirs, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (our != their)))
    return row[-1]
