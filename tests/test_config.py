"""Settings: where they come from, which win, what is refused with which words."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from voice_bridge.bridge.config import ConfigError, Settings, is_loopback, load
from voice_bridge.bridge.config.load import CONFIG_VARIABLE

ACCOUNT = "AC" + "0" * 32
KEY_TEXT = "a-client-secret-of-more-than-32-bytes"
TOKEN = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": "a-twilio-token"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, so that errors name config.toml and nothing else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(toml: str = "", env: dict[str, str] | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    Path("config.toml").write_text(toml)
    return load(None, overrides, env or {})


def refused(toml: str = "", env: dict[str, str] | None = None, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(toml, env, overrides)
    return str(caught.value)


# Where settings come from


def test_without_a_file_the_defaults_hold() -> None:
    assert load(env={}) == Settings()


def test_each_source_beats_the_one_below_it() -> None:
    toml = '[server]\nport = 1\ndrain_seconds = 1\nadmin = "127.0.0.1:7"'
    env = {"VOICE_BRIDGE_SERVER__PORT": "2", "VOICE_BRIDGE_SERVER__DRAIN_SECONDS": "2.5"}
    server = loaded(toml, env, {"server.port": 3, "server.host": None}).server
    assert (server.port, server.drain_seconds, server.admin, server.host) == (
        3,
        2.5,
        "127.0.0.1:7",
        "127.0.0.1",
    )


def test_the_environment_of_the_process_is_used_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_BRIDGE_SERVER__PORT", "4321")
    assert load().server.port == 4321


def test_the_file_is_the_named_one_then_the_variables_then_the_working_folders() -> None:
    for port, name in enumerate(("config.toml", "variable.toml", "named.toml"), start=1):
        Path(name).write_text(f"[server]\nport = {port}")
    assert load(env={}).server.port == 1
    assert load(env={CONFIG_VARIABLE: "variable.toml"}).server.port == 2
    assert load(Path("named.toml"), env={CONFIG_VARIABLE: "variable.toml"}).server.port == 3


def test_the_environment_speaks_every_type() -> None:
    read = loaded(
        env={
            "VOICE_BRIDGE_CALLS__RECORD": "yes",
            "VOICE_BRIDGE_CALLS__IDLE_SECONDS": "12.5",
            "VOICE_BRIDGE_CALLS__DIGITS": '{"#": "hangup"}',
            "VOICE_BRIDGE_CALLS__GREETING": "12",
            "VOICE_BRIDGE_VOICE__MOSHI__DEVICE": "cpu",
            "VOICE_BRIDGE_LOG__RECORDS": "records",
            "VOICE_BRIDGE_NUMBERS": '[{"number": "+15551234567", "max_calls": 4}]',
        }
    )
    assert read.calls.record is True
    assert read.calls.idle_seconds == 12.5
    assert read.calls.digits == {"#": "hangup"}
    assert read.calls.greeting == "12"
    assert read.voice.moshi.device == "cpu"
    assert read.log.records == Path("records")
    assert read.for_number("+15551234567").max_calls == 4


def test_a_home_folder_is_found_and_an_empty_path_is_none() -> None:
    read = loaded('[log]\nrecords = "~/records"\n[calls]\nlost_sound = ""')
    assert read.log.records == Path.home() / "records"
    assert read.calls.lost_sound is None


# Secrets


def test_twilios_own_variables_count_and_ours_beat_them() -> None:
    assert loaded(env=TOKEN).twilio.auth_token == SecretStr("a-twilio-token")
    both = loaded(env=TOKEN | {"VOICE_BRIDGE_TWILIO__AUTH_TOKEN": "ours"})
    assert both.twilio.auth_token == SecretStr("ours")
    assert both.twilio.account_sid == ACCOUNT


def test_an_empty_variable_of_twilio_leaves_the_file_alone() -> None:
    toml = f'[twilio]\naccount_sid = "{ACCOUNT}"\nauth_token = "from the file"'
    assert loaded(toml, {"TWILIO_AUTH_TOKEN": ""}).twilio.auth_token == SecretStr("from the file")


def test_a_secret_is_read_from_its_file_without_the_line_end(folder: Path) -> None:
    (folder / "key").write_text(KEY_TEXT + "\n")
    assert loaded('[auth]\nsecret_file = "key"').auth.secret == SecretStr(KEY_TEXT)
    assert loaded(env={"VOICE_BRIDGE_AUTH__SECRET_FILE": "key"}).auth.secret == SecretStr(KEY_TEXT)


def test_a_secret_file_may_hold_several_of_which_the_first_is_the_newest(folder: Path) -> None:
    (folder / "key").write_text(f"{KEY_TEXT}\r\n\n {'o' * 32} \n")
    assert loaded('[auth]\nsecret_file = "key"').auth.secrets == (KEY_TEXT, "o" * 32)
    assert loaded().auth.secrets == ()


def test_no_secret_shows_in_text_of_the_settings() -> None:
    read = loaded(env=TOKEN | {"VOICE_BRIDGE_AUTH__SECRET": KEY_TEXT})
    for text in (repr(read), str(read), read.model_dump_json(), repr(read.twilio)):
        assert KEY_TEXT not in text
        assert "a-twilio-token" not in text


@pytest.mark.parametrize(
    ("toml", "env"),
    [
        ('[auth]\nsecret = "s3cr3t"', {}),
        ('[auth]\nsecret = ["s3cr3t"]', {}),
        ('[auth]\nsecret = "s3cr3t"\nsecret_file = "key"', {}),
        ('[auth]\nsecert = "s3cr3t"', {}),
        ('[twilio.auth_token]\nvalue = "s3cr3t"', {}),
        ('[twilio]\naccount_sid = "s3cr3t"', {}),
        ('auth = "s3cr3t"', {}),
        ('[server]\npublic_url = "https://me:s3cr3t@example.com"', {}),
        ("", {"VOICE_BRIDGE_AUTH__SECRET": "s3cr3t"}),
        ("", {"VOICE_BRIDGE_AUTH__SECRT": "s3cr3t"}),
        ("[server]\nport = 0.5", {"TWILIO_AUTH_TOKEN": "s3cr3t"}),
    ],
)
def test_no_error_shows_a_secret(toml: str, env: dict[str, str], folder: Path) -> None:
    (folder / "key").write_text(KEY_TEXT)
    with pytest.raises(ConfigError) as caught:
        loaded(toml, env)
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in f"{caught.value.__cause__} {caught.value.__context__}"


# What is refused

STRANGERS = (
    "lets strangers in: set twilio.auth_token (or TWILIO_AUTH_TOKEN) for calls or auth.secret for clients;"
    " to try it on this machine, keep host 127.0.0.1 and no public_url"
)
MISTAKES = [
    ("[server]\nprot = 1", "unknown key server.prot; did you mean server.port?"),
    ("[sever]\nport = 1", "unknown key sever; did you mean server?"),
    ("port = 1", "unknown key port; did you mean server.port?"),
    ("[voice.mosh]\ndevice = 'cpu'", "unknown key voice.mosh; did you mean voice.moshi?"),
    ("xyzzy = 1", "unknown key xyzzy; docs/configuration.md lists them all"),
    (
        '[[numbers]]\nnumber = "+15551234567"\ngreting = "hi"',
        "unknown key numbers[0].greting; did you mean numbers.greeting?",
    ),
    ("server = 1", "server is a section: write [server] and its keys below"),
    ('[server]\nport = "80"', 'server.port = "80": must be a whole number'),
    ("[server]\nport = true", "server.port = true: must be a whole number"),
    ("[calls]\npersona = 7", "calls.persona = 7: must be text in quotes"),
    ("[calls]\nrecord = 1", "calls.record = 1: must be true or false"),
    ("[log]\nrecords = 5", "log.records = 5: must be a path in quotes"),
    ("[server]\nport = 70000", "server.port = 70000: must be less than or equal to 65535"),
    ("[engine]\nslots = -1", "engine.slots = -1: must be greater than or equal to 0"),
    ("[calls]\nmax_minutes = 0", "calls.max_minutes = 0: must be greater than 0"),
    ("[calls]\nidle_seconds = inf", "calls.idle_seconds = Infinity: must be a finite number"),
    ('[log]\nformat = "xml"', "log.format = \"xml\": must be 'auto', 'console' or 'json'"),
    ('[calls]\napology = ""', 'calls.apology = "": must not be empty'),
    ('[calls]\nrecordings = ""', 'calls.recordings = "": must name a folder'),
    ('[calls]\nlost_sound = "no.wav"', 'calls.lost_sound = "no.wav": is not a file: correct the path'),
    (
        "[voice]\nsample_rate = 16000",
        "voice.sample_rate = 16000: the model works at 24 kHz: write 24000, calls are resampled to it",
    ),
    (
        '[calls]\nfallback_number = "0123"',
        'calls.fallback_number = "0123": must be a telephone number with its country code, as +15551234567',
    ),
    ('[calls.digits]\nx = "pass"', 'calls.digits.x = "x": must be one key of a telephone: 0 to 9, * or #'),
    (
        '[calls.digits]\n"1" = "transfer:123"',
        'calls.digits.1 = "transfer:123": must be "hangup", "forget", "pass" or "transfer:+15551234567"',
    ),
    (
        '[twilio]\naccount_sid = "SK12"',
        "twilio.account_sid: must be AC and 32 hexadecimal digits, as the Twilio console shows the Account SID",
    ),
    ('[auth]\nsecret = " "', "auth.secret: is blank: write a secret, or leave it out"),
    (
        f'[auth]\nsecret = "{KEY_TEXT}\\n\\ntiny"',
        "auth.secret: line 2 has 4 bytes, must have 32 or more: try `openssl rand -hex 32`",
    ),
    (
        '[auth]\nsecret = "-----BEGIN PUBLIC KEY-----"',
        "auth.secret: is a key in PEM: a public one belongs into auth.public_key_file, a secret is one line of text",
    ),
    (
        '[auth]\npublic_key_file = "no.pem"',
        'auth.public_key_file = "no.pem": is not a file: correct the path',
    ),
    (
        '[auth]\njwks_url = "http://id.example.com/keys"',
        'auth.jwks_url = "http://id.example.com/keys": must begin with https://; http:// is for this machine only',
    ),
    (
        '[auth]\njwks_url = "https://id.example.com/keys?a=1#b"',
        'auth.jwks_url = "https://id.example.com/keys?a=1#b": must have no fragment or space: take that part off',
    ),
    (
        '[auth]\njwks_url = "https://me:pw@id.example.com/"',
        'auth.jwks_url = "https://***@id.example.com/": must have no query, fragment, user name or space: take that'
        " part off",
    ),
    (
        '[auth]\njwks_url = "https://id.example.com/"\naudience = ""',
        'auth.audience = "": must not be empty',
    ),
    ('[auth]\nsecret = "tiny"', "auth.secret: has 4 bytes, must have 32 or more: try `openssl rand -hex 32`"),
    ("[[numbers]]\ngreeting = 'hi'", "numbers[0].number: is missing: add it"),
    (
        "[numbers]\nrecord = true",
        'numbers = {"record": true}: must be a list: write [[numbers]] above each entry',
    ),
    (
        '[[numbers]]\nnumber = "+15551234567"\n[[numbers]]\nnumber = "+15551234567"',
        'numbers[1].number = "+15551234567": is there twice: keep one entry',
    ),
    (
        '[server]\npublic_url = "http://example.com"',
        'server.public_url = "http://example.com": must begin with https://; http:// is for this machine only',
    ),
    (
        '[server]\npublic_url = "example.com"',
        'server.public_url = "example.com": must begin with https:// or http:// and name a host',
    ),
    (
        '[server]\npublic_url = "https://example.com/?a=1"',
        'server.public_url = "https://example.com/?a=1": must have no query, fragment, user name'
        " or space: take that part off",
    ),
    (
        '[voice]\nendpoint = "gpu:8998"',
        'voice.endpoint = "gpu:8998": must begin with wss:// or ws:// or https:// or http:// and name a host',
    ),
    ('[server]\nadmin = "localhost"', 'server.admin = "localhost": must be host:port, as 127.0.0.1:9090'),
    (
        '[server]\nadmin = "localhost:8080"',
        'server.admin = "localhost:8080": is the address of the bridge itself: take another port',
    ),
    (
        '[voice]\nprovider = "moshi-cloud"',
        'voice.provider = "moshi-cloud": needs voice.endpoint: set it, as wss://gpu.example.com',
    ),
    (
        f'[voice.cloud]\ntoken = "x"\nsecret = "{KEY_TEXT}"',
        "voice.cloud.secret: makes tokens, and voice.cloud.token is one: keep one of the two",
    ),
    (
        '[voice]\nendpoint = "wss://gpu"\n[[voice.cloud.endpoints]]\nurl = "wss://gpu"',
        'voice.cloud.endpoints[0].url = "wss://gpu": is there twice: keep one entry',
    ),
    (
        '[[voice.cloud.endpoints]]\nurl = "wss://gpu"\ntoken_file = "a"\nsecret_file = "b"',
        'voice.cloud.endpoints[0].secret_file = "b": makes tokens, and token_file has one: keep one of the two',
    ),
    (
        '[voice.cloud]\nendpoints = "wss://gpu"',
        'voice.cloud.endpoints = "wss://gpu": must be a list: write [[voice.cloud.endpoints]] above each entry',
    ),
    (
        '[[voice.cloud.endpoints]]\nurl = "wss://gpu"\nsecret_fil = "b"',
        "unknown key voice.cloud.endpoints[0].secret_fil; did you mean voice.cloud.endpoints.secret_file?",
    ),
    (
        '[voice.moshi]\ndevice = "cloud"',
        'voice.moshi.device = "cloud": needs voice.endpoint: set it, as wss://gpu.example.com',
    ),
    (
        f'[twilio]\naccount_sid = "{ACCOUNT}"',
        "twilio.account_sid: needs twilio.auth_token: set it too (or TWILIO_AUTH_TOKEN)",
    ),
    ('[server]\nhost = "0.0.0.0"', f'server.host = "0.0.0.0": {STRANGERS}'),
    (
        '[auth]\nsecret_file = "key"\nsecret = "tiny"',
        'auth.secret_file = "key": auth.secret is set too (config.toml): keep one of the two',
    ),
    (
        '[auth]\nsecret_file = "key"',
        'auth.secret_file = "key": cannot be read: No such file or directory; correct the path or its rights',
    ),
    ("[server]\nport = \n", "not valid TOML: Invalid value (at line 2, column 8)"),
]


@pytest.mark.parametrize(("toml", "message"), MISTAKES)
def test_a_mistake_in_the_file_is_one_line_with_its_remedy(toml: str, message: str) -> None:
    assert refused(toml) == f"config.toml: {message}"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"VOICE_BRIDGE_SERVER__PORT": "http"},
            'VOICE_BRIDGE_SERVER__PORT: server.port = "http": must be a whole number',
        ),
        (
            {"VOICE_BRIDGE_PORT": "80"},
            "VOICE_BRIDGE_PORT: unknown environment variable; did you mean VOICE_BRIDGE_SERVER__PORT?",
        ),
        (
            {"VOICE_BRIDGE_SERVER_PORT": "80"},
            "VOICE_BRIDGE_SERVER_PORT: unknown environment variable; did you mean VOICE_BRIDGE_SERVER__PORT?",
        ),
        ({"VOICE_BRIDGE_XYZZY": "80"}, "VOICE_BRIDGE_XYZZY: unknown environment variable; unset it"),
        (
            {"VOICE_BRIDGE_CALLS__DIGITS": "#=hangup"},
            "VOICE_BRIDGE_CALLS__DIGITS: is not JSON: write the table or list of config.toml as JSON",
        ),
        (
            {"VOICE_BRIDGE_NUMBERS": '[{"number": "+15551234567", "record": 1}]'},
            "VOICE_BRIDGE_NUMBERS: numbers[0].record = 1: must be true or false",
        ),
        (
            {"VOICE_BRIDGE_SERVER__PUBLIC_URL": "https://example.com"},
            f'VOICE_BRIDGE_SERVER__PUBLIC_URL: server.public_url = "https://example.com": {STRANGERS}',
        ),
        (
            TOKEN | {"VOICE_BRIDGE_TWILIO__AUTH_TOKEN_FILE": "token"},
            'VOICE_BRIDGE_TWILIO__AUTH_TOKEN_FILE: twilio.auth_token_file = "token": '
            "twilio.auth_token is set too (TWILIO_AUTH_TOKEN): keep one of the two",
        ),
        (
            {CONFIG_VARIABLE: "no.toml"},
            "no.toml: cannot read the configuration: No such file or directory; correct --config or "
            "VOICE_BRIDGE_CONFIG",
        ),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_the_environment_names_the_variable(env: dict[str, str], message: str) -> None:
    assert refused(env=env) == message


def test_a_mistake_on_the_command_line_says_so() -> None:
    assert refused(overrides={"server.port": 70000}).startswith("command line: server.port = 70000: must be less")
    assert refused(overrides={"server.prot": 1}) == "command line: unknown key server.prot; did you mean server.port?"
    with pytest.raises(ConfigError, match=r"^no\.toml: cannot read the configuration: No such file"):
        load(Path("no.toml"), env={})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n", "is empty: write the secret into it"),
        (b"\xff\xfe", "is not text: write the secret alone into it"),
    ],
)
def test_a_useless_secret_file_is_refused(content: bytes, problem: str, folder: Path) -> None:
    (folder / "key").write_bytes(content)
    assert refused('[auth]\nsecret_file = "key"') == f'config.toml: auth.secret_file = "key": {problem}'


def test_a_long_value_does_not_hide_the_remedy() -> None:
    message = refused(f'[calls]\nfallback_number = "{"9" * 5000}"')
    assert message.endswith("as +15551234567")
    assert len(message) < 250


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    section=st.sampled_from(["[server]", "[calls.digits]", "[voice.moshi]", "[new]"]),
    key=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters='"\\'), min_size=1),
    control=st.sampled_from(["", "\\n", "\\r", "\\u0085", "\\u2028", "\\u001c"]),
)
def test_whatever_the_key_the_error_is_one_line(section: str, key: str, control: str) -> None:
    message = refused(f'{section}\n"{key}{control}{key}" = []')
    assert len(message.splitlines()) == 1


# What the settings say


@pytest.mark.parametrize(
    ("toml", "env", "is_open"),
    [
        ("", {}, True),
        ('[server]\nhost = "localhost"', {}, True),
        ("", TOKEN, False),
        ("", {"VOICE_BRIDGE_AUTH__SECRET": KEY_TEXT}, False),
        ('[auth]\njwks_url = "https://id.example.com/keys?tenant=1"', {}, False),
        ('[auth]\npublic_key_file = "key.pem"', {}, False),
        ('[server]\nhost = "0.0.0.0"\n[auth]\njwks_url = "http://localhost:8000/keys/"', {}, False),
        ('[server]\nhost = "0.0.0.0"', TOKEN, False),
        ('[server]\npublic_url = "https://example.com"', {"VOICE_BRIDGE_AUTH__SECRET": KEY_TEXT}, False),
    ],
)
def test_open_mode_is_for_this_machine_without_any_way_to_know_others(
    toml: str, env: dict[str, str], is_open: bool
) -> None:
    Path("key.pem").touch()
    assert loaded(toml, env).open_mode is is_open


def test_a_public_url_loses_its_last_slash_and_may_be_plain_on_this_machine() -> None:
    assert loaded('[server]\npublic_url = "https://example.com/a/"', TOKEN).server.public_url == "https://example.com/a"
    assert loaded('[server]\npublic_url = "http://127.0.0.1:80"', TOKEN).server.public_url == "http://127.0.0.1:80"


@pytest.mark.parametrize(
    ("host", "admin", "collides"),
    [
        ("127.0.0.1", "127.0.0.1:8080", True),
        ("0.0.0.0", "127.0.0.1:8080", True),
        ("127.0.0.1", "[::]:8080", True),
        ("10.0.0.1", "10.0.0.2:8080", False),
        ("127.0.0.1", "127.0.0.1:9090", False),
    ],
)
def test_the_admin_address_must_be_another_one(host: str, admin: str, collides: bool) -> None:
    toml = f'[server]\nhost = "{host}"\nadmin = "{admin}"'
    if collides:
        assert "is the address of the bridge itself" in refused(toml, TOKEN)
    else:
        assert loaded(toml, TOKEN).server.admin_address == (admin.rpartition(":")[0], int(admin[-4:]))


def test_two_free_ports_never_collide() -> None:
    assert loaded('[server]\nport = 0\nadmin = "127.0.0.1:0"').server.admin_address == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("provider", "device", "engine"),
    [
        ("auto", "", "auto"),
        ("auto", "cloud", "moshi-cloud"),
        ("moshi", "cloud", "moshi-cloud"),
        ("moshi", "cuda", "moshi"),
        ("moshi-cloud", "", "moshi-cloud"),
        ("echo", "cloud", "echo"),
    ],
)
def test_the_device_cloud_means_moshi_somewhere_else(provider: str, device: str, engine: str) -> None:
    toml = f'[voice]\nprovider = "{provider}"\nendpoint = "wss://gpu"\n[voice.moshi]\ndevice = "{device}"'
    assert loaded(toml).voice.engine == engine


def test_endpoints_are_those_of_the_list_behind_the_one_and_say_when_they_are_in_the_clear() -> None:
    read = loaded(
        '[voice]\nendpoint = "wss://a"\n[[voice.cloud.endpoints]]\nurl = "ws://b"\n'
        '[[voice.cloud.endpoints]]\nurl = "http://127.0.0.1:8998/api/chat"'
    )
    assert [entry.url for entry in read.voice.endpoints] == ["wss://a", "ws://b", "http://127.0.0.1:8998/api/chat"]
    assert read.notes == ["calls, and the token, go to ws://b unencrypted: wss:// hides them"]


def test_another_engine_on_the_command_line_needs_no_endpoint() -> None:
    assert loaded('[voice.moshi]\ndevice = "cloud"', overrides={"voice.provider": "echo"}).voice.engine == "echo"


def test_max_steps_is_accepted_with_a_note() -> None:
    assert loaded().notes == []
    assert loaded("[voice]\nmax_steps = 5").notes == ["voice.max_steps has no effect on calls; it limits `infer`"]


def test_a_number_changes_what_it_sets_and_nothing_else() -> None:
    read = loaded(
        '[calls]\ngreeting = "hello"\nmax_minutes = 5\nmax_calls = 9\nrecord = true\n'
        '[calls.digits]\n"1" = "pass"\n'
        '[[numbers]]\nnumber = "+15551234567"\nmax_minutes = 60\nmax_calls = 2\nrecord = false\n'
        'digits = { "#" = "hangup" }'
    )
    own = read.for_number("+15551234567")
    assert (own.greeting, own.max_minutes, own.max_calls, own.record) == ("hello", 60, 2, False)
    assert own.digits == {"#": "hangup"}
    assert read.calls.max_calls == 9
    assert read.for_number("+15550000000") == read.calls


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loaded().server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "")],
)
def test_loopback_is_this_machine_only(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_the_module_is_quick_to_import() -> None:
    """pydantic alone, no settings framework or toolkit behind it: every verb pays for this import."""
    code = "import sys, voice_bridge.bridge.config; print(*{name.split('.')[0] for name in sys.modules})"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"pydantic", "tomllib"} <= set(names)
    assert not {"pydantic_settings", "numpy", "aiohttp", "twilio", "dotenv"} & set(names)


def test_what_an_engine_is_given_is_as_it_was_set() -> None:
    moshi = 'weights = "int8"\nkeys = "bf16"\nthreads = 3\nvoice = "ada.wav"\ntrace = "tokens.jsonl"'
    given = loaded(f'[voice]\nmodel = "kyutai/moshika-mlx-q4"\n[voice.moshi]\n{moshi}').voice.options
    assert given == {
        "model": "kyutai/moshika-mlx-q4",
        "weights": "int8",
        "keys": "bf16",
        "threads": 3,
        "voice": "ada.wav",
        "trace": "tokens.jsonl",
    }
    assert loaded("").voice.options == {"model": "", "weights": "", "keys": "", "threads": 0, "voice": "", "trace": ""}
