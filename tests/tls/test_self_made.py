"""The certificate that a server makes itself."""

import os
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from otun.errors import ConfigurationError
from otun.tls.certificates import Certificate
from otun.tls.self_made import own_certificate


def test_it_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = own_certificate(tmp_path, "otun.example")
    finally:
        os.umask(before)
    whole = files.certificate.read_bytes()
    assert files.certificate.stat().st_mode & 0o777 == 0o600
    assert own_certificate(tmp_path, "other.example") == files
    assert files.certificate.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["control.pem"]


def test_it_is_for_a_name_and_for_a_long_time_and_no_authority(tmp_path: Path) -> None:
    certificate = Certificate(own_certificate(tmp_path, "otun.example"))
    assert certificate.names == {"otun.example"}
    leaf = x509.load_pem_x509_certificate(certificate.files.certificate.read_bytes())
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days > 10 * 365
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_those_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    def make() -> None:
        barrier.wait(10)
        texts.append(own_certificate(tmp_path, "otun.example").certificate.read_bytes())

    texts: list[bytes] = []
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["control.pem"]


@pytest.mark.parametrize("call", ["open", "fsync", "link"])
def test_what_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_arguments: object, **_keywords: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"otun.tls.self_made.os.{call}", fail)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
        own_certificate(tmp_path, "otun.example")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate(tmp_path, "otun.example").certificate)
