"""The environment in .venv and not the code: `make environment` runs it, after the packages were installed.

It has the locked versions, they fit each other, and they run on every Python.
"""

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pins(name):
    """What a file of requirements asks of this environment: names and versions."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): one.specifier for one in wanted if not one.marker or one.marker.evaluate()}


def test_the_environment_is_the_locked_one():
    installed = {canonicalize_name(package.name): package.version for package in distributions()}
    locked = pins("constraints.txt")
    assert {*pins("requirements.txt")} <= {*locked}
    found = {name: installed[name] for name in locked if name in installed}
    assert {name: version for name, version in found.items() if not locked[name].contains(version, True)} == {}


def test_the_locked_packages_run_on_every_release_of_python_3_11_to_3_14():
    locked = pins("constraints.txt")
    needed = {package.name: package.metadata.get("Requires-Python", "") for package in distributions()}
    ends = ["3.11.0", "3.14.0"]
    narrow = {name: asked for name, asked in needed.items() if list(SpecifierSet(asked).filter(ends)) != ends}
    assert {name: asked for name, asked in narrow.items() if canonicalize_name(name) in locked} == {}


def test_no_package_lacks_what_it_needs():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
