"""The commands in this process, with the library's `serve` and `open_tunnels` replaced by what the test needs."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import otun.cli.client
import otun.cli.server
from otun.addresses import LocalAddress, TcpAddress, UnixAddress
from otun.cli import main
from otun.cli.client import describe_tunnel
from otun.cli.server import describe_client, is_open_to_others
from otun.cli.state import default_state_folder
from otun.client import Connected, TunnelEvent, TunnelSettings
from otun.errors import (
    InvalidName,
    ListenError,
    NameTaken,
    RegistrationRefused,
    ServerUnreachable,
    TokenRefused,
)
from otun.mux.errors import SessionClosed
from otun.server import Server, ServerSettings

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def served(environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings that `serve` was called with; it then fails, which ends the command."""
    seen: list[ServerSettings] = []

    async def serve(settings: ServerSettings, **_: object) -> None:
        is_default = settings.state == default_state_folder(os.environ)  # It has its own tests.
        seen.append(attrs.evolve(settings, state=None) if is_default else settings)
        await trio.lowlevel.checkpoint()
        raise ListenError("address already in use")

    monkeypatch.setattr("otun.cli.serving.serve", serve)
    return seen


Call = tuple[TcpAddress, LocalAddress, str | None, str | None]


@attrs.frozen
class FailingTunnel:
    """A tunnel that takes note of what it is to forward, and then fails, which ends the command."""

    server: TcpAddress
    settings: TunnelSettings
    token: str | None
    seen: list[Call]
    error: Exception
    url: str = "http://app.example"

    async def forward_to(self, local: LocalAddress, *, proxy_protocol: bool, **_: object) -> None:
        assert self.settings.local == str(local)
        self.seen.append((self.server, local, self.settings.name, self.token))
        await trio.lowlevel.checkpoint()
        raise self.error

    async def events(self) -> AsyncIterator[TunnelEvent]:
        await trio.sleep_forever()
        yield Connected(self.url)


