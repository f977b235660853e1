"""Metrics: plain numbers that a call counts for itself, made into Prometheus text only when somebody asks.

A call owns a `CallStats` and adds to it without locks, on the event loop; a scrape sums the finished calls
and the live ones there too.
"""

from __future__ import annotations

import asyncio
import platform
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import metadata
from itertools import accumulate

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

RATE = 24_000  # the clock in which samples of all lines are summed
DEADLINE = 0.080  # seconds: a reply later than one frame after its frame makes the caller wait
LATELY = 0.1  # the weight of the last reply: a second of them is what is shown
LAG_EVERY = 0.1  # seconds between looks at the event loop: a stall of a frame's length does not slip through
LAGS = 10  # of them, a second, are what is shown as the lag now

# What Prometheus is shown, in seconds.
FRAME_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.16, 0.25, 0.5)
FIRST_AUDIO_BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
MOUTH_TO_EAR_BUCKETS = (
    0.05,
    0.08,
    0.1,
    0.12,
    0.13,
    0.14,
    0.15,
    0.17,
    0.2,
    0.25,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.0,
)
LEAD_BUCKETS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.3, 0.5)
LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.08, 0.1, 0.25, 0.5, 1.0)

# What is counted in: 0.1 ms to 13 s in steps of 9 %, fine enough for percentiles, and every bound above.
_FINE = {1e-4 * 2 ** (step / 8) for step in range(137)}
BOUNDS = sorted(_FINE.union(FRAME_BUCKETS, FIRST_AUDIO_BUCKETS, MOUTH_TO_EAR_BUCKETS, LEAD_BUCKETS, LAG_BUCKETS))


class Histogram:
    """Durations in seconds, in a fixed space however many there are."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * (len(BOUNDS) + 1)))
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    def add(self, other: Histogram) -> None:
        counts = np.frombuffer(self._counts, np.int64)
        counts += np.frombuffer(other._counts, np.int64)
        self.total += other.total

    def quantile(self, part: float) -> float | None:
        """The duration that `part` of all do not exceed, to about 5 %; None when there is none yet."""
        wanted = part * self.count
        below = 0
        for index, count in enumerate(self._counts):
            if count and below + count >= wanted:
                low = BOUNDS[index - 1] if index else 0.0
                high = BOUNDS[min(index, len(BOUNDS) - 1)]
                return low + (high - low) * (wanted - below) / count
            below += count
        return None

    def buckets(self, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
        """How many are no longer than each of `bounds`, as Prometheus has it; they must be among `BOUNDS`."""
        upto = list(accumulate(self._counts))
        shown: list[tuple[str, float]] = [(str(bound), upto[bisect_left(BOUNDS, bound)]) for bound in bounds]
        return [*shown, ("+Inf", upto[-1])]


@dataclass(slots=True, eq=False)
class CallStats:
    """What one call counts. Samples are on the line's own clock, `rate` a second."""

    line: str
    rate: int = RATE
    frames: int = 0
    messages: int = 0
    gap_fill_samples: int = 0
    late_samples: int = 0
    dropped_samples: int = 0
    underruns: int = 0
    recoveries: int = 0
    deadline_misses: int = 0
    engine_losses: int = 0
    returns: int = 0
    digits: int = 0
    first_audio: float | None = None
    lately: float = 0.0
    """Seconds that replies took of late."""
    frame_time: Histogram = field(default_factory=Histogram)
    mouth_to_ear: Histogram = field(default_factory=Histogram)
    lead: Histogram = field(default_factory=Histogram)

    def replied(self, seconds: float) -> None:
        """The engine's reply came `seconds` after its frame was handed over."""
        self.lately += (seconds - self.lately) * (LATELY if self.lately else 1)
        self.frame_time.observe(seconds)
        if seconds > DEADLINE:
            self.deadline_misses += 1


