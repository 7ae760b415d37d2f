"""Records that no library would send, under the keys of a connection (RFC 8446, section 5; RFC 5288, section 3)."""

import hashlib
import hmac
import ssl
import struct
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .tls_peers import Puppet, new_client_context

ALERT: Final = 21
HANDSHAKE: Final = 22
DATA: Final = 23

CLIENT_HELLO: Final = b"\1\0\0\0"
"""The beginning of one; OpenSSL asks for no more where none is wanted."""

UPDATE: Final = b"\x18\0\0\1\0"
UPDATE_REQUESTED: Final = b"\x18\0\0\1\1"

_HASH: Final = hashlib.sha384
_KEY_SIZE: Final = 32


def logging_context(path: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's context that writes its secrets to *path*, and knows ciphers with AES-256-GCM."""
    context = new_client_context()
    context.maximum_version = version
    context.set_ciphers("ECDHE+AES256+AESGCM")
    context.keylog_filename = str(path)
    return context


def _secret(path: Path, label: str) -> bytes:
    lines = [line.split() for line in path.read_text().splitlines()]
    return next(bytes.fromhex(line[2]) for line in reversed(lines) if line[0] == label)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1, for no more than one block."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + b"\0\1"
    return hmac.digest(secret, info, _HASH)[:size]


class Forger13:
    """Goes on in the place of a client of TLS 1.3 that has sent nothing since its handshake."""

    def __init__(self, puppet: Puppet, path: Path) -> None:
        cipher = puppet.tls.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        self._take_secret(_secret(path, "CLIENT_TRAFFIC_SECRET_0"))

    def _take_secret(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(_expand(secret, b"key", _KEY_SIZE))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12), "big")
        self._number = 0

    def record(self, kind: int, content: bytes, *, padding: int = 0) -> bytes:
        """A record with whatever in it."""
        plain = content + bytes([kind]) + bytes(padding)
        header = struct.pack("!BHH", DATA, 0x303, len(plain) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._aead.encrypt(nonce, plain, header)

    def key_update(self, message: bytes = UPDATE) -> bytes:
        """A KeyUpdate; what follows is under the next keys (section 7.2)."""
        record = self.record(HANDSHAKE, message)
        self._take_secret(_expand(self._secret, b"traffic upd", _HASH().digest_size))
        return record


class Forger12:
    """The same in TLS 1.2 (RFC 5246, section 6.3)."""

    def __init__(self, puppet: Puppet, path: Path) -> None:
        cipher = puppet.tls.cipher()
        assert cipher is not None
        assert cipher[0].endswith("AES256-GCM-SHA384")
        line = path.read_text().splitlines()[-1].split()
        client_random, master = bytes.fromhex(line[1]), bytes.fromhex(line[2])
        server_random = puppet.received_ciphertext[11:43]  # Of the ServerHello.
        block = _prf(master, b"key expansion" + server_random + client_random, 2 * _KEY_SIZE + 8)
        self._aead = AESGCM(block[:_KEY_SIZE])
        self._salt = block[2 * _KEY_SIZE : 2 * _KEY_SIZE + 4]
        self._number = 1  # Behind Finished.

    def record(self, kind: int, content: bytes) -> bytes:
        """A record with whatever in it."""
        number = struct.pack("!Q", self._number)
        self._number += 1
        additional = number + struct.pack("!BHH", kind, 0x303, len(content))
        sealed = number + self._aead.encrypt(self._salt + number, content, additional)
        return struct.pack("!BHH", kind, 0x303, len(sealed)) + sealed


def _prf(secret: bytes, seed: bytes, size: int) -> bytes:
    output, block = b"", seed
    while len(output) < size:
        block = hmac.digest(secret, block, _HASH)
        output += hmac.digest(secret, block + seed, _HASH)
    return output[:size]
