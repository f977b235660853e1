"""Which language model to ask for: the one of the machine's level, or the next smaller that fits beside the engine.

Nothing here loads or fetches a model: a server that people run themselves has it, and `doctor` says what to pull.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...engines import hardware
from ...engines.hardware import GB, LEVELS, Machine
from .llm import NoAnswer, models
from .wire import Endpoint

SERVED = 4096  # tokens of context to serve a model with: a question and its answer take 2,500 at most
WORK = 1 * GB  # of a server beside weights and keys: its runtime and activations; 0.6 to 1 GB for these models
BEHIND = 6  # the level of a machine with an API behind its own model
LOOK = 2.0  # seconds for an endpoint to say which models it has; one that runs needs milliseconds
SHOWN = 5  # models of an endpoint that are told; some have hundreds


@dataclass(frozen=True)
class Rung:
    """A model to ask for, and what to give it."""

    model: str
    ollama: str
    """What `ollama pull` calls it."""
    hugging_face: str
    """The repository of its makers."""
    quantisation: str
    weights: int
    """Bytes of the file at that quantisation."""
    keys: int
    """Bytes of keys and values for a token of context, at 16 bits."""
    context: int
    """Tokens that the model can take; 0 where an API decides."""
    tokens: int
    """Budget of a question."""
    seconds: float
    """Time limit of an answer."""

    @property
    def memory(self) -> int:
        """About how many bytes it takes while it answers one question at a time; 0 where an API does."""
        return self.weights + SERVED * self.keys + WORK if self.weights else 0


# By level. Weights are the sizes of GGUF files as Hugging Face lists them; keys are 2 x layers x key heads x 128
# x 2 bytes, and those and the context stand in the models' cards. Time limits are estimates: sixty tokens at the
# memory bandwidth of the slower cards of a level, and half as long again for reading the question.
# Qwen3-30B is the build that does not think aloud: no caller waits for that.
# fmt: off
RUNGS = (
    Rung("API", "", "", "", 0, 0, 0, 3000, 1.5),
    Rung("Qwen2.5-7B", "qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct", "Q4_K_M",
         4_680_000_000, 57_344, 32_768, 2000, 1.5),
    Rung("Qwen2.5-14B", "qwen2.5:14b", "Qwen/Qwen2.5-14B-Instruct", "Q4_K_M",
         8_990_000_000, 196_608, 32_768, 2000, 2.5),
    Rung("Qwen3-30B", "qwen3:30b-a3b-instruct-2507-q4_K_M", "Qwen/Qwen3-30B-A3B-Instruct-2507", "Q4_K_M",
         18_600_000_000, 98_304, 262_144, 2000, 1.0),
    Rung("Qwen2.5-72B", "hf.co/bartowski/Qwen2.5-72B-Instruct-GGUF:IQ4_XS", "Qwen/Qwen2.5-72B-Instruct", "IQ4_XS",
         39_700_000_000, 327_680, 32_768, 1500, 4.5),
    Rung("Qwen2.5-72B", "qwen2.5:72b-instruct-q6_K", "Qwen/Qwen2.5-72B-Instruct", "Q6_K",
         64_400_000_000, 327_680, 32_768, 1500, 3.5),
)
# fmt: on


@dataclass(frozen=True)
class Choice:
    rung: Rung
    behind: bool
    """Whether an API is to be asked when that model fails."""
    why: str


@dataclass(frozen=True)
class Description:
    """What `doctor` shows of an endpoint and the model to ask it for."""

    model: str
    why: str
    context: int
    """Tokens to serve it with; 0 where that is not ours to say."""
    tokens: int
    seconds: float
    answers: bool
    """Whether the endpoint does."""
    has: bool
    """Whether it has the model."""
    remedy: str
    """What to do about it; empty when all is well."""


def choose(machine: Machine, left: int) -> Choice:
    """The model for a machine on which the engine, with all its calls, leaves `left` bytes of memory.

    Its level names the model; where that does not fit, the largest one below it that does.
    """
    level = hardware.tier(machine.memory if machine.gpu else 0, api=False)
    behind = machine.tier == BEHIND
    at = f"level {machine.tier} ({LEVELS[machine.tier]})"
    if not level:
        return Choice(RUNGS[0], False, f"{at}: a model of its own has no room here")
    fits = next((n for n in range(level, 0, -1) if RUNGS[n].memory <= left), 0)
    first, found = RUNGS[level], RUNGS[fits]
    why = f"{at}: {_takes(first)}, the engine leaves {left / GB:.1f} GB"
    if fits < level:
        why += f", {_takes(found)}" if fits else ", no smaller one fits"
    return Choice(found, behind and fits > 0, why)


def _takes(rung: Rung) -> str:
    return f"{rung.model} {rung.quantisation} takes {rung.memory / GB:.1f} GB"


async def describe(choice: Choice, endpoint: Endpoint, seconds: float = LOOK) -> Description:
    """Look whether an endpoint has the model that it is to be asked for; nothing is asked of the model itself."""
    rung, model = choice.rung, endpoint.model
    ours = bool(model) and model in (rung.ollama, rung.hugging_face)
    answers, has, remedy = True, False, ""
    try:
        found = await models(endpoint, seconds)
    except NoAnswer as error:
        answers, remedy = False, f"{endpoint.url} {error}: {_mend(error)}"
    else:
        has = bool(model) and bool(found & {model, f"{model}:latest"})
        listed = ", ".join(sorted(found)[:SHOWN]) or "none"
        pull = f"`ollama pull {rung.ollama}`, or " if ours else ""
        if not has:
            remedy = f"{pull}set memory.llm.model to one that {endpoint.url} has: {listed}"
    return Description(
        model=model,
        why=choice.why if ours else "memory.llm.model names it" if model else "memory.llm.model names none",
        context=SERVED if ours else 0,
        tokens=rung.tokens,
        seconds=rung.seconds,
        answers=answers,
        has=has,
        remedy=remedy,
    )


def _mend(error: NoAnswer) -> str:
    if error.reason == "refused":
        return "correct memory.llm.key, or the path in memory.llm.url"
    return "start that server, or correct memory.llm.url"
