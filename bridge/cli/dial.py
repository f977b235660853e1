"""`voice-bridge dial`: call a bridge with the built-in phone."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from ...codecs import wav
from ..device import NoSound
from ..phone import Call, Clock, Network, Phone, tone
from ..phone.live import Panel
from ..phone.picture import as_svg
from ..phone.protocol import RATE
from ..phone.report import Result, as_json, as_rows
from ..phone.sound import Recording, Source, recording
from .dial_mic import Microphone

WEBHOOK = "/twilio/voice"
TONE_SECONDS = 15.0  # long enough for a call to settle, short enough to wait for
AFTER_WAV = 2.0  # seconds for the answer to what was said last
REFRESH = 0.1  # seconds between two live lines

WavFile = Annotated[Path | None, typer.Option("--wav", exists=True, dir_okay=False, help="Say this recording.")]
Seconds = Annotated[
    float | None, typer.Option(min=0.1, help="Hang up after so long: 15, or with --wav its length and 2 more.")
]
Stalls = Annotated[
    list[str] | None, typer.Option(metavar="AT:FOR", help="Let nothing pass, in seconds. Can be repeated.")
]
AuthToken = Annotated[
    str, typer.Option(envvar="TWILIO_AUTH_TOKEN", show_envvar=True, help="Sign requests as Twilio does.")
]
PublicUrl = Annotated[str, typer.Option(help="The bridge's configured public URL, for which requests are signed.")]


@dataclass(frozen=True)
class Line:
    """What the callers say and hear, and for how long."""

    mouth: Source
    seconds: float | None
    microphone: Microphone | None = None


def dial(
    url: Annotated[str, typer.Argument(help="The bridge, or its voice webhook.")] = "http://127.0.0.1:8080",
    wav_file: WavFile = None,
    mic: Annotated[bool, typer.Option("--mic", help="Talk: the microphone and the speaker.")] = False,
    seconds: Seconds = None,
    record: Annotated[Path | None, typer.Option(help="Write a stereo WAV: caller left, heard right.")] = None,
    calls: Annotated[int, typer.Option(min=1, help="So many calls at once.")] = 1,
    digits: Annotated[str, typer.Option(help="Keys to press after a second; w waits half a second.")] = "",
    jitter: Annotated[float, typer.Option(metavar="MS", help="Delay each chunk by up to this.")] = 0.0,
    loss: Annotated[float, typer.Option(metavar="PERCENT", help="Lose this share of the chunks.")] = 0.0,
    stall: Stalls = None,
    caller: Annotated[str, typer.Option(help="Who calls; several calls count up from it.")] = "+15550100001",
    number: Annotated[str, typer.Option(help="Who is called.")] = "+15550100000",
    as_data: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw both sides into this SVG file.")] = None,
    get: Annotated[bool, typer.Option("--get", help="Ask the webhook by GET.")] = False,
    auth_token: AuthToken = "",
    public_url: PublicUrl = "",
) -> None:
    """Call a bridge with the built-in phone, a strict double of Twilio. No account is needed.

    It obeys the TwiML, talks and listens 20 ms at a time, and reports what was
    heard: time to first audio, mouth to ear, underruns, gaps, and what Twilio
    would have complained about.

    \b
    Examples:
      voice-bridge dial                          a test signal, to this machine
      voice-bridge dial --mic                    talk with it
      voice-bridge dial --wav hello.wav --record both.wav
      voice-bridge dial --picture call.svg --jitter 60 --stall 5:1
      voice-bridge dial --calls 100 --seconds 30 --json
      voice-bridge dial https://bridge.example.com
    """
    if mic and (calls > 1 or wav_file):
        raise typer.BadParameter("--mic is one call without --wav; leave the others out")
    _check_folders(record, picture)
    try:
        network = Network(jitter, loss / 100, [_stall(text) for text in stall or []])
        line = _line(wav_file, mic, seconds)
        phones = _phones(
            _webhook(url),
            [_count_up(caller, n) for n in range(calls)],
            network,
            line,
            number=number,
            digits=digits,
            method="GET" if get else "POST",
            auth_token=auth_token,
            public_url=public_url,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with ExitStack() as stack:
        if line.microphone:
            stack.enter_context(line.microphone)
        finished = _run(_place(phones, line.seconds, live=not as_data and sys.stdout.isatty()))
    _report([Result.of(call) for call in finished], as_data=as_data, record=record, picture=picture)


def _phones(url: str, callers: list[str], network: Network, line: Line, **options: Any) -> list[Phone]:
    """A phone for every caller, each on a bad road of its own, all on one clock."""
    clock = Clock()
    ear = line.microphone.ear if line.microphone else None
    return [
        Phone(
            url,
            caller=caller,
            network=replace(network, seed=seed),
            sound=line.mouth,
            ear=ear,
            clock=clock,
            **options,
        )
        for seed, caller in enumerate(callers)
    ]


def _report(results: list[Result], *, as_data: bool, record: Path | None, picture: Path | None) -> None:
    """Print what came of it, write the first call's files, and exit with 1 if a call went wrong."""
    first = results[0]
    if record:
        _write(record, first.call)
    if picture:
        picture.write_text(as_svg(first), encoding="utf-8")
    if as_data:
        typer.echo(json.dumps(as_json(results), indent=2))
    elif any(result.call.steps for result in results):
        console = Console(highlight=False, soft_wrap=True)
        for label, text in as_rows(results):
            console.print(f"[bold]{escape(label):<13}[/bold] {escape(text)}")
    problem = next((result.call.problem for result in results if result.call.problem), "")
    if problem:
        typer.echo(f"voice-bridge dial: {problem}", err=True)
        raise typer.Exit(1)


