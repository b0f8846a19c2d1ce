"""Photographs at full length: what each ingredient of the recipe "strong" buys, the small CNN, and a larger Mixer.

`python benchmarks/full.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER and writes mixer/weights/full.json,
which chapters 6 and 8 and the page of records read. Every run is as long as that of the shipped Mixer, but for the
larger one's. It takes a quarter of an hour of one core with native bfloat16, the larger one an hour and a half. Names
of rows and --seeds choose a part, so that two can run side by side; a run that stands there already is not repeated.
"""

import argparse
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from ladder import SEEDS, let_muon_train_all, test_accuracies
from record import fill
from torch import nn

from mixer import MLPMixer, Trainer, load_checkpoint, load_data, shipped_weights
from mixer.cli.release import JPEG_COPY
from mixer.convolution import SmallCNN
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.recipe import RECIPES, choose_recipe

RECORD = WEIGHTS / "full.json"
SHIPPED, ABOUT = load_checkpoint(shipped_weights("cifar10-jpeg"))
LARGER = dict(n_layers=6, n_channel=128, n_hidden_token=64, n_hidden_channel=256)
INGREDIENTS = {
    "weight decay": ["weight_decay"],
    "warm-up, cosine": ["warm_up"],
    "label smoothing": ["label_smoothing"],
    "clipping": ["clip"],
    "random changes": ["padding", "flip"],
    "running mean": ["ema"],
    "Muon": ["muon_lr"],
}


@dataclass(frozen=True)
class Row:
    """What is trained, and how.

    Attributes:
        kind: "CNN", or else a Mixer.
        sizes: of the Mixer, where they differ from the shipped one's.
        changes: of the recipe "strong".
        muon_for_all: whether Muon trains the per-patch layer and the head too.
    """

    kind: str = "Mixer"
    sizes: dict = field(default_factory=dict)
    changes: dict = field(default_factory=dict)
    muon_for_all: bool = False

    def make_network(self) -> nn.Module:
        if self.kind == "CNN":
            return SmallCNN(24, n_output=10, n_image_channel=3)
        return MLPMixer(**{**SHIPPED.config, **self.sizes})


def without(fields: list[str]) -> Row:
    """The recipe "strong" with the fields of an ingredient as in the recipe "seed"."""
    return Row(changes={name: getattr(RECIPES["seed"], name) for name in fields})


ROWS = {
    "all of them": Row(),
    **{f"without {name}": without(fields) for name, fields in INGREDIENTS.items()},
    "CNN": Row("CNN"),
    "larger Mixer": Row(sizes=LARGER, changes=dict(n_epochs=60, cutmix=0.5), muon_for_all=True),
}


def run(images, row: str, seed: int) -> dict:
    """Train a network: its accuracies, from 0 to 1, and the seconds that the training took."""
    torch.manual_seed(seed)
    network = ROWS[row].make_network()
    recipe = choose_recipe("strong", **{"n_epochs": ABOUT["n_epochs"], **ROWS[row].changes})
    trainer = Trainer(network, images, recipe, seed, "cpu")
    if ROWS[row].muon_for_all:
        let_muon_train_all(trainer)
    history = list(trainer)
    return dict(
        n_parameters=sum(p.numel() for p in network.parameters()),
        train_accuracy=round(history[-1]["train_accuracy"], 4),
        validation_accuracy=[round(epoch["validation_accuracy"], 4) for epoch in history],
        **test_accuracies(network, images),
        seconds=round(trainer.seconds, 1),
        hardware=hardware(trainer.device, trainer.dtype),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the runs at full length.")
    parser.add_argument("folder", type=Path, help="folder of the JPEG copy of CIFAR-10")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which (default: all of {', '.join(ROWS)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="which seeds (default: all three)")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{', '.join(sorted(unknown))} is no row; choose from {', '.join(ROWS)}")
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/full.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=ABOUT["n_epochs"],
        ingredients=INGREDIENTS,
        larger=dict(sizes=LARGER, **ROWS["larger Mixer"].changes),
        seeds=SEEDS,
    )
    jobs = [dict(row=row, seed=seed) for seed in options.seeds for row in options.rows or ROWS]
    fill(RECORD, head, jobs, partial(run, load_data("folder", options.folder)))


if __name__ == "__main__":
    main()
