"""How the benchmark of the cascade judges: levels, beginnings, numbers, times, and sentences that go on."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import cascade_checks as checks
from cascade_checks import RATE


def voice(seconds: float, level: float) -> checks.Pcm:
    """A tone of this many dB of full scale."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * 200 * time) * np.sqrt(2) * 10 ** (level / 20) * 32767).astype(np.int16)


def silence(seconds: float) -> checks.Pcm:
    return np.zeros(round(seconds * RATE), np.int16)


def test_a_level_is_that_of_each_20_ms() -> None:
    found = checks.levels(np.concatenate((silence(0.04), voice(0.04, -20))))
    assert found == pytest.approx([checks.FLOOR, checks.FLOOR, -20, -20], abs=0.1)


def test_a_beginning_and_an_end_are_found_to_the_sample() -> None:
    pcm = silence(1)
    pcm[1234], pcm[5678] = checks.AUDIBLE, -checks.AUDIBLE
    pcm[100], pcm[7000] = checks.AUDIBLE - 1, 1 - checks.AUDIBLE
    assert checks.first_audible(pcm) == 1234
    assert checks.first_audible(pcm, 1235) == 5678
    assert checks.first_audible(pcm, 5679) is None
    assert checks.last_audible(pcm) == 5678
    assert checks.last_audible(silence(1)) is None


def test_an_agent_that_ducks_and_stops_has_given_way() -> None:
    heard = np.concatenate((voice(2, -20), voice(0.14, -20), voice(0.2, -35), silence(1)))
    found = checks.yielded(heard, 2 * RATE, 3 * RATE)
    assert found is not None
    assert (found.down, found.gone) == (140, 340)
    assert found.level == pytest.approx(-20, abs=0.1)


def test_an_agent_that_is_only_11_db_softer_has_not_given_way() -> None:
    heard = np.concatenate((voice(2, -20), voice(1, -31)))
    found = checks.yielded(heard, 2 * RATE, 3 * RATE)
    assert found is not None
    assert found.down == 1000


def test_an_agent_that_starts_again_while_the_caller_talks_has_not_given_way() -> None:
    heard = np.concatenate((voice(2.1, -20), silence(0.7), voice(0.2, -20)))
    found = checks.yielded(heard, 2 * RATE, 3 * RATE)
    assert found is not None
    assert (found.down, found.gone) == (1000, 1000)


def test_a_silent_agent_cannot_give_way() -> None:
    assert checks.yielded(silence(3), 2 * RATE, 3 * RATE) is None


@pytest.mark.parametrize(("lasts", "is_ducked"), [(0.2, True), (0.1, False)])
def test_an_agent_is_ducked_when_it_is_softer_for_longer_than_a_consonant(lasts: float, is_ducked: bool) -> None:
    heard = np.concatenate((voice(1, -20), voice(lasts, -34), voice(1, -20)))
    assert checks.ducked(heard, RATE, len(heard), checks.usual(heard)) is is_ducked
    assert not checks.ducked(heard, 0, RATE, checks.usual(heard))


def test_silence_before_and_after_a_sentence_is_not_in_it() -> None:
    heard = np.concatenate((silence(2), voice(1, -20), silence(0.8), voice(1, -20), silence(2)))
    assert checks.longest_silence(heard) == 800


@pytest.mark.parametrize(
    "said",
    [
        "Your gate code is 4417.",
        "It is four, four, one, seven.",
        "forty-four seventeen",
        "4,417",
        "44 17",
        "4-4-1-7",
        "double four one seven",
        "four thousand four hundred and seventeen",
        "four thousand four hundred seventeen",
    ],
)
def test_a_number_is_found_in_every_spelling(said: str) -> None:
    assert checks.numbers(said) == ["4417"]
    assert checks.has(said, ("4417",))


def test_other_numbers_are_not_taken_for_it() -> None:
    assert checks.numbers("room 12, not thirty, and 7") == ["12", "30", "7"]
    assert checks.numbers("one hundred and five") == ["105"]
    assert checks.numbers("and then double the price") == []
    assert not checks.has("It is four four one five.", ("4417",))
    assert not checks.has("You parked on level thirteen.", ("3",))
    assert checks.has("You parked on level three.", ("3",))


def test_a_word_is_found_as_a_whole_only() -> None:
    assert checks.has("Her name is Anna.", ("anna",))
    assert not checks.has("The savanna is wide.", ("anna",))


@pytest.mark.parametrize(
    ("said", "hour", "minute"),
    [
        ("It is 7:25 p.m.", 19, 25),
        ("It's seven twenty-five.", 19, 25),
        ("It is 19:25.", 19, 25),
        ("twenty-five past seven", 7, 25),
        ("It is twenty minutes to eight.", 7, 40),
        ("It is quarter to one.", 12, 45),
        ("half past twelve", 0, 30),
        ("It's eight o'clock.", 20, 0),
        ("It is 9:05.", 9, 5),
        ("It is nine oh five.", 9, 5),
        ("It is 7:26.", 19, 25),
        ("It is 12 59.", 13, 0),
    ],
)
def test_a_time_is_told_in_every_way_and_to_a_minute(said: str, hour: int, minute: int) -> None:
    assert checks.tells_time(said, datetime(2026, 3, 2, hour, minute))


@pytest.mark.parametrize("said", ["It is 7:28.", "It is seven.", "It is 25 past eight.", "It is Monday."])
def test_a_wrong_time_is_wrong(said: str) -> None:
    assert not checks.tells_time(said, datetime(2026, 3, 2, 19, 25))


def test_a_repetition_is_alike_and_another_answer_is_not() -> None:
    first = "You need a machine with a graphics card. Then install it."
    assert checks.alike(first, "I said: you need a machine with a graphics card, then install it.") == 1
    assert checks.alike(first, "All right. What else can I do?") < 0.6


def test_an_old_sentence_that_goes_on_is_told_from_an_answer() -> None:
    old = "The second one is to walk along the river, which takes about half an hour."
    assert checks.goes_on("Sorry. Along the river, which takes about half.", old)
    assert not checks.goes_on("It is half past ten. The river is nice.", old)


def test_a_sentence_whose_end_was_heard_was_not_broken_off() -> None:
    text = "We went along the river until we all know where her mother and your uncle are living."
    assert checks.to_the_end("the river until we all no where her mother and her uncle are living", text)
    assert not checks.to_the_end("We went along the river until we all know where her mother and", text)


def test_a_judge_who_writes_for_where_digits_are_read_out_means_four() -> None:
    assert checks.has("Your gate code is for for one seven.", ("4417",))
    assert not checks.has("Your gate code is for four hundred seventeen.", ("4417",))
    assert not checks.has("Your gate code is for 417.", ("4417",))
