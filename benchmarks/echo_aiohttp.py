"""The floor: aiohttp alone, saying back every message as it came. `python echo_aiohttp.py PORT`."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import WSMsgType, web


async def voice(request: web.Request) -> web.Response:
    twiml = f'<Response><Connect><Stream url="ws://{request.host}/twilio/stream"/></Connect></Response>'
    return web.Response(text=twiml, content_type="text/xml")


async def stream(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


def main() -> None:
    app = web.Application()
    app.add_routes([web.post("/twilio/voice", voice), web.get("/twilio/stream", stream)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
