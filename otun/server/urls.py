"""The public URL of a tunnel."""

from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs

from ..addresses import TcpAddress
from .settings import ServerSettings


def _has_none(host: str) -> bool:
    return False


@attrs.frozen(kw_only=True)
class PublicPorts:
    """Where visitors come in, and for which hosts there is, or will be, a certificate."""

    http: int | None = None
    https: int | None = None
    has_certificate: Callable[[str], bool] = _has_none

    def url(self, host: str) -> str:
        """Return the URL of *host*: by HTTPS if that works, or if there is nothing else."""
        if self.https is not None and (self.http is None or self.has_certificate(host)):
            return f"https://{_authority(host, self.https, 443)}"
        assert self.http is not None
        return f"http://{_authority(host, self.http, 80)}"


def _authority(host: str, port: int, usual: int) -> str:
    if port == usual:
        return f"[{host}]" if ":" in host else host
    return str(TcpAddress(host, port))


def public_url(
    settings: ServerSettings,
    name: str,
    *,
    client_host: str,
    reached_host: str,
    ports: PublicPorts,
    host: str | None = None,
) -> str:
    """Return where visitors find the tunnel *name*, which may have a *host* name of its own.

    *client_host* is the client's address and *reached_host* the one of ours that it connected to: a client on the same
    machine is given a name under `localhost`, and another one the address that has worked for it.  Of a *public_url* in
    the settings, the scheme and port count for own host names, too.
    """
    if host is not None and settings.public_url is not None:
        front = urlsplit(settings.public_url)
        return f"{front.scheme}://{host}" if front.port is None else f"{front.scheme}://{TcpAddress(host, front.port)}"
    if host is not None:
        pass
    elif settings.public_url is not None:
        return settings.public_url.replace("{name}", name)
    elif settings.domain is not None:
        host = f"{name}.{settings.domain}"
    elif ip_address(client_host.partition("%")[0]).is_loopback:
        host = f"{name}.localhost"
    else:
        host = reached_host
    return ports.url(host)
