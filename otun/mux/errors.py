"""Exceptions that are otun's and Trio's at once."""

import trio

from ..errors import OtunError, RegistrationRefused


class SessionClosed(OtunError, trio.BrokenResourceError, trio.ClosedResourceError):
    """The session has ended, and with it every stream that had not finished.

    *is_clean* tells an orderly end, by either side, from a failure; *code* is the peer's GoAway code, if it sent one.
    It is both of Trio's exceptions because either side may have ended the session.
    """

    def __init__(self, message: str, *, is_clean: bool = False, code: int | None = None) -> None:
        super().__init__(message)
        self.is_clean = is_clean
        self.code = code


class TunnelEnded(SessionClosed):
    """The server has ended the tunnels of a client, and has said why.

    *refusal* is what it said: its class, *code* and *is_retryable* tell whether to come back.
    """

    def __init__(self, message: str, refusal: RegistrationRefused) -> None:
        super().__init__(message)
        self.refusal = refusal


class TunnelLost(SessionClosed):
    """The server was lost, and a client's tunnels could not be opened again.

    *error* is what was in the way last, such as a `ServerUnreachable` when the attempts in one outage were limited.
    """

    def __init__(self, message: str, error: OtunError) -> None:
        super().__init__(message)
        self.error = error


class StreamReset(OtunError, trio.BrokenResourceError):
    """The peer ended one stream at once; what was under way on it is lost.  Some peers say why by a *code*."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
