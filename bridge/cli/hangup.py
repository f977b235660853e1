"""voice-bridge hangup: end a live call."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from . import operator


def hangup(
    call: Annotated[str, typer.Argument(help="The call's id or its end, as `voice-bridge status` shows it, or `all`.")],
    config: operator.Config = None,
    url: operator.Url = None,
    as_json: operator.Json = False,
) -> None:
    """End a live call in good order: the caller hears no apology.

    Examples:

      voice-bridge hangup 3f9a1c

      voice-bridge hangup all
    """
    settings = operator.settings(config)
    live = [one["call"] for one in operator.ask(settings, url, "GET", "/v1/calls")["calls"]]
    meant = [id for id in live if call == "all" or id.endswith(call)]
    if call != "all" and len(meant) != 1:
        operator.fail(f"{len(meant) or 'no'} live calls end in {call!r}; `voice-bridge status` lists them")
    # A call that ends by itself meanwhile is no longer there.
    paths = {id: f"/v1/calls/{quote(id, safe='')}" for id in meant}
    ended = [id for id, path in paths.items() if operator.send(settings, url, "DELETE", path)[0] < 400]
    typer.echo(json.dumps({"ended": ended}) if as_json else "\n".join(f"ended {id}" for id in ended) or "no calls")
