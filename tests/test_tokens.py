"""Client tokens by keys that change, or that others hold: files of secrets and public keys, and identity providers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from pydantic import SecretStr

from tests.conftest import Bridge, LogLines
from tests.jwks_server import OTHERS, PRIVATE, JwksServer, jwk, private_pem, public_pem, token
from voice_bridge.bridge.auth import BadKeys, Denied, Tokens, jwks, mint
from voice_bridge.bridge.config import Auth
from voice_bridge.bridge.daemon import StartFailed

OLD, NEW = "the-old-secret-of-more-than-32-bytes", "the-new-secret-of-more-than-32-bytes"
NOBODYS = "signature is by none of the keys"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def provider() -> AsyncIterator[JwksServer]:
    async with JwksServer() as server:
        yield server


async def subject(tokens: Tokens, given: str) -> str:
    """Whom a token lets in; else the answer to whom it does not."""
    try:
        return (await tokens.check_token(given, "operator")).subject
    except Denied as denied:
        return f"{denied.status} {denied}"


def ours(secret: str) -> str:
    return mint(secret, "voice-bridge", "bob", ("operator",), 60)


# A public key in a file


def key_file(folder: Path, *pems: str) -> Path:
    path = folder / "key.pem"
    path.write_text("\n".join(pems))
    return path


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_token_is_checked_with_the_public_key_of_who_made_it(algorithm: str, tmp_path: Path) -> None:
    path = key_file(tmp_path, public_pem(PRIVATE[algorithm]))
    async with Tokens(Auth(public_key_file=path)) as tokens:
        assert await subject(tokens, token(algorithm)) == "ann"
        assert await subject(tokens, token(algorithm, kid="whatever")) == "ann"  # a file says no names
        assert NOBODYS in await subject(tokens, token(algorithm, OTHERS[algorithm]))
        assert "has expired" in await subject(tokens, token(algorithm, exp=time.time() - 60))
        assert "Audience" in await subject(tokens, token(algorithm, aud="another"))
        assert await subject(tokens, token(algorithm, scope="talk")) == "403 the token lacks the scope operator"
        assert "this bridge has no key for HS256" in await subject(tokens, ours(OLD))


async def test_without_a_secret_nobody_is_sent_to_a_verb_that_makes_no_token(tmp_path: Path) -> None:
    async with Tokens(Auth(public_key_file=key_file(tmp_path, public_pem(PRIVATE["ES256"])))) as tokens:
        with pytest.raises(Denied, match="whoever holds the private key makes it"):
            await tokens.check("", "talk")


async def test_a_file_may_hold_several_public_keys(tmp_path: Path) -> None:
    path = key_file(tmp_path, "# old and new", *map(public_pem, (*PRIVATE.values(), OTHERS["RS256"])))
    async with Tokens(Auth(public_key_file=path)) as tokens:
        for made in (*map(token, PRIVATE), token("RS256", OTHERS["RS256"])):
            assert await subject(tokens, made) == "ann"


def signed_with_text(claims: dict[str, Any], secret: bytes, header: dict[str, Any]) -> str:
    """HS256 over whatever one likes; libraries refuse a public key as its secret."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize("beside", ["", OLD])
async def test_a_public_key_is_never_a_secret(beside: str, tmp_path: Path, provider: JwksServer) -> None:
    pem = public_pem(PRIVATE["RS256"])
    provider.keys.append({"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(NEW.encode()).decode()})
    given = Auth(secret=SecretStr(beside), public_key_file=key_file(tmp_path, pem), jwks_url=provider.url)
    claims = {"sub": "eve", "aud": "voice-bridge", "scope": "operator", "exp": time.time() + 3600}
    async with Tokens(given) as tokens:
        assert await subject(tokens, token("RS256")) == "ann"
        for secret in (pem, pem.strip(), json.dumps(jwk("RS256", "rs256")), NEW):
            for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "rs256"}, {"alg": "HS256", "kid": "shared"}):
                told = await subject(tokens, signed_with_text(claims, secret.encode(), header))
                assert (NOBODYS if beside else "this bridge has no key for HS256") in told


