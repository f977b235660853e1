"""Mimi, the codec, as in `torch/mimi.py`: 80 ms of sound to a row of codes and back, streaming, many streams a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from ...base import FRAME
from ..checkpoint import Stored
from ..config import MimiConfig
from ..tails import Tails
from .codec_transformer import Read, Ring, Transformer
from .conv import Conv, Past
from .load import filled
from .product import Product
from .transformer import put

EPSILON = 1e-5  # least use of a codebook's entry, as it was trained


class Side(NamedTuple):
    """What one direction keeps between frames, a row for each slot."""

    tails: mx.array  # [slots, width]
    rings: list[Ring]


@dataclass
class MimiState:
    """Each pass puts new arrays here and lets the old ones go; MLX then writes where those were, and copies nothing."""

    encoder: Side
    decoder: Side


class Mimi:
    """Frames [n] count what a slot has encoded (or decoded) so far: at frame 0 it starts anew, whatever it held."""

    def __init__(self, config: MimiConfig, stored: Callable[[str], Stored], codebooks: int) -> None:
        def read(name: str) -> mx.array:
            return filled(stored(name), mx.float32)

        self._encoder = Encoder(config, read)
        self._quantizer = Quantizer(config, read, codebooks)
        self._decoder = Decoder(config, read)
        self._encode, self._decode = self._encoded, self._decoded
        if mx.default_device() == mx.gpu:  # for a CPU MLX would run a C++ compiler for a minute, and gain nothing
            self._encode, self._decode = mx.compile(self._encode), mx.compile(self._decode)

    def state(self, slots: int) -> MimiState:
        def side(part: Encoder | Decoder) -> Side:
            return Side(mx.zeros((slots, part.tails.width)), part.transformer.rings(slots))

        return MimiState(side(self._encoder), side(self._decoder))

    def encode(self, pcm: mx.array, state: MimiState, slots: mx.array, frames: mx.array) -> mx.array:
        """pcm [n, 1920] of the named slots [n], each named once, gives codes [n, codebooks]."""
        codes, side = self._encode(pcm, state.encoder, slots, frames)
        state.encoder = _side(side)
        return codes

    def decode(self, codes: mx.array, state: MimiState, slots: mx.array, frames: mx.array) -> mx.array:
        """codes [n, codebooks] of the named slots [n], each named once, give pcm [n, 1920]."""
        pcm, side = self._decode(codes, state.decoder, slots, frames)
        state.decoder = _side(side)
        return pcm

    def _encoded(self, pcm: mx.array, side: Side, slots: mx.array, frames: mx.array) -> tuple[mx.array, Side]:
        x, side = self._encoder(pcm, _side(side), slots, frames)
        return self._quantizer.encode(x), side

    def _decoded(self, codes: mx.array, side: Side, slots: mx.array, frames: mx.array) -> tuple[mx.array, Side]:
        return self._decoder(self._quantizer.decode(codes), _side(side), slots, frames)


class Encoder:
    def __init__(self, config: MimiConfig, read: Read) -> None:
        self.tails = tails = Tails()
        steps = FRAME
        self._first = _conv(read, "encoder.model.0.conv.conv", steps, tails)
        self._stages: list[tuple[Residual, Conv]] = []
        index = 1
        for ratio in reversed(config.ratios):
            residual = Residual(read, f"encoder.model.{index}", steps, tails)
            steps //= ratio
            narrowing = _strided(read, f"encoder.model.{index + 2}.conv.conv", ratio, steps, tails)
            self._stages.append((residual, narrowing))
            index += 3
        self._last = _conv(read, f"encoder.model.{index + 1}.conv.conv", steps, tails)
        self.transformer = Transformer(config.transformer, read, "encoder_transformer.transformer")
        self._down = _strided(read, "downsample.conv.conv.conv", config.stride, 1, tails, biased=False)

    def __call__(self, pcm: mx.array, side: Side, slots: mx.array, frames: mx.array) -> tuple[mx.array, Side]:
        """pcm [n, 1920] gives a vector [n, dim]."""
        past = Past(side.tails[slots], frames == 0)
        x = self._first(pcm[..., None], past, elu=False)  # [n, 1920, filters]
        for residual, narrow in self._stages:
            x = residual(x, past)
            x = narrow(x, past)  # [n, fewer steps, twice the channels]
        x = self._last(x, past)  # [n, stride, dim]
        x, rings = self.transformer(x, side.rings, slots, frames)
        x = self._down(x, past, elu=False, repeat=True)  # [n, 1, dim]
        return x.squeeze(1), Side(put(side.tails, (slots,), past.after()), rings)


class Decoder:
    def __init__(self, config: MimiConfig, read: Read) -> None:
        self.tails = tails = Tails()
        steps = config.stride
        up = read("upsample.convtr.convtr.convtr.weight")  # [dim, 1, 2 * stride]
        self._up_now, self._up_past = mx.split(up.squeeze(1).T, 2)  # [stride, dim]
        mx.eval(self._up_now, self._up_past)
        self._last_frame = tails.take(config.dim)
        self.transformer = Transformer(config.transformer, read, "decoder_transformer.transformer")
        self._first = _conv(read, "decoder.model.0.conv.conv", steps, tails)
        self._stages: list[tuple[Conv, Residual]] = []
        index = 2
        for ratio in config.ratios:
            widening = _transposed(read, f"decoder.model.{index}.convtr.convtr", ratio, steps, tails)
            steps *= ratio
            self._stages.append((widening, Residual(read, f"decoder.model.{index + 1}", steps, tails)))
            index += 3
        self._last = _conv(read, f"decoder.model.{index}.conv.conv", steps, tails)

    def __call__(self, x: mx.array, side: Side, slots: mx.array, frames: mx.array) -> tuple[mx.array, Side]:
        """A vector [n, dim] gives pcm [n, 1920]."""
        past = Past(side.tails[slots], frames == 0)
        before = past.read(self._last_frame)
        past.keep(self._last_frame, x)
        x = x[:, None] * self._up_now + before[:, None] * self._up_past  # [n, stride, dim]
        x, rings = self.transformer(x, side.rings, slots, frames)
        x = self._first(x, past, elu=False)  # [n, stride, channels]
        for widen, residual in self._stages:
            x = widen(x, past)  # [n, more steps, half the channels]
            x = residual(x, past)
        x = self._last(x, past)  # [n, 1920, 1]
        return x.squeeze(2), Side(put(side.tails, (slots,), past.after()), rings)


class Residual:
    def __init__(self, read: Read, name: str, steps: int, tails: Tails) -> None:
        self._narrow = _conv(read, f"{name}.block.1.conv.conv", steps, tails)
        self._wide = _conv(read, f"{name}.block.3.conv.conv", steps, tails)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        return x + self._wide(self._narrow(x, past), past)


class Quantizer:
    """Codebooks of two families: the first, of meaning, and the rest, each for what those before it left over."""

    def __init__(self, config: MimiConfig, read: Read, codebooks: int) -> None:
        names = ["rvq_first.vq.layers.0", *(f"rvq_rest.vq.layers.{index}" for index in range(codebooks - 1))]
        tables = [_table(read, f"quantizer.{name}._codebook") for name in names]
        self._tables = mx.concatenate(tables)  # [codebooks * bins, codebook_dim]
        self._starts = mx.arange(codebooks) * config.bins
        mx.eval(self._tables, self._starts)
        # The entry nearest to x has the most of x @ entry - |entry|^2 / 2.
        self._products = [Product(table, -mx.square(table).sum(-1) / 2) for table in tables]
        families = ("quantizer.rvq_first", "quantizer.rvq_rest")
        into, out_of = (
            [read(f"{name}.{way}_proj.weight").squeeze(-1) for name in families] for way in ("input", "output")
        )
        self._in = Product(mx.concatenate(into))
        self._out = Product(mx.concatenate(out_of, axis=1))

    def encode(self, x: mx.array) -> mx.array:
        """A vector [n, dim] gives codes [n, codebooks]."""
        first, rest = mx.split(self._in(x), 2, axis=1)
        codes = [self._nearest(0, first)]
        for index in range(1, len(self._products)):
            codes.append(self._nearest(index, rest))
            rest = rest - self._tables[self._starts[index] + codes[-1]]
        return mx.stack(codes, axis=1)

    def _nearest(self, index: int, x: mx.array) -> mx.array:
        """The entry of a codebook nearest to x [n, codebook_dim]."""
        return mx.argmax(self._products[index](x), axis=-1).astype(mx.int32)

    def decode(self, codes: mx.array) -> mx.array:
        """Codes [n, codebooks] give a vector [n, dim]."""
        rows = self._tables[codes + self._starts]  # [n, codebooks, codebook_dim]
        return self._out(mx.concatenate([rows[:, 0], rows[:, 1:].sum(1)], axis=1))


def _table(read: Read, name: str) -> mx.array:
    return read(f"{name}.embedding_sum") / mx.maximum(read(f"{name}.cluster_usage"), EPSILON)[:, None]


def _conv(read: Read, name: str, steps: int, tails: Tails) -> Conv:
    weight = read(f"{name}.weight")  # [out, in, taps]
    return Conv(weight.transpose(2, 1, 0), read(f"{name}.bias"), steps, tails)


def _strided(read: Read, name: str, stride: int, steps: int, tails: Tails, biased: bool = True) -> Conv:
    """Two taps over blocks of `stride` steps."""
    weight = read(f"{name}.weight")  # [out, in, 2 * stride]
    blocks = mx.unflatten(weight, 2, (2, stride)).transpose(2, 3, 1, 0).flatten(1, 2)  # [2, stride * in, out]
    return Conv(blocks, read(f"{name}.bias") if biased else None, steps, tails)


def _transposed(read: Read, name: str, stride: int, steps: int, tails: Tails) -> Conv:
    """Two taps that write blocks of `stride` steps: the later half of a kernel falls into the next block."""
    weight = read(f"{name}.weight")  # [in, out, 2 * stride]
    now, later = mx.split(weight, 2, axis=2)
    blocks = mx.stack([later, now]).transpose(0, 1, 3, 2).flatten(2)  # [2, in, stride * out]
    return Conv(blocks, mx.tile(read(f"{name}.bias"), stride), steps, tails, stride)


def _side(parts: Side) -> Side:
    """Named again, since what is compiled gives plain tuples."""
    tails, rings = parts
    return Side(tails, [Ring(*ring) for ring in rings])
