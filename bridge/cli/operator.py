"""What the operator's verbs share: one request to the bridge that runs here."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .. import auth
from ..config import ConfigError, Settings, load

TIMEOUT = 15.0  # seconds; Twilio's answer to a placed call is in it
TOKEN_SECONDS = 60

Config = Annotated[Path | None, typer.Option(help="Configuration file; config.toml here if there is one.")]
Url = Annotated[str | None, typer.Option(help="Address of the bridge; from the configuration if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str) -> NoReturn:
    typer.echo(f"voice-bridge: {message}", err=True)
    raise typer.Exit(1)


def settings(config: Path | None) -> Settings:
    try:
        return load(config)
    except ConfigError as error:
        fail(str(error))


def ask(given: Settings, url: str | None, method: str, path: str, body: object = None) -> Any:
    """The bridge's answer; ends the program with one line when there is none."""
    base = url or _address(given)
    headers = {"Content-Type": "application/json"}
    secret = given.auth.secret.get_secret_value()
    if secret:
        token = auth.mint(secret, given.auth.audience, "voice-bridge-cli", ("operator",), TOKEN_SECONDS)
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base.rstrip("/") + path, data=data, headers=headers, method=method)
    try:
        # No proxy: the bridge is addressed directly, and a token goes along.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        with error:
            fail(_said(error.read(), error.code))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        fail(f"no bridge answers at {base} ({reason}); start one with `voice-bridge serve` or name it with --url")
    return json.loads(answer) if answer else None


def _address(given: Settings) -> str:
    host, port = given.server.admin_address or (given.server.host, given.server.port)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _said(answer: bytes, status: int) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the bridge answered with status {status}"
