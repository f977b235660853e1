"""An identity provider: it has private keys, publishes their public halves, and fails when it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, TypeAlias

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

# Made once: a key of RSA takes a while.
PRIVATE: dict[str, Private] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
OTHERS: dict[str, Private] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
WRITERS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def public_pem(key: Private) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Private, shape: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, shape, NoEncryption()).decode()


def token(algorithm: str, key: Private | None = None, kid: str | None = None, **claims: Any) -> str:
    """An operator's token, by the key of that algorithm if no other is given."""
    given = {"sub": "ann", "aud": "voice-bridge", "scope": "operator", "exp": time.time() + 3600} | claims
    return jwt.encode(given, key or PRIVATE[algorithm], algorithm, headers={"kid": kid} if kid else None)


def jwk(algorithm: str, kid: str | None, key: Private | None = None, **more: Any) -> dict[str, Any]:
    """A public key as a set has it."""
    written: dict[str, Any] = WRITERS[algorithm].to_jwk((key or PRIVATE[algorithm]).public_key(), as_dict=True)
    written.pop("key_ops", None)
    return written | ({"kid": kid} if kid else {}) | more


class JwksServer:
    """`async with` it. What it answers with is set by its attributes, and `asked` counts how often it was."""

    def __init__(self) -> None:
        self.keys = [jwk(algorithm, algorithm.lower()) for algorithm in PRIVATE]
        self.body: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __aenter__(self) -> JwksServer:
        app = web.Application()
        app.add_routes([web.get("/keys", self._answer), web.get("/elsewhere", self._answer)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/keys"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.go.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.came.set()
        await self.go.wait()
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        return web.Response(body=body, status=self.status, headers=self.headers, content_type="application/json")
