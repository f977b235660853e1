"""What `voice-bridge doctor` finds, says and exits with, over real configurations, sockets and folders."""

import asyncio
import io
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from tests.conftest import Bridge
from tests.jwks_server import PRIVATE, jwk, private_pem, public_pem
from tests.llm_server import MODEL, LlmServer
from voice_bridge.bridge.cli import doctor_memory
from voice_bridge.bridge.cli.doctor import (
    check_address,
    check_folder,
    check_machine,
    check_public_url,
    check_python,
    doctor,
    examine,
    show,
)
from voice_bridge.bridge.cli.finding import Row
from voice_bridge.bridge.memory import begin
from voice_bridge.bridge.memory.kinds import Memory
from voice_bridge.bridge.memory.store import Store
from voice_bridge.engines import hardware, registry
from voice_bridge.engines.hardware import GIB, LEVELS, Machine

SID = "AC" + "0123456789abcdef" * 2
TOKEN = "the-auth-token-that-nobody-may-see"
SECRET = "the-signing-secret-that-nobody-may-see"
H200 = Machine(
    "nvidia", "NVIDIA H200", 140 * GIB, 130 * GIB, 4.8e12, tier=5, api=False, cores=16, host_memory=128 * GIB
)

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no setting of the shell's but a port that is always free."""
    for name in os.environ:
        if name.startswith(("VOICE_BRIDGE_", "TWILIO_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VOICE_BRIDGE_SERVER__PORT", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SECRET = "not-a-real-secret-but-long-enough"


def configured(text: str) -> Path:
    path = Path("bridge.toml")
    path.write_text(text)
    return path


def examined(text: str = "") -> dict[str, Row]:
    """The findings by name."""
    return {row.name: row for row in examine(configured(text))[1]}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, terminal_width=80)


def report(*arguments: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("--json", *arguments).output)
    return told


def test_a_fresh_machine_would_start() -> None:
    result = run()
    assert result.exit_code == 0
    assert "serve will start" in result.output
    told = report()
    assert told["starts"] is True
    assert told["machine"]["memory"] > 0
    found = {check["name"]: check for check in told["checks"]}
    assert found["Settings"]["text"].startswith("no config.toml here")
    assert found["Settings"]["text"].endswith("from the environment: VOICE_BRIDGE_SERVER__PORT")
    assert all(check["remedy"] for check in told["checks"] if check["state"] == "note")


def test_a_mistake_in_the_configuration_is_named_and_fails() -> None:
    path = configured("[server]\nprot = 8080\n")
    result = run("--config", str(path))
    assert result.exit_code == 1
    assert result.output.endswith("serve would not start: 1 problem\n")
    told = report("--config", str(path))
    assert told["starts"] is False
    (problem,) = [check for check in told["checks"] if check["state"] == "problem"]
    assert "bridge.toml" in problem["text"]
    assert "server.prot" in problem["text"]
    assert "Level" in {check["name"] for check in told["checks"]}


def test_a_configuration_that_is_not_there_fails() -> None:
    result = run("--config", "nowhere.toml")
    assert result.exit_code == 1
    assert "nowhere.toml" in result.output


def test_the_configuration_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.toml").write_text("[voice]\nmax_steps = 3\n")
    rows = examine(None)[1]
    file, note = (row for row in rows if row.name == "Settings")
    assert file.text.startswith("config.toml;")
    assert (note.state, "max_steps" in note.text) == ("note", True)
    monkeypatch.setenv("VOICE_BRIDGE_CONFIG", str(configured("")))
    assert {row.name: row for row in examine(None)[1]}["Settings"].text.startswith("bridge.toml;")


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", SID)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    path = configured(f'[auth]\nsecret = "{SECRET}"\n[server]\npublic_url = "https://calls.example.com"\n')
    rows = {row.name: row for row in examine(path)[1]}
    assert [rows[name].state for name in ("Twilio", "Clients", "Public URL")] == ["ok"] * 3
    for arguments in ([], ["--json"]):
        result = run("--config", str(path), *arguments)
        assert result.exit_code == 0
        for hidden in (SID, TOKEN, SECRET):
            assert hidden not in result.output


def test_open_mode_is_told_with_its_reason() -> None:
    clients = examined()["Clients"]
    assert clients.state == "note"
    assert clients.text.startswith("open mode, for this machine only")
    assert "auth.secret" in clients.remedy


def test_a_bridge_for_clients_alone_takes_no_telephone_calls() -> None:
    rows = examined(f'[auth]\nsecret = "{SECRET}"\n')
    assert (rows["Clients"].state, rows["Twilio"].state) == ("ok", "note")
    assert "TWILIO_AUTH_TOKEN" in rows["Twilio"].remedy


def test_each_way_in_by_token_is_told(tmp_path: Path) -> None:
    """The identity provider answers from a process of its own: doctor waits for it as people do."""
    (tmp_path / "key.pem").write_text(public_pem(PRIVATE["ES256"]))
    (tmp_path / "secrets").write_text(f"{SECRET}\n{'o' * 32}\n")
    (tmp_path / "keys").write_text(json.dumps({"keys": [jwk("RS256", "a"), jwk("EdDSA", "b"), jwk("EdDSA", "c")]}))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            found = re.search(r"http://\S+:\d+/", server.stdout.readline())
            assert found
            url = found[0] + "keys"
            both = 'secret_file = "secrets"\npublic_key_file = "key.pem"\naudience = "desk"\n'
            rows = examined(f'[auth]\n{both}jwks_url = "{url}"')
        finally:
            server.terminate()
    assert (rows["Clients"].state, rows["JWKS"].state) == ("ok", "ok")
    assert "for the audience desk, checked with 2 keys for HS256, 1 key for ES256" in rows["Clients"].text
    assert rows["JWKS"].text == f"{url} answers with 1 key for RS256, 2 keys for EdDSA"
    rows = examined(f'[auth]\njwks_url = "{url}"')
    assert "checked with the keys of auth.jwks_url; made elsewhere" in rows["Clients"].text
    assert rows["JWKS"].state == "note"
    assert rows["JWKS"].text.startswith(f"{url} cannot be reached: ")
    assert "auth.jwks_url" in rows["JWKS"].remedy


def test_a_private_key_in_the_place_of_a_public_one_would_not_start() -> None:
    Path("key.pem").write_text(private_pem(PRIVATE["ES256"]))
    clients = examined('[auth]\npublic_key_file = "key.pem"')["Clients"]
    assert clients.state == "problem"
    assert "auth.public_key_file = 'key.pem': holds a private key" in clients.text


def test_a_bridge_for_telephones_alone_lets_no_client_in() -> None:
    rows = examined(f'[twilio]\naccount_sid = "{SID}"\nauth_token = "{TOKEN}"\n')
    assert (rows["Twilio"].state, rows["Clients"].state) == ("ok", "note")
    assert rows["Clients"].text == "none but Twilio may come in"
    assert rows["Public URL"].text == "none: Twilio cannot reach this bridge"


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("", "ok"),
        ("https://calls.example.com", "ok"),
        ("https://8.8.8.8/bridge", "ok"),
        ("http://127.0.0.1:8080", "note"),
        ("https://localhost", "note"),
        ("https://192.168.1.7", "note"),
        ("https://[::1]:8080", "note"),
        ("https://studio.local", "note"),
    ],
)
def test_an_address_that_twilio_cannot_reach_is_noted(url: str, state: str) -> None:
    assert check_public_url(url, telephone=False).state == state


