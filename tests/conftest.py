import http.server
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import settings

import mixer  # noqa: F401  (before timm: it makes torchvision importable beside a CPU-only torch)
from tests.browser import Tab, started

ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
each_page = pytest.mark.parametrize("name", PAGES)
settings.register_profile("long")  # tests/test_fuzz.py draws more
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # the models are tiny: a second thread only waits for the first


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, alone and in any order."""
    torch.manual_seed(0)


@contextmanager
def server_of(folder):
    """A web server on this machine for the files of a folder: its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def served(tmp_path):
    """A folder, and the address at which a web server on this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with server_of(folder) as address:
        yield folder, address


@pytest.fixture(scope="session")
def browser():
    with started() as chromium:
        yield chromium


@pytest.fixture
def tab(browser):
    """An empty page; when the test ends, nothing may have failed in it and nothing may have left the disk."""
    tab = Tab(browser)
    yield tab
    tab.page.close()
    assert tab.problems == []


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The built book: the folder of its pages. The chapters' outputs are the committed ones, which nbval compares.

    The processes that share the tests share it: the first builds it, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    source, built = shared / "source", shared / "source" / "_build" / "html"
    with FileLock(shared / "book.lock"):
        if not source.exists():
            build(source)
    assert (built / "whole").is_file(), "the book could not be built"
    return built


def page_text(book, name):
    return (book / f"{name}.html").read_text(encoding="utf-8")


def build(source):
    source.mkdir()
    for name in ("book", "_extensions"):
        shutil.copytree(ROOT / name, source / name)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    config = config.replace("execute_notebooks: cache", 'execute_notebooks: "off"')
    (source / "_config.yml").write_text(config, encoding="utf-8")
    shutil.copy(ROOT / "_toc.yml", source)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "-n", "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (source / "_build" / "html" / "whole").touch()


@pytest.fixture(scope="session")
def server(book):
    """The address of the built book on a web server."""
    with server_of(book) as address:
        yield address


@pytest.fixture(params=["disk", "server"])
def home(request, book):
    """The address of the built book, on the disk and on a web server."""
    return request.getfixturevalue("server") if request.param == "server" else f"{book.as_uri()}/"
