"""`voice-bridge infer`, on the test line and on a tiny Moshi."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from voice_bridge.bridge.cli import app
from voice_bridge.codecs import g711, wav
from voice_bridge.codecs.resample import Up
from voice_bridge.engines import offline
from voice_bridge.engines.base import FRAME, RATE
from voice_bridge.engines.moshi.script import Script
from voice_bridge.engines.moshi.tokenizer import Tokenizer

ORACLE = Path(__file__).parent / "data" / "oracle"
PADDING, END_OF_PADDING = 3, 0
TAIL = 1.0  # seconds behind a recording, in most of these tests
FRAMES = 25 + 13  # of two seconds, and of that tail


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from whoever runs the tests."""
    for name in os.environ:
        if name.startswith("VOICE_BRIDGE_"):
            monkeypatch.delenv(name)


Run = Callable[..., Result]


@pytest.fixture
def infer(tmp_path: Path) -> Run:
    """Run the verb on exact weights; `setting` is a line of [voice]."""

    def run(*words: str | Path, setting: str = "") -> Result:
        config = tmp_path / "config.toml"
        config.write_text(f'[voice]\n{setting}\n[voice.moshi]\nweights = "float32"\nkeys = "float32"\nthreads = 1\n')
        return CliRunner().invoke(app, ["infer", *map(str, words), "--config", str(config)])

    return run


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """Two seconds of noise at the model's rate."""
    return write(tmp_path / "question.wav", noise(2.0), RATE)


def noise(seconds: float, rate: int = RATE) -> NDArray[np.int16]:
    return (np.random.default_rng(5).standard_normal(int(seconds * rate)) * 3000).astype(np.int16)


def write(path: Path, sound: NDArray[np.int16], rate: int) -> Path:
    with wav.Writer(path, rate, 1) as file:
        file.write(sound)
    return path


def moshi(name: str = "moshi") -> tuple[str, str, str, str]:
    return ("--model", str(ORACLE / name), "--tail", str(TAIL))


