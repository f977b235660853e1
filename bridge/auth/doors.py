"""The checks that keep strangers off an open bridge, and pages of other sites off any."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..config import is_loopback
from .denied import Denied


def check_local(peer: str, headers: Mapping[str, str]) -> None:
    """Raise `Denied` unless the request comes from a program on this machine: not through a tunnel, not from a page."""
    remedy = "set twilio.auth_token for calls or auth.secret for clients (docs/configuration.md)"
    try:
        local = ip_address(peer).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Denied(403, f"the bridge is open to this machine only; {remedy}")
    if not is_loopback(host_of(headers)):
        raise Denied(403, f"the Host header names another machine; {remedy}")
    for name in headers:
        if name.lower() == "forwarded" or name.lower().startswith("x-forwarded-"):
            raise Denied(403, f"the request came through a proxy or tunnel ({name}); {remedy}")
    check_origin(headers, "")


def check_origin(headers: Mapping[str, str], public_url: str) -> None:
    """Raise `Denied` if a web page of another site sent the request."""
    origin = headers.get("Origin")
    if origin is None:
        # Images and links bring no Origin, but browsers say where they were.
        if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
            return
        raise Denied(403, "a page of another site may not use this bridge; open the address itself")
    own = {f"http://{headers.get('Host', '')}", f"https://{headers.get('Host', '')}"}
    if public_url:
        parts = urlsplit(public_url)
        own.add(f"{parts.scheme}://{parts.netloc}")
    if origin not in own:
        raise Denied(403, f"a page of {origin[:100]!r} may not use this bridge; serve it from the bridge's own address")


def host_of(headers: Mapping[str, str]) -> str:
    """The host of the Host header, without its port."""
    try:
        return urlsplit(f"//{headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""
