"""`/v1/watch`: operators see the calls live, and what is said in them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from . import auth, ledger
from .doors import SUBPROTOCOL, OperatorsDoor
from .feed import Watcher
from .observe import logs
from .sockets import CLOSE_LIMIT, SocketWire
from .switchboard import Switchboard

EVERY = 1.0  # seconds between boards: as often as people look
MOST = 32  # watchers; each takes the event loop some 20 us a message
MAX_UP = 1024  # bytes of a message from a watcher, who has nothing to say
HEARTBEAT = 10.0  # seconds between pings; half of that later whoever does not answer is gone
KEEP_UP = WSCloseCode.TRY_AGAIN_LATER, "you do not keep up; connect again"
STOPS = WSCloseCode.GOING_AWAY, "the bridge stops"

log = logs.get()


class Watch:
    def __init__(self, board: Switchboard, door: OperatorsDoor) -> None:
        self._board = board
        self._door = door

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/watch", self.watch, allow_head=False)]

    async def watch(self, request: web.Request) -> web.StreamResponse:
        await self._door.check(request)
        socket = web.WebSocketResponse(
            max_msg_size=MAX_UP, compress=False, timeout=CLOSE_LIMIT, heartbeat=HEARTBEAT, protocols=(SUBPROTOCOL,)
        )
        if not socket.can_prepare(request):
            raise auth.Denied(426, "this is a WebSocket: docs/operating.md says what it tells")
        feed = self._board.feed
        if len(feed.watchers) >= MOST:
            raise auth.Denied(503, f"{MOST} watch already; try again when one of them has left")
        await socket.prepare(request)
        watcher = feed.watch(ledger.board_now(self._board))
        works: tuple[Coroutine[Any, Any, object], ...] = (
            _listen(socket), _tell(socket, watcher), watcher.over.wait(),
        )  # fmt: skip
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if watcher.behind:
                log.warning("a watcher did not keep up and was let go")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await SocketWire(request, socket).close(*(KEEP_UP if watcher.behind else STOPS))
        finally:
            for task in tasks:
                task.cancel()
            feed.leave(watcher)
        return socket


async def _listen(socket: web.WebSocketResponse) -> None:
    """Nothing goes up; this answers pings, and ends with the socket."""
    async for _ in socket:
        pass


async def _tell(socket: web.WebSocketResponse, watcher: Watcher) -> None:
    while True:
        await socket.send_frame(await watcher.next(), WSMsgType.TEXT)


async def tell_boards(board: Switchboard) -> None:
    """Tell all watchers once a second how the bridge is, as long as it runs."""
    while True:
        await asyncio.sleep(EVERY)
        if board.feed.watchers:
            board.feed.tell(ledger.board_now(board))
