"""The text stream of one conversation: what it is told to say, and what comes back as words with times."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_bridge.engines.base import FRAME, RATE, Cut, Flush, Said, TextEvent, Words
from voice_bridge.engines.moshi import script as scripts
from voice_bridge.engines.moshi.config import ModelError
from voice_bridge.engines.moshi.script import (
    Script,
    Transcript,
    context_rows,
    frames,
    moshi_prompt,
    pause,
    personaplex_prompt,
)
from voice_bridge.engines.moshi.tokenizer import Tokenizer

PAD, END = 3, 0
NO_TEXT = (PAD, END)
ENGLISH = (
    "Thank you for calling the Riverside dental clinic, my name is Anna. I can book, move or cancel an appointment for "
    "you, and I can tell you when we are open. We are here from Monday to Friday, in the morning and in the afternoon, "
    "and on Saturday until noon. If you are in pain, please tell me right away, so that I can find the first free "
    "hour. May I ask for your name, and whether you have been with us before? It will only take a minute. Of course we "
    "never share what you tell us with anybody. So, how can I help you today?"
)


def trained() -> bytes:
    """A vocabulary in which English words are one or two tokens, and what is missing is spelt in bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([ENGLISH] * 20),
        model_writer=model,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
        num_threads=1,
        vocab_size=505,
    )
    return model.getvalue()


ORACLE = Path(__file__).parent / "data/oracle/moshi/tokenizer.model"
SMALL = Tokenizer.load(ORACLE)  # 47 pieces, no capitals, no full stop, no bytes
MODEL = trained()
REAL = Tokenizer(MODEL)
PIECES = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
tokenizers = st.sampled_from([SMALL, REAL])
plain = st.text(st.sampled_from("abcdefghijklmnoprstuwy ABT,.?!"), max_size=60)
texts = st.one_of(plain, st.text(max_size=60))


def sayable(tokenizer: Tokenizer, text: str) -> str:
    return " ".join(word.text for word in tokenizer.words(text))


class Slot:
    """A model in whose place the test chooses the free tokens."""

    def __init__(self, tokenizer: Tokenizer = REAL) -> None:
        self.tokenizer = tokenizer
        self.script = Script(tokenizer, PAD, END)
        self.now = 0
        self.forced: list[int | None] = []
        self.events: list[TextEvent] = []

    def step(self, free: int = PAD) -> int:
        forced = self.script.next()
        self.forced.append(forced)
        token = free if forced is None else forced
        self.events += self.script.took(token, self.now, self.now + FRAME)
        self.now += FRAME
        return token

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def run_out(self) -> None:
        """Until nothing is left to say, and every utterance is over."""
        while not self.script.idle:
            self.step()
        self.run(scripts.GAP + 1)

    @property
    def tokens(self) -> list[int]:
        """What was forced, without padding."""
        return [token for token in self.forced if token is not None and token not in NO_TEXT]

    @property
    def said(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, Said)]

    @property
    def finals(self) -> list[Words]:
        return [event for event in self.events if isinstance(event, Words) and event.final]


# -- saying -------------------------------------------------------------------------------------------------------


def test_english_is_said_at_the_pace_of_speech() -> None:
    slot = Slot()
    slot.script.say(1, ENGLISH)
    slot.run_out()
    (words,) = slot.finals
    seconds = (words.end - words.start) / RATE
    assert 2.5 < len(ENGLISH.split()) / seconds < 3.0
    assert 3.0 < len(slot.tokens) / seconds < 4.0


@settings(deadline=None)
@given(tokenizers, texts)
def test_exactly_the_tokens_of_a_text_come_out(tokenizer: Tokenizer, text: str) -> None:
    slot = Slot(tokenizer)
    try:
        slot.script.say(7, text)
    except ValueError:
        assert slot.script.idle
        return
    slot.run_out()
    said = sayable(tokenizer, text)
    assert tokenizer.decode(slot.tokens) == said
    assert [(words.id, words.text, words.forced) for words in slot.finals] == [(7, said, True)]
    assert slot.said == [7]
    assert tokenizer is SMALL or not any(PIECES.is_byte(slot.tokens))


