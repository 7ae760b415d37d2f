"""The state folder belongs to one server at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from otun.errors import ConfigurationError
from otun.server.admin.place import StateFolderBusy, claimed_place


def test_a_missing_folder_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with claimed_place(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "server.lock").stat().st_mode & 0o777 == 0o600


def test_two_servers_never_share_a_folder(tmp_path: Path) -> None:
    with (
        claimed_place(tmp_path),
        pytest.raises(
            StateFolderBusy,
            match=f"^state folder {tmp_path} is in use by another otun server; give this one its own",
        ),
        claimed_place(tmp_path),
    ):
        pass


def test_the_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed_place(tmp_path):
            pass


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from otun.server.admin.place import claimed_place\n"
        "with claimed_place(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    root = Path(sys.modules["otun"].__file__ or "").parents[1]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=False, timeout=30)
    with claimed_place(tmp_path):
        pass


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ConfigurationError, match=f"^state folder {path}: File exists"), claimed_place(path):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="state folder"), claimed_place(tmp_path):
        pass
