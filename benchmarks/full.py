"""The Mixer and the small CNN of chapter 8 trained on photographs for as long as the shipped models, three seeds each.

`python benchmarks/full.py FOLDER` trains both by the recipe "strong" on the JPEG copy of CIFAR-10 in FOLDER and writes
mixer/weights/full.json, which chapter 8 and the page of records read. A run takes a quarter of an hour of one core with
native bfloat16; with --seeds some are made alone, so that two can run side by side. What stands there is not repeated.
"""

from functools import partial

import torch
from ladder import test_accuracies
from record import SEEDS, choose, fill, load
from shuffles import NETWORKS

from mixer import Trainer, load_checkpoint, shipped_weights
from mixer.cli.release import JPEG_COPY
from mixer.data import DataSet
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.recipe import choose_recipe

N_EPOCHS = load_checkpoint(shipped_weights("cifar10-jpeg"))[1]["n_epochs"]


def run(images: DataSet, network: str, seed: int, precision: str = "auto", **changes) -> dict:
    """Train a network by the recipe "strong", with changes: its accuracies, from 0 to 1, and the training's seconds."""
    torch.manual_seed(seed)
    made = NETWORKS[network]()
    trainer = Trainer(made, images, choose_recipe("strong", n_epochs=N_EPOCHS, **changes), seed, "cpu", precision)
    return report(trainer, list(trainer))


def report(trainer: Trainer, history: list[dict]) -> dict:
    """The accuracies, from 0 to 1, and the seconds of a training that has come to its end."""
    return dict(
        n_parameters=sum(p.numel() for p in trainer.model.parameters()),
        train_accuracy=round(history[-1]["train_accuracy"], 4),
        validation_accuracy=[round(epoch["validation_accuracy"], 4) for epoch in history],
        **test_accuracies(trainer.model, trainer.data),
        seconds=round(trainer.seconds, 1),
        hardware=hardware(trainer.device, trainer.dtype),
    )


def main() -> None:
    options = choose(__doc__)
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/full.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        seeds=SEEDS,
    )
    jobs = [dict(network=network, seed=seed) for seed in options.seeds for network in NETWORKS]
    fill(WEIGHTS / "full.json", head, jobs, partial(run, load("folder", options.folder)))


if __name__ == "__main__":
    main()
