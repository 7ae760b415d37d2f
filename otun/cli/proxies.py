"""The proxy that a client goes through: its option, and what the environment says that every program reads."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import typer

from ..addresses import TcpAddress
from ..client.proxies import ProxyAddress, parse_proxy, proxy_from_environment
from .layers import Layers

_NO_PROXY: Final = "none"

ProxyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Reach the server through a proxy: http:// (CONNECT), socks5:// or socks5h://, then [USER:PASSWORD@]HOST "
        f"[:PORT, 1080 otherwise], or '{_NO_PROXY}' [default: HTTPS_PROXY or ALL_PROXY, unless NO_PROXY lists the "
        "server]. Other users see a password in the process list: OTUN_PROXY or the configuration file keep it to "
        "yourself.",
    ),
]


def read_proxy(layers: Layers, server: TcpAddress, environ: Mapping[str, str]) -> ProxyAddress | None:
    """Return the proxy that *layers* ask for; if they say nothing, the one of *environ* that other programs use.

    Raises `ConfigurationError`, whose message does not show a password.
    """
    chosen = layers.read("proxy", _parse)
    if chosen is None:
        return proxy_from_environment(environ, server)
    return None if chosen == _NO_PROXY else chosen


def _parse(text: str) -> ProxyAddress | Literal["none"]:
    return _NO_PROXY if text in ("", _NO_PROXY) else parse_proxy(text)
