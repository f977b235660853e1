"""The built-in phone: a strict double of Twilio, for `voice-bridge dial`, tests and benchmarks."""

from .call import Arrival, Call, MarkSeen
from .clock import Clock
from .network import Network
from .phone import ACCOUNT, Phone
from .playout import Gap
from .protocol import TwilioError
from .sound import tone
from .twiml import signature

__all__ = [
    "ACCOUNT",
    "Arrival",
    "Call",
    "Clock",
    "Gap",
    "MarkSeen",
    "Network",
    "Phone",
    "TwilioError",
    "signature",
    "tone",
]