def test_a_port_that_is_taken_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        row = examined(f'[server]\nadmin = "127.0.0.1:{port}"\n')["Admin"]
        assert row.state == "problem"
        assert str(port) in row.text
        assert "change server.admin" in row.remedy
    row = check_address("Address", "127.0.0.1", port, "server.host", "server.port")
    assert (row.state, row.text) == ("ok", f"127.0.0.1:{port} is free")


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6 on this machine")
def test_an_ipv6_address_can_be_listened_on() -> None:
    row = check_address("Address", "::1", 0, "server.host", "server.port")
    assert (row.state, row.text) == ("ok", "::1, any free port")


@pytest.mark.parametrize("host", ["203.0.113.1", "2001:db8::1", "a..b"])
def test_a_host_that_is_not_this_machine_is_a_problem(host: str) -> None:
    row = check_address("Address", host, 0, "server.host", "server.port")
    assert row.state == "problem"
    assert "not an address of this machine" in row.text
    assert "Set server.host" in row.remedy


def test_a_port_that_needs_more_rights_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Barred(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Barred)
    row = check_address("Address", "127.0.0.1", 443, "server.host", "server.port")
    assert row.state == "problem"
    assert "from 1024 up" in row.remedy


def test_the_engine_and_the_reason_for_it_are_told() -> None:
    row = examined('[voice]\nprovider = "echo"\n')["Engine"]
    assert row.state == "ok"
    assert row.text.startswith("echo: ")


