"""How callers sound, as float32 at 8 kHz: synthetic voices, the noise on a line, coughs and what else is no word.

Voices are flite's, espeak-ng's and festival's; the agent has another (piper's). What was synthesised once is kept in
a folder among the temporary files.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from shutil import which
from typing import NamedTuple

import numpy as np
from cascade_checks import AUDIBLE, RATE, first_audible, last_audible
from cascade_sets import FINISHED, Slow
from numpy.typing import NDArray

from voice_bridge.codecs import wav

Sound = NDArray[np.float32]

VOICES = {
    "slt": ("flite", "-voice", "slt", "-o", "{file}", "-t", "{text}"),
    "rms": ("flite", "-voice", "rms", "-o", "{file}", "-t", "{text}"),
    "awb": ("flite", "-voice", "awb", "-o", "{file}", "-t", "{text}"),
    "hts": ("text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "-o", "{file}"),
    "kal16": ("flite", "-voice", "kal16", "-o", "{file}", "-t", "{text}"),
    "en-us": ("espeak-ng", "-v", "en-us", "-w", "{file}", "{text}"),
    "en-gb": ("espeak-ng", "-v", "en-gb", "-w", "{file}", "{text}"),
}
"""American women (slt, hts) and men (rms, kal16), a Scot (awb), and two of no human throat."""
CLEAR = ("slt", "rms", "hts")  # the Americans: the ear learnt from such, and mishears a Scot's names and numbers
HUMAN = ("slt", "rms", "awb", "hts")  # made from recordings by statistics: the closest to what calls in
OPTIONAL = {"hts"}  # festival's voice is a package that not every machine has

# About what a handset sends (ITU-T P.48): consonants gain and the chest loses, before any noise of the line joins in.
HANDSET: dict[int, float] = {
    0: -60,
    100: -46,
    160: -26,
    200: -19,
    250: -14,
    315: -11,
    400: -8,
    500: -7,
    800: -5,
    1250: -2,
    2000: 0,
}
HANDSET |= {2500: 2, 3150: 1.5, 3400: -2, 4000: -36}  # Hz: dB
AIR = {"cough", "throat", "breath", "sneeze", "slam", "keyboard"}  # what comes through the air, and so a handset

LOUDNESS = 0.05  # root mean square over a sentence, full scale 1: -26 dB, what telephones aim at
NOISE_DOWN = 10.0  # dB that a noisy line's noise is below that
QUIET_LINE = 0.001  # root mean square of a good line's noise: -60 dB
WIDE = 24_000  # samples a second of the noise that is wider than the line
BED = 20  # seconds of noise that are repeated
BABBLERS = 6  # that talk at once: single words cannot be made out
LOUDEST = RATE // 10  # samples over which a cough is measured: it is as loud as its loudest tenth of a second


class Utterance(NamedTuple):
    """What a caller says, and where in it there is something to hear."""

    text: str
    voice: str
    sound: Sound
    first: int
    """The first sample that can be heard."""
    last: int


def missing() -> list[str]:
    """The programs that are wanted and not installed."""
    wanted = {command[0] for voice, command in VOICES.items() if voice not in OPTIONAL}
    return sorted(program for program in wanted if which(program) is None)


@cache
def voices() -> tuple[str, ...]:
    """Those that speak here."""
    return tuple(voice for voice, command in VOICES.items() if voice not in OPTIONAL or _speaks(command))


def _speaks(command: Sequence[str]) -> bool:
    return which(command[0]) is not None and Path("/usr/share/festival/voices/us/cmu_us_slt_arctic_hts").is_dir()


def say(text: str, voice: str) -> Utterance:
    """A sentence through a handset, as loud as on a telephone."""
    return _utterance(text, voice, _loud(_handset(_spoken(text, voice))))


def slowly(slow: Slow, voice: str) -> Utterance:
    """A sentence with pauses: each phrase by itself, with the tune of one that goes on.

    A pause is what can be heard as one: what is too soft at the end of a phrase is a part of it.
    """
    heard = [say(phrase.rstrip(",.?!") + ",", voice) for phrase in slow.phrases[:-1]]
    heard.append(say(slow.phrases[-1], voice))
    sound = [heard[0].sound]
    for pause, before, after in zip(slow.pauses, heard, heard[1:], strict=False):
        soft = len(before.sound) - 1 - before.last + after.first
        sound += [np.zeros(max(0, pause * RATE // 1000 - soft), np.float32), after.sound]
    return _utterance(slow.text, voice, np.concatenate(sound))


def plain(sound: Sound, kind: str) -> Utterance:
    """A sound that is no word."""
    return _utterance(kind, "", sound)


def _utterance(text: str, voice: str, sound: Sound) -> Utterance:
    pcm = (sound * 32767).astype(np.int16)
    return Utterance(text, voice, sound, first_audible(pcm) or 0, last_audible(pcm) or len(pcm) - 1)


def _handset(sound: Sound) -> Sound:
    """What a handset makes of a sound."""
    size = len(sound) + RATE // 4  # room for its echoes, so that none goes round to the beginning
    gain = 10 ** (np.interp(np.fft.rfftfreq(size, 1 / RATE), list(HANDSET), list(HANDSET.values())) / 20)
    shaped: Sound = np.fft.irfft(np.fft.rfft(sound, size) * gain, size)[: len(sound)].astype(np.float32)
    return shaped


def _loud(sound: Sound) -> Sound:
    """As loud as on a telephone where it is not silent."""
    voiced = sound[np.abs(sound) > AUDIBLE / 32768]
    scaled: Sound = (sound * np.float32(LOUDNESS / np.sqrt(np.mean(voiced**2)))).astype(np.float32)
    return np.clip(scaled, -1, 1)


def _spoken(text: str, voice: str) -> Sound:
    """Without what is 60 dB below its loudest at either end: an "h" is 40 dB below."""
    folder = Path(tempfile.gettempdir()) / "voice-bridge-callers"
    folder.mkdir(exist_ok=True)
    kept = folder / f"{hashlib.sha256(f'{voice}: {text}'.encode()).hexdigest()[:24]}.npy"
    if not kept.exists():
        new = kept.with_suffix(f".{os.getpid()}.wav")
        command = [part.format(file=new, text=text) for part in VOICES[voice]]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
        sound = wav.load(new, RATE)
        new.unlink()
        loud = np.flatnonzero(np.abs(sound) > 0.001 * np.abs(sound).max())
        made = new.with_suffix(".npy")
        np.save(made, sound[loud[0] : loud[-1] + 1])
        made.rename(kept)
    found: Sound = np.load(kept)
    return found


@cache
def line(kind: str) -> Sound:
    """The noise of a line, to be repeated: of a good one ("clean"), or 10 dB below speech: white, pink or babble.

    `wide` is white up to 12 kHz, of which the line carries a third, as in benchmarks/ears.py: 15 dB below speech there.
    """
    rng = np.random.default_rng(len(kind))
    if kind == "clean":
        return rng.normal(0, QUIET_LINE, BED * RATE).astype(np.float32)
    if kind == "wide":
        return rng.normal(0, LOUDNESS * 10 ** (-NOISE_DOWN / 20) * np.sqrt(RATE / WIDE), BED * RATE).astype(np.float32)
    made = {"white": lambda: _white(rng, BED), "pink": lambda: _pink(rng, BED), "babble": _babble}
    noise = made[kind]()
    scaled: Sound = noise * np.float32(LOUDNESS * 10 ** (-NOISE_DOWN / 20) / np.sqrt(np.mean(noise**2)))
    return scaled


def _babble() -> Sound:
    mixed = np.zeros(BED * RATE, np.float32)
    for number in range(BABBLERS):
        texts = random.Random(f"babble {number}").sample(FINISHED, 20)
        talk = np.concatenate([say(text, voices()[number % len(voices())]).sound for text in texts])
        mixed += np.resize(talk, len(mixed))
    return mixed


def _white(rng: np.random.Generator, seconds: float) -> Sound:
    return rng.normal(0, 1, round(seconds * RATE)).astype(np.float32)


def _pink(rng: np.random.Generator, seconds: float) -> Sound:
    """As much of it in each octave."""
    spectrum = np.fft.rfft(_white(rng, seconds))
    spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    return np.fft.irfft(spectrum, round(seconds * RATE)).astype(np.float32)


def noise(kind: str, seed: str, louder: float) -> Utterance:
    """A sound that is no word, of a kind of `cascade_sets.NOISES`, so many dB louder than speech."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    sound = KINDS[kind](rng)
    if kind in AIR:
        sound = _handset(sound)
    power = np.convolve(sound**2, np.ones(LOUDEST), "same").max() / LOUDEST
    scaled: Sound = (sound * LOUDNESS * 10 ** (louder / 20) / np.sqrt(power)).astype(np.float32)
    return plain(np.clip(scaled, -1, 1), kind)


