"""What `voice-bridge doctor` says of the cascade, where that is the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ...engines import registry
from ...engines.mouths import piper
from ..config.voice import Llm
from ..memory.llm import NoAnswer, models
from ..memory.wire import Endpoint
from .finding import Row, State

SECONDS = 3.0  # that a language model's server may take to say what it has


def check_cascade(choice: registry.Choice, llm: Llm) -> Iterator[Row]:
    """`choice` is the engine that is taken."""
    if choice.name != "cascade":
        return
    yield _row("Ear", "ok", "moonshine, on this machine's processor; its model is installed with it")
    if choice.options["wits"] == "llm":
        yield check_llm(llm)
    else:
        remedy = "To think with a language model, set voice.cascade.llm.url and model."
        yield _row("Wits", "ok", "notebook: fixed rules, no model", remedy)
    yield check_mouth(str(choice.options["mouth"]), str(choice.options.get("voice", "")))
    yield _row("Calls", "ok", f"{choice.slots} at once; engine.slots sets another bound")


def check_llm(llm: Llm) -> Row:
    """Whether the endpoint answers and has the model."""
    apology = "Callers hear an apology meanwhile."
    try:
        served = asyncio.run(models(Endpoint(llm.url, llm.model, llm.key.get_secret_value()), SECONDS))
    except NoAnswer as error:
        remedy = f"Start that server, or correct voice.cascade.llm.url. {apology}"
        return _row("Wits", "note", f"llm: {llm.url} {error}", remedy)
    if llm.model not in served:
        remedy = f"`ollama pull {llm.model}`, or correct voice.cascade.llm.model. {apology}"
        return _row("Wits", "note", f"llm: {llm.url} does not list the model {llm.model}", remedy)
    return _row("Wits", "ok", f"llm: {llm.model} at {llm.url}")


def check_mouth(mouth: str, voice: str) -> Row:
    if mouth == "pocket":
        remedy = "The first start fetches its weights from the Hugging Face hub, if they are not there."
        return _row("Mouth", "ok", f"pocket-tts, voice {voice or 'of its own'}", remedy)
    try:
        model = piper.find(voice)
    except (ValueError, OSError) as error:
        return _row("Mouth", "problem", str(error), "Correct voice.cascade.voice, or leave it empty.")
    return _row("Mouth", "ok", f"piper, voice {model.stem}{'' if voice else ': the file that this version knows'}")


def _row(name: str, state: State, text: str, remedy: str = "") -> Row:
    return Row("Cascade", name, state, text, remedy)
