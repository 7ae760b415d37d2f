"""Why a visitor's stream was reset, as the code that yamux lets a reset carry; neither side need look at it."""

from enum import IntEnum


class ResetCode(IntEnum):
    """0 says nothing, as from programs that know no codes."""

    UNKNOWN = 0
    SERVICE_RESET = 1
    """From the client: the local service has broken its connection off."""
    SERVICE_TIMEOUT = 2
    """From the server: the local service has not answered in time."""
