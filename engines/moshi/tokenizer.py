"""Text to tokens and back: a checkpoint's sentencepiece model, held to what a voice can say."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import sentencepiece

from .config import ModelError

SPACE = "\u2581"  # how sentencepiece writes the space before a word
# What is written in place of a character that the model has never seen, if it has seen that.
STAND_INS = {
    **dict.fromkeys("\u2018\u2019\u201b\u2032`\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    ";": ",",
    ":": ",",
    "!": ".",
    "?": ".",
}


class Word(NamedTuple):
    text: str
    tokens: tuple[int, ...]


class Tokenizer:
    """`model` is the content of a sentencepiece file."""

    def __init__(self, model: bytes) -> None:
        self._pieces = pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._spelling = [_spelling(pieces, token) for token in range(pieces.get_piece_size())]
        names = map(pieces.id_to_piece, range(len(self._spelling)))
        self._known = {name for name in names if len(name) == 1 and name != SPACE}  # characters that are pieces

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            model = path.read_bytes()
            if not model:
                raise RuntimeError("the file is empty")  # which sentencepiece would take for a model
            return cls(model)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}; fetch the checkpoint again") from error
        except RuntimeError as error:
            raise ModelError(f"{path} is no sentencepiece model: fetch the checkpoint again") from error

    def spell(self, token: int) -> bytes:
        """What a token adds to the text, in UTF-8: parts of a character for some, nothing for special ones."""
        return self._spelling[token] if 0 <= token < len(self._spelling) else b""

    def decode(self, tokens: Iterable[int]) -> str:
        return b"".join(map(self.spell, tokens)).decode(errors="ignore").strip()

    def encode(self, text: str) -> list[int]:
        """All of `text` for reading; what the model cannot even spell is left out."""
        return [token for token in self._pieces.encode(tidy(text)) if self.spell(token)]

    def words(self, text: str) -> list[Word]:
        """`text` as the model can say it, word by word; raises ValueError if nothing is left of it.

        A character without a piece of its own is replaced by its nearest relative, or left out: spelt in bytes
        it would be read out as noise.
        """
        clean = tidy(unicodedata.normalize("NFKC", text))
        said = "".join(map(self._nearest, clean)).split()
        words = [word for word in map(self._word, said) if word.text]
        if not words:
            raise ValueError("nothing in this can be said by this model: give it words of its language")
        return words

    def _word(self, word: str) -> Word:
        tokens = tuple(self.encode(word))
        return Word(self.decode(tokens), tokens)

    def _nearest(self, char: str) -> str:
        """The character itself, its stand-in, it without accents, its small letter; or nothing."""
        if char == " " or char in self._known:
            return char
        bare = unicodedata.normalize("NFD", char)
        for other in (STAND_INS.get(char, ""), bare, bare.casefold()):
            kept = "".join(c for c in other if c in self._known)
            if kept:
                return kept
        return ""


def tidy(text: str) -> str:
    """Single spaces, nothing invisible."""
    spaced = " ".join(text.replace(SPACE, " ").split())
    return " ".join("".join(c for c in spaced if unicodedata.category(c)[0] != "C").split())


def _spelling(pieces: sentencepiece.SentencePieceProcessor, token: int) -> bytes:
    if pieces.is_control(token) or pieces.is_unknown(token) or pieces.is_unused(token):
        return b""
    piece: str = pieces.id_to_piece(token)
    if pieces.is_byte(token):
        return bytes((int(piece[1:-1], 16),))  # "<0xE6>"
    return piece.replace(SPACE, " ").encode()
