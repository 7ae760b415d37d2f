"""Mistakes in flags, files and folders for encryption: each is one line, before anything has been said to anybody."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from otun.cli.layers import open_layers
from otun.cli.server import read_server_settings
from otun.cli.settings import ConfigFile
from otun.errors import ConfigurationError

from ..tls.issuing import Authority, certificate_of, key_of, locked_key_of

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]

SERVER = ("server", "--control", "0.0.0.0:0", "--public", "127.0.0.1:0")
CLIENT = ("http", "9", "--server", "127.0.0.1:1", "--token", "hunter2", "--log-level", "debug")


def complaint(ended: "Ended") -> tuple[int, str]:
    """How it has ended, and the one line that it has said."""
    assert ended.stdout == ""
    assert "hunter2" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].isprintable()
    return ended.code, lines[0]


# Flags


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--ca", "CA", "--fingerprint", 32 * "0a"],
            "a fingerprint takes the place of all authorities: give --fingerprint or --ca",
        ),
        (
            ["--plaintext", "--ca", "CA"],
            "without TLS there are no certificates: --plaintext excludes the options for them",
        ),
        (
            ["--plaintext", "--fingerprint", 32 * "0a"],
            "without TLS there are no certificates: --plaintext excludes the options for them",
        ),
        (
            ["--plaintext", "--client-cert", "BOTH"],
            "without TLS there are no certificates: --plaintext excludes the options for them",
        ),
        (
            ["--client-key", "BOTH"],
            "--client-key needs the certificate that it belongs to: give --client-cert",
        ),
    ],
)
def test_the_clients_flags_do_not_contradict_each_other(
    start: "Start", authority: Authority, arguments: list[str], text: str
) -> None:
    files = {"CA": str(authority.path), "BOTH": str(authority.issue("client.example"))}
    words = [files.get(word, word) for word in arguments]
    assert complaint(start(*CLIENT, *words).wait()) == (2, f"otun: {text}")


def test_plaintext_in_the_file_is_no_way_around_the_fingerprint_of_a_flag(start: "Start", tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[client]\nplaintext = true\n")
    code, text = complaint(start(*CLIENT, "--config", str(config), "--fingerprint", 32 * "0a").wait())
    assert code == 2
    assert text == "otun: without TLS there are no certificates: --plaintext excludes the options for them"


@pytest.mark.parametrize("command", ["server", "http"])
def test_no_flag_turns_verification_off(start: "Start", command: str) -> None:
    text = start(command, "--help").wait().stdout
    flags = set(re.findall(r"--[a-z-]+", text))
    assert not {flag for flag in flags if re.search("insecure|verify|trust-all|skip", flag)} - {"--local-insecure"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--client-ca", "CA", "--allow-plaintext"],
            "clients without TLS show no certificates: --allow-plaintext and --client-ca exclude each other",
        ),
        (["--https", ":0"], "HTTPS needs certificates: give --cert and --key, or let --acme get some"),
        (
            ["--key", "BOTH"],
            "there are 0 --cert and 1 --key: give a key for each certificate, or no key at all if each file holds both",
        ),
        (
            ["--cert", "BOTH", "--key", "BOTH", "--key", "BOTH"],
            "there are 1 --cert and 2 --key: give a key for each certificate, or no key at all if each file holds both",
        ),
    ],
)
def test_the_servers_flags_do_not_contradict_each_other(
    start: "Start", authority: Authority, arguments: list[str], text: str
) -> None:
    files = {"CA": str(authority.path), "BOTH": str(authority.issue("otun.example"))}
    words = [files.get(word, word) for word in arguments]
    assert complaint(start(*SERVER, *words).wait()) == (2, f"otun: {text}")


def test_certificates_of_clients_bring_a_state_folder_along(authority: Authority) -> None:
    def state_for(**flags: str) -> Path | None:
        layers = open_layers("server", {"control": "127.0.0.1:0", **flags}, {}, ConfigFile())
        return read_server_settings(layers, {"HOME": "/nowhere", "XDG_STATE_HOME": "/nowhere"}).state

    assert state_for() is None
    assert state_for(client_ca=str(authority.path)) == Path("/nowhere/otun")


# Files

NOT_READABLE: dict[str, tuple[str, str]] = {
    "missing": ("none.pem", "No such file or directory"),
    "a folder": ("folder", "Is a directory"),
    "in no folder": ("none.txt/file", "Not a directory"),
    "a long name": ("x" * 300, "File name too long"),
}
FILES = {
    "--cert": SERVER,
    "--client-ca": SERVER,
    "--ca": CLIENT,
    "--client-cert": CLIENT,
}


@pytest.mark.parametrize("kind", NOT_READABLE)
@pytest.mark.parametrize("flag", [*FILES, "--key", "--client-key"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    start: "Start", authority: Authority, tmp_path: Path, flag: str, kind: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.txt").touch()
    name, reason = NOT_READABLE[kind]
    path = tmp_path / name
    good = str(authority.issue("otun.example"))
    words = {"--key": [*SERVER, "--cert", good], "--client-key": [*CLIENT, "--client-cert", good]}
    code, text = complaint(start(*words.get(flag, FILES.get(flag, ())), flag, str(path)).wait())
    assert (code, text) == (2, f"otun: {path}: {reason}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("flag", FILES)
def test_a_file_that_may_not_be_read_is_named_with_the_reason(start: "Start", authority: Authority, flag: str) -> None:
    path = authority.issue("otun.example").certificate
    path.chmod(0)
    assert complaint(start(*FILES[flag], flag, str(path)).wait()) == (2, f"otun: {path}: Permission denied")


@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize("text", ["", "garbage", "\0\xff", "-----BEGIN CERTIFICATE-----\nMIIB\n"], ids=repr)
def test_a_file_that_holds_something_else_is_named(start: "Start", tmp_path: Path, flag: str, text: str) -> None:
    path = tmp_path / "file.pem"
    path.write_text(text, encoding="latin-1")
    problem = (
        f"{path} holds no certificates in PEM"
        if flag.endswith("-ca") or flag == "--ca"
        else f"{path} and {path} hold no certificate and its key in PEM"
    )
    assert complaint(start(*FILES[flag], flag, str(path)).wait()) == (2, f"otun: {problem}")


@pytest.mark.parametrize("words", [(*SERVER, "--cert", "--key"), (*CLIENT, "--client-cert", "--client-key")])
@pytest.mark.parametrize("kind", ["another's", "with a password", "with a password, as once", "no key", "DER"])
def test_a_key_that_does_not_fit_is_named(
    start: "Start", authority: Authority, tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    files, other = authority.issue("otun.example"), authority.issue("otun.example")
    path = tmp_path / "key.pem"
    password = f"the key in {path} has a password; write it without, in a file that nobody else can read"
    match kind:
        case "another's":
            content, problem = key_of(other), f"the key in {path} does not belong to the certificate in {files}"
        case "with a password":
            content, problem = locked_key_of(files, PrivateFormat.PKCS8), password
        case "with a password, as once":
            content, problem = locked_key_of(files, PrivateFormat.TraditionalOpenSSL), password
        case "no key":
            content, problem = certificate_of(files), f"{files} and {path} hold no certificate and its key in PEM"
        case _:
            content, problem = "0\x82\1\2\2\1", f"{files} and {path} hold no certificate and its key in PEM"
    path.write_text(content)
    *arguments, certificate_flag, key_flag = words
    code, text = complaint(start(*arguments, certificate_flag, str(files), key_flag, str(path)).wait())
    assert (code, text) == (2, f"otun: {problem}")


# The state folder


@pytest.mark.parametrize("kind", ["empty", "garbage", "cut short", "a key only", "a link to nowhere", "a folder"])
def test_a_certificate_of_its_own_that_is_broken_is_not_replaced(
    start: "Start", authority: Authority, tmp_path: Path, kind: str
) -> None:
    files = authority.issue("otun.example")
    whole = files.certificate.read_text()
    path = tmp_path / "control.pem"
    problem = f"{path} and {path} hold no certificate and its key in PEM"
    match kind:
        case "empty":
            path.touch()
        case "garbage":
            path.write_text("garbage")
        case "cut short":
            path.write_text(whole[: len(whole) // 2])
        case "a key only":
            path.write_text(key_of(files))
        case "a link to nowhere":
            path.symlink_to(tmp_path / "nowhere")
            problem = f"{path}: No such file or directory"
        case _:
            path.mkdir()
            problem = f"{path}: Is a directory"
    before = None if path.is_dir() or not path.exists() else path.read_bytes()
    hint = "remove it to have a new one made, whose fingerprint clients must then be given"
    assert complaint(start(*SERVER, "--state", str(tmp_path)).wait()) == (2, f"otun: {problem}; {hint}")
    assert before is None or path.read_bytes() == before
    assert not (tmp_path / "nowhere").exists()


def test_a_mistake_in_the_list_of_clients_is_not_taken_for_one_in_the_servers_certificate(
    start: "Start", tmp_path: Path
) -> None:
    arguments = ("--state", str(tmp_path / "state"), "--client-ca", str(tmp_path / "none.pem"))
    assert complaint(start(*SERVER, *arguments).wait()) == (
        2,
        f"otun: {tmp_path / 'none.pem'}: No such file or directory",
    )


def test_a_full_disk_is_a_line_and_leaves_nothing(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "otun.cli", *SERVER, "--state", str(state)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"otun: database {state / 'otun.db'}: disk I/O error\n"
    assert [path.name for path in state.iterdir()] == ["server.lock"]


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="this system has no folder that nobody writes to")
def test_a_folder_that_cannot_be_written_to_is_a_line(start: "Start") -> None:
    code, text = complaint(start(*SERVER, "--state", "/sys/kernel").wait())
    assert code == 2
    assert text in [
        f"otun: state folder /sys/kernel: {reason}" for reason in ("Permission denied", "Read-only file system")
    ]


def test_of_two_servers_that_start_at_once_one_gets_the_folder(start: "Start", tmp_path: Path) -> None:
    state = tmp_path / "state"
    programs = [start(*SERVER, "--state", str(state), "--log-level", "error") for _ in range(2)]
    lines = [program.read_line() for program in programs]
    (loser,) = (program for program, line in zip(programs, lines, strict=True) if not line)
    ended = loser.wait()
    assert ended.code == 1
    assert ended.stderr == (
        f"otun: state folder {state} is in use by another otun server; give this one its own with --state, "
        "or have it take that one's place with --replace\n"
    )
    assert sorted(line.partition(" ")[0] for line in lines) == ["", "control"]


def test_the_message_of_a_bad_setting_is_an_error_of_the_configuration() -> None:
    layers = open_layers("server", {"cert": "/none", "key": "/a\n/b"}, {}, ConfigFile())
    with pytest.raises(ConfigurationError, match="1 --cert and 2 --key"):
        read_server_settings(layers, {})
