"""Promises that are broken on purpose, one of each kind: the verdict must say so.

`python -m tests.chaos --planted` tries them out.
"""

import tempfile
from pathlib import Path
from typing import Final

import attrs

from ..fuzz.planting import Plant, copy_package
from .scenarios import BY_NAME, Scenario
from .trial import Report, try_out

_ADMITTED: Final = "        self._attendance.come()\n        return peer"


def _keep(what: str, *, name: str) -> Plant:
    """Return the bug that the server keeps something of each visitor."""
    kept = f'        self.__dict__.setdefault("leak", []).append({what})'
    return Plant(name, "server/http_port.py", _ADMITTED, _ADMITTED.replace("\n", f"\n{kept}\n"))


MEMORY_LEAK: Final = _keep("bytearray(8192)", name="something of each visitor is kept")


@attrs.frozen(kw_only=True)
class Broken:
    """A scenario in which a promise is broken, and what is told of it then; *plant* is the bug behind it, if any."""

    promise: str
    scenario: Scenario
    told: str
    plant: Plant | None = None

    async def try_out(self) -> Report:
        """Try it out, in a copy of the package if there is a bug."""
        if self.plant is None:
            return await try_out(self.scenario)
        with tempfile.TemporaryDirectory(prefix="otun-planted-") as name:
            copy_package(Path(name), self.plant)
            setting = attrs.evolve(self.scenario.setting, package=Path(name))
            return await try_out(attrs.evolve(self.scenario, setting=setting))


def _unsupervised(name: str) -> Scenario:
    scenario = BY_NAME[name]
    setting = attrs.evolve(scenario.setting, is_client_supervised=False, is_server_supervised=False)
    return attrs.evolve(scenario, setting=setting)


PLANTED: Final = (
    Broken(
        promise="every byte is right",
        scenario=attrs.evolve(BY_NAME["damage"], may_damage=False),
        told="wrong bytes",
    ),
    Broken(
        promise="no visitor is lost",
        scenario=attrs.evolve(BY_NAME["kill-server"], is_uninterrupted=True),
        told="visitors should have noticed nothing, but had ",
    ),
    Broken(
        promise="visitors wait for a client that is away",
        scenario=BY_NAME["kill-client"],
        told="probes should have waited until service was back, but had ",
        plant=Plant(
            "nobody is held", "server/absence.py", "        if not self.seconds or ", "        if self.seconds or "
        ),
    ),
    Broken(
        promise="service returns in time",
        scenario=BY_NAME["kill-server"],
        told="s, which is more than 3",
        plant=Plant(
            "the server takes its time",
            "server/server.py",
            "        hub.listen()\n",
            "        await trio.sleep(5)\n        hub.listen()\n",
        ),
    ),
    Broken(
        promise="server and client go on",
        scenario=_unsupervised("kill-client"),
        told="the client has ended with [-9]",
    ),
    Broken(
        promise="no descriptor is left open",
        scenario=BY_NAME["reload-server"],
        told="the server has other descriptors: more {'/dev/null': ",
        plant=_keep('open("/dev/null")', name="something is opened for each visitor"),
    ),
    Broken(
        promise="no memory is kept",
        scenario=BY_NAME["rst-storm"],
        told="the server has grown by ",
        plant=_keep("bytearray(1_000_000)", name="much of each visitor is kept"),
    ),
    Broken(
        promise="a shortage is told once a second",
        scenario=BY_NAME["descriptors-used-up"],
        told="times in one second",
        plant=Plant(
            "a shortage is told each time",
            "switchboard/listener.py",
            "        if not self._is_failing and self._board.now",
            "        self._is_failing = False\n        if True or self._board.now",
        ),
    ),
)