async def test_a_key_is_good_for_its_own_algorithm_only(tmp_path: Path) -> None:
    async with Tokens(Auth(public_key_file=key_file(tmp_path, public_pem(PRIVATE["RS256"])))) as tokens:
        for algorithm in ("RS384", "RS512", "PS256"):
            made = jwt.encode({"exp": time.time() + 3600}, PRIVATE["RS256"], algorithm)
            assert f"its algorithm is '{algorithm}'" in await subject(tokens, made)
        assert "no key for ES256" in await subject(tokens, token("ES256"))


USELESS = {
    "private": (private_pem(PRIVATE["RS256"]), "holds a private key: keep that where tokens are made"),
    "private, old": (
        private_pem(PRIVATE["RS256"], PrivateFormat.TraditionalOpenSSL),
        "holds a private key: keep that where tokens are made",
    ),
    "both": (public_pem(PRIVATE["RS256"]) + private_pem(PRIVATE["RS256"]), "holds a private key"),
    "certificate": ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "openssl x509 -pubkey -noout"),
    "short": (public_pem(rsa.generate_private_key(65537, 1024)), "holds a public key of another kind than RSA of 2048"),
    "curve": (public_pem(ec.generate_private_key(ec.SECP384R1())), "another kind than RSA of 2048"),
    "broken": ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read: write it anew"),
    "secret": (OLD, "holds no public key in PEM"),
    "empty": ("", "holds no public key in PEM"),
    "long": ("x" * 70_000, "is longer than 64 KiB"),
}


