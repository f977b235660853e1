"""The process in which a mouth speaks: other people's code, and arithmetic that the engine shall not wait for.

`python -m voice_bridge.engines.mouths.process FD`. It ends when the engine's end is closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic

import numpy as np

from .. import wire as process
from ..wire import Kind, Packet
from . import piper, pocket, wire
from .sound import Speak

LOAD: dict[str, Callable[[str, int], list[Speak]]] = {"piper": piper.load, "pocket": pocket.load}

TRIAL = "Thank you for calling, one moment please."  # a sentence of usual length; nobody hears it
HANG = 20.0  # seconds without a piece: ten times what the longest takes
READ = 1 << 16  # bytes a read; there is little to read

log = logging.getLogger("voice_bridge.mouth")


class Server:
    """Takes sentences and answers pings on one thread, speaks on others."""

    def __init__(self, sock: socket.socket, speakers: list[Speak]) -> None:
        """Each speaker has a thread of its own."""
        self._sock = sock
        self._speakers = speakers
        self._sending = threading.Lock()
        self._waiting: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._wanted: set[int] = set()
        self._since: dict[int, float] = {}  # of those who speak: when they began a piece

    def serve(self) -> None:
        """Until the other end is closed. Whoever speaks then does not notice."""
        for number, speak in enumerate(self._speakers):
            threading.Thread(target=self._work, args=(number, speak), name="mouth", daemon=True).start()
        self._send(process.pack_struct(Kind.READY, self._health()))
        unpacker = process.Unpacker()
        with contextlib.suppress(ConnectionError):  # whoever is killed closes it in the middle of something
            while data := self._sock.recv(READ):
                for packet in unpacker.feed(data):
                    self._take(packet)

    def _take(self, packet: Packet) -> None:
        if packet.kind == Kind.PING:
            if all(monotonic() - since < HANG for since in list(self._since.values())):
                self._send(process.pack_struct(Kind.HEALTH, self._health()))
        elif packet.kind == Kind.TELL:
            match wire.decode_tell.decode(packet.payload):
                case wire.Say(text):
                    self._wanted.add(packet.conversation)
                    self._waiting.put((packet.conversation, text))
                case wire.Drop():
                    self._wanted.discard(packet.conversation)

    def _work(self, number: int, speak: Speak) -> None:
        while True:
            id, text = self._waiting.get()
            try:
                self._speak(number, id, text, speak)
                event: wire.Event = wire.Spoken()
            except Exception as error:  # this sentence is at fault; the next one is another
                event = wire.Failed(type(error).__name__)
                log.error("a sentence could not be spoken: %s", event.kind)
            self._since.pop(number, None)
            self._wanted.discard(id)
            self._send(process.pack_struct(Kind.EVENT, event, id))

    def _speak(self, number: int, id: int, text: str, speak: Speak) -> None:
        self._since[number] = monotonic()
        with contextlib.closing(speak(text)) as pieces:
            for pcm in pieces:
                if id not in self._wanted:
                    return
                if len(pcm):
                    self._send(process.pack(Kind.SOUND, id, 0, np.ascontiguousarray(pcm, np.float32).tobytes()))
                self._since[number] = monotonic()

    def _health(self) -> process.Health:
        return process.Health(len(self._speakers), 0.0, 0.0, 0, 0)

    def _send(self, data: bytes) -> None:
        with self._sending, contextlib.suppress(OSError):  # whom it is for has gone: `serve` ends
            self._sock.sendall(data)


def _load(init: wire.MouthInit, progress: Callable[[str], None]) -> list[Speak]:
    """A speaker for each thread, once all of them have spoken."""
    progress(f"loading {init.kind}")
    speakers = LOAD[init.kind](init.voice, init.threads)
    progress("speaking for a trial")
    for speak in dict.fromkeys(speakers):
        if not sum(map(len, speak(TRIAL))):
            raise ValueError(f"{init.kind} says nothing with the voice {init.voice or 'that comes with it'}")
    return speakers


def main() -> None:
    # Others' warnings have pieces of a sentence in them.
    logging.basicConfig(level=logging.CRITICAL, format="%(message)s")
    log.setLevel(logging.WARNING)
    sock = socket.socket(fileno=int(sys.argv[1]))
    init = process.first(sock, wire.MouthInit)

    def progress(text: str) -> None:
        sock.sendall(process.pack(Kind.PROGRESS, payload=text.encode()))

    try:
        server = Server(sock, _load(init, progress))
    except (ValueError, OSError) as error:  # what was asked for cannot be had: its line says it all
        sock.sendall(process.pack(Kind.FAILED, payload=str(error).encode()))
        sys.exit(1)
    except Exception as error:
        sock.sendall(process.pack(Kind.FAILED, payload=f"{type(error).__name__}: {error}".encode()))
        raise
    server.serve()
    os._exit(0)  # not after what is still spoken


if __name__ == "__main__":
    main()
