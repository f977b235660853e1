"""The console: a page to talk from and to watch calls with. It holds no secrets, so it wants no token."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple

from aiohttp import web

PAGE = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (  # it runs what came with it and talks to where it came from: nothing inline, nothing of another site
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",  # asked for anew each time and answered by the ETag: a page fits the bridge it is of
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Asset(NamedTuple):
    body: bytes
    tag: str
    type: str


class Console:
    """Serves the page at `/` and what it is made of under `/console/`. The files are read once."""

    def __init__(self) -> None:
        files = (file for file in resources.files(__package__).iterdir() if _suffix(file.name) in TYPES)
        self._assets = {file.name: _asset(file.name, file.read_bytes()) for file in files}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self.page), web.get("/console/{name}", self.asset)]

    async def page(self, request: web.Request) -> web.Response:
        return self._answer(request, PAGE)

    async def asset(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        asset = self._assets.get(name)
        if asset is None:
            raise web.HTTPNotFound(text=f"the console has no file {name[:64]!r}; its page is at /")
        headers = HEADERS | {"ETag": f'"{asset.tag}"'}
        if any(known.value in (asset.tag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.body, headers=headers | {"Content-Type": asset.type})


def _asset(name: str, body: bytes) -> Asset:
    return Asset(body, hashlib.sha256(body).hexdigest()[:16], TYPES[_suffix(name)])


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