async def _place(phones: list[Phone], seconds: float | None, *, live: bool) -> list[Call]:
    """All calls at once. Ctrl-C hangs up, a second one gives up."""
    loop = asyncio.get_running_loop()

    def hang_up() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        for phone in phones:
            phone.hang_up()

    async with AsyncExitStack() as stack:
        for phone in phones:
            await stack.enter_async_context(phone)
        with suppress(NotImplementedError):  # Windows has no signal handlers in its loop; there Ctrl-C gives up
            loop.add_signal_handler(signal.SIGINT, hang_up)
        if live:
            shown = asyncio.create_task(_show(phones))
            stack.callback(shown.cancel)
        return list(await asyncio.gather(*(phone.call(seconds) for phone in phones)))


async def _show(phones: list[Phone]) -> None:
    panel = Panel(phones)
    with Live(panel, transient=True, auto_refresh=False) as live:
        while True:
            live.update(panel, refresh=True)
            await asyncio.sleep(REFRESH)


def _run(calls: Any) -> list[Call]:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        result: list[Call] = asyncio.run(calls)
    else:
        result = uvloop.run(calls)
    return result


def _line(wav_file: Path | None, mic: bool, seconds: float | None) -> Line:
    if mic:
        microphone = _microphone()
        return Line(microphone.mouth, seconds, microphone)
    if wav_file:
        said = recording(wav_file)
        return Line(said, seconds or said.seconds + AFTER_WAV)
    signal_tone: Recording = tone()
    return Line(signal_tone, seconds or TONE_SECONDS)


def _microphone() -> Microphone:
    try:
        return Microphone()
    except NoSound as error:
        raise ValueError(f"--mic: {error}") from error


def _check_folders(*files: Path | None) -> None:
    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"{file} cannot be written: there is no folder {file.parent}")


def _webhook(url: str) -> str:
    """The address to ask: a bridge's own webhook unless a path is given."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + WEBHOOK


def _stall(text: str) -> tuple[float, float]:
    at, _, length = text.partition(":")
    try:
        return float(at), float(length)
    except ValueError:
        raise ValueError(f"--stall {text!r} is not AT:FOR in seconds, like 5:1") from None


def _count_up(caller: str, by: int) -> str:
    """Another caller's number, so that limits for one caller do not stop a crowd."""
    digits = caller.removeprefix("+")
    return f"+{int(digits) + by:0{len(digits)}d}" if by and digits.isdecimal() else caller


def _write(path: Path, call: Call) -> None:
    heard = call.heard
    spoken = np.zeros_like(heard)
    spoken[: len(call.spoken)] = call.spoken[: len(heard)]
    with wav.Writer(path, RATE, 2) as file:
        file.write(np.stack([spoken, heard], axis=1))
