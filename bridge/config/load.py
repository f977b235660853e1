"""Where settings come from, and the one line that says which of them is wrong."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, get_origin

from pydantic import SecretStr, TypeAdapter, ValidationError

from .base import Clash, Place, Section
from .schema import Number, Settings
from .voice import CloudEndpoint

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "VOICE_BRIDGE_"
CONFIG_VARIABLE = "VOICE_BRIDGE_CONFIG"
TOKEN_VARIABLE = "VOICE_BRIDGE_TOKEN"  # a client's, for `talk`; no setting of a bridge
# A whole persona in an error line would hide the remedy.
LONGEST_SHOWN = 80

Key: TypeAlias = tuple[str, ...]
Given: TypeAlias = dict[Key, tuple[Any, str]]
"""What was set: each key's value and the place it comes from."""


class ConfigError(Exception):
    """A setting that cannot work. The message is one line and never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings, or raise `ConfigError`.

    `overrides` come from the command line, are named "server.port" and win over the environment, which wins
    over the file; those that are None count as not given. Without `config` the file is the one that
    VOICE_BRIDGE_CONFIG names, else config.toml in the working folder if there is one.
    """
    env = os.environ if env is None else env
    given = _from_file(config, env) | _from_environment(env) | _from_overrides(overrides or {})
    _take_in_openai(given, env)
    _read_secrets(given)
    try:
        return Settings.model_validate(_nested(given))
    except ValidationError as error:
        message = _explain(error.errors()[0], given)
    raise ConfigError(message)  # outside of the handler: the other error holds the values, secrets too


