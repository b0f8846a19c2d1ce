"""Python 3.11 to 3.14: named alike everywhere, served by one lock, and no other Python gets as far as pip."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def test_the_pythons_are_named_alike_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert project["tool"]["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    assert [one["python"] for one in workflow["jobs"]["test"]["strategy"]["matrix"]["include"]] == PYTHONS
    for name in ("README.md", "requirements.txt", "constraints.txt", "Makefile"):
        assert re.search(f"{PYTHONS[0]} to {PYTHONS[-1]}\\b", (ROOT / name).read_text()), name


def test_one_lock_serves_every_python():
    """Each package has one version, and what requirements.txt asks for is locked on every Python and every system."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    locked = {one.name: one for one in map(Requirement, lines)}
    assert len(locked) == len(lines)
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            one = Requirement(line)
            assert (locked[one.name].specifier, locked[one.name].marker) == (one.specifier, None)


@pytest.fixture
def make(tmp_path):
    """Runs `make book` beside the environment of an older Python, with a Python that says it is of a version."""
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    older = tmp_path / ".venv" / "bin" / "python"
    older.parent.mkdir(parents=True)
    older.write_text("#!/bin/sh\necho Python 3.10.1\n")
    older.chmod(0o755)

    def run(version):
        python = tmp_path / "a-python"
        info = (*map(int, version.split(".")), 0, "final", 0)
        python.write_text(
            f'#!/bin/sh\ncase "$1" in\n-V) echo Python {version}.0;;\n-m) echo "asked for: $*"; exit 1;;\n'
            f'*) exec {sys.executable} -c "import sys; sys.version_info = {info}; exec(sys.argv[2])" "$@";;\nesac\n'
        )
        python.chmod(0o755)
        return subprocess.run(["make", "book", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.15"])
def test_another_python_is_refused_in_a_sentence(make, tmp_path, version):
    done = make(version)
    sentence, end = done.stderr.splitlines()
    assert re.fullmatch(
        rf"\S+/a-python is Python {version}, but the pinned packages need 3\.11 to 3\.14: name one of these, "
        r"as in make book PYTHON=python3\.14",
        sentence,
    )
    assert re.match(r"make(\[\d+\])?: \*\*\*", end)
    assert "asked for" not in done.stdout
    assert (tmp_path / ".venv").is_dir()


@pytest.mark.parametrize("version", PYTHONS)
def test_an_environment_of_another_python_is_made_anew(make, tmp_path, version):
    done = make(version)
    assert "asked for: -m venv .venv" in done.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_a_plain_script_streams_its_images(tmp_path, write_folder):
    """Python 3.14 starts workers that run the script again, unless it is written for that."""
    write_folder(tmp_path / "images")
    (tmp_path / "script.py").write_text(
        "import multiprocessing, sys\n"
        "if sys.version_info < (3, 14):\n"
        "    multiprocessing.set_start_method('forkserver')\n"
        "import torch\n"
        "from mixer import data\n"
        "data.MEMORY_LIMIT = 100\n"
        "images = data.load('folder', 'images', image_size=8)\n"
        "print(sum(len(labels) for _, labels in images.test.batches(torch.arange(12), 5)))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("12\n", 0), done.stderr
