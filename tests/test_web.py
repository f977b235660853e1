"""The one port: health, the operator's API, and who may use it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from tests.conftest import Bridge, Dial, LogLines
from tests.cores import HERE
from tests.turned import InlineChild
from tests.twilio_rest import ACCOUNT_SID, AUTH_TOKEN, TwilioRest, refusal
from voice_bridge.bridge import auth, web
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone import Phone
from voice_bridge.engines.host import HostEngine

SECRET = "not-a-real-secret-but-long-enough"
OURS = "+15550100000"
THEIRS = "+15550100001"
DESK = "+15550100007"
ACCOUNT: dict[str, Any] = {"twilio__account_sid": ACCOUNT_SID, "twilio__auth_token": AUTH_TOKEN}
PUBLIC_ROUTES = {"/healthz", "/readyz", "/v1/openapi.json"}
CONSOLE_ROUTES = {"/", "/console/{name}"}  # without secrets
OWN_LOCKS = ("/twilio/", "/v1/stream", "/v1/capacity", "/api/chat")  # those of Twilio and of clients


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioRest]:
    async with TwilioRest() as server:
        server.add_number(OURS)
        yield server


def bearer(scope: auth.Scope = "operator", secret: str = SECRET, seconds: float = 60) -> dict[str, str]:
    return {"Authorization": f"Bearer {auth.mint(secret, 'voice-bridge', 'ann', (scope,), seconds)}"}


class Client:
    """An operator's program: every answer is a status and JSON, or None when there is no body."""

    def __init__(self, session: aiohttp.ClientSession, base: str, headers: Mapping[str, str] | None = None) -> None:
        self._session = session
        self._base = base
        self._headers = headers or {}

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = {"data": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
        given = {**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = URL(self._base + path, encoded=True)
        async with self._session.request(method, url, headers=given, **data) as answer:
            return answer.status, await answer.json() if await answer.read() else None


def only_call(daemon: Daemon) -> str:
    [call] = daemon.board.calls
    return call


# Health


class SlowEngine(HostEngine):
    """Takes as long to load as the test wants."""

    def __init__(self) -> None:
        super().__init__("echo", "", 1)
        self.child = InlineChild(self, 1)  # type: ignore[assignment]
        self.loading = asyncio.Event()
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        self.loading.set()
        await self.loaded.wait()
        await super().start()


async def test_readiness_is_red_until_the_engine_has_taken_a_step(
    bridge: Bridge, http: aiohttp.ClientSession, unused_port: int
) -> None:
    engine = SlowEngine()
    starting = asyncio.create_task(bridge(engine=engine, server__port=unused_port))
    await engine.loading.wait()
    ask = Client(http, f"http://127.0.0.1:{unused_port}")
    assert await ask("GET", "/healthz") == (200, {"alive": True})
    assert await ask("GET", "/readyz") == (503, {"state": "engine not ready", "why": "starting"})
    engine.child.progress = "loading a model: 40 %"
    assert await ask("GET", "/readyz") == (503, {"state": "engine not ready", "why": "loading a model: 40 %"})
    engine.loaded.set()
    await starting
    assert await ask("GET", "/readyz") == (200, {"state": "ready"})
    engine.child.lose()  # type: ignore[attr-defined]
    assert (await ask("GET", "/readyz"))[0] == 503
    assert await ask("GET", "/healthz") == (200, {"alive": True})


async def test_readiness_is_red_while_no_step_is_in_time_and_no_call_is_let_in(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    """By the engine's own measure, all the way to the caller, to the operator and to Prometheus."""
    engine = HostEngine("slow", f"{HERE}:slowing", 4, remedy="take weights = int8", holds=0.5)
    daemon = await bridge(engine=engine)
    ask = Client(http, daemon.url)
    why = "a step takes 128 ms and may take 64 of the 80 that a frame lasts: take weights = int8"
    assert await ask("GET", "/readyz") == (503, {"state": "no slot", "why": why})
    seen = (await ask("GET", "/v1/calls"))[1]
    assert (seen["ready"], seen["trouble"], seen["step_ms"], seen["dropped_frames"]) == (True, why, 128.0, 0)
    assert seen["slots"] == {"offered": 0, "reserved": 0, "used": 0}
    shown = await metrics_of(http, daemon)
    assert shown["voice_bridge_slots"] == [0, 0, 0]
    assert shown["voice_bridge_step_seconds"] == [0.128]
    async with Phone(daemon.url + "/twilio/voice") as phone:
        call = await phone.call()
    assert call.steps == ["Reject: busy"]
    assert daemon.board.metrics.refused == {"busy": 1}


async def test_the_offer_of_an_engine_that_gets_slower_shrinks_before_any_call_is_late(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    """The caller's sound tells the core how much it carries: two calls, and then it is full."""
    engine = HostEngine("slow", f"{HERE}:slowing", 4, holds=4)
    daemon = await bridge(engine=engine)
    loud = np.full(8000 * 10, round(0.02 * 32768), np.int16)
    phones = [await dial(daemon, sound=loud, caller=f"+1555010000{number}") for number in range(2)]
    async with asyncio.timeout(10):
        while engine.capacity().offered != 2:  # noqa: ASYNC110 - its next health, four times a second
            await asyncio.sleep(0.02)
    async with Phone(daemon.url + "/twilio/voice") as phone:
        assert (await phone.call()).steps == ["Reject: busy"]
    for phone in phones:
        heard = len(phone.record.arrivals)
        await phone.until(lambda call, heard=heard: len(call.arrivals) > heard + 3)  # they go on
    assert (await metrics_of(http, daemon))["voice_bridge_slots"] == [2, 0, 2]


async def metrics_of(http: aiohttp.ClientSession, daemon: Daemon) -> dict[str, list[float]]:
    async with http.get(daemon.url + "/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
        return {family.name: [sample.value for sample in family.samples] for family in families}


async def test_readiness_is_red_while_draining_and_no_call_is_let_in(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    ask = Client(http, daemon.url)
    phone = await dial(daemon)
    draining = asyncio.create_task(daemon.board.drain(60))
    await asyncio.sleep(0)
    assert await ask("GET", "/readyz") == (503, {"state": "draining"})
    assert await ask("GET", "/healthz") == (200, {"alive": True})
    assert (await ask("GET", "/v1/calls"))[1]["draining"] is True
    async with http.post(daemon.url + "/twilio/voice", data={"CallSid": "CA1"}) as answer:
        assert "<Reject" in await answer.text()
    phone.hang_up()
    await draining
    assert daemon.board.calls == {}


async def test_health_has_no_lock(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(**ACCOUNT, server__public_url="https://bridge.example.com", auth__secret=SECRET)
    for path in PUBLIC_ROUTES:
        status, _ = await Client(http, daemon.url)("GET", path, Host="bridge.example.com", X_Forwarded_For="192.0.2.1")
        assert status == 200


# Who may


def guarded(daemon: Daemon) -> list[tuple[str, str]]:
    """Every route of the main port that is for operators only, with something for each parameter."""
    routes = web.main_app(daemon.board, None, daemon.url).router.routes()
    found = {(route.method, route.resource.canonical) for route in routes if route.resource}
    paths = [(method, path) for method, path in sorted(found) if not path.startswith(OWN_LOCKS)]
    return [
        (method, re.sub("{.*}", "CA1", path)) for method, path in paths if path not in PUBLIC_ROUTES | CONSOLE_ROUTES
    ]


async def refused(ask: Client, daemon: Daemon, status: int, **headers: str) -> list[str]:
    """What each of the operators' routes answers; all of them refuse."""
    answers = [await ask(method, path, **headers) for method, path in guarded(daemon)]
    assert [answer[0] for answer in answers] == [status] * len(answers)
    assert len(answers) >= 9
    return [answer["error"] for _, answer in answers if answer]  # HEAD has none


async def test_an_open_bridge_serves_operators_on_this_machine_only(
    bridge: Bridge, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    ask = Client(http, daemon.url)
    assert (await ask("GET", "/v1/calls"))[0] == 200
    assert (await ask("GET", "/v1/calls", Host=f"localhost:{daemon.port}"))[0] == 200
    assert (await ask("GET", "/v1/calls", Origin=daemon.url))[0] == 200
    for headers in (
        {"Host": "evil.example"},
        {"Forwarded": "for=192.0.2.1"},
        {"X_Forwarded_For": "192.0.2.1"},
        {"X_Forwarded_Proto": "https"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        await refused(ask, daemon, 403, **headers)


async def test_a_tunnel_to_an_open_bridge_is_told_what_to_set(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    daemon = await bridge()
    [said, *_] = await refused(Client(http, daemon.url), daemon, 403, X_Forwarded_For="192.0.2.1")
    assert "set twilio.auth_token" in said
    assert "auth.secret" in said
    line = next(line for line in log_lines if line["event"] == "request refused")
    assert (line["why"], line["log_level"]) == (said, "warning")


async def test_operators_need_a_token_of_theirs(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(auth__secret=SECRET)
    assert (await Client(http, daemon.url, bearer())("GET", "/v1/calls"))[0] == 200
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer \udcff"}, 401),
        (bearer(secret="x" * 32), 401),
        (bearer(seconds=-11), 401),
        (bearer("talk"), 403),
        (bearer() | {"Origin": "https://evil.example"}, 403),
    ):
        await refused(Client(http, daemon.url, headers), daemon, status)


async def test_a_token_of_an_operator_works_through_a_proxy(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(auth__secret=SECRET, server__public_url="https://bridge.example.com")
    ask = Client(http, daemon.url, bearer() | {"Host": "bridge.example.com", "X-Forwarded-For": "192.0.2.1"})
    assert (await ask("GET", "/v1/calls", Origin="https://bridge.example.com"))[0] == 200


async def test_with_a_twilio_token_alone_operators_have_no_door(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(**ACCOUNT)
    for headers in ({}, bearer(), {"Authorization": f"Bearer {AUTH_TOKEN}"}):
        [said, *_] = await refused(Client(http, daemon.url, headers), daemon, 403)
        assert "auth.secret" in said
        assert "server.admin" in said


async def test_the_admin_address_needs_no_token_and_takes_only_this_machine(
    bridge: Bridge, http: aiohttp.ClientSession, unused_port: int
) -> None:
    daemon = await bridge(**ACCOUNT, server__admin=f"127.0.0.1:{unused_port}")
    admin = Client(http, f"http://127.0.0.1:{unused_port}")
    assert (await admin("GET", "/v1/calls"))[0] == 200
    assert (await admin("GET", "/readyz"))[0] == 200
    await refused(admin, daemon, 403, Origin="https://evil.example")
    await refused(admin, daemon, 403, Host="evil.example", Origin="http://evil.example")
    await refused(admin, daemon, 403, X_Forwarded_For="192.0.2.1")
    assert (await admin("POST", "/twilio/voice"))[0] == 404
    await refused(Client(http, daemon.url), daemon, 403)


# What it says


async def test_operators_see_the_calls(bridge: Bridge, dial: Dial, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(slots=3)
    ask = Client(http, daemon.url)
    phone = await dial(daemon)
    status, seen = await ask("GET", "/v1/calls")
    assert status == 200
    assert (seen["engine"], seen["ready"], seen["draining"], seen["restarts"]) == ("echo", True, False, 0)
    assert seen["slots"] == {"offered": 3, "reserved": 0, "used": 1}
    [call] = seen["calls"]
    assert phone.record is not None
    assert call["call"] == phone.record.sid
    assert (call["caller"], call["number"], call["state"]) == (THEIRS, OURS, "listening")
    assert call["frames"] > 0


async def test_operators_see_one_call_with_what_was_said_last(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    await dial(daemon)
    await dial(daemon, caller=DESK)
    ask = Client(http, daemon.url)
    call = next(iter(daemon.board.calls))
    await ask("POST", f"/v1/calls/{call}/say", {"text": "good day"})
    async with asyncio.timeout(10):
        while not daemon.board.feed.words(call):  # noqa: ASYNC110 - the engine's next step
            await asyncio.sleep(0.02)
    status, seen = await ask("GET", f"/v1/calls/{call}")
    assert status == 200
    assert (seen["call"], seen["caller"]) == (call, THEIRS)
    assert seen["words"] == [{"id": 1, "speaker": "agent", "text": "good day", "final": True}]


async def test_metrics_are_what_prometheus_reads(bridge: Bridge, dial: Dial, http: aiohttp.ClientSession) -> None:
    daemon = await bridge(slots=3)
    await dial(daemon)
    async with http.get(daemon.url + "/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    slots = {sample.labels["state"]: sample.value for sample in families["voice_bridge_slots"].samples}
    assert slots == {"offered": 3, "reserved": 0, "used": 1}
    assert families["voice_bridge_engine_ready"].samples[0].value == 1


# What it does


async def test_an_operator_makes_the_agent_speak_and_know(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    await dial(daemon)
    ask, call = Client(http, daemon.url), only_call(daemon)
    assert await ask("POST", f"/v1/calls/{call}/say", {"text": "hello"}) == (200, {"id": 1})
    assert await ask("POST", f"/v1/calls/{call}/say", {"text": "bye", "interruptible": False}) == (200, {"id": 2})
    assert await ask("POST", f"/v1/calls/{call}/inject", {"context": "it rains"}) == (200, {"id": 3})


async def test_an_operator_presses_keys(bridge: Bridge, dial: Dial, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    phone = await dial(daemon)
    ask, call = Client(http, daemon.url), only_call(daemon)
    assert phone.record is not None
    assert phone.record.first_sound is None  # the echo of silence
    assert await ask("POST", f"/v1/calls/{call}/digits", {"digits": "1w2"}) == (204, None)
    await phone.until(lambda record: record.first_sound is not None)


async def test_an_operator_passes_a_call_on(bridge: Bridge, dial: Dial, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    phone = await dial(daemon)
    ask, call = Client(http, daemon.url), only_call(daemon)
    assert await ask("POST", f"/v1/calls/{call}/transfer", {"number": DESK}) == (204, None)
    record = await phone.until(lambda record: len(record.steps) > 1)
    assert record.steps == ["Connect", f"Dial: {DESK}"]


async def test_an_operator_hangs_up_and_the_caller_hears_no_apology(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    phone = await dial(daemon)
    ask, call = Client(http, daemon.url), only_call(daemon)
    assert await ask("DELETE", f"/v1/calls/{call}") == (204, None)
    record = await phone.until(lambda record: len(record.steps) > 1)
    assert record.steps == ["Connect", "Hangup"]
    assert (await ask("DELETE", f"/v1/calls/{call}"))[0] == 404


async def test_a_call_that_is_being_ended_is_no_longer_to_be_had(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession, twilio: TwilioRest
) -> None:
    daemon = await bridge(**ACCOUNT, twilio__api_url=twilio.url, auth__secret=SECRET)
    await dial(daemon, auth_token=AUTH_TOKEN)
    ask, call = Client(http, daemon.url, bearer()), only_call(daemon)
    twilio.door.clear()
    assert await ask("DELETE", f"/v1/calls/{call}") == (204, None)
    await twilio.arrived.get()  # the carrier has been asked to hang up, and has not answered
    assert only_call(daemon) == call
    for method, path, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/say", {"text": "x"})):
        assert (await ask(method, f"/v1/calls/{call}{path}", body))[0] == 404
    twilio.door.set()


async def test_a_call_that_does_not_live_is_not_found(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    ask = Client(http, (await bridge()).url)
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/say", {"text": "x"}),
        ("POST", "/inject", {"context": "x"}),
        ("POST", "/digits", {"digits": "1"}),
        ("POST", "/transfer", {"number": DESK}),
    ):
        for call in ("CAunknown", "%00%1b[31m", "..%2f..", "x" * 1000):
            status, answer = await ask(method, f"/v1/calls/{call}{path}", body)
            assert status == 404, (method, path, call)
            assert len(answer["error"]) < 200


BAD_BODIES: list[tuple[str, Any]] = [
    ("say", None),
    ("say", b"{"),
    ("say", b"\xff"),
    ("say", b'{"text": "\xff"}'),
    ("say", b"[" * 60_000),
    ("say", b'{"text":' * 7_000),
    ("say", []),
    ("say", {}),
    ("say", {"text": 1}),
    ("say", {"text": "x", "loud": True}),
    ("say", {"text": "x", "interruptible": "no"}),
    ("inject", {"text": "x"}),
    ("digits", {"digits": "12x"}),
    ("digits", {"digits": 12}),
    ("digits", {"digits": "1" * 65}),
    ("transfer", {"number": "0201234567"}),
    ("transfer", {"number": DESK + "\n"}),
    ("transfer", {"number": ""}),
]


async def test_a_body_that_is_not_understood_is_a_bad_request(
    bridge: Bridge, dial: Dial, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge()
    await dial(daemon)
    ask, call = Client(http, daemon.url), only_call(daemon)
    for path, body in BAD_BODIES:
        status, answer = await ask("POST", f"/v1/calls/{call}/{path}", body)
        assert status == 400, (path, body)
        assert answer["error"]
    assert only_call(daemon) == call


# Placing calls


async def test_a_call_is_placed_through_twilio(bridge: Bridge, http: aiohttp.ClientSession, twilio: TwilioRest) -> None:
    public = "https://bridge.example.com"
    settings = ACCOUNT | {"twilio__api_url": twilio.url, "twilio__caller_id": OURS, "server__public_url": public}
    daemon = await bridge(**settings, auth__secret=SECRET)
    ask = Client(http, daemon.url, bearer())
    status, answer = await ask("POST", "/v1/calls", {"to": THEIRS, "machine_detection": "Enable"})
    assert status == 201
    assert answer["call"] in twilio.calls
    form = twilio.requests[-1].form
    assert (form["To"], form["From"], form["MachineDetection"]) == (THEIRS, OURS, "Enable")
    assert (form["Url"], form["StatusCallback"]) == (public + "/twilio/voice", public + "/twilio/status")
    await ask("POST", "/v1/calls", {"to": THEIRS, "from": OURS, "send_digits": "ww1"})
    assert twilio.requests[-1].form["SendDigits"] == "ww1"


async def test_what_twilio_refuses_is_passed_on_with_its_remedy(
    bridge: Bridge, http: aiohttp.ClientSession, twilio: TwilioRest
) -> None:
    daemon = await bridge(**ACCOUNT, twilio__api_url=twilio.url, auth__secret=SECRET)
    ask = Client(http, daemon.url, bearer())
    status, answer = await ask("POST", "/v1/calls", {"to": THEIRS, "from": DESK})
    assert status == 400
    assert "21210" in answer["error"]
    assert "call from a number of this account" in answer["error"]
    twilio.answers.append(refusal(401, 20003, "Authenticate"))
    status, answer = await ask("POST", "/v1/calls", {"to": THEIRS, "from": OURS})
    assert (status, AUTH_TOKEN in answer["error"]) == (502, False)


async def test_without_credentials_no_call_is_placed(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    status, answer = await Client(http, (await bridge()).url)("POST", "/v1/calls", {"to": THEIRS})
    assert status == 409
    assert "twilio.account_sid and twilio.auth_token" in answer["error"]


async def test_a_call_to_nobody_is_a_bad_request(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    ask = Client(http, (await bridge()).url)
    for body in ({}, {"from": OURS}, {"to": 1}, {"to": THEIRS, "machine_detection": "on"}, b"x"):
        assert (await ask("POST", "/v1/calls", body))[0] == 400


# Whatever else comes


async def test_errors_are_json(bridge: Bridge, http: aiohttp.ClientSession) -> None:
    daemon = await bridge()
    ask = Client(http, daemon.url)
    assert await ask("GET", "/nowhere") == (404, {"error": "404: Not Found"})
    assert await ask("PUT", "/v1/calls") == (405, {"error": "405: Method Not Allowed"})
    status, answer = await ask("POST", "/v1/calls/CA1/say", b"x" * 70_000)
    assert status == 413
    assert "65536" in answer["error"]
    async with http.put(daemon.url + "/v1/calls") as said:
        assert set(said.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


async def test_a_fault_of_ours_is_logged_and_not_shown(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    daemon = await bridge()
    daemon.board.metrics.slots = lambda: {"offered": 1 // 0}
    status, answer = await Client(http, daemon.url)("GET", "/metrics")
    assert (status, answer) == (500, {"error": "a fault of the bridge; its log says more"})
    [line] = [line for line in log_lines if line["log_level"] == "error"]
    assert line["path"] == "/metrics"
    assert line["exc_info"]


async def test_a_request_that_breaks_off_is_no_fault_of_ours(bridge: Bridge, log_lines: LogLines) -> None:
    daemon = await bridge()
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    head = "POST /v1/calls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
    writer.write(head.encode())
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert [line for line in log_lines if line["log_level"] == "error"] == []


async def test_a_badly_encoded_body_is_a_bad_request(
    bridge: Bridge, http: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    ask = Client(http, (await bridge()).url)
    status, answer = await ask("POST", "/v1/calls", b"plain", Content_Encoding="gzip")
    assert status == 400
    assert "encoded" in answer["error"]
    assert [line for line in log_lines if line["log_level"] == "error"] == []
