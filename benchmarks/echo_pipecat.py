"""What others do: pipecat's own Twilio transport, saying back what it hears. `python echo_pipecat.py RATE PORT`.

It runs in a virtual environment of its own, with pipecat's defaults, and gets uvloop as we do. At 8 kHz, as in
pipecat's examples for Twilio, it resamples nothing; at 24 kHz it does what a model of that rate asks of us too.
"""

from __future__ import annotations

import json
import sys

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

RATE = int(sys.argv[1])

logger.remove()
app = FastAPI()


class Echo(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


@app.post("/twilio/voice")
async def voice(request: Request) -> Response:
    url = f"ws://{request.headers['host']}/twilio/stream"
    return Response(f'<Response><Connect><Stream url="{url}"/></Connect></Response>', media_type="text/xml")


@app.websocket("/twilio/stream")
async def stream(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()  # connected
    start = json.loads(await socket.receive_text())["start"]
    serializer = TwilioFrameSerializer(
        start["streamSid"], start["callSid"], params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    transport = FastAPIWebsocketTransport(
        socket, FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer)
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: FastAPIWebsocketTransport, socket: WebSocket) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        log_level="critical",
        ws_ping_interval=None,
    )
