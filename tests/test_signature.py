import hashlib

import pytest
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from voice_bridge.bridge.telephony.signature import handshake_ok, public, webhook_ok

# Twilio's documented vector.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
PARAMS = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
SIGNATURE = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def signed(url: str, params: object = None) -> str:
    return str(RequestValidator(TOKEN).compute_signature(url, params or {}))


def test_the_documented_vector_is_accepted() -> None:
    assert webhook_ok(TOKEN, URL, PARAMS, SIGNATURE)


@pytest.mark.parametrize(
    ("token", "url", "params", "signature"),
    [
        ("12346", URL, PARAMS, SIGNATURE),
        (TOKEN, URL.replace("bar=2", "bar=3"), PARAMS, SIGNATURE),
        (TOKEN, URL.replace("https", "http"), PARAMS, SIGNATURE),
        (TOKEN, URL, PARAMS | {"Digits": "1235"}, SIGNATURE),
        (TOKEN, URL, PARAMS | {"Extra": ""}, SIGNATURE),
        (TOKEN, URL, PARAMS | {"Digits": "1234 "}, SIGNATURE),
        (TOKEN, URL, {}, SIGNATURE),
        (TOKEN, URL, PARAMS, ""),
        (TOKEN, URL, PARAMS, SIGNATURE.lower()),
    ],
)
def test_whatever_differs_from_what_was_signed_is_refused(
    token: str, url: str, params: dict[str, str], signature: str
) -> None:
    assert not webhook_ok(token, url, params, signature)


def test_every_value_of_a_repeated_parameter_counts() -> None:
    twice = MultiDict([("Media", "b"), ("Media", "a"), ("CallSid", "CA1")])
    # Names sorted, then values sorted, each with its name.
    expected = signed(URL + "CallSidCA1MediaaMediab")
    assert webhook_ok(TOKEN, URL, twice, expected)
    assert not webhook_ok(TOKEN, URL, MultiDict([("Media", "b"), ("CallSid", "CA1")]), expected)


def test_a_get_is_signed_by_its_url_alone() -> None:
    assert webhook_ok(TOKEN, URL, {}, signed(URL))


def test_a_json_body_is_held_against_its_hash() -> None:
    body = '{"CallSid":"CA1"}'
    url = f"https://mycompany.com/status?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    assert webhook_ok(TOKEN, url, body, signed(url))
    assert not webhook_ok(TOKEN, url, body + " ", signed(url))


@pytest.mark.parametrize("url", ["https://mycompany.com/status", "https://mycompany.com/status?bodySHA256="])
def test_a_json_body_without_a_hash_is_refused(url: str) -> None:
    assert not webhook_ok(TOKEN, url, '{"CallSid":"CA1"}', signed(url))


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    assert not webhook_ok(TOKEN, URL + "\udcff", PARAMS, SIGNATURE)
    assert not webhook_ok(TOKEN, URL, {"From": "\udcff"}, SIGNATURE)


@pytest.mark.parametrize(
    ("public_url", "asked", "expected"),
    [
        ("https://a.example", "/twilio/voice?x=%20y", "https://a.example/twilio/voice?x=%20y"),
        ("https://a.example/", "/twilio/voice", "https://a.example/twilio/voice"),
        ("https://a.example:8443/bridge/", "/twilio/voice", "https://a.example:8443/bridge/twilio/voice"),
        # A request target never changes the host.
        ("https://a.example", "@evil.example/", "https://a.example/@evil.example/"),
        ("https://a.example", ":99999/", "https://a.example/:99999/"),
    ],
)
def test_the_public_url_and_a_request_make_the_signed_url(public_url: str, asked: str, expected: str) -> None:
    assert public(public_url, asked) == expected


@pytest.mark.parametrize(
    "spelling",
    [scheme + host + path for scheme in ("wss://", "https://") for host in ("a.example", "a.example:443")
     for path in ("/bridge/stream", "/bridge/stream/")],
)  # fmt: skip
def test_a_handshake_may_be_signed_in_any_known_spelling(spelling: str) -> None:
    assert handshake_ok(TOKEN, "https://a.example/bridge", "/stream", signed(spelling)) == spelling


@pytest.mark.parametrize("spelling", ["wss://a.example:8443/stream", "wss://a.example/stream"])
def test_a_port_of_ones_own_may_be_signed_or_left_out(spelling: str) -> None:
    assert handshake_ok(TOKEN, "https://a.example:8443", "/stream/", signed(spelling)) == spelling


def test_a_bridge_without_tls_is_signed_as_ws() -> None:
    signature = signed("ws://127.0.0.1:8080/stream")
    assert handshake_ok(TOKEN, "http://127.0.0.1:8080", "/stream", signature) == "ws://127.0.0.1:8080/stream"


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "\udcff",
        signed("wss://b.example/stream"),
        signed("wss://a.example/other"),
        signed("ws://a.example/stream"),
    ],
)
def test_a_strangers_handshake_matches_no_spelling(signature: str) -> None:
    assert handshake_ok(TOKEN, "https://a.example", "/stream", signature) is None
