"""The command line, against bridges that run; `serve` as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from typer.testing import CliRunner, Result

from tests.conftest import Bridge, Dial, LogLines
from tests.cores import HERE
from tests.twilio_rest import ACCOUNT_SID, AUTH_TOKEN, TwilioRest, refusal
from voice_bridge.bridge import daemon as daemons
from voice_bridge.bridge.cli import app
from voice_bridge.bridge.cli.serve import _show as show
from voice_bridge.bridge.config import load
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone import Phone
from voice_bridge.engines.host import HostEngine

SECRET = "not-a-real-secret-but-long-enough"
OURS = "+15550100000"
THEIRS = "+15550100001"
PUBLIC = "https://bridge.example.com"
VERBS = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
SOON = 20.0  # seconds that no verb should need, even on a busy machine
VOICE_BRIDGE = Path(sys.executable).with_name("voice-bridge")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("VOICE_BRIDGE_", "TWILIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("VOICE_BRIDGE_VOICE__PROVIDER", "echo")  # also on a machine on which auto takes Moshi
    monkeypatch.setenv("VOICE_BRIDGE_MEMORY__ENABLED", "off")  # where a test wants it, it says so


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioRest]:
    async with TwilioRest() as server:
        server.add_number(OURS, voice_url="https://before.example/voice")
        yield server


class Cli:
    """Runs verbs in a thread, because the bridge that they ask runs on this loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def configure(self, **sections: dict[str, Any]) -> Path:
        """A file with these settings, and nothing else."""
        lines = []
        for name, settings in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
        path = self._folder / "cli.toml"
        path.write_text("\n".join(lines))
        return path

    def run(self, *words: str, **sections: dict[str, Any]) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.configure(**sections))])

    async def __call__(self, *words: str, **sections: dict[str, Any]) -> Result:
        return await asyncio.to_thread(self.run, *words, **sections)


@pytest.fixture
def cli(tmp_path: Path, log_lines: LogLines) -> Cli:
    # With log_lines, so that what the bridge logs does not get into what a verb prints.
    return Cli(tmp_path)


def at(daemon: Daemon) -> dict[str, Any]:
    return {"port": daemon.port}


