"""The phone's playout buffer, its bad network and its clock, each turned by hand."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from voice_bridge.bridge.phone import Clock, Gap, Network
from voice_bridge.bridge.phone.network import Path
from voice_bridge.bridge.phone.playout import SILENCE, Playout
from voice_bridge.bridge.phone.websocket import WebSocket
from voice_bridge.bridge.phone.wire import Wire


def sound(count: int, value: int = 1) -> bytes:
    return bytes((value,)) * count


def test_sound_is_played_in_order_at_160_bytes_a_tick_and_padded_with_silence() -> None:
    playout = Playout()
    playout.add(sound(100, 1))
    playout.add(sound(100, 2))
    assert playout.buffered == 200
    assert playout.tick()[0] == sound(100, 1) + sound(60, 2)
    assert playout.tick()[0] == sound(40, 2) + SILENCE[:120]
    assert playout.tick()[0] == SILENCE
    assert playout.buffered == 0


def test_a_mark_comes_back_when_the_sound_before_it_has_been_heard() -> None:
    playout = Playout()
    playout.add(sound(160))
    assert not playout.mark("first")
    playout.add(sound(170))
    assert not playout.mark("second")
    heard = [playout.tick()[1] for _ in range(5)]
    # Taken at tick 0, heard to its end when tick 1 begins; the second sound needs ticks 1, 2 and a bit of 3.
    assert heard == [[], ["first"], [], ["second"], []]


def test_a_mark_behind_nothing_comes_back_at_once() -> None:
    playout = Playout()
    assert playout.mark("at first")
    playout.tick()
    assert playout.mark("in silence")


def test_a_mark_waits_for_the_20_ms_that_are_still_sounding() -> None:
    playout = Playout()
    playout.add(sound(160))
    playout.tick()
    assert playout.buffered == 0
    assert not playout.mark("m")
    assert playout.tick()[1] == ["m"]
    assert playout.mark("after")


def test_clear_empties_the_buffer_and_returns_every_pending_mark() -> None:
    playout = Playout()
    playout.add(sound(320))
    playout.mark("a")
    playout.add(sound(1600))
    playout.mark("b")
    playout.tick()
    assert playout.clear() == ["a", "b"]
    assert playout.buffered == 0
    assert playout.tick() == (SILENCE, [])
    assert playout.mark("c"), "nothing is left that the mark could wait for"


def test_what_comes_after_a_clear_is_played_and_marked_as_ever() -> None:
    playout = Playout()
    playout.add(sound(1600))
    playout.tick()
    playout.clear()
    playout.add(sound(160, 2))
    assert not playout.mark("new")
    assert playout.tick() == (sound(160, 2), [])
    assert playout.tick() == (SILENCE, ["new"])


def test_a_gap_is_silence_between_sounds_to_the_sample() -> None:
    playout = Playout()
    playout.tick()  # before the first sound: no gap
    playout.add(sound(200))
    playout.tick()
    playout.tick()  # 40 samples, then dry
    playout.tick()
    playout.add(sound(160))
    playout.tick()
    playout.tick()  # after the last sound: no gap
    assert playout.gaps == [Gap(at=160 + 200, length=120 + 160)]


def test_silence_that_a_clear_asked_for_is_no_gap() -> None:
    playout = Playout()
    playout.add(sound(160))
    playout.tick()
    playout.clear()
    for _ in range(5):
        playout.tick()
    playout.add(sound(160))
    playout.tick()
    assert playout.gaps == []


def test_the_buffer_gives_back_what_was_put_in_however_it_was_cut() -> None:
    dice = random.Random(1)
    playout, put, got = Playout(), b"", b""
    for _ in range(500):
        piece = bytes(dice.randrange(200) for _ in range(dice.choice((0, 1, 160, 640, 900))))
        playout.add(piece)
        put += piece
        got += playout.tick()[0].rstrip(b"\xff")
    while playout.buffered:
        got += playout.tick()[0].rstrip(b"\xff")
    assert got == put


def test_a_good_network_delays_and_loses_nothing() -> None:
    path = Path(Network(), start=100.0)
    assert [path.leaves(100 + n / 50, jitter=True) for n in range(50)] == [100 + n / 50 for n in range(50)]
    assert not any(path.loses() for _ in range(1000))


def test_jitter_is_up_to_what_was_asked_and_keeps_the_order() -> None:
    path = Path(Network(jitter_ms=100, seed=7), start=0.0)
    sent = [n / 50 for n in range(2000)]
    through = [path.leaves(at, jitter=True) for at in sent]
    late = [after - before for before, after in zip(sent, through, strict=True)]
    assert through == sorted(through)
    assert min(late) >= 0
    assert 0.09 < max(late) <= 0.1
    assert len(set(through)) < len(through) * 0.7, "what was held up behind another arrives with it, in a burst"


def test_messages_other_than_sound_are_not_late_but_never_overtake() -> None:
    path = Path(Network(jitter_ms=100, seed=7), start=0.0)
    sound_through = path.leaves(0.0, jitter=True)
    assert path.leaves(0.0) == sound_through > 0
    assert path.leaves(5.0) == 5.0


def test_loss_is_the_share_that_was_asked_for() -> None:
    path = Path(Network(loss=0.1, seed=3), start=0.0)
    assert 900 < sum(path.loses() for _ in range(10_000)) < 1100
    assert all(Path(Network(loss=1.0), start=0.0).loses() for _ in range(100))


def test_a_stall_holds_everything_until_its_end() -> None:
    path = Path(Network(stalls=[(1.0, 0.5)]), start=10.0)
    assert path.leaves(10.98) == 10.98
    assert [path.leaves(at) for at in (11.0, 11.2, 11.48)] == [11.5] * 3
    assert path.leaves(11.5) == 11.5
    path.stall(12.0, float("inf"))
    assert path.leaves(12.1) == float("inf")


def test_the_same_seed_is_the_same_network_and_the_knobs_are_apart() -> None:
    def run(network: Network) -> tuple[list[float], list[bool]]:
        path = Path(network, start=0.0)
        return [path.leaves(n / 50, jitter=True) for n in range(100)], [path.loses() for _ in range(100)]

    both = run(Network(jitter_ms=50, loss=0.2, seed=5))
    assert both == run(Network(jitter_ms=50, loss=0.2, seed=5))
    assert both != run(Network(jitter_ms=50, loss=0.2, seed=6))
    assert run(Network(loss=0.2, seed=5))[1] == both[1]
    assert run(Network(jitter_ms=50, seed=5))[0] == both[0]


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.5}, {"loss": -0.1}, {"jitter_ms": -1}, {"stalls": [(1, 0)]}, {"stalls": [(-1, 1)]}]
)
def test_an_impossible_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give"):
        Network(**wrong)  # type: ignore[arg-type]


class Listener:
    """Counts ticks, and is to be waited for."""

    def __init__(self) -> None:
        self.dues: list[float] = []
        self._news = asyncio.Event()

    def tick(self, due: float) -> None:
        self.dues.append(due)
        self._news.set()

    async def ticked(self, times: int) -> None:
        async with asyncio.timeout(5):
            while len(self.dues) < times:
                self._news.clear()
                await self._news.wait()

    def assert_regular(self, start: float) -> None:
        assert self.dues == pytest.approx([start + n * 0.02 for n in range(len(self.dues))], abs=1e-9)


async def test_ticks_are_20_ms_apart_to_the_last_bit_and_late_ones_are_caught_up() -> None:
    clock, listener = Clock(), Listener()
    start = clock.join(listener.tick)
    await listener.ticked(2)
    asyncio.get_running_loop().call_soon(time.sleep, 0.07)  # the loop is busy for three ticks and a half
    await listener.ticked(8)
    clock.leave(listener.tick)
    listener.assert_regular(start)


async def test_calls_share_a_clock_without_sharing_their_time() -> None:
    clock, first, second = Clock(), Listener(), Listener()
    start = clock.join(first.tick)
    await first.ticked(2)
    later = clock.join(second.tick)
    await second.ticked(3)
    clock.leave(second.tick)
    await first.ticked(8)
    clock.leave(first.tick)
    first.assert_regular(start)
    second.assert_regular(later)
    assert len(second.dues) == 3, "who has left is not called again"


class TurnedClock(Clock):
    """Time stands still until it is turned; timers run late if `turn` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 100.0
        self.timers: dict[asyncio.TimerHandle, Callable[[], None]] = {}

    def now(self) -> float:
        return self.time

    def at(self, when: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, do, (), asyncio.get_running_loop())
        self.timers[timer] = do
        return timer

    def turn(self, to: float) -> None:
        self.time = to
        for timer in sorted(timer for timer in self.timers if timer.when() <= to):
            do = self.timers.pop(timer)
            if not timer.cancelled():
                do()


