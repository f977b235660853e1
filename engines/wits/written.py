"""What a language model writes, and what of it is said aloud: bytes to text, text to replies. No I/O.

An answer can do two things beside talking, by a mark that is never said: keep a sentence, and end the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ..base import HangUp, Remember
from .base import Reply

ENOUGH = 500  # characters: half a minute of talk, and the sentence under way
LONGEST = 900  # characters: a minute of talk, which no sentence needs
LONGEST_READ = 20_000  # characters, thoughts included: thousands of tokens, which nobody on the telephone waits for
LONGEST_EVENT = 2**18  # bytes: one event takes a few hundred, an answer in one piece a few thousand
LONGEST_NOTE = 300  # characters: two long sentences
NOTES = 3  # of one answer: nobody asks for more in one breath

LOST = " — I am sorry, I lost my thread."
KEEPS = "All right."
GOODBYE = "Goodbye."

# What a model may put around a mark.
_BEFORE, _AFTER = r"[ \t*_#>`\[(\"'•-]{0,8}", r"[*_`\"')\]]{0,8}"
_HANG_UP = r"HANG[ _-]?UP(?![A-Za-z])"
_STOP = r"[*_`\"')\].!:]{0,8}"
MARK = re.compile(
    r"(?P<thought><think(?:ing)?>)"
    rf"|(?P<note>\n{_BEFORE}(?i:remember){_AFTER}:{_AFTER}|\n{_BEFORE}REMEMBER(?![A-Za-z]){_AFTER}"
    rf"|{_BEFORE}(?<![A-Z])REMEMBER{_AFTER}:{_AFTER})"
    rf"|(?P<end>\n{_BEFORE}(?i:hang[_-]?up)(?![A-Za-z]){_STOP}|{_BEFORE}(?<![A-Z]){_HANG_UP}{_STOP})"
)
THOUGHT_ENDS = re.compile(r"</think(?:ing)?>")
NOTE_ENDS = re.compile(rf"\n|<think|(?<![A-Z])(?:{_HANG_UP}|REMEMBER\W{{0,3}}:)")
# The end of a text that may become a mark: a word, with what stands before it.
TAIL = re.compile(r"(?:\n[ \t]{0,8})?(?:[*_#>`\[(\"'•-]{1,8}[ \t]?)?(?:HANG )?[!-~]{0,40}\Z")
SENTENCE_ENDS = re.compile(r"[.!?…][\"')\]”]*(?=\s|\Z)")
ENDED = re.compile(r"[.!?…][\"')\]”]*\s*\Z")


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None


class NoAnswer(Exception):
    """The endpoint did not answer as it should; the message never holds a caller's words."""


class Events:
    """What a model writes, out of the bytes of an answer, which may be cut anywhere. No I/O.

    Understands server-sent events, and the one JSON object of servers that do not stream.
    """

    def __init__(self) -> None:
        self.over = False
        """Whether nothing more comes."""
        self._held = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Take what was read, empty at the end of the answer; raises NoAnswer."""
        self._held += chunk
        if len(self._held) > LONGEST_EVENT:
            raise NoAnswer(f"answered with more than {LONGEST_EVENT} bytes at once")
        if self._held.lstrip().startswith(b"{"):  # no event begins so
            lines = [] if chunk else [b"data:" + self._held]
        else:
            *lines, self._held = re.split(rb"[\r\n]", self._held)
            lines += [] if chunk else [self._held]
        texts = []
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"data" and value.strip() and not self.over:
                texts.append(self._read(value.strip()))
        self.over = self.over or not chunk
        return [text for text in texts if text]

    def _read(self, data: bytes) -> str:
        if data == b"[DONE]":
            self.over = True
            return ""
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except (ValueError, RecursionError):
            raise NoAnswer("did not answer as a /chat/completions endpoint does") from None
        if chunk.error:
            raise NoAnswer("answered with an error")
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.over = self.over or bool(choice.finish_reason)
        text = choice.delta or choice.message
        return text.content or "" if text else ""


class Spoken:
    """What is said aloud of what a model writes, which may come cut anywhere. No I/O.

    Thoughts and marks are never said. What is to be kept comes when its line is complete, the end of the call last.
    """

    def __init__(self, acts: bool = True) -> None:
        """Unless it `acts`, marks do nothing."""
        self.said = ""
        self.notes: list[str] = []
        self.read = 0
        """Characters that the model has written."""
        self._acts = acts
        self._hangs_up = False
        self._full = False
        self._inside = ""
        self._held = "\n"  # an answer begins as a line does

    @property
    def empty(self) -> bool:
        return not (self.said or self.notes or self._hangs_up)

    def feed(self, text: str, *, last: bool = False) -> Iterator[Reply]:
        """Take what the model wrote; `last` when it has written all."""
        self.read += len(text)
        self._held += text
        while True:
            if self._inside == "thought":
                found = THOUGHT_ENDS.search(self._held)
                if not found:
                    self._held = self._held[-len("</thinking>") :]
                    return
                self._held = "\n" + self._held[found.end() :]
                self._inside = ""
            elif self._inside == "note":
                self._held = self._held.lstrip()
                found = NOTE_ENDS.search(self._held)
                if not (found or last):
                    return
                until = found.start() if found else len(self._held)
                yield from self._keep(self._held[:until])
                self._held = self._held[until:]
                self._inside = ""
            else:
                until = len(self._held) if last else len(TAIL.sub("", self._held, count=1))
                found = MARK.search(self._held, 0, until)
                yield from self._say(self._held[: found.start() if found else until])
                self._held = self._held[found.end() if found else until :]
                if not found:
                    return
                self._inside = found.lastgroup or ""
                self._hangs_up |= self._acts and self._inside == "end"

    def end(self, whole: bool, fallback: str) -> Iterator[Reply]:
        """What is said behind it; `fallback` if there was nothing. Unless it is `whole`, it was broken off."""
        if self._hangs_up:
            if not self.said:
                yield GOODBYE
            yield HangUp("goodbye")
        elif self.said:
            if not (whole or ENDED.search(self.said)):
                yield LOST
        else:
            yield KEEPS if self.notes else fallback

    def _say(self, text: str) -> Iterator[str]:
        if not self.said:
            text = text.lstrip()
        if self._full or not text:
            return
        length = len(self.said) + len(text)
        if length > ENOUGH and (stop := SENTENCE_ENDS.search(text, max(0, ENOUGH - len(self.said)))):
            self._full = True
            text = text[: stop.end()]
        elif length > LONGEST:
            self._full = True
            text = text[: LONGEST - len(self.said)]
        self.said += text
        yield text

    def _keep(self, text: str) -> Iterator[Remember]:
        note = " ".join(text.split()).strip(" :<>*_`\"'[]()")[:LONGEST_NOTE]
        if note and self._acts and len(self.notes) < NOTES:
            self.notes.append(note)
            yield Remember(note)
