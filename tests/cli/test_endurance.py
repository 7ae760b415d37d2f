"""What a client is told to do when its server is lost, and when it is to end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import otun.cli.client
from otun.cli import main
from otun.cli.layers import Layer, Layers
from otun.cli.reconnecting import Endurance, read_endurance
from otun.client import Connected, Lost, TunnelEvent
from otun.errors import ServerUnreachable

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int | None]]:
    """Whether `open_tunnels` was to reconnect, and how often; the server is not reached, which ends the command."""
    seen: list[tuple[bool, int | None]] = []

    @asynccontextmanager
    async def open_tunnels(*_: object, reconnect: bool, max_retries: int | None, **__: object) -> AsyncIterator[tuple]:
        seen.append((reconnect, max_retries))
        await trio.lowlevel.checkpoint()
        raise ServerUnreachable("nobody there")
        yield ()

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    return seen


@pytest.mark.parametrize("command", [["client", "--local", "1"], ["http", "1"], ["tcp", "1"], ["tls", "1"]])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (True, None)),
        (["--reconnect"], (True, None)),
        (["--no-reconnect"], (False, None)),
        (["--max-retries", "7"], (True, 7)),
    ],
)
def test_every_client_may_be_told(
    asked: list[tuple[bool, int | None]], command: list[str], flags: list[str], expected: tuple[bool, int | None]
) -> None:
    assert main([*command, "--server", "h", *flags]) == 4
    assert asked == [expected]


def test_flags_go_before_the_environment_and_that_before_the_file(
    asked: list[tuple[bool, int | None]], tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "otun.toml"
    config.write_text('[client]\nserver = "h"\nreconnect = false\nmax_retries = 3\ndrain = "1m"\n')
    start = ["http", "1", "--config", str(config)]
    assert main(start) == 4
    environment.setenv("OTUN_RECONNECT", "true")
    environment.setenv("OTUN_MAX_RETRIES", "4")
    assert main(start) == 4
    assert main([*start, "--no-reconnect", "--max-retries", "5"]) == 4
    assert asked == [(False, 3), (True, 4), (False, 5)]


@pytest.mark.parametrize(("drain", "seconds"), [(None, 30), ("0", 0), ("5s", 5), ("2m", 120)])
def test_visitors_have_half_a_minute_unless_they_are_to_have_more_or_less(drain: str | None, seconds: float) -> None:
    layers = Layers((Layer({} if drain is None else {"drain": drain}, str),))
    assert read_endurance(layers) == Endurance(drain=seconds)


@pytest.mark.parametrize(
    ("flags", "complaint"), [(["--max-retries", "-1"], "--max-retries: '-1'"), (["--drain", "soon"], "--drain: 'soon'")]
)
def test_nonsense_is_one_line_and_exit_code_2(
    asked: list[tuple[bool, int | None]], capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert main(["http", "1", "--server", "h", *flags]) == 2
    assert capsys.readouterr().err.startswith(f"otun: {complaint}")
    assert not asked


@attrs.define
class MovingTunnel:
    """A tunnel that has one URL after the other, and is lost for good then."""

    urls: Sequence[str]
    has_moved: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return self.urls[0]

    async def forward_to(self, *_: object, **__: object) -> None:
        await self.has_moved.wait()
        raise ServerUnreachable("gone")

    async def events(self) -> AsyncIterator[TunnelEvent]:
        for url in self.urls:
            yield Connected(url)
            yield Lost("the server has gone")
            await trio.lowlevel.checkpoint()
        self.has_moved.set()


def test_another_url_is_said_and_the_same_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def open_tunnels(*_: object, **__: object) -> AsyncIterator[tuple[MovingTunnel]]:
        await trio.lowlevel.checkpoint()
        yield (MovingTunnel(["http://a.example", "http://a.example", "http://b.example", "http://a.example"]),)

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    assert main(["http", "1", "--server", "h"]) == 4
    assert capfd.readouterr().out.splitlines() == ["http://a.example", "http://b.example", "http://a.example"]
