"""The public names, which are imported when the first of them is used."""

import subprocess
import sys

import pytest

import otun
import otun.exports


def run_fresh(code: str) -> str:
    """Run *code* in an interpreter that has not imported anything of otun; what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def test_dir_lists_every_public_name() -> None:
    listed = run_fresh("import otun; print(*dir(otun))").split()
    assert {*otun.__all__, "__version__", "__doc__"} <= set(listed)


def test_a_star_import_gives_every_public_name() -> None:
    assert "Tunnel" in otun.__all__
    assert run_fresh("from otun import *; print(open_tunnel, Tunnel)").startswith("<function open_tunnel")
    namespace: dict[str, object] = {}
    exec("from otun import *", namespace)
    assert set(otun.__all__) <= set(namespace)


@pytest.mark.parametrize(
    "expression", ["otun.serve", "otun.control.Register", "otun.errors.OtunError", "otun.__all__", "otun.__version__"]
)
def test_any_of_them_may_be_the_first_to_be_used(expression: str) -> None:
    assert run_fresh(f"import otun; print({expression})")


def test_the_names_are_those_of_the_module_that_exports_them() -> None:
    assert otun.__all__ == otun.exports.__all__
    assert all(getattr(otun, name) is getattr(otun.exports, name) for name in otun.__all__)


def test_another_name_is_missing_as_from_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'otun' has no attribute 'nothing'"):
        _ = otun.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'otun'"):
        exec("from otun import nothing")


def test_threads_may_use_the_first_name_at_the_same_time() -> None:
    code = """
import threading, otun
barrier = threading.Barrier(8)
def use():
    barrier.wait()
    otun.Tunnel
    print(" used ", end="")
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
"""
    assert run_fresh(code).split() == ["used"] * 8
