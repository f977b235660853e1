"""voice-bridge call: place a call through Twilio."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from . import operator

DETECTION = {"off": "", "on": "Enable", "beep": "DetectMessageEnd"}


def call(
    to: Annotated[str, typer.Argument(help="The number to call, with its country code.")],
    from_: Annotated[str, typer.Option("--from", help="Our number; twilio.caller_id if not given.")] = "",
    machine: Annotated[
        Literal["off", "on", "beep"],
        typer.Option(help="Detect answering machines: on says so at once, beep waits for the end of the greeting."),
    ] = "off",
    digits: Annotated[str, typer.Option(help="Keys to press after the answer; w waits half a second.")] = "",
    config: operator.Config = None,
    url: operator.Url = None,
    as_json: operator.Json = False,
) -> None:
    """Call a telephone and let the bridge's engine talk. The bridge must run and be reachable for Twilio.

    Examples:

      voice-bridge call +15551234567

      voice-bridge call +15551234567 --from +15557654321 --machine on
    """
    settings = operator.settings(config)
    body = {"to": to, "from": from_, "machine_detection": DETECTION[machine], "send_digits": digits}
    answer = operator.ask(settings, url, "POST", "/v1/calls", body)
    typer.echo(json.dumps(answer) if as_json else f"calling {to}: {answer['call']}")
