"""Who terminates TLS reads the ClientHello again: the two must never read different names.

A visitor is routed by the name that otun reads, and answered by the certificate and the site of the name that OpenSSL
reads.  So whatever otun accepts, OpenSSL reads in the same way or refuses.
"""

import shutil
import ssl
import subprocess
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.tls.client_hello import ClientHello

from .hello_wire import (
    GROUPS,
    KEY,
    KEY_SHARE,
    SERVER_NAME,
    SIGNATURE_ALGORITHMS,
    SUPPORTED_VERSIONS,
    alpn,
    body,
    extension,
    hello,
    message,
    name,
    record,
    records,
    sni,
    vector,
)
from .reading import outcome
from .terminator import Seen, Terminator
from .test_client_hello_properties import host_names, nearly_extensions, sizes

TERMINATOR = Terminator(["h2", "http/1.1"])


def spelt_in_one_way(server_name: str | None) -> str | None:
    return None if server_name is None else server_name.lower().removesuffix(".")


def check_agreement(data: bytes) -> tuple[bool, bool]:
    """Compare what both read in *data*; return whether each accepts it."""
    ours = outcome([data])
    if not isinstance(ours, ClientHello):
        return False, False
    theirs = TERMINATOR.see(data)
    if not isinstance(theirs, Seen):
        return True, False
    assert ours.server_name == spelt_in_one_way(theirs.server_name)
    if theirs.protocol is not None:
        wanted = [protocol for protocol in (b"h2", b"http/1.1") if protocol in ours.alpn]
        assert theirs.protocol.encode() == wanted[0]
    return True, True


@pytest.mark.parametrize(
    ("extensions", "ours", "theirs"),
    [
        ([sni(b"a.example")], "a.example", "a.example"),
        ([sni(b"A.Example")], "a.example", "A.Example"),
        ([sni(b"a.example.")], "a.example", "a.example."),
        ([sni(b"192.0.2.1")], "192.0.2.1", "192.0.2.1"),
        ([sni(b"a" * 63 + b"." + b"b" * 63)], "a" * 63 + "." + "b" * 63, "a" * 63 + "." + "b" * 63),
        ([], None, None),
        ([extension(21, b"")], None, None),
        # What OpenSSL would hand on, and nobody could be routed by.
        ([sni(b"")], 112, ""),
        ([sni(b".")], 112, "."),
        ([sni(b"a..")], 112, "a.."),
        ([sni(b".a")], 112, ".a"),
        ([sni(b"a..b")], 112, "a..b"),
        ([sni(b"*.example")], 112, "*.example"),
        ([sni(b"a:443")], 112, "a:443"),
        ([sni(b"::1")], 112, "::1"),
        ([sni(b"a b")], 112, "a b"),
        ([sni(b"a\n")], 112, "a\n"),
        # What both refuse.
        ([sni(b"a\0")], 112, "BAD_EXTENSION"),
        ([sni(b"a\0.example")], 112, "BAD_EXTENSION"),
        ([sni(b"\0")], 112, "BAD_EXTENSION"),
        ([sni(b"a" * 256)], 112, "BAD_EXTENSION"),
        ([sni(b"a"), sni(b"b")], 47, "BAD_EXTENSION"),
        ([sni(b"a"), alpn(b"h2"), sni(b"b")], 47, "BAD_EXTENSION"),
        ([sni(b"a"), sni(b"a")], 47, "BAD_EXTENSION"),
        ([sni(b"a"), extension(SERVER_NAME, b"")], 47, "BAD_EXTENSION"),
        ([sni(b"a", b"b")], 47, "BAD_EXTENSION"),
        ([sni(b"a", b"a")], 47, "BAD_EXTENSION"),
        ([sni()], 50, "BAD_EXTENSION"),
        ([extension(SERVER_NAME, b"")], 50, "BAD_EXTENSION"),
        ([extension(SERVER_NAME, vector(2, name(b"a")) + b"\0")], 50, "BAD_EXTENSION"),
        ([extension(SERVER_NAME, vector(2, name(b"ab")[:-1]))], 50, "BAD_EXTENSION"),
        ([extension(SERVER_NAME, vector(2, name(b"ab"), length=4))], 50, "BAD_EXTENSION"),
        ([sni(b"a"), alpn()], 50, "BAD_EXTENSION"),
        ([sni(b"a"), alpn(b"h2", b"")], 50, "BAD_EXTENSION"),
        ([sni(b"a"), alpn(b"h2"), alpn(b"h2")], 47, "BAD_EXTENSION"),
        # Only otun reads on.
        ([extension(SERVER_NAME, vector(2, name(b"b", kind=1), name(b"a")))], "a", "BAD_EXTENSION"),
        ([extension(SERVER_NAME, vector(2, name(b"b", kind=1)))], None, "BAD_EXTENSION"),
        # Only OpenSSL lets what it does not know come twice.
        ([sni(b"a"), extension(0x0A0A, b""), extension(0x0A0A, b"")], 47, "a"),
    ],
)
def test_ways_in_which_two_might_differ(extensions: list[bytes], ours: str | int | None, theirs: str | None) -> None:
    data = hello(*extensions)
    found = outcome([data])
    assert (found.server_name if isinstance(found, ClientHello) else found and found[0]) == ours
    seen = TERMINATOR.see(data)
    assert (seen.server_name if isinstance(seen, Seen) else seen) == theirs
    check_agreement(data)


