"""The small CNN of chapter 8 trained on photographs as long as the shipped Mixer, by the same recipe, three seeds.

`python benchmarks/full.py FOLDER` trains it on the JPEG copy of CIFAR-10 in FOLDER and writes mixer/weights/full.json,
which chapter 8 reads. A run takes about 15 minutes of one core with native bfloat16; with seeds behind the folder it
makes these alone, so that two can run side by side. A run that stands there already is not repeated.
"""

import sys
from functools import partial

import torch
from record import fill

from mixer import Trainer, evaluate, load_checkpoint, load_data, shipped_weights
from mixer.cli.release import JPEG_COPY, SEEDS
from mixer.convolution import SmallCNN
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe

RECORD = WEIGHTS / "full.json"
N_EPOCHS = load_checkpoint(shipped_weights("cifar10-jpeg"))[1]["n_epochs"]


def run(images, network: str, seed: int) -> dict:
    """Train a network: its accuracies, from 0 to 1, and the seconds that the training took."""
    torch.manual_seed(seed)
    made = SmallCNN(24, n_output=10, n_image_channel=3)
    trainer = Trainer(made, images, choose_recipe("strong", n_epochs=N_EPOCHS), seed)
    history = list(trainer)
    return dict(
        n_parameters=sum(p.numel() for p in made.parameters()),
        train_accuracy=history[-1]["train_accuracy"],
        validation_accuracy=[record["validation_accuracy"] for record in history],
        test_accuracy=evaluate(made, images, images.test)["accuracy"],
        seconds=round(trainer.seconds, 1),
        hardware=hardware(trainer.device, trainer.dtype),
    )


def main(folder: str, *seeds: str) -> None:
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/full.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        seeds=SEEDS,
    )
    jobs = [dict(network="CNN", seed=seed) for seed in tuple(map(int, seeds)) or SEEDS]
    fill(RECORD, head, jobs, partial(run, load_data("folder", folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
