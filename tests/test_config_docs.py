"""The guide and the shipped config.toml say what the code does: every key, default, variable and meaning."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from voice_bridge.bridge.config import Number, Settings, load
from voice_bridge.bridge.config.base import Section
from voice_bridge.bridge.config.load import CONFIG_VARIABLE, KEYS, VARIABLES, Key
from voice_bridge.bridge.config.voice import CloudEndpoint

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/configuration.md").read_text()
SHIPPED = (ROOT / "config.toml").read_text()
# Lists of tables have a part of their own.
TABLES = [("numbers",), ("voice", "cloud", "endpoints")]
PLAIN_KEYS = [key for key in KEYS if key not in TABLES]
TOKEN = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "a-twilio-token"}


def loaded(toml: str, folder: Path, env: dict[str, str] | None = None) -> Settings:
    (folder / "config.toml").write_text(toml)
    return load(folder / "config.toml", env=env or {})


def field(key: Key) -> FieldInfo:
    *sections, name = key
    model: Any = Settings
    for section in sections:
        model = model.model_fields[section].annotation
    return model.model_fields[name]  # type: ignore[no-any-return]


def default(key: Key) -> str:
    """A default as TOML has it."""
    value = field(key).default
    if value is None or isinstance(value, SecretStr):
        return '""'
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def test_the_guide_has_every_key_with_its_default_variable_and_meaning_and_no_other() -> None:
    section, found = "", []
    for line in GUIDE.splitlines():
        if heading := re.fullmatch(r"### \[([a-z.]+)\]", line):
            section = heading[1]
        elif re.match(r"\| `\w+` \| `.*` \| `VOICE_BRIDGE_", line):
            found.append(f"[{section}] {line}")
    variables = {key: name for name, key in VARIABLES.items()}
    assert found == [
        f"[{'.'.join(key[:-1])}] | `{key[-1]}` | `{default(key)}` | `{variables[key]}` | {field(key).description} |"
        for key in PLAIN_KEYS
    ]


@pytest.mark.parametrize(("table", "entry"), [("numbers", Number), ("voice.cloud.endpoints", CloudEndpoint)])
def test_the_guide_lists_what_an_entry_may_set(table: str, entry: type[Section]) -> None:
    listed = re.findall(r"`(\w+)`[,.]", GUIDE.split(f"### [[{table}]]")[1].split("\n\n")[2])
    assert sorted(listed) == sorted(entry.model_fields)


def test_every_variable_in_the_guide_exists() -> None:
    named = set(re.findall(r"VOICE_BRIDGE_[A-Z_]*[A-Z]", GUIDE))
    assert named == {*VARIABLES, CONFIG_VARIABLE}


def test_every_example_of_the_guide_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        text = example.replace("/etc/voice-bridge", str(tmp_path))
        for path in re.findall(r'_file = "(.*)"', text):
            Path(path).write_text("a-secret-of-more-than-thirty-two-bytes")
        loaded(text, tmp_path, {} if "auth_token_file" in text else TOKEN)


def test_the_shipped_file_is_the_defaults_with_every_key_explained(tmp_path: Path) -> None:
    assert loaded(SHIPPED, tmp_path) == Settings()
    for key in PLAIN_KEYS:
        line = "[calls.digits]" if key == ("calls", "digits") else f"{key[-1]} = {default(key)}"
        assert f"# {field(key).description}\n{line}\n" in SHIPPED
    written = tomllib.loads(SHIPPED)
    for key in PLAIN_KEYS:
        table = written
        for part in key:
            assert part in table, key
            table = table[part]


def test_what_the_shipped_file_shows_commented_out_works(tmp_path: Path) -> None:
    read = loaded(re.sub(r"^#(?=\S)", "", SHIPPED, flags=re.MULTILINE), tmp_path)
    assert set(read.calls.digits) == {"#", "0"}
    assert [entry.number for entry in read.numbers] == ["+15551234567"]
    assert [entry.url for entry in read.voice.cloud.endpoints] == ["wss://gpu1.example.com"]
