"""Clients of a server that takes TLS: one whose TLS is Trio's and Python's, and otun's own, which is refused."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from otun import (
    CertificateFiles,
    ConfigurationError,
    ServerUnreachable,
    TcpAddress,
    Trust,
    open_session,
    open_tunnel,
    serve,
)

from .harness import loopback_settings, open_descriptors
from .raw_client import RawClient
from .services import receive_all

EVERYWHERE: Final = TcpAddress("0.0.0.0", 0)
"""An address that other machines reach."""

TLS_1_2: Final = (ssl.TLSVersion.TLSv1_2,)
TLS_1_3: Final = (ssl.TLSVersion.TLSv1_3,)

TLS_REQUIRED: Final = (
    "this server takes encrypted connections only: connect without --plaintext, "
    "and on the server's own machine with --fingerprint or --ca"
)


def reached(address: TcpAddress) -> TcpAddress:
    """An address of this machine for what listens everywhere."""
    return TcpAddress("127.0.0.1", address.port)


async def see_refusal(address: TcpAddress, trust: Trust) -> str:
    """Have otun's client fail to register; what it says."""
    with pytest.raises(ServerUnreachable) as caught:
        async with open_tunnel(address, name="app", token="SECRET", trust=trust):
            raise AssertionError("the tunnel has opened")
    return str(caught.value)


async def fail_to_start(**settings: object) -> str:
    """Have a server not start; what it says."""
    before = open_descriptors()
    with pytest.raises(ConfigurationError) as caught:
        await serve(loopback_settings(**settings))
    assert open_descriptors() == before
    return str(caught.value)


def context_for(
    ca: Path,
    *,
    certificate: CertificateFiles | None = None,
    versions: Sequence[ssl.TLSVersion] = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context that believes *ca*."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version, context.maximum_version = versions[0], versions[-1]
    if versions[0] < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # Otherwise OpenSSL itself refuses these versions.
    if certificate is not None:
        context.load_cert_chain(certificate.certificate, certificate.key)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


async def connect_tls(address: TcpAddress, context: ssl.SSLContext, *, name: str = "127.0.0.1") -> trio.SSLStream:
    """Connect, and encrypt the connection."""
    transport = await trio.open_tcp_stream(address.host, address.port)
    stream = trio.SSLStream(transport, context, server_hostname=name, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@asynccontextmanager
async def encrypted_client(address: TcpAddress, context: ssl.SSLContext) -> AsyncIterator[RawClient]:
    """The same, open a session, and its control stream."""
    transport = await connect_tls(address, context)
    async with open_session(transport, "client") as session:
        yield RawClient(session, transport, await session.open_stream())


async def fetch_https(address: TcpAddress, ca: Path) -> bytes:
    """Visit app.localhost; the whole answer."""
    stream = await connect_tls(address, context_for(ca, alpn=["http/1.1"]), name="app.localhost")
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
        return await receive_all(stream)
