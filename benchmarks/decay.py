"""The Mixer of the explorer with less weight decay and smaller batches: its accuracies, and its maps' smoothness.

`python benchmarks/decay.py FOLDER` takes MNIST from FOLDER, trains with three seeds and writes
mixer/weights/decay.json, which the page of records reads. A run takes 25 to 40 minutes of one core; it stands in
runs/weights, and goes on where it was stopped. With --seeds some are made alone.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from record import SEEDS, choose, fill, load
from views import view_accuracies

from mixer.analysis import neighbour_correlation, token_maps
from mixer.cli.release import RELEASES, load_run, measure, train_run
from mixer.data import DataSet
from mixer.pretrained import WEIGHTS

NAME = "mnist-14x14-less-decay"
OPTIONS = f"{RELEASES['mnist-14x14'].options} --weight_decay 0.05 --batch_size 128"


def run(images: DataSet, folder: Path, seed: int) -> dict:
    """Train with a seed, unless that was done: the accuracies, and how smooth the input maps of each layer are."""
    try:
        train_run(NAME, OPTIONS, seed, folder)
    except RuntimeError as error:
        sys.exit(f"decay: {error}")
    network, about = load_run(NAME, seed)
    maps = [token_maps(network, layer)[0] for layer in range(len(network.layers))]
    smoothness = [round(neighbour_correlation(inputs), 2) for inputs in maps]
    found = measure(NAME, seed, images) | view_accuracies(network, images, mirror=False)
    return found | dict(neighbour_correlation=smoothness, hardware=about["hardware"])


def main() -> None:
    options = choose(__doc__)
    head = dict(
        command="python benchmarks/decay.py data",
        data=RELEASES["mnist-14x14"].data,
        torch=torch.__version__,
        options=OPTIONS,
        seeds=SEEDS,
    )
    jobs = [dict(seed=seed) for seed in options.seeds]
    fill(WEIGHTS / "decay.json", head, jobs, partial(run, load("mnist", options.folder), options.folder))


if __name__ == "__main__":
    main()
