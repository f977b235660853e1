"""Calls in which caller and agent take turns: how soon it answers, and whom it cuts off."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

import cascade_checks as checks
from cascade_calls import LOST, MISSED, Bridge, Caller, Result, Said, calling, gaps, serving, together, traced
from cascade_checks import RATE
from cascade_judge import Judge
from cascade_sets import FINISHED, SLOW, shuffled
from cascade_sounds import Utterance, say, slowly, voices
from figures import Row

from voice_bridge.bridge.phone import Call

MEDIAN, MOST = (
    900.0,
    1400.0,
)  # milliseconds from a caller's last word to the agent's first sound; 95 % within the second
PAUSE = (0.5, 1.5)  # seconds that callers wait when the agent has finished
SPREAD = 6.0  # seconds over which calls begin that are to be at once
CALLS = 8  # at once
TURNS = 10  # of a call
CUT = 2  # of 50 slow sentences that may be cut off
GONE = 8.0  # seconds in which the agent hangs up after a goodbye


@dataclass
class Talk:
    """A call and what was said in it by the caller."""

    voice: str
    kind: str = "clean"
    """Of the line."""
    said: list[Said] = field(default_factory=list)
    at: list[datetime] = field(default_factory=list)
    """When each of it had been said."""
    call: Call | None = None
    hung_up: bool = False

    def heard(self, number: int) -> checks.Pcm:
        """What came back to one of the things said, until the next."""
        assert self.call is not None
        until = self.said[number + 1].first if number + 1 < len(self.said) else None
        return self.call.heard[self.said[number].first : until]

    def delay(self, number: int) -> float | None:
        """Milliseconds from the last word to the answer; negative if it came before; None if none did."""
        first = checks.first_audible(self.heard(number))
        said = self.said[number]
        return None if first is None else (said.first + first - said.last) * 1000 / RATE


async def hold(
    bridge: Bridge, number: int, talk: Talk, says: Sequence[Utterance], seed: str, pause: tuple[float, float] = PAUSE
) -> None:
    """One call: each thing is said when the agent has been silent for a while."""
    moment = random.Random(seed)
    await asyncio.sleep(moment.uniform(0, SPREAD))
    async with calling(bridge, number, talk.kind) as caller:
        talk.call = caller.call
        await caller.begun()
        for utterance in says:
            await caller.quiet(moment.uniform(*pause))
            talk.said.append(await caller.say(utterance))
            talk.at.append(datetime.now())
            await caller.answered(talk.said[-1].last)
        await _ending(caller, talk)


async def _ending(caller: Caller, talk: Talk) -> None:
    """What the agent has to say, and whether it hangs up."""
    try:
        await caller.phone.until(lambda call: call.state == "ended" or caller.now - caller.sounded > 4 * RATE, GONE * 4)
    except TimeoutError:
        return
    talk.hung_up = caller.call.state == "ended"


async def delay(engine: str, share: float) -> Result:
    """How soon a finished sentence is answered: by one call, by eight at once, and by eight with memory."""
    result = Result("delay", [], [])
    turns = max(1, round(TURNS * share))
    for name, at_once, many, memory in (
        ("1 call", 1, 5, False),
        (f"{CALLS} calls", CALLS, CALLS, False),
        (f"{CALLS} calls, memory on", CALLS, CALLS, True),
    ):
        scripts = [
            [say(text, voices()[n % len(voices())]) for text in shuffled(FINISHED, f"delay {n}")[:turns]]
            for n in range(many)
        ]
        talks = [Talk(voices()[n % len(voices())]) for n in range(many)]
        async with serving(engine, memory=memory) as bridge:
            before = await bridge.counted()
            calls = [hold(bridge, n, talks[n], scripts[n], f"{name} {n}") for n in range(many)]
            failed = await together(calls, at_once)
            counted = {what: value - before[what] for what, value in (await bridge.counted()).items()}
            steps = traced(bridge.trace)
            failed += bridge.complaints()
        _report_delay(result, name, talks, turns * many, counted, steps)
        result.wrong += [f"{name}: {why}" for why in failed]
    return result


def _report_delay(
    result: Result,
    name: str,
    talks: Sequence[Talk],
    planned: int,
    counted: dict[str, float],
    steps: list[dict[str, Any]],
) -> None:
    found = [(talk, number, talk.delay(number)) for talk in talks for number in range(len(talk.said))]
    early = [one for one in found if one[2] is not None and one[2] < 0]
    after = [late for _, _, late in found if late is not None and late >= 0]
    late = sorted(after + [math.inf] * (planned - len(after) - len(early)))
    result.wrong += [f"{name}, {talk.voice}: cut off {talk.said[n].utterance.text!r}" for talk, n, _ in early]
    result.wrong += [
        f"{name}, {talk.voice}: no answer to {talk.said[n].utterance.text!r}" for talk, n, d in found if d is None
    ]
    calls = [talk.call for talk in talks if talk.call]
    dry = gaps(calls)
    missed = sum(counted[what] for what in MISSED)
    slow = max((late for call in calls for late in call.lateness), default=0.0)
    result.rows += [
        limited(f"last word to first sound, median, {name}", quantile(late, 0.5), MEDIAN),
        limited(f"- 95 % of them, {name}", quantile(late, 0.95), MOST),
        Row(f"- turns; cut off; not answered, {name}", f"{planned}; {len(early)}; {sum(map(math.isinf, late))}"),
        Row(
            f"- missed by the bridge; gaps in the agent's speech, {name}",
            f"{missed:g}; {dry.in_speech} (of {dry.all} gaps, {dry.milliseconds:.0f} ms)",
            "none",
            not missed and not dry.in_speech,
        ),
        Row(
            f"- replies later than 80 ms; latest tick of the callers, {name}",
            f"{counted[list(LOST)[5]]:g}; {slow * 1000:.0f} ms",
        ),
    ]
    for step, taken in split(steps).items():
        result.rows.append(
            Row(f"- {step}, {name}", f"{median(taken):.0f} ms, 95 % {quantile(sorted(taken), 0.95):.0f} ms")
        )
    result.found[name] = {
        "delays_ms": late,
        "cut_off": len(early),
        "counted": counted,
        "gaps": dry._asdict(),
        "steps": steps,
    }


STEPS = ("heard", "decided", "recalled", "thought", "spoken", "first")
NAMES = {
    "heard": "to the ear's text, from the last sound",
    "decided": "to the end of the turn",
    "recalled": "to what memory gives",
    "thought": "to a sentence",
    "spoken": "to its sound",
    "first": "to sending it",
}


def split(steps: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """From what the engine notes of its turns to milliseconds for each step; nothing if it does not note them."""
    found: dict[str, list[float]] = {}
    for turn in steps:
        last = 0.0
        for step in STEPS:
            if step in turn:
                found.setdefault(NAMES[step], []).append(turn[step] - last)
                last = turn[step]
    return found


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed, by nearest rank; infinite of none."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.inf


def limited(what: str, taken: float, limit: float) -> Row:
    value = "never" if math.isinf(taken) else f"{taken:.0f} ms"
    return Row(what, value, f"{limit:.0f} ms", taken <= limit)


async def slow(engine: str, share: float) -> Result:
    """How many slow sentences are cut off."""
    chosen = SLOW[: max(1, round(len(SLOW) * share))]
    spoken = [slowly(sentence, voices()[n % len(voices())]) for n, sentence in enumerate(chosen)]
    at_once = 4
    talks = [Talk("") for _ in range(at_once)]
    async with serving(engine) as bridge:
        calls = [hold(bridge, n, talks[n], spoken[n::at_once], f"slow {n}", (1.0, 2.0)) for n in range(at_once)]
        wrong = await together(calls, at_once)
    delays = [(talk, n, talk.delay(n)) for talk in talks for n in range(len(talk.said))]
    cut = [(talk, n, d) for talk, n, d in delays if d is not None and d < 0]
    after = sorted(d for _, _, d in delays if d is not None and d >= 0)
    judge = Judge()
    for talk, n, early in cut:
        utterance = talk.said[n].utterance
        text = judge(talk.heard(n))
        wrong.append(f"cut off {-early:.0f} ms before its end ({utterance.voice}): {utterance.text!r}; heard {text!r}")
    lost = len(spoken) - len(delays) + sum(d is None for _, _, d in delays)
    rows = [
        Row(f"slow sentences cut off, of {len(spoken)}", str(len(cut)), f"{CUT * len(spoken) / 50:g}", len(cut) <= CUT),
        Row("- not answered", str(lost)),
        Row(
            "- last word to first sound of the others, median, 95 %",
            f"{quantile(after, 0.5):.0f}, {quantile(after, 0.95):.0f} ms",
        ),
        Row("- calls at once", str(at_once)),
    ]
    return Result("slow", rows, wrong, {"cut_off": len(cut), "delays_ms": after})
