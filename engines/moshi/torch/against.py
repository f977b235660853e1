"""Our steps and the reference package's in turns, on the same machine in the same minutes.

Its side runs in an environment of its own (`reference.py`), at the same shapes, with random weights and sampling as in
use, in float32 and in bfloat16: the faster one counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import torch
from safetensors.torch import load_file

from ...base import FRAME
from ..checkpoint import Plain
from ..config import ModelError
from ..config import model as configured
from ..measure import MOST, SETTLED, SHAPES, SPAN, Setting, interleave, timed
from .bench import Stand, bandwidth
from .load import Loader, WeightKind
from .mimi import Mimi
from .model import TorchModel
from .specimen import linears, load, ops_for

SCRIPT = Path(__file__).with_name("reference.py")
ENVIRONMENT = {"NO_TORCH_COMPILE": "1", "HF_HUB_OFFLINE": "1"}
DTYPES = ("float32", "bfloat16")
WEIGHTS: tuple[WeightKind, ...] = ("bf16", "int8")
CPU = torch.device("cpu")
YOUNG = 50  # frames of a call that has just begun
COMPARED = 25  # frames of sound that both make of the same codes: 2 s
CALLS = (1, 4, 16)

Gate: TypeAlias = tuple[float, float]
"""What must be reached, and what is aimed at."""

FULL16, FULL8, YOUNG8 = "LM step, 16-bit weights, ring full", "LM step, int8, ring full", "LM step, int8, 50 frames in"
OVERHEAD, CODEC = "framework overhead", "Mimi encode + decode, float32"
GATES: Mapping[str, Mapping[int, Gate]] = {
    FULL16: {1: (1.8, 3.0), 4: (2.2, 4.0), 16: (2.2, 4.0)},
    FULL8: {1: (4.0, 6.0), 4: (3.5, 6.0), 16: (2.7, 5.0)},
    YOUNG8: {1: (5.0, 8.0), 4: (7.0, 12.0), 16: (8.0, 12.0)},
    OVERHEAD: {1: (2.0, 4.0)},
    CODEC: {1: (1.7, 4.0), 16: (1.0, 1.5)},
}
CLOSENESS = 1e-5  # of Mimi's sound to theirs
AGE: Gate = (0.7, 0.5)  # time with little context over time with all of it
LINEARS: Gate = (0.6, 0.85)  # share of the bandwidth


@dataclass(frozen=True)
class Row:
    """A figure and its gate. Seconds are the best of all runs."""

    what: str
    calls: int
    value: float
    unit: str
    """x: times as fast as the reference. %: a share. Empty: a plain number."""
    at_least: float | None = None
    aim: float | None = None
    ours: float | None = None
    theirs: float | None = None
    lower: bool = False
    """Whether less is better; then `at_least` is what it may be at most."""

    @property
    def passed(self) -> bool | None:
        return None if self.at_least is None else self._reaches(self.at_least)

    @property
    def reached(self) -> bool | None:
        """Whether it does what is aimed at."""
        return None if self.aim is None else self._reaches(self.aim)

    def _reaches(self, gate: float) -> bool:
        return self.value <= gate if self.lower else self.value >= gate


class Reference:
    """The process in which the reference package runs. Raises `ModelError` when it cannot, or dies."""

    def __init__(self, python: Path, script: Path = SCRIPT) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (__exit__ closes it)
        command = [str(python), "-I", str(script)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env=os.environ | ENVIRONMENT,
            )
        except OSError as error:
            self._said.close()
            raise ModelError(f"--reference-python {python}: {error.strerror}; name the python of its venv") from None

    def ask(self, do: str, **what: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        answer = ""
        try:
            self._process.stdin.write(json.dumps({"do": do} | what) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            self._process.wait()
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or [f"status {self._process.returncode}"])[-1]
            raise ModelError(f"the reference ended: {last}; install it with: pip install --no-deps moshi==0.2.13")
        return json.loads(answer)

    def timed(self, name: str, position: int) -> Callable[[], float]:
        """A function that gives the seconds of one of its steps."""
        first: float = self.ask("run", name=name, position=position, steps=1)
        steps = max(1, min(MOST, round(SPAN / first)))
        return lambda: float(self.ask("run", name=name, position=position, steps=steps))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()


def compare(reference: Reference, setting: Setting, most: int, runs: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Every figure that has a gate, for up to `most` calls; of the setting count keys and threads."""
    version = reference.ask("threads", count=setting.threads)
    calls = [count for count in CALLS if count <= most]
    say("making weights")
    small = replace(setting, model="", shape="small", device="cpu")
    sixteen, eight = (load(replace(small, weights=kind), max(calls))[0] for kind in WEIGHTS)
    for count in calls:
        say(f"LM step, {count} calls, against moshi {version}")
        yield from _steps(reference, sixteen, eight, count, runs)
    for count in calls:
        say(f"Mimi, {count} calls")
        yield _codec(reference, Stand(eight, count, YOUNG), count, runs)
    yield from _closeness(reference)
    del sixteen, eight
    say("framework overhead")
    yield _overhead(reference, replace(small, shape="tiny", weights="float32"), runs)
    say("the linears of a 7B")
    yield _linears(replace(small, shape="7b", weights="int8"), runs)


