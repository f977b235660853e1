"""The parts of a talk that need no bridge: the playback, the gate, addresses, and what is typed and read."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import noise
from voice_bridge.bridge.device import Device, NoSound
from voice_bridge.bridge.lines import notes
from voice_bridge.bridge.talk import background, typed
from voice_bridge.bridge.talk.address import address, read_token
from voice_bridge.bridge.talk.client import Link
from voice_bridge.bridge.talk.gate import Gate, level
from voice_bridge.bridge.talk.playback import FIRST, LEAST, MOST, STEP, Playback
from voice_bridge.bridge.talk.words import Words
from voice_bridge.codecs.framing import FRAME, RATE

Pcm = NDArray[np.int16]
BLOCK = RATE // 50
SILENCE = np.zeros(FRAME, np.int16)


# -- playback ----------------------------------------------------------------------------------------------------------


def play(playback: Playback, seconds: float, *, late: float = 0.0, silent: bool = False) -> Pcm:
    """A frame every 80 ms, the first after `late`, and what was heard meanwhile."""
    frames = iter(np.split(SILENCE if silent else noise(60), [FRAME * n for n in range(1, 750)]))
    heard = []
    for block in range(round(seconds * 50)):
        if block >= late * 50 and (block - round(late * 50)) % 4 == 0:
            playback.put(SILENCE if silent else next(frames))
        heard.append(playback.take(BLOCK))
    return np.concatenate(heard)


def test_what_comes_in_time_is_heard_once_in_order_and_without_a_gap() -> None:
    playback = Playback(RATE)
    assert np.array_equal(play(playback, 8), noise(60)[: 8 * RATE])
    assert (playback.underruns, playback.position) == (0, 8 * RATE)


def test_an_underrun_is_counted_and_keeps_more_in_hand() -> None:
    playback = Playback(RATE)
    play(playback, 0.8)
    playback.take(BLOCK)  # nothing is there
    assert playback.underruns == 0, "it may be the end"
    playback.put(noise(0.08))
    assert playback.underruns == 1
    assert playback.aim == pytest.approx(FIRST + STEP)
    waited = [bool(playback.take(BLOCK).any()) for _ in range(4)]
    assert waited == [False, False, True, True], "20 ms came late, so 40 more make the 60 that are to be in hand"


def test_underruns_never_keep_more_in_hand_than_is_felt_as_slowness() -> None:
    playback = Playback(RATE)
    for _ in range(50):
        playback.put(noise(0.02))
        for _ in range(3):
            playback.take(BLOCK)
        while playback.held:
            playback.take(BLOCK)
        playback.take(BLOCK)
    assert playback.underruns > 20
    assert playback.aim == MOST


def test_a_stall_that_nothing_could_bridge_teaches_nothing() -> None:
    playback = Playback(RATE)
    play(playback, 0.8)
    for _ in range(100):
        playback.take(BLOCK)
    playback.put(noise(0.08))
    assert (playback.underruns, playback.aim) == (1, FIRST)
    assert playback.take(BLOCK).any()


def test_calm_lowers_what_is_kept_in_hand() -> None:
    playback = Playback(RATE)
    play(playback, 12)
    assert playback.aim == pytest.approx(LEAST)


def test_a_backlog_is_left_out_in_the_agents_pauses_and_only_there() -> None:
    playback = Playback(RATE)
    playback.put(noise(0.5))
    talk = play(playback, 5)
    assert playback.held == pytest.approx(0.5, abs=0.1), "words are never cut"
    assert np.count_nonzero(talk == 0) < len(talk) / 1000
    play(playback, 5, silent=True)
    assert playback.held < 0.2
    assert playback.underruns == 0


def test_a_flush_voids_all_at_once_and_is_no_underrun() -> None:
    playback = Playback(RATE)
    playback.put(noise(0.5))
    playback.take(BLOCK)
    playback.flush()
    assert (playback.held, playback.position) == (0, 0)
    assert not playback.take(BLOCK).any()
    playback.put(noise(0.1))
    assert playback.take(BLOCK).any()
    assert (playback.underruns, playback.position) == (0, BLOCK)


# -- the loudspeaker in the microphone ---------------------------------------------------------------------------------


def syllables(seconds: float, seed: int = 1) -> Pcm:
    """Sound that swells and falls as speech does: syllables, and a pause after every few."""
    time = np.arange(int(seconds * RATE)) / RATE
    loud = np.abs(np.sin(np.pi * (2.7 + 0.4 * seed) * time)) * (np.sin(np.pi * time / 1.3) > -0.6)
    return (noise(seconds, seed=seed) * loud).astype(np.int16)


def through_the_gate(agent: Pcm, caller: Pcm, echo: float) -> Pcm:
    """What goes to the bridge: the microphone hears the loudspeaker 60 ms later and `echo` times as loud."""
    gate, late = Gate(0.02), 3 * BLOCK
    room = np.concatenate((np.zeros(late), agent * echo))[: len(agent)]
    microphone = (room + caller).clip(-32768, 32767).astype(np.int16)
    blocks = range(0, len(agent), BLOCK)
    return np.concatenate([gate.hear(microphone[at : at + BLOCK], agent[at : at + BLOCK]) for at in blocks])


@pytest.mark.parametrize("echo", [0.02, 0.2, 0.8])
def test_over_a_loudspeaker_the_agent_does_not_hear_itself(echo: float) -> None:
    words = syllables(30)
    assert not through_the_gate(words, np.zeros_like(words), echo).any()


def test_over_a_loudspeaker_a_caller_is_heard_while_the_agent_is_silent() -> None:
    caller = noise(2)
    assert np.array_equal(through_the_gate(np.zeros_like(caller), caller, 0.2), caller)


def test_over_a_loudspeaker_who_speaks_up_interrupts_the_agent() -> None:
    agent, caller = syllables(8, seed=1), syllables(8, seed=2)
    caller[: 5 * RATE] = 0
    heard = through_the_gate(agent, caller, 0.1)
    assert not heard[: 5 * RATE].any()
    assert np.count_nonzero(heard[5 * RATE : 6 * RATE]) > RATE / 2


def test_levels_are_of_full_scale() -> None:
    assert level(np.full(100, 32767, np.int16)) == pytest.approx(1, abs=0.001)
    assert level(np.zeros(100, np.int16)) == 0


# -- devices -----------------------------------------------------------------------------------------------------------


class Strict:
    """Hardware that knows one rate."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, *rates: int) -> None:
        self._rates = rates

    def RawStream(self, **options: object) -> MagicMock:
        if options["samplerate"] not in self._rates:
            raise self.PortAudioError("Invalid sample rate")
        return MagicMock(options=options)


