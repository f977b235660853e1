"""Mimi, the codec: 80 ms of sound to a row of codes and back, streaming, for many streams in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...base import FRAME
from ..config import MimiConfig
from ..tails import Tails
from .conv import Conv
from .load import Loader
from .plain import Tokens
from .transformer import Caches, Transformer

EPSILON = 1e-5  # least use of a codebook's entry, as it was trained


@dataclass(frozen=True)
class Side:
    """What one direction keeps between frames, a row for each slot."""

    tails: Tensor  # [slots, width]
    caches: Caches


@dataclass(frozen=True)
class MimiState:
    encoder: Side
    decoder: Side


class Mimi:
    """Frames [n] count what a slot has encoded (or decoded) so far: at frame 0 it starts anew, whatever it held."""

    def __init__(self, config: MimiConfig, load: Loader, codebooks: int) -> None:
        self._device = load.device
        self._encoder = Encoder(config, load)
        self._quantizer = Quantizer(config, load, codebooks)
        self._decoder = Decoder(config, load)

    def state(self, slots: int) -> MimiState:
        def side(part: Encoder | Decoder) -> Side:
            tails = torch.zeros(slots, part.tails.width, device=self._device)
            return Side(tails, part.transformer.cache(slots, torch.float32))

        return MimiState(side(self._encoder), side(self._decoder))

    def encode(self, pcm: Tensor, state: MimiState, slots: Tensor, frames: Tensor) -> Tensor:
        """pcm [n, 1920] of the named slots [n], each named once, gives codes [n, codebooks]."""
        return self._quantizer.encode(self._encoder(pcm, state.encoder, slots, frames))

    def decode(self, codes: Tensor, state: MimiState, slots: Tensor, frames: Tensor) -> Tensor:
        """codes [n, codebooks] of the named slots [n], each named once, give pcm [n, 1920]."""
        return self._decoder(self._quantizer.decode(codes), state.decoder, slots, frames)


class Encoder:
    def __init__(self, config: MimiConfig, load: Loader) -> None:
        self.tails = tails = Tails()
        self._tokens = Positions(config, load.device)
        steps = FRAME
        self._first = _conv(load, "encoder.model.0.conv.conv", steps, tails)
        self._stages: list[tuple[Residual, Conv]] = []
        index = 1
        for ratio in reversed(config.ratios):
            residual = Residual(load, f"encoder.model.{index}", steps, tails)
            steps //= ratio
            halving = _strided(load, f"encoder.model.{index + 2}.conv.conv", ratio, steps, tails)
            self._stages.append((residual, halving))
            index += 3
        self._last = _conv(load, f"encoder.model.{index + 1}.conv.conv", steps, tails)
        self.transformer = Transformer(config.transformer, load, "encoder_transformer.transformer")
        self._down = _strided(load, "downsample.conv.conv.conv", config.stride, 1, tails, biased=False)

    def __call__(self, pcm: Tensor, side: Side, slots: Tensor, frames: Tensor) -> Tensor:
        """pcm [n, 1920] gives a vector [n, dim]."""
        tails = _resume(side, slots, frames)
        x = self._first(pcm, tails, elu=False)  # [n, 1920, filters]
        for residual, narrow in self._stages:
            x = residual(x, tails)
            x = narrow(x, tails)  # [n, fewer steps, twice the channels]
        x = self._last(x, tails)  # [n, 2, dim]
        x = self.transformer(x.flatten(0, 1), side.caches, self._tokens(slots, frames)).view_as(x)
        self._down.repeat_first(x, tails, frames == 0)
        x = self._down(x, tails, elu=False)  # [n, 1, dim]
        side.tails.index_copy_(0, slots, tails)
        return x.squeeze(1)


class Decoder:
    def __init__(self, config: MimiConfig, load: Loader) -> None:
        self.tails = tails = Tails()
        self._tokens = Positions(config, load.device)
        steps = config.stride
        up = load.tensor("upsample.convtr.convtr.convtr.weight")  # [dim, 1, 2 * stride]
        self._up_now, self._up_past = up.squeeze(1).t().contiguous().chunk(2)  # [stride, dim]
        self._last_frame = tails.take(config.dim)
        self.transformer = Transformer(config.transformer, load, "decoder_transformer.transformer")
        self._first = _conv(load, "decoder.model.0.conv.conv", steps, tails)
        self._stages: list[tuple[Conv, Residual]] = []
        index = 2
        for ratio in config.ratios:
            widening = _transposed(load, f"decoder.model.{index}.convtr.convtr", ratio, steps, tails)
            steps *= ratio
            self._stages.append((widening, Residual(load, f"decoder.model.{index + 1}", steps, tails)))
            index += 3
        self._last = _conv(load, f"decoder.model.{index}.conv.conv", steps, tails)

    def __call__(self, x: Tensor, side: Side, slots: Tensor, frames: Tensor) -> Tensor:
        """A vector [n, dim] gives pcm [n, 1920]."""
        tails = _resume(side, slots, frames)
        past = tails[:, self._last_frame]
        up = x[:, None] * self._up_now + past[:, None] * self._up_past  # [n, stride, dim]
        past.copy_(x)
        x = self.transformer(up.flatten(0, 1), side.caches, self._tokens(slots, frames)).view_as(up)
        x = self._first(x, tails, elu=False)  # [n, stride, channels]
        for widen, residual in self._stages:
            x = widen(x, tails)  # [n, more steps, half the channels]
            x = residual(x, tails)
        x = self._last(x, tails)  # [n, 1920, 1]
        side.tails.index_copy_(0, slots, tails)
        return x.flatten(1)


class Residual:
    def __init__(self, load: Loader, name: str, steps: int, tails: Tails) -> None:
        self._narrow = _conv(load, f"{name}.block.1.conv.conv", steps, tails)
        self._wide = _conv(load, f"{name}.block.3.conv.conv", steps, tails)

    def __call__(self, x: Tensor, tails: Tensor) -> Tensor:
        """x [n, steps, channels] is changed in place and given back."""
        self._wide.add(x, self._narrow(x, tails))
        return x


class Quantizer:
    """Codebooks of two families: the first, of meaning, and the rest, each for what those before it left over."""

    def __init__(self, config: MimiConfig, load: Loader, codebooks: int) -> None:
        names = ["rvq_first.vq.layers.0", *(f"rvq_rest.vq.layers.{index}" for index in range(codebooks - 1))]
        self._tables = torch.stack([_table(load, f"quantizer.{name}._codebook") for name in names])
        self._products = [load.ops.dense(table) for table in self._tables]
        self._halves = self._tables.square().sum(-1) / 2  # [codebooks, bins]: half the squared lengths
        self._starts = torch.arange(codebooks, device=load.device) * config.bins
        families = ("quantizer.rvq_first", "quantizer.rvq_rest")
        into, out_of = (
            [load.tensor(f"{name}.{way}_proj.weight").squeeze(-1) for name in families] for way in ("input", "output")
        )
        self._in = load.ops.dense(torch.cat(into))
        self._out = load.ops.dense(torch.cat(out_of, dim=1))

    def encode(self, x: Tensor) -> Tensor:
        """A vector [n, dim] gives codes [n, codebooks]."""
        first, rest = (part.contiguous() for part in self._in(x).chunk(2, dim=1))
        codes = [self._nearest(0, first)]
        for index in range(1, len(self._tables)):
            codes.append(self._nearest(index, rest))
            rest = rest - self._tables[index][codes[-1]]
        return torch.stack(codes, dim=1)

    def _nearest(self, index: int, x: Tensor) -> Tensor:
        """The entry of a codebook nearest to x [n, codebook_dim]."""
        return (self._halves[index] - self._products[index](x)).argmin(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [n, codebooks] give a vector [n, dim]."""
        rows = F.embedding(codes + self._starts, self._tables.flatten(0, 1))  # [n, codebooks, codebook_dim]
        return self._out(torch.cat([rows[:, 0], rows[:, 1:].sum(1)], dim=1))


