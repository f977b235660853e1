"""When the cascade takes a caller's turn to be over."""

from __future__ import annotations

import pytest

from voice_bridge.engines.base import FRAME, RATE
from voice_bridge.engines.cascade.finished import Finish, finish
from voice_bridge.engines.cascade.turns import Said, Turns
from voice_bridge.engines.ears.base import Heard, Word

DONE = (
    "What is my gate code?",
    "What time is it in London?",
    "Where do I live?",
    "Do you remember my name?",
    "Can you repeat that?",
    "Who are you?",
    "Where are you from?",
    "Can you hear me?",
    "Hello, can you hear me?",
    "Can you hear me well?",
    "How long does it usually take?",
    "What would you like to know?",
    "Yes.",
    "No",
    "Hello.",
    "Good morning.",
    "Thank you. Goodbye.",
    "Thank you very much.",
)
OPEN = (
    "What is my?",
    "My name is.",
    "My sister is called.",
    "Well,",
    "The thing is,",
    "I am calling because.",
    "Could you tell me?",
    "Can you",
    "Please remember.",
    "Remember that.",
    "Remember that my gate code is.",
    "Please remember that the dentist is on.",
    "My phone number is five, five, five.",
    "The code is 44",
    "I would like to book.",
    "I would like a table for",
    "It is on Monday and",
    "Um",
    "So",
    "Okay, well",
    "I need to go to the...",
    "",
)
MAYBE = (
    "I would like to book a table.",
    "I live in Bristol.",
    "My name is Margaret Collins.",
    "My phone number is 5550123.",
    "Remember that my gate code is 4417.",
    "No, not the blue one.",
    "It costs twenty five.",
    "We are going to Portugal in May.",
    "I feel well.",
    "Remember that the dentist is on Friday.",
    "Yes,",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(text, kind) for kind, texts in zip(Finish, (OPEN, MAYBE, DONE), strict=True) for text in texts],
)
def test_words_tell_how_finished_a_turn_sounds(text: str, expected: Finish) -> None:
    assert finish(text) == expected
    assert finish(text.upper()) == expected


def test_hostile_words_are_judged_at_once() -> None:
    for text in ("bye " * 5000 + "x", "good" * 9000, "a, " * 9000, "remember is " * 5000, "1" * 50_000):
        finish(text)


def ms(count: float) -> int:
    return round(count * RATE / 1000)


def heard(text: str, start: float, end: float, id: int = 1, final: bool = False) -> Heard:
    """An utterance between two times in milliseconds, its words evenly spread."""
    words = text.split()
    step = (end - start) / max(1, len(words))
    timed = tuple(Word(word, ms(start + n * step), ms(start + (n + 1) * step)) for n, word in enumerate(words))
    return Heard(id, text, timed, ms(start), ms(end), final)


def over_after(turns: Turns, end: float) -> tuple[float, Said]:
    """Milliseconds of silence behind the last word after which the turn is over, to the frame."""
    for silence in range(0, 3000, 20):
        if said := turns.over(ms(end), ms(end + silence)):
            return silence, said
    pytest.fail("the turn never ends")


def test_a_finished_sentence_is_answered_at_once_an_unfinished_one_is_given_time() -> None:
    waits = []
    for text in ("What is my gate code?", "I live in Bristol.", "My gate code is"):
        turns = Turns()
        turns.heard(heard(text, 0, 1000))
        waits.append(over_after(turns, 1000)[0])
    assert waits[0] <= 240
    assert 400 <= waits[1] <= 600
    assert waits[2] >= 1000


def test_the_agent_is_not_heard_before_pauses_within_a_sentence_are_over() -> None:
    turns = Turns()
    turns.heard(heard("I live in Bristol.", 0, 1000))
    assert over_after(turns, 1000)[1].sound >= ms(1000 + 700)


def test_utterances_before_the_turn_is_over_are_one_turn() -> None:
    turns = Turns()
    turns.heard(heard("My gate code is.", 0, 1000, id=1, final=True))
    assert turns.over(ms(1000), ms(1700)) is None
    turns.heard(heard("4417", 1700, 2500, id=2))
    _, said = over_after(turns, 2500)
    assert said == ("My gate code is. 4417", 0, ms(2500), said.sound)


def test_a_newer_text_of_an_utterance_takes_the_place_of_the_older() -> None:
    turns = Turns()
    turns.heard(heard("What is my great", 0, 700))
    turns.heard(heard("What is my gate code?", 0, 1200))
    assert over_after(turns, 1200)[1].text == "What is my gate code?"


def test_what_a_turn_was_made_of_is_told_again_and_changes_nothing() -> None:
    turns = Turns()
    turns.heard(heard("What is my gate code?", 0, 1200))
    over_after(turns, 1200)
    assert not turns.heard(heard("What is my gate code?", 0, 1200, final=True))
    assert turns.over(ms(1200), ms(5000)) is None


def test_a_caller_who_goes_on_after_the_turn_seemed_over_begins_one_with_the_rest() -> None:
    turns = Turns()
    turns.heard(heard("I live in Bristol.", 0, 1000))
    over_after(turns, 1000)
    assert turns.heard(heard("I live in Bristol and I work in Bath.", 0, 2250))
    assert turns.text == "and I work in Bath."
    assert turns.start == ms(1000)


def test_a_caller_who_pauses_long_is_given_longer() -> None:
    def wait(pause: float) -> float:
        turns = Turns()
        turns.pace(ms(500), ms(520))
        resumed = 500 + pause
        turns.pace(ms(resumed + 80), ms(resumed + 80) + FRAME // 4)
        turns.heard(heard("I live in Bristol.", 0, 3000))
        turns.pace(ms(3000), ms(3020))
        return over_after(turns, 3000)[0]

    assert wait(700) > wait(100)
    assert wait(1500) <= 900  # and nobody waits for ever


def test_silence_while_the_agent_speaks_is_no_pause_of_the_caller() -> None:
    turns = Turns()
    turns.pace(ms(500), ms(520))
    turns.answered()
    turns.pace(ms(1500), ms(1520))
    turns.heard(heard("I live in Bristol.", 1400, 2500))
    assert over_after(turns, 2500)[0] <= 600


def test_a_caller_who_has_become_quick_is_no_longer_waited_for() -> None:
    turns = Turns()
    turns.pace(ms(500), ms(520))
    turns.pace(ms(1300), ms(1320))
    end = 2000
    for id in range(1, 6):
        turns.answered()
        turns.heard(heard("I live in Bristol.", end - 500, end, id=id))
        wait, _ = over_after(turns, end)
        end += 3000
    assert wait <= 520
