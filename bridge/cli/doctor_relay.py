"""What `voice-bridge doctor` says of the endpoints, where conversations go on elsewhere or could."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import aiohttp

from ...engines import registry
from ...engines.relay import door
from ...engines.relay.endpoint import Endpoint
from .finding import Row, State


def check_endpoints(choice: registry.Choice, endpoints: tuple[Endpoint, ...]) -> Iterator[Row]:
    """Whether each answers, lets us in and takes calls; `choice` is the engine that is taken."""
    if not endpoints:
        return
    if choice.name != registry.RELAY:
        remedy = f"Set voice.provider = {registry.RELAY} to have them answer."
        yield _row("Endpoints", "note", f"{len(endpoints)} set and not used: {choice.name} answers", remedy)
        return
    doors = asyncio.run(_asked(endpoints))
    for one in doors:
        yield check_endpoint(one, "problem" if all(other.wrong for other in doors) else "note")


def check_endpoint(one: door.Door, wrong: State) -> Row:
    """`wrong` is what it is when somebody must correct something."""
    name, reading = one.endpoint.name, one.reading
    if one.wrong:
        remedy = "Correct it: nobody is answered there until then."
        return _row("Endpoint", wrong, f"{name} {one.trouble}", remedy)
    if one.trouble:
        remedy = "Calls go to the others meanwhile; where there are none the bridge starts, and is not ready."
        return _row("Endpoint", "note", f"{name} {one.trouble}", remedy)
    kind = "a server of Moshi's" if one.endpoint.wire == "moshi" else f"a bridge with {reading.engine}"
    return _row("Endpoint", "ok", f"{name}: {kind}, {1000 * one.way:.0f} ms there and back, {reading.free} free")


async def _asked(endpoints: tuple[Endpoint, ...]) -> list[door.Door]:
    door.log.addHandler(logging.NullHandler())  # what is wrong stands in the rows
    async with aiohttp.ClientSession() as http:
        doors = [door.Door(endpoint, http, asyncio.get_running_loop().time) for endpoint in endpoints]
        await asyncio.gather(*(one.look() for one in doors))
    return doors


def _row(name: str, state: State, text: str, remedy: str = "") -> Row:
    return Row("Elsewhere", name, state, text, remedy)
