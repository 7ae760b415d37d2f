"""Which tunnel belongs to which session, and which one a visitor's host means."""

import attrs

from ..mux import Session


@attrs.frozen(eq=False)
class Registration:
    """A tunnel: a name, and the session of the client that answers for it."""

    name: str
    session: Session


class Registry:
    """The tunnels that are open on a server."""

    def __init__(self, domain: str | None) -> None:
        self._suffix = f".{domain or 'localhost'}"
        self._has_domain = domain is not None
        self._tunnels: dict[str, Registration] = {}

    def __len__(self) -> int:
        return len(self._tunnels)

    def __contains__(self, name: object) -> bool:
        return name in self._tunnels

    def add(self, registration: Registration) -> None:
        """Open a tunnel; its name must be free."""
        assert registration.name not in self._tunnels
        self._tunnels[registration.name] = registration

    def remove(self, registration: Registration) -> None:
        """Close the tunnel."""
        del self._tunnels[registration.name]

    def find(self, host: str) -> Registration | None:
        """Return the tunnel that *host* means: in lower case, without a port.

        The whole host is compared, never a part of it.  On a server without a domain, a host that names no tunnel means
        the only one there is.
        """
        if host.endswith(self._suffix):
            return self._tunnels.get(host.removesuffix(self._suffix))
        if not self._has_domain and len(self._tunnels) == 1:
            return next(iter(self._tunnels.values()))
        return None
