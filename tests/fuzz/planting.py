"""Copies of the package with one bug in each, and children that import such a copy instead of the package."""

import os
import shutil
from pathlib import Path
from typing import Final

import attrs

REPOSITORY: Final = Path(__file__).resolve().parents[2]


class PlantDoesNotFit(Exception):
    """The text to be replaced is not there exactly once: the code has changed, and the plant must follow it."""


@attrs.frozen
class Plant:
    """A bug: in *file* of the package, *old* becomes *new*.  *tests* are the files of which one must catch it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `PlantDoesNotFit` unless *old* stands in the file once, and *new* makes it another valid module."""
        self._planted(REPOSITORY / "otun")

    def apply(self, package: Path) -> None:
        """Plant the bug into *package*, a copy."""
        text = self._planted(package)
        (package / self.file).write_text(text)

    def _planted(self, package: Path) -> str:
        path = package / self.file
        text = path.read_text() if path.exists() else ""
        count = text.count(self.old)
        if count != 1:
            raise PlantDoesNotFit(f"the bug {self.name!r} no longer fits: otun/{self.file} has {count} x {self.old!r}")
        planted = text.replace(self.old, self.new)
        compile(planted, self.file, "exec")
        return planted


def copy_package(directory: Path, plant: Plant | None) -> None:
    """Copy the package into *directory*, with the bug in it."""
    shutil.copytree(REPOSITORY / "otun", directory / "otun", ignore=shutil.ignore_patterns("__pycache__"))
    if plant is not None:
        plant.apply(directory / "otun")


def environment_for(directory: Path) -> dict[str, str]:
    """Return the environment of a child that imports the copy in *directory*, which must be its working directory."""
    own = {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    return {**os.environ, **own, "OTUN_COPY": str(directory)}
