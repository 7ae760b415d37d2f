"""Fixtures of the tests of automatic certificates: a pebble for each test, ports, and issuers."""

import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from otun.tls.acme import AcmeSettings, Challenges, Issuer

from ...interop.conftest import free_port, lack, start
from ...interop.support import Start
from ...server.harness import make_hung_tests_fail
from .authority import Authority, open_authority
from .pebble import Clock, Log, LogHandler, Pebble, Ports, RunningIssuer, StartIssuer, Watch, run_issuer

__all__ = ["free_port", "start"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    make_hung_tests_fail(items, Path(__file__).parent)


@pytest.fixture
async def stopped_pebble(
    start: Start,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Pebble:
    """A CA that is not running yet; its DNS is."""
    for program in ("pebble", "pebble-challtestsrv"):
        if shutil.which(program) is None:
            lack(f"{program} is not installed (pebble)")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    pebble = Pebble(start, tmp_path_factory.mktemp("pebble"), *(free_port() for _ in range(6)))
    await pebble.start_dns()
    return pebble


@pytest.fixture
async def pebble(stopped_pebble: Pebble) -> Pebble:
    """A CA."""
    await stopped_pebble.run()
    return stopped_pebble


@pytest.fixture
def challenges() -> Challenges:
    """What the ports answer: to both kinds of challenges."""
    return Challenges(has_http=True, has_tls_alpn=True)


@pytest.fixture
async def ports(stopped_pebble: Pebble, challenges: Challenges, nursery: trio.Nursery) -> Ports:
    """The ports where the CA looks."""
    ports = Ports(challenges)
    await nursery.start(ports.serve, stopped_pebble.http_port, stopped_pebble.tls_port)
    return ports


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """The log."""
    caplog.set_level(logging.INFO, "otun")
    log = Log(caplog)
    handler = LogHandler(log)
    logger = logging.getLogger("otun")
    logger.addHandler(handler)
    yield log
    logger.removeHandler(handler)


@pytest.fixture
def clock() -> Clock:
    """The issuers' clock."""
    return Clock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder in which the issuers keep what is to last."""
    return tmp_path / "acme"


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that believes everything, and answers as the test wishes."""
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setattr("otun.tls.acme.ordering.FIRST_LOOK", 0.02)
    with open_authority(tmp_path_factory.mktemp("authority")) as authority:
        yield authority


@pytest.fixture
async def start_issuer(
    challenges: Challenges, clock: Clock, state: Path, log: Log, nursery: trio.Nursery
) -> AsyncIterator[StartIssuer]:
    """Start an issuer that wants *names*."""
    running: list[RunningIssuer] = []

    async def start(settings: AcmeSettings, *names: str, folder: Path = state) -> RunningIssuer:
        watch = Watch()
        issuer = Issuer(settings, folder, challenges, watch, now=clock, random=lambda: 0.0)
        for name in names:
            issuer.want(name)
        running.append(await run_issuer(nursery, issuer, watch))
        return running[-1]

    yield start
    for one in running:
        await one.stop()
