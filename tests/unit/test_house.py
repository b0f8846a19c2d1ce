"""The size of the package: a file is read at one sitting, and a function at one glance."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mixer"
FILES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_have_at_most_300_lines_and_functions_40(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    functions = ast.walk(ast.parse(text)) if path.suffix == ".py" else []
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions if isinstance(f, ast.FunctionDef)}
    assert {name: n for name, n in lengths.items() if n > 40} == {}
