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
    if call != "all":
        operator.ask(settings, url, "DELETE", _path(call))
        ended = [call]
    else:
        live = [one["call"] for one in operator.ask(settings, url, "GET", "/v1/calls")["calls"]]
        # Those that end by themselves meanwhile are no longer there.
        ended = [id for id in live if operator.send(settings, url, "DELETE", _path(id))[0] < 400]
    typer.echo(json.dumps({"ended": ended}) if as_json else "\n".join(f"ended {id}" for id in ended) or "no calls")


def _path(call: str) -> str:
    return f"/v1/calls/{quote(call, safe='')}"
