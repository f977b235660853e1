"""One stream in progress: the caller's mouth and ear, on a clock, at the end of a wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .call import Arrival, Call, MarkSeen, audible_at
from .clock import TICK, Clock
from .network import Network
from .playout import Playout
from .protocol import RATE, Clear, Mark, Media, MediaStream, TwilioError
from .sound import Source
from .websocket import Closed, WebSocket
from .wire import Alter, Wire

DIGIT_TICKS = 15  # a digit every 300 ms, about as fast as Twilio dials them
WAIT_TICKS = 25  # a `w` waits half a second


def check_digits(digits: str) -> str:
    """Digits to press, with `w` for half a second's wait; ValueError for anything else."""
    wrong = "".join(sorted(set(digits) - set("0123456789*#ABCDw")))
    if wrong:
        raise ValueError(f"cannot press {wrong!r} of {digits!r}; use 0-9 * # A-D, and w to wait half a second")
    return digits


@dataclass(frozen=True)
class Handset:
    """The caller's side of every stream: what is said, who hears it, and how bad the road is."""

    mouth: Source
    ear: Callable[[bytes], None] | None
    network: Network
    alter: Alter | None


class Leg:
    """Runs a stream until one side ends it.

    What happens goes into `call`; `changed` is called when there is news, `time_up` once, `seconds` into the stream.
    """

    def __init__(
        self,
        call: Call,
        stream: MediaStream,
        handset: Handset,
        clock: Clock,
        *,
        seconds: float | None,
        time_up: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._call = call
        self._stream = stream
        self._handset = handset
        self._clock = clock
        self._last_tick = None if seconds is None else round(seconds / TICK)
        self._time_up = time_up
        self._changed = changed
        self._start = clock.now()
        self._playout = Playout()
        self._marks: dict[str, deque[MarkSeen]] = {}  # those still to be returned
        self._keys: deque[tuple[int, str]] = deque()  # (tick, digit) still to be pressed
        self._leaving = ""  # why this side is ending the stream
        self._wire: Wire | None = None
        call.gaps = self._playout.gaps

    async def run(self, socket: WebSocket) -> str:
        """Live through the stream on a fresh socket, and say in words how it ended."""
        self._start = self._clock.join(self._tick)
        wire = Wire(socket, self._handset.network, self._start, self._clock, self._handset.alter)
        self._wire = wire
        try:
            wire.send(self._stream.connected())
            wire.send(self._stream.start())
            socket.closed.add_done_callback(self._closed)
            self._changed()
            return await self._ended
        finally:
            self._clock.leave(self._tick)
            wire.drop()

    @property
    def wire(self) -> Wire:
        if self._wire is None:
            raise RuntimeError("the stream is not open yet")
        return self._wire

    def press(self, digits: str, *, after: float = 0.0) -> None:
        """Press digits one after the other, the first one `after` seconds from now."""
        tick = self._call.ticks + round(after / TICK)
        if self._keys:
            tick = max(tick, self._keys[-1][0] + DIGIT_TICKS)
        for digit in check_digits(digits):
            if digit == "w":
                tick += WAIT_TICKS
            else:
                self._keys.append((tick, digit))
                tick += DIGIT_TICKS

    def leave(self, why: str) -> None:
        """End the stream as Twilio does: `stop`, then a goodbye, after what is still on its way."""
        if not self._leaving:
            self._leaving = why
            self._clock.leave(self._tick)
            self.wire.send(self._stream.stop())
            self.wire.close()

    def cut(self, why: str) -> None:
        """Drop the connection without a word."""
        self._leaving = why
        self.wire.drop()

    def receive(self, data: bytes, is_text: bool) -> None:
        """A message from the bridge."""
        if self._leaving or self._ended.done():
            return
        call, now = self._call, self._now()
        match self._stream.receive(data) if is_text else self._stream.receive_binary():
            case Media(media=media):
                if call.first_media is None:
                    call.first_media = now
                call.arrivals.append(Arrival(now, len(media.payload), self._playout.buffered))
                self._playout.add(media.payload)
            case Mark(mark=mark):
                seen = MarkSeen(mark.name, now)
                call.marks.append(seen)
                self._marks.setdefault(mark.name, deque()).append(seen)
                if self._playout.mark(mark.name):
                    self._return(mark.name)
            case Clear():
                call.clears.append(now)
                for name in self._playout.clear():
                    self._return(name, cleared=True)
            case TwilioError():
                call.ignored = self._stream.ignored
        self._changed()

    def _tick(self, due: float) -> None:
        try:
            self._turn(due)
        except Exception as error:  # of a mouth or an ear: whoever awaits run() must hear of it
            if not self._ended.done():
                self._ended.set_exception(error)
        self._changed()

    def _turn(self, due: float) -> None:
        """20 ms: what has arrived begins to be heard, what was spoken meanwhile leaves."""
        call = self._call
        call.lateness.append(self._clock.now() - due)
        chunk, marks = self._playout.tick()
        for name in marks:
            self._return(name)
        if call.first_sound is None and (sample := audible_at(chunk)) is not None:
            call.first_sound = (len(call.heard_bytes) + sample) / RATE
        call.heard_bytes += chunk
        if self._handset.ear is not None:
            self._handset.ear(chunk)
        if call.ticks:
            self._speak(call.ticks - 1)
        while self._keys and self._keys[0][0] <= call.ticks:
            digit = self._keys.popleft()[1]
            call.digits.append((self._now(), digit))
            self.wire.send(self._stream.dtmf(digit))
        if call.ticks == self._last_tick:
            self._time_up()
        call.ticks += 1

    def _speak(self, number: int) -> None:
        chunk = self._handset.mouth(number)
        self._call.spoken_bytes += chunk
        if self.wire.loses():
            self._call.lost_chunks.append(number)
        else:
            self.wire.send(self._stream.media(chunk, number * 20), jitter=True)

    def _return(self, name: str, *, cleared: bool = False) -> None:
        seen = self._marks[name].popleft()
        seen.returned, seen.cleared = self._now(), cleared
        if not self._marks[name]:
            del self._marks[name]
        self.wire.send(self._stream.mark(name))

    def _closed(self, future: asyncio.Future[Closed]) -> None:
        closed = future.result()
        if self._leaving:
            how = self._leaving
        elif closed.fault:
            how = f"the bridge broke the WebSocket protocol: {closed.reason}"
            self._call.errors.append(TwilioError(31924, how))
        elif closed.code == 1006:
            how = "the connection to the bridge broke"
            self._call.errors.append(TwilioError(31903, how))
        else:
            how = "the bridge closed the stream"
            if closed.code not in (1000, 1001, 1005):
                how += f" with code {closed.code} {closed.reason}".rstrip()
        if not self._ended.done():
            self._ended.set_result(how)

    def _now(self) -> float:
        """Seconds of the stream; its clock begins a moment after its first message."""
        return max(0.0, self._clock.now() - self._start)