def _steps(reference: Reference, sixteen: TorchModel, eight: TorchModel, calls: int, runs: int) -> Iterator[Row]:
    context = eight.config.lm.temporal.context
    ours = {
        FULL16: Stand(sixteen, calls, context),
        FULL8: Stand(eight, calls, context),
        YOUNG8: Stand(eight, calls, YOUNG),
    }
    works = {what: timed(stand.step) for what, stand in ours.items()}
    for dtype in DTYPES:
        reference.ask("lm", name=dtype, shape=SHAPES["small"], dtype=dtype, calls=calls)
        for age in (context, YOUNG):
            works[f"{dtype} {age}"] = reference.timed(dtype, age - 1)
    taken = interleave(works, runs)
    reference.ask("forget")
    for what in ours:
        age = YOUNG if what == YOUNG8 else context
        yield _ratio(what, calls, taken[what], *(taken[f"{dtype} {age}"] for dtype in DTYPES))
    if calls == 1:
        young, full = min(taken[YOUNG8]), min(taken[FULL8])
        what = f"int8 step with {YOUNG} frames of context over one with {context}"
        yield Row(what, calls, young / full, "", *AGE, young, lower=True)


def _codec(reference: Reference, stand: Stand, calls: int, runs: int) -> Row:
    def frame() -> None:
        stand.encode()
        stand.decode()

    reference.ask("mimi", name="mimi", calls=calls)
    taken = interleave({"ours": timed(frame), "theirs": reference.timed("mimi", SETTLED)}, runs)
    reference.ask("forget")
    return _ratio(CODEC, calls, taken["ours"], taken["theirs"])


def _closeness(reference: Reference) -> Iterator[Row]:
    """Both codecs with the same weights, on the same sound; ours decodes their codes."""
    reference.ask("mimi", name="mimi", calls=1)
    with tempfile.TemporaryDirectory() as folder:
        weights, values = (str(Path(folder) / f"{name}.safetensors") for name in ("weights", "values"))
        reference.ask("values", name="mimi", frames=COMPARED, weights=weights, values=values)
        tensors, theirs = load_file(weights), load_file(values)
    reference.ask("forget")
    config = configured({}, {})
    made = Mimi(config.mimi, Loader(lambda name: Plain(tensors[name]), CPU, ops=ops_for("cpu")), config.lm.codebooks)
    state, slot = made.state(1), torch.zeros(1, dtype=torch.int64)
    codes = torch.empty_like(theirs["codes"])  # [1, codebooks, frames]
    sound = torch.empty_like(theirs["sound"])  # [1, samples]
    with torch.no_grad():
        for index in range(COMPARED):
            frame = slice(index * FRAME, (index + 1) * FRAME)
            codes[..., index] = made.encode(theirs["pcm"][:, frame].contiguous(), state, slot, slot + index)
            sound[:, frame] = made.decode(theirs["codes"][..., index].contiguous(), state, slot, slot + index)
    same = float((codes == theirs["codes"]).float().mean())
    yield Row("Mimi with the same weights: codes that are the same", 1, same, "%")
    difference = float((sound - theirs["sound"]).abs().max())
    yield Row("- largest difference of its sound", 1, difference, "", CLOSENESS, lower=True)


def _overhead(reference: Reference, tiny: Setting, runs: int) -> Row:
    model, _ = load(tiny, 1)
    context = model.config.lm.temporal.context
    works = {OVERHEAD: timed(Stand(model, 1, context).step)}
    for dtype in DTYPES:
        reference.ask("lm", name=dtype, shape=SHAPES["tiny"], dtype=dtype, calls=1)
        works[dtype] = reference.timed(dtype, context - 1)
    taken = interleave(works, runs)
    reference.ask("forget")
    return _ratio(OVERHEAD, 1, taken[OVERHEAD], *(taken[dtype] for dtype in DTYPES))


def _linears(setting: Setting, runs: int) -> Row:
    work, count = linears(setting)
    taken = interleave({"linears": timed(work), "byte": lambda: 1 / bandwidth(setting)}, runs)
    seconds = min(taken["linears"])
    share = count / seconds * min(taken["byte"])
    return Row("linears of a 7B step, int8: share of the bandwidth", 1, share, "%", *LINEARS, seconds)


def _ratio(what: str, calls: int, ours: Sequence[float], *theirs: Sequence[float]) -> Row:
    mine, fastest = min(ours), min(map(min, theirs))
    at_least, aim = GATES[what].get(calls, (None, None))
    return Row(what, calls, fastest / mine, "x", at_least, aim, mine, fastest)
