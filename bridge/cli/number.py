"""voice-bridge number: point a Twilio number at this bridge."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from ..config import Settings
from ..telephony.rest import Number, Rest, TelephonyError
from . import operator


def number(
    which: Annotated[str | None, typer.Argument(help="The number to point here; without it all are listed.")] = None,
    fallback_url: Annotated[str, typer.Option(help="TwiML that Twilio takes when this bridge is down.")] = "",
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """List the Twilio account's numbers, or make one of them call this bridge.

    Examples:

      voice-bridge number

      voice-bridge number +15551234567
    """
    settings = operator.settings(config)
    if not settings.twilio.account_sid:
        operator.fail("this needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
    if which and not settings.server.public_url:
        operator.fail("server.public_url is not set: it is the https address under which Twilio reaches this bridge")
    try:
        if which:
            before = asyncio.run(_point(settings, which, fallback_url))
            now = settings.server.public_url + "/twilio/voice"
            told = f"{which} calls {now}" + (f" (before: {before})" if before else "")
            typer.echo(json.dumps({"number": which, "voice_url": now, "before": before}) if as_json else told)
        else:
            numbers = asyncio.run(_list(settings))
            if as_json:
                typer.echo(json.dumps([{"number": n.phone_number, "voice_url": n.voice_url} for n in numbers]))
            else:
                typer.echo("\n".join(f"{n.phone_number}  {n.voice_url or '-'}" for n in numbers) or "no numbers")
    except TelephonyError as error:
        operator.fail(str(error))


async def _point(settings: Settings, which: str, fallback_url: str) -> str:
    base = settings.server.public_url
    rest = _rest(settings)
    try:
        return await rest.point(which, base + "/twilio/voice", base + "/twilio/status", fallback_url)
    finally:
        await rest.close()


async def _list(settings: Settings) -> list[Number]:
    rest = _rest(settings)
    try:
        return await rest.numbers()
    finally:
        await rest.close()


def _rest(settings: Settings) -> Rest:
    given = settings.twilio
    return Rest(given.account_sid, given.auth_token.get_secret_value(), given.api_url)
