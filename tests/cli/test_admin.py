"""The operator's commands against a running server: status, sessions, kick, ban, unban, bans; and audit and name."""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otun.cli import main
from otun.version import __version__

from .running import run_on_small_disk

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]
    Run = Callable[..., Ended]

pytestmark = pytest.mark.usefixtures("environment")

EMOJI = "\U0001f600"

NO_SERVER = "no server runs with the state folder {}: start one, or name its folder with --state DIR"


@pytest.fixture
def state(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """The folder that the commands use by default."""
    environment.setenv("OTUN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def run(start: "Start", state: Path) -> "Run":
    """Run a command as a process of its own."""
    return lambda *arguments: start(*arguments).wait()


@pytest.fixture
def serve(start: "Start", state: Path) -> "Callable[..., str]":
    """Start a server; its control address."""

    def serve(*arguments: str) -> str:
        program = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", *arguments)
        control = program.read_line().removeprefix("control ")
        assert program.read_line().startswith("public ")
        assert program.read_line().startswith("client: ")
        return control

    return serve


@pytest.fixture
def token(run: "Run") -> str:
    """The secret of the token `ci`."""
    return run("token", "create", "ci").stdout.strip()


@pytest.fixture
def connect(start: "Start", serve: "Callable[..., str]", token: str, environment: pytest.MonkeyPatch) -> "Program":
    """A client of `ci` with the tunnel `app`, and with a server to it."""
    environment.setenv("OTUN_SERVER", serve())
    environment.setenv("OTUN_TOKEN", token)
    client = start("http", "3000", "--name", "app", "--plaintext")
    assert "app.localhost" in client.read_line()
    return client


def says(ended: "Ended", code: int = 0) -> str:
    """What a command that is silent on stdout says on stderr."""
    assert (ended.code, ended.stdout) == (code, ""), ended
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("otun: ")
    return ended.stderr.removeprefix("otun: ").rstrip("\n")


def shows(ended: "Ended") -> str:
    """What one that goes well prints."""
    assert (ended.code, ended.stderr) == (0, ""), ended
    return ended.stdout


def test_status(run: "Run", connect: "Program") -> None:
    lines = dict(line.split(maxsplit=1) for line in shows(run("status")).splitlines())
    assert lines["version"] == __version__
    assert re.fullmatch(r"\d+s|\d+m \d+s", lines["uptime"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", lines["control"])
    assert (lines["https"], lines["open"], lines["database"]) == ("-", "no", "sound")
    assert (lines["sessions"], lines["tunnels"], lines["visitors"], lines["bans"]) == ("1", "1", "0", "0")
    found = json.loads(shows(run("status", "--json")))
    assert found.keys() == lines.keys()
    assert (found["sessions"], found["open"], found["database"], found["https"]) == (1, False, None, [])


def test_sessions(run: "Run", connect: "Program") -> None:
    header, row = shows(run("sessions")).splitlines()
    assert header.split() == ["SESSION", "IDENTITY", "ADDRESS", "SINCE", "SILENT", "TUNNEL", "URL", "VISITORS"]
    assert re.fullmatch(
        r"#1 +ci +127\.0\.0\.1:\d+ +\d{4}-\d\d-\d\d \d\d:\d\d +[\d.]+ s +app +http://app\.localhost:\d+ +0", row
    )
    (found,) = json.loads(shows(run("sessions", "--json")))
    assert (found["number"], found["identity"], found["tunnels"][0]["name"]) == (1, "ci", "app")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["since"])


def test_no_sessions_are_no_lines(run: "Run", serve: "Callable[..., str]") -> None:
    serve()
    assert shows(run("sessions")) == ""
    assert json.loads(shows(run("sessions", "--json"))) == []


@pytest.mark.parametrize("who", ["app", "#1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_kick(run: "Run", connect: "Program", who: str, as_json: bool) -> None:
    ended = run("kick", who, *["--json"] * as_json)
    assert ended.code == 0
    if as_json:
        assert [one["identity"] for one in json.loads(ended.stdout)] == ["ci"]
        assert ended.stderr == ""
    else:
        assert ended.stdout.splitlines()[1].startswith("#1 ")
        assert ended.stderr.startswith("otun: ended; the client is told so")
    client = connect.wait()
    assert client.code != 0
    assert "this server's operator has ended the session" in client.stderr
    assert shows(run("sessions")) == ""
    lines = shows(run("audit")).splitlines()
    assert re.search(r"uid \d+\) +admin\.sock, process \d+ +session\.kick +session 1 of ci from .*: app$", lines[-1])


def test_ban_and_unban(run: "Run", connect: "Program") -> None:
    assert says(run("ban", "192.0.2.0/24", "--reason", f"spam {EMOJI}")) == "192.0.2.0/24 is banned for good"
    assert re.fullmatch(r"2001:db8::/32 is banned until .* UTC", says(run("ban", "2001:db8::/32", "--for", "12h")))
    lines = shows(run("bans")).splitlines()
    assert [line.split()[0] for line in lines] == ["NETWORK", "192.0.2.0/24", "2001:db8::/32"]
    assert lines[1].endswith(f"spam {EMOJI}")
    first, second = json.loads(shows(run("bans", "--json")))
    assert first == {"network": "192.0.2.0/24", "reason": f"spam {EMOJI}", "until": None}
    assert second["until"].endswith("Z")
    assert says(run("unban", "192.0.2.0/24")) == "192.0.2.0/24 is let in again"
    assert says(run("unban", "192.0.2.0/24"), 1) == "192.0.2.0/24 is not banned"
    assert says(run("ban", "127.0.0.1", "--force")) == "127.0.0.1/32 is banned for good"
    client = connect.wait()
    assert "this server's operator has banned the network that you come from" in client.stderr
    refused = run("http", "3000", "--plaintext")
    assert refused.code == 4
    entries = json.loads(shows(run("audit", "--last", "3", "--json")))
    assert [(entry["what"], entry["detail"]) for entry in entries] == [
        ("ban.add", f"2001:db8::/32 until {re.sub('[^0-9]', '', entries[0]['detail'].split()[-1])}"),
        ("ban.remove", "192.0.2.0/24"),
        ("ban.add", "127.0.0.1/32 for good"),
    ]
    assert all("admin.sock" in entry["origin"] for entry in entries)


def test_bans_without_a_running_server_count_once_it_runs(
    run: "Run", token: str, serve: "Callable[..., str]", state: Path
) -> None:
    assert says(run("ban", "192.0.2.0/24")) == "no server runs there: once it does, 192.0.2.0/24 is banned for good"
    assert says(run("ban", "10.0.0.0/8")) == "no server runs there: once it does, 10.0.0.0/8 is banned for good"
    assert says(run("unban", "10.0.0.0/8")) == "no server runs there: once it does, 10.0.0.0/8 is let in again"
    assert says(run("unban", "10.0.0.0/8"), 1) == "10.0.0.0/8 is not banned"
    assert [one["network"] for one in json.loads(shows(run("bans", "--json")))] == ["192.0.2.0/24"]
    assert [line.split()[0] for line in shows(run("bans")).splitlines()] == ["NETWORK", "192.0.2.0/24"]
    serve()
    assert [one["network"] for one in json.loads(shows(run("bans", "--json")))] == ["192.0.2.0/24"]
    assert json.loads(shows(run("status", "--json")))["bans"] == 1


def test_names(run: "Run", connect: "Program", environment: pytest.MonkeyPatch) -> None:
    run("token", "create", "bob")
    for name, kind in (
        ("Shop", "name 'shop'"),
        ("shop.example.org", "host name 'shop.example.org'"),
        ("022", "port 22"),
        ("name:22", "name '22'"),
        ("host:intranet", "host name 'intranet'"),
        ("port:23", "port 23"),
    ):
        assert says(run("name", "reserve", name, "--for", "Bob")) == f"the {kind} is reserved for 'bob' for good"
    taken = says(run("name", "reserve", "app", "--for", "bob"), 1)
    assert re.fullmatch(r"the name 'app' is reserved for 'ci' until .* UTC; 'otun name release app' gives it up", taken)
    assert [line.split()[:3] for line in shows(run("name", "list")).splitlines()] == [
        ["NAME", "KIND", "TOKEN"],
        ["intranet", "host", "name"],
        ["shop.example.org", "host", "name"],
        ["22", "name", "bob"],
        ["app", "name", "ci"],
        ["shop", "name", "bob"],
        ["22", "port", "bob"],
        ["23", "port", "bob"],
    ]
    for name in ("name:22", "host:intranet"):
        assert f"'otun name release {name}' gives it up" in says(run("name", "reserve", name, "--for", "ci"), 1)
    found = {(one["kind"], one["name"]): one for one in json.loads(shows(run("name", "list", "--json")))}
    assert found["name", "shop"] == {"kind": "name", "name": "shop", "identity": "bob", "until": None}
    assert found["name", "app"]["until"].endswith("Z")
    refused = run("http", "3000", "--name", "shop", "--plaintext")
    assert refused.code == 7
    assert "subdomain 'shop' is reserved for somebody else" in refused.stderr
    assert says(run("name", "reserve", "app", "--for", "ci")) == "the name 'app' is reserved for 'ci' for good"
    assert says(run("name", "release", "shop")) == "the name 'shop' is reserved for nobody any more"
    assert says(run("name", "release", "shop"), 1) == "the name 'shop' is not reserved"
    entries = json.loads(shows(run("audit", "--json")))
    assert [(entry["what"], entry["detail"]) for entry in entries][-2:] == [
        ("name.reserve", "name app for ci for good"),
        ("name.release", "name shop"),
    ]


def test_the_audit_has_no_secrets(run: "Run", connect: "Program", token: str, state: Path) -> None:
    run("kick", "app")
    run("ban", "192.0.2.1", "--reason", "x")
    table = shows(run("audit"))
    assert table.startswith("TIME ")
    assert re.findall(r"(?<= )[a-z]+\.[a-z]+(?= )", re.sub(r"admin\.sock", "", table)) == [
        "token.create",
        "name.reserve",
        "session.kick",
        "ban.add",
    ]
    assert token not in table
    assert shows(run("audit", "--last", "1")).splitlines()[1].endswith("192.0.2.1/32 for good: x")


# Mistakes


MISTAKES: list[tuple[list[str], str, int]] = [
    (["status"], NO_SERVER, 4),
    (["status", "--json"], NO_SERVER, 4),
    (["status", "--state", "/dev/null"], NO_SERVER.format("/dev/null"), 4),
    (["status", "--state", "/none/" + "x" * 5000], "/none/x", 1),
    (["status", "--state", f"/{EMOJI}\x1b[2J"], NO_SERVER.format(f"/{EMOJI}\\x1b[2J"), 4),
    (["sessions"], NO_SERVER, 4),
    (["sessions", "--state", "/none"], NO_SERVER.format("/none"), 4),
    (["kick", "app"], NO_SERVER, 4),
    (["kick", EMOJI], NO_SERVER, 4),
    (["ban", "192.0.2.0/24"], "state folder {} is no server's yet: there is no otun.db in it", 2),
    (["ban", "192.0.2.1/24"], "'192.0.2.1/24' is no IP address and no network; write one such as 10.0.0.0/8", 2),
    (["ban", "example.org"], "'example.org' is no IP address and no network", 2),
    (["ban", EMOJI], f"'{EMOJI}' is no IP address and no network", 2),
    (["ban", "fe80::1%eth0"], "'fe80::1%eth0' has a zone", 2),
    (["ban", "0.0.0.0/0"], "'0.0.0.0/0' stands for every address of its kind, too; to ban that all the same", 2),
    (["ban", "::/0"], "'::/0' stands for every address of its kind, too", 2),
    (["ban", "127.0.0.1"], "'127.0.0.1' stands for this machine itself, too; to ban that all the same, use --force", 2),
    (["ban", "10.0.0.0/8", "--for", "soon"], "--for: 'soon' is no time to come; write 12h, 30d or 2026-12-31", 2),
    (["ban", "10.0.0.0/8", "--for", "2001-01-01"], "--for: '2001-01-01' is past", 2),
    (["ban", "10.0.0.0/8", "--for", "9" * 10_000], "--for: '9999", 2),
    (
        ["ban", "10.0.0.0/8", "--reason", "a\nb"],
        "--reason: a reason is one line of at most 200 printable characters",
        2,
    ),
    (["ban", "10.0.0.0/8", "--reason", "x" * 10_000], "--reason: a reason is one line", 2),
    (["unban", "10.0.0.0/8"], "state folder {} is no server's yet", 2),
    (["unban", "x"], "'x' is no IP address and no network", 2),
    (["unban", "10.0.0.1/8"], "'10.0.0.1/8' is no IP address and no network", 2),
    (["unban", "\x1b[31m"], r"'\x1b[31m' is no IP address and no network", 2),
    (["audit", "--last", "0"], "--last: '0' is no number from 1 up", 2),
    (["audit", "--last", "all"], "--last: 'all' is no number from 1 up", 2),
    (["audit", "--last", "-1"], "--last: '-1' is no number from 1 up", 2),
    (["audit", "--last", "9" * 1000], "--last: '9999", 2),
    (["audit", "--last", EMOJI], f"--last: '{EMOJI}' is no number from 1 up", 2),
    (["name", "reserve", "app", "--for", "ci"], "state folder {} is no server's yet", 2),
    (["name", "reserve", "a b", "--for", "ci"], "'a b' is no name for a tunnel", 2),
    (["name", "reserve", EMOJI, "--for", "ci"], r"'\U0001f600' is no name for a tunnel", 2),
    (["name", "reserve", "a..b", "--for", "ci"], "'a..b' is no host name", 2),
    (["name", "reserve", "99999", "--for", "ci"], "'99999' is no port; a port is a number from 1 to 65535", 2),
    (["name", "reserve", "port:app", "--for", "ci"], "'app' is no port", 2),
    (["name", "reserve", "name:", "--for", "ci"], "'' is no name for a tunnel", 2),
    (["name", "reserve", "tcp:22", "--for", "ci"], "'tcp:22' is no name for a tunnel", 2),
    (["name", "reserve", "9" * 10_000, "--for", "ci"], "'9999", 2),
    (["name", "reserve", "app", "--for", "c i"], "'c i' is no name for a token", 2),
    (["name", "release", "app"], "state folder {} is no server's yet", 2),
    (["name", "release", "-x"], "", 2),
]


@pytest.mark.parametrize(("arguments", "complaint", "code"), MISTAKES, ids=lambda value: None)
def test_a_mistake_is_one_line(
    capfd: pytest.CaptureFixture[str], state: Path, arguments: list[str], complaint: str, code: int
) -> None:
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    if complaint:
        assert err.startswith(f"otun: {complaint.format(state)}")
        assert err.count("\n") == 1
        assert len(err) < 6000
    assert not state.exists()


def test_lists_of_nothing_say_why(capfd: pytest.CaptureFixture[str], state: Path) -> None:
    for command in (["bans"], ["audit"], ["name", "list"]):
        assert main(command) == 0
        assert capfd.readouterr().err == f"otun: state folder {state} is no server's yet: there is no otun.db in it\n"
        assert main([*command, "--json"]) == 0
        assert json.loads(capfd.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "complaint", "code"),
    [
        (["kick", "nobody"], "no session has 'nobody' open", 1),
        (["kick", "#7"], "no session has '#7' open", 1),
        (["kick", "20000"], "no session has '20000' open", 1),
        (["kick", f"{EMOJI}\x1b"], r"no session has '\U0001f600\x1b' open", 1),
        (["kick", ""], "no session has '' open", 1),
        (["kick", "x" * 1000], "who: 1000 characters are more than 260", 1),
        (["kick", "\udcff"], r"a request holds half of a surrogate pair", 1),
        (["unban", "10.0.0.0/8"], "10.0.0.0/8 is not banned", 1),
        (["ban", "0.0.0.0/0"], "'0.0.0.0/0' stands for every address of its kind", 2),
        (["ban", "10.0.0.0/8", "--reason", "\udcff"], "--reason: a reason is one line", 2),
        (["name", "reserve", "app", "--for", "nobody"], "there is no token 'nobody'", 2),
        (["name", "reserve", "app", "--for", "gone"], "the token 'gone' was revoked: create another one", 2),
        (["name", "release", "app"], "the name 'app' is not reserved", 1),
    ],
    ids=lambda value: None,
)
def test_a_mistake_at_a_running_server_is_one_line(
    capfd: pytest.CaptureFixture[str],
    serve: "Callable[..., str]",
    state: Path,
    arguments: list[str],
    complaint: str,
    code: int,
) -> None:
    serve()
    assert main(["token", "create", "gone"]) == 0
    assert main(["token", "revoke", "gone"]) == 0
    capfd.readouterr()
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"otun: {complaint}")
    assert err.count("\n") == 1
    assert main(["status"]) == 0


def test_a_host_under_the_servers_domain_comes_with_its_name(
    capfd: pytest.CaptureFixture[str], state: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OTUN_DOMAIN", "tunnel.example")
    for host in ("app.tunnel.example", "*.app.Tunnel.Example"):
        assert main(["name", "reserve", host, "--for", "ci"]) == 2
        assert "is under the server's domain, and comes with the name 'app': reserve that\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["kick"], ["ban"], ["unban"], ["status", "x"], ["bans", "x"], ["name"], ["name", "reserve", "app"]]
)
def test_wrong_usage_is_exit_code_2(capfd: pytest.CaptureFixture[str], state: Path, arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert not state.exists()


@pytest.mark.parametrize(
    "command",
    ["status", "sessions", "kick", "ban", "unban", "bans", "audit", "name reserve", "name release", "name list"],
)
def test_help_names_the_exit_codes(capfd: pytest.CaptureFixture[str], command: str) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "4    server not reached" in capfd.readouterr().out


def test_a_socket_that_nobody_listens_at_is_no_server(capfd: pytest.CaptureFixture[str], state: Path) -> None:
    state.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(state / "admin.sock"))
    assert main(["status"]) == 4
    assert capfd.readouterr().err == f"otun: {NO_SERVER.format(state)}\n"


@pytest.mark.parametrize("answer", [b"", b'{"ok":tr', b"x" * 2**20], ids=len)
def test_a_server_that_ends_in_the_middle_is_one_line(
    capfd: pytest.CaptureFixture[str], state: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr("otun.cli.running_server.MAX_ANSWER", 1000)
    state.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "admin.sock"))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                with contextlib.suppress(OSError):
                    sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["status"]) == 4
        thread.join()
    err = capfd.readouterr().err
    assert err == f"otun: the server with the state folder {state} has ended meanwhile\n"


def test_a_state_folder_with_a_long_path(
    run: "Run", serve: "Callable[..., str]", environment: pytest.MonkeyPatch
) -> None:
    folder = Path(os.environ["OTUN_STATE"], "x" * 100, "y" * 100)
    environment.setenv("OTUN_STATE", str(folder))
    serve()
    assert shows(run("status")).startswith("version")


def test_a_full_disk_keeps_the_server_running_and_bans_in_force(state: Path) -> None:
    """On a file system of 256 KiB, in a mount namespace of its own."""
    script = """
otun() { command=$1; shift; "$PYTHON" -m otun.cli $command --state "$STATE" "$@"; }
export STATE="$0" PYTHON="$1"
otun "token create ci" > "$0.token" 2> /dev/null || exit 1
mkfifo "$0.out"
"$1" -m otun.cli server --control 127.0.0.1:0 --public 127.0.0.1:0 --state "$0" > "$0.out" 2> "$0.log" &
server=$!
exec 3< "$0.out"
read -r _ control <&3; read -r _ <&3; read -r _ <&3
mkfifo "$0.client"
OTUN_TOKEN=$(cat "$0.token") "$1" -m otun.cli http 3000 --name app --server "$control" --plaintext \
    > "$0.client" 2> "$0.farewell" &
client=$!
read -r _ < "$0.client"
otun "ban 192.0.2.0/24" || exit 1
dd if=/dev/zero of="$0/filler" bs=4096 2>/dev/null
for number in 1 2 3 4 5 6 7 8; do
    otun "ban 198.51.100.$number" --reason "$(printf %0200d $number)"
done
otun "unban 192.0.2.0/24"; echo "unban $?"
otun "token create next"; echo "create $?"
otun "name reserve shop" --for ci; echo "reserve $?"
otun "kick app"; echo "kick $?"
wait $client
otun status | grep -E "^(sessions|bans|database)"
rm "$0/filler"
otun "unban 192.0.2.0/24"; echo "unban $?"
otun status | grep -E "^(sessions|bans|database)"
kill $server; wait $server; echo "server $?"
cat "$0.farewell"
"""
    done = run_on_small_disk(script, state, timeout=120)
    out = [line for line in done.stdout.splitlines() if not line.startswith(("#1", "SESSION"))]
    full = "No space left on device"
    assert out == [
        "unban 1",
        "create 1",
        "reserve 1",
        "kick 0",
        "sessions   0",
        "bans       9",
        f"database   in trouble: {full}",
        "unban 0",
        "sessions   0",
        "bans       8",
        "database   sound",
        "server 0",
        *out[12:],
    ], done.stderr
    assert "this server's operator has ended the session" in out[-1]
    unwritten = "otun: warning: it cannot be written down, and ends with the server: see the database in 'otun status'"
    err = done.stderr.splitlines()
    assert err[0] == "otun: 192.0.2.0/24 is banned for good"
    assert unwritten in err
    assert f"otun: 192.0.2.0/24 stays banned: database {state}/otun.db: {full}" in err
    assert "otun: warning: the audit has no line for this: see the database in 'otun status'" in err
    log = Path(f"{state}.log").read_text()
    assert "the audit cannot tell that" in log
    assert "Traceback" not in log + done.stderr