def one_line(result: Result, status: int = 1) -> str:
    """What a verb that failed has said."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("voice-bridge: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# Help


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_examples(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:")
    assert f"voice-bridge {verb}" in examples


def test_without_a_verb_there_is_help() -> None:
    result = CliRunner().invoke(app, [])
    for verb in VERBS:
        assert f" {verb} " in result.output


@pytest.mark.parametrize("verb", ["status", "hangup", "number", "token", "call"])
def test_each_verb_that_prints_data_also_prints_json(verb: str) -> None:
    assert "--json" in CliRunner().invoke(app, [verb, "--help"]).output


@pytest.mark.parametrize("verb", [["status"], ["hangup", "CA1"], ["number"], ["token"], ["call", THEIRS], ["serve"]])
def test_a_wrong_configuration_is_one_line(cli: Cli, verb: list[str]) -> None:
    assert "server.prot; did you mean server.port?" in one_line(cli.run(*verb, server={"prot": 1}), status=2)


# status


async def test_status_shows_the_bridge_and_its_calls(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge(slots=3)
    idle = await cli("status", server=at(daemon))
    assert "engine echo, ready; slots: 0 in use, 0 reserved, 3 offered" in idle.stdout
    assert "no calls" in idle.stdout
    await dial(daemon)
    [call] = daemon.board.calls
    busy = await cli("status", server=at(daemon))
    assert "1 in use" in busy.stdout
    assert [word in busy.stdout for word in (f" {call[-6:]} ", THEIRS, OURS, "listening")] == [True] * 4


async def test_status_speaks_json(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge(slots=3)
    await dial(daemon)
    result = await cli("status", "--json", server=at(daemon))
    state = json.loads(result.stdout)
    assert [call["call"] for call in state["calls"]] == list(daemon.board.calls)
    assert state["slots"] == {"offered": 3, "reserved": 0, "used": 1}
    assert (state["trouble"], state["dropped_frames"]) == ("", 0)


async def test_status_says_why_no_call_can_come_in(bridge: Bridge, cli: Cli) -> None:
    daemon = await bridge(engine=HostEngine("slow", f"{HERE}:slowing", 2, remedy="take less", holds=0.5))
    shown = (await cli("status", server=at(daemon))).stdout
    assert "0 offered; a step of all of them: 128.0 ms" in shown
    assert "no call can come in: a step takes 128 ms and may take 64 of the 80 that a frame lasts: take less" in shown


async def test_status_shows_what_callers_call_themselves_as_it_is(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge()
    await dial(daemon, caller="[/bold]")
    result = await cli("status", server=at(daemon))
    assert "[/bold]" in result.stdout


async def test_status_finds_a_bridge_by_its_url(bridge: Bridge, cli: Cli) -> None:
    daemon = await bridge()
    assert (await cli("status", "--json", "--url", daemon.url + "/")).exit_code == 0


async def test_status_with_a_secret_makes_its_own_token(bridge: Bridge, cli: Cli) -> None:
    daemon = await bridge(auth__secret=SECRET)
    result = await cli("status", "--json", server=at(daemon), auth={"secret": SECRET})
    assert json.loads(result.stdout)["ready"] is True
    assert SECRET not in result.output


async def test_another_secret_is_refused_and_not_printed(bridge: Bridge, cli: Cli) -> None:
    daemon = await bridge(auth__secret=SECRET)
    assert "voice-bridge token" in one_line(await cli("status", server=at(daemon)))
    said = one_line(await cli("status", server=at(daemon), auth={"secret": "x" * 40}))
    assert "token is not valid" in said
    assert "x" * 40 not in said


async def test_status_asks_at_the_admin_address(bridge: Bridge, cli: Cli, unused_port: int) -> None:
    account = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN}
    admin = f"127.0.0.1:{unused_port}"
    daemon = await bridge(server__admin=admin, twilio__account_sid=ACCOUNT_SID, twilio__auth_token=AUTH_TOKEN)
    result = await cli("status", "--json", server=at(daemon) | {"admin": admin}, twilio=account)
    assert json.loads(result.stdout)["ready"] is True
    assert "server.admin" in one_line(await cli("status", "--url", daemon.url, twilio=account))


def test_without_a_bridge_there_is_one_line_with_the_remedy(cli: Cli, unused_port: int) -> None:
    said = one_line(cli.run("status", server={"port": unused_port}))
    assert f"no bridge answers at http://127.0.0.1:{unused_port}" in said
    assert "voice-bridge serve" in said


@pytest.mark.parametrize(
    "url", ["nonsense", "http://", "http://a b", "http://127.0.0.1:99999999", "ftp://127.0.0.1", ""]
)
def test_a_wrong_url_is_one_line(cli: Cli, url: str) -> None:
    assert url in one_line(cli.run("status", "--url", url, server={"port": 1}))


ANSWERS = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "a web page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "an error without words": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "an error in words": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nOops",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_something_else_on_the_port_is_one_line(cli: Cli, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        one_line(await cli("status", server={"port": port}))
        one_line(await cli("hangup", "all", server={"port": port}))


# hangup


async def test_hangup_ends_a_call_in_good_order(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge(auth__secret=SECRET)
    phone = await dial(daemon)
    [call] = daemon.board.calls
    result = await cli("hangup", call, server=at(daemon), auth={"secret": SECRET})
    assert (result.exit_code, result.stdout) == (0, f"ended {call}\n")
    record = await phone.until(lambda record: len(record.steps) > 1)
    assert record.steps == ["Connect", "Hangup"]


async def test_hangup_all_ends_all(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge(calls__max_per_caller=0)
    phones = [await dial(daemon) for _ in range(3)]
    calls = list(daemon.board.calls.values())
    result = await cli("hangup", "all", "--json", server=at(daemon))
    assert json.loads(result.stdout) == {"ended": [call.id for call in calls]}
    for phone in phones:
        record = await phone.until(lambda record: len(record.steps) > 1)
        assert record.steps == ["Connect", "Hangup"]
    assert (await cli("hangup", "all", server=at(daemon))).stdout == "no calls\n"


async def test_hangup_all_does_not_stop_at_a_call_that_has_ended_meanwhile(cli: Cli) -> None:
    asked = []

    async def listed(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"calls": [{"call": "CA1"}, {"call": "CA2"}]})

    async def ended(request: aiohttp.web.Request) -> aiohttp.web.Response:
        asked.append(request.match_info["call"])
        return aiohttp.web.json_response({"error": "gone"}, status=404 if len(asked) == 1 else 204)

    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.get("/v1/calls", listed), aiohttp.web.delete("/v1/calls/{call}", ended)])
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        result = await cli("hangup", "all", server={"port": port})
    finally:
        await runner.cleanup()
    assert asked == ["CA1", "CA2"]
    assert (result.exit_code, result.stdout) == (0, "ended CA2\n")


async def test_hangup_takes_the_end_of_an_id_if_it_is_one_calls(bridge: Bridge, dial: Dial, cli: Cli) -> None:
    daemon = await bridge(calls__max_per_caller=0)
    for _ in range(2):
        await dial(daemon)
    meant, other = daemon.board.calls
    assert "no live calls end in 'unknown'" in one_line(await cli("hangup", "unknown", server=at(daemon)))
    assert "2 live calls end in ''" in one_line(await cli("hangup", "", server=at(daemon)))
    finished = daemon.board.calls[meant].finished
    assert (await cli("hangup", meant[-6:], server=at(daemon))).stdout == f"ended {meant}\n"
    await finished
    assert list(daemon.board.calls) == [other]


# token


def test_a_token_is_for_talking_unless_asked_otherwise(cli: Cli) -> None:
    result = cli.run("token", auth={"secret": SECRET})
    assert SECRET not in result.output
    claims = jwt.decode(result.stdout.strip(), SECRET, ["HS256"], audience="voice-bridge")
    assert (claims["scope"], claims["sub"], claims["exp"] - claims["iat"]) == ("talk", "client", 24 * 3600)


def test_a_token_has_what_was_asked_for(cli: Cli) -> None:
    words = ("token", "--scope", "operator", "--scope", "talk", "--subject", "ann", "--hours", "0.5", "--json")
    made = json.loads(cli.run(*words, auth={"secret": SECRET, "audience": "desk"}).stdout)
    claims = jwt.decode(made["token"], SECRET, ["HS256"], audience="desk")
    assert (claims["scope"].split(), claims["sub"]) == (made["scopes"], "ann")
    assert sorted(made["scopes"]) == ["operator", "talk"]
    assert abs(claims["exp"] - claims["iat"] - 1800) <= 1
    assert abs(made["expires"] - claims["exp"]) <= 1


async def test_a_made_token_opens_the_bridge(bridge: Bridge, cli: Cli, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(auth__secret=SECRET)
    for scope, status in (("operator", 200), ("talk", 403)):
        made = (await cli("token", "--scope", scope, auth={"secret": SECRET})).stdout.strip()
        async with http.get(daemon.url + "/v1/calls", headers={"Authorization": f"Bearer {made}"}) as answer:
            assert answer.status == status


def test_a_token_needs_a_secret_and_a_known_scope(cli: Cli) -> None:
    assert "VOICE_BRIDGE_AUTH__SECRET" in one_line(cli.run("token"))
    said = one_line(cli.run("token", "--scope", "admin", auth={"secret": SECRET}))
    assert "unknown scope admin; there are talk and operator" in said


def test_a_token_is_made_with_the_newest_of_several_secrets(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{'n' * 32}\n{SECRET}\n")
    made = cli.run("token", auth={"secret_file": str(tmp_path / "secrets")}).stdout.strip()
    assert jwt.decode(made, "n" * 32, ["HS256"], audience="voice-bridge")["sub"] == "client"


def test_where_tokens_are_only_checked_they_come_from_elsewhere(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("")
    for key, value in (("jwks_url", "https://id.example.com/keys"), ("public_key_file", str(tmp_path / "key.pem"))):
        said = one_line(cli.run("token", auth={key: value}))
        assert f"tokens for this bridge come from elsewhere: auth.{key} only checks them" in said


async def test_a_verb_without_a_secret_says_how_it_gets_in(bridge: Bridge, cli: Cli, unused_port: int) -> None:
    keys = {"jwks_url": f"http://127.0.0.1:{unused_port}/keys"}
    daemon = await bridge(auth__jwks_url=keys["jwks_url"])
    said = one_line(await cli("status", server=at(daemon), auth=keys))
    assert "needs auth.secret; or set server.admin" in said


# number and call, at Twilio


def account(twilio: TwilioRest) -> dict[str, Any]:
    return {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "api_url": twilio.url}


async def test_numbers_are_listed(cli: Cli, twilio: TwilioRest) -> None:
    result = await cli("number", twilio=account(twilio))
    assert result.stdout == f"{OURS}  https://before.example/voice\n"
    result = await cli("number", "--json", twilio=account(twilio))
    assert json.loads(result.stdout) == [{"number": OURS, "voice_url": "https://before.example/voice"}]
    twilio.numbers.clear()
    assert (await cli("number", twilio=account(twilio))).stdout == "no numbers\n"


async def test_a_number_is_pointed_at_this_bridge(cli: Cli, twilio: TwilioRest) -> None:
    words = ("number", OURS, "--fallback-url", "https://b.example/sorry")
    result = await cli(*words, twilio=account(twilio), server={"public_url": PUBLIC})
    assert result.stdout == f"{OURS} calls {PUBLIC}/twilio/voice (before: https://before.example/voice)\n"
    [number] = twilio.numbers.values()
    assert (number["voice_url"], number["status_callback"]) == (PUBLIC + "/twilio/voice", PUBLIC + "/twilio/status")
    assert number["voice_fallback_url"] == "https://b.example/sorry"
    result = await cli("number", OURS, "--json", twilio=account(twilio), server={"public_url": PUBLIC})
    voice_url = PUBLIC + "/twilio/voice"
    assert json.loads(result.stdout) == {"number": OURS, "voice_url": voice_url, "before": voice_url}


async def test_what_a_number_lacks_is_one_line(cli: Cli, twilio: TwilioRest) -> None:
    assert "TWILIO_ACCOUNT_SID" in one_line(await cli("number"))
    assert "server.public_url" in one_line(await cli("number", OURS, twilio=account(twilio)))
    server = {"public_url": PUBLIC}
    assert f"its numbers: {OURS}" in one_line(await cli("number", THEIRS, twilio=account(twilio), server=server))
    twilio.answers.append(refusal(401, 20003, "Authenticate"))
    said = one_line(await cli("number", twilio=account(twilio)))
    assert "check TWILIO_ACCOUNT_SID" in said
    assert AUTH_TOKEN not in said


async def test_a_call_is_placed(bridge: Bridge, cli: Cli, twilio: TwilioRest) -> None:
    given = {f"twilio__{name}": value for name, value in account(twilio).items()}
    daemon = await bridge(**given, server__public_url=PUBLIC, auth__secret=SECRET, twilio__caller_id=OURS)
    sections = {"server": at(daemon), "auth": {"secret": SECRET}}
    result = await cli("call", THEIRS, **sections)
    [call] = twilio.calls
    assert result.stdout == f"calling {THEIRS}: {call}\n"
    result = await cli("call", THEIRS, "--from", OURS, "--machine", "beep", "--json", **sections)
    assert json.loads(result.stdout)["call"] in twilio.calls
    form = twilio.requests[-1].form
    assert (form["To"], form["From"], form["MachineDetection"]) == (THEIRS, OURS, "DetectMessageEnd")
    assert form["Url"] == PUBLIC + "/twilio/voice"
    await cli("call", THEIRS, "--digits", "ww1", **sections)
    assert twilio.requests[-1].form["SendDigits"] == "ww1"
    assert "21210" in one_line(await cli("call", THEIRS, "--from", "+15550109999", **sections))


async def test_without_credentials_a_call_says_what_to_set(bridge: Bridge, cli: Cli) -> None:
    daemon = await bridge()
    assert "twilio.account_sid" in one_line(await cli("call", THEIRS, server=at(daemon)))


# serve


class Served:
    """A bridge as people start it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.url = ""

    async def until(self, event: str) -> dict[str, Any]:
        assert self.process.stderr
        async with asyncio.timeout(SOON):
            while line := await self.process.stderr.readline():
                self.log.append(json.loads(line))
                if self.log[-1]["event"] == event:
                    return self.log[-1]
        raise AssertionError(f"ended without {event!r}: {self.log}")

    async def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """The exit status, and everything that was logged."""
        async with asyncio.timeout(SOON):
            _, rest = await self.process.communicate()
        self.log += map(json.loads, rest.splitlines())
        assert self.process.returncode is not None
        return self.process.returncode, self.log

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)


