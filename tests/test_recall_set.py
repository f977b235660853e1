"""What the made set of memories and questions promises: without it no figure measured on it means anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests import recall_set
from tests.data.recall import make
from tests.recall_set import Caller, Fact, Question

CALLERS = recall_set.load()
OPENINGS = re.compile("|".join(map(re.escape, make.OPENINGS)))
CLOSINGS = re.compile("|".join(map(re.escape, make.CLOSINGS)))


def questions(callers: list[Caller] = CALLERS) -> list[Question]:
    return [question for caller in callers for question in caller.questions]


def answered() -> Iterator[tuple[Caller, Question, Fact]]:
    for caller in CALLERS:
        facts = {fact.id: fact for fact in caller.facts}
        yield from ((caller, asked, facts[asked.answer]) for asked in caller.questions if asked.answer)


def active(caller: Caller) -> list[Fact]:
    gone = {fact.supersedes for fact in caller.facts}
    return [fact for fact in caller.facts if fact.id not in gone]


def bare(text: str) -> str:
    """Without the polite opening or closing."""
    return CLOSINGS.sub("", OPENINGS.sub("", text)).lower()


def test_thirty_callers_have_two_hundred_facts_each() -> None:
    assert len(CALLERS) >= 30
    assert {len(caller.facts) for caller in CALLERS} == {200}
    assert len({fact.topic for caller in CALLERS for fact in caller.facts}) >= 60
    assert len({fact.id for caller in CALLERS for fact in caller.facts}) == 200 * len(CALLERS)


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_nothing_is_said_twice_by_a_caller(caller: Caller) -> None:
    assert len({fact.text for fact in caller.facts}) == len(caller.facts)
    assert len({question.text for question in caller.questions}) == len(caller.questions)


def test_facts_come_in_the_order_in_which_they_were_said() -> None:
    for caller in CALLERS:
        assert [fact.days_ago for fact in caller.facts] == sorted(
            (fact.days_ago for fact in caller.facts), reverse=True
        )


def test_there_are_three_hundred_questions_with_an_answer_and_half_as_many_without() -> None:
    kinds = Counter(question.kind for question in questions())
    assert kinds["shared word"] + kinds["other words"] >= 300
    assert kinds["same topic"] + kinds["general"] + kinds["small talk"] + kinds["injection"] >= 150
    assert kinds["same topic"] >= 100
    assert len({answer.topic for _, _, answer in answered()}) >= 60


def test_half_of_every_kind_is_kept_for_measuring_only() -> None:
    kinds = Counter((question.split, question.kind) for question in questions())
    for kind in {question.kind for question in questions()}:
        assert 0.4 < kinds["test", kind] / (kinds["test", kind] + kinds["dev", kind]) < 0.6, kind
    for number, caller in enumerate(CALLERS, 1):
        assert {question.split for question in caller.questions} == {"dev" if number % 2 else "test"}
    assert max(len(caller.questions) for caller in CALLERS) <= 1.3 * min(len(caller.questions) for caller in CALLERS)


def test_every_answer_has_five_near_misses_of_the_same_caller() -> None:
    for caller, question, answer in answered():
        facts = {fact.id: fact for fact in caller.facts}
        assert len(set(question.near) - {answer.id}) >= 5
        assert answer.id not in question.near
        misses = [facts[near] for near in question.near]
        assert {miss.topic for miss in misses} == {answer.topic}
        assert any(miss.person != answer.person for miss in misses)
        assert sum(miss.attribute != answer.attribute for miss in misses) >= 4


def test_most_answers_have_an_old_value_among_their_near_misses() -> None:
    replaced = [answer.supersedes in question.near for _, question, answer in answered()]
    assert sum(replaced) >= 0.8 * len(replaced)


def test_an_answer_is_the_newest_value_and_the_only_one_of_its_kind() -> None:
    for caller, _, answer in answered():
        same = [
            fact
            for fact in active(caller)
            if (fact.topic, fact.attribute, fact.person) == (answer.topic, answer.attribute, answer.person)
        ]
        assert same == [answer]


def test_a_newer_fact_supersedes_an_older_one_about_the_same() -> None:
    for caller in CALLERS:
        facts = {fact.id: fact for fact in caller.facts}
        for fact in caller.facts:
            if fact.supersedes:
                older = facts[fact.supersedes]
                assert older.days_ago > fact.days_ago
                assert (older.topic, older.attribute, older.person) == (fact.topic, fact.attribute, fact.person)
                assert older.values != fact.values


def test_no_question_gives_its_answer_away() -> None:
    for _, question, answer in answered():
        given = make.stems(question.text) & {stem for value in answer.values for stem in make.stems(value)}
        assert answer.values
        assert not given, (question.text, answer.text)


def test_the_same_is_asked_at_most_thrice() -> None:
    assert max(Counter(bare(question.text) for question in questions()).values()) <= 3


def test_no_question_with_an_answer_is_asked_in_both_halves() -> None:
    halves = {
        split: {bare(asked.text) for _, asked, _ in answered() if asked.split == split} for split in ("dev", "test")
    }
    assert not halves["dev"] & halves["test"]


def test_about_half_of_the_questions_share_no_word_with_their_answer() -> None:
    shares = []
    for _, question, answer in answered():
        shared = bool(make.stems(question.text) & make.stems(answer.text))
        assert question.kind == ("shared word" if shared else "other words")
        shares.append(shared)
    assert 0.4 <= sum(shares) / len(shares) <= 0.6


def test_questions_are_as_long_as_people_speak() -> None:
    lengths = [len(question.text.split()) for _, question, _ in answered()]
    assert min(lengths) >= 3
    assert max(lengths) <= 35
    assert 8 <= sorted(lengths)[len(lengths) // 2] <= 16


def test_what_no_memory_answers_is_asked_about_somebody_or_something_of_which_nothing_is_known() -> None:
    for caller in CALLERS:
        facts = {fact.id: fact for fact in caller.facts}
        for question in caller.questions:
            if question.kind == "same topic":
                assert len(question.near) >= 5
                known = {facts[near].person for near in question.near} - {""}
                named = [person for person in known if re.search(rf"\bmy {person}\b", question.text)]
                assert not named, question.text


def test_the_files_are_what_the_generator_makes() -> None:
    for file, text in make.make().items():
        assert (recall_set.FOLDER / file).read_text(encoding="utf-8") == text


def test_the_readme_tells_the_figures_of_the_set() -> None:
    readme = " ".join((recall_set.FOLDER / "README.md").read_text(encoding="utf-8").split())
    parts, shares, tempted = Counter[str](), [], 0
    for caller, question, answer in answered():
        asked = make.stems(question.text)
        facts = {fact.id: make.stems(fact.text) & asked for fact in caller.facts}
        parts[question.kind] += 1
        shares.append(len(facts[answer.id]) / len(asked))
        tempted += any(len(facts[near]) >= max(1, len(facts[answer.id])) for near in question.near)
    total = len(shares)
    assert f"{total} questions with an answer" in readme
    assert all(f"{part} of {total}" in readme for part in parts.values())
    assert f"{sum(shares) / total:.0%}".replace("%", " %") in readme
    assert f"In {tempted} of the {total}" in readme
