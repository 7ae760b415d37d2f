import itertools
from pathlib import Path

import pytest

from otun.cli.layers import flag_for, open_layers, parse_switch, variable_for
from otun.cli.settings import ClientTable, ConfigFile, ServerTable
from otun.errors import AddressError, ConfigurationError

FILE = ConfigFile(
    path=Path("/etc/otun/config.toml"),
    server=ServerTable(public_url="file", state="state", tokens_file="~/tokens"),
    client=ClientTable(name="file", log_requests=False),
)


@pytest.mark.parametrize("present", list(itertools.product([True, False], repeat=3)))
def test_a_flag_wins_over_the_environment_and_that_over_the_file(present: tuple[bool, bool, bool]) -> None:
    in_flags, in_environment, in_file = present
    layers = open_layers(
        "server",
        {"public_url": "flag" if in_flags else None},
        {"OTUN_PUBLIC_URL": "environment"} if in_environment else {},
        FILE if in_file else ConfigFile(),
    )
    expected = [name for name, is_there in zip(["flag", "environment", "file"], present, strict=True) if is_there]
    assert layers.read("public_url", str) == (expected[0] if expected else None)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert open_layers("client", {}, {"OTUN_NAME": ""}, FILE).read("name", str) == "file"


def test_a_command_reads_only_its_own_table() -> None:
    file = ConfigFile(path=Path("x"), server=ServerTable(log_level="debug"), client=ClientTable(log_level="error"))
    assert open_layers("client", {}, {}, file).read("log_level", str) == "error"
    assert open_layers("server", {}, {}, file).read("log_level", str) == "debug"


def test_a_switch_may_come_from_every_source() -> None:
    for flag, variable, expected in [(None, None, False), (None, "on", True), (True, "off", True), (False, "1", False)]:
        environ = {"OTUN_LOG_REQUESTS": variable} if variable else {}
        layers = open_layers("client", {"log_requests": flag}, environ, FILE)
        assert layers.read("log_requests", parse_switch) is expected


@pytest.mark.parametrize(
    ("flags", "environ", "origin"),
    [
        ({"name": "x", "log_requests": None}, {}, "--name"),
        ({}, {"OTUN_NAME": "x"}, "OTUN_NAME"),
        ({}, {}, "/etc/otun/config.toml: client.name"),
    ],
)
def test_a_bad_value_is_named_with_where_it_stands(
    flags: dict[str, str | bool | None], environ: dict[str, str], origin: str
) -> None:
    def refuse(text: str) -> str:
        raise AddressError(f"{text!r} is bad")

    value = "file" if not flags and not environ else "x"
    with pytest.raises(AddressError) as caught:
        open_layers("client", flags, environ, FILE).read("name", refuse)
    assert str(caught.value) == f"{origin}: {value!r} is bad"


def test_a_stronger_source_wins_under_either_of_a_settings_names() -> None:
    assert open_layers("client", {}, {"OTUN_SUBDOMAIN": "x"}, FILE).read("name", str, alias="subdomain") == "x"
    file = ConfigFile(path=Path("x"), client=ClientTable(subdomain="file"))
    assert open_layers("client", {}, {"OTUN_NAME": "x"}, file).read("name", str, alias="subdomain") == "x"


def test_one_source_may_use_both_names_if_the_values_are_equal() -> None:
    both = {"OTUN_NAME": "x", "OTUN_SUBDOMAIN": "x"}
    assert open_layers("client", {}, both, FILE).read("name", str, alias="subdomain") == "x"
    with pytest.raises(ConfigurationError, match=r"^OTUN_NAME and OTUN_SUBDOMAIN are one setting, but differ$"):
        open_layers("client", {}, both | {"OTUN_NAME": "y"}, FILE).read("name", str, alias="subdomain")


def test_a_path_in_the_file_is_relative_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    layers = open_layers("server", {}, {}, FILE)
    assert layers.read_path("state") == Path("/etc/otun/state")
    assert layers.read_path("tokens_file") == Path("/home/ann/tokens")


def test_a_path_in_a_flag_is_relative_to_where_the_user_is() -> None:
    assert open_layers("server", {"state": "here"}, {}, FILE).read_path("state") == Path("here")


def test_flags_and_variables_are_spelt_after_the_setting() -> None:
    assert (flag_for("public_url"), variable_for("public_url")) == ("--public-url", "OTUN_PUBLIC_URL")


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'maybe' is neither true nor false"):
        parse_switch("maybe")
