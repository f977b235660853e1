"""Models to be measured: a checkpoint's, or random weights at a named shape, since what they are costs no time."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ... import hardware
from ...hardware import GB
from ..checkpoint import Checkpoint, Groups, Plain, Rows8, Stored
from ..config import ModelError
from ..config import model as configured
from ..fit import Device, Fit, fit
from ..measure import SHAPES, Setting
from ..names import Shape, lm_tensors, mimi_tensors
from . import cuda, native, plain
from .engine import DTYPES
from .load import GROUP, Loader, Ops, WeightKind
from .model import TorchModel
from .plain import Cache

MIDDLE = 7.5  # of the codes 0 to 15
SLACK = 1 << 16  # numbers by which random tensors may begin apart
ALIGNED = 64  # as memory is for vectors
SPREAD = {"int8": 74.0, "int4": 4.6}  # standard deviation of codes that are all as likely


class Random:
    """Weights as a checkpoint would give them, cut from one pool of numbers: so those of a 7B take seconds."""

    def __init__(self, shapes: Mapping[str, Shape], kind: WeightKind) -> None:
        self._shapes = shapes
        self._kind = kind
        size = max(map(math.prod, shapes.values())) + SLACK
        if kind in SPREAD:
            self._pool = torch.randint(-127, 128, (size,), dtype=torch.int8)
        else:
            self._pool = torch.randn(size)

    def __call__(self, name: str) -> Stored:
        shape = self._shapes[name]
        if len(shape) == 1:
            return Plain(torch.zeros(shape) if name.endswith("bias") else torch.ones(shape))
        spread = math.prod(shape[1:]) ** -0.5  # what comes out is as large as what went in
        rows, columns = shape[0], shape[1]
        if self._kind == "int8":
            return Rows8(self._cut(name, rows * columns).view(shape), torch.full((rows,), spread / SPREAD["int8"]))
        if self._kind == "int4":
            words = self._cut(name, rows * columns // 2).view(rows, -1).view(torch.int32)
            scale = torch.full((rows, columns // GROUP), spread / SPREAD["int4"])
            return Groups(words, scale, -MIDDLE * scale, 4, GROUP)
        return Plain(self._cut(name, math.prod(shape)).view(shape) * spread)

    def _cut(self, name: str, count: int) -> Tensor:
        start = zlib.crc32(name.encode()) % (SLACK // ALIGNED) * ALIGNED  # of its own, and the same every time
        return self._pool[start : start + count]


def load(setting: Setting, most: int) -> tuple[TorchModel, Fit]:
    """The model with room for `most` calls or as many as fit, its keys and values full of something, and how it fits.

    Raises `ModelError`.
    """
    device, ops = torch.device(setting.device), ops_for(setting.device)
    checkpoint = Checkpoint.open(setting.model) if setting.model else None
    config = checkpoint.config if checkpoint else configured(dict(SHAPES[setting.shape]), {})
    form = fit(hardware.detect(), setting.device, setting.weights, setting.keys, lm=config.lm)
    if not form.room:
        raise ModelError(
            f"one call needs {form.needed / GB:.1f} GB and {form.free / GB:.1f} GB are free: "
            "take smaller --weights, --keys int8 or another --shape"
        )
    weights: Callable[[str], Stored] = Random(lm_tensors(config.lm), setting.weights)
    codec: Callable[[str], Stored] = Random(mimi_tensors(config.mimi, config.lm.codebooks), "float32")
    if checkpoint:
        weights, codec = checkpoint.lm("pt", str(device)), checkpoint.mimi("pt", str(device))
    lm, mimi = Loader(weights, device, setting.weights, ops), Loader(codec, device, "float32", ops)
    made = TorchModel(config, lm, mimi, min(most, form.room), DTYPES[setting.keys])
    made.prepare(lambda calls: None)
    for cache in made._state.temporal:
        _fill(cache)
    return made, form


def _fill(cache: Cache) -> None:
    """Numbers as in use: zeros are no measure of anything."""
    for store in (cache.keys, cache.values):
        if store.is_floating_point():
            store.normal_()
        else:
            store.random_(-127, 128)
    if cache.scales is not None:
        cache.scales.fill_(1 / SPREAD["int8"])


def linears(setting: Setting) -> tuple[Callable[[], None], int]:
    """Every product of the language model's step, by a row of numbers each; and how many weights there are."""
    config = configured(dict(SHAPES[setting.shape]), {}).lm
    shapes = {name: shape for name, shape in lm_tensors(config).items() if len(shape) == 2 and "emb." not in name}
    source = Random(shapes, setting.weights)
    load = Loader(source, torch.device(setting.device), setting.weights, ops_for(setting.device))
    rows = {k: torch.randn(1, k, device=setting.device) for _, k in shapes.values()}
    products = [(load.linear(name), rows[k]) for name, (_, k) in shapes.items()]

    def work() -> None:
        for product, row in products:
            product(row)

    return work, sum(map(math.prod, shapes.values()))


def ops_for(device: Device) -> Ops:
    """What an engine computes with there."""
    return cuda if device == "cuda" else native if native.available() else plain
