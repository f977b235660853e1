"""`voice-bridge talk`: talk with a bridge from a terminal."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from ..config.load import TOKEN_VARIABLE
from ..device import NoSound
from ..talk.address import Unreachable, address, read_token
from ..talk.plain import Plain
from ..talk.session import Plan

GOOD = {"caller", "agent", "digit", "operator", "drain", "length", "idle"}  # ends that are nobody's fault
LOCAL = "127.0.0.1:8080"

Theme: TypeAlias = Literal["auto", "dark", "light"]

WavFile = Annotated[Path | None, typer.Option("--wav", exists=True, dir_okay=False, help="Say this recording.")]
Record = Annotated[Path | None, typer.Option(help="Write a stereo WAV: you left, what you heard right.")]
Text = Annotated[bool, typer.Option("--text", help="Only type: no microphone, no loudspeaker.")]
Token = Annotated[str, typer.Option(envvar=TOKEN_VARIABLE, show_envvar=True, help="What the bridge wants to see.")]
TokenFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A file with the token in it.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="Hang up after so long.")]
Loudspeaker = Annotated[
    bool, typer.Option("--speaker", help="Without headphones: the microphone is shut while the agent talks.")
]


def talk(
    url: Annotated[str, typer.Argument(help="The bridge.")] = LOCAL,
    wav_file: WavFile = None,
    record: Record = None,
    text: Text = False,
    seconds: Seconds = None,
    speaker: Loudspeaker = False,
    persona: Annotated[str | None, typer.Option(help="Who the agent is, instead of calls.persona.")] = None,
    token: Token = "",
    token_file: TokenFile = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a screen, as into a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that the bridge tells as JSON lines.")] = False,
    theme: Annotated[Theme, typer.Option(help="Colours; auto asks the terminal.")] = "auto",
) -> None:
    """Talk with a bridge: microphone, loudspeaker, and both sides' words while they are said.

    Wear headphones, or say --speaker. A line that you type is said by the agent;
    /inject lets it know something, /mute, /speaker, /press and /quit do as they
    say. Without a terminal it prints plain lines, reads lines, and ends when the
    answer to the last of them, or to the recording, has been heard.

    \b
    Examples:
      voice-bridge talk                          with the bridge on this machine
      voice-bridge talk https://bridge.example.com --token-file token.txt
      voice-bridge talk --speaker                without headphones
      voice-bridge talk --wav question.wav --record both.wav
      echo "Good day." | voice-bridge talk --text
      voice-bridge talk --wav question.wav --json | jq .text
    """
    if text and wav_file:
        raise typer.BadParameter("--text and --wav exclude each other; a recording is listened to without --text")
    if record and not record.absolute().parent.is_dir():
        raise typer.BadParameter(f"{record} cannot be written: there is no folder {record.parent}")
    try:
        where = address(url, read_token(token_file) if token_file else token)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    plan = Plan(where, wav_file, record, text, seconds, speaker, persona)
    if where.shows_token:
        typer.echo(f"voice-bridge talk: the token goes to {where.host} unencrypted; wss:// hides it", err=True)
    try:
        ending = asyncio.run(_run(plan, plain=plain, as_json=as_json, theme=theme))
    except NoSound as error:
        _fail(f"{error}; or talk by --wav FILE or --text")
    except (Unreachable, OSError, ValueError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if ending not in GOOD:
        _fail(f"the bridge ended the talk: {ending}")


async def _run(plan: Plan, *, plain: bool, as_json: bool, theme: Theme) -> str:
    if plain or as_json or not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        return await Plain(plan, as_json=as_json).run()
    if not find_spec("textual"):
        typer.echo("voice-bridge talk: plain lines; for the screen: pip install 'voice-bridge[talk]'", err=True)
        return await Plain(plan, as_json=False).run()
    from ..talk.screen import Screen

    return await Screen(plan, theme).run_talk()


def _fail(why: str) -> None:
    typer.echo(f"voice-bridge talk: {why}", err=True)
    raise typer.Exit(1)
