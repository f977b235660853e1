"""The command line: one file a verb."""

from __future__ import annotations

import typer

from .bench import bench
from .call import call
from .dial import dial
from .doctor import doctor
from .download import download
from .hangup import hangup
from .infer import infer
from .memory import memory
from .number import number
from .serve import serve
from .status import status
from .talk import talk
from .token import token

app = typer.Typer(
    name="voice-bridge",
    help="Answers the telephone with a speech-to-speech model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for verb in (serve, talk, dial, call, doctor, download, status, hangup, number, token, infer, bench):
    app.command()(verb)


app.add_typer(memory, name="memory")


def main() -> None:
    app()
