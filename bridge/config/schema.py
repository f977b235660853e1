"""What can be set. A description is also the text of that key in docs/configuration.md and config.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from .base import Clash, Place, Section
from .kinds import (
    AccountSid,
    Count,
    Digits,
    Duration,
    ExistingFile,
    Folder,
    HostPort,
    KeysUrl,
    KnownGreeting,
    MaybePath,
    Phone,
    Sentence,
    SigningKeys,
    WebUrl,
    host_port,
    in_the_clear,
    is_loopback,
    secrets_of,
)
from .memory import Memory
from .voice import Voice


class Server(Section):
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; 0.0.0.0 is every network.",
    )
    port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="Port of webhooks, streams and console; 0 takes any free one.",
    )
    public_url: WebUrl = Field(
        default="",
        description="How Twilio reaches this bridge: https://host, no query. Signatures are checked on it.",
    )
    admin: HostPort = Field(
        default="",
        description="host:port of a second address, for metrics, console and operators; keep it private.",
    )
    drain_seconds: float = Field(
        default=120.0,
        ge=0,
        allow_inf_nan=False,
        description="How long a stopping bridge lets live calls go on.",
    )

    @property
    def admin_address(self) -> tuple[str, int] | None:
        return host_port(self.admin) if self.admin else None


class Log(Section):
    format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="console for people, json for machines; auto is console on a terminal.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least that is logged: debug, info, warning or error.",
    )
    records: MaybePath = Field(
        default=None,
        description="Folder for call records, a JSON line a call in calls-YYYY-MM-DD.jsonl; empty is none.",
    )


class Auth(Section):
    """How clients are known; tokens by secrets, public keys and a JWKS are taken side by side."""

    secret: SigningKeys = Field(
        default=SecretStr(""),
        description="Key that client tokens are signed with (HS256), 32 bytes or more. Secret.",
    )
    secret_file: MaybePath = Field(
        default=None,
        description="File that holds auth.secret, or several, a line each, newest first; read again when changed.",
    )
    public_key_file: ExistingFile = Field(
        default=None,
        description="Public key (PEM) of whoever makes tokens with RS256, ES256 or EdDSA; read again when changed.",
    )
    jwks_url: KeysUrl = Field(
        default="",
        description="https:// address of the public keys (JWKS) of an identity provider.",
    )
    audience: str = Field(
        default="voice-bridge",
        min_length=1,
        description="The audience that a client token must name.",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """All are accepted, and the first one makes tokens."""
        return secrets_of(self.secret.get_secret_value())

    @property
    def takes_tokens(self) -> bool:
        return bool(self.secret or self.public_key_file or self.jwks_url)


class Twilio(Section):
    account_sid: AccountSid = Field(
        default="",
        description="Account SID; also read from TWILIO_ACCOUNT_SID.",
    )
    auth_token: SecretStr = Field(
        default=SecretStr(""),
        description="Auth token; also read from TWILIO_AUTH_TOKEN. Secret.",
    )
    auth_token_file: MaybePath = Field(default=None, description="File that holds twilio.auth_token.")
    enforce_handshake: bool = Field(
        default=False,
        description="Refuse streams whose handshake is not signed; otherwise that is only logged.",
    )
    api_url: WebUrl = Field(
        default="https://api.twilio.com",
        min_length=1,
        description="Address of Twilio's REST API.",
    )
    on_machine: Literal["talk", "hangup"] = Field(
        default="talk",
        description="What to do when an answering machine takes our call: talk or hangup.",
    )
    caller_id: Phone = Field(default="", description="Our number on outbound calls and transfers.")


class Answering(Section):
    """How calls are answered: [calls] says it for all numbers, [[numbers]] for one."""

    greeting: str = Field(
        default="",
        description="What the agent says first; empty lets the model begin.",
    )
    greeting_known: KnownGreeting = Field(
        default="",
        description="What the agent says first to a caller whose {name} memory knows; empty is greeting.",
    )
    interruptible: bool = Field(
        default=True,
        description="Whether a caller who speaks up cuts the greeting short.",
    )
    persona: str = Field(
        default="",
        description="Who the agent is, given to the model before the call begins.",
    )
    max_minutes: Duration = Field(default=60.0, description="The longest that a call may last.")
    idle_seconds: Duration = Field(
        default=300.0,
        description="A call in which nobody speaks for so long is ended.",
    )
    max_calls: Count = Field(
        default=0,
        description="Calls at once; 0 is as many as the engine offers.",
    )
    max_per_caller: Count = Field(
        default=2,
        description="Calls at once from one caller's number; 0 is no limit.",
    )
    busy: Literal["reject", "say"] = Field(
        default="reject",
        description="When full: reject with the busy tone (costs nothing) or say busy_sentence.",
    )
    busy_sentence: Sentence = Field(
        default="All lines are busy. Please call again later.",
        description="Said when full and busy is say.",
    )
    apology: Sentence = Field(
        default="Sorry, something went wrong. Please call again later.",
        description="Said when a call fails on our side.",
    )
    fallback_number: Phone = Field(
        default="",
        description="Where a failed call is put through to, after the apology; empty ends it.",
    )
    record: bool = Field(
        default=False,
        description="Record calls as stereo WAV: caller left, agent right.",
    )
    remember: bool = Field(
        default=True,
        description="Whether what callers say is remembered, where memory is on.",
    )
    forgotten: Sentence = Field(
        default="I have forgotten everything that you told me.",
        description="Said when a key made the bridge forget its caller.",
    )
    digits: Digits = Field(
        default={},
        description='What a key does: "hangup", "forget" (the caller), "transfer:+15551234567" or "pass"; others are'
        " passed on.",
    )


class Calls(Answering):
    reserve_seconds: Duration = Field(
        default=15.0,
        description="How long a slot is kept between the webhook and the stream.",
    )
    recordings: Folder = Field(
        default=Path("recordings"),
        description="Folder for recordings.",
    )
    lost_sound: ExistingFile = Field(
        default=None,
        description="WAV played while a lost engine comes back; empty is a short tone.",
    )


class Number(Answering):
    """One entry of [[numbers]]; only what it sets counts, so ask `Settings.for_number`."""

    number: Annotated[Phone, Field(min_length=1)] = Field(description="The number that callers dial.")


class EngineLimits(Section):
    slots: Count = Field(
        default=0,
        description="Upper bound of calls at once; 0 is what the engine measures.",
    )


class Settings(Section):
    server: Server = Server()
    log: Log = Log()
    auth: Auth = Auth()
    twilio: Twilio = Twilio()
    calls: Calls = Calls()
    memory: Memory = Memory()
    engine: EngineLimits = EngineLimits()
    voice: Voice = Voice()
    numbers: list[Number] = Field(default=[])

    def for_number(self, number: str) -> Calls:
        """How calls to `number` are answered: [calls] with what its entry sets instead.

        `max_calls` is then the limit of that number; that of the whole bridge is `settings.calls.max_calls`.
        """
        for entry in self.numbers:
            if entry.number == number:
                own = {name: getattr(entry, name) for name in entry.model_fields_set - {"number"}}
                return self.calls.model_copy(update=own)
        return self.calls

    @property
    def open_mode(self) -> bool:
        """Nobody can prove who they are, so loopback only and no public_url: the doors must keep everyone else out."""
        return not (self.twilio.auth_token or self.auth.takes_tokens)

    @property
    def has_api(self) -> bool:
        """Whether there is something elsewhere to fall back on."""
        return bool(self.voice.endpoints)

    @property
    def notes(self) -> list[str]:
        """Lines for the start to print once: what is set and does nothing, or not what one may think."""
        notes = ["voice.max_steps has no effect on calls; it limits `infer`"] if self.voice.max_steps else []
        clear = [entry.url for entry in self.voice.endpoints if in_the_clear(entry.url)]
        return notes + [f"calls, and the token, go to {url} unencrypted: wss:// hides them" for url in clear]

    @property
    def _way_in(self) -> Place:
        """The setting by which strangers reach the bridge; () when only this machine does."""
        if self.server.public_url:
            return ("server", "public_url")
        return () if is_loopback(self.server.host) else ("server", "host")

    @model_validator(mode="after")
    def _memory_works_together(self) -> Settings:
        memory = self.memory
        if memory.thinker != "rules" and not memory.llm.url:
            raise Clash(("memory", "thinker"), "needs memory.llm.url: set it, as http://127.0.0.1:11434/v1")
        if memory.fallback.url and not memory.fallback.model:
            raise Clash(("memory", "fallback", "url"), "needs memory.fallback.model: name the model to ask for")
        if memory.fallback.model and not memory.fallback.url:
            raise Clash(("memory", "fallback", "model"), "needs memory.fallback.url: set it too")
        if "://" in memory.store and memory.encryption:
            raise Clash(("memory", "encryption"), "encrypts a file: leave it out, a server keeps its own")
        if memory.enabled == "off":
            for key, calls in (("calls", self.calls), *((f"number {each.number}", each) for each in self.numbers)):
                if "forget" in calls.digits.values():
                    raise Clash(("memory", "enabled"), f"leaves nothing to forget: take the digit out of {key}")
        if "://" in memory.store and not memory.key:
            raise Clash(("memory", "store"), "needs memory.key: bridges that share a store must share it too")
        return self

    @model_validator(mode="after")
    def _cloud_works_together(self) -> Settings:
        voice, cloud = self.voice, self.voice.cloud
        if voice.engine == "moshi-cloud" and not voice.endpoints:
            asked = ("provider",) if voice.provider == "moshi-cloud" else ("moshi", "device")
            raise Clash(("voice", *asked), "needs voice.endpoint: set it, as wss://gpu.example.com")
        if cloud.token and cloud.secret:
            raise Clash(("voice", "cloud", "secret"), "makes tokens, and voice.cloud.token is one: keep one of the two")
        taken = {voice.endpoint}
        for index, entry in enumerate(cloud.endpoints):
            place = ("voice", "cloud", "endpoints", index)
            if entry.url in taken:
                raise Clash((*place, "url"), "is there twice: keep one entry")
            if entry.token_file and entry.secret_file:
                raise Clash((*place, "secret_file"), "makes tokens, and token_file has one: keep one of the two")
            taken.add(entry.url)
        return self

    @model_validator(mode="after")
    def _works_together(self) -> Settings:
        token, account = self.twilio.auth_token, self.twilio.account_sid
        if self._way_in and self.open_mode:
            raise Clash(
                self._way_in,
                "lets strangers in: set twilio.auth_token (or TWILIO_AUTH_TOKEN) for calls or auth.secret for"
                " clients; to try it on this machine, keep host 127.0.0.1 and no public_url",
            )
        if account and not token:
            raise Clash(("twilio", "account_sid"), "needs twilio.auth_token: set it too (or TWILIO_AUTH_TOKEN)")
        cascade = self.voice.cascade
        if cascade.wits == "llm" and not cascade.llm.url:
            place = ("voice", "cascade", "wits")
            raise Clash(place, "needs voice.cascade.llm.url: set it, as http://127.0.0.1:11434/v1")
        if cascade.llm.url and not cascade.llm.model:
            raise Clash(("voice", "cascade", "llm", "url"), "needs voice.cascade.llm.model: name the model to ask for")
        if _same_address(self.server):
            raise Clash(("server", "admin"), "is the address of the bridge itself: take another port")
        taken: set[str] = set()
        for index, entry in enumerate(self.numbers):
            if entry.number in taken:
                raise Clash(("numbers", index, "number"), "is there twice: keep one entry")
            taken.add(entry.number)
        return self


def _same_address(server: Server) -> bool:
    """Whether the admin address would collide with the main one; port 0 never does."""
    if not server.admin_address:
        return False
    host, port = server.admin_address
    hosts = {host, server.host}
    overlap = len(hosts) == 1 or not hosts.isdisjoint({"0.0.0.0", "::"}) or all(map(is_loopback, hosts))
    return port == server.port != 0 and overlap
