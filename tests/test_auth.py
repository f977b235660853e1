"""Who may use what: client tokens by a secret, and the checks that keep strangers off an open bridge."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from voice_bridge.bridge.auth import Claims, Denied, Scope, Tokens, check_local, check_origin, mint
from voice_bridge.bridge.config import Auth

SECRET = "s" * 64  # long enough for HS512, so that only its name can be what is wrong with it
AUDIENCE = "voice-bridge"
HERE = "127.0.0.1:8080"


def token(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **claims: Any) -> str:
    given = {"sub": "ann", "aud": AUDIENCE, "scope": "operator", "exp": time.time() + 3600} | claims
    given.pop(without, None)
    return jwt.encode(given, secret, algorithm)


def head(**header: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


async def check(authorization: str, scope: Scope = "operator") -> Claims:
    async with Tokens(Auth(secret=SecretStr(SECRET))) as tokens:
        return await tokens.check(authorization, scope)


async def denied(authorization: str, scope: Scope = "operator") -> Denied:
    with pytest.raises(Denied) as error:
        await check(authorization, scope)
    assert "\n" not in str(error.value)
    return error.value


# Tokens


async def test_a_token_that_we_made_lets_its_subject_in() -> None:
    made = mint(SECRET, AUDIENCE, "ann", ("talk", "operator"), 60)
    claims = await check(f"Bearer {made}", "talk")
    assert claims == await check(f"bearer  {made} ", "operator")
    assert (claims.subject, claims.scopes) == ("ann", ("talk", "operator"))
    assert abs(claims.expires - time.time() - 60) <= 1


def test_a_made_token_is_good_for_as_long_as_was_asked() -> None:
    made = mint(SECRET, AUDIENCE, "ann", ("talk",), 3600)
    claims = jwt.decode(made, SECRET, ["HS256"], audience=AUDIENCE)
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 5


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer  ", "Basic YW5uOnNlY3JldA==", "Token abc"])
async def test_without_a_bearer_token_the_answer_says_how_to_get_one(header: str) -> None:
    error = await denied(header)
    assert error.status == 401
    assert "voice-bridge token" in str(error)


NOBODYS = "signature is by none of the keys"
BAD = {
    "wrong key": (token(secret="t" * 64), NOBODYS),
    "expired": (token(exp=time.time() - 11), "has expired"),
    "wrong audience": (token(aud="another-bridge"), "Audience doesn't match"),
    "no expiry": (token(without="exp"), 'missing the "exp" claim'),
    "no audience": (token(without="aud"), 'missing the "aud" claim'),
    "expiry in words": (token(exp="tomorrow"), "must be an integer"),
    "expiry without end": (token(exp=float("inf")), "must be an integer"),
    "not yet": (token(nbf=time.time() + 3600), "not yet valid"),
    "HS384": (token(algorithm="HS384"), "its algorithm is 'HS384', taken are HS256"),
    "HS512": (token(algorithm="HS512"), "its algorithm is 'HS512', taken are HS256"),
    "alg none": (token(secret="", algorithm="none"), "its algorithm is 'none', taken are HS256"),
    "signature cut off": (token().rsplit(".", 1)[0] + ".", NOBODYS),
    "signature changed": (token()[:-8] + "AAAAAAAA", NOBODYS),
    "another kind of key": (head(alg="RS256") + "." + token().split(".", 1)[1], "has no key for RS256"),
    "no algorithm": ("e30." + token().split(".", 1)[1], "its algorithm is None"),
    "long name": (head(alg="L" * 4000) + ".e30.", "its algorithm is 'LLL"),
    "long demand": (head(alg="HS256", crit=["L" * 4000]) + ".e30.", "LLL"),
    "oversized": (token(note="n" * 8192), "it is longer than 8 KiB"),
    "nonsense": ("nonsense", "Not enough segments"),
    "dots": ("a.b.c", "Invalid header"),
    "nested": ("W1tb" * 2000 + ".b.c", "Invalid header"),
    "bytes": ("\udcff", "Not enough segments"),  # a byte that is not UTF-8 arrives so
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
async def test_a_token_that_is_not_ours_or_not_valid_is_refused(bad: str, why: str) -> None:
    error = await denied(f"Bearer {bad}")
    assert error.status == 401
    assert str(error).startswith("the token is not valid: ")
    assert why in str(error)
    assert SECRET not in str(error)
    assert len(str(error)) < 300


async def test_clocks_may_differ_by_a_few_seconds() -> None:
    for claims in ({"exp": time.time() - 5}, {"nbf": time.time() + 5}, {"iat": time.time() + 5}):
        assert (await check(f"Bearer {token(**claims)}")).subject == "ann"


@pytest.mark.parametrize(
    "claims",
    [
        *({"scope": scope} for scope in ("talk", "", "operators", "OPERATOR", ["talk"], [["operator"]], None, 1, {})),
        {"scope": None, "scopes": "talk", "scp": ["talk", None]},
        {"scope": "talk", "roles": "operator"},
    ],
)
async def test_a_token_for_something_else_is_refused(claims: Any) -> None:
    error = await denied(f"Bearer {token(**claims)}")
    assert error.status == 403
    assert str(error) == "the token lacks the scope operator"


@pytest.mark.parametrize("name", ["scope", "scopes", "scp"])
async def test_scopes_are_text_or_a_list_as_providers_write_them(name: str) -> None:
    for value in ("talk  other operator", ["operator", "talk", "other"]):
        claims = await check(f"Bearer {token(**{'scope': 'x', name: value})}", "talk")
        assert claims.scopes == ("talk", "operator")


async def test_each_line_of_the_secret_is_accepted_and_the_first_one_makes_tokens() -> None:
    given = Auth(secret=SecretStr(f"{'n' * 32}\n\n {SECRET}\r\n"))
    assert given.secrets == ("n" * 32, SECRET)
    async with Tokens(given) as tokens:
        for secret in given.secrets:
            assert (await tokens.check_token(token(secret), "operator")).subject == "ann"
        with pytest.raises(Denied, match=NOBODYS):
            await tokens.check_token(token("o" * 32), "operator")


# An open bridge


def local(peer: str = "127.0.0.1", **headers: str) -> None:
    given = {"Host": HERE} | {name.replace("_", "-"): value for name, value in headers.items()}
    check_local(peer, CIMultiDict(given))


@pytest.mark.parametrize("host", [HERE, "localhost", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "127.0.0.2"])
def test_a_program_on_this_machine_is_let_in(host: str) -> None:
    local(Host=host)
    local("::1", Host=host)


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.0.2.1", "2001:db8::1", "", "unix:"])
def test_another_machine_is_kept_out(peer: str) -> None:
    with pytest.raises(Denied, match=r"this machine only; set twilio.auth_token .* auth.secret") as error:
        local(peer)
    assert error.value.status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7", "", "[::1"],
)
def test_a_name_that_was_made_to_point_here_is_kept_out(host: str) -> None:
    with pytest.raises(Denied, match=r"Host header .* set twilio.auth_token") as error:
        local(Host=host)
    assert error.value.status == 403


def test_a_request_without_a_host_is_kept_out() -> None:
    with pytest.raises(Denied, match="Host"):
        check_local("127.0.0.1", CIMultiDict())


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host", "X-Forwarded-Server"],
)
def test_a_tunnel_is_kept_out_and_the_answer_says_what_to_set(header: str) -> None:
    with pytest.raises(Denied, match=rf"tunnel \({header}\); set twilio.auth_token") as error:
        check_local("127.0.0.1", CIMultiDict({"Host": HERE, header: "127.0.0.1"}))
    assert error.value.status == 403


FOREIGN = ["http://evil.example", "https://evil.example:8080", "null", "", "http://localhost:3000", "http://127.0.0.1"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_is_kept_out(origin: str) -> None:
    with pytest.raises(Denied, match="may not use this bridge") as error:
        local(Origin=origin)
    assert error.value.status == 403
    assert repr(origin) in str(error.value)


@pytest.mark.parametrize("host", [HERE, "localhost:8080", "[::1]:8080"])
def test_our_own_page_is_let_in(host: str) -> None:
    local(Host=host, Origin=f"http://{host}")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_an_image_on_another_sites_page_is_kept_out(site: str) -> None:
    with pytest.raises(Denied, match="page of another site"):
        local(Sec_Fetch_Site=site)


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_an_address_that_somebody_typed_is_let_in(site: str) -> None:
    local(Sec_Fetch_Site=site)


# Pages of a bridge with a public address


def test_a_page_of_the_public_address_is_let_in_behind_a_proxy() -> None:
    headers = CIMultiDict({"Host": HERE, "Origin": "https://bridge.example.com"})
    check_origin(headers, "https://bridge.example.com/prefix")
    with pytest.raises(Denied):
        check_origin(headers, "https://bridge.example.org")
    with pytest.raises(Denied):
        check_origin(headers, "http://bridge.example.com")


def test_a_program_sends_no_origin_and_is_let_in() -> None:
    check_origin(CIMultiDict({"Host": HERE}), "https://bridge.example.com")


def test_a_long_origin_does_not_fill_the_answer() -> None:
    with pytest.raises(Denied) as error:
        local(Origin="http://" + "e" * 5000)
    assert len(str(error.value)) < 300
