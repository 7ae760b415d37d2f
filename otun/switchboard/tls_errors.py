"""What goes wrong with TLS, as `OSError` with a text for people."""

import errno
import re
import ssl
from typing import Final

_WORDS: Final = re.compile(r"^\[[^]]*\] ?| \(_ssl\.c:\d+\)$")
"""What Python puts around OpenSSL's words."""

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13) (?:ALERT )?")
"""How OpenSSL begins the reasons that are alerts."""

_ALERTS: Final = {"PROTOCOL VERSION": "no common version of TLS"}

_REASONS: Final = {
    "HTTP REQUEST": "it speaks HTTP, not TLS",
    "HTTPS PROXY REQUEST": "it speaks HTTP, not TLS",
    "WRONG VERSION NUMBER": "it does not speak TLS",
    "UNSUPPORTED PROTOCOL": "no common version of TLS",
    "NO SHARED CIPHER": "no common cipher",
    "NO APPLICATION PROTOCOL": "no common protocol (ALPN)",
    "PEER DID NOT RETURN A CERTIFICATE": "it showed no certificate",
}


class TlsAlert(OSError):
    """The peer has refused the connection, or ended it, and said why (RFC 8446, section 6)."""


class TlsVerificationError(OSError):
    """The peer's certificate is not one to be believed."""


def explain_tls_error(error: ssl.SSLError) -> OSError:
    """Return an `OSError` that says in a few words what `ssl` says in its own way."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsVerificationError(errno.EPROTO, error.verify_message or "the certificate is not valid")
    if isinstance(error, ssl.SSLZeroReturnError):
        return ConnectionAbortedError(errno.ECONNABORTED, "the other side has ended the connection")
    # Python does not know the names of all reasons; OpenSSL's words for them are in the text.
    reason = (error.reason or _WORDS.sub("", error.strerror or "") or "it failed").replace("_", " ").upper()
    alert = _ALERT.match(reason)
    if alert is not None:
        said = reason[alert.end() :]
        return TlsAlert(errno.EPROTO, f"the other side said: {_ALERTS.get(said, said.lower())}")
    return OSError(errno.EPROTO, _REASONS.get(reason, reason.lower()))
