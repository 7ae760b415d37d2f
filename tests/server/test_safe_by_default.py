"""A server in another program, which nobody has told who may open tunnels."""

import stat
from pathlib import Path

import pytest
import trio

import otun
from otun import ConfigurationError, TcpAddress, Trust, open_tunnel, serve

from ..tls.issuing import Authority
from .harness import LOOPBACK, loopback_settings, run_server

EVERYWHERE = TcpAddress("0.0.0.0", 0)
WILDCARDS = [TcpAddress("", 0), EVERYWHERE, TcpAddress("::", 0)]


async def see_refusal_to_start(settings: otun.ServerSettings) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigurationError, match=r"needs tokens.*--state.*--open"):
            await nursery.start(serve, settings)


@pytest.mark.parametrize("control", WILDCARDS, ids=repr)
async def test_a_server_for_everybody_without_tokens_or_a_place_for_one_does_not_start(
    engine, control: TcpAddress
) -> None:
    await see_refusal_to_start(loopback_settings(control=control, allow_plaintext=True))


async def test_nor_does_one_whose_clients_come_by_https(engine, authority: Authority) -> None:
    certificate = authority.issue("127.0.0.1")
    await see_refusal_to_start(loopback_settings(https=EVERYWHERE, certificates=(certificate,)))


async def test_a_token_is_made_for_those_who_come_by_https(
    engine, nursery: trio.Nursery, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.issue("127.0.0.1")
    state = tmp_path / "state"
    settings = loopback_settings(https=EVERYWHERE, certificates=(certificate,), state=state)
    server = await run_server(nursery, settings)
    token = server.server.first_token
    assert token is not None
    assert not server.server.is_open
    trust = Trust(ca=authority.path)
    for address in (TcpAddress("127.0.0.1", server.https.port), server.control):
        with pytest.raises(otun.RegistrationRefused) as caught:
            async with open_tunnel(address, trust=trust):
                pass
        assert caught.value.code == "bad_token"
        async with open_tunnel(address, trust=trust, token=token):
            pass


@pytest.mark.parametrize("how", [{"open": True}, {"tokens": frozenset({"a-key"})}], ids=["open", "tokens"])
async def test_one_that_has_been_told_starts(engine, nursery: trio.Nursery, how: dict[str, object]) -> None:
    await run_server(nursery, loopback_settings(control=EVERYWHERE, allow_plaintext=True, **how))


async def test_one_with_a_state_folder_makes_a_token(engine, nursery: trio.Nursery, tmp_path: Path) -> None:
    state = tmp_path / "state"
    server = await run_server(nursery, loopback_settings(control=EVERYWHERE, state=state))
    token = server.server.first_token
    assert token is not None
    assert token not in repr(server.server)
    assert (state / "first-token").read_text() == f"{token}\n"
    assert stat.S_IMODE((state / "first-token").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


async def test_a_loopback_server_without_anything_lets_everybody_in(engine, nursery: trio.Nursery) -> None:
    server = await run_server(nursery, loopback_settings())
    assert server.server.is_open
    assert server.control.host == LOOPBACK.host
    async with open_tunnel(server.control):
        pass
