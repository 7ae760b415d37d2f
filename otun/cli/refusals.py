"""A server's refusals as the user of the command line sees them: what it says, and what to do."""

from typing import Final

from ..errors import RegistrationRefused
from ..mux.errors import TunnelEnded
from .escaping import escape_text

_MAX_SENTENCE: Final = 500
"""Characters of what the server says, so that there is room for what to do."""

_ANOTHER_TOKEN: Final = "ask the server's operator for another one"

_HINTS: Final = {
    "bad_token": "set OTUN_TOKEN, or --token-file FILE, to one that its operator has made",
    "expired_token": _ANOTHER_TOKEN,
    "token_revoked": _ANOTHER_TOKEN,
    "name_taken": "choose another --name or --hostname, or leave it out",
    "port_taken": "choose another --remote-port, or leave it out",
    "no_port_free": "try again when another tunnel has ended",
    "name_not_allowed": "choose another --name, or ask the server's operator",
    "port_not_allowed": "without --remote-port the server chooses one, if it has any for you",
    "group_mismatch": "give all clients of the group the same options, and log-ins as hashes",
    "too_many_tunnels": "open fewer, or end another one first",
    "banned": "ask the server's operator",
    "bad_message": "client and server may be of versions that do not fit together",
    "taken_over": "if this client runs twice, give one of them another --name",
    "kicked": "ask the server's operator",
}
"""What to do, by the refusal's code; the others' sentences say it."""


def describe_refusal(error: RegistrationRefused | TunnelEnded) -> str:
    """Return what the server says, shortened and safe to show, and what to do."""
    code = error.refusal.code if isinstance(error, TunnelEnded) else error.code
    sentence = escape_text(str(error), limit=_MAX_SENTENCE)
    return f"{sentence}; {_HINTS[code]}" if code in _HINTS else sentence