GOOD = message(body(sni(b"a")))


@pytest.mark.parametrize(
    ("data", "is_seen"),
    [
        (records(message(body(has_extensions=False))), True),
        (bytes.fromhex("80 2b 01 0303 0012 0000 0010 00c018") + bytes(37), True),
        (record(GOOD[:9]) + record(b"") + record(GOOD[9:]), True),
        (record(b"") + record(GOOD), True),
        (record(GOOD[:9]) + record(b"\1\0", kind=21) + record(GOOD[9:]), False),
        (record(GOOD[:9]) + record(b"\1", kind=20) + record(GOOD[9:]), False),
        (record(GOOD + message(body(sni(b"b")))), True),
        (record(GOOD) + record(message(body(sni(b"b")))), True),
        (record(GOOD, version=b"\3\0"), True),
        (record(GOOD, version=b"\3\7"), True),
        (record(GOOD, version=b"\2\3"), False),
        (records(message(body(sni(b"a"), session_id=bytes(33)))), False),
        (records(message(body(sni(b"a"), suites=b"\xc0\x18\0"))), False),
        (records(message(body(sni(b"a"), compression=b""))), False),
        (records(message(body(sni(b"a"), version=b"\2\0"))), False),
        (records(message(body(sni(b"a")) + b"\0")), False),
        (records(message(body(sni(b"a")), kind=2)), False),
    ],
)
def test_hellos_of_an_unusual_build(data: bytes, is_seen: bool) -> None:
    accepts, _ = check_agreement(data)
    assert isinstance(TERMINATOR.see(data), Seen) is is_seen
    assert is_seen or not accepts


# Letters that a name has, nearly has, or that some programs take for something else.
any_names = st.lists(
    st.sampled_from([*(bytes([byte]) for byte in b"aAzZ09-_. *:/%@\0\n\x7f"), b"example", b"xn--"])
).map(b"".join)
any_extensions = st.one_of(
    any_names.map(sni),
    st.lists(any_names, max_size=3).map(lambda names: sni(*names)),
    st.lists(st.sampled_from([b"h2", b"http/1.1", b"\x0a\x0a", b"h2\0"]), max_size=3).map(lambda them: alpn(*them)),
    nearly_extensions(),
)


@given(st.lists(any_extensions, max_size=4), sizes)
@settings(max_examples=500)
def test_nobody_reads_another_name(extensions: list[bytes], sizes: list[int]) -> None:
    check_agreement(hello(*extensions, sizes=sizes))


@given(host_names, st.lists(st.sampled_from([b"h2", b"http/1.1", b"\x0a\x0a"]), min_size=1, max_size=3), sizes)
def test_both_accept_what_is_right(host: str, protocols: list[bytes], sizes: list[int]) -> None:
    assert check_agreement(hello(sni(host.encode()), alpn(*protocols), sizes=sizes)) == (True, True)


@given(st.lists(st.text("abc12/", min_size=1, max_size=4), min_size=1, max_size=5, unique=True), st.randoms())
@settings(max_examples=30, deadline=None)  # A context takes a millisecond, and there are several.
def test_the_protocol_is_selected_among_those_that_were_read(protocols: list[str], random: Random) -> None:
    data = hello(alpn(*(protocol.encode() for protocol in protocols)))
    ours = outcome([data])
    assert isinstance(ours, ClientHello)
    preferred = [*protocols, "other"]
    random.shuffle(preferred)
    theirs = Terminator(preferred).see(data)
    assert isinstance(theirs, Seen)
    assert theirs.protocol == next(protocol for protocol in preferred if protocol.encode() in ours.alpn)
    assert [protocol for protocol in protocols if Terminator([protocol]).see(data) == Seen(None, protocol)] == [
        protocol.decode() for protocol in ours.alpn
    ]


def test_no_changed_bit_makes_a_difference() -> None:
    data = hello(sni(b"blue.example.org"), alpn(b"h2", b"http/1.1"), sizes=(90,))
    accepted = [
        check_agreement(data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :])
        for index in range(len(data))
        for bit in range(8)
    ]
    assert (True, True) in accepted
    assert (False, False) in accepted


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key on P-256 and a certificate for it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a.example", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-keyout", path, "-out", tmp_path / "only"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    path.write_bytes(path.read_bytes() + (tmp_path / "only").read_bytes())
    return path


@pytest.mark.interop
def test_openssl_does_not_mind_another_name_when_a_client_is_asked_again(certificate: Path) -> None:
    """The reader's docstring says so: should this fail one day, all the better."""
    signatures = extension(SIGNATURE_ALGORITHMS, vector(2, b"\4\3"))
    versions = extension(SUPPORTED_VERSIONS, vector(1, b"\3\4"))
    no_share = extension(KEY_SHARE, vector(2))
    share = extension(KEY_SHARE, vector(2, b"\0\x17", vector(2, KEY)))
    first, second = (
        record(message(body(GROUPS, signatures, versions, key, sni(name), suites=b"\x13\1")))
        for name, key in [(b"a.example", no_share), (b"b.example", share)]
    )
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _object, name, _context: names.append(name)
    incoming = ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    incoming.write(first)
    with pytest.raises(ssl.SSLWantReadError):  # A HelloRetryRequest has left.
        connection.do_handshake()
    incoming.write(second)
    with pytest.raises(ssl.SSLWantReadError):  # It has accepted.
        connection.do_handshake()
    assert names == ["a.example", "b.example"]
