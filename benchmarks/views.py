"""The answers of the shipped MNIST model, with all its seeds, to images that are shifted by one pixel.

`python benchmarks/views.py FOLDER` takes the finished runs that `make weights` leaves in runs/weights and MNIST from
FOLDER, and writes mixer/weights/views.json, which the page of records reads. It takes about a minute.
"""

import sys
from functools import partial

import torch
from record import SEEDS, choose, fill, load
from torch import Tensor, nn

from mixer import evaluate
from mixer.cli.folder import CHECKPOINT
from mixer.cli.release import RELEASES, load_run, run_folder
from mixer.data import DataSet, Split
from mixer.pretrained import WEIGHTS
from mixer.training import predict

PLACES = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Images [N, C, H, W] moved by some pixels; where nothing comes in, the edge is repeated."""
    H, W = images.shape[2:]
    rows, columns = (torch.arange(H) - down).clamp(0, H - 1), (torch.arange(W) - right).clamp(0, W - 1)
    return images[:, :, rows][:, :, :, columns]


def nine_views(network: nn.Module, data: DataSet, images: Tensor) -> Tensor:
    """The logits [9, N, n_output] for images and their eight shifts by one pixel, straight and slanting."""
    labels = torch.zeros(len(images), dtype=torch.int64)  # no answer depends on them
    return torch.stack([predict(network, data, Split(shifted(images, *place), labels)) for place in PLACES])


def view_accuracies(network: nn.Module, data: DataSet, mirror: bool) -> dict[str, float]:
    """The accuracies, from 0 to 1, of the mean answer over nine views, and over these and their mirror images.

    "agreement" is the share of the test images to which all nine views get one answer.
    """
    found = {}
    for part in ("validation", "test"):
        images, labels = getattr(data, part).images, getattr(data, part).labels
        views = nine_views(network, data, images)
        answers = {"nine_views": views.mean(dim=0)}
        if mirror:
            mirrored = nine_views(network, data, images.flip(3))
            answers["eighteen_views"] = answers["nine_views"] + mirrored.mean(dim=0)
        for name, logits in answers.items():
            found[f"{name}_{part}_accuracy"] = round((logits.argmax(dim=1) == labels).float().mean().item(), 4)
    classes = views.argmax(dim=2)  # [9, N], of the test images
    return found | {"agreement": round((classes == classes[0]).all(dim=0).float().mean().item(), 4)}


def run(images: DataSet, seed: int) -> dict:
    """What `view_accuracies` finds for a finished run, with its weights as they are shipped."""
    path = run_folder("mnist", seed) / CHECKPOINT
    if not path.exists():
        sys.exit(f"views: {path} is not there; `make weights` makes it")
    network, about = load_run("mnist", seed)
    alone = round(evaluate(network, images, images.test)["accuracy"], 4)
    return dict(test_accuracy=alone, **view_accuracies(network, images, mirror=False), hardware=about["hardware"])


def main() -> None:
    options = choose(__doc__)
    head = dict(
        command="python benchmarks/views.py data",
        data=RELEASES["mnist"].data,
        torch=torch.__version__,
        options=RELEASES["mnist"].options,
        seeds=SEEDS,
    )
    jobs = [dict(seed=seed) for seed in options.seeds]
    fill(WEIGHTS / "views.json", head, jobs, partial(run, load("mnist", options.folder)))


if __name__ == "__main__":
    main()
