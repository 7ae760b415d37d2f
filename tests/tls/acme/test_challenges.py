"""What the ports answer while an authority looks."""

import hashlib
import ssl
import subprocess
import sys

import pytest
from cryptography import x509

from otun.tls.acme import Challenges
from otun.tls.acme.tls_alpn import challenge_context


def test_nothing_is_answered_unless_it_is_offered() -> None:
    challenges = Challenges(has_http=True, has_tls_alpn=True)
    assert challenges.http_answer("token") is None
    with challenges.offering_http("token", b"token.thumbprint"):
        assert challenges.http_answer("token") == b"token.thumbprint"
        assert challenges.http_answer("other") is None
    assert challenges.http_answer("token") is None


def test_context_is_there_for_its_name_while_it_is_offered() -> None:
    challenges = Challenges(has_http=True, has_tls_alpn=True)
    context = challenge_context("app.example.test", "token.thumbprint")
    with challenges.offering_tls_alpn("app.example.test", context):
        assert challenges.tls_alpn_context("app.example.test") is context
        assert challenges.tls_alpn_context("example.test") is None
    assert challenges.tls_alpn_context("app.example.test") is None


@pytest.mark.parametrize(
    ("has_http", "has_tls_alpn", "has_dns_hook", "name", "kinds"),
    [
        (True, True, True, "a.test", ("tls-alpn-01", "http-01", "dns-01")),
        (True, False, False, "a.test", ("http-01",)),
        (False, True, True, "a.test", ("tls-alpn-01", "dns-01")),
        (False, False, False, "a.test", ()),
        (True, True, True, "*.a.test", ("dns-01",)),
        (True, True, False, "*.a.test", ()),
    ],
)
def test_kinds_depend_on_the_ports_and_the_hook(
    has_http: bool, has_tls_alpn: bool, has_dns_hook: bool, name: str, kinds: tuple[str, ...]
) -> None:
    challenges = Challenges(has_http=has_http, has_tls_alpn=has_tls_alpn)
    assert challenges.kinds_for(name, has_dns_hook=has_dns_hook) == kinds


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Let two contexts shake hands; the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(side)
    return sides[0]


def test_tls_alpn_certificate_is_as_the_specification_asks() -> None:
    """RFC 8737, section 3."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols(["acme-tls/1"])
    connection = handshake(challenge_context("app.example.test", "token.thumbprint"), client, "app.example.test")
    assert connection.selected_alpn_protocol() == "acme-tls/1"
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("app.example.test")]
    identifier = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert identifier.critical
    assert isinstance(identifier.value, x509.UnrecognizedExtension)
    assert identifier.value.value == b"\x04\x20" + hashlib.sha256(b"token.thumbprint").digest()


def test_nothing_heavy_is_imported_before_an_issuer_is_made() -> None:
    program = "import sys, otun.tls.acme; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"acme", "josepy", "requests", "cryptography"} & set(modules)
