"""Certificates in files: which one is for a name, what is wrong with one, and whether it has changed."""

import logging
import os
import ssl
import stat
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from otun.errors import ConfigurationError
from otun.tls.certificates import Certificate, CertificateStore
from otun.tls.contexts import CertificateFiles, Purpose, load_authorities, server_context
from otun.tls.fingerprints import Fingerprint

from .issuing import Authority, in_days, write_anew


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def store() -> CertificateStore:
    return CertificateStore()


def key_of(files: CertificateFiles) -> Path:
    assert files.key is not None
    return files.key


# By name


def test_a_certificate_is_found_by_each_of_its_names(authority: Authority, store: CertificateStore) -> None:
    first = store.add(authority.certify("a.example", "b.example", into="first"))
    second = store.add(authority.certify("*.c.example", "c.example", into="second"))
    assert first is not second
    for name, found in {
        "a.example": first,
        "b.example": first,
        "c.example": second,
        "x.c.example": second,
        "x.y.c.example": None,
        "xc.example": None,
        "example": None,
        "a.example.org": None,
        "x.a.example": None,
        "": None,
        ".": None,
    }.items():
        assert store.find(name) is found, name


def test_a_name_of_its_own_goes_before_a_wildcard(authority: Authority, store: CertificateStore) -> None:
    wildcard = store.add(authority.certify("*.example.org", into="wildcard", ends=in_days(100)))
    own = store.add(authority.certify("a.example.org", into="own", ends=in_days(1)))
    assert store.find("a.example.org") is own
    assert store.find("b.example.org") is wildcard


def test_names_count_in_lower_case(authority: Authority, store: CertificateStore) -> None:
    certificate = store.add(authority.certify("MiXeD.example"))
    assert store.find("mixed.example") is certificate


def test_addresses_are_no_names(authority: Authority, store: CertificateStore) -> None:
    certificate = store.add(authority.certify("127.0.0.1", "::1"))
    assert store.find("127.0.0.1") is None
    assert certificate.names == frozenset()
    assert store.default is certificate


def test_names_outside_the_extension_do_not_count(tmp_path: Path, store: CertificateStore) -> None:
    """As for browsers (RFC 9525, section 2): a common name is for people."""
    made = trustme.CA().issue_cert(common_name="common.example")
    files = CertificateFiles(tmp_path / "both.pem")
    made.private_key_and_cert_chain_pem.write_to_path(files.certificate)
    store.add(files)
    assert store.find("common.example") is None


def test_key_and_certificate_may_be_in_one_file(tmp_path: Path, store: CertificateStore) -> None:
    made = trustme.CA().issue_cert("a.example")
    files = CertificateFiles(tmp_path / "both.pem")
    made.private_key_and_cert_chain_pem.write_to_path(files.certificate)
    assert store.add(files).names == {"a.example"}
    write_anew(files.certificate, made.cert_chain_pems[0].bytes() + made.private_key_pem.bytes())
    assert store.add(files).names == {"a.example"}


def test_the_first_is_for_everybody_else_and_stays_so(authority: Authority, store: CertificateStore) -> None:
    assert store.default is None
    first = authority.certify("a.example", into="first")
    store.add(first)
    store.add(authority.certify("b.example", into="second", ends=in_days(9999)))
    authority.certify("c.example", into="first")
    again = store.add(first)
    assert store.default is again
    assert again.names == {"c.example"}
    assert store.find("a.example") is None