@settings(deadline=None)
@given(tokenizers, plain)
def test_words_stand_apart_by_padding_that_ends_with_end_of_padding(tokenizer: Tokenizer, text: str) -> None:
    slot = Slot(tokenizer)
    try:
        slot.script.say(1, text)
    except ValueError:
        return
    slot.run_out()
    sent = [token for token in slot.forced if token is not None]
    assert sent.count(END) == len(sayable(tokenizer, text).split())
    for before, token in pairwise(sent):
        if token not in NO_TEXT:
            begins = tokenizer.spell(token).startswith(b" ")
            assert (before == END) == begins
            assert (before not in NO_TEXT) == (not begins)


def test_a_long_word_a_number_and_a_mark_take_their_time() -> None:
    assert frames("a") < frames("there") < frames("appointment")
    assert frames("2024") > frames("four")
    starts = {}
    for mark in ("", ",", "."):
        slot = Slot()
        slot.script.say(1, f"morning{mark} and")
        slot.run_out()
        starts[mark] = slot.script.transcript.words[1].start // FRAME
    assert (starts[","] - starts[""], starts["."] - starts[""]) == (2, 4)
    assert pause('"open."') == 4
    slot = Slot()
    slot.script.say(1, "nnnnnnnnnnnn. and")  # more tokens than it would take frames
    slot.run_out()
    word, later = slot.script.transcript.words
    assert later.start - word.end >= 4 * FRAME


@pytest.mark.parametrize("text", ["", " \n\t ", "\u200b\x00\ufeff", "\ud800", "電話"])
def test_a_text_with_nothing_to_say_is_refused_with_the_remedy(text: str) -> None:
    slot = Slot()
    with pytest.raises(ValueError, match="give it words of its language"):
        slot.script.say(1, text)
    assert slot.script.idle


def test_what_the_model_has_never_seen_is_replaced_or_left_out() -> None:
    assert (
        sayable(REAL, "  We\u2019re\x07 o\u0301pen\n\non Mon\u00adday\u2581so 電話 \U0001f600!")
        == "Were open on Monday so ."
    )
    assert sayable(SMALL, "HELLO, Tom\u00e1s!") == "hello tomas"
    assert sayable(REAL, "\ufb01nd \uff4d\uff45") == "find me"


def test_a_book_is_said_to_its_end() -> None:
    slot = Slot(SMALL)
    slot.script.say(1, "the same day " * 1000)
    slot.run_out()
    assert slot.finals[-1].text == " ".join(["the same day"] * 1000)


def test_says_follow_one_another_in_order() -> None:
    slot = Slot()
    for id, text in ((1, "How can I help you?"), (2, "Thank you."), (3, "It will take a minute")):
        slot.script.say(id, text)
    slot.run_out()
    assert slot.said == [1, 2, 3]
    assert [words.id for words in slot.finals] == [1, 2, 3]
    assert all(one.end < two.start for one, two in pairwise(slot.finals))


def test_said_comes_with_the_end_of_the_last_word_and_then_the_model_is_free() -> None:
    slot = Slot()
    slot.script.say(1, "you")
    slot.run_out()
    (said,) = [event for event in slot.events if isinstance(event, Said)]
    assert slot.events.index(said) == slot.events.index(slot.finals[0]) + 1
    assert said.heard_to == (1 + frames("you")) * FRAME
    forced = [token for token in slot.forced if token is not None]
    assert len(forced) == 1 + frames("you") + scripts.TAIL
    assert slot.forced[: len(forced)] == forced


def test_a_say_waits_for_the_end_of_the_models_word() -> None:
    slot = Slot()
    piece = REAL.encode("name")[0]
    slot.step(piece)
    slot.script.say(1, "Thank you")
    assert slot.step(piece) == piece
    assert slot.step(PAD) == PAD
    assert slot.forced == [None, None, None]
    slot.step(piece)
    assert slot.forced[-1] == END


def test_a_model_that_does_not_stop_is_cut_in_on_after_a_second() -> None:
    slot = Slot()
    piece = REAL.encode("name")[0]
    for id in (1, 2):
        slot.step(piece)
        slot.script.say(id, "Thank you")
        for _ in range(scripts.PATIENCE):
            assert slot.step(piece) == piece
        assert slot.step(piece) == END
        while not slot.script.idle:
            slot.step(piece)
    slot.run_out()
    assert [words.id for words in slot.finals] == [-1, 1, -3, 2]


