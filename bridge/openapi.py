"""What the operator's API is, as a table; and that table as OpenAPI, for programs that read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .shapes import Error, Watched

OPENAPI = "3.1.0"
JSON = "application/json"
ABOUT = """\
What operators ask of a voice-bridge. Errors are a line that says what was wrong and what to do.

Besides, `/v1/watch` is a WebSocket that tells what happens in the calls while it happens: the messages are the schemas
BoardNow, Begun, Ended, Words and StateNow, and nothing goes up. A browser offers two subprotocols for it,
`voice-bridge.v1` and `bearer.TOKEN`.
"""
REFUSALS = {
    400: "What was sent is not what is expected here.",
    401: "No token, or one that is not valid.",
    403: "Not for you: the token lacks the scope `operator`, or this is not the place to ask from.",
    404: "There is no such live call.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    500: "A fault of the bridge; its log says more.",
    503: "The token cannot be checked just now.",
}


@dataclass(frozen=True)
class Operation:
    """One thing that may be asked. `act` is called with the live call, where the path names one, and with the body."""

    method: str
    path: str
    act: Callable[..., Awaitable[Any]]
    does: str
    gives: Any = None
    """The type of the answer; None where there is nothing to be said."""
    takes: Any = None
    status: int = 200
    refuses: dict[int, str] = field(default_factory=dict)
    """What it may be refused with beyond what others are, by status."""
    others: Mapping[int, Any] = field(default_factory=dict)
    """Types of answers with another status, which are none of refusal."""
    media: str = JSON
    """Of the answer."""
    public: bool = False
    """Whether no key is needed."""

    @property
    def name(self) -> str:
        return self.act.__name__

    @property
    def of_a_call(self) -> bool:
        return "{call}" in self.path


def document(operations: Iterable[Operation], version: str, tokens: bool) -> dict[str, Any]:
    """`tokens`: whether operators need one here."""
    components: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, components, tokens)
    _schema(Watched, components)
    about: dict[str, Any] = {
        "openapi": OPENAPI,
        "info": {"title": "voice-bridge", "version": version, "description": ABOUT},
        "paths": paths,
        "components": {"schemas": components},
    }
    if tokens:
        about["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Scope `operator`."}
        }
    return about


def _operation(one: Operation, components: dict[str, Any], tokens: bool) -> dict[str, Any]:
    def answer(description: str, kind: Any, media: str = JSON) -> dict[str, Any]:
        content = {} if kind is None else {"content": {media: {"schema": _schema(kind, components)}}}
        return {"description": description} | content

    responses = {one.status: answer("Done." if one.gives is None else "The answer.", one.gives, one.media)}
    responses |= {status: answer("Not so.", kind) for status, kind in one.others.items()}
    responses |= {status: answer(said, Error) for status, said in _refusals(one, tokens).items()}
    told: dict[str, Any] = {"operationId": one.name, "summary": one.does}
    if one.of_a_call:
        id = {"type": "string", "minLength": 1}
        told["parameters"] = [{"name": "call", "in": "path", "required": True, "schema": id}]
    if one.takes is not None:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(one.takes, components)}}}
    if tokens and not one.public:
        told["security"] = [{"token": []}]
    return told | {"responses": {str(status): responses[status] for status in sorted(responses)}}


def _schema(kind: Any, components: dict[str, Any]) -> dict[str, Any]:
    """Of a type; those that it names come among `components`."""
    [schema], named = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    components.update(named)
    return schema


def _refusals(one: Operation, tokens: bool) -> dict[int, str]:
    found = {500}
    if not one.public:
        found |= {401, 403, 503} if tokens else {403}
    if one.of_a_call:
        found.add(404)
    if one.takes is not None:
        found |= {400, 408, 413}
    return {status: REFUSALS[status] for status in found} | one.refuses
