"""What a call, or many, came to: for people, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .call import Call
from .measure import AT_FIRST, SETTLED, Delays, Echo, delays, echoes, is_echo
from .protocol import RATE


@dataclass(frozen=True)
class Result:
    """A call and the echoes of what its caller said."""

    call: Call
    echoes: list[Echo]

    @classmethod
    def of(cls, call: Call) -> Result:
        return cls(call, echoes(call.spoken, call.heard))

    @property
    def mouth_to_ear(self) -> Delays | None:
        """None when the far end is no echo."""
        return delays(self.echoes) if is_echo(self.echoes) else None

    @property
    def gap_ms(self) -> float:
        return sum(gap.length for gap in self.call.gaps) * 1000 / RATE

    @property
    def longest_gap_ms(self) -> float:
        return max((gap.length for gap in self.call.gaps), default=0) * 1000 / RATE

    def data(self) -> dict[str, Any]:
        call = self.call
        return {
            "call": call.sid,
            "stream": call.stream_sid or None,
            "from": call.caller,
            "to": call.number,
            "answered": call.answered,
            "completed": call.completed,
            "ended": call.ended,
            "stream_ended": call.stream_ended or None,
            "failure": call.failure or None,
            "twiml": call.steps,
            "seconds": call.seconds,
            "webhook_ms": _ms(call.webhook_seconds),
            "handshake_ms": _ms(call.handshake_seconds),
            "first_media_ms": _ms(call.first_media),
            "first_sound_ms": _ms(call.first_sound),
            "mouth_to_ear": self._delay_data(),
            "underruns": len(call.gaps),
            "gap_ms": self.gap_ms,
            "longest_gap_ms": self.longest_gap_ms,
            "media_messages": len(call.arrivals),
            "buffered_ms": _ms(float(np.median([a.buffered for a in call.arrivals])) / RATE) if call.arrivals else None,
            "marks": len(call.marks),
            "clears": len(call.clears),
            "digits": "".join(digit for _, digit in call.digits),
            "lost_chunks": len(call.lost_chunks),
            "latest_tick_ms": _ms(max(call.lateness, default=0.0)),
            "ignored_messages": call.ignored,
            "errors": [{"code": error.code, "why": error.why} for error in call.errors],
        }

    def _delay_data(self) -> dict[str, Any] | None:
        over_all = _figures(self.mouth_to_ear)
        if over_all is None:
            return None
        return {
            **over_all,
            "sounds": len(self.echoes),
            "at_first": _figures(delays(self.echoes, ends=AT_FIRST)),
            "settled": _figures(delays(self.echoes, begins=SETTLED)),
        }


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Every call, and all of them together."""
    together = [echo for result in results if result.mouth_to_ear for echo in result.echoes]
    first = [r.call.first_media * 1000 for r in results if r.call.first_media is not None]
    return {
        "calls": [result.data() for result in results],
        "summary": {
            "calls": len(results),
            "answered": sum(result.call.answered for result in results),
            "completed": sum(result.call.completed for result in results),
            "first_media_ms": round(float(np.median(first)), 1) if first else None,
            "mouth_to_ear": _figures(delays(together)),
            "underruns": sum(len(result.call.gaps) for result in results),
            "gap_ms": sum(result.gap_ms for result in results),
            "errors": dict(Counter(str(error.code) for result in results for error in result.call.errors)),
        },
    }


def as_rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The report in lines of a label and what there is to say."""
    return _one(results[0]) if len(results) == 1 else _many(results)


def _one(result: Result) -> list[tuple[str, str]]:
    call = result.call
    rows = [
        ("call", f"{call.caller} to {call.number}, {call.seconds:.1f} s, {call.failure or call.ended}"),
        ("TwiML", ", then ".join(call.steps) or "none"),
    ]
    if call.webhook_seconds is not None:
        opened = f", stream open in {_ms(call.handshake_seconds):g} ms" if call.handshake_seconds else ""
        rows.append(("set-up", f"webhook answered in {_ms(call.webhook_seconds):g} ms{opened}"))
    if call.stream_ended:
        rows += [
            ("first audio", _first(call)),
            *_delay_rows(result.echoes, result.mouth_to_ear),
            ("underruns", _underruns([result])),
            ("messages", f"{len(call.arrivals)} media, {len(call.marks)} marks, {len(call.clears)} clears"),
        ]
    return rows + _trouble([result])


def _many(results: Sequence[Result]) -> list[tuple[str, str]]:
    calls = [result.call for result in results]
    echoing = [result for result in results if result.mouth_to_ear is not None]
    together = [echo for result in echoing for echo in result.echoes]
    first = [call.first_media for call in calls if call.first_media is not None]
    rows = [
        (
            "calls",
            f"{len(calls)}, {sum(call.answered for call in calls)} answered, "
            f"{sum(call.completed for call in calls)} completed, {max(call.seconds for call in calls):.1f} s",
        )
    ]
    if first:
        rows += [
            ("first audio", f"{np.median(first) * 1000:.0f} ms median, {max(first) * 1000:.0f} ms at worst"),
            *_delay_rows(together, delays(together)),
            ("underruns", _underruns(results)),
        ]
    failures = Counter(call.failure for call in calls if call.failure)
    rows += [("failed", f"{count} x {why}") for why, count in failures.most_common()]
    return rows + _trouble(results)


def _first(call: Call) -> str:
    if call.first_media is None:
        return "none came"
    if call.first_sound is None:
        return f"{_ms(call.first_media):g} ms after the stream began, all of it silent"
    return f"{_ms(call.first_media):g} ms after the stream began, the first audible at {_ms(call.first_sound):g} ms"


def _delay_rows(found: Sequence[Echo], over_all: Delays | None) -> list[tuple[str, str]]:
    if over_all is None:
        return [("mouth to ear", "no echo found")]
    rows = [
        (
            "mouth to ear",
            f"{over_all.median:.1f} ms median, p95 {over_all.p95:.1f}, {over_all.least:.1f} to {over_all.most:.1f} ms, "
            f"{over_all.count} of {len(found)} sounds came back",
        )
    ]
    early, late = delays(found, ends=AT_FIRST), delays(found, begins=SETTLED)
    if early and late:
        rows.append(
            ("", f"{early.median:.1f} ms in the first {AT_FIRST:g} s, {late.median:.1f} ms after {SETTLED:g} s")
        )
    return rows


def _underruns(results: Sequence[Result]) -> str:
    count = sum(len(result.call.gaps) for result in results)
    if not count:
        return "none"
    total = sum(result.gap_ms for result in results)
    longest = max(result.longest_gap_ms for result in results)
    return f"{count}, gaps of {total:.0f} ms in all, the longest {longest:.0f} ms"


def _trouble(results: Sequence[Result]) -> list[tuple[str, str]]:
    """What Twilio's debugger would show, each code once."""
    errors = [error for result in results for error in result.call.errors]
    counts = Counter(error.code for error in errors)
    first = {error.code: error.why for error in reversed(errors)}
    rows = [(f"error {code}", f"{first[code]}{f' ({count} times)' * (count > 1)}") for code, count in counts.items()]
    ignored = sum(result.call.ignored for result in results)
    if ignored:
        rows.append(("ignored", f"{ignored} messages that Twilio would not have taken"))
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _figures(values: Delays | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        "count": values.count,
        "median_ms": round(values.median, 3),
        "p95_ms": round(values.p95, 3),
        "min_ms": values.least,
        "max_ms": values.most,
    }