ORACLE = Path(__file__).parent / "data/oracle/moshi"
FREE = Machine("plain", "", 64 * GIB, 60 * GIB, 4e11, 0, False, 32, 64 * GIB, 60 * GIB, 4e11)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Moshi runs on the CPU, with everything installed."""
    monkeypatch.setattr(hardware, "detect", lambda api=False: FREE)
    monkeypatch.setattr(registry, "missing", lambda program: [])


@pytest.mark.usefixtures("fast")
def test_of_a_mac_it_says_what_mlx_may_take_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = Machine("apple", "Apple M1 Pro", 10 * GIB, 9 * GIB, 2e11, 0, False, 10, 16 * GIB, 9 * GIB, 1e11)
    monkeypatch.setattr(hardware, "detect", lambda api=False: mac)
    rows = examined(f'[voice]\nmodel = "{ORACLE}"\n')
    assert "in bf16 on MLX on Apple M1 Pro takes" in rows["Engine"].text
    assert rows["MLX"].state == "ok"
    assert "may take 10.0 GiB of the Mac's memory, and leaves 6.0 GiB to the rest" in rows["MLX"].text
    assert "Kernels" not in rows


@pytest.mark.usefixtures("fast")
def test_how_moshi_would_do_is_told_with_figures() -> None:
    rows = examined(f'[voice]\nmodel = "{ORACLE}"\n[voice.moshi]\nweights = "float32"\n')
    assert rows["Engine"].text.startswith(f"moshi: it fits: {ORACLE} in float32 on the host takes ")
    assert (rows["Model"].state, f"in {ORACLE}" in rows["Model"].text) == ("ok", True)
    assert "keys in float32; 64.4 GB are free: room for " in rows["Memory"].text
    assert (rows["Step"].state, "for one call" in rows["Step"].text) == ("ok", True)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("file", "said"), [("model.safetensors", "cut short"), ("tokenizer.model", "no sentencepiece model")]
)
def test_a_model_that_is_damaged_is_a_problem(here: Path, file: str, said: str) -> None:
    pytest.importorskip("safetensors")
    shutil.copytree(ORACLE, here / "model")
    damaged = here / "model" / file
    damaged.write_bytes(damaged.read_bytes()[:100_000])
    row = examined('[voice]\nmodel = "model"\nprovider = "moshi"\n')["Model"]
    assert row.state == "problem"
    assert said in row.text


@pytest.mark.usefixtures("fast")
def test_a_model_that_must_be_fetched_first_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "at_hand", lambda model: None)
    row = examined()["Model"]
    assert row.state == "note"
    assert "is not on this disk" in row.text
    assert "voice-bridge download kyutai/moshiko-pytorch-q8" in row.remedy


@pytest.mark.usefixtures("fast")
def test_a_model_that_lacks_a_file_is_a_problem(here: Path) -> None:
    shutil.copytree(ORACLE, here / "model", ignore=shutil.ignore_patterns("mimi.safetensors"))
    row = examined('[voice]\nmodel = "model"\n')["Model"]
    assert row.state == "problem"
    assert "lacks mimi.safetensors" in row.text
    assert examined('[voice]\nmodel = "model"\nprovider = "echo"\n').get("Model") is None


@pytest.mark.usefixtures("fast")
def test_a_machine_that_is_too_slow_is_noted_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda api=False: replace(FREE, host_bandwidth=2e10))
    rows = examined('[voice.moshi]\nweights = "int8"\n')
    assert "because Moshi is too slow here: " in rows["Engine"].text
    assert rows["Engine"].text.startswith(("cascade: ", "echo: the test line, "))
    assert (rows["Step"].state, rows["Step"].remedy) == ("note", "Take voice.moshi.weights = int4.")


@pytest.mark.usefixtures("fast")
def test_a_missing_compiler_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++ -O3")
    row = examined()["Kernels"]
    assert (row.state, "the compiler /nowhere/g++" in row.text) == ("note", True)
    monkeypatch.setenv("CXX", f"{sys.executable} -x")
    row = examined()["Kernels"]
    assert row.text.startswith(sys.executable) == (row.state == "ok")  # without headers it is a note all the same


def test_without_torch_nothing_is_said_about_how_moshi_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", lambda program: ["torch"])
    rows = examined()
    assert "torch not installed" in rows["Engine"].text
    assert "Model" not in rows


def test_an_engine_that_cannot_be_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*asked: object) -> registry.Choice:
        assert asked[:2] == ("moshi-cloud", "cloud")
        raise registry.NoEngine("nothing fits: take echo")

    monkeypatch.setattr(registry, "choose", nothing)
    row = examined('[voice]\nendpoint = "wss://gpu.example.com"\n[voice.moshi]\ndevice = "cloud"\n')["Engine"]
    assert (row.state, row.text) == ("problem", "nothing fits: take echo")


async def test_each_endpoint_is_asked_how_it_is(bridge: Bridge, unused_port: int) -> None:
    good, strict = await bridge(slots=3), await bridge(auth__secret=SECRET)
    urls = [good.url, strict.url, f"ws://127.0.0.1:{unused_port}"]
    tables = "".join(f'[[voice.cloud.endpoints]]\nurl = "{url}"\n' for url in urls)
    _, rows = await asyncio.to_thread(examine, configured(f'[voice]\nprovider = "moshi-cloud"\n{tables}'))
    found = [row for row in rows if row.group == "Elsewhere"]
    assert [row.state for row in found] == ["ok", "note", "note"]
    assert ": a bridge with echo, " in found[0].text
    assert found[0].text.endswith("ms there and back, 3 free")
    assert "refuses us (401: send Authorization: Bearer TOKEN" in found[1].text
    assert "cannot be reached" in found[2].text
    text = f'[voice]\nprovider = "moshi-cloud"\nendpoint = "{strict.url}"\n'
    assert (await asyncio.to_thread(examined, text))["Endpoint"].state == "problem"


def test_endpoints_that_another_engine_leaves_unused_are_noted() -> None:
    row = examined('[voice]\nprovider = "echo"\nendpoint = "wss://gpu.example.com"\n')["Endpoints"]
    assert (row.state, row.text) == ("note", "1 set and not used: echo answers")


def test_an_engine_elsewhere_counts_as_an_api() -> None:
    assert examine(configured(""))[0].api is False
    assert examine(configured('[voice]\nendpoint = "wss://gpu.example.com"\n'))[0].api is True


def test_a_folder_is_tried_where_it_is_or_would_be(here: Path) -> None:
    assert check_folder("Records", here, "log.records").state == "ok"
    assert check_folder("Records", Path("not/yet/there"), "log.records").state == "ok"
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be_is_a_problem() -> None:
    Path("file").write_text("in the way")
    rows = examined('[log]\nrecords = "file/records"\n[calls]\nrecordings = "file"\nrecord = true\n')
    for name, key in (("Records", "log.records"), ("Recordings", "calls.recordings")):
        assert rows[name].state == "problem"
        assert f"Set {key}" in rows[name].remedy


def test_a_number_that_is_recorded_needs_its_folder() -> None:
    number = '[[numbers]]\nnumber = "+15551234567"\nrecord = true\n'
    assert examined(number)["Recordings"].text.startswith("recordings: ")
    assert examined()["Recordings"].text == "calls are not recorded"


def test_a_sound_that_cannot_be_played_is_a_problem() -> None:
    with wave.open("tone.wav", "wb") as tone:
        tone.setparams((1, 2, 8000, 0, "NONE", ""))
        tone.writeframes(bytes(16_000 * 2))
    lost = '[calls]\nlost_sound = "{}"\n'
    row = examined(lost.format("tone.wav"))["Lost sound"]
    assert (row.state, row.text) == ("ok", "tone.wav: 2.0 s")
    row = examined(lost.format("bridge.toml"))["Lost sound"]
    assert row.state == "problem"
    assert "bridge.toml" in row.text
    assert "Lost sound" not in examined()


def test_a_full_disk_is_noted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[doctor.__module__], "LOW_DISK", 2**62)
    row = check_folder("Records", here, "log.records")
    assert row.state == "note"
    assert "log.records" in row.remedy


def test_a_gpu_is_described_with_its_level() -> None:
    gpu, host, level = check_machine(H200)
    assert gpu.text == "NVIDIA H200: 140.0 GiB, 130.0 GiB free, about 4800 GB/s"
    assert host.text == "16 cores, 128.0 GiB of memory"
    assert level.text == f"5 of 6: {LEVELS[5]}"


def test_python_under_rosetta_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert next(check_python(H200)).state == "ok"
    assert next(check_python(replace(H200, kind="apple"))).state == "note"


def test_packages_and_optional_parts_are_listed() -> None:
    rows = list(check_python(H200))
    packages = next(row for row in rows if row.name == "Packages").text
    assert packages.startswith("voice-bridge ")
    assert "aiohttp " in packages
    optional = [row.text for row in rows if row.name == "Optional"]
    assert any(text.startswith("[talk] ") for text in optional)
    assert not any("pytest" in text for text in optional)


def test_the_table_fits_a_narrow_terminal() -> None:
    rows = examine(configured('[log]\nrecords = "a/' + 200 * "x" + '"\n'))[1]
    paper = io.StringIO()
    show(rows, Console(file=paper, width=80))
    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert paper.getvalue().count("x") >= 200


# Memory


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that memory needs."""
    monkeypatch.setattr(begin, "missing", lambda memory, choice: [])


