"""What is loaded before a command begins: a client is there in a moment."""

import subprocess
import sys

import pytest

HEAVY = ("rich", "httpx", "acme", "josepy", "cryptography", "requests", "argon2", "sqlite3", "asyncio")

PROGRAM = """
import sys
from otun.cli import main
main([sys.argv[1], "--help"])
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("command", "others"), [("http", "otun.server"), ("server", "otun.client"), ("token", "otun.client")]
)
def test_a_command_loads_only_what_it_needs(command: str, others: str) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, command], capture_output=True, text=True, check=True)
    loaded = ran.stdout.splitlines()[-1].split()
    assert "trio" in loaded
    allowed = {"sqlite3"} if command != "http" else set()
    assert [one for one in (*HEAVY, others) if one in loaded and one not in allowed] == []
