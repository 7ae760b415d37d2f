"""A server's certificates: found by name, and errors in their files."""

from pathlib import Path

import pytest
import trio
import trio.testing

from otun.errors import ConfigurationError
from otun.tls import certificates
from otun.tls.certificates import Certificate, CertificateStore
from otun.tls.contexts import CertificateFiles, Purpose

from .issuing import Authority, fingerprint_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_is_found_by_its_name_or_by_the_wildcard_above(authority: Authority) -> None:
    store = CertificateStore()
    for names in (["one.example"], ["*.one.example", "two.example"], ["a.one.example"]):
        store.add(authority.issue(*names))
    one, wild, own = store._loaded.values()
    found = {name: store.find(name) for name in ("one.example", "b.one.example", "a.one.example", "two.example")}
    assert list(found.values()) == [one, wild, own, wild]
    assert [store.find(name) for name in ("", "example", "c.b.one.example", "*.example", "three.example")] == [None] * 5
    assert store.default is one


def test_of_two_for_a_name_the_one_that_lasts_longer_is_shown(authority: Authority) -> None:
    store = CertificateStore()
    old, new = store.add(authority.issue_expired("one.example")), store.add(authority.issue("one.example"))
    assert store.find("one.example") is new
    assert store.default is old


def test_each_purpose_has_a_context_of_its_own_from_the_start(authority: Authority) -> None:
    files = authority.issue("one.example")
    certificate = Certificate(files, client_ca=authority.path)
    files.certificate.unlink()  # It is not needed any more.
    visitors, clients = certificate.context(Purpose.VISITORS), certificate.context(Purpose.CLIENTS)
    assert (visitors.verify_mode.name, clients.verify_mode.name) == ("CERT_NONE", "CERT_REQUIRED")


def test_a_file_that_vanishes_while_it_is_read_is_an_error_of_the_configuration(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(path: Path, *_arguments: object) -> str:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    files = authority.issue("one.example")
    monkeypatch.setattr(Path, "read_text", vanish)
    with pytest.raises(ConfigurationError, match=f"^{files}: No such file or directory$"):
        Certificate(files)


def test_what_cannot_be_loaded_anew_leaves_all_as_it_was(authority: Authority) -> None:
    store = CertificateStore()
    files = authority.issue("one.example")
    certificate = store.add(files)
    context, fingerprint = certificate.context(Purpose.CLIENTS), certificate.fingerprint
    files.certificate.write_text("garbage")
    with pytest.raises(ConfigurationError):
        store.add(files)
    assert store.find("one.example") is certificate
    assert (certificate.context(Purpose.CLIENTS), certificate.fingerprint) == (context, fingerprint)


async def test_the_files_are_looked_at_every_5_seconds(
    authority: Authority, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_note(store: CertificateStore, certificate: Certificate, *arguments: object) -> None:
        take_real_note(store, certificate, *arguments)
        loaded.append(certificate)
        news.unpark_all()

    loaded: list[Certificate] = []
    news = trio.lowlevel.ParkingLot()
    take_real_note = CertificateStore._take_note
    monkeypatch.setattr(CertificateStore, "_take_note", take_note)
    autojump_clock.autojump_threshold = 0.01
    files, other = authority.issue("one.example"), authority.issue("two.example")
    store = CertificateStore()
    certificate = store.add(files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.keep_fresh)
        await trio.sleep(certificates.RELOAD_INTERVAL * 2.5)
        assert not loaded, "nothing has changed"
        files.certificate.write_bytes(other.certificate.read_bytes())
        await news.park()
        nursery.cancel_scope.cancel()
    assert certificate.names == {"two.example"}
    assert certificate.fingerprint == fingerprint_of(other)
    assert store.find("two.example") is certificate
    assert store.find("one.example") is None


def test_two_files_are_one_certificate(authority: Authority, tmp_path: Path) -> None:
    both = authority.issue("one.example").certificate
    key = tmp_path / "key.pem"
    key.write_bytes(both.read_bytes())
    assert Certificate(CertificateFiles(both, key)).names == {"one.example"}