def remembered(text: str = "") -> dict[str, Row]:
    """The findings on memory by name, with the test line as the engine."""
    rows = examine(configured(f'[voice]\nprovider = "echo"\n{text}'))[1]
    return {row.name: row for row in rows if row.group == "Memory"}


def test_memory_that_is_off_is_told_in_one_line() -> None:
    [row] = remembered('[memory]\nenabled = "off"\n').values()
    assert (row.state, row.text) == ("ok", "nothing is remembered: memory.enabled = off")


@pytest.mark.parametrize(("enabled", "state"), [("auto", "note"), ("on", "problem")])
def test_what_memory_lacks_is_named(monkeypatch: pytest.MonkeyPatch, enabled: str, state: str) -> None:
    monkeypatch.setattr(begin, "find_spec", lambda name: None)
    [row] = remembered(f'[memory]\nenabled = "{enabled}"\near = "kyutai"\n').values()
    assert row.state == state
    assert "libsql, torch, safetensors, sentencepiece, wordllama not installed" in row.text
    assert "pip install 'voice-bridge[memory,torch]'" in row.remedy


@pytest.mark.usefixtures("installed")
def test_a_memory_that_is_not_there_yet_is_not_made_by_looking(here: Path) -> None:
    rows = remembered('[memory]\nstore = "sub/calls.db"\n')
    assert {row.state for row in rows.values()} == {"ok"}
    assert rows["Callers"].text == "remembered for 365 days"
    assert rows["Store"].text.startswith("sub/calls.db: none yet, the first call makes it, in the clear")
    assert "sub/calls.db.key, which the first start makes" in rows["Key"].text
    assert [path.name for path in here.iterdir()] == ["bridge.toml"]


