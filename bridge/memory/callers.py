"""Who a caller is to memory: a name made of his number with a secret key, so that the store holds no numbers."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path
from urllib.parse import unquote

from ..config.kinds import NAMELESS, SHORTEST_SECRET

KEY_BYTES = 32  # of a key that is made here: as many as its hash has
NAME_BYTES = 16  # of the hash are kept: two callers of one name will not happen, and the name stays readable
NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")  # E.164; shorter ones have no country code, whatever stands before them
SUFFIX = ".key"


class NoKey(ValueError):
    """The key cannot be had; the message says why and what to do."""


class Callers:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def of_number(self, number: str) -> str:
        """The name of who calls from a number, in any notation with its country code; of a SIP or tel address too.

        Empty for nobody in particular: nothing may be recalled or remembered then.
        """
        known = normal(number)
        if not known or known in NAMELESS:
            return ""
        return "n-" + hmac.digest(self._key, known.encode(), hashlib.sha256)[:NAME_BYTES].hex()


def normal(number: str) -> str:
    """A number as E.164, +15551234567, or empty if it is none.

    One without its country code is none: as one of another country it could be somebody else's.
    """
    address = re.sub(r"^(sips?|tel):", "", unquote(number.strip()), flags=re.IGNORECASE)
    user = re.split("[@;]", address)[0]
    bare = re.sub(r"\(0\)|[\s().-]", "", user)
    plain = re.sub("^00", "+", bare)
    return plain if NUMBER.fullmatch(plain) else ""


def load_key(configured: str, store: str) -> bytes:
    """The key of the callers in `store`: the configured one, else the one in the file beside the store.

    That file is made if there is none; processes that do so at once get the same key. Raises NoKey.
    """
    if configured:
        return _checked(configured, "memory.key")
    if "://" in store:
        raise NoKey(f"memory.store = {store} is shared by several bridges: set memory.key to the same in all of them")
    path = Path(store + SUFFIX)
    try:
        if not path.exists():
            _make(path)
        return _checked(path.read_text("ascii"), str(path))
    except OSError as error:
        raise NoKey(f"{path}: cannot be used: {error.strerror}; correct its rights, or set memory.key") from None
    except UnicodeDecodeError:
        raise NoKey(f"{path}: is no key: restore it, or nobody who called before is known any more") from None


def _checked(text: str, source: str) -> bytes:
    key = text.strip().encode()
    if len(key) < SHORTEST_SECRET:
        remedy = f"needs {SHORTEST_SECRET} or more; `openssl rand -hex 32` makes one"
        raise NoKey(f"{source}: is too short: {len(key)} characters; {remedy}")
    return key


def _make(path: Path) -> None:
    """Write a key, whole and on the disk, under a name of its own; then the first to link it wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, own = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # for the owner only
    try:
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(own, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except FileExistsError:
        pass
    finally:
        os.unlink(own)
