"""Names of clients that choose none."""

import stat
from pathlib import Path

import pytest

from otun import ConfigurationError
from otun.server.given_names import NAMES_OF_ONE, RANDOM_NAMES, GivenNames

from .raw_client import raw_client


def test_the_same_client_gets_the_same_name_from_a_server_that_has_restarted(tmp_path: Path) -> None:
    assert next(GivenNames(tmp_path).candidates("a client")) == next(GivenNames(tmp_path).candidates("a client"))


def test_others_get_other_names_and_so_does_everybody_from_another_server(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    names = [
        next(GivenNames(folder).candidates(identity)) for folder in [*folders, None] for identity in ("a", "b", "")
    ]
    assert len(set(names)) == len(names)


def test_each_further_tunnel_has_its_own_name_which_it_gets_again(tmp_path: Path) -> None:
    names, again = (list(GivenNames(tmp_path).candidates("a client")) for _ in range(2))
    assert len(set(names)) == NAMES_OF_ONE + RANDOM_NAMES  # Beyond those that it gets again, names are new.
    assert again[:NAMES_OF_ONE] == names[:NAMES_OF_ONE]
    assert not {*names[NAMES_OF_ONE:]} & {*again[NAMES_OF_ONE:]}


def test_the_key_is_nobody_elses_to_read(tmp_path: Path) -> None:
    GivenNames(tmp_path)
    (key,) = tmp_path.iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33)])
def test_a_damaged_key_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "names.key").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"names\.key is damaged: remove it"):
        GivenNames(tmp_path)


def test_a_key_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing/names\.key: No such file"):
        GivenNames(tmp_path / "missing")


async def test_a_client_that_comes_back_has_its_name_again_and_a_second_one_has_another(start_server) -> None:
    server = await start_server(domain="tunnel.example")
    names = []
    for _ in range(2):
        async with raw_client(server.control) as client:
            names.append((await client.register())["subdomain"])
            async with raw_client(server.control) as other:
                names.append((await other.register())["subdomain"])
    assert names[0] == names[2] != names[1] == names[3]


async def test_who_has_another_token_has_another_name(start_server) -> None:
    server = await start_server(tokens=frozenset({"one", "two"}))
    names = []
    for token in ("one", "two", "one"):
        async with raw_client(server.control) as client:
            names.append((await client.register(token=token))["subdomain"])
    assert names[0] == names[2] != names[1]
