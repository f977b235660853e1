"""voice-bridge token: make a client token."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from .. import auth
from . import operator

HOURS = 24.0


def token(
    scope: Annotated[list[str] | None, typer.Option(help="talk or operator; may be given twice.")] = None,
    subject: Annotated[str, typer.Option(help="Whom the token is for; shown in logs.")] = "client",
    hours: Annotated[float, typer.Option(help="How long it is valid.", min=0.001)] = HOURS,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Print a token for clients and operators, signed with auth.secret (the first one, where a file holds several).

    Examples:

      voice-bridge token

      voice-bridge token --scope operator --hours 1

      curl -H "Authorization: Bearer $(voice-bridge token --scope operator)" localhost:8080/v1/calls
    """
    settings = operator.settings(config)
    if not settings.auth.secrets and settings.auth.takes_tokens:
        known = "auth.jwks_url" if settings.auth.jwks_url else "auth.public_key_file"
        operator.fail(
            f"tokens for this bridge come from elsewhere: {known} only checks them;"
            " with auth.secret beside it this verb makes some"
        )
    if not settings.auth.secrets:
        operator.fail(
            "auth.secret is not set: put 32 random characters or more into VOICE_BRIDGE_AUTH__SECRET or the file"
            " that auth.secret_file names (`openssl rand -hex 32` makes some)"
        )
    scopes = tuple(known for known in auth.SCOPES if known in (scope or ["talk"]))
    unknown = set(scope or []) - set(auth.SCOPES)
    if unknown:
        operator.fail(f"unknown scope {', '.join(sorted(unknown))}; there are {' and '.join(auth.SCOPES)}")
    made = auth.mint(settings.auth.secrets[0], settings.auth.audience, subject, scopes, hours * 3600)
    expires = int(time.time() + hours * 3600)
    typer.echo(json.dumps({"token": made, "scopes": scopes, "expires": expires}) if as_json else made)
