"""Did Twilio send this? The signature of webhooks and of WebSocket handshakes.

Twilio signs the URL as it was configured, so every URL here comes from the configured public URL. What a
proxy or a tunnel put into the request's headers plays no part.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from twilio.request_validator import RequestValidator, compare

# A public URL's scheme: the schemes Twilio may sign for a WebSocket there, and the port it may spell out.
SIGNED_AS = {"https": (("wss", "https"), 443), "http": (("ws", "http"), 80)}


def public(public_url: str, path_and_query: str) -> str:
    """The URL that Twilio requested: the configured public one, which may hold a path, and the raw target."""
    separator = "" if path_and_query.startswith("/") else "/"
    return public_url.rstrip("/") + separator + path_and_query


def webhook_ok(token: str, url: str, params: Mapping[str, str] | str, signature: str) -> bool:
    """Whether `signature` is Twilio's for a request of `url` (complete, with its query).

    `params` are the POST parameters, all of them and untrimmed; a MultiDict keeps repeated names. For a JSON
    request pass the body's text: its hash is held against the query's bodySHA256. A GET has none: pass {}.
    """
    if isinstance(params, str) and "bodySHA256" not in parse_qs(urlsplit(url).query):
        return False
    try:
        return bool(RequestValidator(token).validate(url, params, signature))
    except UnicodeEncodeError:
        return False  # bytes that were not UTF-8 arrive as lone surrogates, which Twilio never signs


def handshake_ok(token: str, public_url: str, path: str, signature: str) -> str | None:
    """The spelling of the WebSocket's URL that `signature` was made for, or None if it fits none we know."""
    validator = RequestValidator(token)
    for url in spellings(public_url, path):
        if compare(validator.compute_signature(url, {}), signature):
            return url
    return None


def spellings(public_url: str, path: str) -> Iterator[str]:
    """The URLs that Twilio may have signed for a WebSocket, likeliest first; which one is not documented."""
    url = urlsplit(public(public_url, path))
    schemes, default_port = SIGNED_AS[url.scheme]
    bare = url.netloc.removesuffix(f":{url.port}")
    for scheme in schemes:
        for host in (url.netloc, bare if url.port else f"{bare}:{default_port}"):
            for ending in (url.path, url.path.rstrip("/") if url.path.endswith("/") else url.path + "/"):
                yield f"{scheme}://{host}{ending}"
