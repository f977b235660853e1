"""How far ahead of the caller's ear we send: the lead, and the marks that measure it.

Replies come at real-time speed, so a lead exists only as silence that was put in. This is arithmetic over the
times it is given; it owns no clock. Positions and counts are in samples of the line's rate, times in seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FIRST_LEAD = 0.040  # put in before the first frame: what a quiet network's jitter needs
LEAST_LEAD = 0.020  # one tick; below it every late packet is heard
MOST_LEAD = 0.160  # more would be heard as slowness, worse than a rare gap
TICK = 0.020  # players take sound in such pieces: silence goes in and out by whole ones, so that none is broken
NEAR = 0.005  # a lead this close under the aim is at the aim: packets are never that punctual
CALM = 5.0  # seconds without a gap after which a smaller lead is tried
MOST_CALM = 80.0  # that wait doubles, up to this, each time that the smaller lead is soon too small
SOON = 10.0  # seconds; a gap within them after a smaller lead was tried is laid to it
LATE_MARK = 0.015  # seconds; a peer that ran dry is late by whole ticks, a packet by less
LATE_MARKS = 8  # that late in a row (600 ms): the peer ran dry; fewer are late packets
SURPLUS = 0.080  # lead over the aim that is a backlog, not jitter
PATIENCE = 2.0  # seconds that a backlog may wait for a pause to leave out before it is cut away
SETTLING = 2.0  # seconds with a mark after every frame, at the start and after a gap
STEADY_MARKS = 1.0  # seconds between marks after that
LEARNING = 1.0  # seconds of marks after meeting an empty peer that tell when it began to play
CREEP = 0.02  # share of a mark's lateness that is taken for the peer's slower clock
MOST_TRIP = 0.350  # seconds to the far side of the world and back; what is over that is a backlog
MOST_ANSWERS = 256  # frames (20 s) whose marks may be out: a peer that returns none must not fill the memory


@dataclass(slots=True)
class Plan:
    """What to do with one frame of sound that is about to go out."""

    clear: bool = False
    """Void what the peer holds first."""
    pad: int = 0
    """Samples of silence to put before it."""
    cut: int = 0
    """Samples to leave out of it; only ever asked of silence."""
    mark: int | None = None
    """The position to ask about after it."""


class Playout:
    def __init__(self, rate: int) -> None:
        self.underruns = 0
        self.breaks = 0  # times that the peer had nothing to play when sound came, the first one too
        self.recoveries = 0
        self.aim = FIRST_LEAD
        self._rate = rate
        self._sent = 0  # samples sent since the last clear
        self._base: float | None = None  # when a mark at position 0 came back, or would have
        self._trip = 0.0  # seconds to the peer and back
        self._probed_at: float | None = None
        self._empty_at = 0  # the position at which the peer last had nothing to play
        self._soonest = 0.0  # the base of what followed, if the way took no time
        self._learning_until = 0.0
        self._learnt = False  # a mark has told when it began to play
        self._due = 0.0  # when the next sound should be handed over
        self._settled_at = 0.0
        self._marked_at = 0.0
        self._calm_since = 0.0
        self._calm = CALM
        self._shrunk_at = -SOON
        self._surplus_since: float | None = None
        self._late: list[float] = []  # bases by the marks that are late, in a row
        self._answers: deque[tuple[int, int]] = deque(maxlen=MOST_ANSWERS)  # position, caller's clock that it answers

    def lead(self, now: float) -> float:
        """Seconds of sound that will not have been played when what is sent now arrives."""
        return 0.0 if self._base is None else self._base - self._trip + self._sent / self._rate - now

    def probe(self, now: float) -> int:
        """The position of a mark to send before any sound: an empty peer returns it at once, so it times the way."""
        self._probed_at = now
        return 0

    def plan(self, now: float, samples: int, silent: bool, answers: int | None = None) -> Plan:
        """Decide about `samples` of sound handed over at `now`; the caller does what the plan says.

        `answers` is the caller's clock at the end of the frame that this sound replies to.
        """
        plan = Plan()
        if self._base is None:
            self._start(now, plan)
        lead = self.lead(now)
        if lead < 0:
            late = max(0.0, now - self._due)
            self._empty(now)
            self._gap(now, late)
            # Sound that came too late is itself a lead for what follows in time.
            plan.pad = self._whole_ticks(self.aim - late)
        elif not plan.pad:
            self._shrink(now, lead, samples, silent, plan)
        self._sent += plan.pad + samples - plan.cut
        self._due = now + samples / self._rate
        if answers is not None:
            self._answers.append((self._sent, answers))
        period = 0.0 if now < self._settled_at else STEADY_MARKS
        if now - self._marked_at >= period:
            self._marked_at = now
            plan.mark = self._sent
        return plan

    def played(self, position: int, now: float) -> int | None:
        """The peer says that it has played up to `position`; returns the caller's clock that this answers."""
        if not position and self._probed_at is not None:
            self._trip = min(MOST_TRIP, now - self._probed_at)
            self._probed_at = None
            if self._base is not None and not self._learnt:
                self._base = self._soonest + self._trip
        if self._base is None or position > self._sent:
            return None
        if position > self._empty_at:
            self._measure(now - position / self._rate, now)
        answers = None
        while self._answers and self._answers[0][0] <= position:
            answers = self._answers.popleft()[1]
        return answers

    def clear(self) -> None:
        """The peer's buffer was voided: positions begin anew with the next sound."""
        self._sent = 0
        self._base = None
        self._late.clear()
        self._surplus_since = None
        self._answers.clear()

    def _start(self, now: float, plan: Plan) -> None:
        if self._calm_since == 0.0:
            self._calm_since = now
        self._empty(now)
        self._settled_at = now + SETTLING
        plan.pad = self._whole_ticks(self.aim)

    def _empty(self, now: float) -> None:
        """What is sent now meets a peer that has nothing to play."""
        self.breaks += 1
        self._empty_at = self._sent
        self._soonest = now - self._sent / self._rate
        self._base = self._soonest + self._trip
        self._learnt = False
        self._learning_until = now + LEARNING
        self._late.clear()

    def _measure(self, base: float, now: float) -> None:
        """Take the base by a mark."""
        assert self._base is not None
        late = base - self._base
        if now < self._learning_until:
            # The sound met an empty peer, so it was played as soon as it came and the player's next tick began.
            self._base = min(base, self._base) if self._learnt else base
            self._learnt = True
        elif late < LATE_MARK:
            self._base += late if late < 0 else late * CREEP
            self._late.clear()
        else:
            self._late.append(base)
            if len(self._late) == LATE_MARKS:
                played_from = min(self._late)
                self.breaks += 1
                self._gap(now, played_from - self._base)
                self._base = played_from
                self._late.clear()
            self._settled_at = now + SETTLING

    def _gap(self, now: float, late: float) -> None:
        """The peer ran dry because sound came `late`. A stall that no lead can bridge says nothing about the lead."""
        self.underruns += 1
        self._settled_at = now + SETTLING
        if late <= MOST_LEAD:
            self.aim = min(MOST_LEAD, self.aim + TICK)
            self._calm = min(MOST_CALM, self._calm * 2) if now - self._shrunk_at < SOON else CALM
            self._calm_since = now

    def _shrink(self, now: float, lead: float, samples: int, silent: bool, plan: Plan) -> None:
        if self.aim > LEAST_LEAD and now - self._calm_since > self._calm:
            self.aim = max(LEAST_LEAD, self.aim - TICK)
            self._calm_since = self._shrunk_at = now
        over = lead - self.aim
        if over < SURPLUS:
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        if silent:
            plan.cut = min(samples, self._whole_ticks(over if over >= SURPLUS else min(over, TICK)))
        elif self._surplus_since is not None and now - self._surplus_since > PATIENCE:
            self.recoveries += 1
            self.clear()
            plan.clear = True
            self._start(now, plan)

    def _whole_ticks(self, seconds: float) -> int:
        return max(0, int((seconds + NEAR) / TICK)) * int(TICK * self._rate)
