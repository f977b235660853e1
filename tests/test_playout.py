"""The lead, against a strict player at the end of a network, on a clock that is turned."""

from __future__ import annotations

import heapq
import random
import tracemalloc
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_bridge.bridge.playout import LEAST_LEAD, MOST_LEAD, NEAR, Plan, Playout

RATE = 8000
FRAME = 640  # samples in 80 ms
TICK = 160  # samples in the 20 ms that the player takes at a time
START = 100.0  # the monotonic clock begins anywhere

SILENCE = -1

Pieces = list[tuple[int, int]]  # the number of the first sample, or SILENCE, and how many
Mark = tuple[int, int]  # generation, position
Spans = list[tuple[float, float]]  # when it begins, how long it lasts


class Player:
    """Twilio's side: takes 20 ms a tick, and sends a mark back at the end of the tick that plays up to it."""

    def __init__(self) -> None:
        self.gaps: list[float] = []  # when it ran dry with more to come
        self.lost = 0  # samples of the agent's that were never played
        self.repeated = 0
        self._next = 0
        self._pieces: deque[tuple[int, int]] = deque()
        self._put = self._taken = self._heard = 0
        self._marks: deque[tuple[int, Mark]] = deque()
        self._sounding = False
        self._dry: float | None = None
        self._tick_ends = 0.0

    def lead(self, now: float) -> float:
        playing = max(0.0, self._tick_ends - now) if self._taken > self._heard else 0.0
        return (self._put - self._taken) / RATE + playing

    def sound(self, pieces: Pieces) -> None:
        self._pieces.extend(pieces)
        self._put += sum(n for _, n in pieces)

    def mark(self, mark: Mark) -> list[Mark]:
        if self._put == self._heard:
            return [mark]
        self._marks.append((self._put, mark))
        return []

    def clear(self) -> list[Mark]:
        marks = [mark for _, mark in self._marks]
        self._pieces.clear()
        self._marks.clear()
        self._taken = self._put
        self._sounding, self._dry = False, None
        return marks

    def tick(self, now: float, ends: float) -> list[Mark]:
        self._heard = self._taken
        reached = []
        while self._marks and self._marks[0][0] <= self._heard:
            reached.append(self._marks.popleft()[1])
        if self._pieces and self._dry is not None:
            self.gaps.append(self._dry)
            self._dry = None
        want = TICK
        while want and self._pieces:
            first, n = self._pieces.popleft()
            if n > want:
                self._pieces.appendleft((first if first == SILENCE else first + want, n - want))
                n = want
            want -= n
            self._play(first, n)
        self._taken += TICK - want
        self._tick_ends = ends
        if want and self._sounding and self._dry is None:
            self._dry = now
        return reached

    def _play(self, first: int, n: int) -> None:
        self._sounding = True
        if first != SILENCE:
            self.lost += max(0, first - self._next)
            self.repeated += max(0, self._next - first)
            self._next = first + n


