"""The inside of an engine process, turn by turn, over a real socketpair."""

import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cores import GOODBYE, HERE, Whims
from voice_bridge.engines import wire
from voice_bridge.engines.base import FRAME, Ended, Event, Frame, Opening, Remember, Sound
from voice_bridge.engines.echo import EchoCore
from voice_bridge.engines.wire import Kind
from voice_bridge.engines.worker import QUEUE, SLICE, Worker, _find

SLOTS = 4
BUFFER = 1 << 20  # bytes; the tests write and read in one thread

Report: TypeAlias = tuple[int, Event]


class Core(Whims):
    """Keeps what it was given; each slot takes 20 ms of a step; has `errands` turns of work to do."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.launched: list[tuple[list[int], list[int]]] = []
        self.closed: list[int] = []
        self.budgets: list[float] = []
        self.errands = 0

    def launch(self, slots: Sequence[int], frames: NDArray[np.float32], at: Sequence[int]) -> list[tuple[int, Event]]:
        self.launched.append((list(slots), list(at)))
        return super().launch(slots, frames, at)

    def close(self, slot: int) -> None:
        self.closed.append(slot)
        super().close(slot)

    def work(self, budget: float) -> bool:
        self.budgets.append(budget)
        self.errands -= 1
        return self.errands > 0

    def step_time(self, n: int) -> float:
        return 0.02 * n


class Daemon:
    """The other end of the worker's socket, and the hand that turns the worker."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        for end in (self.socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.core = Core(SLOTS)
        self.worker = Worker(theirs, self.core, SLOTS)
        self._theirs = theirs
        self._unpacker = wire.Unpacker()

    def close(self) -> None:
        self.socket.close()
        self._theirs.close()

    def tell(self, conversation: int, tell: wire.Tell) -> None:
        self.socket.sendall(wire.pack_struct(Kind.TELL, tell, conversation))

    def open(self, *conversations: int) -> None:
        for conversation in conversations:
            self.tell(conversation, wire.Open(Opening(call=str(conversation))))

    def frame(self, conversation: int, at: int, value: float = 0.5) -> None:
        self.socket.sendall(wire.pack(Kind.FRAME, conversation, at, frame(value).tobytes()))

    def turn(self, times: int = 1) -> list[wire.Packet]:
        """Turn the worker; returns what it has sent."""
        for _ in range(times):
            assert self.worker.turn(wait=False)
        sent = b""
        try:
            while True:
                sent += self.socket.recv(BUFFER, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return list(self._unpacker.feed(sent))

    def reports(self, times: int = 1) -> list[Report]:
        """Turn the worker; returns (conversation, event) of what it has sent."""
        return [(packet.conversation, event_of(packet)) for packet in self.turn(times)]

    def answers(self, times: int = 1) -> list[tuple[int, int]]:
        """Turn the worker; returns (conversation, answers) of the sounds that it has sent."""
        return [(id, event.answers) for id, event in self.reports(times) if isinstance(event, Sound)]

    def health(self) -> wire.Health:
        self.socket.sendall(wire.pack(Kind.PING))
        (health,) = [packet for packet in self.turn() if packet.kind == Kind.HEALTH]
        return msgspec.json.decode(health.payload, type=wire.Health)


def frame(value: float) -> Frame:
    return np.full(FRAME, value, np.float32)


def event_of(packet: wire.Packet) -> Event:
    if packet.kind == Kind.SOUND:
        return Sound(np.frombuffer(packet.payload, np.float32), packet.at)
    assert packet.kind == Kind.EVENT
    return wire.decode_event.decode(packet.payload)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


def test_all_frames_that_are_due_go_in_one_step(daemon: Daemon) -> None:
    daemon.open(10, 20, 30)
    daemon.frame(20, 7, 0.2)
    daemon.frame(10, 8, 0.1)
    reports = daemon.reports()
    assert daemon.core.launched == [([1, 0], [7, 8])]
    sounds = [(id, event.answers, event.pcm) for id, event in reports if isinstance(event, Sound)]
    assert [sound[:2] for sound in sounds] == [(20, 7), (10, 8)]
    np.testing.assert_array_equal(sounds[0][2], frame(0.2))
    np.testing.assert_array_equal(sounds[1][2], frame(0.1))


def test_frames_of_one_call_are_stepped_one_after_the_other(daemon: Daemon) -> None:
    daemon.open(1, 2)
    for at in (0, FRAME, 2 * FRAME):
        daemon.frame(1, at)
    daemon.frame(2, 5)
    assert daemon.answers() == [(1, 0), (2, 5)]
    assert daemon.answers() == [(1, FRAME)]
    assert daemon.answers() == [(1, 2 * FRAME)]
    assert daemon.answers() == []


def test_a_call_that_is_too_fast_loses_its_oldest_frames_and_no_one_elses(daemon: Daemon) -> None:
    daemon.open(1, 2)
    for at in range(QUEUE + 3):
        daemon.frame(1, at)
    daemon.frame(2, 0)
    sounds = daemon.answers()
    health = daemon.health()
    assert (health.dropped, health.queued) == (3, QUEUE - 1)  # the turn that answers steps after it
    sounds += daemon.answers(QUEUE)
    assert sounds == [(1, 3), (2, 0), *((1, at) for at in range(5, QUEUE + 3))]
    health = daemon.health()
    assert (health.dropped, health.queued) == (3, 0)


@pytest.mark.parametrize("size", [1, 23, 24, 25, 1000])
def test_messages_may_come_in_pieces(daemon: Daemon, size: int) -> None:
    opening = wire.pack_struct(Kind.TELL, wire.Open(Opening()), 1)
    stream = opening + wire.pack(Kind.FRAME, 1, 9, frame(0.5)[:2].tobytes() + bytes(FRAME * 4 - 8))
    answers = []
    for start in range(0, len(stream), size):
        daemon.socket.sendall(stream[start : start + size])
        answers += daemon.answers()
    assert answers == [(1, 9)]


def test_what_is_said_to_a_call_that_is_gone_or_never_was_changes_nothing(daemon: Daemon) -> None:
    daemon.open(1)
    daemon.tell(1, wire.Close())
    for conversation in (1, 99):
        daemon.frame(conversation, 0)
        daemon.tell(conversation, wire.Say(1, "hello", True))
        daemon.tell(conversation, wire.Close())
    daemon.socket.sendall(wire.pack(Kind.FAILED, 1))  # not a message for a worker
    assert daemon.turn() == []
    assert daemon.core.launched == []
    assert daemon.core.closed == [0]


def test_a_slot_that_is_used_again_holds_nothing_of_the_call_before(daemon: Daemon) -> None:
    daemon.open(1)
    daemon.turn()
    daemon.tell(1, wire.Say(1, "my secret", True))
    daemon.frame(1, 0)
    daemon.tell(1, wire.Close())
    daemon.open(2)
    assert daemon.reports() == []
    daemon.frame(2, 7)
    told, sound = daemon.reports()
    assert told == (2, Remember("open 2"))
    assert isinstance(sound[1], Sound)
    assert sound[1].answers == 7
    assert daemon.core.launched == [([0], [7])]


def test_every_slot_can_be_taken_given_back_and_taken_again(daemon: Daemon) -> None:
    for first in range(0, 3 * SLOTS, SLOTS):
        calls = range(first, first + SLOTS)
        daemon.open(*calls)
        for call in calls:
            daemon.frame(call, call)
        assert daemon.answers() == [(call, call) for call in calls]
        for call in calls:
            daemon.tell(call, wire.Close())
        daemon.turn()


def test_an_opening_that_the_core_refuses_ends_only_its_own_call_and_takes_no_slot(daemon: Daemon) -> None:
    daemon.open(1)
    for call in range(100, 100 + SLOTS + 1):
        daemon.tell(call, wire.Open(Opening(persona="nobody")))
        assert daemon.reports() == [(call, Ended("opening refused: nobody is not a persona"))]
    daemon.open(*range(2, SLOTS + 1))
    for call in range(1, SLOTS + 1):
        daemon.frame(call, call)
    assert len(daemon.answers()) == SLOTS


def test_a_call_that_the_core_ends_gives_its_slot_back(daemon: Daemon) -> None:
    for call in range(SLOTS + 1):
        daemon.open(call)
        daemon.frame(call, 0, GOODBYE)
        daemon.frame(call, FRAME)
        assert daemon.reports()[-1] == (call, Ended("goodbye"))
        assert daemon.reports() == []


def test_slots_are_offered_only_as_far_as_a_step_fits_in_a_frame(daemon: Daemon) -> None:
    assert daemon.worker.health().offered == 3  # of 20 ms each in 64 ms
    daemon.core.step_time = lambda n: 0.001 * n  # type: ignore[method-assign]
    assert daemon.worker.health().offered == SLOTS


def test_no_slot_is_offered_for_which_two_steps_in_a_row_would_be_too_long(daemon: Daemon) -> None:
    daemon.core.step_time = lambda n: 0.038 + 0.001 * n  # type: ignore[method-assign]
    assert daemon.worker.health().offered == SLOTS  # 39 + 41 ms
    daemon.core.step_time = lambda n: 0.039 + 0.001 * n  # type: ignore[method-assign]
    assert daemon.worker.health().offered == 2
    daemon.core.step_time = lambda n: 0.050 + 0.001 * n  # type: ignore[method-assign]
    assert daemon.worker.health().offered == 1


def test_health_tells_what_a_step_of_all_offered_slots_takes(daemon: Daemon) -> None:
    assert daemon.worker.health().expected == pytest.approx(0.06)


def test_a_core_that_cannot_carry_one_call_offers_nothing_and_tells_what_one_takes(daemon: Daemon) -> None:
    daemon.core.step_time = lambda n: 0.2 + 0.01 * n  # type: ignore[method-assign]
    daemon.worker.warm_up()
    health = daemon.worker.health()
    assert (health.offered, health.expected) == (0, pytest.approx(0.21))


def test_a_core_that_was_slow_is_tried_again_when_no_call_would_show_that_it_is_fast(daemon: Daemon) -> None:
    core = daemon.core
    daemon.worker.warm_up()
    core.step_time = lambda n: 1.0 if core.launched[-1] != ([0], [FRAME]) else 0.02 * n  # type: ignore[method-assign]
    daemon.open(1)
    daemon.frame(1, 5)
    daemon.turn()
    assert daemon.health().offered == 0
    tried = len(core.launched)
    assert daemon.health().offered == 0  # the call goes on and shows it by itself
    assert len(core.launched) == tried
    daemon.tell(1, wire.Close())
    daemon.turn()
    assert daemon.health().offered == 0  # it answers first: a try may take longer than an answer is waited for
    assert daemon.health().offered == 3
    tried = len(core.launched)
    assert daemon.health().offered == 3
    assert len(core.launched) == tried  # an idle engine that is well rests


def test_it_does_not_sleep_while_the_core_has_work(daemon: Daemon) -> None:
    daemon.core.errands = 3
    daemon.turn()  # tells it that there is work
    turns = threading.Thread(target=lambda: [daemon.worker.turn() for _ in range(2)], daemon=True)
    turns.start()
    turns.join(5)
    assert not turns.is_alive()
    assert daemon.core.budgets == [SLICE] * 3


def test_it_sleeps_until_something_comes(daemon: Daemon) -> None:
    turn = threading.Thread(target=daemon.worker.turn, daemon=True)
    turn.start()
    turn.join(0.1)
    assert turn.is_alive()
    daemon.open(1)
    turn.join(5)
    assert not turn.is_alive()


def test_it_ends_when_the_daemon_has_gone(daemon: Daemon) -> None:
    daemon.open(1)
    daemon.frame(1, 0)
    assert daemon.worker.turn()
    daemon.turn()
    daemon.socket.shutdown(socket.SHUT_WR)
    assert not daemon.worker.turn()


def test_warming_up_takes_real_steps_and_leaves_nothing_behind(daemon: Daemon) -> None:
    daemon.core.errands = 3  # work before its first step
    daemon.worker.warm_up()
    assert daemon.core.budgets == [SLICE] * 3
    assert daemon.core.launched == [([0], [0]), ([0], [FRAME])]
    assert daemon.core.closed == [0]
    daemon.open(1)
    daemon.frame(1, 5)
    assert [report[0] for report in daemon.reports()] == [1, 1]


def test_the_usual_step_is_measured_without_the_first(daemon: Daemon) -> None:
    daemon.core._first = 0.2
    daemon.worker.warm_up()
    assert daemon.worker.health().step_seconds < 0.1


def test_the_usual_step_follows_what_steps_take(daemon: Daemon) -> None:
    daemon.core._step = 0.02
    daemon.open(1)
    measured = []
    for at in range(4):
        daemon.frame(1, at)
        daemon.turn()
        measured.append(daemon.worker.health().step_seconds)
    assert measured == sorted(measured)
    assert measured[-1] > 0.005  # a third of the way from 0 to 20 ms


def test_an_event_of_a_slot_that_nobody_has_goes_nowhere(daemon: Daemon) -> None:
    daemon.open(1)
    daemon.core._tell(3, "left over")
    daemon.frame(1, 7)
    assert [type(event) for _, event in daemon.reports()] == [Remember, Sound]


def test_a_core_is_found_in_a_file_or_in_a_module() -> None:
    assert isinstance(_find("voice_bridge.engines.echo:core")(slots=1, progress=print), EchoCore)
    assert type(_find(f"{HERE}:whims")(slots=1, progress=print)).__name__ == "Whims"
