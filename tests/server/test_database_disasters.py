"""Full and read-only disks, and processes that are killed while they write."""

import contextlib
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from otun.errors import DatabaseError
from otun.server import queries
from otun.server.database import FILE_NAME, open_database
from otun.server.records import Actor, AuditEntry

from .stored_tokens import SOMEBODY, details, names_in, stored

ROOT = Path(__file__).parents[2]


async def test_a_full_database_refuses_writes_and_answers_reads(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await database.write(queries.create_token, stored("ci"), SOMEBODY)
        await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
        wordy = Actor("x" * 9000, "cli")
        for _ in range(2):
            with pytest.raises(DatabaseError) as caught:
                await database.write(queries.create_token, stored("next"), wordy)
            assert caught.value.reason == os.strerror(errno.ENOSPC)
            assert caught.value.path == str(tmp_path / FILE_NAME)
            assert [token.name for token in await database.read(queries.tokens)] == ["ci"]
            assert len(await details(database)) == 1


def run_on_small_disk(folder: Path, script: str) -> str:
    """Run *script* where *folder* is a file system of 256 KiB; what it prints."""
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    with contextlib.suppress(OSError):
        if subprocess.run([*command, mount, folder], capture_output=True, timeout=30).returncode == 0:
            done = subprocess.run(
                [*command, f'{mount} && exec "$1" -c "$2" "$0"', folder, sys.executable, SUPPORT + script],
                cwd=ROOT, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout
    pytest.skip("this system does not let us mount anything")


SUPPORT = """
import os, subprocess, sys
from pathlib import Path
import trio
from otun import OtunError
from otun.server import queries
from otun.server.database import open_database
from otun.server.records import Actor, TokenRecord

folder = Path(sys.argv[1])

async def create(database, name):
    token = TokenRecord(name=name, hash=os.urandom(32), created=1)
    try:
        await database.write(queries.create_token, token, Actor('x' * 500, 'test'))
    except OtunError as error:
        print(type(error).__name__, error)

async def show(database):
    print(*[token.name for token in await database.read(queries.tokens)], len(await database.read(queries.audit, 99)))

async def open_and_show():
    try:
        async with open_database(folder) as database:
            await show(database)
    except OtunError as error:
        print(type(error).__name__, error)

def fill():
    with open(folder / 'filler', 'wb', buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
"""


def test_a_full_disk_refuses_writes_and_answers_reads(tmp_path: Path) -> None:
    printed = run_on_small_disk(
        tmp_path,
        """
async def main():
    async with open_database(folder) as database:
        await create(database, "one")
        fill()
        for name in ("two", "three", "four", "five"):
            await create(database, name)
        await show(database)
        await open_and_show()
        os.unlink(folder / 'filler')
        await create(database, "six")
        await show(database)
trio.run(main)
""",
    )
    full = f"DatabaseError database {tmp_path}/otun.db: No space left on device"
    *refused, before, opened, after = printed.splitlines()
    assert refused
    assert set(refused) == {full}
    assert before == opened == "one 1"
    assert after == "one six 2"


def test_nothing_is_left_of_a_database_for_which_there_is_no_room(tmp_path: Path) -> None:
    printed = run_on_small_disk(
        tmp_path, "fill()\ntrio.run(open_and_show)\nprint(*os.listdir(folder))\nos.unlink(folder / 'filler')\n"
        "trio.run(open_and_show)\n",
    )  # fmt: skip
    assert printed.splitlines() == [
        f"DatabaseError database {tmp_path}/otun.db: No space left on device",
        "filler",
        "0",
    ]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_read_only_folder_is_named(tmp_path: Path, is_there: bool) -> None:
    remount = "subprocess.run(['mount', '-o', 'remount,ro', folder], check=True)\n"
    first = "trio.run(open_and_show)\n" if is_there else ""
    printed = run_on_small_disk(tmp_path, f"{first}{remount}trio.run(open_and_show)\n")
    reason = "it, or its folder, cannot be written: .*" if is_there else "Read-only file system"
    assert re.fullmatch(f"(0\n)?ConfigurationError database {tmp_path}/otun.db: {reason}\n", printed)


WRITER = (
    SUPPORT
    + """
async def main():
    async with open_database(folder) as database:
        for number in range(int(sys.argv[2]), 10**9):
            await create(database, f"{number:09}")
            os.write(1, f"{number:09}\\n".encode())
trio.run(main)
"""
)


def test_killed_writers_leave_a_sound_database_with_all_that_they_have_written(tmp_path: Path) -> None:
    async def look() -> tuple[set[str], list[AuditEntry]]:
        async with open_database(tmp_path) as database:  # It is checked as it is opened.
            tokens = await database.read(queries.tokens)
            return {token.name for token in tokens}, await database.read(queries.audit, 10**6)

    acknowledged: set[str] = set()
    turns = (0, 1, 2, 5, 9, 20)
    for count in turns:
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(1000 * count)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            acknowledged.update(writer.stdout.readline().strip() for _ in range(count))
            writer.kill()
            acknowledged.update(writer.stdout.read().split())
        tokens, audit = trio.run(look)
        assert acknowledged <= tokens
        assert [entry.what for entry in audit] == ["token.create"] * len(tokens)
        assert {entry.detail.partition(":")[0] for entry in audit} == tokens
        assert len(tokens) <= len(acknowledged) + len(turns), "each may have written one that it could not tell of"
    assert len(acknowledged) >= sum(turns)


def test_processes_that_begin_at_the_same_time_make_one_database(tmp_path: Path) -> None:
    script = """
async def main():
    print("ready", flush=True)
    sys.stdin.read()
    async with open_database(folder) as database:
        await create(database, sys.argv[2])
trio.run(main)
"""
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SUPPORT + script, str(tmp_path), str(number)],
                    cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for number in range(4)
        ]  # fmt: skip
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.communicate(timeout=30)[0] == ""
    assert trio.run(names_in, tmp_path) == ["0", "1", "2", "3"]
    assert os.listdir(tmp_path) == [FILE_NAME]
