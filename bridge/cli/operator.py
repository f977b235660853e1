"""What the operator's verbs share: one request to the bridge that runs here."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .. import auth
from ..config import ConfigError, Settings, load

TIMEOUT = 15.0  # seconds; Twilio's answer to a placed call is in it
TOKEN_SECONDS = 60
MISCONFIGURED = 2  # the exit status of a wrong setting

Config = Annotated[Path | None, typer.Option(help="Configuration file; config.toml here if there is one.")]
Url = Annotated[str | None, typer.Option(help="Address of the bridge; from the configuration if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str, status: int = 1) -> NoReturn:
    """End the program with one line; `status` is MISCONFIGURED when trying again will not mend it."""
    typer.echo(f"voice-bridge: {' '.join(message.split())}", err=True)
    raise typer.Exit(status)


def settings(config: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    try:
        return load(config, overrides)
    except ConfigError as error:
        fail(str(error), MISCONFIGURED)


def ask(given: Settings, url: str | None, method: str, path: str, body: object = None) -> Any:
    """The bridge's answer; ends the program with one line when there is none, or when it refuses."""
    status, answer = send(given, url, method, path, body)
    if status == 401 and given.auth.takes_tokens and not given.auth.secrets:
        fail("these verbs make their own token, which needs auth.secret; or set server.admin, which needs no token")
    if status >= 400:
        fail(answer["error"] if isinstance(answer, dict) and "error" in answer else f"the answer was HTTP {status}")
    return answer


def send(given: Settings, url: str | None, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The status and the JSON of what the bridge answers; ends the program with one line when none does."""
    base = url or _address(given)
    headers = {"Content-Type": "application/json"}
    if given.auth.secrets:
        token = auth.mint(given.auth.secrets[0], given.auth.audience, "voice-bridge-cli", ("operator",), TOKEN_SECONDS)
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(base.rstrip("/") + path, data=data, headers=headers, method=method)
        # No proxy: the bridge is addressed directly, and a token goes along.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Refusals)
        with opener.open(request, timeout=TIMEOUT) as response:
            answer = response.read()
            return response.status, json.loads(answer) if answer else None
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        fail(f"no bridge answers at {base} ({reason}); start one with `voice-bridge serve` or name it with --url")


class _Refusals(urllib.request.HTTPErrorProcessor):
    """Answers that refuse are answers too."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


def _address(given: Settings) -> str:
    host, port = given.server.admin_address or (given.server.host, given.server.port)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
