"""What people type while they talk: words for the agent to say, and commands that begin with a slash."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ..lines.texts import MAX_WORDS

HELP = "a line is said by the agent; /inject TEXT lets it know something; /press KEYS, /mute, /speaker, /quit"
KEYS = "0123456789*#ABCD"


class Say(NamedTuple):
    text: str


class Inject(NamedTuple):
    context: str


class Press(NamedTuple):
    digits: str


class Mute(NamedTuple):
    pass


class Speaker(NamedTuple):
    pass


class Quit(NamedTuple):
    pass


Command: TypeAlias = Say | Inject | Press | Mute | Speaker | Quit


def parse(line: str) -> Command | None:
    """What a line asks for; nothing for an empty one. Raises ValueError, with what there is, for what is no command."""
    text = line.strip()
    if not text:
        return None
    if len(text) > MAX_WORDS:
        raise ValueError(f"{len(text)} characters; at most {MAX_WORDS} are taken at once")
    if not text.startswith("/") or text.startswith("//"):
        return Say(text.removeprefix("/"))
    verb, _, rest = text[1:].partition(" ")
    match verb, rest.strip():
        case "inject", context if context:
            return Inject(context)
        case "press", digits if digits and set(digits) <= set(KEYS):
            return Press(digits)
        case "mute", "":
            return Mute()
        case "speaker", "":
            return Speaker()
        case "quit", "":
            return Quit()
        case _:
            raise ValueError(HELP)
