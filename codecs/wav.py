"""WAV files: sound of the usual kinds read as one channel, and 16-bit recordings that survive a crash."""

import struct
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from . import g711
from .resample import resample

PCM, FLOAT, ULAW, EXTENSIBLE = 1, 3, 7, 0xFFFE  # a WAV's numbers for how its sound is coded
OTHER_KINDS = {2: "ADPCM", 6: "A-law", 0x11: "IMA ADPCM", 0x31: "GSM", 0x55: "MP3"}
OTHER_FILES = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"FORM": "AIFF",
    b"RF64": "RF64",
}
RATES = range(1000, 384_001)  # Hz; a rate beyond is a broken header, and would make a huge array
FORMAT = struct.Struct("<HHIIHH")  # kind, channels, rate, bytes a second, bytes a frame, bits a sample
HEADER = struct.Struct("<4sI4s4sI16s4sI")
LONGEST = 0xFFFF_FFFF - HEADER.size  # bytes of sound: what 32 bits can count


def _pcm24(raw: bytes) -> NDArray[np.float32]:
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return _integers(wide.tobytes(), "<i4")


def _integers(raw: bytes, kind: str) -> NDArray[np.float32]:
    pcm = np.frombuffer(raw, kind)
    return pcm.astype(np.float32) / np.float32(2 ** (8 * pcm.itemsize - 1))


_DECODERS: dict[tuple[int, int], Callable[[bytes], NDArray[np.float32]]] = {
    (PCM, 8): lambda raw: _integers((np.frombuffer(raw, np.uint8) ^ 0x80).tobytes(), "i1"),
    (PCM, 16): lambda raw: _integers(raw, "<i2"),
    (PCM, 24): _pcm24,
    (PCM, 32): lambda raw: _integers(raw, "<i4"),
    (FLOAT, 32): lambda raw: np.nan_to_num(np.frombuffer(raw, "<f4").astype(np.float32)).clip(-1, 1),
    (ULAW, 8): lambda raw: _integers(g711.decode(raw).tobytes(), "=i2"),
}


def read(path: str | PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """The sound of a WAV from -1 to 1, its channels mixed into one, and its rate.

    8, 16, 24 and 32-bit PCM, 32-bit float and mu-law; a file that was cut short gives what there is of it.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        name = next((name for magic, name in OTHER_FILES.items() if data.startswith(magic)), "something else")
        raise _unreadable(path, f"is {name}, not a WAV")
    chunks = _chunks(data)
    header, raw = chunks.get(b"fmt ", b""), chunks.get(b"data")
    if len(header) < FORMAT.size or raw is None:
        raise _unreadable(path, "ends before its sound begins")
    kind, channels, rate, _, frame, bits = FORMAT.unpack_from(header)
    if kind == EXTENSIBLE and len(header) >= 26:
        (kind,) = struct.unpack_from("<H", header, 24)  # the true one begins the long identifier at the end
    decode = _DECODERS.get((kind, bits))
    if decode is None:
        raise _unreadable(path, f"holds {bits}-bit {OTHER_KINDS.get(kind, f'sound of kind {kind}')}")
    if not channels or frame != channels * bits // 8 or rate not in RATES:
        raise _unreadable(path, f"has a broken header ({channels} channels, {frame} bytes a frame, {rate} Hz)")
    sound = decode(raw[: len(raw) // frame * frame])
    return sound.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def load(path: str | PathLike[str], rate: int) -> NDArray[np.float32]:
    """The sound of a WAV as one channel at this rate."""
    sound, its_rate = read(path)
    return resample(sound, its_rate, rate)


def _chunks(data: bytes) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks.setdefault(name, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return chunks


def _unreadable(path: str | PathLike[str], why: str) -> ValueError:
    return ValueError(f"{path} {why}; convert it with: ffmpeg -i {path} -c:a pcm_s16le new.wav")


class Writer:
    """A 16-bit WAV that grows.

    What is written goes to the file at once, so hand over a second at a time rather than a frame. The header
    counts it from the next flush on: a process that dies leaves a file that plays up to there. A write that
    fails raises OSError and leaves out its sound; the file stays good and a later write may succeed.
    """

    def __init__(self, path: str | PathLike[str], rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._size = 0  # bytes of sound
        self._failed = False
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  (close() closes it)
        try:
            self.flush()
        except OSError:
            self._file.close()
            raise

    def write(self, frames: NDArray[np.int16]) -> None:
        """Add frames: [n, channels], or [n] where there is one channel."""
        if frames.size != len(frames) * self._channels:
            raise ValueError(f"frames of shape {frames.shape} in a recording of {self._channels} channels")
        data = frames.astype("<i2", casting="equiv", copy=False).tobytes()
        self._put(HEADER.size + self._size, data)
        self._size += len(data)

    def flush(self) -> None:
        """Make the header count all that was written."""
        frame = 2 * self._channels
        size = min(self._size, LONGEST)
        kind = FORMAT.pack(PCM, self._channels, self._rate, self._rate * frame, frame, 16)
        riff = HEADER.size - 8 + size
        self._put(0, HEADER.pack(b"RIFF", riff, b"WAVE", b"fmt ", FORMAT.size, kind, b"data", size))

    def close(self) -> None:
        """Flush and let go of the file. Raises OSError only if nothing did before."""
        if self._file.closed:
            return
        failed_before = self._failed
        try:
            with self._file:
                self.flush()
        except OSError:
            if not failed_before:
                raise

    def _put(self, at: int, data: bytes) -> None:
        try:
            self._file.seek(at)
            while data:
                data = data[self._file.write(data) :]  # a nearly full disk takes a part first
        except OSError:
            self._failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
