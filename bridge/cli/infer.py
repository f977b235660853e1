"""`voice-bridge infer`: what an engine makes of a recording."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...codecs import wav
from ...codecs.framing import FRAME_SECONDS, RATE
from ...codecs.resample import FULL_SCALE
from ...engines import hardware, offline, registry
from ...engines.base import Core, Ended, Event, Opening, Sound, Words
from ...engines.offline import Cue
from ..config import Settings
from ..endpoints import endpoints
from . import operator

TAIL = 5.0  # seconds: a model answers after it was spoken to, and a transcript comes up to 2.5 s late
LONGEST_TAIL = 600.0  # seconds
GREEDY = {"audio_temperature": 0.0, "text_temperature": 0.0}
CUE = re.compile(r"@(\d+(?:\.\d+)?)\s+(.*)", re.DOTALL)
SEED_BITS = 32  # a seed that is easily copied
TERMINAL = Path("-")

Says = Annotated[list[str] | None, typer.Option(metavar="[@SECONDS] TEXT", help="Make it say this. Can be repeated.")]
Injects = Annotated[
    list[str] | None, typer.Option(metavar="[@SECONDS] TEXT", help="Let it know this, unheard. Can be repeated.")
]
TextFile = Annotated[
    Path | None, typer.Option("--text", help="Write what was said here, as .srt or as lines; - is the terminal.")
]


@dataclass
class Outcome:
    """What came of a conversation."""

    engine: str
    model: str
    seed: int
    loading: float
    """Seconds until the first frame."""
    frames: int = 0
    seconds: float = 0.0
    """That all frames took."""
    ended: str = ""
    """Why the engine ended it before the sound was over."""
    utterances: dict[int, Words] = field(default_factory=dict)
    """By id, each as it was told last."""

    @property
    def sound(self) -> float:
        return self.frames * FRAME_SECONDS

    @property
    def speed(self) -> float:
        """How many times real time."""
        return self.sound / max(self.seconds, 1e-9)

    @property
    def words(self) -> list[Words]:
        return sorted(self.utterances.values(), key=lambda said: said.start)


def infer(
    wav_in: Annotated[Path, typer.Argument(metavar="IN.WAV", exists=True, dir_okay=False, show_default=False)],
    wav_out: Annotated[Path | None, typer.Argument(metavar="OUT.WAV", dir_okay=False, show_default=False)] = None,
    engine: Annotated[str | None, typer.Option(help="What answers: auto, moshi or echo.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or repository.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the likeliest token.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")] = None,
    say: Says = None,
    inject: Injects = None,
    persona: Annotated[str, typer.Option(help="Who it is, read before the first frame.")] = "",
    tail: Annotated[float, typer.Option(min=0, max=LONGEST_TAIL, help="Seconds of silence behind it.")] = TAIL,
    text: TextFile = None,
    tokens: Annotated[Path | None, typer.Option(help="Write each frame's tokens here, as JSON lines.")] = None,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Let an engine hear a recording, and write down what it says, as fast as the machine goes.

    Any WAV will do. The engine hears the frames that a call would give it, so
    the same frames give the same tokens as on the telephone. A say or an inject
    takes effect at @SECONDS of the recording, or at once.

    \b
    Examples:
      voice-bridge infer question.wav answer.wav
      voice-bridge infer question.wav answer.wav --greedy --tokens tokens.jsonl
      voice-bridge infer question.wav answer.wav --say "@3.5 One moment."
      voice-bridge infer talk.wav --model kyutai/stt-1b-en_fr --text talk.srt
      voice-bridge infer question.wav answer.wav --engine echo --json
    """
    settings = operator.settings(config, {"voice.provider": engine, "voice.model": model})
    opening = Opening(
        call="infer",
        persona=persona,
        seed=secrets.randbits(SEED_BITS) if seed is None else seed,
        sampling=GREEDY if greedy else {},
    )
    try:
        if wav_out and wav_out.exists() and wav_out.samefile(wav_in):
            raise ValueError(f"{wav_out} is what is to be heard: write the answer to another file")
        heard = offline.frames(wav_in, tail)[: settings.voice.max_steps or None]
        says, injects = _cues(say, len(heard)), _cues(inject, len(heard))
        with ExitStack() as stack:
            sound = stack.enter_context(wav.Writer(wav_out, RATE, 1)) if wav_out else None
            script = _writable(stack, text) if text else sys.stdout
            began = time.perf_counter()
            name, core = _core(settings, tokens)
            outcome = Outcome(name, settings.voice.model, opening.seed or 0, time.perf_counter() - began)
            _run(offline.talk(core, heard, opening, says, injects), len(heard), outcome, sound)
            if text or not as_json:
                script.write(_subtitles(outcome) if text and text.suffix == ".srt" else _lines(outcome))
    except (registry.NoEngine, ValueError, OSError) as error:
        operator.fail(str(error))
    if as_json:
        typer.echo(json.dumps(_report(outcome), indent=2))
    typer.echo(_summary(outcome), err=True)


