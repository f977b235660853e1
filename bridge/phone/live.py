"""The line that shows a call while it lasts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from .call import Call, level
from .measure import echoes
from .phone import Phone
from .protocol import RATE

RECENT = RATE // 10  # samples that a level is taken over
LOOK_BACK = 4 * RATE  # samples in which the latest echo is looked for
QUIETEST = -50.0  # dBFS at the left end of a level bar
BAR = 8  # characters; the whole line fits into 80


class Panel:
    """What there is to see now; rich renders it anew at every refresh."""

    def __init__(self, phones: Sequence[Phone]) -> None:
        self._phones = phones
        self._measured_at = 0
        self._delay: float | None = None

    def __rich__(self) -> Text:
        calls = [phone.record for phone in self._phones if phone.record]
        if not calls:
            return Text("dialling")
        return self._one(calls[0]) if len(self._phones) == 1 else self._many(calls)

    def _one(self, call: Call) -> Text:
        delay = self._latest(call)
        text = Text(f"{call.state} {call.seconds:5.1f} s  ")
        text.append("caller ").append(_bar(call.spoken_bytes), "blue")
        text.append("  heard ").append(_bar(call.heard_bytes), "green")
        text.append("  echo ").append(" -- ms" if delay is None else f"{delay:3.0f} ms", "yellow")
        text.append(f"  underruns {len(call.gaps)}")
        if call.errors:
            text.append(f"  {call.errors[-1]}", "red")
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _many(self, calls: Sequence[Call]) -> Text:
        states = [call.state for call in calls]
        text = Text(f"{max(call.seconds for call in calls):5.1f} s  ")
        text.append("  ".join(f"{state} {states.count(state)}" for state in ("dialling", "talking", "ended")))
        text.append(f"  underruns {sum(len(call.gaps) for call in calls)}")
        text.append(f"  errors {sum(len(call.errors) for call in calls)}")
        return text

    def _latest(self, call: Call) -> float | None:
        """The delay of the last sound that came back, looked for once a second."""
        if call.ticks - self._measured_at >= 50:
            self._measured_at = call.ticks
            since = max(0, len(call.spoken_bytes) - LOOK_BACK)
            found = [echo.delay_ms for echo in echoes(call.spoken[since:], call.heard[since:])]
            self._delay = next((delay for delay in reversed(found) if delay is not None), self._delay)
        return self._delay


def _bar(audio: bytearray) -> str:
    share = 1 - level(audio[-RECENT:]) / QUIETEST
    full = round(max(0.0, min(1.0, share)) * BAR)
    return "█" * full + "·" * (BAR - full)