def _cough(rng: np.random.Generator) -> Sound:
    """One to three: air that bursts out, a rest of it through the throat, and sometimes a bit of voice at the end."""
    throat = rng.uniform(500, 800), rng.uniform(1100, 1700), rng.uniform(2300, 3000)
    parts: list[Sound] = []
    for number in range(rng.integers(1, 4)):
        burst = _white(rng, rng.uniform(0.03, 0.07))
        burst *= np.linspace(1, 0.4, len(burst)) ** 2
        rest = _white(rng, rng.uniform(0.08, 0.2)) * np.float32(0.35)
        rest *= np.linspace(1, 0.3, len(rest))
        parts.append(_formants(np.concatenate((burst, rest)), throat))
        if rng.random() < 0.5:
            voice = _glottis(rng, rng.uniform(0.05, 0.15), rng.uniform(120, 280), falls=0.6, rough=0.05)
            parts.append(_formants(voice, throat) * np.float32(rng.uniform(0.2, 0.6)))
        parts.append(_nothing(rng, 0.06, 0.25) if number < 2 else np.zeros(0, np.float32))
    return _even_peaks(parts, rng)


def _throat(rng: np.random.Generator) -> Sound:
    """A rough, low rattle."""
    seconds = rng.uniform(0.25, 0.6)
    voice = _glottis(rng, seconds, rng.uniform(60, 110), falls=0.9, rough=0.3)
    air = _white(rng, seconds)[: len(voice)] * np.float32(0.3)
    rattle = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(20, 40) * np.arange(len(voice)) / RATE)
    shaped = _formants((voice + air) * rattle.astype(np.float32), (450, 1100, 2300))
    return shaped * _swell(len(shaped), 0.2)