def steps(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> list[int]:
    return [step["text"] for step in steps(path)]


def one_line(result: Result) -> str:
    """What a run that failed has said last, and that it is not a traceback."""
    assert result.exit_code != 0, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    *told, last = result.stderr.splitlines()
    assert all(line.startswith(("echo: ", "moshi: ")) for line in told), result.stderr
    assert last.startswith("voice-bridge: ")
    return last


# What is heard


def test_the_test_line_gives_back_what_it_hears(infer: Run, question: Path, tmp_path: Path) -> None:
    result = infer(question, tmp_path / "answer.wav", "--engine", "echo", "--tail", TAIL)
    assert result.exit_code == 0, result.output
    heard, rate = wav.read(tmp_path / "answer.wav")
    said, _ = wav.read(question)
    assert rate == RATE
    assert len(heard) == FRAMES * FRAME
    np.testing.assert_array_equal(heard[: len(said)], said)
    assert not heard[len(said) :].any()


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_a_recording_of_any_rate_keeps_its_pitch_its_strength_and_its_length(rate: int, tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 500 * np.arange(2 * rate) / rate) * 16_000
    heard = offline.frames(write(tmp_path / "tone.wav", tone.astype(np.int16), rate), 0.0).ravel()
    assert len(heard) == 2 * RATE
    middle = heard[RATE // 2 : -RATE // 2]  # a second
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() == 500
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(16_000 / 32_768 / np.sqrt(2), rel=0.01)


def test_a_recording_of_a_telephone_line_is_heard_as_its_call_was(tmp_path: Path) -> None:
    ulaw = g711.encode(noise(1.0, 8000))
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 7, 1, 8000, 8000, 1, 8, b"data", 8000)
    (tmp_path / "line.wav").write_bytes(header + ulaw)
    up = Up()
    call = [up.push(g711.decode(ulaw[start : start + 160])) for start in range(0, 8000, 160)]  # 20 ms at a time
    heard = offline.frames(tmp_path / "line.wav", TAIL)
    assert heard.shape == (13 + 13, FRAME)
    np.testing.assert_array_equal(heard.ravel()[:RATE], np.concatenate(call))


def test_a_recording_is_heard_no_longer_than_the_setting_allows(infer: Run, question: Path) -> None:
    result = infer(question, "--engine", "echo", "--json", setting="max_steps = 7")
    assert json.loads(result.stdout)["frames"] == 7


# What Moshi makes of it


def test_the_same_seed_gives_the_same_tokens_and_sound(infer: Run, question: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        files = (question, tmp_path / f"{name}.wav", "--tokens", tmp_path / name, "--seed", seed)
        assert infer(*files, *moshi()).exit_code == 0
    assert len(steps(tmp_path / "a")) == FRAMES
    assert steps(tmp_path / "a") == steps(tmp_path / "b") != steps(tmp_path / "c")
    sounds = [(tmp_path / f"{name}.wav").read_bytes() for name in "abc"]
    assert sounds[0] == sounds[1] != sounds[2]
    assert wav.read(tmp_path / "a.wav")[0].any()


def test_greedy_needs_no_seed_and_a_file_of_tokens_is_written_anew(infer: Run, question: Path, tmp_path: Path) -> None:
    infer(question, "--greedy", "--tokens", tmp_path / "tokens", *moshi())
    first = steps(tmp_path / "tokens")
    infer(question, "--greedy", "--tokens", tmp_path / "tokens", *moshi())
    assert steps(tmp_path / "tokens") == first
    assert [(step["frame"], len(step["complete"])) for step in first] == [(n, 9) for n in range(FRAMES)]


def test_on_mlx_the_tokens_are_those_of_torch(
    infer: Run, question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx")
    for device in ("cpu", "mlx"):
        monkeypatch.setenv("VOICE_BRIDGE_VOICE__MOSHI__DEVICE", device)
        words = ("--greedy", "--say", "Hello.", "--inject", "@1 It rains.", "--persona", "kind", *moshi("quantizable"))
        assert infer(question, "--tokens", tmp_path / device, *words).exit_code == 0
    assert len(steps(tmp_path / "mlx")) == FRAMES
    assert steps(tmp_path / "mlx") == steps(tmp_path / "cpu")


def test_what_it_shall_say_is_in_its_text_token_by_token(infer: Run, question: Path, tmp_path: Path) -> None:
    infer(question, "--say", "Hello, my friend.", "--tokens", tmp_path / "tokens", "--seed", 1, *moshi())
    script = Script(Tokenizer.load(ORACLE / "moshi" / "tokenizer.model"), PADDING, END_OF_PADDING)
    script.say(1, "Hello, my friend.")
    asked = []
    while (token := script.next()) is not None:
        asked.append(token)
        script.took(token, 0, 0)
    assert len(asked) > 10
    assert texts(tmp_path / "tokens")[: len(asked)] == asked


def test_a_say_and_a_context_take_effect_at_their_time(infer: Run, question: Path, tmp_path: Path) -> None:
    told = {"plain": (), "say": ("--say", "@1 Hello."), "inject": ("--inject", "@1 goodbye")}
    for name, words in told.items():
        assert infer(question, *words, "--tokens", tmp_path / name, "--greedy", *moshi()).exit_code == 0
    plain, say, inject = (steps(tmp_path / name) for name in told)
    begins = 13  # the first frame that begins after a second
    assert say[:begins] == plain[:begins]
    assert say[begins:] != plain[begins:]
    assert inject[: begins + 1] == plain[: begins + 1]  # it is read behind its frame
    assert inject[begins + 1 :] != plain[begins + 1 :]


def test_a_persona_is_read_before_the_first_frame(infer: Run, question: Path, tmp_path: Path) -> None:
    for name, words in {"plain": (), "persona": ("--persona", "hello")}.items():
        infer(question, *words, "--tokens", tmp_path / name, "--greedy", *moshi())
    plain, persona = (steps(tmp_path / name) for name in ("plain", "persona"))
    assert len(plain) == len(persona) == FRAMES
    assert plain[:3] != persona[:3]


# What is told


def test_what_was_said_is_told_with_its_times(infer: Run, question: Path, tmp_path: Path) -> None:
    words = (question, "--say", "Hello there.", "--seed", 1, *moshi())
    shown = infer(*words)
    assert shown.stdout.startswith("00:00.")
    assert "agent: hello there" in shown.stdout.lower()
    assert "times real time" in shown.stderr.splitlines()[-1]
    infer(*words, "--text", tmp_path / "talk.txt")
    assert (tmp_path / "talk.txt").read_text() == shown.stdout
    infer(*words, "--text", tmp_path / "talk.srt")
    number, times, text = (tmp_path / "talk.srt").read_text().splitlines()[:3]
    assert (number, times[:10], times[12:17]) == ("1", "00:00:00,1", " --> ")
    assert text.lower() == "hello there"


def test_the_report_is_also_json(infer: Run, question: Path) -> None:
    result = infer(question, "--say", "Hello there.", "--seed", 1, "--json", *moshi())
    report = json.loads(result.stdout)
    assert (report["engine"], report["seed"], report["frames"], report["sound"]) == ("moshi", 1, FRAMES, 3.04)
    assert report["times_real_time"] > 0
    first = report["words"][0]
    assert (first["speaker"], first["text"].lower(), first["forced"]) == ("agent", "hello there", True)
    assert 0 < first["start"] < first["end"] <= report["sound"]


def test_a_model_that_only_writes_what_it_hears_runs_too(infer: Run, question: Path, tmp_path: Path) -> None:
    assert infer(question, "--tokens", tmp_path / "tokens", "--greedy", *moshi("stt")).exit_code == 0
    assert [len(step["complete"]) for step in steps(tmp_path / "tokens")] == [1] * FRAMES


# What goes wrong


def test_what_cannot_be_done_is_one_line(infer: Run, question: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("not a recording at all")
    empty = write(tmp_path / "empty.wav", noise(0), RATE)
    nowhere = tmp_path / "nowhere" / "answer.wav"
    echo = ("--engine", "echo")
    assert "ffmpeg" in one_line(infer(text, *echo))
    assert "holds no sound" in one_line(infer(empty, *echo))
    assert str(nowhere) in one_line(infer(question, nowhere, *echo))
    assert "take --engine moshi" in one_line(infer(question, "--tokens", tmp_path / "tokens", *echo))
    assert "no such folder" in one_line(infer(question, "--model", tmp_path / "model"))
    assert "voice.provider" in one_line(infer(question, "--engine", "ecco"))
    assert "has no words" in one_line(infer(question, "--say", " ", *moshi()))
    assert "lies behind the end" in one_line(infer(question, "--say", "@99 hello", *moshi()))
    assert "write a time as in" in one_line(infer(question, "--inject", "@abc hello", *moshi()))
    assert "write the answer to another file" in one_line(infer(question, question, *echo))
    assert "can be said by this model" in one_line(infer(question, "--say", "\u65e5\u672c", *moshi()))
