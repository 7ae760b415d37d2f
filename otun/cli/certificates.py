"""The server's certificates: from files, or automatically."""

import re
from itertools import zip_longest
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..tls.acme.settings import LETS_ENCRYPT, AcmeSettings
from ..tls.contexts import CertificateFiles
from .layers import Layers, parse_switch

CertOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="A certificate and those above it, in PEM; repeatable. Reloaded when it changes."
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="The key of each --cert, in their order, unless it is in the same file."),
]
AcmeOption = Annotated[
    bool | None,
    typer.Option(
        "--acme",
        help="Get certificates from Let's Encrypt, whose terms you agree to with this, for the domain and for tunnels; "
        "--https is then :443 and --http :80, unless you say otherwise.",
        show_default=False,
    ),
]
AcmeDirectoryOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Get them from the authority with this ACME directory.")
]
AcmeCaOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Authorities that the directory's own certificate may come from.")
]
AcmeEmailOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where the authority may write to.")]
AcmeDnsHookOption = Annotated[
    str | None,
    typer.Option(
        metavar="PROGRAM",
        help="Run as PROGRAM add|remove NAME VALUE to change a TXT record; with it, there are wildcard certificates.",
    ),
]
ClientCaOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Clients must show one of these certificates, or one from these authorities, in PEM. "
        "Reloaded when it changes.",
    ),
]


def read_certificates(layers: Layers) -> tuple[CertificateFiles, ...]:
    """Return the files that *layers* name, in pairs.  Raises `ConfigurationError`."""
    certificates, keys = layers.read_paths("cert"), layers.read_paths("key")
    if keys and len(keys) != len(certificates):
        raise ConfigurationError(
            f"there are {len(certificates)} --cert and {len(keys)} --key: give a key for each certificate, "
            "or no key at all if each file holds both"
        )
    return tuple(CertificateFiles(*files) for files in zip_longest(certificates, keys))


def read_acme(layers: Layers) -> AcmeSettings | None:
    """Return whether, and how, certificates are to be had automatically.  Raises `ConfigurationError`."""
    directory = layers.read("acme_directory", _check_directory)
    is_wanted = layers.read("acme", parse_switch)
    details = layers.read_path("acme_ca"), layers.read("acme_email", str), layers.read("acme_dns_hook", str)
    if is_wanted is False or (is_wanted is None and directory is None):
        if any(details) or directory is not None:
            raise ConfigurationError("there are options for automatic certificates, but no --acme")
        return None
    ca, email, dns_hook = details
    return AcmeSettings(directory=directory or LETS_ENCRYPT, ca=ca, email=email, dns_hook=dns_hook)


def _check_directory(text: str) -> str:
    if not re.fullmatch(r"https://[!-~]+", text):
        raise ConfigurationError(f"{text!r} is no URL of an ACME directory; write https://HOST/PATH")
    return text
