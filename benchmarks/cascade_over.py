"""Calls in which somebody makes himself heard while the agent talks: with words it must give way, with a cough not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import cascade_checks as checks
import numpy as np
from cascade_calls import Bridge, Caller, Result, Said, calling, serving, together
from cascade_checks import RATE
from cascade_judge import Judge
from cascade_sets import BARGES, EVEN, LONG, LOUDER, NOISES
from cascade_sounds import Utterance, noise, say, voices
from cascade_turns import quantile
from figures import Row

from voice_bridge.bridge.phone import Call

TRIES = 100
TRIES_A_CALL = 5
AT_ONCE = 4
DOWN = 200.0  # milliseconds of the caller's voice after which the agent is softer
GONE = 350.0  # and after which it has given up its sentence
WAY = 150.0  # milliseconds from mouth to ear, which what is given up may go on to be heard
BARGED = 95  # of 100
ENDED, DUCKED = 5, 30  # of 100 coughs and noises
BEFORE = (0.4, 4.0)  # seconds into the agent's speech at which callers speak up
COUGH_AT = (1.0, 4.5)
SETTLES = 0.6  # seconds after a noise in which a sentence may still be ducked for it
FADES = 0.3  # seconds at the end of a sentence in which it grows soft by itself
SPEAKING = 0.06  # seconds since the agent's last sound in which it still talks
BROKEN = 700.0  # milliseconds of silence inside a sentence after which it was given up


@dataclass
class Try:
    """One time that the agent was made to talk."""

    text: str
    """What the agent says."""
    start: int
    """When it began to be heard, in samples of the call."""
    said: Said
    over: int = 0
    """When all was quiet again."""


@dataclass
class Tries:
    """A call and what was tried in it."""

    call: Call | None = None
    done: list[Try] = field(default_factory=list)

    @property
    def whole(self) -> list[Try]:
        """Those that came to their end."""
        return [one for one in self.done if one.over]


async def _speak_up(
    caller: Caller, text: str, since: int, within: tuple[float, float], what: Utterance, moment: random.Random
) -> Try:
    """Make a sound at a random moment of what the agent says, at one in which it is heard."""
    if not await caller.answered(since):
        raise RuntimeError(f"the agent does not say {text[:30]!r}")
    start = caller.sounded
    at = start + moment.uniform(*within) * RATE
    await caller.phone.until(lambda _: caller.now >= at and caller.now - caller.sounded <= SPEAKING * RATE)
    return Try(text, start, caller.speak(what))


async def _barge_in(bridge: Bridge, number: int, tries: Tries, texts: Sequence[str], says: Sequence[Utterance]) -> None:
    """A call that begins with a long greeting, which is interrupted, and so is all that the agent is made to say."""
    moment = random.Random(f"barge {number}")
    async with calling(bridge, number) as caller:
        tries.call = caller.call
        await caller.phone.until(lambda call: call.state == "talking")
        since = 0
        for index, (text, what) in enumerate(zip(texts, says, strict=True)):
            if index:
                await caller.quiet(1.2)
                since = caller.now
                await bridge.say(caller.call.sid, text)
            one = await _speak_up(caller, text, since, BEFORE, what, moment)
            tries.done.append(one)
            await caller.past(one.said.last)
            await caller.answered(one.said.last, 3.0)
            await caller.quiet(1.5)
            one.over = caller.now


async def barge(engine: str, share: float) -> Result:
    """Whether the agent gives way to a caller who speaks up, how fast, and whether it lets go of its sentence."""
    many = max(1, round(TRIES * share / TRIES_A_CALL))
    chosen = [say(BARGES[n % len(BARGES)], voices()[n % len(voices())]) for n in range(many * TRIES_A_CALL)]
    calls = [Tries() for _ in range(many)]
    async with serving(engine, extra={"VOICE_BRIDGE_CALLS__GREETING": LONG[0]}) as bridge:
        wrong = await together((_barge_in(bridge, n, calls[n], LONG, chosen[n::many]) for n in range(many)), AT_ONCE)
    judge = Judge()
    good, down, gone, resumed = 0, [], [], 0
    for call in calls:
        heard = call.call.heard if call.call else np.zeros(0, np.int16)
        for one in call.whole:
            gave = checks.yielded(heard, one.said.first, one.said.last)
            if gave is None:
                wrong.append(f"the agent was not heard before {one.said}")
                continue
            after = judge(heard[one.said.last : one.over])
            on = checks.goes_on(after, one.text)
            down.append(gave.down)
            gone.append(gave.gone)
            resumed += on
            if gave.down <= DOWN and gave.gone <= GONE + WAY and not on:
                good += 1
            else:
                went = f"{checks.DOWN:g} dB down after {gave.down:.0f} ms, gone after {gave.gone:.0f} ms"
                wrong.append(f"{one.said.utterance.voice}, {one.said}: {went}; then {after!r}")
    planned = many * TRIES_A_CALL
    rows = [
        Row(
            f"gave way in {DOWN:.0f} ms and let go, of {planned}",
            str(good),
            f"{BARGED * planned / TRIES:g}",
            good >= BARGED * planned / TRIES,
        ),
        Row(
            f"- {checks.DOWN:g} dB down within {DOWN:.0f} ms, and staying so", str(sum(taken <= DOWN for taken in down))
        ),
        Row("- from the first sound until so far down, median, 95 %", _two(down)),
        Row(f"- not heard any more within {GONE + WAY:.0f} ms", str(sum(taken <= GONE + WAY for taken in gone))),
        Row("- from the first sound until not heard, median, 95 %", _two(gone)),
        Row("- went on with the old sentence afterwards", str(resumed)),
        Row("- calls at once", str(AT_ONCE)),
    ]
    return Result("barge", rows, wrong, {"down_ms": down, "gone_ms": gone})


def _two(taken: Sequence[float]) -> str:
    ordered = sorted(taken)
    return f"{quantile(ordered, 0.5):.0f}, {quantile(ordered, 0.95):.0f} ms"


async def _cough_at(bridge: Bridge, number: int, tries: Tries, noises: Sequence[Utterance]) -> None:
    moment = random.Random(f"coughs {number}")
    async with calling(bridge, number) as caller:
        tries.call = caller.call
        await caller.begun()
        for index, what in enumerate(noises):
            await caller.quiet(1.0)
            since, text = caller.now, EVEN[index % len(EVEN)]
            await bridge.say(caller.call.sid, text)
            one = await _speak_up(caller, text, since, COUGH_AT, what, moment)
            tries.done.append(one)
            await caller.past(one.said.last + RATE)
            await caller.quiet(2.0)
            one.over = caller.now


async def coughs(engine: str, share: float) -> Result:
    """How many coughs and noises end a sentence of the agent, and how many make it softer."""
    order = list(enumerate(NOISES))
    random.Random("noises").shuffle(order)
    chosen = [noise(kind, f"{kind} {n}", LOUDER[n % len(LOUDER)]) for n, kind in order[: max(1, round(TRIES * share))]]
    many = -(-len(chosen) // TRIES_A_CALL)
    calls = [Tries() for _ in range(many)]
    async with serving(engine) as bridge:
        wrong = await together((_cough_at(bridge, n, calls[n], chosen[n::many]) for n in range(many)), AT_ONCE)
    judge = Judge()
    ended = ducked = by_itself = tried = 0
    for call in calls:
        heard = call.call.heard if call.call else np.zeros(0, np.int16)
        for one in call.whole:
            tried += 1
            broke, soft, before, why = judged(heard, one, judge)
            ended += broke
            ducked += soft
            by_itself += before
            if broke or soft:
                wrong.append(f"{one.said.utterance.text} at {one.said.first / RATE:.1f} s: {why}")
    rows = [
        Row(
            f"coughs and noises that ended a sentence, of {len(chosen)}",
            str(ended),
            f"{ENDED * len(chosen) / TRIES:g}",
            ended <= ENDED * len(chosen) / TRIES,
        ),
        Row(
            "- that ducked it, or ended it",
            str(ducked),
            f"{DUCKED * len(chosen) / TRIES:g}",
            ducked <= DUCKED * len(chosen) / TRIES,
        ),
        Row("- for comparison: found ducked just before the noise", str(by_itself)),
        Row("- could be tried", str(tried), str(len(chosen)), tried == len(chosen)),
        Row("- calls at once", str(AT_ONCE)),
    ]
    return Result("coughs", rows, wrong, {"ended": ended, "ducked": ducked, "ducked_by_itself": by_itself})


def judged(heard: checks.Pcm, one: Try, judge: Judge) -> tuple[bool, bool, bool, str]:
    """Whether the sentence was ended, whether it was ducked, whether it seemed so before the noise; what happened."""
    sentence = heard[one.start : one.over]
    text = judge(sentence)
    level = checks.usual(heard[one.start : one.said.first])
    last = one.start + (checks.last_audible(sentence) or 0)
    silence = checks.longest_silence(sentence)
    ended = not checks.to_the_end(text, one.text) or silence >= BROKEN
    end = round(min(one.said.last + SETTLES * RATE, last - FADES * RATE))
    soft = ended or checks.ducked(heard, one.said.first, end, level)
    before = checks.ducked(heard, max(one.start, 2 * one.said.first - end), one.said.first, level)
    return ended, soft, before, "ended it, heard " + repr(text[-60:]) if ended else "ducked it"