@dataclass
class World:
    """A bridge that hands over a frame every 80 ms, a network, a player; nothing takes time but what is asked for."""

    out: float = 0.0005
    back: float = 0.0005
    jitter: float = 0.0
    stalls: Spans = field(default_factory=list)  # of the network, both ways
    held: Spans = field(default_factory=list)  # of the engine
    drift: float = 0.0  # how much slower the caller's clock is than ours
    phase: float = 0.013  # of the player's ticks against our frames
    silent: Callable[[float], bool] = lambda at: False
    seed: int = 1

    def __post_init__(self) -> None:
        self.playout = Playout(RATE)
        self.player = Player()
        self.plans: list[tuple[float, Plan]] = []
        self.leads: list[tuple[float, float]] = []  # at the player, whenever a frame comes in
        self.answers: list[tuple[float, int]] = []
        self.cut = 0
        self.now = 0.0
        self._dice = random.Random(self.seed)
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._gates = {"out": 0.0, "back": 0.0, "engine": 0.0}
        self._generation = 0
        self._spoken = 0
        self._send_mark(self.playout.probe(START))
        self._frame(0)
        self._tick(0)

    def run(self, seconds: float) -> World:
        while self._todo and self._todo[0][0] <= seconds:
            self.now, _, do = heapq.heappop(self._todo)
            do()
        return self

    def flush(self) -> None:
        self.playout.clear()
        self._clear()

    def lead(self, since: float, until: float = float("inf")) -> list[float]:
        """The sound at the player whenever a frame came in."""
        return [lead for at, lead in self.leads if since <= at < until]

    def undisturbed(self) -> bool:
        return not (self.player.gaps or self.playout.underruns or self.playout.recoveries or self.player.lost)

    def _at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._todo, (when, next(self._order), do))

    def _frame(self, n: int) -> None:
        due = n * 0.08 * (1 + self.drift)

        def hand_over() -> None:
            self._hand_over(n)

        self._at(self._through("engine", due, self.held), hand_over)
        self._at(due, lambda: self._frame(n + 1))

    def _tick(self, k: int) -> None:
        due, ends = (self.phase + i * 0.02 * (1 + self.drift) for i in (k, k + 1))

        def tick() -> None:
            self._echo(self.player.tick(due, ends))
            self._tick(k + 1)

        self._at(due, tick)

    def _through(self, way: str, at: float, stalls: Spans) -> float:
        """When something passes that sets out at `at`: in order, and never in a stall."""
        for begins, length in stalls:
            if begins <= at < begins + length:
                at = begins + length
        self._gates[way] = max(self._gates[way], at)
        return self._gates[way]

    def _travel(self, way: str, delay: float, do: Callable[[], None]) -> None:
        late = self._dice.uniform(0, self.jitter) if self.jitter else 0.0
        self._at(self._through(way, self.now + delay + late, self.stalls), do)

    def _hand_over(self, n: int) -> None:
        silent = self.silent(n * 0.08)
        plan = self.playout.plan(START + self.now, FRAME, silent, n)
        self.plans.append((self.now, plan))
        if plan.clear:
            self._clear()
        if plan.cut:
            assert silent, "only silence may be left out"
            self.cut += plan.cut
        pieces = [(SILENCE, plan.pad), (SILENCE if silent else self._spoken, FRAME - plan.cut)]
        self._spoken += 0 if silent else FRAME
        generation = self._generation

        def arrive() -> None:
            self.leads.append((self.now, self.player.lead(self.now)))
            self.player.sound(pieces)
            if plan.mark is not None:
                self._echo(self.player.mark((generation, plan.mark)))

        self._travel("out", self.out, arrive)

    def _send_mark(self, position: int) -> None:
        mark = (self._generation, position)
        self._travel("out", self.out, lambda: self._echo(self.player.mark(mark)))

    def _clear(self) -> None:
        self._generation += 1
        self._travel("out", self.out, lambda: self._echo(self.player.clear()))

    def _echo(self, marks: list[Mark]) -> None:
        for generation, position in marks:

            def played(generation: int = generation, position: int = position) -> None:
                if generation == self._generation:  # as the line does
                    answers = self.playout.played(position, START + self.now)
                    if answers is not None:
                        self.answers.append((self.now, answers))

            self._travel("back", self.back, played)


PHASES = [0.0, 0.0007, 0.007, 0.013, 0.0193]
NETWORKS = [(0.0005, 0.0005), (0.03, 0.03), (0.15, 0.15), (0.2, 0.05), (0.01, 0.12)]


def pauses(at: float) -> bool:
    """Speaks for a second, is silent for a second."""
    return at % 2 >= 1


def speech(at: float) -> bool:
    return False


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_a_call_begins_with_a_lead_of_40_ms(phase: float, out: float, back: float) -> None:
    world = World(out, back, phase=phase).run(2)
    assert world.plans[0][1] == Plan(pad=320, mark=320 + FRAME)
    assert sum(plan.pad for _, plan in world.plans) == 320
    leads = world.lead(0)[1:]
    assert min(leads) >= 0.04 - 1e-9
    assert max(leads) <= 0.06 + 1e-9  # the player starts at its next tick


@pytest.mark.parametrize("silent", [speech, pauses])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_a_steady_network_however_long_leaves_no_gap_and_takes_no_sound(
    silent: Callable[[float], bool], phase: float, out: float, back: float
) -> None:
    world = World(out, back, phase=phase, silent=silent).run(60)
    assert world.undisturbed()
    assert min(world.lead(0.3)) >= LEAST_LEAD - NEAR - 1e-9


