"""A pytest plugin for `planted_bugs.py`: the tests must import the copy, and do the same each time.

It writes one line for each test that starts, fails or passes into the file `results` of the copy's directory: so that
a test which never ends is known by name.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

COPY = Path(os.environ["OTUN_COPY"])

# Before any test is imported: its own settings start from these.
settings.register_profile(
    "planted",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("planted")


class Recorder:
    """Writes the results."""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.write("failed", report.nodeid)
        elif report.when == "call" and report.passed:
            self.write("passed", report.nodeid)

    def write(self, word: str, nodeid: str) -> None:
        with (COPY / "results").open("a") as results:
            results.write(f"{word} {nodeid}\n")


def pytest_configure(config: pytest.Config) -> None:
    import otun

    assert otun.__file__ is not None
    if not Path(otun.__file__).is_relative_to(COPY):
        raise pytest.UsageError(f"the tests would run against {otun.__file__}, not against the copy in {COPY}")
    config.pluginmanager.register(Recorder())
