"""Who may use what: client tokens, and the checks that keep strangers off an open bridge."""

from .denied import Denied
from .doors import check_local, check_origin, host_of
from .keys import BadKeys
from .tokens import SCOPES, Claims, Scope, Tokens, mint

__all__ = [
    "SCOPES",
    "BadKeys",
    "Claims",
    "Denied",
    "Scope",
    "Tokens",
    "check_local",
    "check_origin",
    "host_of",
    "mint",
]
