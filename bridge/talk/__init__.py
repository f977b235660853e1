"""The terminal client of `/v1/stream`, for `voice-bridge talk`."""
