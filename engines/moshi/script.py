"""What a conversation's text stream is told, and what it said.

The text stream carries one token a frame: a word's tokens one after the other from the moment the word begins, then
padding, and end-of-padding on the last frame before the next word. No clock here, no model, no I/O.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Literal, NamedTuple

from ..base import FRAME, Cut, Flush, Said, Speaker, TextEvent, Words
from .tokenizer import Tokenizer, Word, tidy

# Pace, in frames of 80 ms. For English telephone talk this makes 2.7 words a second with the pauses.
WORD = 1.7  # what any word takes beyond its letters
LETTER = 0.7
SIGN = 3.0  # a digit or a symbol, which is spoken as a word
PAUSES = {**dict.fromkeys(",;:-", 2), **dict.fromkeys(".!?", 4)}
CLOSING = "\"'\u201d\u2019\u00bb)]}"  # what may stand behind the mark that makes the pause

PATIENCE = 12  # frames to wait for the end of the model's word; after a second it is as good to cut in
TAIL = 3  # frames of padding behind what was said, or the model goes on with the sentence
FINISH = 4  # tokens of a word that may still follow a cancel: half a word would be finished by the model

SENTENCE_GAP = 6  # frames of padding (0.5 s) that end an utterance after a full stop
GAP = 15  # frames of padding (1.2 s) that end it anywhere
LONGEST = 1000  # characters of an utterance, a minute of talk: each word sends all of it again
HISTORY = 1 << 14  # words kept with their times: over an hour of talk


def frames(word: str) -> int:
    """How long a word is spoken, without the pause behind it."""
    letters = sum(map(str.isalpha, word))
    signs = sum(c.isnumeric() or c in "%&@#" or unicodedata.category(c)[0] == "S" for c in word)
    return max(1, round(WORD + LETTER * letters + SIGN * signs))


def pause(word: str) -> int:
    return PAUSES.get((word.rstrip(CLOSING) or word)[-1], 0)


class TimedWord(NamedTuple):
    utterance: int
    text: str
    start: int
    end: int


class Transcript:
    """Text tokens in, the speaker's utterances out, with times in samples of the caller's clock.

    `shift` is by how many samples the model writes behind what it hears. Utterances that are not a say of ours are
    numbered from -1 down, the caller's with even numbers, so that no two ids of a conversation are the same.
    """

    def __init__(
        self, tokenizer: Tokenizer, padding: int, end_of_padding: int, speaker: Speaker = "agent", shift: int = 0
    ) -> None:
        self.words: deque[TimedWord] = deque(maxlen=HISTORY)
        """Every word that is complete, oldest first; a reader may take them out."""
        self.quiet = 0
        """Frames since the last text."""
        self._tokenizer = tokenizer
        self._no_text = (padding, end_of_padding)
        self._speaker = speaker
        self._shift = shift
        self._ids = count(-1 if speaker == "agent" else -2, -2)
        self._id: int | None = None
        self._say: int | None = None
        self._start = 0  # of the utterance
        self._told = ""  # its text in the last event
        self._before = ""  # its text before the word under way
        self._spelling = b""  # of that word: a piece may be part of a character
        self._began = self._ended = 0  # that word

    def took(self, token: int, at: int, end: int, say: int | None = None) -> list[TextEvent]:
        """The token of the frame from `at` to `end`; `say` is the id of what we made the model say, if so."""
        at, end = max(0, at - self._shift), max(0, end - self._shift)
        events = self.finish() if say != self._say else []
        self._say = say
        spelling = b"" if token in self._no_text else self._tokenizer.spell(token)
        if spelling:
            if spelling.startswith(b" ") and len(self._told) > LONGEST and say is None:
                events += self.finish()
            self._grow(spelling, at, end)
            return events + self._tell()
        self.quiet += 1
        if self._spelling:
            self._ended = max(self._ended, min(end, self._began + frames(self._word) * FRAME))
            if say is None and self._over():
                events += self.finish()
        return events

    @property
    def under_way(self) -> TimedWord | None:
        """The last word of the utterance under way, which may grow; None when there is no utterance."""
        if self._id is None or not self._word:
            return None
        return TimedWord(self._id, self._word, self._began, self._ended)

    def finish(self) -> list[TextEvent]:
        """The utterance under way, if any, is over."""
        self._close_word()
        text, id = self._told, self._id
        self._before, self._told, self._id = "", "", None
        return [] if id is None else [self._event(id, text, final=True)]

    def _grow(self, spelling: bytes, at: int, end: int) -> None:
        self.quiet = 0
        if spelling.startswith(b" ") or not self._spelling:
            self._close_word()
            self._began = at
            if not self._told:
                self._start = at
        self._spelling += spelling
        self._ended = end

    def _tell(self) -> list[TextEvent]:
        text = f"{self._before} {self._word}".strip()
        if text == self._told:
            return []
        self._told = text
        if self._id is None:
            self._id = next(self._ids) if self._say is None else self._say
        return [self._event(self._id, text, final=False)]

    def _event(self, id: int, text: str, final: bool) -> Words:
        return Words(id, self._speaker, text, self._start, self._ended, final, forced=self._say is not None)

    def _over(self) -> bool:
        last = self._told.rstrip(CLOSING)[-1:]
        return self.quiet >= (SENTENCE_GAP if last in (".", "!", "?", "\u2026") else GAP)

    @property
    def _word(self) -> str:
        return self._spelling.decode(errors="ignore").strip()

    def _close_word(self) -> None:
        if word := self.under_way:
            self.words.append(word)
        self._before, self._spelling = self._told, b""


class _Say(NamedTuple):
    id: int
    words: deque[Word]
    """Those that are still to come."""
    interruptible: bool


class _Row(NamedTuple):
    """One frame of the text stream: the token to force, or None to let the model choose."""

    token: int | None
    say: int | None = None
    over: bool = False
    """With this frame the last word has had its time."""


class Script:
    """What one slot is made to say. Every `next` is answered by one `took`, in the same order."""

    def __init__(
        self, tokenizer: Tokenizer, padding: int, end_of_padding: int, speaker: Speaker = "agent", shift: int = 0
    ) -> None:
        """`speaker` and `shift` are those of its transcript."""
        self.transcript = Transcript(tokenizer, padding, end_of_padding, speaker, shift)
        self._tokenizer = tokenizer
        self._padding = padding
        self._end_of_padding = end_of_padding
        self._queue: deque[_Say] = deque()
        self._saying: _Say | None = None
        self._plan: deque[_Row] = deque()  # the rest of the word under way and what follows it
        self._asked: deque[_Row] = deque()
        self._between_words = True  # the model is not within a word
        self._waited = 0

    @property
    def idle(self) -> bool:
        """Nothing is being said or waits to be."""
        return not (self._saying or self._queue or self._plan)

    def say(self, id: int, text: str, interruptible: bool = True) -> None:
        """Say `text` after what is being said; raises ValueError if there is nothing in it to say."""
        self._queue.append(_Say(id, deque(self._tokenizer.words(text)), interruptible))

    def cancel(self, id: int) -> bool:
        """Leave out what is not yet said of it; False if it was over."""
        if self._saying and self._saying.id == id:
            self._break_off()
            return True
        waiting = len(self._queue)
        self._queue = deque(say for say in self._queue if say.id != id)
        return len(self._queue) < waiting

    def interrupt(self) -> list[TextEvent]:
        """The caller began to talk: what may be interrupted is dropped."""
        events: list[TextEvent] = [Cut(say.id) for say in self._queue if say.interruptible]
        self._queue = deque(say for say in self._queue if not say.interruptible)
        if self._saying and self._saying.interruptible:
            events = [Flush(), Cut(self._saying.id), *events]
            self._break_off()
        return events

    def next(self) -> int | None:
        """The token to force in the coming step, or None to let the model choose."""
        if not self._plan:
            self._plan_ahead()
        row = self._plan.popleft() if self._plan else _Row(None)
        if row.over:
            self._saying = None
        self._asked.append(row)
        return row.token

    def took(self, token: int, at: int, end: int) -> list[TextEvent]:
        """The token that a step used; `at` and `end` are the caller's clock of the frame that its text belongs to."""
        row = self._asked.popleft()
        self._between_words = token in (self._padding, self._end_of_padding)
        events = self.transcript.took(token, at, end, row.say)
        if row.over and row.say is not None:
            events += [*self.transcript.finish(), Said(row.say, end)]
        return events

    def _plan_ahead(self) -> None:
        if self._saying:
            self._plan_word(self._saying)
        elif self._queue:
            if not self._between_words and self._waited < PATIENCE:
                self._waited += 1
                return
            self._waited = 0
            self._saying = self._queue.popleft()
            self._plan.append(_Row(self._end_of_padding, self._saying.id))

    def _plan_word(self, say: _Say) -> None:
        word = say.words.popleft()
        rest = max(1, frames(word.text) - len(word.tokens))  # the next word needs a frame before it
        quiet = _Row(self._padding, say.id)
        self._plan.extend(_Row(token, say.id) for token in word.tokens)
        if say.words:
            self._plan.extend([quiet] * (rest + pause(word.text) - 1))
            self._plan.append(_Row(self._end_of_padding, say.id))
        else:
            self._plan.extend([quiet] * (rest - 1))
            self._plan.append(_Row(self._padding, say.id, over=True))
            self._plan.extend([_Row(self._padding)] * max(TAIL, pause(word.text)))

    def _break_off(self) -> None:
        no_text = (self._padding, self._end_of_padding)
        word = list(takewhile(lambda row: row.token not in no_text, self._plan))
        self._plan = deque(word[:FINISH])
        self._saying = None


