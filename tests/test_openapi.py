"""The operator's API is what it says of itself: asked by schemathesis, on a bridge that has calls.

`EXAMPLES=100 pytest tests/test_openapi.py` asks for longer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Bridge
from tests.twilio_rest import ACCOUNT_SID, AUTH_TOKEN, TwilioRest
from voice_bridge.bridge import auth, web
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone import Phone

SECRET = "not-a-real-secret-but-long-enough"
OURS = "+15550100000"
THEIRS = ("+15550100001", "+15550100002")
EXAMPLES = int(os.environ.get("EXAMPLES", "3"))  # of each request, beyond those at the edges of what is allowed
LIMIT = 100.0 + EXAMPLES  # seconds; it takes a few
CONFIG = f"""
hooks = "{Path(__file__).parent / "live_calls.py"}"
continue-on-failure = true
[headers]
Authorization = "Bearer ${{TOKEN}}"
[generation]
deterministic = true
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404"]
ensure_resource_availability.enabled = false  # a call that was placed is there once it is answered
[[operations]]
include-operation-id = "place_call"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400"]  # Twilio knows what numbers there are
"""


@asynccontextmanager
async def callers(daemon: Daemon) -> AsyncIterator[None]:
    """Two who dial again whenever their call is over."""

    async def dial(caller: str) -> None:
        while True:
            async with Phone(daemon.url + "/twilio/voice", auth_token=AUTH_TOKEN, caller=caller, number=OURS) as phone:
                await phone.call()

    tasks = [asyncio.create_task(dial(caller)) for caller in THEIRS]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


async def schemathesis(folder: Path, url: str, examples: int) -> tuple[int | None, str]:
    """The exit status of a whole run, and what it printed."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = ("--no-color", "--config-file", config, "run", f"{url}/v1/openapi.json", "--max-examples", examples)
    token = auth.mint(SECRET, "voice-bridge", "ann", ("operator",), LIMIT)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", *map(str, command),
        cwd=folder, env=os.environ | {"TOKEN": token, "BRIDGE": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        printed, _ = await process.communicate()
    return process.returncode, printed.decode()


@pytest.mark.skipif(not find_spec("schemathesis"), reason="schemathesis is not installed")
async def test_the_operators_api_is_as_it_is_described(bridge: Bridge, tmp_path: Path) -> None:
    async with TwilioRest() as twilio:
        twilio.add_number(OURS)
        daemon = await bridge(
            twilio__account_sid=ACCOUNT_SID, twilio__auth_token=AUTH_TOKEN, twilio__api_url=twilio.url,
            twilio__caller_id=OURS, auth__secret=SECRET,
        )  # fmt: skip
        async with callers(daemon):
            status, printed = await schemathesis(tmp_path, daemon.url, EXAMPLES)
    assert status == 0, printed


async def test_the_description_is_there_for_everybody_and_says_what_key_is_needed(
    bridge: Bridge, http: aiohttp.ClientSession, unused_port: int
) -> None:
    daemon = await bridge(auth__secret=SECRET, server__admin=f"127.0.0.1:{unused_port}")
    described = await document(http, daemon.url)
    assert described["openapi"] == "3.1.0"
    assert described["paths"]["/v1/calls"]["get"]["security"] == [{"token": []}]
    assert "security" not in described["paths"]["/healthz"]["get"]
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    on_the_admin_address = await document(http, f"http://127.0.0.1:{unused_port}")
    assert "security" not in on_the_admin_address["paths"]["/v1/calls"]["get"]
    assert on_the_admin_address["paths"].keys() == described["paths"].keys()


async def test_the_description_names_all_that_operators_may_ask(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    described = (await document(http, daemon.url))["paths"]
    served = web.main_app(daemon.board, None, daemon.url).router.resources()
    others = {"/v1/stream", "/v1/capacity", "/v1/watch"}  # of clients; and no HTTP
    asked = {one.canonical for one in served if one.canonical.startswith("/v1/")} - others
    assert described.keys() == asked | {"/healthz", "/readyz", "/metrics"}


async def document(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(f"{url}/v1/openapi.json") as answer:
        assert answer.content_type == "application/json"
        return await answer.json()
