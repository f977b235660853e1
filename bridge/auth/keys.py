"""The keys that client tokens are checked with: secrets, public keys in PEM, and the sets of identity providers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from ..config.kinds import secrets_of

Algorithm: TypeAlias = Literal["HS256", "RS256", "ES256", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("HS256", "RS256", "ES256", "EdDSA")
TAKEN = "RSA of 2048 bits or more (RS256), EC on P-256 (ES256) or Ed25519 (EdDSA)"
RSA_BITS = 2048  # shorter ones have been unfit for signatures since 2014, says NIST
MOST_KEYS = 64  # of one set; providers publish two to ten, and a token that names none is tried with each

PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
READERS = {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}


class BadKeys(Exception):
    """Tokens cannot be checked as the settings want it; one line that names the setting and the remedy."""


@dataclass(frozen=True)
class Key:
    """Checks signatures of one algorithm only, whatever a token says of itself."""

    algorithm: Algorithm
    value: Any = field(repr=False)
    id: str | None = None
    """The `kid` by which tokens name it; only keys of a set have one."""


def secrets(text: str) -> tuple[Key, ...]:
    """The secrets in a text, one a line; raises ValueError."""
    found = tuple(Key("HS256", line.encode()) for line in secrets_of(text))
    if not found:
        raise ValueError("is empty: write the secret into it")
    return found


def public_keys(text: str) -> tuple[Key, ...]:
    """The public keys in PEM that a text holds; raises ValueError."""
    found = tuple(_public_key(block[1], block[0]) for block in PEM.finditer(text))
    if not found:
        raise ValueError("holds no public key in PEM, which begins with -----BEGIN PUBLIC KEY-----")
    return found


def _public_key(label: str, block: str) -> Key:
    if "PRIVATE" in label:
        raise ValueError(
            "holds a private key: keep that where tokens are made, and write here what"
            " `openssl pkey -in THAT_FILE -pubout` prints"
        )
    if label not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        remedy = "`openssl x509 -pubkey -noout` takes one out of a certificate"
        raise ValueError(f"holds a {label.lower()} where a public key belongs: {remedy}")
    try:
        value = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds a public key that cannot be read: write it anew") from None
    algorithm = _algorithm(value)
    if not algorithm:
        raise ValueError(f"holds a public key of another kind than {TAKEN}: make one of these")
    return Key(algorithm, value)


def _algorithm(value: object) -> Algorithm | None:
    """The one algorithm that a public key is taken for. A private one that somebody published proves nothing."""
    if isinstance(value, RSAPublicKey) and value.key_size >= RSA_BITS:
        return "RS256"
    if isinstance(value, EllipticCurvePublicKey) and isinstance(value.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(value, Ed25519PublicKey) else None


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]


def key_set(body: bytes) -> tuple[Key, ...]:
    """The keys of a JWKS that are of use here; raises ValueError. Sets hold keys for other purposes too."""
    try:
        given = msgspec.json.decode(body, type=_Set).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("answers something else than a JWKS") from None
    if len(given) > MOST_KEYS:
        raise ValueError(f"answers {len(given)} keys, at most {MOST_KEYS} are taken")
    found = tuple(key for each in given if (key := _key_of_set(each)))
    if not found:
        raise ValueError(f"answers a set without any key that is taken: {TAKEN}")
    return found


def _key_of_set(given: dict[str, Any]) -> Key | None:
    read, id = READERS.get(str(given.get("kty"))), given.get("kid")
    if not read or given.get("use", "sig") != "sig" or not isinstance(id, str | None):
        return None
    try:
        value = read(given)
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    algorithm = _algorithm(value)
    return Key(algorithm, value, id) if algorithm and given.get("alg", algorithm) == algorithm else None