def _keys(model: type[Section], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every key of the file with its type; a list, or a table with free names, is one key."""
    for name, field in model.model_fields.items():
        key = (*prefix, name)
        if _is_section(field.annotation):
            yield from _keys(field.annotation, key)
        else:
            yield key, field.annotation


def _is_section(kind: Any) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


def _variable(key: Key) -> str:
    return PREFIX + "__".join(key).upper()


KEYS = dict(_keys(Settings))
VARIABLES = {_variable(key): key for key in KEYS}
# Under these names people have them already; a name of ours beats them.
FAMILIAR = {"TWILIO_ACCOUNT_SID": ("twilio", "account_sid"), "TWILIO_AUTH_TOKEN": ("twilio", "auth_token")}
OPENAI = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
# The settings that ask for a language model, with what they say then, and where it is set.
LLMS: dict[Key, Key] = {
    ("memory", "thinker"): ("memory", "llm"),
    ("voice", "cascade", "wits"): ("voice", "cascade", "llm"),
}
WANT_LLM = ("llm", "hybrid")
OPENAI_URL = "https://api.openai.com/v1"
SECRETS = [key for key, kind in KEYS.items() if kind is SecretStr]
# Never shown in an error; people paste the token where the SID belongs.
HIDDEN = [*SECRETS, ("twilio", "account_sid")]


def _from_file(config: Path | None, env: Mapping[str, str]) -> Given:
    named = config or env.get(CONFIG_VARIABLE)
    path = Path(os.path.expanduser(named or "config.toml"))
    if not named and not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        problem = f"cannot read the configuration: {error.strerror}"
        raise ConfigError(f"{path}: {problem}; correct --config or {CONFIG_VARIABLE}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return {key: (value, str(path)) for key, value in _flat(table, Settings, str(path))}


def _flat(table: dict[str, Any], model: type[Section], source: str, prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        key = (*prefix, name)
        field = model.model_fields.get(name)
        if field is None or not _is_section(field.annotation):
            yield key, value
        elif isinstance(value, dict):
            yield from _flat(value, field.annotation, source, key)
        else:
            raise ConfigError(f"{source}: {_dotted(key)} is a section: write [{_dotted(key)}] and its keys below")


def _from_environment(env: Mapping[str, str]) -> Given:
    given: Given = {key: (env[name], name) for name, key in FAMILIAR.items() if env.get(name)}
    for name, text in env.items():
        if not name.startswith(PREFIX) or name in (CONFIG_VARIABLE, TOKEN_VARIABLE):
            continue
        if name not in VARIABLES:
            meant = _nearest(name.removeprefix(PREFIX).replace("__", "."), map(_dotted, KEYS))
            remedy = f"did you mean {_variable(tuple(meant.split('.')))}?" if meant else "unset it"
            raise ConfigError(f"{name}: unknown environment variable; {remedy}")
        key = VARIABLES[name]
        given[key] = (_parsed(text, KEYS[key], name), name)
    return given


def _parsed(text: str, kind: Any, name: str) -> Any:
    """Text of the environment as what the file would have; what does not fit stays text and is refused."""
    if get_origin(kind) in (dict, list):
        try:
            return json.loads(text)
        except ValueError:
            raise ConfigError(f"{name}: is not JSON: write the table or list of config.toml as JSON") from None
    if kind in (bool, int, float):
        with suppress(ValidationError):
            return TypeAdapter(kind).validate_strings(text)
    return text


def _take_in_openai(given: Given, env: Mapping[str, str]) -> None:
    """What other programs on this machine use too: only where a language model is wanted, and nothing else is said.

    The key goes nowhere but to the address that it belongs to.
    """
    key, address = env.get("OPENAI_API_KEY"), env.get("OPENAI_BASE_URL")
    address = address or (OPENAI_URL if key else "")
    if not address:
        return
    for asks, llm in LLMS.items():
        if given.get(asks, ("", ""))[0] not in WANT_LLM:
            continue
        url, _ = given.setdefault((*llm, "url"), (address, "OPENAI_BASE_URL"))
        if key and str(url).rstrip("/") == address.rstrip("/") and (*llm, "key_file") not in given:
            given.setdefault((*llm, "key"), (key, "OPENAI_API_KEY"))


def _from_overrides(overrides: Mapping[str, Any]) -> Given:
    given: Given = {}
    for name, value in overrides.items():
        key = tuple(name.split("."))
        if key not in KEYS:
            raise ConfigError(f"command line: unknown key {name}; {_meant(key)}")
        if value is not None:
            given[key] = (value, "command line")
    return given


def _read_secrets(given: Given) -> None:
    """Put what each `..._file` holds under the key of the secret."""
    for key in SECRETS:
        file_key = (*key[:-1], f"{key[-1]}_file")
        path, file_source = given.get(file_key, ("", ""))
        if not path or not isinstance(path, str | Path):
            continue
        here = f"{file_source}: {_dotted(file_key)} = {_shown(path)}"
        value, source = given.get(key, ("", ""))
        if value:
            raise ConfigError(f"{here}: {_dotted(key)} is set too ({source}): keep one of the two")
        try:
            text = Path(os.path.expanduser(path)).read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{here}: cannot be read: {error.strerror}; correct the path or its rights") from None
        except ValueError:
            raise ConfigError(f"{here}: is not text: write the secret alone into it") from None
        if not text:
            raise ConfigError(f"{here}: is empty: write the secret into it")
        given[key] = (text, str(path))


def _nested(given: Given) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*sections, name), (value, _) in given.items():
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value
    return tree


# Words for what pydantic says less plainly.
PLAIN = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text in quotes",
    "dict_type": "must be a table",
    "list_type": "must be a list: write [[{key}]] above each entry",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "missing": "is missing: add it",
}


def _explain(error: ErrorDetails, given: Given) -> str:
    cause = error.get("ctx", {}).get("error")
    # pydantic names a wrong key of a table as (..., key, "[key]")
    place: Place = cause.place if isinstance(cause, Clash) else tuple(p for p in error["loc"] if p != "[key]")
    key = next(key for key in given if key == place[: len(key)])
    value, source = given[key]
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key {_dotted(place)}; {_meant(place)}"
    if isinstance(cause, Clash):
        for part in place[len(key) :]:
            value = value[part]
    else:
        value = error["input"]
    hidden = key in HIDDEN or error["type"] == "missing"
    plain = PLAIN.get(error["type"], "").replace("{key}", _dotted(place))
    problem = str(cause or plain or re.sub("^Input should", "must", error["msg"]))
    return f"{source}: {_dotted(place)}{'' if hidden else f' = {_shown(value)}'}: {problem}"


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _shown(value: Any) -> str:
    """A value as the file would have it: short, and without the password of an address."""
    text = re.sub(r"//[^/@]*@", "//***@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _meant(place: Place) -> str:
    sections = {_dotted(key[:depth]) for key in KEYS for depth in range(1, len(key))}
    entries = [f"numbers.{name}" for name in Number.model_fields]
    entries += [f"voice.cloud.endpoints.{name}" for name in CloudEndpoint.model_fields]
    name = ".".join(part for part in place if isinstance(part, str))
    meant = _nearest(name, [*map(_dotted, KEYS), *sections, *entries])
    return f"did you mean {meant}?" if meant else "docs/configuration.md lists them all"


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant: spelled nearly so, or the same key in some section."""
    names, name = list(known), name.lower()
    found = difflib.get_close_matches(name, names, n=1) or [other for other in names if other.endswith(f".{name}")]
    return found[0] if found else ""
