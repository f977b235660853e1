"""Mimi against the reference: its codes equal, its sound near, whoever comes, pauses and goes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch import Tensor  # noqa: E402

from tests import oracle  # noqa: E402
from tests.oracle import BACKENDS, NAMES  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint  # noqa: E402
from voice_bridge.engines.moshi.torch.load import Ops  # noqa: E402
from voice_bridge.engines.moshi.torch.mimi import FRAME, Mimi  # noqa: E402

try:
    import mlx.core as mx

    from voice_bridge.engines.moshi.mlx import mimi as mlx_mimi
except ImportError:
    mx = None

NEEDS_MLX = pytest.mark.skipif(mx is None, reason="needs mlx")
NEAR = 1e-5
LOUD = 3.0  # of noise, so that what it leaves in a slot would be heard


class TorchCodec:
    def __init__(self, name: str, slots: int, codebooks: int, ops: Ops) -> None:
        config = Checkpoint.open(oracle.FOLDER / name).config
        self.mimi = Mimi(config.mimi, oracle.loaders(name, ops=ops)[1], codebooks or config.lm.codebooks)
        self.state = self.mimi.state(slots)

    def encode(self, pcm: Tensor, slots: list[int], frames: list[int]) -> Tensor:
        return self.mimi.encode(pcm, self.state, torch.tensor(slots), torch.tensor(frames))

    def decode(self, codes: Tensor, slots: list[int], frames: list[int]) -> Tensor:
        return self.mimi.decode(codes, self.state, torch.tensor(slots), torch.tensor(frames))

    def kept(self) -> list[Tensor]:
        """All that stays between frames, a row for each slot."""
        sides = (self.state.encoder, self.state.decoder)
        return [store for side in sides for store in (side.tails, *(part for ring in side.caches for part in ring[:2]))]


class MlxCodec:
    def __init__(self, name: str, slots: int, codebooks: int) -> None:
        checkpoint = Checkpoint.open(oracle.FOLDER / name)
        lm = checkpoint.config.lm
        self.mimi = mlx_mimi.Mimi(checkpoint.config.mimi, checkpoint.mimi("mlx"), codebooks or lm.codebooks)
        self.state = self.mimi.state(slots)

    def encode(self, pcm: Tensor, slots: list[int], frames: list[int]) -> Tensor:
        return _tensor(self.mimi.encode(_array(pcm), self.state, mx.array(slots), mx.array(frames))).long()

    def decode(self, codes: Tensor, slots: list[int], frames: list[int]) -> Tensor:
        return _tensor(self.mimi.decode(_array(codes), self.state, mx.array(slots), mx.array(frames)))

    def kept(self) -> list[Tensor]:
        sides = (self.state.encoder, self.state.decoder)
        return [
            _tensor(store) for side in sides for store in (side.tails, *(part for ring in side.rings for part in ring))
        ]


def _array(tensor: Tensor) -> Any:
    return mx.array(tensor.numpy())


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


class Codec:
    """A Mimi with the state of some slots, each at a frame of its own."""

    def __init__(self, name: str = "moshi", slots: int = 2, program: str = "plain", codebooks: int = 0) -> None:
        self.codec: TorchCodec | MlxCodec
        if program == "mlx":
            self.codec = MlxCodec(name, slots, codebooks)
        else:
            self.codec = TorchCodec(name, slots, codebooks, BACKENDS[program])
        self.frames = [0] * slots

    def step(self, pcm: Tensor, slots: list[int], codes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One frame of the named slots: codes of `pcm` [n, 1920], and the sound of these codes or of those given."""
        frames = [self.frames[slot] for slot in slots]
        written = self.codec.encode(pcm, slots, frames)
        sound = self.codec.decode(written if codes is None else codes, slots, frames)
        for slot in slots:
            self.frames[slot] += 1
        return written, sound


def noise(frames: int, seed: int = 0, loudness: float = 0.3) -> Tensor:
    """[frames, 1920]"""
    return torch.randn(frames, FRAME, generator=torch.Generator().manual_seed(seed)) * loudness