# -- silent context: text that is read, not said ------------------------------------------------------------------

WRAPS = {"plain": ("", ""), "system": ("<system>", "<system>"), "remembered": ("I remember:", "")}
"""What is written around it: nothing, the tags that PersonaPlex learnt, or words of the model's own memory."""


def context_rows(tokenizer: Tokenizer, text: str, how: str, room: int) -> list[int]:
    """The text tokens, one a row, of something the model shall know; raises ValueError if there is none or too much.

    `room` is how many rows it may take: each pushes a frame of the conversation out of what the model can look back on.
    """
    if how not in WRAPS:
        raise ValueError(f"context cannot be given as {how!r}: give it as {', '.join(WRAPS)}")
    readable(tokenizer, text)
    before, after = WRAPS[how]
    text = tidy(text)
    if not (before and text.startswith(before) and text.endswith(after)):
        text = f"{before} {text} {after}"
    rows = tokenizer.encode(text)
    if len(rows) > room:
        raise ValueError(f"a context of {len(rows)} tokens, and the model has room for {room}: shorten it")
    return rows


def readable(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of `text`; raises ValueError if there is none."""
    tokens = tokenizer.encode(text)
    if not tokens:
        raise ValueError("there is no text in it: give the model something to read")
    return tokens


class Stretch(NamedTuple):
    """Rows of a prompt that are alike. Each text token is one row; the agent's stream is silent but for a voice."""

    kind: Literal["text", "silence", "voice"]
    tokens: tuple[int, ...] = ()
    """Empty for a voice: then there is padding for as long as the voice lasts."""
    voice: str = ""
    """A recording of the agent's voice to be, or what was stored of one."""


@dataclass(frozen=True)
class Prompt:
    """What a conversation is given before its first frame, in order; nothing of it is heard."""

    stretches: tuple[Stretch, ...] = ()
    silence: tuple[int, ...] = ()
    """One frame's codes on the agent's stream; empty: what the codec makes of silence."""
    caller: tuple[int, ...] = ()
    """One frame's codes on the caller's stream; empty: what the codec makes of silence."""


# What PersonaPlex was trained with: Mimi's codes of a silent frame and of a 440 Hz tone, and 0.5 s between prompts.
SILENCE = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)
TONE = (430, 1268, 381, 1611, 1095, 1495, 56, 472)
BREATH = 6


def moshi_prompt(tokenizer: Tokenizer, persona: str, room: int) -> Prompt:
    """Moshi learnt no prompt of its own: it is given the persona as plain text."""
    return Prompt((Stretch("text", tuple(context_rows(tokenizer, persona, "plain", room))),) if persona else ())


def personaplex_prompt(tokenizer: Tokenizer, persona: str, voice: str, padding: int, room: int) -> Prompt:
    """Voice, silence, persona, silence; either may be empty, the silences stay."""
    silence = Stretch("silence", (padding,) * BREATH)
    spoken = (Stretch("voice", voice=voice),) if voice else ()
    told = (Stretch("text", tuple(context_rows(tokenizer, persona, "system", room))),) if persona else ()
    return Prompt((*spoken, silence, *told, silence), SILENCE, TONE)
