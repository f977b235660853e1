"""Mimi against the reference: its codes equal, its sound near, whoever comes, pauses and goes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from tests import oracle  # noqa: E402
from tests.oracle import BACKENDS, NAMES  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint  # noqa: E402
from voice_bridge.engines.moshi.torch.load import Ops  # noqa: E402
from voice_bridge.engines.moshi.torch.mimi import FRAME, Mimi  # noqa: E402

NEAR = 1e-5
LOUD = 3.0  # of noise, so that what it leaves in a slot would be heard


class Codec:
    """A Mimi with the state of some slots, each at a frame of its own."""

    def __init__(self, name: str = "moshi", slots: int = 2, ops: Ops = BACKENDS["plain"], codebooks: int = 0) -> None:
        config = Checkpoint.open(oracle.FOLDER / name).config
        self.mimi = Mimi(config.mimi, oracle.loaders(name, ops=ops)[1], codebooks or config.lm.codebooks)
        self.state = self.mimi.state(slots)
        self.frames = [0] * slots

    def step(self, pcm: Tensor, slots: list[int], codes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One frame of the named slots: codes of `pcm` [n, 1920], and the sound of these codes or of those given."""
        where, at = torch.tensor(slots), torch.tensor([self.frames[slot] for slot in slots])
        written = self.mimi.encode(pcm, self.state, where, at)
        sound = self.mimi.decode(written if codes is None else codes, self.state, where, at)
        for slot in slots:
            self.frames[slot] += 1
        return written, sound


def noise(frames: int, seed: int = 0, loudness: float = 0.3) -> Tensor:
    """[frames, 1920]"""
    return torch.randn(frames, FRAME, generator=torch.Generator().manual_seed(seed)) * loudness


def alone(pcm: Tensor, ops: Ops) -> tuple[Tensor, Tensor]:
    """Codes [frames, codebooks] and sound [frames, 1920] of `pcm` [frames, 1920] in a codec of its own."""
    codec = Codec(slots=1, ops=ops)
    codes, sound = zip(*(codec.step(frame[None], [0]) for frame in pcm), strict=True)
    return torch.cat(codes), torch.cat(sound)


@pytest.fixture(params=BACKENDS)
def ops(request: pytest.FixtureRequest) -> Ops:
    return BACKENDS[request.param]


@pytest.fixture(params=["onednn", "windows"])
def convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to convolve: that of CPUs with oneDNN, and that of all others."""
    if request.param == "windows":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


@pytest.mark.usefixtures("convolutions")
@pytest.mark.parametrize("name", NAMES)
def test_codes_and_sound_are_those_of_the_reference(name: str, ops: Ops) -> None:
    expected = oracle.expected(name)
    codec = Codec(name, ops=ops)
    pcm = expected["pcm_in"].squeeze(1).split(FRAME, dim=1)
    for frame, (heard, codes) in enumerate(zip(pcm, expected["mimi_codes"].unbind(2), strict=True)):
        written, sound = codec.step(heard, [0, 1], codes)
        assert torch.equal(written, codes), frame
        wanted = expected["mimi_pcm"][:, 0, frame * FRAME : (frame + 1) * FRAME]
        torch.testing.assert_close(sound, wanted, atol=2 * NEAR, rtol=0)


def test_fewer_codebooks_are_the_first_of_more() -> None:
    all_of_them, some = Codec("stt"), Codec("stt", codebooks=5)
    for frame in noise(3)[:, None].expand(-1, 2, -1):
        assert torch.equal(some.step(frame, [0, 1])[0], all_of_them.step(frame, [0, 1])[0][:, :5])


def test_slots_that_come_pause_and_go_do_not_touch_one_another(ops: Ops) -> None:
    codec = Codec(slots=4, ops=ops)
    voices = [noise(24, seed) for seed in range(4)]
    present = [[3], [3, 0], [0, 3, 1], [1], [1, 3], [2, 1, 0, 3]] * 4
    heard: dict[int, list[tuple[Tensor, Tensor]]] = {slot: [] for slot in range(4)}
    for slots in present:
        pcm = torch.stack([voices[slot][codec.frames[slot]] for slot in slots])
        codes, sound = codec.step(pcm, slots)
        for index, slot in enumerate(slots):
            heard[slot].append((codes[index], sound[index]))
    for slot, frames in heard.items():
        codes, sound = alone(voices[slot][: len(frames)], ops)
        assert torch.equal(torch.stack([frame[0] for frame in frames]), codes)
        torch.testing.assert_close(torch.stack([frame[1] for frame in frames]), sound, atol=NEAR, rtol=0)


def test_a_slot_that_starts_again_is_as_new(ops: Ops) -> None:
    codec = Codec(slots=2, ops=ops)
    for frame in noise(12, seed=1, loudness=LOUD):
        codec.step(frame.expand(2, -1), [0, 1], torch.zeros(2, 8, dtype=torch.int64))
    codec.frames[1] = 0
    pcm = noise(12, seed=2)
    again = [codec.step(frame[None], [1]) for frame in pcm]
    codes, sound = alone(pcm, ops)
    assert torch.equal(torch.cat([frame[0] for frame in again]), codes)
    assert torch.equal(torch.cat([frame[1] for frame in again]), sound)


def test_only_the_named_slots_change(ops: Ops) -> None:
    codec = Codec(slots=3, ops=ops)
    for frame in noise(3):
        codec.step(frame.expand(3, -1), [0, 1, 2])
    sides = (codec.state.encoder, codec.state.decoder)
    kept = [tensor for side in sides for cache in side.caches for tensor in (side.tails, cache.keys, cache.values)]
    before = [tensor.clone() for tensor in kept]
    codec.step(noise(1, seed=1).expand(2, -1), [2, 0])
    for tensor, was in zip(kept, before, strict=True):
        changed = (tensor != was).flatten(1).any(1).tolist()
        assert changed == [True, False, True]