def alone(pcm: Tensor, program: str) -> tuple[Tensor, Tensor]:
    """Codes [frames, codebooks] and sound [frames, 1920] of `pcm` [frames, 1920] in a codec of its own."""
    codec = Codec(slots=1, program=program)
    codes, sound = zip(*(codec.step(frame[None], [0]) for frame in pcm), strict=True)
    return torch.cat(codes), torch.cat(sound)


@pytest.fixture(params=[*BACKENDS, pytest.param("mlx", marks=NEEDS_MLX)])
def program(request: pytest.FixtureRequest) -> str:
    """Torch, in plain operations and with our kernels, and MLX."""
    found: str = request.param
    return found


@pytest.mark.parametrize(
    ("program", "onednn"),
    [*itertools.product(BACKENDS, (True, False)), pytest.param("mlx", True, marks=NEEDS_MLX)],
)
@pytest.mark.parametrize("name", NAMES)
def test_codes_and_sound_are_those_of_the_reference(
    name: str, program: str, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch by both ways to convolve: that of CPUs with oneDNN, and that of all others."""
    if not onednn:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    expected = oracle.expected(name)
    codec = Codec(name, program=program)
    pcm = expected["pcm_in"].squeeze(1).split(FRAME, dim=1)
    for frame, (heard, codes) in enumerate(zip(pcm, expected["mimi_codes"].unbind(2), strict=True)):
        written, sound = codec.step(heard, [0, 1], codes)
        assert torch.equal(written, codes), frame
        wanted = expected["mimi_pcm"][:, 0, frame * FRAME : (frame + 1) * FRAME]
        torch.testing.assert_close(sound, wanted, atol=2 * NEAR, rtol=0)


def test_fewer_codebooks_are_the_first_of_more(program: str) -> None:
    all_of_them, some = Codec("stt", program=program), Codec("stt", program=program, codebooks=5)
    for frame in noise(3)[:, None].expand(-1, 2, -1):
        assert torch.equal(some.step(frame, [0, 1])[0], all_of_them.step(frame, [0, 1])[0][:, :5])


def test_slots_that_come_pause_and_go_do_not_touch_one_another(program: str) -> None:
    codec = Codec(slots=4, program=program)
    voices = [noise(24, seed) for seed in range(4)]
    present = [[3], [3, 0], [0, 3, 1], [1], [1, 3], [2, 1, 0, 3]] * 4
    heard: dict[int, list[tuple[Tensor, Tensor]]] = {slot: [] for slot in range(4)}
    for slots in present:
        pcm = torch.stack([voices[slot][codec.frames[slot]] for slot in slots])
        codes, sound = codec.step(pcm, slots)
        for index, slot in enumerate(slots):
            heard[slot].append((codes[index], sound[index]))
    for slot, frames in heard.items():
        codes, sound = alone(voices[slot][: len(frames)], program)
        assert torch.equal(torch.stack([frame[0] for frame in frames]), codes)
        torch.testing.assert_close(torch.stack([frame[1] for frame in frames]), sound, atol=NEAR, rtol=0)


def test_a_slot_that_starts_again_is_as_new(program: str) -> None:
    codec = Codec(slots=2, program=program)
    for frame in noise(12, seed=1, loudness=LOUD):
        codec.step(frame.expand(2, -1), [0, 1], torch.zeros(2, 8, dtype=torch.int64))
    codec.frames[1] = 0
    pcm = noise(12, seed=2)
    again = [codec.step(frame[None], [1]) for frame in pcm]
    codes, sound = alone(pcm, program)
    assert torch.equal(torch.cat([frame[0] for frame in again]), codes)
    assert torch.equal(torch.cat([frame[1] for frame in again]), sound)


def test_only_the_named_slots_change(program: str) -> None:
    codec = Codec(slots=3, program=program)
    for frame in noise(3):
        codec.step(frame.expand(3, -1), [0, 1, 2])
    before = [tensor.clone() for tensor in codec.codec.kept()]
    codec.step(noise(1, seed=1).expand(2, -1), [2, 0])
    for tensor, was in zip(codec.codec.kept(), before, strict=True):
        changed = (tensor != was).flatten(1).any(1).tolist()
        assert changed == [True, False, True]
