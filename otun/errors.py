"""Every exception otun raises, as one tree under `OtunError`.

Some are Trio's exceptions as well, so that code written for any Trio stream handles them: `SessionClosed`,
`TunnelEnded` and `StreamReset` live in `otun.mux.errors`.  This module imports nothing.
"""


class OtunError(Exception):
    """The base of everything that otun raises on purpose.  Its text is one line, written for people."""


class ConfigurationError(OtunError):
    """A setting, flag, file or address that cannot be used."""


class AddressError(ConfigurationError):
    """Text that is no address of the form that was asked for."""


class ListenError(OtunError):
    """The server could not listen on an address: it is taken, not ours, or not permitted."""


class DatabaseError(OtunError):
    """The server's database could not be read or written; what it held before, it holds still.

    *path* is the file, and *reason* says what was in the way, such as "No space left on device".
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"database {path}: {reason}")
        self.path = path
        self.reason = reason


class ServerUnreachable(OtunError):
    """The client could not connect to the server."""


class ServerNotTrusted(OtunError):
    """The server's certificate is not one that the client believes; nothing was said to it."""


class RegistrationRefused(OtunError):
    """The server answered the registration with an error; its text is the server's.

    *code* names the reason for programs (empty when the server sent none); *is_retryable* says whether the same
    registration may succeed later.  The classes below are for the codes that this version knows; a newer server's
    others come as this one.
    """

    def __init__(self, message: str, *, code: str = "", is_retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_retryable = is_retryable


class TokenRefused(RegistrationRefused):
    """The token is missing, wrong, expired, or revoked; the server's operator makes another one."""


class NameTaken(RegistrationRefused):
    """The name, host name or port is somebody else's, or no port is free: choose another one, or none.

    It may be free later if *is_retryable*; otherwise it is reserved.
    """


class NotAllowed(RegistrationRefused):
    """The server, or the token, does not allow what was asked for: ask for less, or its operator for more."""


class InvalidRegistration(RegistrationRefused):
    """What was asked for is not valid, such as a name that is none: correct it, or use versions that fit together."""


class TunnelUnprotected(OtunError):
    """The server has opened a tunnel without the rules for visitors that were asked for; the tunnel was given up.

    Nobody was served.  The server is older than those rules.
    """


class ProtocolError(OtunError):
    """Somebody broke a protocol's rules."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol forbids in the present state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids; the connection cannot go on."""


class LimitExceeded(RemoteProtocolError):
    """The peer has passed one of its session's limits; *limit* is the name of the field of `otun.SessionLimits`."""

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(f"{message} (limit: {limit})")
        self.limit = limit


class BadMessage(RemoteProtocolError):
    """A control message that cannot be understood; its text says what is wrong with it."""


class BadProxyHeader(RemoteProtocolError):
    """A connection that does not start with an acceptable PROXY header; its text says what is wrong with it."""


class BadClientHello(RemoteProtocolError):
    """A connection that does not start with an acceptable TLS ClientHello; its text says what is wrong with it.

    *alert* is the number of the AlertDescription to answer with (RFC 8446, section 6).
    """

    def __init__(self, message: str, *, alert: int) -> None:
        super().__init__(message)
        self.alert = alert


class BadRequest(RemoteProtocolError):
    """An HTTP request that is refused with *status* before it reaches any tunnel."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BadResponse(RemoteProtocolError):
    """A response of a local service that no visitor may see; its text goes on from "the response is refused:"."""


class BadBody(RemoteProtocolError):
    """A body that is not what its framing promises; its text says what is wrong with it."""


class InvalidName(OtunError):
    """Text that cannot be a tunnel's name, because it is no DNS label."""
