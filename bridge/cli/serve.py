"""voice-bridge serve: run the bridge."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from . import operator

if TYPE_CHECKING:
    from ..daemon import Daemon


def serve(
    config: Annotated[Path | None, typer.Option(help="Configuration file; config.toml here if there is one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    engine: Annotated[str | None, typer.Option(help="What answers: auto, moshi, moshi-cloud, cascade or echo.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or repository.")] = None,
) -> None:
    """Run the bridge until Ctrl-C; the first one lets live calls finish, the second ends them.

    Examples:

      voice-bridge serve

      voice-bridge serve --port 9000 --engine cascade

      voice-bridge serve --config /etc/voice-bridge/config.toml
    """
    from ...engines.registry import NoEngine
    from .. import daemon
    from ..observe import logs

    overrides = {"server.host": host, "server.port": port, "voice.provider": engine, "voice.model": model}
    settings = operator.settings(config, overrides)
    try:
        logs.configure(settings.log.format, settings.log.level)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(daemon.serve(settings, _announce, _show if sys.stderr.isatty() else None))
    except (NoEngine, daemon.StartFailed) as error:
        logs.flush()  # what was logged before comes before
        operator.fail(str(error), operator.MISCONFIGURED if isinstance(error, NoEngine) else 1)
    except asyncio.CancelledError:
        typer.echo("voice-bridge: stopped before it was ready", err=True)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: the same calls for two thirds of the processor's time."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop


def _show(text: str) -> None:
    """Rewrite the line at the bottom of a terminal; what is logged meanwhile goes over it."""
    width = shutil.get_terminal_size().columns
    print(f"\x1b[2K{text[: width - 1]}", end="\r", file=sys.stderr, flush=True)


def _announce(daemon: Daemon) -> None:
    """Tell a person at a terminal how to try it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return
    console.print(
        f"\n[bold]voice-bridge[/] answers at [bold]{daemon.url}[/] with the engine [bold]{daemon.engine.name}[/]"
    )
    if daemon.engine.trouble:
        console.print(f"[yellow]It takes no call:[/] {escape(daemon.engine.trouble)}")
    console.print(f"Talk to it in a browser, and watch the calls:       [bold]{daemon.url}/[/]")
    console.print(
        f"Talk to it from another terminal, with headphones:  [bold].venv/bin/voice-bridge dial --mic {daemon.url}[/]"
    )
    console.print(
        f"Without a microphone, a test call and a report:     [bold].venv/bin/voice-bridge dial {daemon.url}[/]"
    )
    console.print(f"On a telephone: point a Twilio number's webhook at {daemon.base}/twilio/voice\n")