def _breath(rng: np.random.Generator) -> Sound:
    air = _formants(_white(rng, rng.uniform(0.3, 0.9)), (rng.uniform(800, 1200), rng.uniform(1700, 2500)), 400)
    return air * _swell(len(air), 0.5)


def _sneeze(rng: np.random.Generator) -> Sound:
    """A breath with voice, a gap, and a hiss that bursts out."""
    voice = _glottis(rng, rng.uniform(0.1, 0.2), rng.uniform(150, 300), falls=1.2, rough=0.02)
    ah = _formants(voice, (700, 1200, 2500))
    hiss = _formants(_white(rng, rng.uniform(0.15, 0.35)), (2000, 2900, 3500), 600)
    hiss *= np.exp(-np.linspace(0, 4, len(hiss)))
    ah, hiss = _peak(ah, 0.4), _peak(hiss, 1.0)
    return np.concatenate((ah * _swell(len(ah), 0.3), _nothing(rng, 0.03, 0.08), hiss)).astype(np.float32)


def _click(rng: np.random.Generator) -> Sound:
    """One to five clicks of a worn-out plug."""
    sound = np.zeros(round(rng.uniform(0.1, 0.5) * RATE), np.float32)
    for at in rng.integers(0, len(sound) - 40, rng.integers(1, 6)):
        sound[at : at + 24] += rng.normal(0, 1, 24) * np.exp(-np.arange(24) / rng.uniform(2, 8))
    return sound


def _crackle(rng: np.random.Generator) -> Sound:
    sound = np.zeros(round(rng.uniform(0.2, 0.6) * RATE), np.float32)
    spots = rng.random(len(sound)) < rng.uniform(0.005, 0.03)
    sound[spots] = rng.laplace(0, 1, spots.sum())
    return np.convolve(sound, np.exp(-np.arange(8) / 2), "same").astype(np.float32)


def _burst(kind: Callable[[np.random.Generator, float], Sound]) -> Callable[[np.random.Generator], Sound]:
    def make(rng: np.random.Generator) -> Sound:
        sound = kind(rng, rng.uniform(0.05, 0.5))
        return sound * _swell(len(sound), 0.02)

    return make


def _hum(rng: np.random.Generator) -> Sound:
    """The mains, with its overtones."""
    time = np.arange(round(rng.uniform(0.3, 1.0) * RATE)) / RATE
    base = rng.choice((50, 60))
    waves = [rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) for k in range(1, 9)]
    mixed: Sound = np.sum(waves, axis=0).astype(np.float32)
    return mixed * _swell(len(time), 0.1)


