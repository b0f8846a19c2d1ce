import http.server
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from PIL import Image

import mixer  # noqa: F401  (before timm: it makes torchvision importable beside a CPU-only torch)
from mixer import MLPMixer
from mixer.data import DataSet, Split

ROOT = Path(__file__).parents[1]
SIZES = dict(n_layers=1, n_channel=6, n_hidden=5, n_output=3, image_size=4, patch_size=2, n_image_channel=1)
settings.register_profile("long")  # the fuzzers draw more
os.environ["no_proxy"] = "127.0.0.1"  # the tests' own servers are on this machine
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # the models are tiny: a second thread only waits for the first


def pytest_collection_modifyitems(items):
    """Mark the tests that drive a browser."""
    for item in items:
        if {"browser", "firefox"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("browser")


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
    from _extensions.chromium import started

    with started() as chromium:
        yield chromium


@pytest.fixture
def tab(browser):
    """An empty page; when the test ends, nothing may have failed in it and nothing may have left the disk."""
    from _extensions.chromium import Tab

    tab = Tab(browser)
    yield tab
    tab.page.close()
    assert tab.problems == []


@pytest.fixture(scope="session")
def book(tmp_path_factory, build_book):
    """The built book: the folder of its pages. The chapters' outputs are the committed ones, which nbval compares.

    The processes that share the tests share it: the first builds it, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    source, built = shared / "source", shared / "source" / "_build" / "html"
    with FileLock(shared / "book.lock"):
        if not source.exists():
            build_book(source)
    assert (built / "whole").is_file(), "the book could not be built"
    return built


@pytest.fixture(scope="session")
def build_book():
    """Builds the book, without executing it, into a folder."""

    def build(source):
        source.mkdir()
        for name in ("book", "_extensions"):
            shutil.copytree(ROOT / name, source / name)
        config = (ROOT / "_config.yml").read_text(encoding="utf-8")
        config = config.replace("execute_notebooks: cache", 'execute_notebooks: "off"')
        (source / "_config.yml").write_text(config, encoding="utf-8")
        shutil.copy(ROOT / "_toc.yml", source)
        command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "-n", "-W", "--keep-going"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        (source / "_build" / "html" / "whole").touch()

    return build


@pytest.fixture(scope="session")
def server(book):
    """The address of the built book on a web server."""
    with server_of(book) as address:
        yield address


@pytest.fixture(params=["disk", "server"])
def home(request, book):
    """The address of the built book, on the disk and on a web server."""
    return request.getfixturevalue("server") if request.param == "server" else f"{book.as_uri()}/"


@pytest.fixture(scope="session")
def small_model():
    def make(seed: int = 0, **changes) -> MLPMixer:
        torch.manual_seed(seed)
        return MLPMixer(**{**SIZES, **changes})

    return make


@pytest.fixture(scope="session")
def small_data():
    def make(n: int = 40, name: str = "small") -> DataSet:
        """Grey 4×4 images of three classes, told apart by the row that is bright."""
        generator = torch.Generator().manual_seed(7)
        splits = []
        for size in (n, 12, 12):
            labels = torch.randint(0, 3, (size,), generator=generator)
            images = torch.randint(0, 60, (size, 1, 4, 4), generator=generator, dtype=torch.uint8)
            images[torch.arange(size), 0, labels] += 150
            splits.append(Split(images, labels))
        return DataSet(name, *splits, ["top", "second", "third"], [0.3], [0.25], (1, 4, 4))

    return make


@pytest.fixture(scope="session")
def write_folder():
    def make(path, classes=("ant", "bee"), n=6, size=(12, 10)):
        rng = np.random.default_rng(2)
        for part in ("train", "test"):
            for i, name in enumerate(classes):
                (path / part / name).mkdir(parents=True)
                for k in range(n):
                    pixels = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
                    pixels[..., i] += 150
                    Image.fromarray(pixels).save(path / part / name / f"{k}.png")
        return path

    return make


@pytest.fixture(scope="session")
def data_place():
    """The folder of the data sets, where they are on this machine: MIXER_DATA, or data/ in the project."""
    places = [Path(os.environ.get("MIXER_DATA", ROOT / "data")), ROOT.parent / "shared" / "data"]
    return next((place for place in places if (place / "MNIST").is_dir()), places[0])
