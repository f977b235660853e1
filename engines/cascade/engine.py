"""From settings to a cascade that is ready to talk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..ears.moonshine import Moonshine
from ..hardware import this_host
from ..mouths.mouth import Mouth
from ..wits.base import Wits
from ..wits.llm import Llm
from ..wits.notebook import Notebook
from .core import CascadeCore
from .trace import Trace

MOST_THREADS = 4  # that decode, and that speak: each holds a model of 200 MB, and four serve some thirty calls


def core(
    slots: int,
    progress: Callable[[str], None],
    wits: str = "notebook",
    mouth: str = "piper",
    voice: str = "",
    url: str = "",
    model: str = "",
    key: str = "",
    seconds: float = 0.0,
    trace: str = "",
) -> CascadeCore:
    """`url`, `model`, `key` and `seconds` are of the wits `llm`; `trace` is a file that grows by a line a turn."""
    threads = max(1, min(MOST_THREADS, this_host().cores // 2))
    thinks: Wits = Llm(url, model, key, seconds) if wits == "llm" else Notebook()
    progress("loading the ear and the mouth")
    return CascadeCore(
        slots,
        thinks,
        Mouth(mouth, voice, threads),
        partial(Moonshine, threads=threads),
        Trace(trace) if trace else None,
    )
