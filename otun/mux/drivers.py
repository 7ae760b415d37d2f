"""Drivers move a session's bytes: `TaskDriver` over any Trio stream, `BoardDriver` on the switchboard."""

from typing import Final, Protocol

CLOSE_TIMEOUT: Final = 5.0
"""Seconds in which, at an orderly end, the peer must take something of what is left, and then close its side."""


class Driver(Protocol):
    """Whoever moves a session's bytes."""

    @property
    def is_backlogged(self) -> bool:
        """Whether the transport has not taken all output yet.  It fails by itself when it takes none for long."""

    def output_ready(self) -> None:
        """`Session.take_output` has something."""

    def session_ended(self) -> None:
        """Send what is left, and close the transport."""

    def abort(self) -> None:
        """Close the transport at once."""

    async def aclose(self) -> None:
        """Wait, not too long, until what is left is sent and the transport closed.  Cancelled, it is closed at once."""
