"""One tunnel over all its registrations."""

from urllib.parse import urlsplit

import attrs

from ..control.messages import Register, Registered
from .events import EventLog
from .visitors import Visitors


class Lease:
    """What is asked for, what was granted last, who comes by it, and what has happened to it."""

    def __init__(self, asked: Register) -> None:
        self.visitors: Visitors = Visitors()
        self.events: EventLog = EventLog()
        self.is_healthy: bool = True  # The local service, as far as is known.
        self._asked = asked
        self._granted: Registered | None = None
        self._kept = asked

    @property
    def id(self) -> str:
        """The tunnel's name between this client and its server."""
        return self._asked.id

    @property
    def granted(self) -> Registered:
        """What the server has granted last.  It must have done so."""
        assert self._granted is not None
        return self._granted

    @property
    def request(self) -> Register:
        """What to ask for: at first what is wanted, and then the same name or port again, whoever has chosen it."""
        return self._kept

    @property
    def has_servers_choice(self) -> bool:
        """Whether more is asked for than was wanted."""
        return self._kept != self._asked

    def grant(self, granted: Registered) -> None:
        """The server has opened the tunnel."""
        self._granted = granted
        if self._asked.kind == "tcp":
            self._kept = attrs.evolve(self._asked, remote_port=self._asked.remote_port or _port_of(granted.url))
        else:
            self._kept = attrs.evolve(self._asked, subdomain=granted.subdomain)

    def forget_choice(self) -> None:
        """Let the server choose anew what it has chosen before."""
        self._kept = self._asked

    def end(self) -> None:
        """The tunnel has ended for good."""
        self.visitors.end()
        self.events.end()


def _port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None
