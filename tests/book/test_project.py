"""The files around the book and the package: one address, pinned actions, the same book twice; where tests run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jupyter_cache.executors.utils import single_nb_execution
from nbformat.v4 import new_code_cell, new_notebook

from _extensions import execute
from _extensions.chromium import find

ROOT = Path(__file__).parents[2]

URL = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


FOLDERS = (".github", "_extensions", "benchmarks", "book", "mixer", "tests")


def texts():
    """Every text file of the project: its path within, and what it says."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in [*ROOT.glob("*.*"), ROOT / "Makefile", *files]:
        if path.is_file() and path.suffix not in (".safetensors", ".wasm", ".pyc"):
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def test_a_fork_rewrites_its_address_everywhere(tmp_path):
    for name, _ in texts():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = [name for name, text in texts() if URL in text]
    assert len(before) > 10
    new = "https://github.com/somebody/a-fork"
    colab, new_colab = (url.replace("github.com", "colab.research.google.com/github") for url in (URL, new))
    subprocess.run(["make", "repository", f"URL={new}/"], cwd=tmp_path, check=True, capture_output=True)
    assert [name for name, _ in texts() if colab in (tmp_path / name).read_text(encoding="utf-8")] == []
    assert [name for name, _ in texts() if URL in (tmp_path / name).read_text(encoding="utf-8")] == []
    for name in before:
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8").replace(
            URL, new
        ).replace(colab, new_colab)
    assert not list(tmp_path.rglob("*.old"))


def test_a_fork_must_name_its_address(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    done = subprocess.run(["make", "repository"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "name the new address: make repository URL=https://github.com/you/your-fork" in done.stderr


def test_the_readme_lists_every_chapter():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    chapters = next(part["chapters"] for part in parts if part["caption"] == "Chapters")
    colab = re.escape(URL.replace("github.com", "colab.research.google.com/github"))
    line = rf"^\d+\. \[.+\]\((.+)\.ipynb\), \[in Colab\]\({colab}/blob/main/\1\.ipynb\)$"
    listed = re.findall(line, (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert listed == [chapter["file"] for chapter in chapters]


def test_every_action_of_the_workflow_is_pinned():
    workflow = (ROOT / ".github" / "workflows" / "book.yml").read_text()
    used = re.findall(r"uses: (\S+)", workflow)
    assert len(used) >= 5
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
    assert set(yaml.safe_load(workflow)["jobs"]) == {"test", "book", "publish"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_tests_can_run_as_on_another_cpu(precision):
    """In every process that they start; `make test PRECISION=fp32` sets these variables."""
    code = "import torch, mixer; print(mixer.training.choose_precision('auto', torch.device('cpu')))"
    folders = os.pathsep.join([str(ROOT / "tests" / "cpu"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": folders, "MIXER_TEST_PRECISION": precision}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == {"fp32": "torch.float32\n", "bf16": "torch.bfloat16\n"}[precision]


def test_a_browser_that_is_a_snap_is_not_used(tmp_path, monkeypatch):
    """It would not see the pages of the tests: a snap has a /tmp of its own."""
    script = "#!/bin/sh\nexec {}\n"
    texts = {"snap/bin/a": script.format("a"), "bin/b": script.format("/snap/bin/b"), "bin/c": script.format("/opt/c")}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/snap/bin:{tmp_path}/bin")
    assert find("ab") is None
    assert find("abc") == f"{tmp_path}/bin/c"


def test_what_a_built_chapter_prints_is_whole_and_it_leaves_no_state_of_widgets(tmp_path):
    """However the pieces of a line arrive, one after another, and although a widget is shown."""
    execute.setup(None)
    code = "import time, ipywidgets\nprint('a', end=' ', flush=True); time.sleep(1); print('b')\nipywidgets.Text()"
    notebook = new_notebook(cells=[new_code_cell(code)])
    assert single_nb_execution(notebook, cwd=str(tmp_path), timeout=60, allow_errors=False).err is None
    assert notebook.cells[0].outputs[0].text == "a b\n"
    assert "widgets" not in notebook.metadata


def test_two_builds_give_the_same_pages(book, tmp_path, build_book):
    build_book(tmp_path / "source")
    again = tmp_path / "source" / "_build" / "html"
    pages = [path.relative_to(book) for path in book.rglob("*") if path.suffix in (".html", ".js", ".css", ".png")]
    pages = [path for path in pages if path.name != "broken.html"]  # which another test adds
    assert len(pages) > 50
    assert [path for path in pages if (book / path).read_bytes() != (again / path).read_bytes()] == []