@pytest.mark.parametrize("phase", PHASES)
def test_after_five_calm_seconds_the_lead_falls_to_20_ms_in_a_pause(phase: float) -> None:
    world = World(phase=phase, silent=lambda at: 3 <= at < 4 or 10 <= at < 11).run(30)
    # The first pause takes at most the wait for the player's first tick, the second takes the lead down.
    assert sum(plan.cut for at, plan in world.plans if at < 10) in (0, TICK)
    assert [plan.cut for at, plan in world.plans if at >= 10 and plan.cut] == [TICK]
    first, last = world.lead(4, 10), world.lead(11)
    assert 0.04 - NEAR - 1e-9 <= min(first) == pytest.approx(min(last) + 0.02)
    assert LEAST_LEAD - NEAR - 1e-9 <= min(last) <= max(last) <= LEAST_LEAD + 0.02 - NEAR + 1e-9
    assert world.undisturbed()


def test_while_the_agent_speaks_the_lead_stays() -> None:
    world = World().run(60)
    assert world.cut == 0
    assert min(world.lead(50)) >= 0.04


def test_running_dry_adds_20_ms_each_time_up_to_160() -> None:
    held = [(3.04 + 4 * n, min(0.16, 0.075 + 0.02 * n)) for n in range(6)]  # frames come at multiples of 0.08
    world = World(held=held, silent=lambda at: True)
    aims = []
    for n in range(7):
        world.run(3.0 + 4 * n)
        assert len(world.player.gaps) == world.playout.underruns == n
        aims.append(world.playout.aim)
    assert aims == pytest.approx([0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16])


def test_a_stall_that_no_lead_can_bridge_does_not_make_it_grow() -> None:
    world = World(held=[(3.0, 0.5)], silent=lambda at: True).run(4)
    assert world.playout.underruns == 1
    assert world.playout.aim == pytest.approx(0.04)


@pytest.mark.parametrize("late", [0.06, 0.08, 0.1, 0.12])
def test_a_late_frame_is_a_lead_itself_and_gets_only_the_rest_as_silence(late: float) -> None:
    world = World(held=[(5.04, late)]).run(10)  # the frame of 5.04
    assert world.playout.underruns == len(world.player.gaps) == 1
    assert 0.06 - 0.005 <= min(world.lead(6)) <= max(world.lead(6)) <= max(0.06, late) + 0.04
    assert world.player.lost == world.playout.recoveries == 0


def test_a_smaller_lead_that_is_soon_too_small_is_tried_again_after_twice_the_wait() -> None:
    world = World(held=[(3.04, 0.09), (10.0, 0.09)], silent=lambda at: True)
    assert world.run(4).playout.aim == pytest.approx(0.06)
    assert world.run(9).playout.aim == pytest.approx(0.04)
    assert world.run(11).playout.aim == pytest.approx(0.06)
    assert world.run(10.1 + 9.8).playout.aim == pytest.approx(0.06)
    assert world.run(10.1 + 10.4).playout.aim == pytest.approx(0.04)


@pytest.mark.parametrize(("out", "back"), NETWORKS)
@pytest.mark.parametrize("stall", [0.24, 0.3, 1.0])
@pytest.mark.parametrize("cause", ["stalls", "held"])
def test_a_backlog_is_left_out_of_the_next_pause(cause: str, stall: float, out: float, back: float) -> None:
    world = World(out, back, silent=pauses, **{cause: [(5.0, stall)]}).run(30)
    assert len(world.player.gaps) == world.playout.underruns == 1
    assert max(world.lead(5 + stall + 5)) <= 0.1
    assert world.playout.recoveries == world.player.lost == world.player.repeated == 0


