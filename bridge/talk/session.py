"""A talk: the client, its sound and its end, put together. Both interfaces steer it, and neither knows more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..device import Device, NoSound, Pcm
from ..lines.client import RATES
from . import typed
from .address import Address
from .client import Client, Event
from .playback import Playback
from .sound import Exchange, Mouth, Recording, pace

DEVICE_RATES = (24000, 48000)  # that bridges take; some hardware has only the second
FILE_RATE = 24000  # the engines' own, so that nothing is converted
QUIET = 2.0  # seconds in which nothing is heard: the answer to what was said last is over
AUDIBLE = 0.1  # of a meter; below it nothing is heard
LOOK = 0.1  # seconds between two looks at whether it is over
GOODBYE = 0.4  # seconds for the bridge's answer to a goodbye; with the socket's own, Ctrl-C takes less than one

assert set(DEVICE_RATES) <= set(RATES)


@dataclass(frozen=True)
class Plan:
    """How to talk. Without a file and unless it is `text` only, by microphone and loudspeaker."""

    where: Address
    wav: Path | None = None
    record: Path | None = None
    text: bool = False
    seconds: float | None = None
    loudspeaker: bool = False
    persona: str | None = None


class Figures(NamedTuple):
    seconds: float
    round_trip: float | None
    mouth_to_ear: float | None
    jitter: float
    underruns: int
    resumes: int


class Session:
    """One talk. `tell` gets what happens, on the loop; `read` every text of the bridge as it came.

    Raises NoSound without devices, OSError or ValueError for files that cannot be used.
    """

    def __init__(self, plan: Plan, tell: Callable[[Event], None], read: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.unfinished = False  # more is going to be typed
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._heard_at = self._began
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._mouth: Mouth | None = None
        self._device: Device | None = None
        rate = FILE_RATE
        if plan.wav or plan.text:
            self._mouth = Mouth(rate, plan.wav)
        else:
            self._device = Device(self._blocks, DEVICE_RATES, self._gone)
            rate = self._device.rate
        playback = Playback(rate)
        self._recording = Recording(plan.record, rate) if plan.record else None
        self.client = Client(plan.where, playback, tell, persona=plan.persona, read=read)
        self.exchange = Exchange(playback, self._send, self._played, self._recording)
        self.exchange.loudspeaker = plan.loudspeaker

    @property
    def figures(self) -> Figures:
        client = self.client
        return Figures(
            self._loop.time() - self._began,
            client.round_trip,
            client.mouth_to_ear,
            client.jitter,
            client.playback.underruns + (self._device.slips if self._device else 0),
            client.resumes,
        )

    def do(self, command: typed.Command) -> None:
        match command:
            case typed.Say(text):
                self.client.say(text)
            case typed.Inject(context):
                self.client.inject(context)
            case typed.Press(digits):
                for digit in digits:
                    self.client.press(digit)
            case typed.Mute():
                self.exchange.muted = not self.exchange.muted
            case typed.Speaker():
                self.exchange.loudspeaker = not self.exchange.loudspeaker
            case typed.Quit():
                self.quit()

    def quit(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def run(self, *, stay: bool) -> str:
        """Talk to the end; gives how it ended. Who does not `stay` ends when all is said and the answer is heard.

        Raises Unreachable where there is no way in, NoSound when the device goes, OSError for a full disk.
        """
        async with AsyncExitStack() as stack:
            if self._recording:
                stack.callback(self._recording.close)
            talking = asyncio.create_task(self.client.run())
            stack.push_async_callback(_cancel, talking)
            tasks = [asyncio.create_task(self._watch(stay=stay))]
            if self._mouth:
                tasks.append(asyncio.create_task(pace(self.exchange, self._mouth)))
            for task in tasks:
                stack.push_async_callback(_cancel, task)
            if self._device:
                stack.enter_context(self._device)
                self.client.delay = self._device.delay
            ways: list[asyncio.Future[Any]] = [talking, self._over, *tasks]
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if talking not in done:
                for way in done:
                    way.result()
                self.client.close()
                await asyncio.wait([talking], timeout=GOODBYE)
            if talking.done():
                return talking.result()
        return "caller"

    async def _watch(self, *, stay: bool) -> None:
        """Write what there is to write; return when it is time to go."""
        while not self._is_time(stay=stay):
            await asyncio.sleep(LOOK)
            if self._recording:
                self._recording.flush()

    def _is_time(self, *, stay: bool) -> bool:
        now = self._loop.time()
        if self.plan.seconds is not None:
            return now - self._began >= self.plan.seconds
        more = self.unfinished or self.client.busy or not self.client.connected
        if stay or self._mouth is None or more or not self._mouth.finished or self.exchange.heard.now > AUDIBLE:
            self._heard_at = now
        return now - self._heard_at >= QUIET

    def _blocks(self, said: Pcm) -> Pcm:
        """The device is made before the exchange is, since it has a say in the rate."""
        return self.exchange(said)

    def _send(self, frame: Pcm) -> None:
        """Called where the sound is; the client is on the loop."""
        self._loop.call_soon_threadsafe(self.client.send, frame)

    def _played(self, position: int) -> None:
        self._loop.call_soon_threadsafe(self.client.played, position)

    def _gone(self) -> None:
        self._loop.call_soon_threadsafe(self._lose_device)

    def _lose_device(self) -> None:
        if not self._over.done():
            self._over.set_exception(NoSound("the microphone or the loudspeaker has gone; connect it and call again"))


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
