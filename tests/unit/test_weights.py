"""The shipped weights: small, whole, with their provenance, and as good as their headers and the book say."""

import functools
import os
import zipfile
from pathlib import Path

import nbformat
import pytest

from mixer import checkpoint, data, evaluate, load_checkpoint, load_pretrained, pretrained, shipped_weights
from mixer.cli import release

ROOT = Path(__file__).parents[2]
FILES = sorted(pretrained.WEIGHTS.glob("*.safetensors"))
PLACES = [Path(os.environ.get("MIXER_DATA", ROOT / "data")), ROOT.parent / "shared" / "data"]

pytestmark = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def jpeg_copy(tmp_path_factory):
    """The JPEG copy of CIFAR-10, unpacked."""
    archives = [place / "cifar10-jpeg.zip" for place in PLACES if (place / "cifar10-jpeg.zip").is_file()]
    if not archives:
        pytest.skip("the JPEG copy of CIFAR-10 is not on this machine")
    folder = tmp_path_factory.mktemp("cifar10-jpeg")
    with zipfile.ZipFile(archives[0]) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def images(request):
    """A function that gives a data set by name, each read once."""

    @functools.cache
    def load(name):
        if name == "folder":
            return data.load("folder", request.getfixturevalue("jpeg_copy"))
        if name != "mnist":
            return data.load(name)
        places = [place for place in PLACES if (place / "MNIST").is_dir()]
        if not places:
            pytest.skip("MNIST is not on this machine")
        return data.load("mnist", places[0])

    return load


def test_it_is_small_and_complete(path):
    assert path.stat().st_size <= 1_000_000
    model, about = load_pretrained(path.stem)
    other, _ = load_checkpoint(shipped_weights(path.stem))
    assert all((a == b).all() for a, b in zip(model.parameters(), other.parameters(), strict=True))
    snapshots = checkpoint.snapshots(checkpoint.read(path)[0])
    assert len(snapshots) >= 10
    state = model.state_dict()
    for name, weight in snapshots[max(snapshots)].items():
        assert (state[name] - weight.float()).abs().max() < 1e-3  # the last snapshot is the shipped model
    assert about["n_parameters"] == model.n_parameters
    name = path.stem if path.stem in release.RELEASES else path.stem.removesuffix(f"-{about['seed']}")
    assert about["command"] == f"python train.py {release.RELEASES[name].options} --seed {about['seed']}"
    assert {run["seed"] for run in about["seeds"]} >= {1, 2, 3}
    assert all(about[key] for key in ("data", "hardware", "seconds", "torch", "class_names"))


@pytest.mark.slow
def test_a_fresh_evaluation_agrees_with_the_header(path, images):
    model, about = load_checkpoint(path)
    shown = images(about["data_set"]).shuffled(about["shuffle"])
    assert (shown.mean, shown.std, shown.class_names) == (about["mean"], about["std"], about["class_names"])
    (stated,) = (run for run in about["seeds"] if run["seed"] == about["seed"])
    for part in ("validation", "test"):
        split = getattr(shown, part)
        n_differing = abs(evaluate(model, shown, split)["accuracy"] - stated[f"{part}_accuracy"]) * len(split)
        assert n_differing < 2.5, part  # an image on the border of two classes can fall either way on another CPU


def test_the_page_says_what_the_header_says(path):
    page = nbformat.read(ROOT / "book" / "weights.ipynb", 4)
    printed = "".join(o.text for cell in page.cells for o in cell.get("outputs", []) if o.output_type == "stream")
    section = " ".join(printed.split(f"== {path.name}")[1].split("\n==")[0].split())  # as if on one line
    about = load_checkpoint(path)[1]
    for value in (about["command"], about["data"], about["hardware"], f"{about['n_parameters']:,} parameters"):
        assert value in section
    assert checkpoint.digest(path) in section
    for run in about["seeds"]:
        assert f"seed {run['seed']}: {run['validation_accuracy']:.2%} {run['test_accuracy']:.2%}" in section
