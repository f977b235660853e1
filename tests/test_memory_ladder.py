"""Which language model a machine is told to ask for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.llm_server import LlmServer
from voice_bridge.bridge.memory.ladder import RUNGS, SERVED, Rung, choose, describe
from voice_bridge.bridge.memory.llm import ANSWER
from voice_bridge.bridge.memory.wire import Endpoint
from voice_bridge.engines.hardware import GB, LEVEL_FLOORS, Machine, tier

CANDIDATES = 15
PLENTY = 1000 * GB
SHORT = 0.05  # seconds, for servers that are not to answer
ENOUGH = 5.0  # seconds that nothing here needs


@pytest.fixture
async def server() -> AsyncIterator[LlmServer]:
    async with LlmServer() as server:
        yield server


def machine(memory: int, *, gpu: str = "A card", api: bool = False) -> Machine:
    kind = "nvidia" if gpu else "plain"
    return Machine(kind, gpu, memory, memory, 0.0, tier(memory if gpu else 0, api), api, 2, 16 * GB)  # type: ignore[arg-type]


# Levels


@pytest.mark.parametrize(
    ("memory", "model", "quantisation"),
    [
        (8 * GB, "API", ""),
        (12 * GB, "Qwen2.5-7B", "Q4_K_M"),
        (20 * GB, "Qwen2.5-14B", "Q4_K_M"),
        (28 * GB, "Qwen3-30B", "Q4_K_M"),
        (40 * GB, "Qwen2.5-72B", "IQ4_XS"),
        (60 * GB, "Qwen2.5-72B", "Q6_K"),
    ],
)
def test_the_level_names_the_model(memory: int, model: str, quantisation: str) -> None:
    choice = choose(machine(memory), PLENTY)
    assert (choice.rung.model, choice.rung.quantisation, choice.behind) == (model, quantisation, False)
    assert choice.why.startswith(f"level {machine(memory).tier} ")


def test_a_machine_without_a_gpu_asks_an_api_however_much_memory_it_has() -> None:
    assert choose(machine(500 * GB, gpu=""), PLENTY).rung is RUNGS[0]


@pytest.mark.parametrize("memory", LEVEL_FLOORS)
def test_at_level_six_the_model_is_that_of_the_card_and_an_api_stands_behind_it(memory: int) -> None:
    alone, backed = choose(machine(memory), PLENTY), choose(machine(memory, api=True), PLENTY)
    assert backed.rung is alone.rung
    assert backed.behind
    assert backed.why.startswith("level 6 ")


def test_at_level_zero_an_api_has_nothing_behind_it() -> None:
    assert not choose(machine(8 * GB, api=True), PLENTY).behind


# What the engine leaves


def test_a_model_that_just_fits_is_taken_and_one_byte_less_steps_down() -> None:
    big = machine(80 * GB)
    for rung, below in zip(RUNGS[:0:-1], RUNGS[-2::-1], strict=True):
        assert choose(big, rung.memory).rung is rung
        assert choose(big, rung.memory - 1).rung is below


def test_stepping_down_says_why_in_one_line() -> None:
    choice = choose(machine(80 * GB), 24 * GB)
    assert choice.rung is RUNGS[3]
    assert choice.why == (
        "level 5 (a GPU of 60 GB or more): Qwen2.5-72B Q6_K takes 66.7 GB, the engine leaves 24.0 GB,"
        " Qwen3-30B Q4_K_M takes 20.0 GB"
    )


def test_where_nothing_fits_an_api_is_what_is_left() -> None:
    choice = choose(machine(16 * GB, api=True), 1 * GB)
    assert choice.rung is RUNGS[0]
    assert not choice.behind
    assert "no smaller one fits" in choice.why


def test_more_room_than_the_level_needs_does_not_lift_the_model() -> None:
    assert choose(machine(16 * GB), PLENTY).rung is RUNGS[1]


# The table


@pytest.mark.parametrize("rung", RUNGS[1:], ids=lambda rung: rung.ollama)
def test_every_rung_has_what_people_need_to_pull_and_serve_it(rung: Rung) -> None:
    assert rung.ollama
    assert rung.hugging_face.startswith("Qwen/")
    assert rung.weights < rung.memory < rung.weights * 1.5
    assert rung.tokens + ANSWER * (CANDIDATES + 1) <= SERVED <= rung.context
    assert rung.seconds > 0


def test_each_rung_takes_more_memory_than_the_one_below() -> None:
    sizes = [rung.memory for rung in RUNGS]
    assert sizes == sorted(set(sizes))


def test_every_model_fits_on_a_card_of_its_level_that_does_nothing_else() -> None:
    ceilings = (*LEVEL_FLOORS[1:], 80 * GB)
    assert all(rung.memory <= ceiling for rung, ceiling in zip(RUNGS[1:], ceilings, strict=True))


# What doctor shows


async def test_an_endpoint_that_has_the_model_needs_nothing(server: LlmServer) -> None:
    choice = choose(machine(16 * GB), PLENTY)
    told = await describe(choice, Endpoint(server.url, choice.rung.ollama))
    assert (told.answers, told.has, told.remedy) == (True, True, "")
    assert (told.model, told.why, told.context, told.tokens) == ("qwen2.5:7b", choice.why, SERVED, choice.rung.tokens)
    assert dataclasses.asdict(told)["seconds"] == choice.rung.seconds


async def test_an_endpoint_may_list_a_model_with_its_latest_tag(server: LlmServer) -> None:
    server.models = ["mine:latest"]
    told = await describe(choose(machine(16 * GB), PLENTY), Endpoint(server.url, "mine"))
    assert told.has
    assert told.why == "memory.llm.model names it"
    assert told.context == 0


async def test_a_model_that_is_missing_is_named_with_how_to_pull_it(server: LlmServer) -> None:
    server.models = [f"other-{n}" for n in range(9)]
    choice = choose(machine(24 * GB), PLENTY)
    told = await describe(choice, Endpoint(server.url, choice.rung.ollama))
    assert (told.answers, told.has) == (True, False)
    assert "`ollama pull qwen2.5:14b`" in told.remedy
    assert "other-4" in told.remedy
    assert "other-5" not in told.remedy


async def test_an_api_without_a_model_named_wants_one(server: LlmServer) -> None:
    told = await describe(choose(machine(0), 0), Endpoint(server.url, ""))
    assert (told.answers, told.has, told.context) == (True, False, 0)
    assert told.remedy.startswith("set memory.llm.model")
    assert told.why == "memory.llm.model names none"


async def test_an_endpoint_that_is_not_there_is_told_within_the_limit(server: LlmServer, unused_port: int) -> None:
    choice = choose(machine(16 * GB), PLENTY)
    told = await describe(choice, Endpoint(f"http://127.0.0.1:{unused_port}/v1", choice.rung.ollama))
    assert (told.answers, told.has) == (False, False)
    assert "start that server" in told.remedy
    server.door.clear()
    async with asyncio.timeout(ENOUGH):
        told = await describe(choice, Endpoint(server.url, choice.rung.ollama), SHORT)
    assert not told.answers
    assert server.url in told.remedy


async def test_an_endpoint_that_refuses_the_key_says_so(server: LlmServer) -> None:
    server.answers = [web.Response(status=401)]
    told = await describe(choose(machine(16 * GB), PLENTY), Endpoint(server.url, "qwen2.5:7b", "secret-key"))
    assert not told.answers
    assert "401" in told.remedy
    assert "memory.llm.key" in told.remedy
    assert "secret-key" not in str(told)