def make_tunnels_fail(monkeypatch: pytest.MonkeyPatch, error: Exception, *, at_once: bool = False) -> list[Call]:
    """Have tunnels fail with *error*: when they are opened, or when they forward.  Return what they were to forward."""
    seen: list[Call] = []

    @asynccontextmanager
    async def open_tunnels(
        server: TcpAddress, settings: Sequence[TunnelSettings], *, token: str | None = None, **_: object
    ) -> AsyncIterator[tuple[FailingTunnel, ...]]:
        await trio.lowlevel.checkpoint()
        if at_once:
            raise error
        yield tuple(FailingTunnel(server, each, token, seen, error) for each in settings)

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    return seen


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What tunnels were to forward; they fail then, which ends the command."""
    return make_tunnels_fail(monkeypatch, ServerUnreachable("cannot connect"))


def test_server_settings_come_from_flags_environment_and_file(
    served: list[ServerSettings], tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[server]\ncontrol = "h:1"\npublic = "h:2"\ndomain = "file.example"\ntokens_file = "t"\n')
    (tmp_path / "t").write_text("alpha\n")
    environment.setenv("OTUN_PUBLIC", "h:3")
    environment.setenv("OTUN_CONTROL", "h:4")
    environment.setenv("OTUN_TOKENS", "beta")
    assert main(["server", "--config", str(config), "--control", ":5"]) == 1
    (settings,) = served
    assert settings.control == TcpAddress("", 5)
    assert settings.public == TcpAddress("h", 3)
    assert settings.domain == "file.example"
    assert settings.tokens == {"alpha", "beta"}


def test_server_without_settings_has_the_librarys_defaults(served: list[ServerSettings]) -> None:
    assert main(["server"]) == 1
    assert served == [ServerSettings()]


def test_tokens_in_the_state_folder_are_used_unless_a_file_is_named(
    served: list[ServerSettings], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    assert main(["server", "--state", str(state)]) == 1
    (state / "tokens").write_text("alpha")
    assert main(["server", "--state", str(state)]) == 1
    (tmp_path / "other").write_text("beta")
    assert main(["server", "--state", str(state), "--tokens-file", str(tmp_path / "other")]) == 1
    assert [settings.tokens for settings in served] == [set(), {"alpha"}, {"beta"}]


def test_an_empty_tokens_file_in_the_state_folder_is_an_error(served: list[ServerSettings], tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    assert main(["server", "--state", str(tmp_path)]) == 2
    assert not served


@pytest.mark.parametrize(
    ("arguments", "local"),
    [
        (["http", "3000"], TcpAddress("localhost", 3000)),
        (["http", "unix:/run/app"], UnixAddress("/run/app")),
        (["client", "--local", "[::1]:80"], TcpAddress("::1", 80)),
    ],
)
@pytest.mark.parametrize("name_flag", ["--name", "--subdomain"])
def test_client_and_its_short_form_open_the_same_tunnel(
    forwarded: list[object], arguments: list[str], local: LocalAddress, name_flag: str
) -> None:
    assert main([*arguments, "--server", "example.com", name_flag, "app", "--token", "t"]) == 4
    assert forwarded == [(TcpAddress("example.com", 4443), local, "app", "t")]


def test_client_settings_come_from_the_environment(forwarded: list[object], environment: pytest.MonkeyPatch) -> None:
    for name, value in {"SERVER": "h:1", "LOCAL": "2", "NAME": "n", "TOKEN": "t"}.items():
        environment.setenv(f"OTUN_{name}", value)
    assert main(["client"]) == 4
    assert forwarded == [(TcpAddress("h", 1), TcpAddress("localhost", 2), "n", "t")]


@pytest.mark.parametrize("spelling", ["name", "subdomain"])
def test_a_name_may_be_called_a_subdomain_everywhere(
    forwarded: list[tuple[object, ...]], tmp_path: Path, environment: pytest.MonkeyPatch, spelling: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[client]\n{spelling} = 'File'\n")
    arguments = ["http", "1", "--server", "h", "--config", str(config)]
    assert main(arguments) == 4
    environment.setenv(f"OTUN_{spelling.upper()}", "variable")
    assert main(arguments) == 4
    assert main([*arguments, f"--{spelling}", "flag"]) == 4
    assert [call[2] for call in forwarded] == ["file", "variable", "flag"]


@pytest.mark.parametrize("spelling", ["name", "subdomain"])
def test_a_bad_name_is_told_with_where_it_stands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, environment: pytest.MonkeyPatch, spelling: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[client]\n{spelling} = 'a_b'\n")
    arguments = ["http", "1", "--server", "h", "--config", str(config)]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"otun: {config}: client.{spelling}: 'a_b' is no name for a tunnel")
    environment.setenv(f"OTUN_{spelling.upper()}", "-")
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"otun: OTUN_{spelling.upper()}: '-' is no name for a tunnel")


def test_the_default_configuration_file_is_read(forwarded: list[object], tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "otun"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[client]\nserver = "h:1"\n')
    assert main(["http", "8000"]) == 4
    assert forwarded == [(TcpAddress("h", 1), TcpAddress("localhost", 8000), None, None)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["server", "--control", ":99999"], "--control: ':99999': port 99999 is not between 0 and 65535"),
        (["server", "--domain", "two words"], "--domain: 'two words' is no domain name"),
        (["server", "--public-url", "ftp://x"], "--public-url: 'ftp://x' is no public URL"),
        (["client", "--server", "h"], "which local service? Give --local PORT, or set OTUN_LOCAL"),
        (["http", "3000"], "which server? Give --server HOST, or set OTUN_SERVER or client.server"),
        (["http", "app", "--server", "h"], "'app' has no port; write HOST:PORT"),
        (["http", "1", "--server", "h", "--token", "two words"], "--token: a token is one or more printable ASCII"),
        (["server", "--log-level", "loud"], "--log-level: 'loud' is no log level; choose one of"),
        (["--log-level", "loud", "demo"], "--log-level: 'loud' is no log level; choose one of"),
        (["http", "1", "--server", "h", "--subdomain", "a_b"], "--name: 'a_b' is no name for a tunnel: write 1 to 63"),
        (["--config", "/none", "server"], "configuration file /none: No such file or directory"),
        (["server", "--tokens-file", "/none"], "tokens file /none: No such file or directory"),
        (["server", "--state", "/dev/null"], "state folder /dev/null: File exists"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"otun: {complaint}")
    assert err.count("\n") == 1


def test_a_bad_variable_is_named(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OTUN_LOG_REQUESTS", "perhaps")
    assert main(["http", "1", "--server", "h"]) == 2
    assert capsys.readouterr().err == "otun: OTUN_LOG_REQUESTS: 'perhaps' is neither true nor false\n"


@pytest.mark.parametrize("command", [["demo", "--once"], ["server"], ["http", "1", "--server", "h"]])
def test_every_command_takes_the_log_level_from_the_environment(
    capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    environment.setenv("OTUN_LOG_LEVEL", "loud")
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("otun: OTUN_LOG_LEVEL: 'loud' is no log level; choose one of")


@pytest.mark.parametrize("arguments", [["sever"], ["server", "--contrl", ":1"], ["http"], []])
def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sever"])
    assert "Did you mean 'server'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RegistrationRefused("no room", code="from_the_future"), 3),
        (TokenRefused("no such token"), 6),
        (NameTaken("another one has it"), 7),
        (SessionClosed("the server ended the session"), 4),
        (InvalidName("no name"), 2),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["opening", "forwarding"])
@pytest.mark.parametrize("flags", [[], ["-v"]])
def test_an_end_that_the_library_reports_is_one_line_and_its_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    flags: list[str],
    at_once: bool,
) -> None:
    make_tunnels_fail(monkeypatch, error, at_once=at_once)
    assert main(["http", "1", "--server", "h", *flags]) == code
    assert [line for line in capsys.readouterr().err.splitlines() if "DEBUG" not in line] == [f"otun: {error}"]


@pytest.mark.parametrize(
    ("before", "after", "variable", "shows_traceback"),
    [
        ([], [], "", False),
        (["-v"], [], "", True),
        ([], ["-v"], "", True),
        ([], [], "debug", True),
        (["--log-level", "error"], [], "debug", False),
        (["-v"], ["--log-level", "info"], "", False),
    ],
)
def test_a_surprise_shows_its_traceback_only_at_level_debug(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: list[str],
    after: list[str],
    variable: str,
    shows_traceback: bool,
) -> None:
    monkeypatch.setenv("OTUN_LOG_LEVEL", variable)
    make_tunnels_fail(monkeypatch, LookupError("surprise"))
    assert main([*before, "http", "1", "--server", "h", *after]) == 1
    err = capsys.readouterr().err
    assert ("Traceback" in err) == shows_traceback
    assert "otun: unexpected LookupError: surprise" in err


def test_the_url_stands_alone_for_scripts() -> None:
    local = TcpAddress("localhost", 3000)
    assert describe_tunnel("http://app.localhost:8080", local, is_terminal=False) == "http://app.localhost:8080"
    assert (
        describe_tunnel("http://app.localhost:8080", local, is_terminal=True)
        == "http://app.localhost:8080 → localhost:3000"
    )


def test_a_url_from_a_hostile_server_cannot_command_the_terminal() -> None:
    assert "\x1b" not in describe_tunnel("http://\x1b]0;x\x07", TcpAddress("h", 1), is_terminal=True)


@pytest.mark.parametrize(
    ("host", "settings", "line"),
    [
        ("127.0.0.1", ServerSettings(), "otun http 3000 --server 127.0.0.1:4443"),
        ("0.0.0.0", ServerSettings(domain="t.example.com"), "otun http 3000 --server t.example.com:4443"),
        ("::1", ServerSettings(tokens=frozenset({"s3"})), "OTUN_TOKEN=TOKEN otun http 3000 --server [::1]:4443"),
    ],
)
def test_the_line_for_the_client_is_ready_to_use(host: str, settings: ServerSettings, line: str) -> None:
    running = Server((TcpAddress(host, 4443),), (), is_open=not settings.tokens)
    assert describe_client(settings, running) == line


@pytest.mark.parametrize(
    ("hosts", "is_open"),
    [
        (["127.0.0.1"], False),
        (["127.8.0.1", "::1", "localhost"], False),
        (["127.0.0.1", "192.0.2.1"], True),
        (["0.0.0.0"], True),
        (["::"], True),
        ([""], True),
    ],
)
def test_addresses_that_others_reach(hosts: list[str], is_open: bool) -> None:
    assert is_open_to_others(TcpAddress(host, 1) for host in hosts) == is_open
