"""What memory does in one call: what it begins with, who listens to it, what its model is reminded of."""

from __future__ import annotations

import re

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..engines import base as engines
from ..engines.base import OPENING, Conversation, Opening
from .config import Calls
from .memory.client import Attention, Mind, Told
from .memory.wire import Remind
from .observe.logs import Logger

NAME = re.compile(r"[^\W\d_][\w .'-]{0,39}")  # that a caller may be greeted by: letters, and not a speech
WAYS = {"silent": "remembered", "add_to_input": "add_to_input"}  # how a conversation is asked to inject


class Reminders:
    """Between the mind and the conversation of one call. Without a mind it does nothing."""

    def __init__(self, mind: Mind | None, settings: Calls, call: str, caller: str, rate: int, log: Logger) -> None:
        """`caller` is the number that the mind knows the caller by; empty for somebody who withholds it."""
        self.given = 0
        """Memories that the model was given, those of the beginning among them."""
        self._settings = settings
        self._log = log
        self._mind = mind
        self._conversation: Conversation | None = None
        self._early: list[Told] = []  # before there was a conversation
        self._attention: Attention | None = None
        if mind and settings.remember and caller:
            self._attention = mind.attend(call, caller, rate, self._told)

    async def begin(self, opening: Opening) -> Opening:
        """The opening, with what is known of the caller."""
        if not self._attention:
            return opening
        known = await self._attention.known()
        if known.memories:
            self._attention.begins_with(known)
        greeting = opening.greeting
        if NAME.fullmatch(known.name) and self._settings.greeting_known:
            greeting = self._settings.greeting_known.replace("{name}", known.name)
        return msgspec.structs.replace(opening, greeting=greeting, known=known.context)

    def attach(self, conversation: Conversation) -> None:
        """From here on the model can be reminded."""
        self._conversation = conversation
        for told in self._early:
            self._told(told)

    def hear(self, pcm: NDArray[np.int16], at: int) -> None:
        """One frame of the caller, at the line's rate."""
        if self._attention:
            self._attention.hear(pcm, at)

    def note(self, event: engines.TextEvent) -> tuple[str, ...]:
        """What the engine reports. Gives the facts that the model knows by it, and did not before."""
        if isinstance(event, engines.Words) and event.speaker == "caller":
            self._heard(event)
        attention = self._attention
        if not attention:
            return ()
        match event:
            case engines.Words(speaker="agent", text=text, final=True):
                attention.said(text)
            case engines.Remember(text):
                attention.keep(text)
            case engines.Injected(id):
                return self._took(attention.answered(id, taken=True))
            case engines.Said(id, _) if id != OPENING:  # that is the greeting
                return self._took(attention.answered(id, taken=True))
            case engines.Refused(id):
                attention.answered(id, taken=False)
            case engines.Cut(id) if id != OPENING:
                attention.answered(id, taken=False, again=True)
            case engines.Back():
                attention.anew()
            case _:
                pass
        return ()

    def forget(self) -> None:
        """The caller wants to be forgotten."""
        if self._attention:
            self._attention.forget()
        else:
            self._log.warning("nothing to forget: memory is off, or does not know the caller")

    def close(self) -> None:
        if self._attention:
            self._attention.close()

    def _heard(self, words: engines.Words) -> None:
        """Have the mind think of the caller's words. The engine waits for what comes of final ones: not in vain."""
        assert self._conversation
        awaited = self._attention and self._attention.heard(words)
        if words.final and not awaited:
            self._conversation.inject("", turn=words.id)

    def _told(self, told: Told) -> None:
        if self._conversation is None:
            self._early.append(told)
        elif isinstance(told, Remind):
            self._remind(self._conversation, told)
        else:
            self._log.info("the caller was forgotten", memories=told.memories)
            self._conversation.forget()
            self._conversation.say(self._settings.forgotten)

    def _remind(self, conversation: Conversation, remind: Remind) -> None:
        assert self._attention
        assert self._mind
        how = self._mind.injection
        if not remind.memories:
            conversation.inject("", turn=remind.turn)
            return
        if how == "spoken":
            id = conversation.say(remind.text)
        else:
            id = conversation.inject(remind.text, how=WAYS[how], turn=remind.turn)
        self._attention.asked(id, remind)

    def _took(self, remind: Remind | None) -> tuple[str, ...]:
        if remind is None or not remind.memories:
            return ()
        self.given += len(remind.memories)
        self._log.info("the model was reminded", memories=len(remind.memories))
        return remind.facts or (remind.text,)  # what a call begins with is one text