def _tone(rng: np.random.Generator) -> Sound:
    """A key of a telephone, or a lonely tone of the line."""
    time = np.arange(round(rng.uniform(0.08, 0.4) * RATE)) / RATE
    pair = (rng.choice((697, 770, 852, 941)), rng.choice((1209, 1336, 1477))) if rng.random() < 0.6 else (1000,)
    return (sum(np.sin(2 * np.pi * each * time) for each in pair) * _swell(len(time), 0.05)).astype(np.float32)


def _static(rng: np.random.Generator) -> Sound:
    """Noise that comes and goes, as of a bad radio link."""
    sound = _white(rng, rng.uniform(0.3, 0.8))
    gate = np.repeat(rng.random(len(sound) // 160 + 1) < 0.6, 160)[: len(sound)]
    return sound * gate.astype(np.float32)


def _slam(rng: np.random.Generator) -> Sound:
    """A door: a crack, and the room after it."""
    time = np.arange(round(rng.uniform(0.25, 0.5) * RATE)) / RATE
    thud = np.sin(2 * np.pi * rng.uniform(80, 200) * time) * np.exp(-time / 0.08)
    crack = rng.normal(0, 1, len(time)) * np.exp(-time / 0.02)
    room = rng.normal(0, 0.15, len(time)) * np.exp(-time / 0.15)
    return (thud + crack + room).astype(np.float32)


def _keyboard(rng: np.random.Generator) -> Sound:
    sound = np.zeros(round(rng.uniform(0.6, 1.2) * RATE), np.float32)
    for at in rng.integers(0, len(sound) - 200, rng.integers(5, 12)):
        time = np.arange(160) / RATE
        ring = np.sin(2 * np.pi * rng.uniform(1200, 3000) * time) * np.exp(-time / 0.003)
        sound[at : at + 160] += rng.uniform(0.4, 1) * (ring + rng.normal(0, 0.5, 160) * np.exp(-time / 0.002))
    return sound


KINDS: dict[str, Callable[[np.random.Generator], Sound]] = {
    "cough": _cough,
    "throat": _throat,
    "breath": _breath,
    "sneeze": _sneeze,
    "click": _click,
    "crackle": _crackle,
    "white": _burst(_white),
    "pink": _burst(_pink),
    "hum": _hum,
    "tone": _tone,
    "static": _static,
    "slam": _slam,
    "keyboard": _keyboard,
}


def _formants(sound: Sound, peaks: Sequence[float], width: float = 180.0) -> Sound:
    """The sound as a throat with these resonances shapes it."""
    spectrum = np.fft.rfft(sound, 2 * len(sound))
    at = np.fft.rfftfreq(2 * len(sound), 1 / RATE)
    shape = sum(1 / (1 + ((at - peak) / width) ** 2) / (1 + number) for number, peak in enumerate(peaks))
    return np.fft.irfft(spectrum * (0.05 + np.sqrt(shape)))[: len(sound)].astype(np.float32)


def _glottis(rng: np.random.Generator, seconds: float, pitch: float, *, falls: float, rough: float) -> Sound:
    """Pulses of a pitch that goes to `falls` times itself, each off its time by about `rough` of a period."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    at = 0.0
    while at < len(sound):
        sound[int(at)] = rng.uniform(0.8, 1)
        now = pitch * (1 + (falls - 1) * at / len(sound))
        at += max(8.0, RATE / now * (1 + rng.normal(0, rough)))
    return np.convolve(sound, np.exp(-np.arange(24) / 6))[: len(sound)].astype(np.float32)


def _swell(samples: int, edge: float) -> Sound:
    """In and out over this share of the whole."""
    rise = max(1, int(samples * edge))
    shape = np.minimum(1, np.minimum(np.arange(samples) + 1, np.arange(samples, 0, -1)) / rise)
    return np.sin(np.pi / 2 * shape).astype(np.float32) ** 2


def _peak(sound: Sound, height: float) -> Sound:
    return sound * np.float32(height / max(1e-6, np.abs(sound).max()))


def _even_peaks(parts: Sequence[Sound], rng: np.random.Generator) -> Sound:
    """Parts one after the other, those with sound about equally loud, the later ones a little less."""
    loud = [
        _peak(part, rng.uniform(0.6, 1) * 0.9**number) if len(part) and part.any() else part
        for number, part in enumerate(parts)
    ]
    return np.concatenate(loud).astype(np.float32)


def _nothing(rng: np.random.Generator, least: float, most: float) -> Sound:
    return np.zeros(round(rng.uniform(least, most) * RATE), np.float32)