@pytest.mark.usefixtures("installed")
def test_what_is_remembered_is_counted(here: Path) -> None:
    pytest.importorskip("libsql")
    store = Store.open("memory.db")
    store.set_embedder("wordllama", 256)
    store.add([(Memory(id, f"n-{id % 2}", "I am here.", 1.0), None) for id in range(3)])
    store.close()
    rows = remembered("[memory]\nretention_days = 0\n")
    assert rows["Callers"].text.startswith("remembered for ever")
    assert rows["Store"].text.startswith("memory.db: 3 memories of 2 callers, ")
    assert rows["Store"].text.endswith("in the clear: memory.encryption is not set")
    assert (rows["Key"].state, "memory.db.key is not there" in rows["Key"].text) == ("note", True)
    assert rows["Embedder"].text.endswith("vectors for 3 memories without one")
    (here / "memory.db.key").write_text("k" * 32)
    assert remembered()["Key"].state == "ok"
    (here / "memory.db.key").write_text("k")
    assert "is too short" in remembered()["Key"].text


@pytest.mark.usefixtures("installed")
def test_another_embedder_is_noted_with_what_it_costs() -> None:
    pytest.importorskip("libsql")
    store = Store.open("memory.db")
    store.set_embedder("sentence-transformers:other", 384)
    store.add([(Memory(7, "n-7", "I am here.", 1.0), None)])
    store.close()
    row = remembered()["Embedder"]
    assert row.state == "note"
    assert row.text == "wordllama, but the vectors of 1 memory are by sentence-transformers:other"


