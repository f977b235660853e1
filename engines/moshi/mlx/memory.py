"""How much of its memory a Mac gives to MLX: the model stays resident, and the rest is left to everything else."""

from __future__ import annotations

import mlx.core as mx

CACHE = 256 << 20  # bytes that MLX may keep of what a step has let go: more than a step of many calls needs
WORK = 512 << 20  # bytes beyond the model that are wired too: what a step makes on its way


def limit() -> None:
    """Before anything is loaded: what converting weights lets go of is given back, and nothing is made to swap."""
    mx.set_cache_limit(CACHE)
    if mx.default_device() == mx.gpu:
        mx.set_memory_limit(_recommended())


def settle() -> None:
    """When all is loaded: it is wired, so that a step never waits for a page, and no more than that is."""
    mx.clear_cache()
    if mx.default_device() == mx.gpu:
        mx.set_wired_limit(min(_recommended(), mx.get_active_memory() + WORK))


def _recommended() -> int:
    """What Metal lets one process take."""
    return int(mx.device_info()["max_recommended_working_set_size"])
