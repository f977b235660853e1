"""The CPU kernels of `kernels.cpp`, built for this CPU at first use.

Activations are float32, `[n, k]`, contiguous. Each row of a result is computed in an order of its own: it has the
same bits whatever stands beside it in the batch and however many threads compute it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .plain import Cache, Tokens

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
BUILD_SECONDS = 600  # a build takes seconds; a compiler that takes this long hangs

LANES = 16  # values of a vector, as in kernels.cpp
TILE = 32  # rows of weights in a tile, as in kernels.cpp; m is filled up to a multiple of it


class NotBuilt(Exception):
    """The kernels cannot be built or loaded here; the message says why and what would help."""


def available() -> bool:
    """Whether the kernels run here. The first call builds them, which takes seconds, or logs why it cannot."""
    return _module() is not None


@functools.cache
def _module() -> ModuleType | None:
    try:
        library = _built()
        spec = importlib.util.spec_from_file_location("kernels", library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (NotBuilt, ImportError, AttributeError) as error:
        log.warning("plain torch instead of the CPU kernels, which is several times slower: %s", error)
        return None
    return module


def _built() -> Path:
    """The library, from the user's cache if it was built before for this source, torch and CPU."""
    flags = _cpu_flags()
    if "avx2" not in flags or "fma" not in flags or "f16c" not in flags:
        raise NotBuilt("they need an x86 CPU with AVX2 and Linux")
    command = _command()
    said = "\n".join([SOURCE.read_text(), *command, torch.__version__, platform.python_version(), *sorted(flags)])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voice-bridge"
    library = cache / f"kernels-{hashlib.sha256(said.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        _build(command, library)
    return library


def _cpu_flags() -> frozenset[str]:
    """What this CPU can do, as Linux tells it; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def _command() -> list[str]:
    import sysconfig

    here = Path(torch.__file__).parent
    return [
        *shlex.split(os.environ.get("CXX", "c++")),
        *("-std=c++20", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-w"),
        *("-I", sysconfig.get_path("include"), "-I", str(here / "include")),
        str(SOURCE),
        *("-L", str(here / "lib"), "-ltorch_cpu", "-lc10"),
    ]


def _build(command: list[str], library: Path) -> None:
    """Compile into a file of its own, then rename: two processes that build at once do not meet."""
    log.warning("building the CPU kernels with %s: once, some seconds", command[0])
    began = time.perf_counter()
    if not shutil.which(command[0]):
        raise NotBuilt(f"no C++ compiler {command[0]!r}: install g++ and Python's headers, or set CXX")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            done = subprocess.run(
                [*command, "-o", str(made)], capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
            if done.returncode:
                reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
                raise NotBuilt(f"{command[0]} failed: {reason.strip()}; it must be a recent g++ or clang++ (set CXX)")
            made.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"building them in {library.parent} failed: {error}") from None
    log.warning("built the CPU kernels in %.1f s: %s", time.perf_counter() - began, library)


class _Kernels:
    """The module's functions, looked up once: so a call costs what the function costs."""

    def __getattr__(self, name: str) -> Any:
        module = _module()
        if module is None:
            raise NotBuilt("the CPU kernels are not available here: ask available() first")
        function = getattr(module, name)
        setattr(self, name, function)
        return function


_kernels = _Kernels()