# -- cancelling and interrupting ----------------------------------------------------------------------------------

LINE = "May I book an appointment for you, please?"


def length(tokenizer: Tokenizer) -> int:
    slot = Slot(tokenizer)
    slot.script.say(1, LINE)
    slot.run_out()
    return len(slot.forced)


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("tokenizer", [SMALL, REAL])
def test_a_say_can_be_dropped_at_any_frame(tokenizer: Tokenizer, interrupt: bool) -> None:
    whole = sayable(tokenizer, LINE).split()
    for at in range(length(tokenizer)):
        slot = Slot(tokenizer)
        slot.script.say(1, LINE)
        slot.run(at)
        before = len(slot.tokens)
        dropped = slot.script.interrupt()[:1] == [Flush()] or at == 0 if interrupt else slot.script.cancel(1)
        assert dropped == (not slot.said)
        slot.run_out()
        assert slot.said == ([] if dropped else [1])
        assert len(slot.tokens) - before <= scripts.FINISH
        assert [words.text for words in slot.finals] == ([tokenizer.decode(slot.tokens)] if slot.tokens else [])
        heard = tokenizer.decode(slot.tokens).split()
        assert heard[:-1] == whole[: len(heard)][:-1]
        assert not heard or whole[len(heard) - 1].startswith(heard[-1])


def test_a_word_that_was_begun_is_finished() -> None:
    slot = Slot(SMALL)
    slot.script.say(1, "same day")
    slot.run(2)
    assert slot.script.cancel(1)
    slot.run_out()
    assert [words.text for words in slot.finals] == ["same"]


def test_a_cancel_in_the_queue_leaves_the_others() -> None:
    slot = Slot()
    for id in (1, 2, 3):
        slot.script.say(id, "Thank you")
    slot.run(2)
    assert slot.script.cancel(2)
    assert not slot.script.cancel(2)
    assert not slot.script.cancel(99)
    slot.run_out()
    assert slot.said == [1, 3]
    assert not slot.script.cancel(1)


def test_the_caller_interrupts_only_what_may_be_interrupted() -> None:
    slot = Slot()
    slot.script.say(1, "How can I help you today?", interruptible=False)
    slot.script.say(2, "Thank you")
    slot.script.say(3, "of course", interruptible=False)
    slot.run(3)
    assert slot.script.interrupt() == [Cut(2)]
    slot.run_out()
    assert slot.said == [1, 3]


def test_an_interruption_voids_what_is_on_its_way_to_the_caller() -> None:
    slot = Slot()
    assert slot.script.interrupt() == []
    slot.script.say(1, "How can I help you today?")
    slot.run(3)
    assert slot.script.interrupt() == [Flush(), Cut(1)]
    assert slot.script.interrupt() == []


def test_a_cancel_between_asking_and_answering_leaves_the_token_with_its_say() -> None:
    script = Script(REAL, PAD, END)
    script.say(1, "you")
    tokens = [script.next(), script.next()]
    assert script.cancel(1)
    tokens.append(script.next())
    assert tokens == [END, *REAL.encode("you"), None]
    assert script.took(END, 0, FRAME) == []
    (words,) = script.took(REAL.encode("you")[0], FRAME, 2 * FRAME)
    (final,) = script.took(PAD, 2 * FRAME, 3 * FRAME)
    assert words == Words(1, "agent", "you", FRAME, 2 * FRAME, final=False, forced=True)
    assert final == Words(1, "agent", "you", FRAME, 2 * FRAME, final=True, forced=True)


# -- what was said ------------------------------------------------------------------------------------------------


def feed(transcript: Transcript, tokens: list[int], frame: int = 0) -> list[Words]:
    events = []
    for number, token in enumerate(tokens, frame):
        events += transcript.took(token, number * FRAME, (number + 1) * FRAME)
    return [event for event in events if isinstance(event, Words)]


