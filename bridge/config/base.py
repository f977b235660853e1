"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

Place: TypeAlias = tuple[str | int, ...]
"""Where a setting stands: ("server", "port"), or ("numbers", 0, "greeting")."""


class Clash(ValueError):
    """Settings that cannot work together; `place` is the one to blame."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place


class Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)
