"""Tokens: what a client must present where the server has some."""

from pathlib import Path

import pytest

from otun import RegistrationRefused, open_tunnel
from otun.control.messages import Register
from otun.server import authentication

from .raw_client import raw_client
from .stored_tokens import make

TOKENS = frozenset({"first-token", "second-token", "naïve-tökén"})


@pytest.mark.parametrize("token", sorted(TOKENS))
async def test_each_token_opens_a_tunnel(start_server, token: str) -> None:
    server = await start_server(tokens=TOKENS)
    async with raw_client(server.control) as client:
        assert (await client.register("app", token=token))["type"] == "registered"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"token": None},
        {"token": ""},
        {"token": "wrong"},
        {"token": "first-toke"},
        {"token": "first-token "},
        {"token": "FIRST-TOKEN"},
        {"token": "first-token,second-token"},
        {"token": "naïve-tökén".encode().decode("latin-1")},
    ],
    ids=repr,
)
async def test_no_token_or_a_wrong_one_is_refused(start_server, fields: dict[str, str | None]) -> None:
    server = await start_server(tokens=TOKENS)
    async with raw_client(server.control) as client:
        await client.say({"type": "register", "subdomain": "app", **fields})
        answer = await client.hear_farewell()
        assert answer["code"]
        assert not answer.get("retryable", False)
        assert "token" in str(answer["message"])
        assert not any(token in str(answer) for token in TOKENS)


async def test_a_refused_client_does_not_learn_which_names_are_taken(start_server) -> None:
    server = await start_server(tokens=TOKENS)
    async with raw_client(server.control) as owner:
        await owner.register("app", token="first-token")
        answers = []
        for name in ("app", "free", "-"):
            async with raw_client(server.control) as stranger:
                answers.append(await stranger.register(name, token="guess"))
        assert answers[0] == answers[1] == answers[2]


async def test_a_server_without_tokens_takes_any(server) -> None:
    async with raw_client(server.control) as client:
        assert (await client.register("app", token="whatever"))["type"] == "registered"


async def test_the_library_presents_its_token(start_server) -> None:
    server = await start_server(tokens=TOKENS)
    async with open_tunnel(server.control, name="app", token="naïve-tökén") as tunnel:
        assert tunnel.name == "app"
    with pytest.raises(RegistrationRefused, match="token") as caught:
        async with open_tunnel(server.control, name="app"):
            pass
    assert caught.value.code
    assert not caught.value.is_retryable


def test_tokens_do_not_show_in_the_repr_of_a_message() -> None:
    assert "SECRET" not in repr(Register(token="SECRET"))


async def test_a_token_that_was_made_a_moment_ago_is_good(start_server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(authentication, "POLL_INTERVAL", 1000)
    server = await start_server(state=tmp_path, tokens=TOKENS)
    await make(tmp_path, "ann")
    async with raw_client(server.control) as client:
        assert (await client.register("app", token="ann-secret"))["type"] == "registered"