async def test_a_call_that_joins_a_late_clock_begins_with_its_own_first_tick() -> None:
    clock, first, second = TurnedClock(), Listener(), Listener()
    start = clock.join(first.tick)
    clock.time += 0.2  # the loop was busy and no tick has come yet
    later = clock.join(second.tick)
    clock.turn(clock.time + 0.1)
    assert later == pytest.approx(start + 0.2)
    assert (len(first.dues), len(second.dues)) == (16, 6)
    first.assert_regular(start)
    second.assert_regular(later)


class Socket(WebSocket):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.sent: list[bytes | str] = []

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def close(self) -> None:
        self.sent.append("goodbye")

    def abort(self) -> None:
        self.sent.append("cut")


async def test_nothing_overtakes_on_a_wire_even_when_its_timer_is_late() -> None:
    clock, socket = TurnedClock(), Socket()
    wire = Wire(socket, Network(stalls=[(0.0, 0.5)]), clock.now(), clock, None)
    wire.send(b"first")
    clock.time += 0.6
    wire.send(b"second")
    assert socket.sent == []
    clock.turn(clock.time)
    wire.send(b"third")
    wire.close()
    assert socket.sent == [b"first", b"second", b"third", "goodbye"]


async def test_a_goodbye_that_can_never_pass_cuts_the_wire() -> None:
    clock, socket = TurnedClock(), Socket()
    wire = Wire(socket, Network(), clock.now(), clock, None)
    wire.stall(float("inf"))
    wire.send(b"lost")
    wire.close()
    assert socket.sent == ["cut"]
