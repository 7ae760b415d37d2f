"""Files that only their owner may read: whole, and on the disk."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from otun.private_files import read_or_make, write_atomically


def make(path: Path) -> None:
    assert read_or_make(path, lambda: b"secret") == b"secret"


def write(path: Path) -> None:
    write_atomically(path, b"secret")


def make_too_late(path: Path) -> None:
    def be_overtaken() -> bytes:
        path.write_bytes(b"secret")
        return b"mine"

    assert read_or_make(path, be_overtaken) == b"secret"


@pytest.mark.parametrize("way", [make, write, make_too_late])
def test_a_file_and_its_name_are_on_the_disk_when_it_has_been_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path], None]
) -> None:
    path = tmp_path / "token"
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append("folder" if is_folder and path.exists() else "file")

    monkeypatch.setattr(os, "fsync", fsync)
    way(path)
    assert synced == ["file", "folder"]
    assert path.read_bytes() == b"secret"
    assert os.listdir(tmp_path) == ["token"]


def test_what_is_there_is_read_and_nothing_else_is_made(tmp_path: Path) -> None:
    path = tmp_path / "token"
    make(path)
    assert read_or_make(path, lambda: b"another") == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