def test_an_expired_certificate_is_warned_of_by_its_file(
    authority: Authority, store: CertificateStore, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.certify("a.example", ends=in_days(-1))
    certificate = store.add(files)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(files.certificate) in record.getMessage()
    assert f"{certificate.ends:%Y-%m-%d}" in record.getMessage()
    assert store.find("a.example") is certificate
    caplog.clear()
    store.add(authority.certify("b.example", into="sound"))
    assert not caplog.records


def test_the_fingerprint_is_that_of_the_first_certificate_in_the_file(authority: Authority) -> None:
    files = authority.certify("a.example")
    der = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
    assert Certificate(files).fingerprint == Fingerprint.of(der)


# What is wrong


def break_nothing_there(files: CertificateFiles) -> None:
    files.certificate.unlink()


def break_no_key(files: CertificateFiles) -> None:
    key_of(files).unlink()


def break_a_folder(files: CertificateFiles) -> None:
    files.certificate.unlink()
    files.certificate.mkdir()


def break_other_key(files: CertificateFiles) -> None:
    write_anew(key_of(files), trustme.CA().issue_cert("b.example").private_key_pem.bytes())


def break_password(files: CertificateFiles) -> None:
    key = load_pem_private_key(key_of(files).read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write_anew(key_of(files), encrypted)


def break_empty(files: CertificateFiles) -> None:
    write_anew(files.certificate, b"")


def break_half(files: CertificateFiles) -> None:
    write_anew(files.certificate, files.certificate.read_bytes()[:300])


def break_no_pem(files: CertificateFiles) -> None:
    write_anew(files.certificate, ssl.PEM_cert_to_DER_cert(files.certificate.read_text()))


def break_swapped(files: CertificateFiles) -> None:
    files.certificate.rename(files.certificate.with_name("other"))
    key_of(files).rename(files.certificate)
    files.certificate.with_name("other").rename(key_of(files))


def break_odd_name(files: CertificateFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    nobody, oid = x509.Name([]), x509.SubjectAlternativeName.oid
    builder = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, in_days(-1), in_days(1))
    builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x30\x04\xa3\x02\x30\x00"), critical=False)
    write_anew(files.certificate, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    write_anew(key_of(files), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


BREAKS = {
    break_odd_name: "{certificate}: the certificate cannot be read",
    break_nothing_there: "{certificate}: No such file",
    break_no_key: "{key}: No such file",
    break_a_folder: "{certificate}: Is a directory",
    break_other_key: "the key in {key} does not belong to the certificate in {certificate}",
    break_password: "the key in {key} has a password",
    break_empty: "{certificate} and {key} hold no certificate and its key in PEM",
    break_half: "{certificate} and {key} hold no certificate and its key in PEM",
    break_no_pem: "{certificate} and {key} hold no certificate and its key in PEM",
    break_swapped: "{certificate} and {key} hold no certificate and its key in PEM",
}
breaks = pytest.mark.parametrize("spoil", BREAKS, ids=lambda function: function.__name__)


@breaks
def test_a_file_that_cannot_be_used_is_named(authority: Authority, spoil) -> None:
    files = authority.certify("a.example")
    spoil(files)
    with pytest.raises(ConfigurationError) as caught:
        Certificate(files)
    expected = BREAKS[spoil].format(certificate=files.certificate, key=files.key)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_may_not_be_read_is_named(authority: Authority) -> None:
    files = authority.certify("a.example")
    key_of(files).chmod(0)
    with pytest.raises(ConfigurationError, match=r"server\.key: Permission denied"):
        Certificate(files)
    key_of(files).chmod(stat.S_IRUSR)


def test_authorities_in_a_file_that_is_none(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path / "empty", tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError):
            load_authorities(context, path)


def test_visitors_and_clients_get_contexts_of_their_own(authority: Authority) -> None:
    files = authority.certify("a.example")
    certificate = Certificate(files, client_ca=authority.path)
    visitors, clients = certificate.context(Purpose.VISITORS), certificate.context(Purpose.CLIENTS)
    assert visitors.verify_mode is ssl.CERT_NONE
    assert clients.verify_mode is ssl.CERT_REQUIRED
    assert (visitors.num_tickets, clients.num_tickets) == (2, 0)
    for context in (visitors, clients, server_context(files, Purpose.VISITORS)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert certificate.context(Purpose.CLIENTS) is clients


@breaks
def test_a_context_for_clients_is_there_whatever_has_become_of_the_files(authority: Authority, spoil) -> None:
    files = authority.certify("a.example")
    certificate = Certificate(files)
    spoil(files)
    assert certificate.context(Purpose.CLIENTS)


# Loaded anew


def test_what_has_not_changed_is_not_loaded_anew(authority: Authority, store: CertificateStore) -> None:
    certificate = store.add(authority.certify("a.example"))
    store.reload()
    assert store.default is certificate


def test_what_has_changed_is_loaded_anew(
    authority: Authority, store: CertificateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = store.add(authority.certify("other.example", into="other"))
    store.add(authority.certify("a.example"))
    files = authority.certify("b.example")
    store.reload()
    assert store.find("a.example") is None
    found = store.find("b.example")
    assert found is not None
    assert store.default is store.find("other.example") is other
    (record,) = caplog.records
    assert record.getMessage() == f"certificate {files.certificate}: loaded anew"
    store.reload()
    assert store.find("b.example") is found
    assert len(caplog.records) == 1


def test_a_file_that_is_written_in_place_has_changed(authority: Authority, store: CertificateStore) -> None:
    files = authority.certify("a.example")
    store.add(files)
    new = authority.certify("b.example", into="new")
    files.certificate.write_bytes(new.certificate.read_bytes())
    key_of(files).write_bytes(key_of(new).read_bytes())
    store.reload()
    assert store.find("b.example")


def test_a_link_that_leads_elsewhere_has_changed(authority: Authority, store: CertificateStore) -> None:
    """As those of certbot do."""
    old, new = authority.certify("a.example", into="1"), authority.certify("b.example", into="2")
    files = CertificateFiles(authority.folder / "live.pem", authority.folder / "live.key")
    files.certificate.symlink_to(old.certificate)
    key_of(files).symlink_to(key_of(old))
    store.add(files)
    for link, target in ((files.certificate, new.certificate), (key_of(files), key_of(new))):
        link.unlink()
        link.symlink_to(target)
    store.reload()
    assert store.find("b.example")


@breaks
def test_the_old_one_stays_when_the_new_one_is_broken_and_that_is_said_once(
    authority: Authority, store: CertificateStore, caplog: pytest.LogCaptureFixture, spoil
) -> None:
    caplog.set_level(logging.INFO)
    files = authority.certify("a.example")
    certificate = store.add(files)
    spoil(files)
    for _ in range(3):
        store.reload()
    assert store.find("a.example") is store.default is certificate
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"certificate {files.certificate}: it has changed, but the old one stays: ")


@breaks
def test_a_file_that_is_mended_is_loaded(authority: Authority, store: CertificateStore, spoil) -> None:
    files = authority.certify("a.example")
    store.add(files)
    spoil(files)
    store.reload()
    if files.certificate.is_dir():
        files.certificate.rmdir()
    authority.certify("b.example")
    store.reload()
    assert store.find("b.example")


@pytest.mark.parametrize("is_key_first", [True, False])
def test_key_and_certificate_need_not_be_replaced_at_the_same_moment(
    authority: Authority, store: CertificateStore, is_key_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.certify("a.example")
    certificate = store.add(files)
    new = authority.certify("b.example", into="new")
    pairs = [(files.certificate, new.certificate), (key_of(files), key_of(new))]
    (first, its_new), (second, other_new) = pairs[::-1] if is_key_first else pairs
    write_anew(first, its_new.read_bytes())
    store.reload()
    assert store.default is certificate
    assert len(caplog.records) == 1
    write_anew(second, other_new.read_bytes())
    store.reload()
    assert store.find("b.example") is store.default
    assert len(caplog.records) == 1


def test_a_file_that_vanishes_while_it_is_read_is_no_end(
    authority: Authority, store: CertificateStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.certify("a.example")
    certificate = store.add(files)
    authority.certify("b.example")

    def load_and_remove(files: CertificateFiles, *arguments: object, **keywords: object) -> ssl.SSLContext:
        context = server_context(files, *arguments, **keywords)  # type: ignore[arg-type]
        files.certificate.unlink(missing_ok=True)
        return context

    monkeypatch.setattr("otun.tls.certificates.server_context", load_and_remove)
    store.reload()
    assert store.default is certificate
    assert "the old one stays" in caplog.text
