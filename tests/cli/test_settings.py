from collections.abc import Callable
from pathlib import Path

import pytest

from otun.cli.settings import ClientTable, ConfigFile, ServerTable, default_config_path, parse_config, read_config
from otun.errors import ConfigurationError

PATH = Path("/etc/otun.toml")


def complaint_about(text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text if isinstance(text, bytes) else text.encode(), PATH)
    message = str(caught.value)
    assert message.startswith("/etc/otun.toml: ")
    assert "\n" not in message
    return message.removeprefix("/etc/otun.toml: ")


def test_a_file_gives_its_tables() -> None:
    text = b'[server]\ncontrol = ":1"\nlog_level = "debug"\n[client]\nserver = "a:1"\nlog_requests = true\n'
    assert parse_config(text, PATH) == ConfigFile(
        path=PATH,
        server=ServerTable(control=":1", log_level="debug"),
        client=ClientTable(server="a:1", log_requests=True),
    )


def test_an_empty_file_sets_nothing() -> None:
    assert parse_config(b"", PATH) == ConfigFile(path=PATH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[client]\nserver = 4443", "client.server: expected a string, found an integer"),
        ("[client]\nserver = true", "client.server: expected a string, found true or false"),
        ("[client]\nlog_requests = 'yes'", "client.log_requests: expected true or false, found a string"),
        ("[client]\nlog_requests = 1", "client.log_requests: expected true or false, found an integer"),
        ("[server]\ndomain = ['a', 'b']", "server.domain: expected a string, found an array"),
        ("[server]\nstate = 1979-05-27", "server.state: expected a string, found a date or time"),
        ("[server.control]\nport = 1", "server.control: expected a string, found a table"),
        ("server = 'example.com'", "server: expected a table, found a string"),
        ("[[client]]\nserver = 'a'", "client: expected a table, found an array"),
        ("[sever]", "sever: unknown key; did you mean 'server'?"),
        ("[client]\nsrever = 'a'", "client.srever: unknown key; did you mean 'server'?"),
        ("[server]\npublic-url = 'a'", "server.public-url: unknown key; did you mean 'public_url'?"),
        ("zzz = 1", "zzz: unknown key; expected one of server, client, tunnel"),
        ('"a @ b\\n" = 1', "'a @ b\\n': unknown key; expected one of server, client, tunnel"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_was_expected(text: str, message: str) -> None:
    assert complaint_about(text) == message


def test_all_mistakes_are_named_at_once() -> None:
    complaint = complaint_about("[client]\nserver = 1\ntokn = 'x'\nnme = 'y'\n[server]\nstate = 2")
    assert set(complaint.split("; ")) >= {
        "client.server: expected a string, found an integer",
        "client.nme: unknown key",
        "client.tokn: unknown key",
        "server.state: expected a string, found an integer",
    }


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    assert "hunter2" not in complaint_about("[client]\ntoken = ['hunter2']")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[client]\nserver = \n", "line 2: "),
        ("[client]\n\nserver 'a'\n", "line 3: "),
        ("[client]\nserver = '''a\n\n", "line 2: "),
        ("[client]\nserver = 'a'\nserver = 'b'\n", "line 3: "),
        (b"[client]\n# caf\xe9\n", "line 2: not UTF-8 text"),
    ],
)
def test_a_syntax_error_is_named_with_its_line(text: str | bytes, line: str) -> None:
    assert complaint_about(text).startswith(line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a = {'[' * 5000}{']' * 5000}", "arrays or tables are nested too deeply"),
        (f"a = {'9' * 5000}", "a value cannot be read: Exceeds the limit"),
    ],
    ids=["nested arrays", "long integer"],
)
def test_what_only_pythons_limits_forbid_is_the_users_mistake_too(text: str, message: str) -> None:
    assert complaint_about(text).startswith(message)


def test_dev_null_stands_for_an_empty_file() -> None:
    assert read_config(Path("/dev/null"), {}) == ConfigFile(path=Path("/dev/null"))


def test_the_default_file_is_in_the_users_configuration_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_config_path({}) == Path("/home/ann/.config/otun/config.toml")
    assert default_config_path({"XDG_CONFIG_HOME": "/cfg"}) == Path("/cfg/otun/config.toml")
    assert default_config_path({"XDG_CONFIG_HOME": "relative"}) == Path("/home/ann/.config/otun/config.toml")


def test_a_missing_default_file_is_fine_and_a_missing_chosen_one_is_not(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert read_config(None, environ) == ConfigFile()
    with pytest.raises(ConfigurationError, match=r"configuration file /.*/none\.toml: No such file"):
        read_config(tmp_path / "none.toml", environ)


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_file_that_cannot_be_read_is_an_error_even_in_the_default_place(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "otun" / "config.toml"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(ConfigurationError, match=r"configuration file /.*config\.toml: (Is a directory|Too many)"):
        read_config(None, {"XDG_CONFIG_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "mode", "is_warned"),
    [
        ("[client]\ntoken = 'x'", 0o644, True),
        ("[client]\ntoken = 'x'", 0o640, False),
        ("[client]\ntoken = 'x'", 0o600, False),
        ("[client]\nname = 'x'", 0o644, False),
    ],
)
def test_a_token_that_others_can_read_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, mode: int, is_warned: bool
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    read_config(path, {})
    expected = f"otun: warning: {path} holds a token and other users can read it; run: chmod o-r {path}\n"
    assert capsys.readouterr().err == (expected if is_warned else "")


@pytest.mark.parametrize(("proxy", "is_warned"), [("http://user:word@proxy.example", True), ("proxy.example", False)])
def test_a_proxys_password_that_others_can_read_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], proxy: str, is_warned: bool
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[client]\nproxy = '{proxy}'")
    path.chmod(0o644)
    read_config(path, {})
    expected = f"otun: warning: {path} holds a proxy's password and other users can read it; run: chmod o-r {path}\n"
    assert capsys.readouterr().err == (expected if is_warned else "")
