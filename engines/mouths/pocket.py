"""The mouth of machines with some time to spare: pocket-tts, Kyutai's model of 100 million parameters, on the CPU.

Its pieces come while it still speaks. Its weights are fetched from Hugging Face when it is loaded for the first time.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from ...codecs.framing import RATE
from .base import PCM
from .sound import PEAK, Speak, Trim, gain

VOICE = "alba"  # the package's own default
SAMPLE = (
    "The quick brown fox jumps over the lazy dog, and then it runs away."  # long enough to tell how loud a voice is
)


def load(voice: str, threads: int) -> list[Speak]:
    """A speaker for each thread; each has a model of its own. Raises ValueError or OSError."""
    import pocket_tts
    from pocket_tts.utils import utils

    source = find(voice, sorted(getattr(utils, "_ORIGINS_OF_PREDEFINED_VOICES", ())))
    try:
        models = [pocket_tts.TTSModel.load_model() for _ in range(threads)]  # one cannot speak on two threads
        return [Pocket(model, model.get_state_for_audio_prompt(source)) for model in models]
    except OSError as error:
        raise ValueError(
            "voice.cascade.mouth = pocket needs its weights: let this machine reach huggingface.co once, or copy"
            f" ~/.cache/huggingface from one that could; or take piper ({type(error).__name__})"
        ) from None


def find(voice: str, names: list[str]) -> str | Path:
    """What the package calls this voice: one of its `names`, or a file."""
    if "/" not in voice and not voice.endswith((".wav", ".safetensors")):
        if names and voice and voice not in names:
            raise ValueError(f"pocket has no voice {voice}: take {', '.join(names)}, or the path of a .wav file")
        return voice or VOICE
    file = Path(voice).expanduser()
    if not file.is_file():
        raise ValueError(f"no voice for pocket in {file}: name a .wav or .safetensors file, or a voice of the package")
    return file


class Pocket:
    """For one thread at a time."""

    def __init__(self, model: Any, state: Any) -> None:
        """Speaks once, to hear how loud its voice is: of a sentence that is not over nobody can say it."""
        if model.sample_rate != RATE:
            raise ValueError(f"this model of pocket speaks at {model.sample_rate} Hz, and {RATE} are wanted")
        self._model = model
        self._state = state
        self._gain = gain(np.concatenate([np.zeros(0, np.float32), *self._generate(SAMPLE)]))

    def __call__(self, text: str) -> Generator[PCM, None, None]:
        trim = Trim()
        for pcm in self._generate(text):
            yield trim.push((pcm * self._gain).clip(-PEAK, PEAK))
        yield trim.end()

    def _generate(self, text: str) -> Generator[PCM, None, None]:
        stop = threading.Event()
        chunks = self._model.generate_audio_stream(self._state, text, stop=stop)
        try:
            for chunk in chunks:
                yield chunk.numpy()
        finally:
            stop.set()
            for _ in chunks:  # its threads come to their end, before the next sentence
                pass
