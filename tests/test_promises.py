"""README's table of promises names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| .+ \| `([\w/]+\.py)::(test_\w+)` \|$", re.MULTILINE)


def test_each_promise_names_a_test() -> None:
    readme = (TESTS.parent / "README.md").read_text()
    section = readme.partition("\n## Security\n")[2].partition("\n## ")[0]
    named = ROW.findall(section)
    assert len(named) == section.count("\n|") - 2 > 30
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{file}::{name}"