def test_pieces_become_text_and_bytes_become_characters() -> None:
    text = "the na\u00efve 電話 is open"
    told = feed(Transcript(REAL, PAD, END), PIECES.encode(text))
    assert told[-1].text == text
    assert not any("\ufffd" in words.text for words in told)
    assert all(one.text != two.text for one, two in pairwise(told))
    assert next(words.text for words in told if "電" in words.text).endswith("電")
    assert len(told) < len(PIECES.encode(text))


def test_tokens_without_text_are_no_event() -> None:
    transcript = Transcript(REAL, PAD, END)
    assert feed(transcript, [PAD, END, 1, 2, -1, 10**6, PAD] * 5) == []
    assert transcript.quiet == 35
    assert feed(transcript, REAL.encode("so"))
    assert transcript.quiet == 0
    assert feed(Transcript(REAL, REAL.encode("so")[0], REAL.encode("and")[0]), REAL.encode("so and so")) == []


def test_an_utterance_ends_soon_after_a_full_stop_and_later_without_one() -> None:
    for text, gap in (("Thank you.", scripts.SENTENCE_GAP), ("Thank you", scripts.GAP)):
        transcript = Transcript(REAL, PAD, END)
        assert feed(transcript, REAL.encode(text))[-1].final is False
        assert feed(transcript, [PAD] * (gap - 1), 20) == []
        (words,) = feed(transcript, [END], 20 + gap)
        assert words.final
        assert words.text == text
        assert feed(transcript, [PAD] * 99, 60) == []
        assert transcript.finish() == []


def test_an_utterance_ends_where_forced_and_free_words_meet() -> None:
    slot = Slot()
    for token in REAL.encode("we are"):
        slot.step(token)
    slot.step()
    slot.script.say(5, "Thank you")
    while not slot.said:
        slot.step()
    while slot.forced[-1] is not None:
        slot.step(REAL.encode("so")[0])
    slot.run_out()
    assert [(words.id, words.text, words.forced) for words in slot.finals] == [
        (-1, "we are", False),
        (5, "Thank you", True),
        (-3, "so", False),
    ]


def test_each_word_has_its_time() -> None:
    slot = Slot()
    slot.script.say(1, LINE)
    slot.run_out()
    (final,) = slot.finals
    words = list(slot.script.transcript.words)
    assert " ".join(word.text for word in words) == final.text
    assert {word.utterance for word in words} == {1}
    assert (words[0].start, words[-1].end) == (final.start, final.end)
    for word, later in pairwise(words):
        assert word.end == word.start + frames(word.text) * FRAME
        assert word.end <= later.start


def test_a_caller_is_written_down_when_he_spoke_not_when_the_model_wrote() -> None:
    delay = 6 * FRAME
    caller = Transcript(REAL, PAD, END, speaker="caller", shift=delay)
    agent = Transcript(REAL, PAD, END)
    tokens = [*REAL.encode("Monday"), *[PAD] * scripts.GAP]
    heard, spoken = feed(caller, tokens, 100), feed(agent, tokens, 100)
    assert [(words.start, words.end) for words in heard] == [(w.start - delay, w.end - delay) for w in spoken]
    assert {words.speaker for words in heard} == {"caller"}
    assert not {words.id for words in heard} & {words.id for words in spoken}
    early = feed(Transcript(REAL, PAD, END, shift=delay), REAL.encode("Monday"))
    assert early[-1].start == early[-1].end == 0