def _table(load: Loader, name: str) -> Tensor:
    return load.tensor(f"{name}.embedding_sum") / load.tensor(f"{name}.cluster_usage").clamp_min(EPSILON)[:, None]


def _conv(load: Loader, name: str, steps: int, tails: Tails) -> Conv:
    weight = load.tensor(f"{name}.weight")  # [out, in, taps]
    return Conv(load, weight.permute(2, 1, 0), load.tensor(f"{name}.bias"), steps, tails)


def _strided(load: Loader, name: str, stride: int, steps: int, tails: Tails, biased: bool = True) -> Conv:
    """Two taps over blocks of `stride` steps."""
    weight = load.tensor(f"{name}.weight")  # [out, in, 2 * stride]
    blocks = weight.unflatten(2, (2, stride)).permute(2, 3, 1, 0).flatten(1, 2)  # [2, stride * in, out]
    bias = load.tensor(f"{name}.bias") if biased else None
    return Conv(load, blocks, bias, steps, tails)


def _transposed(load: Loader, name: str, stride: int, steps: int, tails: Tails) -> Conv:
    """Two taps that write blocks of `stride` steps: the later half of a kernel falls into the next block."""
    weight = load.tensor(f"{name}.weight")  # [in, out, 2 * stride]
    blocks = weight.unflatten(2, (2, stride)).flip(2).permute(2, 0, 3, 1).flatten(2)  # [2, in, stride * out]
    return Conv(load, blocks, load.tensor(f"{name}.bias").repeat(stride), steps, tails, stride)


def _resume(side: Side, slots: Tensor, frames: Tensor) -> Tensor:
    """The slots' tails [n, width], to work on; zeros for a slot that starts."""
    return side.tails.index_select(0, slots).masked_fill_((frames == 0)[:, None], 0)


class Positions:
    """Where the tokens of the transformers stand: each frame is `stride` of them."""

    def __init__(self, config: MimiConfig, device: torch.device) -> None:
        self._within = torch.arange(config.stride, device=device)
        self._context = config.transformer.context

    def __call__(self, slots: Tensor, frames: Tensor) -> Tokens:
        stride = len(self._within)
        positions = frames[:, None] * stride + self._within  # [n, stride]
        return Tokens(slots.repeat_interleave(stride), positions.flatten(), stride, self._context, together=True)
