"""A state folder with which a server cannot start, and a disk that is full while it runs."""

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otun.cli import main

from .running import complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

WITH_FULL_DISK = """
import resource, sys
from otun.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def state(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """The folder of a server that has run, with a token in it."""
    folder = tmp_path / "state"
    environment.setenv("OTUN_STATE", str(folder))
    return folder


@pytest.fixture
def token(state: Path, capfd: pytest.CaptureFixture[str]) -> str:
    assert main(["token", "create", "ci"]) == 0
    return capfd.readouterr().out.strip()


def damage_header(path: Path) -> None:
    path.write_bytes(b"\x1b[31mno database" * 1000)


def damage_pages(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE tokens")
        connection.commit()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_others(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE moz_cookies (id INTEGER)")
        connection.commit()


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
        connection.commit()


def remove_beside_its_log(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"what was written last")
    path.unlink()


def link_to_elsewhere(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "complaint_begins", "hint"),
    [
        (damage_header, "database {path} is damaged", "restore it from"),
        (damage_pages, "database {path} is damaged", "restore it from"),
        (cut_short, "database {path} is damaged", "restore it from"),
        (damage_schema, "database {path} is damaged", "restore it from"),
        (make_folder, "database {path}", "no regular file"),
        (make_others, "database {path}", "another program"),
        (make_newer, "database {path}", "newer otun"),
        (remove_beside_its_log, "database {path} is missing, but not {path}-wal", "move that away"),
        (link_to_elsewhere, "database {path}", "no regular file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_database_that_cannot_be_used_stops_the_start_with_its_path_and_what_to_do(
    start: "Start", state: Path, token: str, spoil: Callable[[Path], None], complaint_begins: str, hint: str
) -> None:
    path = state / "otun.db"
    spoil(path)
    before = {each: each.read_bytes() for each in state.iterdir() if each.is_file()}
    ended = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--state", str(state)).wait()
    code, line = complaint(ended)
    assert (code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert line.startswith(complaint_begins.format(path=path))
    assert hint in line
    assert before == {each: each.read_bytes() for each in before}  # Nothing is made worse.


def test_an_unreadable_database_stops_the_start(start: "Start", state: Path, token: str) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (state / "otun.db").chmod(0)
    code, line = complaint(start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0").wait())
    assert code == 2
    assert line.startswith(f"database {state}/otun.db: Permission denied")


def test_what_was_written_last_before_a_crash_counts(
    start: "Start", state: Path, token: str, environment: pytest.MonkeyPatch
) -> None:
    server = run_server(start, "--state", str(state))
    other = start("token", "create", "other").wait().stdout.strip()
    assert start("token", "revoke", "ci").wait().code == 0
    assert (state / "otun.db-wal").stat().st_size > 0
    server.program.signal(signal.SIGKILL)
    server = run_server(start, "--state", str(state))
    environment.setenv("OTUN_TOKEN", token)
    assert "token" in complaint(run_client(start, server, "http", "9", "--log-level", "error").wait())[1]
    environment.setenv("OTUN_TOKEN", other)
    see_tunnel(run_client(start, server, "http", "9"))


def test_a_full_disk_keeps_tunnels_running_and_lets_clients_in_but_makes_no_tokens(
    start: "Start", state: Path, token: str, local_port: int, environment: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files takes the place of a full disk: no file of these processes can grow any more."""
    server = run_server(start, "--state", str(state))
    environment.setenv("OTUN_TOKEN", token)
    first = run_client(start, server, "http", str(local_port), "--name", "first")
    url = see_tunnel(first)
    resource.prlimit(server.program.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    second = run_client(start, server, "http", str(local_port), "--name", "second")
    for each in (url, see_tunnel(second)):
        assert visit(server, each) == (200, b"hello")
    done = subprocess.run(
        [sys.executable, "-c", WITH_FULL_DISK, "token", "create", "new"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"otun: database {state}/otun\.db: (disk I/O error|No space left on device)\n", done.stderr)
    assert [line.split()[0] for line in start("token", "list").wait().stdout.splitlines()[1:]] == ["ci"]
    assert visit(server, url) == (200, b"hello")
    assert start("token", "revoke", "ci").wait().code == 0  # There is room again, for this one.
    for client in (first, second):
        assert "token" in complaint(client.wait())[1]
    server.stop()


def test_a_log_that_is_lost_does_not_keep_the_server_from_starting(start: "Start", state: Path, token: str) -> None:
    server = run_server(start, "--state", str(state))
    start("token", "create", "other").wait()
    server.program.signal(signal.SIGKILL)
    for suffix in ("-wal", "-shm"):
        (state / f"otun.db{suffix}").unlink()
    server = run_server(start, "--state", str(state), "--log-level", "warning")
    assert "OTUN_TOKEN=TOKEN " in server.lines["client"]  # It knows at least what was in the database itself.
    assert server.stop().stderr == ""
