"""`voice-bridge doctor`: what this machine can run, which engine answers and why, and what would fail."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shlex
import shutil
import socket
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...codecs import wav
from ...engines import hardware, registry
from ...engines.base import STEP_LIMIT
from ...engines.hardware import GB, GIB, Machine, size
from ...engines.moshi import download
from ...engines.moshi.config import ModelError
from ...engines.moshi.fit import Fit
from ..config import ConfigError, Settings, load
from ..config.load import CONFIG_VARIABLE, FAMILIAR, VARIABLES
from ..endpoints import endpoints
from . import operator
from .doctor_cascade import check_cascade
from .doctor_clients import check_clients
from .doctor_memory import check_memory
from .doctor_relay import check_endpoints
from .finding import Row, State

PACKAGE = "voice-bridge"
LOW_DISK = GIB  # nine hours of call recorded at 8 kHz, three at 24 kHz

STYLES: dict[State, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(config: operator.Config = None, as_json: operator.Json = False) -> None:
    """Say what this machine can run, which engine answers, and what in the configuration will fail.

    Nothing is changed, nothing secret is printed. The exit status is 1 if `serve` would not start.

    \b
    Examples:
      voice-bridge doctor
      voice-bridge doctor --config /etc/voice-bridge/config.toml
      voice-bridge doctor --json | jq '.checks[] | select(.state != "ok")'
    """
    machine, rows = examine(config)
    if as_json:
        print(json.dumps(_report(machine, rows), indent=2))
    else:
        show(rows, Console())
    if not _starts(rows):
        raise typer.Exit(1)


def examine(config: Path | None) -> tuple[Machine, list[Row]]:
    """Look at everything; what depends on a configuration that cannot be read is left out."""
    try:
        settings = load(config)
    except ConfigError as error:
        machine = hardware.detect()
        remedy = "Correct it; what depends on it was not looked at."
        broken = Row("Configuration", "Settings", "problem", str(error), remedy)
        return machine, [*check_machine(machine), *check_python(machine), broken]
    machine = hardware.detect(api=settings.has_api)
    beside = _beside(settings, machine)
    checks = (
        check_machine(machine),
        check_python(machine),
        check_settings(settings, config),
        check_engine(settings, machine),
        check_moshi(settings, machine),
        check_endpoints(beside, endpoints(settings.voice)),
        check_cascade(beside, settings.voice.cascade.llm),
        check_memory(settings.memory, machine, beside),
        check_doors(settings),
        check_folders(settings),
    )
    return machine, [row for check in checks for row in check]


def show(rows: list[Row], console: Console) -> None:
    """Print the findings for people."""
    for group in dict.fromkeys(row.group for row in rows):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=7)
        table.add_column(width=10)
        table.add_column(overflow="fold")
        for row in rows:
            if row.group == group:
                text = Text(row.text)
                if row.remedy:
                    text.append(f"\n{row.remedy}", style="cyan")
                table.add_row(Text(row.state, STYLES[row.state]), row.name, text)
        console.print(Text(group, "bold"), Padding(table, (0, 0, 1, 2)))
    count = Counter(row.state for row in rows)
    told = ", ".join(f"{n} {state}{'s' if n > 1 else ''}" for state in ("problem", "note") if (n := count[state]))
    verdict = "serve will start" if _starts(rows) else "serve would not start"
    console.print(Text(f"{verdict}{': ' if told else ''}{told}", "bold green" if _starts(rows) else "bold red"))


def _report(machine: Machine, rows: list[Row]) -> dict[str, Any]:
    return {
        "version": metadata.version(PACKAGE),
        "starts": _starts(rows),
        "machine": asdict(machine),
        "checks": [asdict(row) for row in rows],
    }


def _starts(rows: list[Row]) -> bool:
    return all(row.state != "problem" for row in rows)


def check_machine(machine: Machine) -> Iterator[Row]:
    gpu = "none"
    if machine.gpu:
        memory = f"{size(machine.memory)}{' for a model' if machine.kind == 'apple' else ''}"
        speed = f"about {machine.bandwidth / hardware.GB:.0f} GB/s"
        gpu = f"{machine.gpu}: {memory}, {size(machine.free)} free, {speed}"
    yield Row("Machine", "GPU", "ok", gpu)
    yield Row("Machine", "Host", "ok", f"{machine.cores} cores, {size(machine.host_memory)} of memory")
    yield Row("Machine", "Level", "ok", f"{machine.tier} of 6: {hardware.LEVELS[machine.tier]}")


def check_python(machine: Machine) -> Iterator[Row]:
    system, processor = platform.system(), platform.machine()
    python = f"{platform.python_version()} on {system} {processor}"
    if machine.kind == "apple" and processor == "x86_64":
        remedy = "Install Python for Apple silicon: mlx does not run under Rosetta."
        yield Row("Machine", "Python", "note", f"{python}, under Rosetta", remedy)
    else:
        yield Row("Machine", "Python", "ok", python)
    needed = _requirements()
    base = ", ".join(f"{name} {version}" for name in needed.pop("") if (version := _version(name)))
    yield Row("Machine", "Packages", "ok", f"{PACKAGE} {metadata.version(PACKAGE)}; {base}")
    for extra, names in needed.items():
        have = [f"{name} {version}" for name in names if (version := _version(name))]
        missing = [name for name in names if not _version(name)]
        text = f"[{extra}] " + (", ".join(have) if not missing else f"not installed: {', '.join(missing)}")
        yield Row("Machine", "Optional", "ok", text)


def _requirements() -> dict[str, list[str]]:
    """Names of the packages that ours asks for, by extra; under "" those of the base install."""
    needed: dict[str, list[str]] = defaultdict(list)
    for line in metadata.requires(PACKAGE) or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"""extra == ["']([\w-]+)["']""", line)
        if name != PACKAGE:
            needed[extra[1] if extra else ""].append(name)
    needed.pop("dev", None)
    return needed


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_settings(settings: Settings, config: Path | None) -> Iterator[Row]:
    path = config or Path(os.environ.get(CONFIG_VARIABLE) or "config.toml")
    source = f"{path}" if path.exists() else "no config.toml here: built-in settings"
    names = sorted({*VARIABLES, *FAMILIAR} & {k for k, v in os.environ.items() if v})
    if names:
        source += f"; from the environment: {', '.join(names)}"
    yield Row("Configuration", "Settings", "ok", source)
    for note in settings.notes:
        yield Row("Configuration", "Settings", "note", note)


def check_engine(settings: Settings, machine: Machine) -> Iterator[Row]:
    try:
        choice = _choice(settings, settings.voice.engine, machine)
    except registry.NoEngine as error:
        yield Row("Configuration", "Engine", "problem", str(error))
    else:
        yield Row("Configuration", "Engine", "ok", f"{choice.name}: {choice.reason}")


def _choice(settings: Settings, provider: str, machine: Machine) -> registry.Choice:
    voice = settings.voice
    slots = settings.engine.slots
    return registry.choose(
        provider, voice.moshi.device, machine, endpoints(voice), voice.options, slots, voice.cascade.options
    )


def _beside(settings: Settings, machine: Machine) -> registry.Choice:
    """The engine beside which everything else must find room; one that takes none where there is no engine."""
    try:
        return _choice(settings, settings.voice.engine, machine)
    except registry.NoEngine as error:
        return registry.Choice("none", str(error))


def check_moshi(settings: Settings, machine: Machine) -> Iterator[Row]:
    """How Moshi would do here, also where `auto` takes something else for it; `check_engine` says why it cannot."""
    if settings.voice.engine not in ("auto", "moshi"):
        return
    try:
        choice = _choice(settings, "moshi", machine)
        taken = _choice(settings, settings.voice.engine, machine).name == "moshi"
    except registry.NoEngine:
        return
    assert choice.fit
    yield check_model(str(choice.options["model"]), "problem" if taken else "note")
    yield from check_fit(choice.fit, choice.slots)
    if choice.fit.device == "mlx":
        yield check_mlx(choice.fit, machine)
    else:
        yield check_compiler(*(("CXX", "c++") if choice.fit.device == "cpu" else ("CC", "cc")))


def check_model(model: str, incomplete: State) -> Row:
    """Whether the model is here already, and all of it; what it is if not all is."""
    try:
        folder = registry.at_hand(model)
        files = download.contents(folder) if folder else {}
    except ModelError as error:
        return Row("Moshi", "Model", incomplete, str(error), "Correct voice.model.")
    missing = [name for name, path in files.items() if not path.exists()]
    remedy = f"Fetch it before: `voice-bridge download {model}`."
    if folder is None:
        return Row("Moshi", "Model", "note", f"{model} is not on this disk: it must be fetched first", remedy)
    if missing:
        return Row("Moshi", "Model", incomplete, f"{model} lacks {', '.join(missing)}", remedy)
    try:
        with suppress(ImportError):  # another row says what is not installed
            _open_model(folder)
    except ModelError as error:
        return Row("Moshi", "Model", incomplete, str(error), "Fetch it again, or correct voice.model.")
    total = sum(path.stat().st_size for path in files.values())
    return Row("Moshi", "Model", "ok", f"{model}: {total / GB:.1f} GB in {folder}")


def _open_model(folder: Path) -> None:
    """All that is seen of a model without reading its weights; raises `ModelError`."""
    from ...engines.moshi.checkpoint import Checkpoint  # what these stand on is an extra
    from ...engines.moshi.tokenizer import Tokenizer

    checkpoint = Checkpoint.open(folder)
    checkpoint.lm()
    checkpoint.mimi()
    Tokenizer.load(checkpoint.tokenizer)


def check_fit(fit: Fit, slots: int) -> Iterator[Row]:
    memory = (
        f"{fit.weights} weights and all else take {fit.fixed / GB:.1f} GB, a call {fit.call / GB:.2f} GB with its"
        f" keys in {fit.keys}; {fit.free / GB:.1f} GB are free: room for {slots} call{'s' if slots > 1 else ''}"
    )
    yield Row("Moshi", "Memory", "ok", memory)
    takes = f"about {1000 * fit.step(1):.0f} ms for one call"
    takes += f", {1000 * fit.step(slots):.0f} for {slots}" if slots > 1 else ""
    text = f"{takes}; it may take {1000 * STEP_LIMIT:.0f}. The engine measures it, and offers what holds"
    if fit.holds:
        yield Row("Moshi", "Step", "ok", text)
    else:
        yield Row("Moshi", "Step", "note", text, f"{fit.remedy[0].upper()}{fit.remedy[1:]}.")


def check_mlx(fit: Fit, machine: Machine) -> Row:
    """What MLX computes on, and how much of a Mac's memory it may take."""
    version = f"mlx {_version('mlx')}"
    if machine.kind != "apple":
        return Row(
            "Moshi",
            "MLX",
            "note",
            f"{version} on the CPU",
            "For trying things out: voice.moshi.device = cpu is faster.",
        )
    left = machine.host_memory - machine.memory
    text = f"{version} may take {size(machine.memory)} of the Mac's memory, and leaves {size(left)} to the rest"
    if not fit.room:
        return Row(
            "Moshi", "MLX", "note", text, "sudo sysctl iogpu.wired_limit_mb=MB grants it more, until the next start."
        )
    return Row("Moshi", "MLX", "ok", text)


def check_compiler(variable: str, usual: str) -> Row:
    """Whether the kernels can be built; they are when the engine first starts."""
    compiler = shlex.split(os.environ.get(variable, usual))[0]
    lacks = [] if shutil.which(compiler) else [f"the compiler {compiler}"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacks.append("Python's headers")
    if not lacks:
        return Row("Moshi", "Kernels", "ok", f"{compiler} and Python's headers are here to build them")
    remedy = (
        "Install them (apt install g++ python3-dev): without kernels a CPU takes several times as long, a GPU fails."
    )
    return Row("Moshi", "Kernels", "note", f"cannot be built without {' and '.join(lacks)}", remedy)


def check_doors(settings: Settings) -> Iterator[Row]:
    server, twilio = settings.server, settings.twilio
    yield check_address("Address", server.host, server.port, "server.host", "server.port")
    if server.admin_address:
        yield check_address("Admin", *server.admin_address, "server.admin", "server.admin")
    yield check_public_url(server.public_url, bool(twilio.auth_token))
    if twilio.account_sid:
        yield Row("Doors", "Twilio", "ok", "Account SID and auth token are set")
    elif twilio.auth_token:
        text = "auth token without account SID: calls are answered, none are placed"
        yield Row("Doors", "Twilio", "note", text, "Set TWILIO_ACCOUNT_SID to place calls and set up numbers.")
    else:
        remedy = "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN to answer telephone calls."
        yield Row("Doors", "Twilio", "note", "no credentials: no telephone calls", remedy)
    yield from check_clients(settings)


def check_address(name: str, host: str, port: int, host_key: str, port_key: str) -> Row:
    """Whether `serve` could listen on this address, found out by doing so for a moment."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Row("Doors", name, "ok", f"{shown} is free" if port else f"{host}, any free port")
    except PermissionError:
        problem = "not allowed to listen there"
        remedy = f"Set {port_key} to a port from 1024 up, and put a proxy before it."
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = "taken"
            remedy = f"Stop what listens there (a bridge that runs already?) or change {port_key}."
        else:
            problem = "not an address of this machine"
            remedy = f"Set {host_key} to 127.0.0.1, to 0.0.0.0 or to an address that this machine has."
    return Row("Doors", name, "problem", f"{shown}: {problem}", remedy)


def check_public_url(url: str, telephone: bool) -> Row:
    text, remedy = url, ""
    if not url and telephone:
        text = "none: Twilio cannot reach this bridge"
        remedy = "Set server.public_url to https:// and the host name that Twilio calls."
    elif not url:
        text = "none: only Twilio needs one"
    elif not url.startswith("https://"):
        text = f"{url}: for tests; Twilio wants https"
        remedy = "Set server.public_url to an https:// address."
    elif _private(urlsplit(url).hostname or ""):
        text = f"{url}: Twilio cannot reach a private address"
        remedy = "Set server.public_url to the address that the internet knows."
    return Row("Doors", "Public URL", "note" if remedy else "ok", text, remedy)


def _private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".localhost", ".internal"))


def check_folders(settings: Settings) -> Iterator[Row]:
    records = settings.log.records
    if records:
        yield check_folder("Records", records, "log.records")
    else:
        yield Row("Files", "Records", "ok", "log.records is not set: call records go to the log alone")
    if any(calls.record for calls in (settings.calls, *settings.numbers)):
        yield check_folder("Recordings", settings.calls.recordings, "calls.recordings")
    else:
        yield Row("Files", "Recordings", "ok", "calls are not recorded")
    if settings.calls.lost_sound:
        yield check_sound(settings.calls.lost_sound)


def check_sound(path: Path) -> Row:
    """Whether the sound that callers hear while the engine is away can be played."""
    try:
        samples, rate = wav.read(path)
    except (OSError, ValueError) as error:
        remedy = "Set calls.lost_sound to a WAV file, or leave it out for a short tone."
        return Row("Files", "Lost sound", "problem", str(error), remedy)
    return Row("Files", "Lost sound", "ok", f"{path}: {len(samples) / rate:.1f} s")


def check_folder(name: str, folder: Path, key: str) -> Row:
    """Whether files can be written to a folder, tried in it or in the one where it would be made."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        remedy = f"Set {key} to a folder that this user may write to."
        return Row("Files", name, "problem", f"{folder} cannot be written: {error.strerror}", remedy)
    text = f"{folder}: {size(free)} of disk free"
    if free < LOW_DISK:
        return Row("Files", name, "note", text, f"Make room, or set {key} to a folder on a larger disk.")
    return Row("Files", name, "ok", text)
