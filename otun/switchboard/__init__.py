"""The data plane's engine: plain calls in one Trio task, on epoll where there is one.

It knows sockets, and nothing of yamux.
"""

from .board import Member, Switchboard
from .endpoint import Endpoint, LingeringClose, abort_socket, unsent_bytes
from .listener import Listener
from .opening import open_switchboard
from .phases import PhasedEndpoint
from .tls_errors import TlsAlert, TlsVerificationError
from .tls_handshake import TlsHandshake, shake_hands
from .tls_socket import TlsBuffers, TlsSocket

__all__ = [
    "Endpoint",
    "LingeringClose",
    "Listener",
    "Member",
    "PhasedEndpoint",
    "Switchboard",
    "TlsAlert",
    "TlsBuffers",
    "TlsHandshake",
    "TlsSocket",
    "TlsVerificationError",
    "abort_socket",
    "open_switchboard",
    "shake_hands",
    "unsent_bytes",
]
