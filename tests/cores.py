"""Cores with whims. The engine host is given them as `tests/cores.py:function`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voice_bridge.engines.base import FRAME, STEP_LIMIT, Core, Ended, Event, Injected, Opening, Remember, Said, Words
from voice_bridge.engines.echo import EchoCore

HERE = Path(__file__)

# What the first sample of a frame makes of a step.
GOODBYE = 0.75  # the core ends the conversation
CRASH = -0.75  # the step raises


class Whims(EchoCore):
    """An echo that reports all it is asked as `Remember`. A step takes `step` seconds, the first one `first` more."""

    def __init__(self, slots: int, step: float = 0, first: float = 0) -> None:
        super().__init__(slots)
        self._step = step
        self._first = first

    def _tell(self, slot: int, text: str) -> None:
        self._events.append((slot, Remember(text)))

    def open(self, slot: int, opening: Opening) -> None:
        if opening.persona == "nobody":
            raise ValueError("nobody is not a persona")
        super().open(slot, opening)
        self._tell(slot, f"open {opening.call}{' ' * bool(opening.greeting)}{opening.greeting}")
        if opening.greeting == "short":
            self._events.append((slot, Said(0, 0)))

    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None:
        if text == "unspeakable":
            raise ValueError(f"{text} cannot be said")
        self._tell(slot, f"say {id} {text} {interruptible}")

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        if context == "unspeakable":
            raise ValueError(f"{context} cannot be read")
        self._tell(slot, f"inject {id} {context} {how} {turn}")

    def cancel(self, slot: int, id: int) -> None:
        self._tell(slot, f"cancel {id}")

    def played(self, slot: int, at: int) -> None:
        self._tell(slot, f"played {at}")

    def digit(self, slot: int, digit: str) -> None:
        self._tell(slot, f"digit {digit}")

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        time.sleep(self._step + self._first)
        self._first = 0
        if CRASH in frames[:, 0]:
            raise RuntimeError("the device is gone")
        ended: list[tuple[int, Event]] = [
            (slot, Ended("goodbye")) for slot, frame in zip(slots, frames, strict=True) if frame[0] == GOODBYE
        ]
        return super().launch(slots, frames, at) + ended


class Humming(EchoCore):
    """Says one steady thing, whatever it hears."""

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        return super().launch(slots, np.full_like(frames, 0.25), at)


class Slowing(Whims):
    """Carries as many calls as the first sample of a step says in hundredths; after silence `holds`."""

    def __init__(self, slots: int, holds: float) -> None:
        super().__init__(slots)
        self._usual = self._holds = holds

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        self._holds = round(100 * float(frames[0, 0]), 1) or self._usual
        return super().launch(slots, frames, at)

    def step_time(self, n: int) -> float:
        return STEP_LIMIT * n / self._holds


class Diary(EchoCore):
    """Writes into a file what it is given to read or to say, and reports it as taken."""

    def __init__(self, slots: int, file: str) -> None:
        super().__init__(slots)
        self._file = Path(file)

    def open(self, slot: int, opening: Opening) -> None:
        super().open(slot, opening)
        if opening.call:  # not the one by which it is tried out
            self._write("greeting", opening.greeting)
            self._write("known", opening.known)
            if opening.known:
                self._events.append((slot, Injected(0)))

    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None:
        super().say(slot, id, text, interruptible)
        self._write("say", text)

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        self._write(how, context)
        self._events.append((slot, Injected(id)))

    def forget(self, slot: int) -> None:
        self._write("forget", "")

    def _write(self, what: str, text: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{what}: {text}\n")


class Hearing(Diary):
    """A diary whose callers say what is written into the file beside it; a line that ends in "..." goes on."""

    def __init__(self, slots: int, file: str) -> None:
        super().__init__(slots, file)
        self._said = self._file.with_name("said")
        self._read = 0
        self._id = 1

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        super().inject(slot, id, context, how if turn is None else f"turn {turn}", turn)

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        lines = self._said.read_text().splitlines()
        for line in lines[self._read :]:
            final = not line.endswith("...")
            words = Words(self._id, "caller", line.removesuffix("..."), at[0], at[0] + FRAME, final)
            self._events += [(slot, words) for slot in slots]
            self._id += final
            if line.startswith("Remember"):
                self._events += [(slot, Remember(line.removeprefix("Remember that "))) for slot in slots]
        self._read = len(lines)
        return super().launch(slots, frames, at)


Progress = Callable[[str], None]


def diary(slots: int, progress: Progress, file: str) -> Diary:
    return Diary(slots, file)


def hearing(slots: int, progress: Progress, file: str) -> Hearing:
    return Hearing(slots, file)


def whims(slots: int, progress: Progress, step: float = 0, first: float = 0) -> Whims:
    return Whims(slots, step, first)


def humming(slots: int, progress: Progress) -> Humming:
    return Humming(slots)


def slowing(slots: int, progress: Progress, holds: float) -> Slowing:
    return Slowing(slots, holds)


def waiting(slots: int, progress: Progress, file: str) -> Whims:
    """Loads until there is such a file, and says how far it is."""
    progress("loading a model: 40 %")
    while not Path(file).exists():
        time.sleep(0.01)
    return Whims(slots)


def slow_moshi(slots: int, progress: Progress, **options: Any) -> Core:
    """Moshi, on a machine on which every step takes a fifth of a second."""
    from voice_bridge.engines.moshi.torch import engine, model

    collect = model.TorchModel.collect

    def slowly(self: model.TorchModel, pending: Any) -> Any:
        time.sleep(0.2)
        return collect(self, pending)

    model.TorchModel.collect = slowly  # type: ignore[method-assign]
    return engine.core(slots, progress, **options)


def watched_mlx(slots: int, progress: Progress, **options: Any) -> Core:
    """Moshi on MLX, which ends its process as soon as it is asked for anything on another thread than the main one.

    It offers its slots however slow this machine is just now.
    """
    from voice_bridge.engines.moshi.mlx import engine, model

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                os._exit(3)
            return method(*given)

        return call

    for name in ("__init__", "tick", "collect", "read", "fill", "add", "embed", "encode"):
        setattr(model.MlxModel, name, watched(getattr(model.MlxModel, name)))
    core = engine.core(slots, progress, **options)
    core.step_time = lambda n: 0.001 * n  # type: ignore[method-assign]
    return core


def faulty(slots: int, progress: Progress) -> Whims:
    raise ZeroDivisionError("division by zero")


def unloadable(slots: int, progress: Progress) -> Whims:
    raise OSError("no weights in /nowhere")


def vanishing(slots: int, progress: Progress) -> Whims:
    """Ends without a word, as when a library calls exit()."""
    sys.exit(3)


def chatty(slots: int, progress: Progress, first: float = 0) -> Whims:
    """Writes what a long download writes, which has no line ends, and then a line."""
    print("loading" * 100_000, file=sys.stderr)
    print("loaded the weights", file=sys.stderr)
    return Whims(slots, first=first)


def helped(slots: int, progress: Progress) -> Whims:
    """Has a process of its own that would outlive it, as compilers have."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return Whims(slots)
