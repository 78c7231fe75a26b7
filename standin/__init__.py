"""A local stand-in for Snowflake: the real connector talks to it over HTTP."""

from standin.lifecycle import Server, connection_parameters, ensure_running, reset, status, stop
from standin.serve import StartError

__all__ = [
    "Server",
    "StartError",
    "connection_parameters",
    "ensure_running",
    "reset",
    "status",
    "stop",
]
