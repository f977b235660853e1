"""WAV files: every usual kind is read, and a recording survives crashes and full disks."""

import os
import resource
import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voice_bridge.codecs import g711, wav

RAMP = np.array([0, 0.25, -0.25, 0.5, -0.5, -1], np.float32)  # exact in every width


def riff(kind: int, bits: int, raw: bytes, *, channels: int = 1, rate: int = 8000, extra: bytes = b"") -> bytes:
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits) + extra
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + struct.pack("<4sI", b"data", len(raw)) + raw
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def integers(bits: int) -> bytes:
    values = [int(x * 2 ** (bits - 1)) for x in RAMP.tolist()]
    if bits == 8:
        return bytes(value + 128 for value in values)
    return b"".join(value.to_bytes(bits // 8, "little", signed=True) for value in values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "greeting.wav"


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pcm_of_each_width_is_read(path: Path, bits: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, bits // 8, 8000, 0, "NONE", ""))
        file.writeframes(integers(bits))
    sound, rate = wav.read(path)
    assert rate == 8000
    assert sound.dtype == np.float32
    assert np.array_equal(sound, RAMP)


def test_float_is_read_and_what_is_no_number_is_silence(path: Path) -> None:
    path.write_bytes(riff(3, 32, np.array([0.5, np.nan, 7, -np.inf], "<f4").tobytes()))
    assert wav.read(path)[0].tolist() == [0.5, 0, 1, -1]


def test_mu_law_is_read(path: Path) -> None:
    codes = bytes(range(256))
    path.write_bytes(riff(7, 8, codes, extra=b"\0\0"))
    assert np.array_equal(wav.read(path)[0] * 32768, g711.decode(codes))


def test_the_extensible_header_is_read(path: Path) -> None:
    guid = b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    path.write_bytes(riff(0xFFFE, 24, integers(24), extra=struct.pack("<HHI", 22, 24, 4) + guid))
    assert np.array_equal(wav.read(path)[0], RAMP)


def test_channels_are_mixed_into_one(path: Path) -> None:
    path.write_bytes(riff(1, 16, np.array([[16384, 0], [-16384, 16384]], "<i2").tobytes(), channels=2))
    assert wav.read(path)[0].tolist() == [0.25, 0]


def test_other_chunks_are_passed_over(path: Path) -> None:
    whole = riff(1, 16, integers(16))
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    second = b"data" + struct.pack("<I", 2) + b"\1\1"
    path.write_bytes(whole[:12] + odd + whole[12:] + odd + second)
    assert np.array_equal(wav.read(path)[0], RAMP)


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_stream_of_unknown_length_or_cut_short_gives_what_there_is(path: Path, size: int) -> None:
    whole = bytearray(riff(1, 16, integers(16)))
    struct.pack_into("<I", whole, 40, size)
    path.write_bytes(whole[:-1])
    assert np.array_equal(wav.read(path)[0], RAMP[:-1])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "something else, not a WAV"),
        (b"ID3\x04" + bytes(100), "MP3, not a WAV"),
        (b"OggS" + bytes(100), "Ogg, not a WAV"),
        (b"RIFF\x04\0\0\0AVI ", "something else, not a WAV"),
        (b"RIFF\x04\0\0\0WAVE", "ends before its sound begins"),
        (riff(1, 16, b"")[:36], "ends before its sound begins"),
        (riff(6, 8, b"\x55"), "8-bit A-law"),
        (riff(0x55, 0, b""), "0-bit MP3"),
        (riff(99, 16, b""), "16-bit sound of kind 99"),
        (riff(1, 12, b""), "12-bit sound of kind 1"),
        (riff(1, 16, b"", channels=0), "0 channels"),
        (riff(1, 16, b"", rate=0), "0 Hz"),
        (riff(1, 16, b"", rate=0xFFFF_FFF), "268435455 Hz"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_remedy(path: Path, data: bytes, why: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=why) as error:
        wav.read(path)
    assert str(error.value).startswith(str(path))
    assert "ffmpeg -i" in str(error.value)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.binary(min_size=1, max_size=6))
def test_no_damage_to_a_header_raises_anything_but_value_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    whole = riff(1, 16, integers(16))
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    try:
        sound, _ = wav.read(path)
    except ValueError as error:
        sound, said = np.zeros(0, np.float32), str(error)
    else:
        said = str(path)
    assert said.startswith(str(path))
    assert np.abs(sound).max(initial=0) <= 1


def test_a_missing_file_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        wav.read(path)


def test_load_brings_a_file_to_the_rate_asked_for(path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100) / 2
    path.write_bytes(riff(1, 16, (tone * 32768).astype("<i2").tobytes(), rate=44_100))
    sound = wav.load(path, 24_000)
    assert len(sound) == 24_000
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000) / 2
    assert np.abs(sound - expected)[1000:-1000].max() < 0.001


def frames(n: int, channels: int = 2) -> NDArray[np.int16]:
    return (np.arange(n * channels) % 30_000 - 15_000).astype(np.int16).reshape(n, channels)


def stored(path: Path) -> tuple[int, int, bytes]:
    with wave.open(str(path), "rb") as file:
        return file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_what_another_reader_reads(path: Path, channels: int) -> None:
    pcm = frames(1000, channels)
    with wav.Writer(path, 8000, channels) as writer:
        writer.write(pcm[:300])
        writer.write(pcm[300:300])
        writer.write(pcm[300:, 0] if channels == 1 else pcm[300:])
    assert stored(path) == (channels, 8000, pcm.tobytes())


def test_a_recording_plays_up_to_the_last_flush_when_the_process_dies(path: Path) -> None:
    writer = wav.Writer(path, 8000, 2)
    assert stored(path) == (2, 8000, b"")
    writer.write(frames(100))
    writer.flush()
    writer.write(frames(50))
    left = path.read_bytes()  # what a killed process leaves: nothing of ours waits in a buffer
    writer.close()
    path.write_bytes(left)
    assert stored(path) == (2, 8000, frames(100).tobytes())
    assert len(left) == 44 + 150 * 4


def test_closing_twice_is_harmless(path: Path) -> None:
    writer = wav.Writer(path, 8000, 1)
    writer.close()
    writer.close()


@pytest.mark.parametrize("shape", [(10,), (10, 1), (10, 3)])
def test_frames_of_another_shape_are_refused(path: Path, shape: tuple[int, ...]) -> None:
    with wav.Writer(path, 8000, 2) as writer, pytest.raises(ValueError, match="2 channels"):
        writer.write(np.zeros(shape, np.int16))


def test_float_sound_is_refused_rather_than_written_as_silence(path: Path) -> None:
    with wav.Writer(path, 8000, 1) as writer, pytest.raises(TypeError):
        writer.write(np.zeros(10, np.float32))  # type: ignore[arg-type]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_os_error_once_and_leaves_a_good_file(path: Path) -> None:
    with full_disk(44 + 1001):  # in the middle of a frame
        writer = wav.Writer(path, 8000, 2)
        writer.write(frames(200))
        with pytest.raises(OSError, match="too large"):
            writer.write(frames(100))
        writer.close()
    assert stored(path) == (2, 8000, frames(200).tobytes())


def test_a_disk_that_has_room_again_goes_on_with_whole_frames(path: Path) -> None:
    with wav.Writer(path, 8000, 2) as writer:
        writer.write(frames(200))
        with full_disk(44 + 1001), pytest.raises(OSError, match="too large"):
            writer.write(frames(100))
        writer.write(frames(30))
    assert stored(path) == (2, 8000, frames(200).tobytes() + frames(30).tobytes())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_recording_that_cannot_begin_says_so_at_once() -> None:
    with pytest.raises(OSError, match="No space left"):
        wav.Writer("/dev/full", 8000, 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
@pytest.mark.parametrize("at_last", [True, False])
def test_a_disk_that_stays_full_is_told_once_at_the_latest_by_close(path: Path, at_last: bool) -> None:
    writer = wav.Writer(path, 8000, 1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        writer.close() if at_last else writer.write(frames(1, 1))
    writer.close()