async def start(*words: str, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(VOICE_BRIDGE, "serve", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | env,
    )


@contextlib.asynccontextmanager
async def serving(config: Path, **env: str) -> AsyncIterator[Served]:
    served = Served(await start("--config", str(config), "--port", "0", **env))
    try:
        served.url = (await served.until("ready"))["url"]
        yield served
    finally:
        if served.process.returncode is None:
            served.process.kill()
            await served.process.communicate()


async def refused(*words: str, status: int = 2, **env: str) -> str:
    """What a bridge that does not start has said: one line."""
    process = await start(*words, **env)
    async with asyncio.timeout(SOON):
        out, error = await process.communicate()
    assert (process.returncode, out) == (status, b"")
    *log, last = error.decode().splitlines()
    assert [json.loads(line)["level"] for line in log] in ([], ["info"])
    assert last.startswith("voice-bridge: ")
    return last


async def test_serve_with_a_wrong_setting_is_one_line(cli: Cli) -> None:
    config = str(cli.configure(twilio={"account_sid": ACCOUNT_SID}))
    said = await refused("--config", config)
    assert "twilio.account_sid: needs twilio.auth_token" in said


async def test_serve_with_an_engine_that_is_not_there_is_one_line(cli: Cli) -> None:
    config = cli.configure(voice={"endpoint": "wss://gpu.example.com"})
    assert "no such engine yet" in await refused("--config", str(config), "--engine", "moshi-cloud")


async def test_serve_on_a_port_in_use_is_one_line(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refused("--config", str(cli.configure()), "--port", str(port), status=1)
    assert said == (
        f"voice-bridge: cannot listen on 127.0.0.1:{port} (Address already in use);"
        " end what uses it or change server.host or server.port"
    )


async def test_serve_on_an_address_of_nobody_is_one_line(cli: Cli) -> None:
    config = str(cli.configure(auth={"secret": SECRET}))
    said = await refused("--config", config, "--host", "host.invalid", "--port", "0", status=1)
    assert said.startswith("voice-bridge: cannot listen on host.invalid:0 (")
    assert said.endswith("); correct server.host or server.port")


async def test_serve_with_a_token_that_cannot_be_one_is_one_line(cli: Cli) -> None:
    said = await refused(
        *("--config", str(cli.configure()), "--port", "0"),
        status=1,
        TWILIO_ACCOUNT_SID=ACCOUNT_SID,
        TWILIO_AUTH_TOKEN="tökén",
    )
    assert "TWILIO_AUTH_TOKEN" in said
    assert "tökén" not in said


@pytest.mark.parametrize("at_a_terminal", [True, False])
async def test_who_starts_a_bridge_sees_how_far_its_engine_is(
    at_a_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr(daemons, "TOLD", 0.01)
    loading = "loading a model: 40 %"
    shown: list[str] = []
    engine = HostEngine("slow", f"{HERE}:waiting", 1, file=str(tmp_path / "there"))
    settings = load(Cli(tmp_path).configure(), {"server.port": 0}, env={})
    daemon = Daemon(settings, engine, shown.append if at_a_terminal else None)
    starting = asyncio.create_task(daemon.__aenter__())
    async with asyncio.timeout(SOON):
        while loading not in [*shown, *(line.get("why") for line in log_lines)]:  # noqa: ASYNC110 - either of two
            await asyncio.sleep(0.01)
        (tmp_path / "there").touch()
        await starting
        while "the engine takes calls" not in [line["event"] for line in log_lines]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await daemon.__aexit__()
    assert (loading in shown) is at_a_terminal
    assert any(line.get("why") == loading for line in log_lines) is not at_a_terminal


def test_the_line_of_progress_is_rewritten_and_never_longer_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show("loading a model with a long name: 40 %")
    show("")
    assert capsys.readouterr().err == "\x1b[2Kloading a model wit\r\x1b[2K\r"


async def test_a_bridge_without_calls_stops_at_once(cli: Cli) -> None:
    async with serving(cli.configure()) as served:
        served.signal()
        status, log = await served.ended()
    assert status == 0
    assert [line["event"] for line in log][-2:] == ["draining", "stopped"]
    assert [line for line in log if line["level"] in ("warning", "error")] == []


async def test_the_first_signal_lets_a_live_call_finish(cli: Cli, http: aiohttp.ClientSession) -> None:
    async with serving(cli.configure()) as served, Phone(served.url + "/twilio/voice") as phone:
        call = asyncio.create_task(phone.call())
        await asyncio.sleep(0)
        await phone.until(lambda record: record.first_media is not None)
        served.signal()
        await served.until("draining")
        async with http.get(served.url + "/readyz") as answer:
            assert answer.status == 503
        heard = len((await phone.until(lambda record: True)).arrivals)
        await phone.until(lambda record: len(record.arrivals) > heard + 2)
        phone.hang_up()
        record = await call
        status, log = await served.ended()
    assert status == 0
    assert record.errors == []
    assert [line["end"] for line in log if line["event"] == "call ended"] == ["caller"]


async def test_the_second_signal_cuts_the_calls(cli: Cli) -> None:
    async with serving(cli.configure()) as served, Phone(served.url + "/twilio/voice") as phone:
        call = asyncio.create_task(phone.call())
        await asyncio.sleep(0)
        await phone.until(lambda record: record.first_media is not None)
        served.signal()
        await served.until("draining")
        served.signal()
        record = await call
        status, log = await served.ended()
    assert status == 0
    assert [line["end"] for line in log if line["event"] == "call ended"] == ["drain"]
    assert record.stream_ended == "the bridge closed the stream"
    assert record.steps == ["Connect", "Hangup"]
    assert record.errors == []


async def test_no_line_of_the_log_has_a_secret(cli: Cli, twilio: TwilioRest) -> None:
    config = cli.configure(twilio=account(twilio), auth={"secret": SECRET}, log={"level": "debug"})
    async with serving(config) as served, Phone(served.url + "/twilio/voice", auth_token=AUTH_TOKEN) as phone:
        call = asyncio.create_task(phone.call())
        await asyncio.sleep(0)
        await phone.until(lambda record: record.first_media is not None)
        phone.hang_up()
        await call
        async with Phone(served.url + "/twilio/voice", auth_token="wrong") as stranger:
            await stranger.call()
        served.signal()
        _, log = await served.ended()
    text = json.dumps(log)
    assert "call started" in text
    assert "the signature does not fit" in text
    assert [secret in text for secret in (SECRET, AUTH_TOKEN)] == [False, False]