class _Sum:
    """What several calls count together."""

    __slots__ = ("counts", "first_audio", "frame_time", "lead", "mouth_to_ear")

    COUNTS = ("frames", "messages", "underruns", "recoveries", "deadline_misses", "engine_losses", "returns")
    SAMPLES = ("gap_fill_samples", "late_samples", "dropped_samples")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first_audio = Histogram()
        self.frame_time = Histogram()
        self.mouth_to_ear = Histogram()
        self.lead = Histogram()

    def add(self, call: CallStats) -> None:
        for name in self.COUNTS:
            self.counts[name] += getattr(call, name)
        for name in self.SAMPLES:
            self.counts[name] += getattr(call, name) * RATE // call.rate
        if call.first_audio is not None:
            self.first_audio.observe(call.first_audio)
        self.frame_time.add(call.frame_time)
        self.mouth_to_ear.add(call.mouth_to_ear)
        self.lead.add(call.lead)


class Metrics(Collector):
    """Everything that `/metrics` shows. Use it on the event loop only.

    Reasons of ends and refusals become labels: take them from a short list, never from a caller's data.
    """

    def __init__(self) -> None:
        self.live: set[CallStats] = set()
        self.refused: Counter[str] = Counter()
        self.protocol_errors: Counter[str] = Counter()
        self.loop_lag = Histogram()
        self._lags: deque[float] = deque(maxlen=LAGS)
        # Asked at each scrape; whoever owns the engine sets them.
        self.engine_ready: Callable[[], bool] = bool
        self.slots: Callable[[], Mapping[str, int]] = dict
        self.queue_depth: Callable[[], int] = int
        self.engine_restarts: Callable[[], int] = int
        self.engine_dropped: Callable[[], int] = int
        self.step_seconds: Callable[[], float] = float
        self.engine_memory: Callable[[], int] = int
        # And whoever owns the mind.
        self.memory_ready: Callable[[], bool] = bool
        self.memory_restarts: Callable[[], int] = int
        self.memory_written: Callable[[], int] = int
        self.memory_errors: Callable[[], int] = int
        self.memory_dropped: Callable[[], int] = int
        self.memory_judged: Callable[[], Mapping[str, int]] = dict
        self.reminders: Callable[[], Mapping[str, int]] = dict
        self._ended: Counter[tuple[str, str]] = Counter()
        self._finished = _Sum()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def begin(self, line: str, rate: int = RATE) -> CallStats:
        """The counters of a new call on `line`, whose clock counts `rate` samples a second."""
        stats = CallStats(line, rate)
        self.live.add(stats)
        return stats

    def finish(self, stats: CallStats, end: str) -> None:
        """The call is over because of `end`. What it counts from now on is not seen; twice counts once."""
        if stats in self.live:
            self.live.remove(stats)
            self._finished.add(stats)
            self._ended[stats.line, end] += 1

    async def watch_loop(self) -> None:
        """Measure the event loop's lag until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            lag = max(0.0, loop.time() - due)
            self._lags.append(lag)
            self.loop_lag.observe(lag)

    @property
    def lag(self) -> float:
        """Seconds that the event loop was late at worst in the last second."""
        return max(self._lags, default=0.0)

    @property
    def frame_seconds(self) -> float | None:
        """What the engine's replies took of late, on an average of the live calls; None where there were none."""
        lately = [stats.lately for stats in self.live if stats.lately]
        return sum(lately) / len(lately) if lately else None

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        now = deepcopy(self._finished)
        for stats in self.live:
            now.add(stats)
        yield from self._calls()
        yield from self._engine()
        yield from self._memory()
        yield from _sound(now)
        yield _labelled("protocol_errors", "Messages that broke the line's protocol.", "line", self.protocol_errors)
        yield _histogram("loop_lag", "How late the event loop was.", self.loop_lag, LAG_BUCKETS)
        build = {"version": version(), "python": platform.python_version()}
        yield InfoMetricFamily("voice_bridge_build", "What is running.", value=build)

    def _calls(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("voice_bridge_calls", "Calls that have ended.", labels=["line", "end"])
        for (line, end), count in self._ended.items():
            ended.add_metric([line, end], count)
        yield ended
        live = Counter(stats.line for stats in self.live)
        gauge = GaugeMetricFamily("voice_bridge_calls", "Calls now.", labels=["line"])
        for line in live.keys() | {line for line, _ in self._ended}:
            gauge.add_metric([line], live[line])
        yield gauge
        yield _labelled("refused", "Calls that were not let in.", "reason", self.refused)

    def _engine(self) -> Iterator[Metric]:
        slots = GaugeMetricFamily("voice_bridge_slots", "The engine's slots.", labels=["state"])
        for state, count in self.slots().items():
            slots.add_metric([state], count)
        yield slots
        yield _gauge("engine_ready", "1 when the engine answers.", float(self.engine_ready()))
        yield _counter("engine_restarts", "Times that the engine was started again.", self.engine_restarts())
        yield _gauge("queue_depth", "Frames that wait for the engine.", self.queue_depth())
        yield _counter("engine_dropped_frames", "Frames that the engine had no time for.", self.engine_dropped())
        yield _gauge("step_seconds", "What a step of all offered slots is expected to take.", self.step_seconds())
        yield _gauge("engine_memory_bytes", "What the engine takes of its GPU's memory.", self.engine_memory())

    def _memory(self) -> Iterator[Metric]:
        yield _gauge("memory_ready", "1 when callers are remembered.", float(self.memory_ready()))
        yield _counter("memory_restarts", "Times that the mind was started again.", self.memory_restarts())
        yield _counter("memory_written", "Memories written since the mind began.", self.memory_written())
        yield _counter("memory_errors", "Times that the store or the embedder failed.", self.memory_errors())
        yield _counter("memory_dropped", "Pieces of talk that the ear had no time for.", self.memory_dropped())
        yield _labelled(
            "memory_judged", "Questions to a language model, by how they ended.", "result", self.memory_judged()
        )
        yield _labelled("reminders", "Reminders, by what the engine made of them.", "result", self.reminders())


def _sound(now: _Sum) -> Iterator[Metric]:
    counts = now.counts
    yield _counter("frames", "Frames handed to the engine.", counts["frames"])
    yield _counter("messages", "Messages from callers.", counts["messages"])
    yield _counter("deadline_misses", "Replies later than 80 ms.", counts["deadline_misses"])
    yield _counter("engine_losses", "Times that a live call lost its engine.", counts["engine_losses"])
    yield _counter("returns", "Times that a client came back to its conversation.", counts["returns"])
    yield _counter("underruns", "Times that a caller's player ran dry.", counts["underruns"])
    yield _counter("recoveries", "Times that a caller's player was cleared to catch up.", counts["recoveries"])
    yield _counter("gap_fill_samples", "Silence put in for missing sound, at 24 kHz.", counts["gap_fill_samples"])
    dropped = {"late": counts["late_samples"], "queue": counts["dropped_samples"]}
    yield _labelled("dropped_samples", "Sound left out, at 24 kHz.", "why", dropped)
    yield _histogram("frame", "From a frame's hand-over to its reply.", now.frame_time, FRAME_BUCKETS)
    yield _histogram("first_audio", "From a call's start to its first sound.", now.first_audio, FIRST_AUDIO_BUCKETS)
    yield _histogram("mouth_to_ear", "From a caller's sound to the reply's.", now.mouth_to_ear, MOUTH_TO_EAR_BUCKETS)
    yield _histogram("lead", "Sound not yet played at a frame's hand-over.", now.lead, LEAD_BUCKETS)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"voice_bridge_{name}", what, value=value)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"voice_bridge_{name}", what, value=value)


def _labelled(name: str, what: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"voice_bridge_{name}", what, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, what: str, values: Histogram, bounds: tuple[float, ...]) -> Metric:
    return HistogramMetricFamily(
        f"voice_bridge_{name}_seconds", what, buckets=values.buckets(bounds), sum_value=values.total
    )


def version() -> str:
    """Of the bridge."""
    try:
        return metadata.version("voice-bridge")
    except metadata.PackageNotFoundError:  # run from a tree that was never installed
        return "unknown"