@pytest.mark.parametrize(("content", "why"), USELESS.values(), ids=USELESS)
async def test_a_file_without_a_fitting_public_key_stops_the_start(
    content: str, why: str, tmp_path: Path, bridge: Bridge
) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(StartFailed) as error:
        await bridge(auth__public_key_file=str(path))
    assert str(error.value).startswith(f"auth.public_key_file = {str(path)!r}: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_that_is_no_text_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key.der"
    path.write_bytes(b"\x30\xff")
    with pytest.raises(BadKeys, match="is not text"):
        Tokens(Auth(public_key_file=path))


# Files that change


async def test_a_secret_is_rotated_without_a_restart(tmp_path: Path, clock: Clock, log_lines: LogLines) -> None:
    path = tmp_path / "secret"
    path.write_text(OLD)
    async with Tokens(Auth(secret_file=path), clock) as tokens:
        assert await subject(tokens, ours(OLD)) == "bob"
        path.write_text(f"{NEW}\n{OLD}\n")
        assert NOBODYS in await subject(tokens, ours(NEW))  # not even looked at: it was a moment ago
        clock.now += 1
        assert [await subject(tokens, ours(secret)) for secret in (NEW, OLD)] == ["bob", "bob"]
        path.write_text(NEW)
        assert await subject(tokens, ours(OLD)) == "bob"
        clock.now += 1
        assert await subject(tokens, ours(NEW)) == "bob"
        assert NOBODYS in await subject(tokens, ours(OLD))
    assert [line["keys"] for line in log_lines if line["event"] == "keys read again"] == [2, 1]


async def test_a_public_key_is_exchanged_without_a_restart(tmp_path: Path, clock: Clock) -> None:
    path = key_file(tmp_path, public_pem(PRIVATE["ES256"]))
    async with Tokens(Auth(public_key_file=path), clock) as tokens:
        assert await subject(tokens, token("ES256")) == "ann"
        fresh = tmp_path / "fresh"
        fresh.write_text(public_pem(OTHERS["ES256"]))
        os.utime(fresh, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # made long ago, as long as the other
        fresh.replace(path)  # as editors and Kubernetes do it
        clock.now += 1
        assert await subject(tokens, token("ES256", OTHERS["ES256"])) == "ann"
        assert NOBODYS in await subject(tokens, token("ES256"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text("short"), "has 5 bytes, must have 32"),
        (lambda path: path.write_text(f"{NEW}\nshort"), "line 2 has 5 bytes, must have 32"),
        (lambda path: path.write_text(public_pem(PRIVATE["RS256"])), "belongs into auth.public_key_file"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
    ],
    ids=["empty", "short", "one of them short", "public key", "gone"],
)
async def test_a_secret_file_that_is_spoiled_leaves_the_last_good_one_in_force(
    spoil: Callable[[Path], object], why: str, tmp_path: Path, clock: Clock, log_lines: LogLines
) -> None:
    path = tmp_path / "secret"
    path.write_text(OLD)
    async with Tokens(Auth(secret_file=path), clock) as tokens:
        spoil(path)
        for _ in range(3):
            clock.now += 1
            assert await subject(tokens, ours(OLD)) == "bob"
            assert NOBODYS in await subject(tokens, ours(NEW))
        [told] = [line for line in log_lines if line["log_level"] == "warning"]  # once, not with every token
        assert why in told["why"]
        assert told["setting"] == "auth.secret_file"
        path.write_text(NEW)
        clock.now += 1
        assert await subject(tokens, ours(NEW)) == "bob"


async def test_a_slow_disk_holds_up_no_one_but_who_needs_the_file(
    tmp_path: Path, clock: Clock, provider: JwksServer
) -> None:
    path = tmp_path / "secret"
    path.write_text(OLD)
    async with Tokens(Auth(secret_file=path, jwks_url=provider.url), clock) as tokens:
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        path.unlink()
        os.mkfifo(path)  # whoever reads it waits for somebody who writes
        clock.now += 1
        waiting = asyncio.create_task(subject(tokens, ours(NEW)))
        async with asyncio.timeout(5):
            writer = None
            while writer is None:  # opens as soon as it is being read
                with suppress(OSError):
                    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                await asyncio.sleep(0)
        assert not waiting.done()
        os.write(writer, NEW.encode())
        os.close(writer)
        assert await waiting == "bob"


# An identity provider


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_token_of_an_identity_provider_lets_in(algorithm: str, provider: JwksServer) -> None:
    async with Tokens(Auth(jwks_url=provider.url)) as tokens:
        assert await subject(tokens, token(algorithm, kid=algorithm.lower())) == "ann"
        assert await subject(tokens, token(algorithm)) == "ann"  # names no key: each is tried
        assert NOBODYS in await subject(tokens, token(algorithm, OTHERS[algorithm], algorithm.lower()))
        assert NOBODYS in await subject(tokens, token(algorithm, OTHERS[algorithm]))
        assert "Audience" in await subject(tokens, token(algorithm, aud="another", kid=algorithm.lower()))
    assert provider.asked == 1


async def test_an_operator_comes_in_by_a_token_of_an_identity_provider(
    bridge: Bridge, provider: JwksServer, http: aiohttp.ClientSession
) -> None:
    daemon = await bridge(auth__jwks_url=provider.url)
    assert not daemon.settings.open_mode
    for made, status in (
        (token("RS256", kid="rs256"), 200),
        (token("RS256", kid="rs256", scope="talk"), 403),
        (token("RS256", kid="another"), 401),
        (token("RS256", kid="rs256", note="n" * 9000), 400),  # longer than a header may be
        ("", 401),
    ):
        async with http.get(daemon.url + "/v1/calls", headers={"Authorization": f"Bearer {made}"}) as answer:
            assert answer.status == status


async def test_all_ways_work_side_by_side(tmp_path: Path, provider: JwksServer) -> None:
    path = key_file(tmp_path, public_pem(OTHERS["ES256"]))
    async with Tokens(Auth(secret=SecretStr(OLD), public_key_file=path, jwks_url=provider.url)) as tokens:
        assert await subject(tokens, ours(OLD)) == "bob"
        assert await subject(tokens, token("ES256", OTHERS["ES256"])) == "ann"
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        assert NOBODYS in await subject(tokens, ours(NEW))
        assert provider.asked == 1


async def test_a_secret_does_its_work_while_the_provider_is_away(provider: JwksServer) -> None:
    provider.status = 500
    async with Tokens(Auth(secret=SecretStr(OLD), jwks_url=provider.url)) as tokens:
        assert (await subject(tokens, token("ES256"))).startswith("503")
        assert await subject(tokens, ours(OLD)) == "bob"
        assert NOBODYS in await subject(tokens, ours(NEW))


async def test_the_keys_are_fetched_before_anybody_comes(provider: JwksServer) -> None:
    async with Tokens(Auth(jwks_url=provider.url)), asyncio.timeout(5):
        await provider.came.wait()


async def test_a_new_key_of_the_provider_is_fetched_when_a_token_names_it(provider: JwksServer, clock: Clock) -> None:
    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        provider.keys.append(jwk("ES256", "new", OTHERS["ES256"]))
        clock.now += 30
        assert await subject(tokens, token("ES256", OTHERS["ES256"], "new")) == "ann"
        assert provider.asked == 2


async def test_whoever_invents_keys_makes_us_ask_twice_a_minute_at_most(provider: JwksServer, clock: Clock) -> None:
    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        for second in range(60):
            told = await subject(tokens, token("ES256", kid=f"invented-{second}"))
            assert told == (
                f"401 the token is not valid: this bridge has no key for ES256 that is called 'invented-{second}'"
            )
            clock.now += 1
        assert provider.asked == 2


async def test_tokens_that_come_together_ask_once(provider: JwksServer) -> None:
    provider.go.clear()
    async with Tokens(Auth(secret=SecretStr(OLD), jwks_url=provider.url)) as tokens:
        waiting = [asyncio.create_task(subject(tokens, token("ES256", kid="es256"))) for _ in range(5)]
        await provider.came.wait()
        assert await subject(tokens, ours(OLD)) == "bob"  # needs no provider, and waits for none
        assert not any(task.done() for task in waiting)
        waiting.pop().cancel()  # one hangs up; the others still get their answer
        provider.go.set()
        assert await asyncio.gather(*waiting) == ["ann"] * 4
    assert provider.asked == 1


async def test_a_key_that_the_provider_withdrew_is_good_for_an_hour_at_most(provider: JwksServer, clock: Clock) -> None:
    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        provider.keys = [jwk("RS256", "rs256")]
        clock.now += 3599
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        clock.now += 1
        assert "no key for ES256 that is called 'es256'" in await subject(tokens, token("ES256", kid="es256"))
        assert await subject(tokens, token("RS256", kid="rs256")) == "ann"
        assert provider.asked == 2


async def test_while_the_provider_fails_its_last_keys_stand_and_the_log_says_so_once_a_minute(
    provider: JwksServer, clock: Clock, log_lines: LogLines
) -> None:
    def told() -> int:
        return sum(line["event"] == "auth.jwks_url gives no keys" for line in log_lines)

    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        provider.status = 500
        clock.now += 3600
        for seconds in (0, 30, 29, 1, 30, 30):
            clock.now += seconds
            assert await subject(tokens, token("ES256", kid="es256")) == "ann"
            assert "no key for" in await subject(tokens, token("ES256", kid="unknown"))  # waits for the answer
        assert (provider.asked, told()) == (6, 3)
        provider.status = 200
        clock.now += 30
        assert "no key for" in await subject(tokens, token("ES256", kid="unknown"))
        assert log_lines[-1]["event"] == "keys fetched"


async def test_an_address_that_hangs_does_not_hold_up_tokens_whose_key_is_known(
    provider: JwksServer, clock: Clock
) -> None:
    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"
        provider.status = 500
        clock.now += 3600
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"  # waits once: a key may have gone
        provider.go.clear()
        clock.now += 30
        async with asyncio.timeout(2):
            assert await subject(tokens, token("ES256", kid="es256")) == "ann"
            await provider.came.wait()


async def test_without_any_key_of_the_provider_a_token_is_not_called_invalid(
    provider: JwksServer, clock: Clock
) -> None:
    provider.status = 503
    async with Tokens(Auth(jwks_url=provider.url), clock) as tokens:
        assert (await subject(tokens, token("ES256", kid="es256"))).startswith("503 the token cannot be checked")
        provider.status = 200
        clock.now += 30
        assert await subject(tokens, token("ES256", kid="es256")) == "ann"


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "status": ({"status": 404}, "answers HTTP 404"),
    "redirect": ({"status": 302, "headers": {"Location": "/elsewhere"}}, "answers with a redirect (HTTP 302)"),
    "page": ({"body": b"<html>"}, "answers something else than a JWKS"),
    "bytes": ({"body": b'{"keys": ["\xff"]}'}, "answers something else than a JWKS"),
    "list": ({"body": b"[]"}, "answers something else than a JWKS"),
    "nested": ({"body": b'{"keys": ' + b"[" * 50_000}, "answers something else than a JWKS"),
    "long": ({"body": b" " * 300_000}, "answers more than 256 KiB"),
    "swelling": (
        {"body": gzip.compress(b" " * 2**20), "headers": {"Content-Encoding": "gzip"}},
        "answers something else than a JWKS",
    ),
    "none": ({"keys": []}, "answers a set without any key that is taken"),
    "many": ({"keys": [{}] * 65}, "answers 65 keys, at most 64 are taken"),
}


@pytest.mark.parametrize(("answer", "why"), FAILURES.values(), ids=FAILURES)
async def test_an_answer_that_is_no_set_of_keys_is_told_plainly(
    answer: dict[str, Any], why: str, provider: JwksServer
) -> None:
    vars(provider).update(answer)
    with pytest.raises(jwks.NoKeys) as error:
        await jwks.fetch(provider.url)
    assert str(error.value).startswith(why)
    assert provider.asked == 1  # what a redirect leads to was not asked


async def test_a_provider_that_does_not_answer_costs_seconds(
    provider: JwksServer, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr(jwks, "SECONDS", 0.1)
    provider.go.clear()
    with pytest.raises(jwks.NoKeys, match=r"does not answer within 0\.1 s"):
        await jwks.fetch(provider.url)
    with pytest.raises(jwks.NoKeys, match="cannot be reached: "):
        await jwks.fetch(f"http://127.0.0.1:{unused_port}/keys")


async def test_keys_of_a_set_that_are_for_something_else_or_broken_are_passed_over(provider: JwksServer) -> None:
    leaked = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(OTHERS["ES256"]))
    good = jwk("ES256", "good")
    provider.keys = [
        jwk("RS256", "for encryption", use="enc"),
        jwk("RS256", "for another algorithm", alg="RS512"),
        jwk("RS256", "cut", n="AQAB"),
        jwk("RS256", 7),  # type: ignore[arg-type]
        leaked | {"kid": "leaked"},
        good | {"kid": "not on the curve", "y": good["x"]},
        good | {"kid": "no text", "x": 5},
        good | {"kid": "half", "y": None},
        {"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AAAA"},
        {"kty": ["RSA"]},
        {},
        good,
    ]
    async with Tokens(Auth(jwks_url=provider.url)) as tokens:
        assert await subject(tokens, token("ES256", kid="good")) == "ann"
        assert [key.id for key in await jwks.fetch(provider.url)] == ["good"]
        assert "no key for ES256" in await subject(tokens, token("ES256", OTHERS["ES256"], "leaked"))
