"""Larger Mixers trained on photographs, for as long as the shipped one and longer, and asked for shifted views.

`python benchmarks/larger.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER with three seeds and writes
mixer/weights/larger.json, which the page of records reads. A run takes up to an hour of one core with native bfloat16;
after each epoch it is kept in runs/larger, and goes on where it was stopped. With names and --seeds some are made
alone, so that two can run side by side. What stands there is not repeated.
"""

from functools import partial
from pathlib import Path

import torch
from full import N_EPOCHS, report
from ladder import let_muon_train_all
from record import SEEDS, choose, fill, load
from views import view_accuracies

from mixer import MLPMixer, Trainer
from mixer.cli.release import JPEG_COPY
from mixer.cli.state import restore, state_of
from mixer.data import DataSet
from mixer.pretrained import WEIGHTS
from mixer.recipe import choose_recipe

RUNS = Path("runs", "larger")
SIZES = dict(n_channel=128, n_hidden_token=64, n_hidden_channel=256, patch_size=4)
ROWS = {  # layers, precision, and what changes in the recipe "strong"
    "wider": (4, "fp32", dict(n_epochs=N_EPOCHS, batch_size=128)),
    "deeper, longer": (
        6,
        "auto",
        dict(n_epochs=50, batch_size=128, lr=1.5e-3, muon_lr=0.01, weight_decay=0.05, cutmix=0.5),
    ),
}


def go_on(trainer: Trainer, file: Path) -> list[dict]:
    """Train to the end, from where a file says that the run was stopped; the records of all epochs."""
    history = []
    if file.exists():
        *state, history = torch.load(file)
        restore(trainer, *state)
    for epoch in trainer:
        history.append(epoch)
        torch.save([*state_of(trainer), history], file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)
    return history


def run(images: DataSet, row: str, seed: int) -> dict:
    """Train what a row names with a seed: what `report` and `view_accuracies` find."""
    n_layers, precision, changes = ROWS[row]
    torch.manual_seed(seed)
    network = MLPMixer(
        n_layers=n_layers, **SIZES, n_hidden=1, n_output=10, image_size=(32, 32), n_image_channel=3, norm="channels"
    )
    trainer = Trainer(network, images, choose_recipe("strong", **changes), seed, "cpu", precision)
    let_muon_train_all(trainer)
    RUNS.mkdir(parents=True, exist_ok=True)
    return report(trainer, go_on(trainer, RUNS / f"{row}-{seed}.pt")) | view_accuracies(network, images, mirror=True)


def main() -> None:
    options = choose(__doc__, ROWS)
    torch.set_num_threads(1)
    images = load("folder", options.folder)
    head = dict(
        command="python benchmarks/larger.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        sizes=SIZES,
        rows={row: dict(n_layers=layers, **changes) for row, (layers, _, changes) in ROWS.items()},
        seeds=SEEDS,
    )
    jobs = [dict(row=row, seed=seed) for seed in options.seeds for row in options.names]
    fill(WEIGHTS / "larger.json", head, jobs, partial(run, images))


if __name__ == "__main__":
    main()
