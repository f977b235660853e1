"""`voice-bridge download`: bring a model here, or look at one that is here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from ...engines.base import FRAME, RATE
from ...engines.moshi.config import ModelError
from ...engines.moshi.download import Report, fetch, identify, quiet
from . import operator

if TYPE_CHECKING:
    from ...engines.moshi.checkpoint import Checkpoint, Framework, Weights

Model = Annotated[str, typer.Argument(help="A repository on the Hugging Face hub: owner/name or owner/name@revision.")]
To = Annotated[Path | None, typer.Option(file_okay=False, help="Put it into this folder, not into the hub's cache.")]
Check = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, metavar="FOLDER", help="Look at a model that is here.")
]
Values = Annotated[bool, typer.Option("--values", help="Read every number too, and see that it is finite.")]


def download(
    model: Model = "",
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit; main if not given.")] = None,
    to: To = None,
    check: Check = None,
    values: Values = False,
    as_json: operator.Json = False,
) -> None:
    """Bring a model here from the Hugging Face hub, and verify it; or see what a folder holds.

    What broke off goes on where it was. A model that needs consent or is private
    takes a token: set HF_TOKEN. Without --to it goes into the cache that all
    programs share (HF_HOME says where), and the bridge finds it there by its name.

    \b
    Examples:
      voice-bridge download kyutai/moshika-pytorch-bf16
      voice-bridge download kyutai/moshiko-mlx-q8 --to models/moshiko
      voice-bridge download --check models/moshiko --values
    """
    if bool(model) == bool(check):
        raise typer.BadParameter("name a repository, or a folder with --check")
    try:
        folder, named = (check, str(check.resolve())) if check else _fetched(model, revision, to, as_json)
        facts = {"model": named, "folder": str(folder.resolve()), **_facts(folder, values, as_json)}
    except ModelError as error:
        operator.fail(str(error))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(
        f"{facts['kind']}, {facts['parameters']:,} parameters, {facts['form']}, {filesize.decimal(facts['bytes'])},"
        f" context of {facts['context_frames']} frames ({facts['context_seconds']:.0f} s)"
    )
    typer.echo(f'It lies in {facts["folder"]}. To talk with it:\n\n[voice]\nmodel = "{named}"')


def _fetched(model: str, revision: str | None, to: Path | None, silent: bool) -> tuple[Path, str]:
    """Where the model is now, and what to call it in the configuration."""
    with _shown(silent) as report:
        folder = fetch(model, revision, to, report)
    repo, revision = identify(model, revision)
    return folder, str(folder.resolve()) if to else f"{repo}@{revision}" if revision else repo


def _facts(folder: Path, values: bool, silent: bool) -> dict[str, Any]:
    """What a model is; raises `ModelError` if one of its tensors is not there, or not as it should be."""
    if find_spec("safetensors") is None:
        raise ModelError("models are read with safetensors, which is not installed: pip install 'voice-bridge[torch]'")
    from ...engines.moshi.checkpoint import Checkpoint
    from ...engines.moshi.names import lm_tensors

    checkpoint = Checkpoint.open(folder)
    weights = _weights(checkpoint)
    if values:
        _check_values(weights, silent)
    lm = checkpoint.config.lm
    return {
        "kind": checkpoint.config.kind,
        "parameters": sum(math.prod(shape) for shape in lm_tensors(lm).values()),
        "form": weights["language model"].form,
        "bytes": sum(part.size(name) for part in weights.values() for name in part),
        "context_frames": lm.temporal.context,
        "context_seconds": lm.temporal.context * FRAME / RATE,
    }


def _weights(checkpoint: Checkpoint) -> dict[str, Weights]:
    framework: Framework = "pt" if find_spec("torch") else "mlx"
    return {"language model": checkpoint.lm(framework), "codec": checkpoint.mimi(framework)}


def _check_values(weights: dict[str, Weights], silent: bool) -> None:
    with _shown(silent) as report:
        for what, part in weights.items():
            done, total = 0, sum(map(part.size, part))
            for name in part:
                # Codes are finite by themselves. What is infinite or no number is not zero less itself.
                for numbers in vars(part(name)).values():
                    if "float" in str(getattr(numbers, "dtype", "")) and not bool((numbers - numbers == 0).all()):
                        raise ModelError(f"{name} of the {what} holds numbers that are not finite: download it again")
                done += part.size(name)
                report(f"reading the {what}", done, total)


@contextmanager
def _shown(silent: bool) -> Iterator[Report]:
    """Progress on the terminal: a line for each file."""
    if silent:
        yield quiet
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    lines: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in lines:
            progress.start()
            lines[what] = progress.add_task(what, total=total)
        progress.update(lines[what], completed=done)

    try:
        yield report
    finally:
        if lines:
            progress.stop()
