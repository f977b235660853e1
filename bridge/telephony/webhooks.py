"""What Twilio asks of us: the webhook, the end of a stream, status callbacks, and the media stream itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aiohttp import web

from .. import auth
from ..admission import Refused
from ..call import Call
from ..config import Calls
from ..lines.twilio import MAX_MESSAGE, TwilioLine
from ..observe import logs
from ..sockets import CLOSE_LIMIT, SocketWire
from ..switchboard import End, Switchboard
from . import signature, twiml

FORM = "application/x-www-form-urlencoded"  # what Twilio posts
OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

log = logs.get(line="twilio")


class Webhooks:
    """`base` is the URL under which Twilio knows us, `has_rest` whether we can end calls by REST."""

    def __init__(self, board: Switchboard, base: str, has_rest: bool) -> None:
        self._board = board
        self._base = base
        self._stream_url = base.replace("http", "ws", 1) + "/twilio/stream"
        self._action = None if has_rest else base + "/twilio/ended"
        self._settings = board.settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/twilio/voice", self.voice),
            web.get("/twilio/voice", self.voice),
            web.post("/twilio/ended", self.ended),
            web.post("/twilio/status", self.status),
            web.get("/twilio/stream", self.stream),
        ]

    async def voice(self, request: web.Request) -> web.Response:
        """A call has come, or one that we placed was answered: let it in or say why not."""
        params = await self._params(request)
        call, direction = params.get("CallSid", ""), params.get("Direction", "inbound")
        if not call:
            raise auth.Denied(400, "the request names no CallSid")
        number, caller = _ends(params)
        machine = direction.startswith("outbound") and _machine(params.get("AnsweredBy", ""))
        if machine and self._settings.twilio.on_machine == "hangup":
            log.info("a machine answered", call=call, to=caller)
            return _twiml(twiml.hang_up())
        settings = self._settings.for_number(number)
        try:
            ticket = self._board.admission.reserve(call, caller, number, direction)
        except Refused as refused:
            return self._refuse(call, settings, refused)
        return _twiml(
            twiml.stream(
                self._stream_url,
                {"token": ticket.token},
                status_callback=self._base + "/twilio/status",
                action=self._action,
                after=_failure(settings),
            )
        )

    async def ended(self, request: web.Request) -> web.Response:
        """The stream is over and Twilio asks what comes next (only without REST credentials)."""
        params = await self._params(request)
        end, _, transfer_to = self._board.admission.end_of(params.get("CallSid", "")).partition(":")
        if transfer_to:
            return _twiml(twiml.dial(transfer_to, self._settings.twilio.caller_id))
        if end == End.CALLER or (end and End(end).planned):
            return _twiml(twiml.hang_up())
        number, _ = _ends(params)
        return _twiml(twiml.failed(_failure(self._settings.for_number(number))))

    async def status(self, request: web.Request) -> web.Response:
        """Callbacks about calls and streams."""
        params = await self._params(request)
        call = params.get("CallSid", "")
        event, state = params.get("StreamEvent", ""), params.get("CallStatus", "")
        if event == "stream-error":
            log.warning("Twilio reports a stream error", call=call, error=params.get("StreamError", ""))
        else:
            log.debug("status", call=call, status=event or state)
        if state in OVER:
            self._board.admission.forget(call)
            if live := self._board.calls.get(call):
                live.end(End.CALLER)
        return web.Response(status=204)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The media stream. Who it is shows at its start message, before a slot is taken."""
        auth.check_origin(request.headers, self._base)
        self._check_handshake(request)
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False, timeout=CLOSE_LIMIT)
        await socket.prepare(request)
        await Call(self._board, TwilioLine(), SocketWire(request, socket)).run()
        return socket

    def _refuse(self, call: str, settings: Calls, refused: Refused) -> web.Response:
        self._board.metrics.refused[refused.why] += 1
        log.warning("call refused", call=call, why=str(refused))
        if refused.why == "engine":
            return _twiml(twiml.failed(_failure(settings)))
        if settings.busy == "say":
            return _twiml(twiml.say_and_hang_up(settings.busy_sentence))
        return _twiml(twiml.rejected())

    async def _params(self, request: web.Request) -> Mapping[str, str]:
        """The request's parameters, once its sender is known to be Twilio, or this machine in open mode."""
        form: Mapping[str, str] = await _form(request) if request.method == "POST" else {}
        params = form if request.method == "POST" else request.query
        token = self._settings.twilio.auth_token.get_secret_value()
        if token:
            url = signature.public(self._base, request.raw_path)
            given = request.headers.get("X-Twilio-Signature", "")
            if not signature.webhook_ok(token, url, form, given):
                log.warning(
                    "webhook refused: the signature does not fit",
                    hashed_url=url,
                    remedy="server.public_url must be the address that the number's webhook has in the Twilio console,"
                    " and twilio.auth_token that account's",
                )
                raise auth.Denied(403, "the signature does not fit")
        else:
            auth.check_local(request.remote or "", request.headers)
        return params

    def _check_handshake(self, request: web.Request) -> None:
        settings = self._settings.twilio
        token = settings.auth_token.get_secret_value()
        if not token:
            auth.check_local(request.remote or "", request.headers)
            return
        given = request.headers.get("X-Twilio-Signature", "")
        matched = signature.handshake_ok(token, self._base, request.raw_path, given)
        if matched:
            log.debug("stream handshake signed", as_url=matched)
        elif settings.enforce_handshake:
            log.warning("stream refused: the handshake is not signed for any known spelling of its URL")
            raise auth.Denied(403, "the handshake's signature does not fit")
        else:
            log.debug("stream handshake not signed for any known spelling of its URL", signed=bool(given))


async def _form(request: web.Request) -> Mapping[str, str]:
    """The fields of a form, repeated ones too. What is no form is its sender's fault."""
    if request.body_exists and request.content_type != FORM:
        raise auth.Denied(415, f"a body of type {request.content_type[:100]!r}; only {FORM} is taken here")
    try:
        return cast(Mapping[str, str], await request.post())  # files come only in the types that were refused
    except (ValueError, LookupError) as error:
        raise auth.Denied(400, f"the body is not a form: {error}") from None


def _ends(params: Mapping[str, str]) -> tuple[str, str]:
    """The number of ours that the call goes through, and the other side's."""
    ours, theirs = params.get("To", ""), params.get("From", "")
    return (theirs, ours) if params.get("Direction", "").startswith("outbound") else (ours, theirs)


def _failure(settings: Calls) -> twiml.Failure:
    return twiml.Failure(settings.apology, settings.fallback_number)


def _machine(answered_by: str) -> bool:
    return answered_by.startswith("machine") or answered_by == "fax"


def _twiml(document: str) -> web.Response:
    return web.Response(text=document, content_type="text/xml")
