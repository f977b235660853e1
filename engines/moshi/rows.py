"""What the model is given to read besides what it hears: rows of tokens, and a vector that goes onto them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from ...codecs import wav
from ..base import FRAME, RATE
from .model import Floats, Ints, Model
from .script import Prompt, context_rows, moshi_prompt, personaplex_prompt, readable
from .tokenizer import Tokenizer

MOST = 0.25  # of the context for a persona, and as much for what is injected in a call: half of it is for talk
SILENCE = 12  # frames of silence after which Mimi's codes of it have settled
LONGEST_VOICE = 20  # seconds of a recording that a voice is taken from; more of it would only take up context
BEST = "very_good"  # how conditions name the quality that one wants
WAYS = {"silent": "plain", "remembered": "remembered"}  # how a conversation injects rows, and how they are written
ADD = "add_to_input"  # and how it injects without any
STRENGTH = 1.0  # of words as a vector: their mean weighs as much as the one text token that a frame's input has anyway


class Rows:
    """`voice` names a recording of how the agent shall speak, for models that take one."""

    def __init__(self, model: Model, tokenizer: Tokenizer, voice: str) -> None:
        self._model = model
        self._config = model.config
        self._lm = lm = model.config.lm
        self._tokenizer = tokenizer
        self._own = slice(1, 1 + lm.own_streams)
        self._heard = slice(1 + lm.own_streams, None)
        self.first: Ints = np.array([[lm.text_card, *[lm.card] * lm.streams]])
        """What stands at position 0 of every call [1, 1 + streams]."""
        codes = model.encode(np.zeros(SILENCE * FRAME, np.float32))[-1]
        self.silent: Ints = np.array([[lm.padding, *codes[: lm.own_streams], *codes[: lm.heard_streams]]])
        """A row in which nobody speaks [1, 1 + streams]."""
        self._voice = self._spoken(voice) if voice else self.silent[:0, self._own]  # [frames, own_streams]

    def room(self, share: float) -> int:
        """How many rows may be given in a call, its persona apart, when they may take `share` of the context."""
        if not 0 <= share <= MOST:
            raise ValueError(f"a share of {share} of the context: take 0 to {MOST}, the rest is for persona and talk")
        return int(share * self._lm.temporal.context)

    def context(self, text: str, how: str, room: int) -> Ints:
        """At most `room` rows [t, 1 + streams] in which `text` is read and nobody speaks."""
        if how not in WAYS:
            raise ValueError(f"context cannot be given as {how!r}: give it as {', '.join(WAYS)} or {ADD}")
        return self._silent_text(context_rows(self._tokenizer, text, WAYS[how], room))

    def vector(self, text: str) -> Floats:
        """What `text` is about, as a vector [dim] that goes onto the input; raises ValueError if there is no text."""
        tokens = readable(self._tokenizer, text)
        return STRENGTH * self._model.embed(np.array(tokens))

    def known(self, text: str, persona: Ints) -> Ints:
        """What is known of the caller, as rows to be read behind those of the persona; none if they have no room."""
        if text:
            with contextlib.suppress(ValueError):
                return self.context(text, "remembered", self.room(MOST) - len(persona))
        return self.silent[:0]

    def prompt(self, persona: str) -> Ints:
        """The rows of a persona [t, 1 + streams]."""
        if self._config.prompting == "personaplex":
            voice = "given" if len(self._voice) else ""
            prompt = personaplex_prompt(self._tokenizer, persona, voice, self._lm.padding, self.room(MOST))
        else:
            prompt = moshi_prompt(self._tokenizer, persona, self.room(MOST))
        parts = [self._stretch(prompt, stretch.tokens, bool(stretch.voice)) for stretch in prompt.stretches]
        rows = np.concatenate([self.silent[:0], *parts])
        for stream, delay in enumerate(self._lm.delays):
            rows[delay:, stream] = rows[: len(rows) - delay, stream].copy()
        return rows

    def condition(self, asked: dict[str, str]) -> Floats:
        """The sum of the conditions' vectors [dim]: those asked for, and the best of the others."""
        conditions = self._lm.conditions
        unknown = asked.keys() - conditions.keys()
        if unknown:
            raise ValueError(f"the model has no condition {min(unknown)!r}: it has {', '.join(conditions) or 'none'}")
        vector = np.zeros(self._lm.temporal.dim, np.float32)
        for name, condition in conditions.items():
            value = asked.get(name) or (BEST if BEST in condition.values else condition.values[0])
            if value not in condition.values:
                raise ValueError(f"condition {name} = {value!r}: take one of {', '.join(condition.values)}")
            vector += self._model.condition(name, value)
        return vector

    def _silent_text(self, tokens: Sequence[int]) -> Ints:
        rows = self.silent.repeat(len(tokens), axis=0)
        rows[:, 0] = tokens
        return rows

    def _stretch(self, prompt: Prompt, tokens: Sequence[int], voice: bool) -> Ints:
        rows = self._silent_text([self._lm.padding] * len(self._voice) if voice else tokens)
        if voice:
            rows[:, self._own] = self._voice
        elif prompt.silence:
            rows[:, self._own] = prompt.silence
        if prompt.caller:
            rows[:, self._heard] = prompt.caller
        return rows

    def _spoken(self, path: str) -> Ints:
        if self._config.prompting != "personaplex":
            raise ValueError(f"{path}: this model takes no voice; only PersonaPlex checkpoints do")
        pcm = wav.load(path, RATE)[: LONGEST_VOICE * RATE]
        return self._model.encode(pcm[: len(pcm) // FRAME * FRAME])[:, : self._lm.own_streams]