@pytest.mark.parametrize(("out", "back"), NETWORKS)
@pytest.mark.parametrize("stall", [0.24, 0.3, 1.0])
@pytest.mark.parametrize("cause", ["stalls", "held"])
def test_without_a_pause_a_backlog_is_cut_away_once(cause: str, stall: float, out: float, back: float) -> None:
    world = World(out, back, **{cause: [(5.0, stall)]}).run(30)
    assert len(world.player.gaps) == world.playout.underruns == 1
    assert world.playout.recoveries == 1
    assert max(world.lead(5 + stall + 5)) <= 0.1
    assert world.cut == world.player.repeated == 0
    assert 0 < world.player.lost <= (stall + 0.1) * RATE


@pytest.mark.parametrize("stall", [0.3, 0.8, 1.0])
def test_a_stall_at_the_very_start_leaves_no_more_delay_than_a_slow_network(stall: float) -> None:
    world = World(silent=pauses, stalls=[(0.1, stall)]).run(20)
    assert max(world.lead(0.1 + stall + 5)) <= 0.35 + 0.06
    assert world.player.lost == 0


@pytest.mark.parametrize("stall", [0.3, 0.8, 1.0])
def test_a_stall_right_after_a_flush_is_made_up(stall: float) -> None:
    world = World(silent=pauses, stalls=[(5.03, stall)])
    world.run(5.0).flush()
    world.run(20)
    assert max(world.lead(11)) <= 0.1


@pytest.mark.parametrize("at", [0.5, 1.5])
@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_marks_from_before_a_gap_are_not_taken_for_what_came_after(at: float, out: float, back: float) -> None:
    world = World(out, back, held=[(at, 0.3)], silent=pauses).run(20)
    assert len(world.player.gaps) == world.playout.underruns == 1
    assert min(world.lead(10)) >= LEAST_LEAD - 1e-9
    assert max(world.lead(10)) <= 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("silent", [speech, pauses])
@pytest.mark.parametrize("jitter", [0.005, 0.02])
def test_jitter_that_nobody_hears_is_no_underrun(jitter: float, silent: Callable[[float], bool], seed: int) -> None:
    world = World(jitter=jitter, silent=silent, seed=seed).run(60)
    assert world.undisturbed()
    assert world.playout.aim == LEAST_LEAD


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("silent", [speech, pauses])
def test_100_ms_of_jitter_lose_nothing_and_are_heard_only_until_the_lead_has_grown(
    silent: Callable[[float], bool], seed: int
) -> None:
    world = World(jitter=0.1, silent=silent, seed=seed).run(60)
    assert world.player.lost == 0
    assert len([at for at in world.player.gaps if at > 30]) <= 1
    assert max(world.lead(30)) <= MOST_LEAD + 0.1


@pytest.mark.parametrize("silent", [speech, pauses])
@pytest.mark.parametrize("drift", [-1e-4, 1e-4])
def test_an_hour_of_drifting_clocks_is_no_underrun(drift: float, silent: Callable[[float], bool]) -> None:
    world = World(drift=drift, silent=silent).run(3600)
    assert world.undisturbed()
    assert world.playout.aim == LEAST_LEAD
    assert sum(plan.pad for _, plan in world.plans) == 320
    assert max(world.lead(30)) - min(world.lead(30)) < (0.021 if silent is pauses else 0.001)


@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_a_flush_begins_anew_and_the_marks_that_it_returns_say_nothing(out: float, back: float) -> None:
    world = World(out, back)
    for at in (5.01, 5.3, 8.0):
        world.run(at).flush()
    world.run(20)
    assert [at for at, plan in world.plans if plan.pad] == pytest.approx([0, 5.04, 5.36, 8.0], abs=0.081)
    assert world.playout.underruns == world.playout.recoveries == 0
    assert not world.player.gaps
    assert min(world.lead(9)) >= LEAST_LEAD
    assert max(world.lead(9)) <= 0.06 + 1e-9


def test_marks_come_with_every_frame_while_settling_and_once_a_second_when_steady() -> None:
    world = World(held=[(10.0, 0.5)]).run(20)
    marks = [at for at, plan in world.plans if plan.mark is not None]
    frames = [at for at, _ in world.plans]
    assert [at for at in marks if at < 2] == [at for at in frames if at < 2]
    assert [b - a for a, b in pairwise([at for at in marks if 3 <= at < 10])] == pytest.approx([1.04] * 5, abs=0.05)
    settling = [at for at in frames if 10 < at < 12.4]
    assert [at for at in marks if 10 < at < 12.4] == settling
    assert [b - a for a, b in pairwise([at for at in marks if at >= 16])] == pytest.approx([1.04] * 3, abs=0.05)


