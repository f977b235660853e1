"""What can be set of memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from .base import Section
from .kinds import ApiUrl, Count, EmbedderName, MaybePath, SigningKey, StorePlace


class Llm(Section):
    """A language model that judges which memories matter."""

    url: ApiUrl = Field(
        default="",
        description="OpenAI-compatible API, as http://127.0.0.1:11434/v1; else OPENAI_BASE_URL is taken.",
    )
    model: str = Field(
        default="",
        description="Model to ask for; empty is the one for this machine's level, which `doctor` shows.",
    )
    key: SecretStr = Field(
        default=SecretStr(""),
        description="API key; else OPENAI_API_KEY, for the address that it belongs to. Secret.",
    )
    key_file: MaybePath = Field(default=None, description="File that holds memory.llm.key.")
    seconds: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The longest that an answer is waited for; 0 is by level. After that the rules decide.",
    )


class Fallback(Section):
    """Another one, asked when that one fails."""

    url: ApiUrl = Field(default="", description="OpenAI-compatible API that is asked when memory.llm fails.")
    model: str = Field(default="", description="Model to ask it for.")
    key: SecretStr = Field(default=SecretStr(""), description="Its API key. Secret.")
    key_file: MaybePath = Field(default=None, description="File that holds memory.fallback.key.")


class Memory(Section):
    enabled: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="on, off, or auto: on where it is installed.",
    )
    store: StorePlace = Field(
        default="memory.db",
        description="File of what is remembered, or a libSQL server that several bridges share: libsql://host.",
    )
    token: SecretStr = Field(default=SecretStr(""), description="Token of the libSQL server. Secret.")
    token_file: MaybePath = Field(default=None, description="File that holds memory.token.")
    encryption: SigningKey = Field(
        default=SecretStr(""),
        description="Key that the file is encrypted with, 32 bytes or more; empty leaves it in the clear. Secret.",
    )
    encryption_file: MaybePath = Field(default=None, description="File that holds memory.encryption.")
    key: SigningKey = Field(
        default=SecretStr(""),
        description="Key that callers' numbers are hashed with, 32 bytes or more; empty is one made beside the file."
        " Secret.",
    )
    key_file: MaybePath = Field(default=None, description="File that holds memory.key.")
    retention_days: float = Field(
        default=365.0,
        ge=0,
        allow_inf_nan=False,
        description="How long a memory is kept; 0 is for ever.",
    )
    explain_days: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long is kept what `memory explain` shows: what was heard, and what came to mind; 0 is as long"
        " as memories.",
    )
    ear: Literal["moonshine", "kyutai", "off"] = Field(
        default="moonshine",
        description="What transcribes callers: moonshine, kyutai (wants a GPU), or off. The cascade has an ear of its"
        " own.",
    )
    ear_model: str = Field(
        default="kyutai/stt-1b-en_fr",
        description="Folder or repository of the model of the ear kyutai.",
    )
    embedder: EmbedderName = Field(
        default="wordllama",
        description="wordllama, https://host/v1#model (an OpenAI-compatible API) or sentence-transformers:NAME.",
    )
    embedder_key: SecretStr = Field(default=SecretStr(""), description="API key of that embedder. Secret.")
    embedder_key_file: MaybePath = Field(default=None, description="File that holds memory.embedder_key.")
    thinker: Literal["rules", "llm", "hybrid"] = Field(
        default="rules",
        description="What judges memories: rules, llm (a model behind memory.llm.url), or hybrid (llm where unsure).",
    )
    injection: Literal["silent", "add_to_input", "spoken"] = Field(
        default="silent",
        description="How the model is reminded: silent (it reads), add_to_input (it senses) or spoken (it says it). The"
        " cascade reads.",
    )
    share: float = Field(
        default=0.1,
        gt=0,
        le=0.25,
        description="The most of the model's context that reminders may take in a call.",
    )
    standing: Count = Field(
        default=8,
        description="How many of a caller's most important facts a call begins with; 0 is none.",
    )
    llm: Llm = Llm()
    fallback: Fallback = Fallback()
