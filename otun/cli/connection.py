"""How a client reaches its server: where it is, whether it is to be believed, and the token to show."""

import os
from functools import partial
from typing import Annotated, Final

import attrs
import typer

from ..addresses import TcpAddress, parse_server_address
from ..client.proxies import ProxyAddress
from ..errors import ConfigurationError
from ..tls.contexts import CertificateFiles
from ..tls.fingerprints import Fingerprint
from ..tls.trust import Trust
from .layers import Layers, flag_for, parse_switch, variable_for
from .proxies import read_proxy
from .tokens import check_token, read_token_file

DEFAULT_SERVER_PORT: Final = 4443

ServerOption = Annotated[
    str | None,
    typer.Option(metavar="HOST[:PORT]", help=f"The server's control port [default port: {DEFAULT_SERVER_PORT}]."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="What the server asks for. Other users see it in the process list: "
        "OTUN_TOKEN, --token-file or the configuration file keep it to yourself.",
    ),
]
TokenFileOption = Annotated[str | None, typer.Option(metavar="FILE", help="A file with the token, and nothing else.")]
PlaintextOption = Annotated[
    bool | None,
    typer.Option("--plaintext", help="Do without TLS. The default is TLS, except to this machine.", show_default=False),
]
CaOption = Annotated[
    str | None,
    typer.Option(
        "--ca", metavar="FILE", help="Authorities that the server's certificate may come from, in PEM [the system's]."
    ),
]
FingerprintOption = Annotated[
    str | None,
    typer.Option(
        metavar="sha256:HEX", help="Of the server's own certificate, as the server prints it: no other one will do."
    ),
]
ClientCertOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="The certificate that this client shows, in PEM.")
]
ClientKeyOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="The key of --client-cert, unless it is in the same file.")
]


@attrs.frozen(kw_only=True)
class Connection:
    """What `otun.open_tunnels` is told of the server."""

    server: TcpAddress
    token: str | None = attrs.field(default=None, repr=False)
    trust: Trust | None = None
    plaintext: bool = False
    proxy: ProxyAddress | None = None


def read_connection(layers: Layers) -> Connection:
    """Return what *layers* say of the server.  Raises `ConfigurationError`."""
    server = _read_server(layers)
    return Connection(
        server=server,
        token=_read_token(layers),
        trust=_read_trust(layers),
        plaintext=layers.read("plaintext", parse_switch) or False,
        proxy=read_proxy(layers, server, os.environ),
    )


def _read_server(layers: Layers) -> TcpAddress:
    server = layers.read("server", partial(parse_server_address, default_port=DEFAULT_SERVER_PORT))
    if server is None:
        raise missing("server", "which server?", "HOST")
    return server


def _read_token(layers: Layers) -> str | None:
    """Return the token of the strongest source that has one, as it is or in a file."""
    source = layers.strongest_with("token", "token_file")
    names = source.names_of("token", "token_file")
    if len(names) > 1:
        raise ConfigurationError(f"{' and '.join(names)} both say which token to show: give one of them")
    path = source.read_path("token_file")
    return source.read("token", check_token) if path is None else read_token_file(path)


def _read_trust(layers: Layers) -> Trust | None:
    ca, certificate, key = (layers.read_path(setting) for setting in ("ca", "client_cert", "client_key"))
    fingerprint = layers.read("fingerprint", Fingerprint.parse)
    if ca is None and fingerprint is None and certificate is None and key is None:
        return None
    if layers.read("plaintext", parse_switch):
        raise ConfigurationError("without TLS there are no certificates: --plaintext excludes the options for them")
    if ca is not None and fingerprint is not None:
        raise ConfigurationError("a fingerprint takes the place of all authorities: give --fingerprint or --ca")
    if certificate is None and key is not None:
        raise ConfigurationError("--client-key needs the certificate that it belongs to: give --client-cert")
    files = CertificateFiles(certificate, key) if certificate is not None else None
    trust = Trust(ca=ca, fingerprint=fingerprint, certificate=files)
    trust.context(())  # So that a mistake in a file shows before anything else.
    return trust


def missing(setting: str, question: str, value: str) -> ConfigurationError:
    """Return the error for a setting that there must be."""
    return ConfigurationError(
        f"{question} Give {flag_for(setting)} {value}, or set {variable_for(setting)} "
        f"or client.{setting} in the configuration file"
    )
