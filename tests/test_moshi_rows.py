"""What a model is given to read besides what it hears."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests import oracle  # noqa: E402
from tests.oracle import talk  # noqa: E402
from voice_bridge.codecs import wav  # noqa: E402
from voice_bridge.engines.base import FRAME, RATE, Opening, Sound  # noqa: E402
from voice_bridge.engines.moshi import config  # noqa: E402
from voice_bridge.engines.moshi.core import MoshiCore  # noqa: E402
from voice_bridge.engines.moshi.names import lm_tensors, mimi_tensors  # noqa: E402
from voice_bridge.engines.moshi.rows import Rows  # noqa: E402
from voice_bridge.engines.moshi.script import BREATH, SILENCE, TONE  # noqa: E402
from voice_bridge.engines.moshi.tokenizer import Tokenizer  # noqa: E402
from voice_bridge.engines.moshi.torch.load import Loader  # noqa: E402
from voice_bridge.engines.moshi.torch.model import TorchModel  # noqa: E402
from voice_bridge.engines.moshi.torch.specimen import Random  # noqa: E402

OWN, HEARD = slice(1, 9), slice(9, 17)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(oracle.FOLDER / "moshi" / "tokenizer.model")


@pytest.fixture(scope="module")
def personaplex() -> TorchModel:
    """A PersonaPlex of a few numbers: the published one's config.json names its type only, so the rest is added."""
    small = {"dim": 32, "num_heads": 2, "num_layers": 1, "depformer_dim": 32, "depformer_num_heads": 2}
    smaller = {"depformer_num_layers": 1, "depformer_dim_feedforward": 132, "text_card": 256, "context": 800}
    codec = json.loads((oracle.FOLDER / "moshi" / "mimi_config.json").read_text())
    codec["quantizer"]["bins"] = 2048
    model = config.model({"model_type": "personaplex", **small, **smaller}, codec)
    lm = Loader(Random(lm_tensors(model.lm), "float32"), oracle.CPU)
    mimi = Loader(Random(mimi_tensors(model.mimi, model.lm.codebooks), "float32"), oracle.CPU)
    return TorchModel(model, lm, mimi, 1, torch.float32)


def test_personaplex_is_told_who_it_is_as_it_has_learnt(personaplex: TorchModel, tokenizer: Tokenizer) -> None:
    rows = Rows(personaplex, tokenizer, "").prompt("you are kind")
    text = tokenizer.encode("<system> you are kind <system>")
    assert rows[:, 0].tolist() == [3] * BREATH + text + [3] * BREATH
    assert (rows[:, OWN] == SILENCE).all()
    assert (rows[:, HEARD] == TONE).all()


def test_personaplex_takes_the_voice_of_a_recording(
    personaplex: TorchModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    spoken = (talk(10).ravel() * 32767).astype(np.int16)
    with wav.Writer(tmp_path / "voice.wav", RATE, 1) as file:
        file.write(spoken[:, None])
    rows = Rows(personaplex, tokenizer, str(tmp_path / "voice.wav")).prompt("")
    codes = personaplex.encode(wav.load(tmp_path / "voice.wav", RATE))
    assert len(rows) == 10 + BREATH + BREATH
    assert (rows[:10, 1] == codes[:, 0]).all()  # the first codebook goes with the frame, the others one later
    assert (rows[1:11, 2:9] == codes[:, 1:]).all()
    assert (rows[:, HEARD] == TONE).all()
    core = MoshiCore(personaplex, tokenizer, 1, voice=str(tmp_path / "voice.wav"))
    core.open(0, Opening(persona="you are kind"))
    while core.work(1.0):
        pass
    heard = [core.collect(core.launch([0], talk(1, frame), [frame * FRAME])) for frame in range(4)]
    sounds = [event for step in heard for _, event in step if isinstance(event, Sound)]
    assert len(sounds) == 4
    assert all(sound.pcm.any() for sound in sounds[1:])


def test_a_voice_for_a_model_that_takes_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"voice\.wav: this model takes no voice"):
        oracle.core("moshi", voice=str(tmp_path / "voice.wav"))


def test_context_that_is_too_long_is_refused_with_the_room_there_is() -> None:
    core = oracle.core("moshi")  # of a context of 16, a fourth
    with pytest.raises(ValueError, match="room for 4: shorten it"):
        core.open(0, Opening(persona="you are kind and patient"))
    core.open(0, Opening())
    with pytest.raises(ValueError, match="'loud': give it as silent, remembered or add_to_input"):
        core.inject(0, 1, "hello", "loud", None)
    with pytest.raises(ValueError, match="no text in it"):
        core.inject(0, 2, " ", "add_to_input", None)
