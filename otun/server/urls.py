"""The public URL of a tunnel."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from ..addresses import TcpAddress
from .settings import ServerSettings


def public_url(
    settings: ServerSettings,
    name: str,
    *,
    client_host: str,
    reached_host: str,
    public_port: int,
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
    if public_port == 80:
        return f"http://[{host}]" if ":" in host else f"http://{host}"
    return f"http://{TcpAddress(host, public_port)}"
