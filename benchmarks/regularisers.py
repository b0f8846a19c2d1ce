"""What the recipe's regularisers that "strong" leaves off do at full length: photographs learned with one of them more.

`python benchmarks/regularisers.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER, as long as the shipped models,
with three seeds and float32, and writes mixer/weights/regularisers.json, which the page of records reads. The runs
without any of them are the three seeds of the shipped model. A run takes three quarters of an hour of one core; with
names and --seeds some are made alone, so that two can run side by side. What stands there is not repeated.
"""

import torch
from full import N_EPOCHS, run
from record import SEEDS, choose, fill, load

from mixer.cli.release import JPEG_COPY
from mixer.pretrained import WEIGHTS

REGULARISERS = {  # changes of the recipe "strong"
    "CutMix": dict(cutmix=0.5),
    "stochastic depth": dict(drop_path=0.1),
    "RandAugment": dict(random_augment=True),
}


def main() -> None:
    options = choose(__doc__, REGULARISERS)
    torch.set_num_threads(1)
    images = load("folder", options.folder)
    head = dict(
        command="python benchmarks/regularisers.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        regularisers=REGULARISERS,
        seeds=SEEDS,
    )
    jobs = [dict(more=name, seed=seed) for seed in options.seeds for name in options.names]

    def run_with(more: str, seed: int) -> dict:
        return run(images, "Mixer", seed, "fp32", **REGULARISERS[more])

    fill(WEIGHTS / "regularisers.json", head, jobs, run_with)


if __name__ == "__main__":
    main()
