"""`voice-bridge bench`: how long a step of the engine takes on this machine, and what of."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...codecs.framing import FRAME_SECONDS
from ...engines import hardware, registry
from ...engines.base import STEP_LIMIT
from ...engines.hardware import GB
from ...engines.moshi.config import ModelError
from ...engines.moshi.measure import SHAPES, Setting, Step
from . import operator
from .chart import as_svg

if TYPE_CHECKING:
    from ...engines.moshi.torch.against import Row

RUNS = 5
RUNS_AGAINST = 12  # as many as find the machine undisturbed at least once
CONTEXTS = "50,3000"  # a call that has just begun, and one whose context is full

Shape = Annotated[str, typer.Option(help="Random weights at this shape: 7b, small or tiny.")]
Model = Annotated[str, typer.Option(help="Measure this model, a folder or repository, instead.")]
Weights = Annotated[
    str, typer.Option(help="bf16, int8, int4, fp8 or float32; int8 if not given; on a GPU bf16, MLX int4.")
]
Pin = Annotated[int | None, typer.Option(min=0, metavar="CORE", help="Stay on this core.")]
Against = Annotated[str, typer.Option(metavar="reference", help="Compare with the reference package, in turns.")]
Python = Annotated[Path | None, typer.Option(help="The python of a venv that has the package moshi.")]
Plot = Annotated[Path | None, typer.Option(dir_okay=False, help="Draw ms over calls into this SVG file.")]


def bench(
    shape: Shape = "7b",
    model: Model = "",
    weights: Weights = "",
    keys: Annotated[str, typer.Option(help="Keys and values: bf16, int8 or float32.")] = "bf16",
    device: Annotated[str, typer.Option(help="cpu, cuda or mlx; the GPU where there is one.")] = "",
    calls: Annotated[int, typer.Option(min=1, help="Calls at once, from 1 up by doubling.")] = 16,
    context: Annotated[str, typer.Option(help="Frames that each call has gone, with commas between.")] = CONTEXTS,
    runs: Annotated[int | None, typer.Option(min=1, help="The best of so many counts: 5, against others 12.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="On the CPU; 0 is as many as there are cores.")] = 0,
    pin: Pin = None,
    against: Against = "",
    reference_python: Python = None,
    plot: Plot = None,
    as_json: operator.Json = False,
) -> None:
    """Measure a step of the engine: by calls and context, its parts, and its share of the memory's bandwidth.

    Without --model the weights are random, which costs no time. Times are the
    best of all runs. --against reference takes turns with the package moshi in a
    venv of its own, on one core, at the shapes that our limits are for, and shows
    those limits. Where output is not a terminal the table is Markdown. What calls
    cost the bridge itself is measured by `make bench` in the sources.

    \b
    Examples:
      voice-bridge bench
      voice-bridge bench --model models/moshika --weights int4 --calls 4
      voice-bridge bench --shape small --context 50,3000 --plot steps.svg
      voice-bridge bench --device mlx --weights int4 --calls 4
      voice-bridge bench --against reference --reference-python ref/bin/python
    """
    if against and (against != "reference" or not reference_python):
        raise typer.BadParameter("there is `--against reference`, with --reference-python PATH")
    if plot and (against or not plot.absolute().parent.is_dir()):
        raise typer.BadParameter(f"--plot {plot} needs a folder that is there, and leave out --against")
    device = device or ("mlx" if hardware.this_host().chip and not against else "")
    program: registry.Program = "mlx" if device == "mlx" else "torch"
    if lacks := registry.missing(program):
        operator.fail(f"{', '.join(lacks)} not installed: `make setup`, or pip install 'voice-bridge[{program}]'")
    if pin is None and against:
        pin = min(_cores())
    _stay_on(pin)
    try:
        setting = _setting(shape, model, weights, keys, device, threads)
        if reference_python:
            _compare(reference_python, setting, calls, runs or RUNS_AGAINST, as_json)
        else:
            _measure(setting, calls, _frames(context), runs or RUNS, plot, as_json)
    except (ModelError, OSError) as error:
        operator.fail(str(error))


def _setting(shape: str, model: str, weights: str, keys: str, device: str, threads: int) -> Setting:
    """What is asked for, checked; torch is told how many threads it has."""
    if device == "mlx":
        return _mlx_setting(shape, model, weights, keys)
    import torch

    from ...engines.moshi.torch import engine, load

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = weights or ("bf16" if device == "cuda" else "int8")
    setting = Setting(
        shape=_known("--shape", shape, list(SHAPES)),
        model=model,
        weights=next(kind for kind in load.KINDS if kind == _known("--weights", weights, load.KINDS)),
        keys=_known("--keys", keys, list(engine.DTYPES)),
        device="cuda" if _known("--device", device, ["cpu", "cuda", "mlx"]) == "cuda" else "cpu",
        threads=threads or len(_cores()),
    )
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda: torch sees no NVIDIA GPU; install its driver, or take cpu")
    torch.set_num_threads(setting.threads)
    return setting


def _mlx_setting(shape: str, model: str, weights: str, keys: str) -> Setting:
    from ...engines.moshi.mlx import engine, load

    return Setting(
        shape=_known("--shape", shape, list(SHAPES)),
        model=model,
        weights=next(kind for kind in load.KINDS if kind == _known("--weights", weights or "int4", load.KINDS)),
        keys=_known("--keys", keys, list(engine.DTYPES)),
        device="mlx",
    )


def _known(option: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ModelError(f"{option} {value}: take one of {', '.join(known)}")
    return value


def _frames(context: str) -> list[int]:
    try:
        found = [int(word) for word in context.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise typer.BadParameter(f"--context {context}: write frames with commas between, as {CONTEXTS}")
    return found


def _cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def _stay_on(core: int | None) -> None:
    if core is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        operator.fail("--pin: this system cannot keep a process on a core; leave it out")
    if core not in _cores():
        operator.fail(f"--pin {core}: this machine has the cores {', '.join(map(str, _cores()))} for us")
    os.sched_setaffinity(0, {core})


@contextmanager
def _saying() -> Iterator[Any]:
    """A function that shows on a terminal what is being done."""
    with Console(stderr=True).status("") as status:
        yield status.update


# Step by step


def _measure(setting: Setting, most: int, contexts: Sequence[int], runs: int, plot: Path | None, as_json: bool) -> None:
    place = "mlx" if setting.device == "mlx" else "torch"
    engine: Any = import_module(f"voice_bridge.engines.moshi.{place}.bench")
    with _saying() as say:
        steps, bandwidth = engine.measure(setting, most, contexts, runs, say)
    room = max(step.calls for step in steps)
    if room < most:
        remedy = "--keys int8 and smaller --weights take less"
        typer.echo(f"there is memory for {room} of the {most} calls: {remedy}", err=True)
    if plot:
        series: dict[str, list[tuple[int, float]]] = {}
        for step in steps:
            series.setdefault(f"{step.context} frames", []).append((step.calls, 1000 * step.best))
        plot.write_text(as_svg(f"A step of {_title(setting)}", series, 1000 * FRAME_SECONDS), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(_report(setting, steps, bandwidth), indent=2))
    else:
        _steps_sheet(setting, steps, bandwidth).print()


def _report(setting: Setting, steps: Sequence[Step], bandwidth: float) -> dict[str, Any]:
    return {
        "setting": asdict(setting),
        "bandwidth": bandwidth,
        "steps": [
            {
                "calls": step.calls,
                "context": step.context,
                "ms": 1000 * step.best,
                "median_ms": 1000 * step.median,
                "parts_ms": {name: 1000 * seconds for name, seconds in step.parts.items()},
                "bandwidth_share": step.share(bandwidth),
            }
            for step in steps
        ],
    }


def _title(setting: Setting) -> str:
    threads = f"{setting.threads} thread{'s' * (setting.threads > 1)}"
    where = {"cuda": "a GPU", "mlx": "MLX", "cpu": threads}[setting.device]
    what = setting.model or f"random weights, shape {setting.shape}"
    return f"{what}, {setting.weights}, keys {setting.keys}, on {where}"


def _steps_sheet(setting: Setting, steps: Sequence[Step], bandwidth: float) -> Sheet:
    parts = list(steps[0].parts)
    sheet = Sheet(
        f"{_title(setting)}, which reads {bandwidth / GB:.1f} GB/s",
        ["calls", "context", "ms a step", "median", *parts, "of the bandwidth"],
    )
    for step in steps:
        shares = [f"{step.parts[name] / step.best:.0%}" for name in parts]
        times = [str(step.calls), str(step.context), _ms(step.best), _ms(step.median)]
        sheet.add([*times, *shares, f"{step.share(bandwidth):.0%}"], "" if step.best <= STEP_LIMIT else "red")
    return sheet


# Against the reference


def _compare(python: Path, setting: Setting, most: int, runs: int, as_json: bool) -> None:
    from ...engines.moshi.torch import against

    with against.Reference(python) as reference, _saying() as say:
        rows = list(against.compare(reference, setting, most, runs, say))
    if as_json:
        verdicts = [{"passed": row.passed, "reached": row.reached} for row in rows]
        typer.echo(json.dumps([asdict(row) | verdict for row, verdict in zip(rows, verdicts, strict=True)], indent=2))
    else:
        _gates_sheet(setting, rows).print()


def _gates_sheet(setting: Setting, rows: Sequence[Row]) -> Sheet:
    threads = f"{setting.threads} thread{'s' * (setting.threads > 1)}"
    sheet = Sheet(
        f"Best of all runs, the reference in its faster type; keys {setting.keys}, {threads}",
        ["", "calls", "ours", "reference", "", "at least", "aim", "verdict"],
    )
    for row in rows:
        figures = [row.what, str(row.calls), _ms(row.ours), _ms(row.theirs), _value(row, row.value)]
        gates = [_value(row, row.at_least), _value(row, row.aim), _verdict(row)]
        sheet.add([*figures, *gates], {True: "", False: "bold red", None: "dim"}[row.passed])
    return sheet


def _verdict(row: Row) -> str:
    if row.passed is None:
        return ""
    return "missed" if not row.passed else "aim reached" if row.reached else "passed"


def _value(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0%}" if row.unit == "%" else f"{value:.1f} x" if row.unit == "x" else f"{value:.2g}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f} ms"


@dataclass
class Sheet:
    """A table: for people at a terminal, Markdown elsewhere."""

    title: str
    headings: list[str]
    rows: list[tuple[list[str], str]] = field(default_factory=list)
    """Cells, and the style of the row."""

    def add(self, cells: list[str], style: str) -> None:
        self.rows.append((cells, style))

    def print(self) -> None:
        if not sys.stdout.isatty():
            lines = [self.headings, ["---"] * len(self.headings), *(cells for cells, _ in self.rows)]
            typer.echo("\n".join([self.title, "", *(f"| {' | '.join(cells)} |" for cells in lines)]))
            return
        table = Table(title=self.title, title_style="")
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for cells, style in self.rows:
            table.add_row(*cells, style=style)
        Console().print(table)
