"""Ctrl-C while the program is still being imported, which takes ten times as long as Python takes to start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WAYS_TO_START = {
    "python -m": ["-m", "otun.cli", "demo"],
    "console script": ["-c", "import sys; from otun.cli import main; sys.exit(main(['demo']))"],
    "script": [str(ROOT / "cli" / "otun_server.py")],
}


@pytest.mark.parametrize("module", ["trio", "typer"])
@pytest.mark.parametrize("way", WAYS_TO_START)
def test_ctrl_c_during_an_import_is_exit_code_130_and_no_word(
    environment: pytest.MonkeyPatch, tmp_path: Path, way: str, module: str
) -> None:
    # The module is found before the real one, and sends the signal while it is being imported.
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()\n")
    environment.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = subprocess.run(
        [sys.executable, *WAYS_TO_START[way]], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_until_main_is_called_nothing_is_imported(environment: pytest.MonkeyPatch) -> None:
    code = "import sys; before = set(sys.modules); from otun.cli import main; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert set(done.stdout.split()) == {"otun", "otun.cli", "otun.version"}