def _core(settings: Settings, tokens: Path | None) -> tuple[str, Core]:
    """The engine's name and its core, in this process and with all of the machine."""
    voice = settings.voice
    provider = "moshi" if voice.model and voice.engine == "auto" else voice.engine  # it may be slow: nobody waits
    machine = hardware.detect(api=settings.has_api)
    choice = registry.choose(
        provider, voice.moshi.device, machine, endpoints(voice), voice.options, 1, voice.cascade.options
    )
    typer.echo(f"{choice.name}: {choice.reason}", err=True)
    if choice.name == "cascade":
        raise ValueError(
            "the cascade answers in real time only: take `voice-bridge dial --wav`, or --engine moshi or echo"
        )
    if choice.name == registry.RELAY:
        raise ValueError(f"{choice.name} answers elsewhere: take `voice-bridge dial --wav`, or --engine moshi or echo")
    if choice.name != "moshi":
        if tokens:
            raise ValueError(f"--tokens: the engine {choice.name} has none; take --engine moshi")
        return choice.name, registry.core(choice, 1, lambda text: None)
    if tokens:
        tokens.write_text("")
    with Console(stderr=True).status("loading") as status:
        threads = voice.moshi.threads or machine.cores
        trace = str(tokens or voice.moshi.trace or "")
        return choice.name, registry.core(choice, 1, status.update, threads=threads, trace=trace)


def _run(spoken: Iterator[list[Event]], frames: int, outcome: Outcome, sound: wav.Writer | None) -> None:
    """Take in what the engine says, frame by frame, and show how far it is."""
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f} s"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=frames * FRAME_SECONDS)
        began = time.perf_counter()
        for events in spoken:
            outcome.frames += 1
            for event in events:
                _take(event, outcome, sound)
            progress.advance(bar, FRAME_SECONDS)
        outcome.seconds = time.perf_counter() - began


def _take(event: Event, outcome: Outcome, sound: wav.Writer | None) -> None:
    match event:
        case Sound():
            if sound:
                steps = np.rint(event.pcm * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1)
                sound.write(steps.astype(np.int16))
        case Words():
            outcome.utterances[event.id] = event
        case Ended():
            outcome.ended = event.reason


def _cues(given: list[str] | None, frames: int) -> list[Cue]:
    """`TEXT`, or `@SECONDS TEXT` for later; raises ValueError for what cannot come about within so many frames."""
    cues = []
    for text in given or []:
        timed = CUE.fullmatch(text)
        if not timed and text.startswith("@"):
            raise ValueError(f"{text!r}: write a time as in '@3.5 One moment.'")
        cue = Cue(ceil(float(timed[1]) / FRAME_SECONDS), timed[2]) if timed else Cue(0, text)
        if cue.frame >= frames:
            raise ValueError(f"{text!r} lies behind the end, at {frames * FRAME_SECONDS:.1f} s: take an earlier time")
        if not cue.text.strip():
            raise ValueError(f"{text!r} has no words")
        cues.append(cue)
    return cues


def _writable(stack: ExitStack, path: Path) -> TextIO:
    """The file, opened before the work begins: one that cannot be written is known at once."""
    return sys.stdout if path == TERMINAL else stack.enter_context(path.open("w", encoding="utf-8"))


def _lines(outcome: Outcome) -> str:
    return "".join(f"{_clock(said.start)}  {said.speaker}: {said.text}\n" for said in outcome.words)


def _clock(samples: int) -> str:
    minutes, tenths = divmod(samples * 10 // RATE, 600)
    return f"{minutes:02d}:{tenths / 10:04.1f}"


def _subtitles(outcome: Outcome) -> str:
    return "\n".join(
        f"{number}\n{_time_code(said.start)} --> {_time_code(said.end)}\n{said.text}\n"
        for number, said in enumerate(outcome.words, 1)
    )


def _time_code(samples: int) -> str:
    minutes, milliseconds = divmod(samples * 1000 // RATE, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d},{milliseconds % 1000:03d}"


def _report(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON, times in seconds."""
    return {
        "engine": outcome.engine,
        "model": outcome.model,
        "seed": outcome.seed,
        "frames": outcome.frames,
        "sound": round(outcome.sound, 3),
        "loading": round(outcome.loading, 3),
        "seconds": round(outcome.seconds, 3),
        "times_real_time": round(outcome.speed, 3),
        "ended": outcome.ended,
        "words": [_timed(said) for said in outcome.words],
    }


def _timed(said: Words) -> dict[str, Any]:
    times = {"start": round(said.start / RATE, 3), "end": round(said.end / RATE, 3)}
    return {"speaker": said.speaker, **times, "text": said.text, "forced": said.forced}


def _summary(outcome: Outcome) -> str:
    """One line that says how fast it was."""
    ended = f"; the engine ended it: {outcome.ended}" if outcome.ended else ""
    return (
        f"{outcome.sound:.1f} s of sound in {outcome.seconds:.1f} s, {outcome.speed:.1f} times real time"
        f" (loaded in {outcome.loading:.1f} s, seed {outcome.seed}){ended}"
    )
