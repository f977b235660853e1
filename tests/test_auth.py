"""Who may use what: client tokens, and the checks that keep strangers off an open bridge."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from multidict import CIMultiDict

from voice_bridge.bridge import auth
from voice_bridge.bridge.auth import Denied, check, check_local, check_origin, mint

SECRET = "s" * 64  # long enough for HS512, so that only its name can be what is wrong with it
AUDIENCE = "voice-bridge"
HERE = "127.0.0.1:8080"


def token(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **claims: Any) -> str:
    given = {"sub": "ann", "aud": AUDIENCE, "scope": "operator", "exp": time.time() + 60} | claims
    given.pop(without, None)
    return jwt.encode(given, secret, algorithm)


def denied(authorization: str, scope: auth.Scope = "operator") -> Denied:
    with pytest.raises(Denied) as error:
        check(authorization, SECRET, AUDIENCE, scope)
    assert "\n" not in str(error.value)
    return error.value


# Tokens


def test_a_token_that_we_made_lets_its_subject_in() -> None:
    made = mint(SECRET, AUDIENCE, "ann", ("talk", "operator"), 60)
    assert check(f"Bearer {made}", SECRET, AUDIENCE, "talk") == "ann"
    assert check(f"bearer  {made} ", SECRET, AUDIENCE, "operator") == "ann"


def test_a_made_token_is_good_for_as_long_as_was_asked() -> None:
    made = mint(SECRET, AUDIENCE, "ann", ("talk",), 3600)
    claims = jwt.decode(made, SECRET, ["HS256"], audience=AUDIENCE)
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 5


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YW5uOnNlY3JldA==", "Token abc"])
def test_without_a_bearer_token_the_answer_says_how_to_get_one(header: str) -> None:
    error = denied(header)
    assert error.status == 401
    assert "voice-bridge token" in str(error)


@pytest.mark.parametrize(
    "bad",
    [
        token(secret="t" * 64),
        token(exp=time.time() - 1),
        token(aud="another-bridge"),
        token(without="exp"),
        token(without="aud"),
        token(nbf=time.time() + 60),
        token(algorithm="HS384"),
        token(algorithm="HS512"),
        token(secret="", algorithm="none"),
        token().rsplit(".", 1)[0] + ".",
        token()[:-4] + "AAAA",
        "nonsense",
        "a.b.c",
        "\udcff",  # a byte that is not UTF-8 arrives so
    ],
    ids=[
        *("wrong key", "expired", "wrong audience", "no expiry", "no audience", "not yet"),
        *("HS384", "HS512", "alg none", "signature cut off", "signature changed", "nonsense", "dots", "bytes"),
    ],
)
def test_a_token_that_is_not_ours_or_not_valid_is_refused(bad: str) -> None:
    error = denied(f"Bearer {bad}")
    assert error.status == 401
    assert SECRET not in str(error)


@pytest.mark.parametrize("scope", ["talk", "", "operators", "OPERATOR", ["operator"], None, 1])
def test_a_token_for_something_else_is_refused(scope: Any) -> None:
    error = denied(f"Bearer {token(scope=scope)}")
    assert error.status == 403
    assert "operator" in str(error)


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
