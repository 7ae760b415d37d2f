"""`otun token`, in this process and as processes of its own."""

import contextlib
import json
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otun.access import hash_token
from otun.cli import main

from .running import run_on_small_disk

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

pytestmark = pytest.mark.usefixtures("environment")

TOKEN = re.compile(r"otun_[A-Za-z0-9_-]{43}\n")


@pytest.fixture
def state(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """The folder that the commands use by default."""
    environment.setenv("OTUN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def otun(capfd: pytest.CaptureFixture[str], state: Path) -> Callable[..., tuple[str, str]]:
    """Run a command that goes well; its stdout and stderr."""

    def run(*arguments: str) -> tuple[str, str]:
        assert main(["token", *arguments]) == 0, capfd.readouterr().err
        return capfd.readouterr()

    return run


def rows(state: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(state / "otun.db")) as connection:
        return connection.execute(query).fetchall()


def shown(otun: Callable[..., tuple[str, str]], name: str) -> dict[str, object]:
    return json.loads(otun("show", name, "--json")[0])


def test_a_new_token_is_printed_once_and_kept_as_a_hash(otun: Callable[..., tuple[str, str]], state: Path) -> None:
    out, err = otun("create", "CI")
    assert TOKEN.fullmatch(out)
    assert err.splitlines() == [
        "otun: the token 'ci' may have everything that the server allows; it is not shown again",
        f"otun: it is the first one in {state}, which must be the server's state folder",
    ]
    assert "first" not in otun("create", "bob")[1]
    assert rows(state, "SELECT hash FROM tokens WHERE name = 'ci'") == [(hash_token(out.strip()),)]
    assert stat.S_IMODE((state / "otun.db").stat().st_mode) == 0o600
    for arguments in (["list"], ["list", "--json"], ["show", "ci"], ["show", "ci", "--json"], ["revoke", "ci"]):
        assert out.strip() not in "".join(otun(*arguments))
    assert out.strip().encode() not in b"".join(path.read_bytes() for path in state.iterdir())


@pytest.mark.parametrize("command", ["create", "rotate"])
def test_a_token_is_in_no_log(otun: Callable[..., tuple[str, str]], command: str) -> None:
    otun("create", "known")
    out, err = otun(command, "known" if command == "rotate" else "ci", "-v")
    assert out.strip()[5:] not in err
    assert hash_token(out.strip()).hex() not in err


@pytest.mark.parametrize("command", ["create", "list", "show", "limit", "revoke", "rotate"])
def test_help_names_the_exit_codes(otun: Callable[..., tuple[str, str]], command: str) -> None:
    assert "2    wrong usage" in otun(command, "--help")[0]


def test_what_a_token_may_is_kept_in_order(otun: Callable[..., tuple[str, str]]) -> None:
    may = ["--may", "tcp:20001-20010, tcp:20000", "--may", "http:App-*\nhost:*.Example.org"]
    _, err = otun("create", "ci", *may, "--max-tunnels", "3", "--expires", "30d")
    text = "http:app-*,tcp:20000-20010,host:*.example.org"
    assert f"may have {text};" in err
    token = shown(otun, "ci")
    assert (token["may"], token["max_tunnels"], token["state"]) == (text, 3, "active")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(token["expires"]))
    lines = otun("show", "CI")[0].splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *[
            "name",
            "may",
            "tunnels",
            "limits",
            "used today 0 bytes",
            "created",
            "expires",
            "last used",
            "revoked",
            "state",
        ]
    ]
    assert f"may        {text}" in lines


def test_limits_are_kept_in_order_and_replaced_as_a_whole(otun: Callable[..., tuple[str, str]]) -> None:
    otun("create", "ci", "--limit", "tunnel.daily=1500kB visitors=5", "--limit", "Requests=10")
    assert shown(otun, "ci")["limits"] == "requests=10,visitors=5,tunnel.daily=1500kB"
    otun("limit", "CI", "bandwidth=10MB")
    token = shown(otun, "ci")
    assert (token["limits"], token["bytes_today"]) == ("bandwidth=10MB", 0)
    assert "limits     bandwidth=10MB" in otun("show", "ci")[0].splitlines()
    assert "bandwidth=10MB" in otun("list")[0]
    otun("limit", "ci", "none")
    assert shown(otun, "ci")["limits"] is None


