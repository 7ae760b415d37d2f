"""The folder that outlives the server."""

import json
import os
from pathlib import Path

import pytest
import trustme

from otun import private_files
from otun.errors import ConfigurationError
from otun.tls.acme.certificates import join, read_certificate
from otun.tls.acme.store import PendingOrder, Store
from otun.tls.keys import key_from_pem, key_to_pem, new_key

from .authority import issue
from .pebble import Log, mode_of

PRODUCTION = "https://ca.example/directory"
STAGING = "https://staging.ca.example/directory"


@pytest.fixture
def store(state: Path) -> Store:
    return Store(state, PRODUCTION)


def save_certificate(store: Store, name: str) -> None:
    key = new_key()
    store.save_certificate(name, join(name, key, issue(name, key.public_key())))


@pytest.mark.parametrize("name", ["example.test", "*.example.test", ".".join(["long" * 15] * 4)])
def test_what_is_saved_is_there_for_the_next_server(store: Store, state: Path, name: str) -> None:
    save_certificate(store, name)
    order = PendingOrder("https://ca.example/order/1", new_key())
    store.save_order(name, order)
    store.save_account_url("https://ca.example/account/1")
    store.save_new_names({name: 1.5})
    again = Store(state, PRODUCTION)
    assert key_to_pem(again.account_key) == key_to_pem(store.account_key)
    assert again.load_account_url() == "https://ca.example/account/1"
    assert again.load_certificate(name) == store.load_certificate(name) is not None
    found = again.load_order(name)
    assert found is not None
    assert (found.url, key_to_pem(found.key)) == (order.url, key_to_pem(order.key))
    assert again.load_new_names() == {name: 1.5}
    again.remove_order(name)
    assert store.load_order(name) is None


def test_nobody_else_can_read_the_files(store: Store, state: Path) -> None:
    save_certificate(store, "example.test")
    store.save_order("example.test", PendingOrder("https://ca.example/order/1", new_key()))
    store.save_account_url("https://ca.example/account/1")
    store.save_new_names({})
    modes = {
        path.is_dir(): {mode_of(place) for place in state.rglob("*") if place.is_dir() == path.is_dir()}
        for path in state.rglob("*")
    }
    assert modes == {True: {0o700}, False: {0o600}}


def test_wildcard_and_its_domain_have_files_of_their_own(store: Store) -> None:
    assert store.certificate_path("*.example.test").name == "_wildcard.example.test.pem"
    assert store.certificate_path("example.test").name == "example.test.pem"


def test_authorities_never_mix(store: Store, state: Path) -> None:
    other = Store(state, STAGING)
    save_certificate(store, "example.test")
    assert other.load_certificate("example.test") is None
    assert key_to_pem(other.account_key) != key_to_pem(store.account_key)


@pytest.mark.parametrize(
    "name", ["../escape", "a/b", "", ".", "a..b", "UPPER.test", "a\n.test", "*", "a.*.test", "-a.test"]
)
def test_what_is_no_host_name_is_no_file(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        store.certificate_path(name)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"url": 5, "key": "x"}', b'{"example.test": "x"}'])
def test_files_that_make_no_sense_are_missing(store: Store, log: Log, damage: bytes) -> None:
    save_certificate(store, "example.test")
    store.save_order("example.test", PendingOrder("https://ca.example/order/1", new_key()))
    store.save_account_url("https://ca.example/account/1")
    store.save_new_names({})
    for path in store.folder.rglob("*"):
        if path.is_file():
            path.write_bytes(damage)
    assert store.load_certificate("example.test") is None
    assert store.load_order("example.test") is None
    assert store.load_account_url() is None
    assert not store.load_new_names() or damage == b"{}"
    assert len(log.lines) == 4
    assert all("makes no sense" in line and line.count("\n") == 0 for line in log.lines)


def test_certificate_of_another_name_is_missing(store: Store, log: Log) -> None:
    save_certificate(store, "example.test")
    os.rename(store.certificate_path("example.test"), store.certificate_path("other.test"))
    assert store.load_certificate("other.test") is None
    assert "makes no sense" in log.lines[0]


def test_key_that_does_not_fit_is_found_out() -> None:
    chain = issue("example.test", new_key().public_key())
    with pytest.raises(ValueError, match="for another key"):
        join("example.test", new_key(), chain)
    with pytest.raises(ValueError, match="P-256"):
        key_from_pem(trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes())
    with pytest.raises(ValueError, match="key"):
        read_certificate("example.test", chain)


def test_damaged_account_key_is_put_aside(store: Store, state: Path, log: Log) -> None:
    store.save_account_url("https://ca.example/account/1")
    path = store.folder / "account.key"
    path.write_bytes(b"damaged")
    again = Store(state, PRODUCTION)
    assert path.with_suffix(".unusable").read_bytes() == b"damaged"
    assert key_to_pem(again.account_key) == path.read_bytes()
    assert again.load_account_url() is None
    assert "there will be a new account" in log.lines[0]


def test_account_key_that_cannot_be_read_is_not_thrown_away(store: Store, state: Path) -> None:
    path = store.folder / "account.key"
    path.unlink()
    path.mkdir()  # As unreadable as a file of somebody else's, even to root.
    with pytest.raises(ConfigurationError, match=r"account\.key cannot be read: Is a directory"):
        Store(state, PRODUCTION)


def test_folder_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="folder for certificates"):
        Store(tmp_path / "file", PRODUCTION)


def test_interrupted_write_leaves_what_there_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_account_url("https://ca.example/account/1")

    def fail(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(private_files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        store.save_account_url("https://ca.example/account/2")
    assert json.loads((store.folder / "account.json").read_text()) == {"url": "https://ca.example/account/1"}
    assert not list(store.folder.glob(".unfinished*"))


def test_what_a_crash_left_is_swept_up(store: Store, state: Path) -> None:
    left = store.folder / "certificates" / ".unfinished-abc"
    left.write_bytes(b"half a key")
    Store(state, PRODUCTION)
    assert not left.exists()
