"""What can be set of the engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from .base import Section
from .kinds import MODEL_RATE, ApiUrl, Count, EngineUrl, MaybePath, ModelRate, SigningKeys


class Moshi(Section):
    device: Literal["", "mlx", "cuda", "cpu", "cloud"] = Field(
        default="",
        description="Where Moshi runs: mlx, cuda, cpu, or cloud (is moshi-cloud); empty finds out.",
    )
    weights: Literal["", "bf16", "int8", "int4", "fp8", "float32"] = Field(
        default="",
        description="What weights are kept as: bf16, int8, int4, fp8 or float32; empty is the best that fits.",
    )
    keys: Literal["", "bf16", "int8", "float32"] = Field(
        default="",
        description="What a call's keys and values are kept as: bf16, int8 or float32; empty is the best that fits.",
    )
    threads: Count = Field(
        default=0,
        description="Threads on the CPU; 0 is all cores but one.",
    )
    voice: MaybePath = Field(
        default=None,
        description="WAV of the voice to speak with, for PersonaPlex models; empty is the model's own.",
    )
    trace: MaybePath = Field(
        default=None,
        description="File to which the tokens of every step are appended, for finding faults; what was said can be"
        " read from it.",
    )


class Llm(Section):
    """A language model that the cascade thinks with."""

    url: ApiUrl = Field(
        default="",
        description="OpenAI-compatible API of the wits llm, as http://127.0.0.1:11434/v1; else"
        " OPENAI_BASE_URL is taken.",
    )
    model: str = Field(default="", description="Model to ask it for, as qwen2.5:3b.")
    key: SecretStr = Field(
        default=SecretStr(""),
        description="Its API key; else OPENAI_API_KEY, for the address that it belongs to. Secret.",
    )
    key_file: MaybePath = Field(default=None, description="File that holds voice.cascade.llm.key.")
    seconds: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The longest that its first word is waited for; 0 is 4 seconds. After that the caller is told.",
    )


class Cascade(Section):
    """The engine of ears, wits and a mouth, for machines without a GPU."""

    wits: Literal["auto", "notebook", "llm"] = Field(
        default="auto",
        description="What thinks: notebook (built in, no model), llm (voice.cascade.llm), or auto: llm where its url is"
        " set.",
    )
    mouth: Literal["auto", "piper", "pocket"] = Field(
        default="auto",
        description="What speaks: piper, pocket (pocket-tts, whose weights are fetched), or auto: what is installed.",
    )
    voice: str = Field(
        default="",
        description="Voice of the mouth: a name of pocket's, or a file; empty is the mouth's own.",
    )
    trace: MaybePath = Field(
        default=None,
        description="File to which the times of every answer are appended, a JSON line each, without any words.",
    )
    llm: Llm = Llm()

    @property
    def options(self) -> dict[str, str | float]:
        """What the engine is given as it stands here."""
        llm = self.llm
        return {
            "wits": self.wits,
            "mouth": self.mouth,
            "voice": self.voice,
            "trace": str(self.trace or ""),
            "url": llm.url,
            "model": llm.model,
            "key": llm.key.get_secret_value(),
            "seconds": llm.seconds,
        }


class CloudEndpoint(Section):
    """One entry of [[voice.cloud.endpoints]]; what it leaves out is as in [voice.cloud]."""

    url: Annotated[EngineUrl, Field(min_length=1)] = Field(description="Address, as wss://gpu.example.com.")
    wire: Literal["", "bridge", "moshi"] = Field(default="", description="bridge or moshi; empty goes by the address.")
    token_file: MaybePath = Field(default=None, description="File that holds the token for it.")
    secret_file: MaybePath = Field(default=None, description="File that holds the key for its tokens.")
    voice: str = Field(default="", description="Voice prompt of a PersonaPlex server.")


class Cloud(Section):
    """Engines elsewhere."""

    token: SecretStr = Field(
        default=SecretStr(""),
        description="Token for the endpoints, where somebody else makes it. Secret.",
    )
    token_file: MaybePath = Field(
        default=None,
        description="File that holds voice.cloud.token; read again when changed.",
    )
    secret: SigningKeys = Field(
        default=SecretStr(""),
        description="Key to make tokens for the endpoints with: their auth.secret. Secret.",
    )
    secret_file: MaybePath = Field(
        default=None,
        description="File that holds voice.cloud.secret, or several, of which the first counts; read again when"
        " changed.",
    )
    audience: str = Field(
        default="voice-bridge",
        min_length=1,
        description="The audience of those tokens: the endpoints' auth.audience.",
    )
    voice: str = Field(
        default="",
        description="Voice prompt of PersonaPlex servers, as NATF2.pt; they then get calls.persona as text prompt.",
    )
    endpoints: list[CloudEndpoint] = Field(default=[])


class Voice(Section):
    provider: Literal["auto", "moshi", "moshi-cloud", "cascade", "echo"] = Field(
        default="auto",
        description="What answers: auto, moshi, moshi-cloud, cascade, or echo (the test line).",
    )
    sample_rate: ModelRate = Field(
        default=MODEL_RATE,
        description="The model's rate; only 24000 works.",
    )
    model: str = Field(
        default="",
        description="Folder or repository of the model; empty is the engine's own.",
    )
    max_steps: Count = Field(default=0, description="Limits `infer`; no effect on calls.")
    endpoint: EngineUrl = Field(
        default="",
        description="Address of the engine for moshi-cloud, as wss://gpu.example.com; for several see"
        " [[voice.cloud.endpoints]].",
    )
    cloud: Cloud = Cloud()
    moshi: Moshi = Moshi()
    cascade: Cascade = Cascade()

    @property
    def options(self) -> dict[str, str | int]:
        """What an engine is given as it stands here."""
        moshi = self.moshi
        files = {"voice": str(moshi.voice or ""), "trace": str(moshi.trace or "")}
        kept = {"weights": moshi.weights, "keys": moshi.keys, "threads": moshi.threads, **files}
        return {"model": self.model, **kept}

    @property
    def endpoints(self) -> list[CloudEndpoint]:
        """All of them, `endpoint` first."""
        return [*([CloudEndpoint(url=self.endpoint)] if self.endpoint else []), *self.cloud.endpoints]

    @property
    def engine(self) -> str:
        """The provider in effect: `device = "cloud"` means moshi-cloud wherever Moshi may be taken."""
        cloud = self.moshi.device == "cloud" and self.provider in ("auto", "moshi")
        return "moshi-cloud" if cloud else self.provider