@pytest.mark.usefixtures("installed")
def test_a_memory_that_fails_is_noted_and_the_bridge_starts(here: Path) -> None:
    pytest.importorskip("libsql")
    (here / "file").write_text("no database, and no folder: " * 1000)
    for store in ("file", "file/memory.db"):
        row = remembered(f'[memory]\nenabled = "on"\nstore = "{store}"\n')["Store"]
        assert (row.state, store in row.text) == ("note", True)
        assert "memory.store" in row.remedy
    assert run("--config", "bridge.toml").exit_code == 0


@pytest.mark.usefixtures("installed")
def test_a_server_that_does_not_answer_is_noted_soon(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_memory, "SECONDS", 0.2)
    shared = f'[memory]\nstore = "http://127.0.0.1:{{}}"\nkey = "{SECRET}"\ntoken = "{TOKEN}"\n'
    with socket.create_server(("127.0.0.1", 0)) as silent:
        late = remembered(shared.format(silent.getsockname()[1]))
    assert (late["Store"].state, "did not answer within 0.2 seconds" in late["Store"].text) == ("note", True)
    assert (late["Key"].state, "memory.key" in late["Key"].text) == ("ok", True)
    refused = remembered(shared.format(unused_port))["Store"]
    assert (refused.state, f"{unused_port}: it cannot be reached" in refused.text) == ("note", True)


@pytest.mark.usefixtures("installed")
def test_an_ear_that_is_off_or_lacks_its_model_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered('[memory]\near = "off"\n')["Ear"].state == "note"
    row = remembered('[memory]\near = "kyutai"\near_model = "nowhere/stt"\n')["Ear"]
    assert row.state == "note"
    monkeypatch.setattr(registry, "at_hand", lambda model: None)
    row = remembered('[memory]\near = "kyutai"\near_model = "nowhere/stt"\n')["Ear"]
    assert "voice-bridge download nowhere/stt" in row.remedy


@pytest.mark.usefixtures("installed")
def test_the_language_model_of_this_machines_level_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda api=False: H200)
    rows = remembered()
    assert rows["Thinker"].text == "rules; no language model is asked"
    assert rows["LLM"].text.startswith("level 5 (a GPU of 60 GB or more): Qwen2.5-72B Q6_K takes ")
    assert "ollama pull qwen2.5:72b-instruct-q6_K" in rows["LLM"].remedy
    monkeypatch.setattr(hardware, "detect", lambda api=False: FREE)
    assert "an API" in remembered()["LLM"].remedy


LLM = '[memory]\nthinker = "llm"\n[memory.llm]\nurl = "{}"\nmodel = "{}"\nseconds = 7\n'


@pytest.mark.usefixtures("installed")
async def test_an_endpoint_is_asked_whether_it_has_the_model() -> None:
    async with LlmServer() as server:
        row = (await asyncio.to_thread(remembered, LLM.format(server.url, MODEL)))["LLM"]
        assert (row.state, row.remedy) == ("ok", "")
        assert row.text.startswith(f"{MODEL} at {server.url}: memory.llm.model names it")
        assert row.text.endswith("an answer 7 s")
        both = LLM.format(server.url, "other") + f'[memory.fallback]\nurl = "{server.url}"\nmodel = "more"\n'
        rows = await asyncio.to_thread(remembered, both)
    assert [(rows[name].state, MODEL in rows[name].remedy) for name in ("LLM", "Fallback")] == [("note", True)] * 2
    assert "set memory.fallback.model" in rows["Fallback"].remedy.lower()
    assert server.requests == []


@pytest.mark.usefixtures("installed")
def test_endpoints_that_do_not_answer_are_noted(unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}/v1"
    rows = remembered(LLM.format(url, MODEL).replace("[memory]", f'[memory]\nembedder = "{url}#small"'))
    assert (rows["LLM"].state, "which does not answer" in rows["LLM"].text) == ("note", True)
    assert (rows["Embedder"].state, url in rows["Embedder"].text) == ("note", True)
    assert "memory.llm.url" in rows["LLM"].remedy


@pytest.mark.usefixtures("installed")
def test_a_model_that_nobody_names_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda api=False: FREE)
    row = remembered(LLM.format("http://127.0.0.1:1/v1", ""))["Thinker"]
    assert (row.state, "memory.llm.model" in row.text) == ("problem", True)


def test_help_shows_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "/etc/voice-bridge/config.toml" in result.output
