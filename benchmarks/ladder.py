"""How fast a Mixer learns MNIST, from the recipe "seed" downwards, one ingredient more in every row.

`python benchmarks/ladder.py FOLDER` trains on MNIST, which is FOLDER/MNIST, and writes mixer/weights/ladder.json, which
the page of records draws. It takes about 40 minutes on one core; with seeds behind the folder it makes these alone, so
that two can run side by side. A run that stands there already is not repeated. The last row is the loop that most
tutorials show: timm's Mixer of the same sizes behind a DataLoader of PIL images.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from record import fill
from speed import PictureFiles, make_timm
from torch import nn
from torch.utils.data import DataLoader

from mixer import MLPMixer, Trainer, evaluate, load_data
from mixer.data import DataSet
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe

RECORD = WEIGHTS / "ladder.json"
SEEDS, N_EPOCHS, BATCH, PER_EPOCH = (1, 2, 3), 3, 128, 3  # the last: how often an epoch is validated
SIZES = dict(n_layers=3, n_channel=48, n_hidden_token=48, n_hidden_channel=96, patch_size=4)
INGREDIENTS = {  # what each row adds to the one before
    "seed": dict(batch_size=BATCH, n_epochs=N_EPOCHS),
    "lr 0.003, warm-up and cosine": dict(lr=3e-3, warm_up=0.1),
    "weight decay 0.2": dict(weight_decay=0.2),
    "label smoothing 0.1": dict(label_smoothing=0.1),
    "gradients clipped to norm 1": dict(clip=1.0),
    "running mean of the weights": dict(ema=0.998),
    "Muon for the mixing MLPs": dict(muon_lr=0.02),
    "random turns and shifts": dict(affine=0.5),
}
LOOP = "timm, DataLoader of PIL images"


class Watch:
    """The curve of a run: images seen, seconds of the processor without those of validation, and accuracy."""

    def __init__(self, network: nn.Module, data: DataSet):
        self.network, self.data, self.curve, self.n_seen = network, data, [], 0
        self.every = -(-len(data.train) // PER_EPOCH)
        self.start = time.process_time()

    def see(self, n_images: int) -> None:
        """Count images that were learned from; a few times in an epoch, validate."""
        self.n_seen += n_images
        if self.n_seen < self.every * (len(self.curve) + 1) and self.n_seen < len(self.data.train) * N_EPOCHS:
            return
        paused = time.process_time()
        accuracy = evaluate(self.network, self.data, self.data.validation)["accuracy"]
        self.curve.append([self.n_seen, round(paused - self.start, 2), round(accuracy, 4)])
        self.network.train()
        self.start += time.process_time() - paused


def learn(data: DataSet, row: str, seed: int) -> Watch:
    """Train our Mixer by all ingredients up to those of a row."""
    C_in, H, W = data.image_shape
    network = MLPMixer(**SIZES, n_hidden=1, n_output=10, image_size=(H, W), n_image_channel=C_in, norm="channels")
    rows = list(INGREDIENTS)
    changes = [INGREDIENTS[name] for name in rows[: rows.index(row) + 1]]
    recipe = choose_recipe("seed", **{name: value for change in changes for name, value in change.items()})
    trainer = Trainer(network, data, recipe, seed, "cpu", "fp32")
    watch = Watch(trainer.model, data)
    trainer.after_step = watch.see
    while not trainer.finished:
        trainer.train_epoch()
    return watch


def loop(data: DataSet, seed: int) -> Watch:
    """Train timm's Mixer of the same sizes as the recipe "seed" does, by the usual loop."""
    C_in, H, _ = data.image_shape
    network = make_timm(H, **SIZES, n_image_channel=C_in)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0)
    pictures = PictureFiles(data.train.images, data.train.labels, data.mean, data.std)
    loader = DataLoader(pictures, BATCH, shuffle=True, generator=torch.Generator().manual_seed(seed))
    watch = Watch(network, data)
    for _ in range(N_EPOCHS):
        for images, labels in loader:
            loss = F.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            watch.see(len(labels))
    return watch


def run(data: DataSet, row: str, seed: int) -> dict:
    """The curve of a run, and the accuracy of its end on the test images."""
    torch.manual_seed(seed)
    watch = loop(data, seed) if row == LOOP else learn(data, row, seed)
    n_parameters = sum(p.numel() for p in watch.network.parameters())
    test = evaluate(watch.network, data, data.test)["accuracy"]
    return dict(n_parameters=n_parameters, curve=watch.curve, test_accuracy=round(test, 4))


def jobs(seeds: tuple[int, ...]) -> Iterator[dict]:
    """What is to be run, each by its settings."""
    for seed in seeds:
        for row in (*INGREDIENTS, LOOP):
            yield dict(row=row, seed=seed)


def main(folder: str, *seeds: str) -> None:
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/ladder.py data",
        torch=torch.__version__,
        sizes=SIZES,
        ingredients=INGREDIENTS,
        seeds=SEEDS,
        hardware=hardware(torch.device("cpu"), torch.float32),
    )
    make: Callable[..., dict] = partial(run, load_data("mnist", folder))
    fill(RECORD, head, jobs(tuple(map(int, seeds)) or SEEDS), make)


if __name__ == "__main__":
    main(*sys.argv[1:])
