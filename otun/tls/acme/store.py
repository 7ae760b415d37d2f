"""The folder in which an account, its orders and its certificates outlive the server."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import attrs

from ...errors import ConfigurationError
from ...private_files import make_private_folder, write_atomically
from ..keys import Key, key_from_pem, key_to_pem, new_key
from .certificates import Certificate, read_certificate

_LOG: Final = logging.getLogger(__name__)

_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")

_MAX_STEM: Final = 200
"""Characters of a file's name that stand for a host name; Linux allows 255, and a host name may have 253."""

_T = TypeVar("_T")


@attrs.frozen
class PendingOrder:
    """An order that has been made and not been carried out: where it is, and the key for its certificate."""

    url: str
    key: Key


class Store:
    """What is kept of one authority, by its directory's URL, so that no two of them ever mix.

    Raises `ConfigurationError` when the folder cannot be used, or the account's key cannot be read.
    A file that makes no sense is reported by one log line, and then it is as if it were missing.
    """

    def __init__(self, folder: Path, directory: str) -> None:
        host = re.sub(r"[^a-z0-9.-]", "-", (urlsplit(directory).hostname or "").lower())[:100]
        self.folder = folder / f"{host}-{hashlib.sha256(directory.encode()).hexdigest()[:16]}"
        self._certificates = self.folder / "certificates"
        self._orders = self.folder / "orders"
        try:
            for place in (self.folder, self._certificates, self._orders):
                make_private_folder(place)
        except OSError as error:
            raise ConfigurationError(f"folder for certificates {self.folder}: {error.strerror}") from error
        self.account_key = self._load_account_key()

    # Account

    def _load_account_key(self) -> Key:
        path = self.folder / "account.key"
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            return self._make_account_key(path)
        except OSError as error:
            raise ConfigurationError(f"the ACME account's key {path} cannot be read: {error.strerror}") from error
        try:
            return key_from_pem(pem)
        except (ValueError, TypeError):  # The latter for a key with a passphrase.
            aside = path.with_suffix(".unusable")
            _LOG.warning("%s holds no key for an ACME account: moved to %s; there will be a new account", path, aside)
            try:
                os.replace(path, aside)
            except OSError as error:
                raise ConfigurationError(f"{path} cannot be moved away: {error.strerror}") from error
            return self._make_account_key(path)

    def _make_account_key(self, path: Path) -> Key:
        key = new_key()
        try:
            self.forget_account_url()  # It was another key's.
            write_atomically(path, key_to_pem(key))
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
        return key

    def load_account_url(self) -> str | None:
        """Return the URL by which the authority knows the account."""
        return self._load(self.folder / "account.json", lambda data: _text(_object(data), "url"))

    def save_account_url(self, url: str) -> None:
        """Keep it.  Raises `OSError`."""
        write_atomically(self.folder / "account.json", json.dumps({"url": url}).encode())

    def forget_account_url(self) -> None:
        """Remove it.  Raises `OSError`."""
        (self.folder / "account.json").unlink(missing_ok=True)

    # Certificates

    def certificate_path(self, name: str) -> Path:
        """Return the file with the key and chain for *name*."""
        return self._certificates / f"{_stem(name)}.pem"

    def load_certificate(self, name: str) -> Certificate | None:
        """Return the certificate for *name*, which may have expired."""
        return self._load(self.certificate_path(name), lambda data: read_certificate(name, data))

    def save_certificate(self, name: str, certificate: Certificate) -> None:
        """Keep it, instead of the one before.  Raises `OSError`."""
        write_atomically(self.certificate_path(name), certificate.pem)

    # Orders

    def load_order(self, name: str) -> PendingOrder | None:
        """Return the order for *name* that is under way."""

        def parse(data: bytes) -> PendingOrder:
            fields = _object(data)
            return PendingOrder(_text(fields, "url"), key_from_pem(_text(fields, "key").encode()))

        return self._load(self._order_path(name), parse)

    def save_order(self, name: str, order: PendingOrder) -> None:
        """Keep it.  Raises `OSError`."""
        text = json.dumps({"url": order.url, "key": key_to_pem(order.key).decode()})
        write_atomically(self._order_path(name), text.encode())

    def remove_order(self, name: str) -> None:
        """Forget the order for *name*.  Raises `OSError`."""
        self._order_path(name).unlink(missing_ok=True)

    def _order_path(self, name: str) -> Path:
        return self._orders / f"{_stem(name)}.json"

    # Budget

    def load_new_names(self) -> dict[str, float]:
        """Return the names that count against the budget for new ones, and since when."""

        def parse(data: bytes) -> dict[str, float]:
            return {name: _number(since) for name, since in _object(data).items()}

        return self._load(self.folder / "new-names.json", parse) or {}

    def save_new_names(self, names: Mapping[str, float]) -> None:
        """Keep them.  Raises `OSError`."""
        write_atomically(self.folder / "new-names.json", json.dumps(dict(names)).encode())

    @staticmethod
    def _load(path: Path, parse: Callable[[bytes], _T]) -> _T | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("%s cannot be read (%s), and counts as missing", path, error.strerror)
            return None
        try:
            return parse(data)
        except (ValueError, TypeError) as error:
            # No quotation: there may be a key in the file.
            _LOG.warning("%s makes no sense (%s), and counts as missing", path, type(error).__name__)
            return None


def _stem(name: str) -> str:
    """Return *name* as a file's name.  Raises `ValueError` when it is no host name or wildcard in lower case."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name[:100]!r} is no host name in lower case")
    stem = name.replace("*", "_wildcard", 1)
    # No host name has a tilde.
    return stem if len(stem) <= _MAX_STEM else f"{stem[:100]}~{hashlib.sha256(name.encode()).hexdigest()}"


def _object(data: bytes) -> Mapping[str, object]:
    value: object = json.loads(data)
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise TypeError(f"no text {key}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError("no number")
    return float(value)