def test_hardware_that_knows_another_rate_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Strict(48000))  # type: ignore[arg-type]
    assert Device(lambda said: said, (24000, 48000)).rate == 48000
    monkeypatch.setitem(sys.modules, "sounddevice", Strict())  # type: ignore[arg-type]
    with pytest.raises(NoSound, match=r"no microphone and loudspeaker to be had: Invalid sample rate"):
        Device(lambda said: said, (24000, 48000))


# -- where to, and with what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8080", "ws://127.0.0.1:8080/v1/stream"),
        ("bridge.example.com", "ws://bridge.example.com/v1/stream"),
        ("https://bridge.example.com/", "wss://bridge.example.com/v1/stream"),
        ("http://[::1]:8080", "ws://[::1]:8080/v1/stream"),
        ("wss://example.com/there/v1/stream", "wss://example.com/there/v1/stream"),
    ],
)
def test_a_bridge_is_named_by_a_url_or_by_host_and_port(given: str, url: str) -> None:
    assert address(given).url == url


@pytest.mark.parametrize("given", ["", "ftp://x", "localhost:x", "http://", "ws://user:pass@host", "a b:80", "x:99999"])
def test_what_is_no_address_is_told_with_one_that_is(given: str) -> None:
    with pytest.raises(ValueError, match=r"is no address of a bridge; one looks like 127\.0\.0\.1:8080"):
        address(given)


def test_a_token_is_kept_out_of_sight_and_off_open_networks_unasked() -> None:
    assert "secret" not in repr(address("example.com", "secret"))
    assert address("example.com", "secret").shows_token
    assert not address("https://example.com", "secret").shows_token
    assert not address("127.0.0.1:80", "secret").shows_token


def test_a_token_comes_from_a_file_without_the_end_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc.def\n")
    assert read_token(tmp_path / "token") == "abc.def"
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="is empty; make a token with: voice-bridge token >"):
        read_token(tmp_path / "empty")
    with pytest.raises(ValueError, match="as `voice-bridge token` prints it"):
        address("127.0.0.1", "two\nlines")


# -- what is typed and read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("Good day. ", typed.Say("Good day.")),
        ("//etc is a folder", typed.Say("/etc is a folder")),
        ("/inject It rains.", typed.Inject("It rains.")),
        ("/press 12#", typed.Press("12#")),
        ("/mute", typed.Mute()),
        ("/speaker", typed.Speaker()),
        ("/quit", typed.Quit()),
        ("   ", None),
    ],
)
def test_a_line_is_said_and_one_with_a_slash_is_done(line: str, command: typed.Command | None) -> None:
    assert typed.parse(line) == command


@pytest.mark.parametrize("line", ["/", "/inject", "/press x", "/press", "/mute now", "/help"])
def test_what_is_no_command_is_not_said_but_answered_with_those_there_are(line: str) -> None:
    with pytest.raises(ValueError, match="/inject TEXT lets it know"):
        typed.parse(line)


def test_a_line_that_no_bridge_would_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at most 4000"):
        typed.parse("x" * 4001)


def test_an_utterance_grows_until_it_is_final_and_the_next_may_have_its_number() -> None:
    words = Words()
    for text, final in (("Good", False), ("Good day", False), ("Good day.", True), ("And", False)):
        words.of(notes.Transcript(text, "caller", 1, final))
    words.of(notes.Transcript("Hello.", "agent", 1, final=True))
    assert [(each.speaker, each.text) for each in words.utterances] == [
        ("caller", "Good day."),
        ("caller", "And"),
        ("agent", "Hello."),
    ]


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    words = Words()
    words.of(notes.Transcript("\x1b[31mred\x07\n\u202eback", "agent", 1, final=True))
    words.of(notes.Trouble("\x1b]0;title\x07", "message"))
    assert all(each.text.isprintable() for each in words.utterances)


def test_what_happens_is_a_line_and_what_meters_show_is_none() -> None:
    words = Words()
    assert words.of(Link("broken")) is not None
    assert words.of(notes.Memory(("the caller's name is Ann",))) is not None
    assert words.of(notes.Status("talking")) is None
    assert words.of(notes.Transcript("", "agent", 7, final=True)) is None


def test_a_terminals_answer_tells_light_from_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert background.brightness(b"\x1b]11;rgb:ffff/ffff/f0f0\x1b\\\x1b[?62;c") == pytest.approx(0.99, abs=0.02)
    assert background.brightness(b"\x1b]11;rgb:1e/1e/2e\x07") == pytest.approx(0.12, abs=0.02)
    assert background.brightness(b"\x1b[?62;c") is None
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert background.is_light(), "no terminal answers here"