def test_the_list_is_a_table(otun: Callable[..., tuple[str, str]], state: Path) -> None:
    otun("create", "bob", "--may", ",".join(f"http:app-{number}" for number in range(20)))
    otun("create", "ann", "--max-tunnels", "12")
    otun("create", "old", "--expires", "1m")
    otun("revoke", "bob")
    with contextlib.closing(sqlite3.connect(state / "otun.db")) as connection:
        connection.execute("UPDATE tokens SET expires = 60, last_used = 30 WHERE name = 'old'")
        connection.execute("UPDATE tokens SET created = 0")
        connection.commit()
    born, bob = "1970-01-01 00:00", "http:app-0,http:app-1,http:app-10,http:…"
    assert otun("list")[0].splitlines() == [
        f"NAME  MAY{' ' * 39}TUNNELS  LIMITS  CREATED           EXPIRES           LAST USED         STATE",
        f"ann   everything{' ' * 32}12       -       {born}  -                 -                 active",
        f"bob   {bob}  -        -       {born}  -                 -                 revoked",
        f"old   everything                                -        -       {born}  1970-01-01 00:01  {born}  expired",
    ]
    tokens = json.loads(otun("list", "--json")[0])
    assert [(token["name"], token["state"]) for token in tokens] == [
        ("ann", "active"),
        ("bob", "revoked"),
        ("old", "expired"),
    ]
    assert tokens[2] == {
        "name": "old",
        "may": None,
        "max_tunnels": None,
        "limits": None,
        "created": "1970-01-01T00:00:00Z",
        "expires": "1970-01-01T00:01:00Z",
        "revoked": None,
        "last_used": "1970-01-01T00:00:30Z",
        "state": "expired",
    }


def test_where_there_are_no_tokens_nothing_is_listed_and_nothing_made(
    otun: Callable[..., tuple[str, str]], state: Path
) -> None:
    note = f"otun: state folder {state} is no server's yet: there is no otun.db in it\n"
    assert otun("list") == ("", note)
    assert otun("list", "--json") == ("[]\n", note)
    assert not state.exists()


def test_a_rotated_token_is_another_one(otun: Callable[..., tuple[str, str]], state: Path) -> None:
    old, _ = otun("create", "ci", "--may", "http:app")
    new, err = otun("rotate", "ci")
    assert TOKEN.fullmatch(new)
    assert new != old
    assert err == "otun: this is the token 'ci' now, and not shown again; the one before is invalid\n"
    assert rows(state, "SELECT hash, may FROM tokens") == [(hash_token(new.strip()), "http:app")]


def test_a_revoked_token_stays_revoked(otun: Callable[..., tuple[str, str]]) -> None:
    otun("create", "ci")
    assert otun("revoke", "ci") == ("", "")
    first = shown(otun, "ci")
    assert first["state"] == "revoked"
    out, err = otun("revoke", "ci")
    assert out == ""
    assert re.fullmatch(r"otun: the token 'ci' was revoked before, at \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", err)
    assert shown(otun, "ci") == first