actions = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(["Thank you", "of course", LINE, "a"]), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(1, 6), st.none()),
    st.tuples(st.just("interrupt"), st.none(), st.none()),
    st.tuples(st.just("steps"), st.lists(st.sampled_from([PAD, PAD, END, 5, 270, 300]), max_size=12), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(tokenizers, st.lists(actions, max_size=25))
def test_whatever_happens_every_say_and_every_utterance_ends_once(
    tokenizer: Tokenizer, todo: list[tuple[str, object, object]]
) -> None:
    slot = Slot(tokenizer)
    wanted: dict[int, str] = {}
    optional: set[int] = set()  # those that may be interrupted
    dropped: set[int] = set()
    for kind, what, interruptible in todo:
        idle, steps = slot.script.idle, len(slot.forced)
        if kind == "say":
            id = len(wanted) + 1
            wanted[id] = sayable(tokenizer, str(what))
            slot.script.say(id, str(what), bool(interruptible))
            if interruptible:
                optional.add(id)
        elif kind == "cancel" and slot.script.cancel(int(str(what))):
            dropped.add(int(str(what)))
        elif kind == "interrupt":
            slot.events += slot.script.interrupt()
            dropped |= optional - set(slot.said)
        elif isinstance(what, list):
            for token in what:
                slot.step(token)
            assert not idle or slot.forced[steps:] == [None] * len(what)
    slot.run_out()
    assert slot.said == [id for id in wanted if id not in dropped]
    finals = [words.id for words in slot.finals]
    assert len(finals) == len(set(finals))
    assert {event.id for event in slot.events if isinstance(event, Words)} == set(finals)
    for words in slot.finals:
        assert words.forced == (words.id > 0)
        assert words.id < 0 or wanted[words.id].startswith(words.text)
        assert words.id < 0 or words.id in dropped or wanted[words.id] == words.text
    told = [event for event in slot.events if isinstance(event, Words)]
    assert all(words.start <= words.end <= slot.now for words in told)
    assert all(one.end <= two.end for one, two in pairwise(told))
    heard = [event.heard_to for event in slot.events if isinstance(event, Said)]
    assert heard == sorted(heard)


# -- what is only read --------------------------------------------------------------------------------------------


def test_context_is_every_token_of_the_text_in_one_row_each() -> None:
    rows = context_rows(REAL, " You are\n Anna. \x00", "plain", room=100)
    assert rows == REAL.encode("You are Anna.")
    assert REAL.decode(rows) == "You are Anna."
    assert SMALL.decode(context_rows(SMALL, "an 電 hello", "plain", room=100)) == "an  hello"
    assert END not in context_rows(SMALL, "an 電 hello", "plain", room=100)
    assert REAL.decode(context_rows(REAL, "Anna is open", "remembered", room=100)) == "I remember: Anna is open"


@pytest.mark.parametrize("persona", ["You are Anna.", " <system> You are Anna. <system> "])
def test_personaplex_is_given_its_tags_once(persona: str) -> None:
    rows = context_rows(REAL, persona, "system", room=100)
    assert rows == PIECES.encode("<system> You are Anna. <system>")


def test_context_that_cannot_be_given_says_why_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"of \d+ tokens, and the model has room for 10: shorten it"):
        context_rows(REAL, ENGLISH, "plain", room=10)
    with pytest.raises(ValueError, match="no text in it"):
        context_rows(REAL, " ", "system", room=10)
    with pytest.raises(ValueError, match="'loud': give it as plain, system, remembered"):
        context_rows(REAL, "hello", "loud", room=10)


def test_a_personaplex_prompt_is_voice_silence_persona_silence() -> None:
    prompt = personaplex_prompt(REAL, "You are Anna.", "anna.wav", PAD, room=100)
    assert [stretch.kind for stretch in prompt.stretches] == ["voice", "silence", "text", "silence"]
    voice, silence, text, _ = prompt.stretches
    assert voice.voice == "anna.wav"
    assert silence.tokens == (PAD,) * 6
    assert list(text.tokens) == context_rows(REAL, "You are Anna.", "system", room=100)
    assert len(prompt.silence) == len(prompt.caller) == 8
    bare = personaplex_prompt(REAL, "", "", PAD, room=100)
    assert [stretch.kind for stretch in bare.stretches] == ["silence", "silence"]


def test_a_moshi_prompt_is_the_plain_persona_or_nothing() -> None:
    (text,) = moshi_prompt(REAL, "You are Anna.", room=100).stretches
    assert list(text.tokens) == REAL.encode("You are Anna.")
    assert moshi_prompt(REAL, "", room=0).stretches == ()


@pytest.mark.parametrize("content", [b"", b"\x00not a model"])
def test_a_tokenizer_that_is_missing_or_broken_is_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"none.model: No such file or directory; fetch the checkpoint again"):
        Tokenizer.load(tmp_path / "none.model")
    broken = tmp_path / "broken.model"
    broken.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken.model is no sentencepiece model"):
        Tokenizer.load(broken)