class Linear:
    """y = x W^T, with the weights [m, k] in the order in which the kernels read them."""

    def __init__(self, kind: int, data: Tensor, scale: Tensor | None, m: int) -> None:
        self._weights = (kind, data, scale, m)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = _kernels.linear(*self._weights, x, None, None)
        return y

    def add(self, to: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        """Add the product, times `scale` [m], to `to` [n, m]."""
        _kernels.linear(*self._weights, x, to, scale)


def dense(weight: Tensor) -> Linear:
    """Weights as they are, float32 or bfloat16; by bfloat16, activations are rounded to bfloat16 as well."""
    m, k = weight.shape
    half = weight.dtype == torch.bfloat16
    filled = _filled(weight if half else weight.float(), -k % LANES)
    return Linear(1 if half else 0, _tiles(filled), None, m)


def int8(codes: Tensor, scale: Tensor) -> Linear:
    """W = codes * scale: int8 [m, k], a float32 [m]. Each row of activations is quantised likewise."""
    m, k = codes.shape
    shifted = _filled(codes, -k % LANES).view(torch.uint8) ^ 128  # plus 128: unsigned, as the instruction wants them
    return Linear(2, _tiles(shifted), F.pad(scale.float(), (0, -m % TILE)), m)


def int4(words: Tensor, scales: Tensor, biases: Tensor) -> Linear:
    """W = code * scale + bias, as MLX stores it: 32-bit words [m, k / 8] of eight codes, the first lowest, and a
    scale and a bias [m, groups], kept in float16. Activations are quantised to int8 by the same groups."""
    m, k, groups = words.shape[0], words.shape[1] * 8, scales.shape[1]
    if k % groups or (k // groups) % LANES:
        raise ValueError(f"{k} columns in {groups} groups: a group must be a multiple of {LANES} columns")
    codes = _tiles(_filled(words)).view(-1, groups, k // groups // 8, TILE)
    scale, bias = (_filled(x.half()).view(-1, TILE, groups).transpose(1, 2) for x in (scales, biases))
    last = torch.cat([scale, bias], 2).view(torch.int32)[:, :, None]  # [tiles, groups, 1, 32]
    return Linear(3, torch.cat([codes, last], 2), None, m)


def _filled(weight: Tensor, columns: int = 0) -> Tensor:
    """With zeros up to whole groups of rows, and so many columns more."""
    return F.pad(weight, (0, columns, 0, -len(weight) % TILE)).contiguous()


def _tiles(weight: Tensor) -> Tensor:
    """[m, bytes] -> [tiles, 32-bit units, 32]"""
    units = weight.view(torch.int32)
    return units.view(-1, TILE, units.shape[1]).transpose(1, 2).contiguous()


def rms_norm(x: Tensor, alpha: Tensor, eps: float) -> Tensor:
    """x * alpha / sqrt(mean(x^2) + eps)"""
    y: Tensor = _kernels.rms_norm(x, alpha, eps)
    return y


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    y: Tensor = _kernels.layer_norm(x, weight, bias, eps)
    return y


def gate(x: Tensor) -> Tensor:
    """[n, 2m] -> silu of the first half times the second, [n, m]"""
    y: Tensor = _kernels.gate(x)
    return y


def elu(x: Tensor, to: Tensor) -> None:
    """Put x [n, steps, k], and e^x - 1 where it is negative, into the last steps of `to` [n, more + steps, k]."""
    _kernels.elu(x, to)


def attend(qkv: Tensor, cache: Cache, tokens: Tokens, turn: Tensor | None, pairs: bool) -> Tensor:
    """Put the tokens' keys and values into the cache, and let each look at its row as far as it goes back.

    `qkv` [n, (heads + 2 * kv_heads) * head_dim] gives [n, heads * head_dim]. Tokens of one row must come in order of
    position; a stretch of them is the same as those tokens one by one. `turn` [n, head_dim / 2, 2] are the cosine and
    sine of each angle; `pairs` says that neighbours turn together, not halves.
    """
    y: Tensor = _kernels.attend(qkv, *cache, tokens.rows, tokens.positions, turn, pairs, tokens.together)
    return y


def sample(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """A token for each row of `logits` [n, card], drawn by `noise` [n] from [0, 1); temperature 0 takes the likeliest.

    Only the `top_k` likeliest (and what equals the last of them) count, all of them when it is 0. The choice is the
    first index whose cumulative probability exceeds the noise.
    """
    chosen: Tensor = _kernels.sample(logits, temperature, top_k, noise)
    return chosen
