"""voice-bridge hangup: end a live call."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from . import operator


def hangup(
    call: Annotated[str, typer.Argument(help="The call's id, as `voice-bridge status` shows it, or `all`.")],
    config: operator.Config = None,
    url: operator.Url = None,
    as_json: operator.Json = False,
) -> None:
    """End a live call in good order: the caller hears no apology.

    Examples:

      voice-bridge hangup CA0123456789abcdef0123456789abcdef

      voice-bridge hangup all
    """
    settings = operator.settings(config)
    calls = [call]
    if call == "all":
        calls = [live["call"] for live in operator.ask(settings, url, "GET", "/v1/calls")["calls"]]
    for id in calls:
        operator.ask(settings, url, "DELETE", f"/v1/calls/{quote(id, safe='')}")
    typer.echo(json.dumps({"ended": calls}) if as_json else "\n".join(f"ended {id}" for id in calls) or "no calls")
