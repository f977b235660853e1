"""What `voice-bridge doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Row:
    """One finding. A note works, but not as one may think; a problem stops the start."""

    group: str
    name: str
    state: State
    text: str
    remedy: str = ""
