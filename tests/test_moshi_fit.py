"""What of a model fits a machine: the arithmetic against what is known of the 7B, of cards and of the facts."""

from dataclasses import replace
from pathlib import Path

import pytest

from voice_bridge.engines.base import STEP_LIMIT
from voice_bridge.engines.hardware import GB, GIB, Machine
from voice_bridge.engines.moshi import config
from voice_bridge.engines.moshi.fit import MODELS, SMALLER, WEIGHT_BYTES, fit, parameters, repository

ORACLE = Path(__file__).parent / "data/oracle"


def gpu(gibibytes: float, bandwidth: float) -> Machine:
    """A card by its size and its GB/s, in a machine of 64 GiB."""
    memory, host = int(gibibytes * GIB), 64 * GIB
    return Machine("nvidia", "card", memory, memory, bandwidth * GB, 0, False, 16, host, host, 100 * GB)


def host(gibibytes: float, bandwidth: float, cores: int = 17) -> Machine:
    memory = int(gibibytes * GIB)
    return Machine("plain", "", memory, memory, 0.0, 0, False, cores, memory, memory, bandwidth * GB)


def test_the_7b_has_the_parameters_that_were_counted() -> None:
    assert parameters(config.model({}, {}).lm) == (7_374_913_536, 312_815_616)


@pytest.mark.parametrize("name", ["moshi", "stt", "conditioned", "quantizable"])
def test_a_model_has_the_parameters_that_are_in_its_file(name: str) -> None:
    """But for norms' and conditioners' few: they are counted where they matter."""
    safetensors = pytest.importorskip("safetensors")
    folder = ORACLE / name
    shapes = {}
    with safetensors.safe_open(folder / "model.safetensors", framework="np") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    stored = 0
    for key, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        stored += 0 if key.startswith("condition_provider") else count
    assert sum(parameters(config.read(folder)[0].lm)) == pytest.approx(stored, rel=0.001)


def test_the_7b_reads_and_keeps_the_bytes_of_the_facts() -> None:
    h200 = gpu(141, 4800)
    read = {weights: fit(h200, "cuda", weights, "bf16").read / GB for weights in WEIGHT_BYTES}
    assert read == pytest.approx({"bf16": 14.75, "int8": 7.37, "int4": 4.61, "fp8": 7.37, "float32": 29.5}, abs=0.01)
    assert fit(h200, "cuda", "bf16", "bf16").ring == 3000 * 512 * 1024
    assert fit(h200, "cuda", "bf16", "int8").ring / GB == pytest.approx(0.80, abs=0.01)


@pytest.mark.parametrize(
    ("machine", "weights", "keys", "fewest", "most"),
    [
        (gpu(141, 4800), "bf16", "bf16", 72, 84),
        (gpu(80, 3350), "bf16", "bf16", 30, 42),
        (gpu(24, 1008), "bf16", "bf16", 2, 4),
        (gpu(22.5, 300), "int8", "bf16", 1, 4),  # bf16 would fit, and be too slow
        (gpu(15, 320), "int8", "bf16", 1, 4),
        (gpu(10, 760), "int4", "int8", 1, 2),
    ],
    ids=["H200", "H100", "RTX 4090", "L4", "T4", "RTX 3080"],
)
def test_a_card_takes_the_best_weights_that_fit_and_are_fast_enough(
    machine: Machine, weights: str, keys: str, fewest: int, most: int
) -> None:
    found = fit(machine, "cuda")
    assert (found.weights, found.keys, found.holds) == (weights, keys, True)
    assert fewest <= found.slots <= most
    assert found.step(found.slots) <= STEP_LIMIT
    assert found.fixed + (found.slots + 1) * found.call <= machine.free


@pytest.mark.parametrize(
    ("machine", "weights", "holds"),
    [
        (host(64, 400), "int8", True),
        (host(64, 150), "int4", True),
        (host(64, 35, cores=2), "int4", False),
        (host(9, 400), "int4", True),  # int8 would not fit
    ],
)
def test_a_cpu_takes_eight_bits_where_its_memory_is_fast_enough_and_else_four(
    machine: Machine, weights: str, holds: bool
) -> None:
    found = fit(machine, "cpu")
    assert (found.weights, found.holds) == (weights, holds)
    assert found.slots >= 1  # one may be tried, the engine measures it


def test_the_host_counts_for_the_cpu_and_the_card_for_cuda() -> None:
    machine = gpu(141, 4800)
    cpu = fit(machine, "cpu")
    assert (cpu.free, cpu.bandwidth) == (64 * GIB, 100 * GB)
    assert fit(machine, "cuda").free == 141 * GIB


def test_what_was_asked_for_is_kept_even_if_it_does_not_fit() -> None:
    found = fit(gpu(12, 360), "cuda", "bf16", "bf16")
    assert (found.weights, found.keys, found.room, found.slots) == ("bf16", "bf16", 0, 0)
    assert found.needed > 12 * GIB
    assert found.remedy == "take voice.moshi.weights = int8"


def test_keys_are_made_smaller_before_calls_are_turned_away() -> None:
    machine = replace(gpu(24, 3000), free=int(19.6 * GB))
    assert fit(machine, "cuda", "bf16").keys == "int8"
    assert fit(machine, "cuda", "bf16", "bf16").room == 0


def test_weights_of_32_bits_keep_what_calls_remember_as_exact() -> None:
    assert fit(host(64, 100), "cpu", "float32").keys == "float32"


@pytest.mark.parametrize(
    ("model", "weights"), [("kyutai/moshika-pytorch-q8", "int8"), ("kyutai/moshika-mlx-q4", "int4")]
)
def test_a_model_that_is_stored_in_few_bits_is_not_given_more(model: str, weights: str) -> None:
    assert fit(gpu(141, 4800), "cuda", model=model).weights == weights
    assert fit(gpu(141, 4800), "cuda", "bf16", model=model).weights == "bf16"  # unless one asks for it


def test_the_remedy_leads_to_the_smallest_form_and_then_to_another_machine() -> None:
    machine = host(64, 35, cores=2)
    for weights, smaller in SMALLER.items():
        assert fit(machine, "cpu", weights, "bf16").remedy == f"take voice.moshi.weights = {smaller}"
    assert fit(machine, "cpu", "int4", "bf16").remedy == "take voice.moshi.keys = int8"
    assert "faster machine" in fit(machine, "cpu", "int4", "int8").remedy


def test_every_kind_of_weights_has_a_model() -> None:
    assert set(MODELS) == set(WEIGHT_BYTES)
    assert repository("int4").endswith("mlx-q4")
    assert fit(gpu(141, 4800), "cuda", model=repository("int8")).weights == "int8"
