"""Moshi through the whole bridge, on a turned clock: callers hear what the model says to what they say, and no more."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from tests import oracle
from tests.test_calls import noise
from tests.turned import bridge, phone, turned
from voice_bridge.bridge.daemon import Daemon
from voice_bridge.bridge.phone.call import Call
from voice_bridge.codecs import g711
from voice_bridge.codecs.resample import Down
from voice_bridge.engines import offline
from voice_bridge.engines.base import Core, Frame, Opening, Sound
from voice_bridge.engines.moshi.core import Launched

MODEL = "quantizable"  # its context is as long as Moshi's, so that no call is renewed meanwhile
LEVELS = np.argsort(np.argsort(g711.decode(bytes(range(256))), kind="stable"))  # of a mu-law code, from low to high
SAMPLING = {"text_temperature": 0.7, "audio_temperature": 0.8}


class Witness:
    """The core, with a seed for every call, and with what each call gave it to hear."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._calls: dict[int, str] = {}
        self.openings: dict[str, Opening] = {}
        self.heard: dict[str, list[Frame]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def open(self, slot: int, opening: Opening) -> None:
        seeded = msgspec.structs.replace(opening, seed=len(self.openings), sampling=SAMPLING)
        self._calls[slot] = opening.call
        self.openings[opening.call] = seeded
        self._core.open(slot, seeded)

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> Launched:
        for slot, frame in zip(slots, frames, strict=True):
            self.heard[self._calls[slot]].append(frame.copy())
        pending: Launched = self._core.launch(slots, frames, at)
        return pending


def tokens(trace: Path, call: str) -> list[list[int]]:
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return [[line["text"], *line["complete"]] for line in lines if line["call"] == call]


def as_inferred(witness: Witness, call: str, folder: Path) -> tuple[list[list[int]], NDArray[np.int16]]:
    """The tokens and the sound, as a telephone carries it, that a model of its own makes of a call's frames."""
    trace = folder / f"{call}.jsonl"
    core = oracle.core(MODEL, slots=1, ops=FAST, trace=str(trace))
    events = offline.talk(core, np.stack(witness.heard[call]), witness.openings[call])
    sound = [event.pcm for step in events for event in step if isinstance(event, Sound)]
    return tokens(trace, call), g711.decode(g711.encode(Down().push(np.concatenate(sound))))


FAST = list(oracle.BACKENDS.values())[-1]


def differences(heard: NDArray[np.int16], expected: NDArray[np.int16]) -> NDArray[np.int64]:
    """By how many mu-law codes each sample differs, both from their first audible one on."""
    begin = [int(np.argmax(np.abs(sound) > 100)) for sound in (heard, expected)]
    length = min(len(heard) - begin[0], len(expected) - begin[1])
    assert length > 3 * 8000
    codes = [
        LEVELS[np.frombuffer(g711.encode(sound[first : first + length]), np.uint8)]
        for sound, first in zip((heard, expected), begin, strict=True)
    ]
    return np.abs(codes[0] - codes[1])


async def talk(daemon: Daemon, calls: int) -> list[Call]:
    async with AsyncExitStack() as stack:
        phones = [
            await stack.enter_async_context(phone(daemon, sound=noise(4, seed), caller=f"+1555010000{seed}"))
            for seed in range(calls)
        ]
        return list(await asyncio.gather(*(each.call(seconds=4) for each in phones)))


@turned
async def test_eight_callers_at_once_each_hear_what_they_would_hear_alone(tmp_path: Path) -> None:
    trace = tmp_path / "all.jsonl"
    witness = Witness(oracle.core(MODEL, slots=8, ops=FAST, trace=str(trace)))
    async with bridge(tmp_path, slots=8, core=witness) as daemon:  # type: ignore[arg-type]
        calls = await talk(daemon, 8)
    for call in calls:
        expected, sound = as_inferred(witness, call.sid, tmp_path)
        assert tokens(trace, call.sid) == expected
        difference = differences(call.heard, sound)
        assert difference.max() <= 1
        assert difference.mean() < 0.001


@turned
async def test_a_greeting_is_put_into_the_text_stream_as_it_stands(tmp_path: Path) -> None:
    trace = tmp_path / "all.jsonl"
    witness = Witness(oracle.core(MODEL, ops=FAST, trace=str(trace)))
    greeting = "hello and welcome"
    async with (
        bridge(tmp_path, core=witness, calls__greeting=greeting) as daemon,  # type: ignore[arg-type]
        phone(daemon) as caller,
    ):
        call = await caller.call(seconds=4)
    written = [text for text, *_ in tokens(trace, call.sid) if text not in (0, 3)]
    asked = [token for word in witness._tokenizer.words(greeting) for token in word.tokens]
    assert written[: len(asked)] == asked
