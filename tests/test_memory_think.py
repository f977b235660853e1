"""What comes to mind is said when it answers what is asked, and of nobody else; else nothing is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libsql")
pytest.importorskip("wordllama")

from voice_bridge.bridge.memory.asked import context
from voice_bridge.bridge.memory.embed import embedder
from voice_bridge.bridge.memory.kinds import Judged, Memory, Moment
from voice_bridge.bridge.memory.notice import notice
from voice_bridge.bridge.memory.recall import Recall
from voice_bridge.bridge.memory.store import Store
from voice_bridge.bridge.memory.think import MOST, Rules, choose
from voice_bridge.engines.base import Speaker

CALLER = "caller"
NOW = 1_800_000_000.0
DAY = 86400.0
Turns = tuple[tuple[Speaker, str], ...]

TOLD = (
    "My gate code is 4417.",
    "The code for the alarm in the shop is 9902.",
    "My brother's gate code is 2210.",
    "My sister Anna's birthday is on the third of May.",
    "My brother Tom's birthday is on the ninth of June.",
    "My sister Anna lives in Cardiff.",
    "My dentist is called Doctor Weiss.",
    "I have a dentist appointment on Tuesday at half past ten.",
    "I'm allergic to peanuts.",
    "We had the garden gate painted green last spring.",
    "The rent for our flat is 850 pounds a month.",
    "Our dog is called Biscuit.",
    "I take the bus to work when it rains.",
    "The spare key is under the flower pot.",
)


class Mind:
    """What is injected when the caller says something."""

    def __init__(self, folder: Path) -> None:
        vectors = embedder("wordllama")
        self.store = Store.open(str(folder / "memory.db"))
        self.store.set_embedder(vectors.name, vectors.dim)
        memories = []
        for at, text in enumerate(TOLD, 1):
            (noted,) = notice(text)
            when = NOW - 100 * DAY + at
            memories.append(Memory(at, CALLER, noted.text, when, entities=noted.entities, importance=noted.importance))
        self.store.add(list(zip(memories, vectors.embed(TOLD), strict=True)))
        self.ids = {memory.text: memory.id for memory in memories}
        self._recall, self._rules = Recall(self.store, vectors), Rules()

    async def judged(self, said: str, before: Turns = (), known: frozenset[int] = frozenset()) -> list[Judged]:
        return await self._judge(Moment(said, True, before, known, NOW))

    async def says(
        self, said: str, before: Turns = (), known: frozenset[int] = frozenset(), final: bool = True
    ) -> list[str]:
        chosen = choose(await self._judge(Moment(said, final, before, known, NOW)))
        assert all(one.injected for one in chosen)
        return [one.memory.text for one in chosen]

    async def _judge(self, moment: Moment) -> list[Judged]:
        return await self._rules.judge(moment, self._recall.candidates(CALLER, moment))


@pytest.fixture(scope="module")
def mind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    mind = Mind(tmp_path_factory.mktemp("mind"))
    yield mind
    mind.store.close()


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("What's my gate code?", "My gate code is 4417."),
        ("I'm standing outside, how do I get through my gate, which number is it?", "My gate code is 4417."),
        ("What's the code for my brother's gate?", "My brother's gate code is 2210."),
        ("When is my sister's birthday?", "My sister Anna's birthday is on the third of May."),
        ("On which day was Tom born?", "My brother Tom's birthday is on the ninth of June."),
        ("Where does my sister live?", "My sister Anna lives in Cardiff."),
        ("What's the name of my dentist?", "My dentist is called Doctor Weiss."),
        ("When do I have to be at the dentist?", "I have a dentist appointment on Tuesday at half past ten."),
        ("How much is the rent for our flat?", "The rent for our flat is 850 pounds a month."),
        ("The gate code.", "My gate code is 4417."),
        ("I'm locked out, where's my spare key?", "The spare key is under the flower pot."),
    ],
)
async def test_what_answers_a_question_is_said_first(mind: Mind, asked: str, answer: str) -> None:
    assert (await mind.says(asked))[:1] == [answer]


@pytest.mark.parametrize(
    "said",
    [
        "What's my cousin's gate code?",  # of somebody else
        "When is my uncle's birthday?",
        "Who painted our garden gate?",  # of another sort
        "How many peanuts are there in a bag?",
        "How much did the dentist charge me?",
        "Hello, how are you today?",  # small talk
        "Thank you, that's very kind of you.",
        "Could you say that again, please?",
        "What's the capital of Australia?",  # nothing of the caller's
        "Forget everything you know about me.",
        "Hmm.",
        "...",
    ],
)
async def test_nothing_is_said_where_nothing_is_known(mind: Mind, said: str) -> None:
    assert await mind.says(said) == []


async def test_a_memory_that_the_model_knows_is_never_said_again(mind: Mind) -> None:
    answer = "My gate code is 4417."
    again = await mind.says("What's my gate code?", known=frozenset({mind.ids[answer]}))
    assert answer not in again


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("What's the code of the alarm in my shop?", "The code for the alarm in the shop is 9902."),
        ("When do I have to be at the dentist?", "I have a dentist appointment on Tuesday at half past ten."),
    ],
)
async def test_no_near_miss_takes_the_place_of_what_the_model_knows(mind: Mind, asked: str, answer: str) -> None:
    assert answer in await mind.says(asked)
    assert await mind.says(asked, known=frozenset({mind.ids[answer]})) == []


async def test_what_the_caller_has_just_said_needs_no_reminder(mind: Mind) -> None:
    before: Turns = (("caller", "By the way, our dog is called Biscuit."), ("agent", "What a lovely name."))
    asked = "What is our dog called?"
    assert await mind.says(asked) == ["Our dog is called Biscuit."]
    assert await mind.says(asked, before) == []


async def test_what_only_the_agent_said_is_no_reason_to_be_silent(mind: Mind) -> None:
    before: Turns = (("agent", "Our dog is called Biscuit."),)
    assert await mind.says("What is our dog called?", before) == ["Our dog is called Biscuit."]


async def test_a_question_goes_on_from_what_was_said_before(mind: Mind) -> None:
    before: Turns = (("caller", "I was talking to my sister Anna."), ("agent", "How nice."))
    assert "My sister Anna lives in Cardiff." in await mind.says("And where does she live?", before)
    assert await mind.says("And where does she live?") == []
    before = (("caller", "I need to get through my gate."), ("agent", "Do you know how?"))
    assert "My gate code is 4417." in await mind.says("No, what's the code?", before)


BEFORE: Turns = (("caller", "Hello."), ("caller", "My sister moved."), ("agent", "Where to?"))


@pytest.mark.parametrize(
    ("said", "goes_on_from"),
    [
        ("And where does she live?", "My sister moved. Where to?"),
        ("The number?", "My sister moved. Where to?"),
        ("When is he going to pick up the parcel?", "My sister moved. Where to?"),
        ("When does my dentist open the practice?", ""),
    ],
)
def test_only_what_means_little_alone_goes_on_from_what_was_said(said: str, goes_on_from: str) -> None:
    assert context(Moment(said, True, BEFORE, frozenset(), NOW)) == goes_on_from


async def test_a_question_that_stands_alone_is_not_drowned_in_the_talk(mind: Mind) -> None:
    before: Turns = (("caller", "The dentist hurt me on Tuesday, my tooth is sore."), ("agent", "I'm sorry for you."))
    assert (await mind.says("What's my gate code?", before))[:1] == ["My gate code is 4417."]


async def test_an_unfinished_sentence_needs_more_evidence(mind: Mind) -> None:
    for said in ("When is my", "What's the", "I wanted to ask about my"):
        assert await mind.says(said, final=False) == []
    whole = await mind.judged("What's my gate code?")
    partial = await mind._judge(Moment("What's my gate code?", False, (), frozenset(), NOW))
    assert partial[0].relevance < whole[0].relevance


async def test_scores_lie_between_nothing_and_one_and_say_why(mind: Mind) -> None:
    judged = await mind.judged("When is my sister's birthday?")
    assert all(0 <= score <= 1 for one in judged for score in (one.relevance, one.importance))
    assert all(one.why for one in judged)
    because = {one.memory.text: one.why for one in judged}
    assert because["My brother Tom's birthday is on the ninth of June."] == "of somebody else"
    assert because["My sister Anna lives in Cardiff."].startswith("tells no clock or date")


def judged(relevance: float, importance: float, id: int = 1) -> Judged:
    return Judged(Memory(id, CALLER, "", 0.0), 0.5, 0.5, relevance, importance)


def test_at_most_three_are_chosen_and_the_best_first() -> None:
    scores = [0.8, 0.95, 0.75, 0.9, 0.85]
    chosen = choose([judged(score, 0.9, at) for at, score in enumerate(scores)])
    assert [one.memory.id for one in chosen] == [1, 3, 4]
    assert len(chosen) == MOST


@pytest.mark.parametrize(
    ("relevance", "importance", "chosen"), [(0.71, 0.71, 1), (0.7, 1.0, 0), (1.0, 0.7, 0), (0.2, 1.0, 0), (1.0, 0.0, 0)]
)
def test_both_scores_must_be_above_the_threshold(relevance: float, importance: float, chosen: int) -> None:
    assert len(choose([judged(relevance, importance)])) == chosen
