"""Settings: `load` turns config.toml, the environment and the command line into one checked object."""

from .kinds import is_loopback
from .load import ConfigError, load
from .schema import Answering, Auth, Calls, Number, Settings
from .voice import Voice

__all__ = ["Answering", "Auth", "Calls", "ConfigError", "Number", "Settings", "Voice", "is_loopback", "load"]