def test_a_revoked_tokens_names_stay_reserved_and_it_says_so(
    otun: Callable[..., tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    otun("create", "ci")
    otun("create", "bob")
    for name, token in [("app", "ci"), ("shop.example.org", "ci"), ("2222", "ci"), ("other", "bob")]:
        assert main(["name", "reserve", name, "--for", token]) == 0
    capfd.readouterr()
    assert otun("revoke", "ci") == (
        "",
        "otun: still reserved for 'ci': shop.example.org, app, 2222; "
        "'otun name release shop.example.org' lets others have it\n",
    )
    for name in ("shop.example.org", "2222"):
        assert main(["name", "release", name]) == 0
    for number in range(10, 15):
        assert main(["name", "reserve", f"app-{number}", "--for", "bob"]) == 0
    capfd.readouterr()
    assert otun("revoke", "ci")[1].endswith(
        "\notun: still reserved for 'ci': app; 'otun name release app' lets others have it\n"
    )
    assert ": app-10, app-11, app-12, app-13, app-14 and 1 more; 'otun name" in otun("revoke", "bob")[1]


def test_each_change_is_in_the_audit(otun: Callable[..., tuple[str, str]], state: Path) -> None:
    secrets = [otun("create", "ci", "--may", "http:app")[0], otun("rotate", "ci")[0]]
    otun("limit", "ci", "daily=5000MB,requests=9")
    otun("limit", "ci", "none")
    otun("revoke", "ci")
    otun("revoke", "ci")
    otun("list")
    audit = rows(state, "SELECT who, what, origin, detail FROM audit ORDER BY id")
    assert [(what, detail) for _, what, _, detail in audit] == [
        ("token.create", "ci: may http:app"),
        ("token.rotate", "ci"),
        ("token.limit", "ci: requests=9,daily=5GB"),
        ("token.limit", "ci: none"),
        ("token.revoke", "ci"),
    ]
    assert {origin for _, _, origin, _ in audit} == {"cli"}
    assert all(re.fullmatch(rf"(.+ \()?uid {os.getuid()}\)?", str(who)) for who, *_ in audit)
    assert not any(secret.strip() in str(audit) for secret in secrets)


@pytest.mark.parametrize("source", ["flag", "variable", "file", "default"])
def test_the_state_folder_is_the_servers(
    source: str, tmp_path: Path, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = []
    folder = tmp_path / "here"
    match source:
        case "flag":
            flags = ["--state", str(folder)]
        case "variable":
            environment.setenv("OTUN_STATE", str(folder))
        case "file":
            (tmp_path / "c.toml").write_text('[server]\nstate = "here"\n')
            flags = ["--config", str(tmp_path / "c.toml")]
        case _:
            folder = tmp_path / ".local/state/otun"
    assert main(["token", "create", "ci", *flags]) == 0
    assert (folder / "otun.db").exists()


EMOJI = "\U0001f600"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", EMOJI], r"'\U0001f600' is no name for a token: write 1 to 64"),
        (["create", "a\nb"], r"'a\nb' is no name for a token"),
        (["create", "\x1b[31m"], r"'\x1b[31m' is no name for a token"),
        (["create", ""], "'' is no name for a token"),
        (["create", "a" * 100_000], "'aaaa"),
        (["create", "\udcff"], r"'\udcff' is no name for a token"),
        (["show", "a b"], "'a b' is no name for a token"),
        (["create", "known"], "there is a token 'known' already: choose another name"),
        (["create", "Known"], "there is a token 'known' already: choose another name"),
        (["create", "gone"], "there is a token 'gone' already that was revoked: choose another name"),
        (["show", "nobody"], "there is no token 'nobody'"),
        (["revoke", "nobody"], "there is no token 'nobody'"),
        (["rotate", "nobody"], "there is no token 'nobody'"),
        (["rotate", "gone"], "the token 'gone' was revoked: create another one"),
        (["create", "ci", "--may", ""], "--may: what may the token do? write http:NAME"),
        (["create", "ci", "--may", "app"], "--may: 'app' is no grant: write http:NAME"),
        (["create", "ci", "--may", f"http:{EMOJI}"], r"--may: 'http:\U0001f600' is no grant"),
        (["create", "ci", "--may", "http:\x1b]0;x\x07"], r"--may: 'http:\x1b]0;x\x07' is no grant"),
        (["create", "ci", "--may", "tcp:99999"], "--may: 'tcp:99999' is no grant: write tcp:PORT"),
        (["create", "ci", "--may", "http:a," * 100], "--may: a token has at most 64 grants, and these are 100"),
        (["create", "ci", "--may", "x" * 100_000], "--may: that is too long for what a token may"),
        (["create", "ci", "--expires", "soon"], "--expires: 'soon' is no time to come; write 12h, 30d or 2026-12-31"),
        (["create", "ci", "--expires", "2001-01-01"], "--expires: '2001-01-01' is past"),
        (["create", "ci", "--expires", "9" * 100_000], "--expires: '9999"),
        (["create", "ci", "--expires", f"1{EMOJI}"], f"--expires: '1{EMOJI}' is no time to come"),
        (["create", "ci", "--max-tunnels", "0"], "--max-tunnels: '0' is no number from 1 up"),
        (["create", "ci", "--max-tunnels", "-1"], "--max-tunnels: '-1' is no number from 1 up"),
        (["create", "ci", "--max-tunnels", "1e3"], "--max-tunnels: '1e3' is no number from 1 up"),
        (["create", "ci", "--max-tunnels", "999999999"], "--max-tunnels: '999999999' is more than 1000000"),
        (["create", "ci", "--max-tunnels", "9" * 100_000], "--max-tunnels: '9999"),
        (["create", "ci", "--limit", ""], "--limit: which limits? write requests=100"),
        (["create", "ci", "--limit", "requests=0"], "--limit: requests: '0' is no number from 1 to 1000000"),
        (["create", "ci", "--limit", "x" * 100_000], "--limit: that is too long for limits"),
        (["limit", "known", "fast"], "limits: 'fast' is no limit: write requests=100"),
        (["limit", "known", f"requests={EMOJI}"], r"limits: requests: '\U0001f600' is no number"),
        (["limit", "known", "daily=\x1b[31m"], r"limits: daily: '\x1b[31m' is no number of bytes"),
        (["limit", "known", "bandwidth=9999999TB"], "limits: bandwidth: '9999999TB' is not between 1kB and 1TB"),
        (["limit", "known", "tunnel.daily=-1"], "limits: tunnel.daily: '-1' is no number of bytes"),
        (["limit", "nobody", "none"], "there is no token 'nobody'"),
        (["create", "ci", "--state", "/dev/null"], "database /dev/null/otun.db: Not a directory"),
        (["create", "ci", "--state", "/proc/otun"], "database /proc/otun/otun.db: No such file or directory"),
        (["create", "ci", "--state", "x" * 5000], "database xxx"),
        (["show", "ci", "--state", "/none"], "state folder /none is no server's yet: there is no otun.db in it"),
        (["rotate", "ci", "--state", f"/\n{EMOJI}"], rf"state folder /\n{EMOJI} is no server's yet"),
    ],
    ids=lambda value: None,
)
def test_a_mistake_is_one_line_and_exit_code_2(
    otun: Callable[..., tuple[str, str]],
    capfd: pytest.CaptureFixture[str],
    state: Path,
    arguments: list[str],
    complaint: str,
) -> None:
    for name in ("known", "gone"):
        otun("create", name)
    otun("revoke", "gone")
    before = rows(state, "SELECT * FROM tokens"), rows(state, "SELECT * FROM audit")
    assert main(["token", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"otun: {complaint}")
    assert err.count("\n") == 1
    assert len(err) < 5000
    assert (rows(state, "SELECT * FROM tokens"), rows(state, "SELECT * FROM audit")) == before


@pytest.mark.parametrize(
    "arguments", [[], ["creat"], ["create"], ["show"], ["create", "a", "b"], ["list", "a"], ["create", "a", "--force"]]
)
def test_wrong_usage_is_exit_code_2(capfd: pytest.CaptureFixture[str], state: Path, arguments: list[str]) -> None:
    assert main(["token", *arguments]) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert not state.exists()


def test_a_folder_from_a_configuration_file_that_cannot_be_is_a_mistake(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[server]\nstate = "a\\u0000b"\n')
    assert main(["token", "list", "--config", str(config)]) == 2
    assert capfd.readouterr().err == f"otun: {config}: server.state: 'a\\x00b' is no path: it has a NUL in it\n"


def test_a_damaged_database_is_one_line_and_exit_code_2(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state.mkdir()
    (state / "otun.db").write_bytes(b"\x1b[31m" * 1000)
    for command in (["create", "ci"], ["list"], ["show", "ci"], ["revoke", "ci"], ["rotate", "ci"]):
        assert main(["token", *command]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith(f"otun: database {state}/otun.db is damaged (file is not a database): restore it from")
        assert err.count("\n") == 1


def test_a_database_that_another_process_keeps_locked_is_one_line_and_exit_code_1(
    otun: Callable[..., tuple[str, str]],
    state: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("otun.server.database.BUSY_TIMEOUT", 0)
    otun("create", "ci")
    with contextlib.closing(sqlite3.connect(state / "otun.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert main(["token", "revoke", "ci"]) == 1
        assert "another process has kept it locked" in capfd.readouterr().err
        assert otun("list")[0].endswith("active\n")


# As processes


def test_a_token_that_cannot_be_printed_is_revoked_again(start: "Start", state: Path) -> None:
    assert TOKEN.fullmatch(start("token", "create", "bob").wait().stdout)
    with open("/dev/full", "wb") as full:
        for arguments in (["create", "ci"], ["rotate", "bob"]):
            ended = start("token", *arguments, stdout=full.fileno()).wait()
            assert ended.code == 1
            assert ended.stderr == "otun: the token cannot be printed, and is revoked again: No space left on device\n"
    assert rows(state, "SELECT name FROM tokens WHERE revoked IS NOT NULL") == [("bob",), ("ci",)]


def test_tokens_are_made_while_a_server_runs_on_the_folder(start: "Start", state: Path) -> None:
    server = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--state", str(state))
    for _ in range(3):
        assert server.read_line()
    assert TOKEN.fullmatch(start("token", "create", "ci").wait().stdout)
    assert start("token", "list").wait().stdout.endswith("active\n")
    assert server.process.poll() is None


def test_processes_at_the_same_time_all_get_their_tokens(start: "Start", state: Path) -> None:
    programs = [start("token", "create", f"ci-{number % 4}") for number in range(8)]
    ended = [program.wait() for program in programs]
    assert sorted(each.code for each in ended) == [0] * 4 + [2] * 4
    assert sum(bool(TOKEN.fullmatch(each.stdout)) for each in ended) == 4
    assert rows(state, "SELECT count(*), count(DISTINCT hash) FROM tokens") == [(4, 4)]
    assert rows(state, "SELECT count(*) FROM audit") == [(4,)]


def test_a_full_disk_is_one_line_and_exit_code_1_and_changes_nothing(state: Path) -> None:
    """On a file system of 256 KiB, in a mount namespace of its own."""
    script = """
"$1" -m otun.cli token create ci --state "$0" > "$0/token" || exit 1
dd if=/dev/zero of="$0/filler" bs=4096 2>/dev/null
for command in "create next" "revoke ci" "rotate ci"; do
    "$1" -m otun.cli token $command --state "$0"; echo "$?"
done
rm "$0/filler"
"$1" -m otun.cli token list --state "$0"
"$1" -m otun.cli token revoke ci --state "$0"
"""
    done = run_on_small_disk(script, state, timeout=60)
    assert done.returncode == 0, done.stderr
    note, first, *complaints = done.stderr.splitlines()
    assert "it is not shown again" in note
    assert "it is the first one" in first
    assert complaints == [f"otun: database {state}/otun.db: No space left on device"] * 3
    codes, table = done.stdout.splitlines()[:3], done.stdout.splitlines()[4:]
    assert codes == ["1"] * 3
    assert [(line.split()[0], line.split()[-1]) for line in table] == [("ci", "active")]
