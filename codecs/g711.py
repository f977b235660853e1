"""Mu-law, the telephone's 8 bits a sample, to 16-bit PCM and back."""

import warnings

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    # Python 3.11 and 3.12 announce that audioop leaves in 3.13, where audioop-lts brings it back.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SILENCE = 0xFF  # the code of zero; it has a twin, 0x7F, which the telephone network does not send


def decode(ulaw: bytes) -> NDArray[np.int16]:
    """One sample a byte. The array is read-only."""
    return np.frombuffer(audioop.ulaw2lin(ulaw, 2), np.int16)


def encode(pcm: NDArray[np.int16]) -> bytes:
    """One byte a sample."""
    return audioop.lin2ulaw(pcm.tobytes(), 2)


def silence(samples: int) -> bytes:
    """So many samples of silence, in mu-law."""
    return bytes((SILENCE,)) * samples
