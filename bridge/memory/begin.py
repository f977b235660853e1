"""From the configuration to what the mind is told at its start."""

from __future__ import annotations

from importlib.util import find_spec

from ...engines.hardware import Machine
from ...engines.registry import EAR, Choice
from ..config.memory import Memory
from . import ladder
from .wire import Endpoint, MindInit

NEEDED = ("libsql",)
EARS = {"moonshine": EAR, "kyutai": ("torch", "safetensors", "sentencepiece"), "off": ()}
EXTRAS = {"sentence_transformers": "sentences", "torch": "torch", "safetensors": "torch", "sentencepiece": "torch"}
EMBEDDERS = {"wordllama": ("wordllama",), "sentence-transformers": ("sentence_transformers",)}


class NoModel(ValueError):
    """It is not known which language model to ask for; the message says how to say it."""


def missing(memory: Memory, choice: Choice) -> list[str]:
    """Packages that memory, as it is configured, needs beside this engine and this installation lacks."""
    embedder = EMBEDDERS.get(memory.embedder.partition(":")[0], ())
    return [name for name in (*NEEDED, *EARS[ear(memory, choice)], *embedder) if find_spec(name) is None]


def ear(memory: Memory, choice: Choice) -> str:
    """The mind's own, beside this engine: none where that tells what callers say."""
    return "off" if choice.hears else memory.ear


def remedy(lacks: list[str]) -> str:
    """How to install them."""
    extras = dict.fromkeys(("memory", *(EXTRAS.get(name, "memory") for name in lacks)))
    return f"pip install 'voice-bridge[{','.join(extras)}]'"


def init(memory: Memory, machine: Machine, choice: Choice) -> MindInit:
    """What the mind is told, beside an engine that was chosen for this machine. Raises `NoModel`."""
    rung = model(machine, choice).rung
    return MindInit(
        store=memory.store,
        store_token=memory.token.get_secret_value(),
        encryption_key=memory.encryption.get_secret_value(),
        key=memory.key.get_secret_value(),
        retention_days=memory.retention_days,
        explain_days=memory.explain_days,
        ear=ear(memory, choice),
        ear_model=memory.ear_model,
        embedder=memory.embedder,
        embedder_key=memory.embedder_key.get_secret_value(),
        thinker=memory.thinker,
        endpoints=endpoints(memory, rung),
        seconds=memory.llm.seconds or rung.seconds,
        tokens=rung.tokens,
        injection="silent" if choice.hears else memory.injection,  # what hears also reads
        standing=memory.standing,
        calls=choice.slots,
        gpu=choice.gpu,
    )


def model(machine: Machine, choice: Choice) -> ladder.Choice:
    """The language model for this machine, in what the engine leaves."""
    fit = choice.fit
    return ladder.choose(machine, max(0, machine.free - fit.fixed - choice.slots * fit.call) if fit else machine.free)


def endpoints(memory: Memory, rung: ladder.Rung) -> tuple[Endpoint, ...]:
    """The APIs to ask, in order; none when the rules alone decide."""
    if memory.thinker == "rules":
        return ()
    asked = memory.llm.model or rung.ollama
    if not asked:
        raise NoModel("memory.llm.model: name the model to ask for; this machine's level has none of its own")
    first = Endpoint(memory.llm.url, asked, memory.llm.key.get_secret_value())
    behind = memory.fallback
    second = Endpoint(behind.url, behind.model, behind.key.get_secret_value())
    return (first, second) if behind.url else (first,)