def test_a_mark_that_comes_back_tells_what_the_caller_has_heard_the_answer_to() -> None:
    playout = Playout(RATE)
    marks = [playout.plan(START + n * 0.08, FRAME, False, answers=1000 + n).mark for n in range(4)]
    assert marks == [960, 1600, 2240, 2880]
    assert playout.played(959, START + 0.3) is None
    assert playout.played(1600, START + 0.3) == 1001
    assert playout.played(1600, START + 0.3) is None
    assert playout.played(2881, START + 0.3) is None  # never sent
    playout.clear()
    assert playout.played(960, START + 0.3) is None
    assert playout.plan(START + 0.4, FRAME, False, answers=2000).mark == 960
    assert playout.played(960, START + 0.6) == 2000


@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_answers_are_reported_when_they_are_heard_and_in_order(out: float, back: float) -> None:
    world = World(out, back).run(20)
    delays = [at - n * 0.08 for at, n in world.answers]
    assert len(delays) > 35
    assert min(delays) >= 0.08 + 0.04 + out + back
    assert max(delays) <= 0.08 + 0.06 + out + back + 1e-9
    assert all(a < b for (_, a), (_, b) in pairwise(world.answers))


@pytest.mark.parametrize(("out", "back"), NETWORKS)
def test_the_lead_is_what_will_be_unheard_when_what_is_sent_now_arrives(out: float, back: float) -> None:
    world = World(out, back).run(9.99)
    on_its_way = sum(0.08 for at, _ in world.plans if at + out > world.now)
    unheard = world.player.lead(world.now) + on_its_way - out
    assert world.playout.lead(START + world.now) == pytest.approx(unheard, abs=0.002)


def test_a_mark_may_be_late_by_chance_but_never_early() -> None:
    playout, leads = Playout(RATE), []
    for n in range(200):
        now = START + n * 0.08
        playout.plan(now, FRAME, False)
        late = 0.01 if 50 <= n < 150 else 0.0
        playout.played((n + 1) * FRAME, now + 0.05 + late)
        leads.append(playout.lead(now + 0.08))
    assert leads[30] < leads[140] < leads[30] + 0.01
    assert leads[150] == pytest.approx(leads[30])


def test_before_the_first_sound_there_is_no_lead() -> None:
    assert Playout(RATE).lead(START) == 0


def test_a_peer_that_returns_no_marks_costs_no_memory_and_hears_everything() -> None:
    playout = Playout(RATE)
    tracemalloc.start()
    try:
        for n in range(45_000):
            plan = playout.plan(START + n * 0.08, FRAME, n % 10 == 0, answers=n)
            assert plan.pad == (320 if n == 0 else 0)
            assert not plan.clear
            if n == 1000:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 5000
    finally:
        tracemalloc.stop()


STEPS = st.one_of(
    st.tuples(st.just("plan"), st.floats(0, 0.3), st.integers(0, 2000), st.booleans()),
    st.tuples(st.just("played"), st.floats(0, 0.3), st.integers(0, 60_000), st.booleans()),
    st.tuples(st.just("clear"), st.floats(0, 0.3), st.just(0), st.booleans()),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=80))
def test_whatever_happens_only_whole_ticks_of_silence_go_in_and_out(steps: list[tuple[str, float, int, bool]]) -> None:
    playout, now = Playout(RATE), START
    for what, later, number, silent in steps:
        now += later
        if what == "plan":
            plan = playout.plan(now, number, silent, answers=number)
            assert 0 <= plan.pad <= MOST_LEAD * RATE
            assert plan.pad % TICK == 0
            assert 0 <= plan.cut <= (number if silent else 0)
            assert plan.cut % TICK == 0 or plan.cut == number
            assert not (plan.clear and silent)
            assert not (plan.pad and plan.cut)
        elif what == "played":
            playout.played(number, now)
        else:
            playout.clear()
        assert LEAST_LEAD <= playout.aim <= MOST_LEAD
