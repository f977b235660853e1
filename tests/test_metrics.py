import asyncio
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from voice_bridge.bridge.observe import metrics as module
from voice_bridge.bridge.observe.metrics import BOUNDS, Histogram, Metrics


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample of the text, as `name{label=value,...}`."""
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("voice_bridge_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def test_a_live_call_is_seen_at_once_and_stays_counted_when_it_ends() -> None:
    metrics = Metrics()
    call = metrics.begin("twilio", 8000)
    call.frames = 7
    call.messages = 28
    call.underruns = 2
    call.recoveries = 1
    call.engine_losses = 1
    call.first_audio = 0.3
    call.mouth_to_ear.observe(0.13)
    call.lead.observe(0.04)
    call.replied(0.02)
    during = scrape(metrics)
    metrics.finish(call, "hangup")
    metrics.finish(call, "hangup")
    after = scrape(metrics)

    counted = {
        "frames_total": 7,
        "messages_total": 28,
        "underruns_total": 2,
        "recoveries_total": 1,
        "engine_losses_total": 1,
        "first_audio_seconds_count": 1,
        "first_audio_seconds_sum": 0.3,
        "mouth_to_ear_seconds_bucket{le=0.12}": 0,
        "mouth_to_ear_seconds_bucket{le=0.13}": 1,
        "lead_seconds_count": 1,
        "frame_seconds_sum": 0.02,
    }
    assert {name: during[name] for name in counted} == counted
    assert {name: after[name] for name in counted} == counted
    assert during["calls{line=twilio}"] == 1
    assert after["calls{line=twilio}"] == 0
    assert "calls_total{end=hangup,line=twilio}" not in during
    assert after["calls_total{end=hangup,line=twilio}"] == 1


def test_calls_that_are_over_and_calls_that_go_on_are_summed_by_line_and_end() -> None:
    metrics = Metrics()
    for line, end in [("twilio", "hangup"), ("twilio", "idle"), ("client", "hangup"), ("twilio", "hangup")]:
        call = metrics.begin(line)
        call.frames = 10
        metrics.finish(call, end)
    metrics.begin("client").frames = 5
    found = scrape(metrics)
    assert found["calls_total{end=hangup,line=twilio}"] == 2
    assert found["calls_total{end=idle,line=twilio}"] == 1
    assert found["calls_total{end=hangup,line=client}"] == 1
    assert found["calls{line=client}"] == 1
    assert found["frames_total"] == 45


def test_samples_of_lines_with_different_clocks_are_summed_at_24_khz() -> None:
    metrics = Metrics()
    for rate in (8000, 24_000):
        call = metrics.begin("twilio", rate)
        call.gap_fill_samples = rate // 10
        call.late_samples = rate // 20
        call.dropped_samples = rate // 40
    found = scrape(metrics)
    assert found["gap_fill_samples_total"] == 4800
    assert found["dropped_samples_total{why=late}"] == 2400
    assert found["dropped_samples_total{why=queue}"] == 1200


def test_a_reply_after_80_ms_is_a_deadline_missed() -> None:
    metrics = Metrics()
    call = metrics.begin("twilio")
    for seconds in (0.079, 0.080, 0.0801, 0.5):
        call.replied(seconds)
    found = scrape(metrics)
    assert call.deadline_misses == found["deadline_misses_total"] == 2
    assert found["frame_seconds_bucket{le=0.08}"] == 2
    assert found["frame_seconds_bucket{le=0.5}"] == found["frame_seconds_bucket{le=+Inf}"] == 4


def test_slots_readiness_and_queue_are_asked_for_at_each_scrape() -> None:
    metrics = Metrics()
    assert scrape(metrics)["engine_ready"] == 0
    metrics.engine_ready = lambda: True
    metrics.slots = lambda: {"offered": 4, "reserved": 1, "used": 2}
    metrics.queue_depth = lambda: 3
    metrics.engine_restarts = lambda: 1
    metrics.engine_dropped = lambda: 5
    metrics.step_seconds = lambda: 0.041
    metrics.engine_memory = lambda: 5_000_000_000
    metrics.refused["full"] += 2
    metrics.protocol_errors["twilio"] += 1
    found = scrape(metrics)
    expected = {
        "engine_ready": 1,
        "slots{state=offered}": 4,
        "slots{state=reserved}": 1,
        "slots{state=used}": 2,
        "queue_depth": 3,
        "engine_restarts_total": 1,
        "engine_dropped_frames_total": 5,
        "step_seconds": 0.041,
        "engine_memory_bytes": 5_000_000_000,
        "refused_total{reason=full}": 2,
        "protocol_errors_total{line=twilio}": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert any(name.startswith("build_info{python=") for name in found)
    metrics.slots = lambda: {"offered": 3}
    assert scrape(metrics)["slots{state=offered}"] == 3


def test_two_bridges_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.begin("twilio").frames = 3
    assert scrape(other)["frames_total"] == 0


async def test_a_blocked_event_loop_shows_as_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAG_EVERY", 0.005)
    metrics = Metrics()
    watch = asyncio.create_task(metrics.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.06)  # noqa: ASYNC251  (this is the blocking that is to be seen)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch, 0.01)
    assert 0.05 < metrics.loop_lag.total < 1.0


def test_every_shown_bound_is_counted_exactly() -> None:
    shown = {bound for name, bounds in vars(module).items() if name.endswith("_BUCKETS") for bound in bounds}
    assert {0.001, 0.08, 0.5} <= set(module.FRAME_BUCKETS)
    assert shown <= set(BOUNDS)
    assert sorted(BOUNDS) == BOUNDS


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), max_size=50))
def test_buckets_agree_with_counting(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    expected = [(str(b), sum(v <= b for v in values)) for b in module.LAG_BUCKETS]
    assert histogram.buckets(module.LAG_BUCKETS) == [*expected, ("+Inf", len(values))]


@settings(deadline=None)
@given(st.lists(st.floats(2e-4, 10), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_within_nine_percent_of_the_true_one(values: list[float], part: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    true = sorted(values)[math.ceil(part * len(values)) - 1]
    found = histogram.quantile(part)
    assert found is not None
    assert true / 1.091 <= found <= true * 1.091


def test_percentiles_of_a_real_spread_are_close() -> None:
    chance = random.Random(1)
    histogram = Histogram()
    values = [chance.gauss(0.130, 0.012) for _ in range(5000)]
    for value in values:
        histogram.observe(value)
    values.sort()
    for part in (0.5, 0.95, 0.99):
        assert histogram.quantile(part) == pytest.approx(values[int(part * 5000)], rel=0.02)


def test_no_values_have_no_quantile_and_huge_ones_stay_bounded() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.observe(1e9)
    assert histogram.quantile(0.5) == BOUNDS[-1]
