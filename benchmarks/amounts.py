"""How much data a Mixer needs, beside a CNN and a linear layer of the same images.

`python benchmarks/amounts.py FOLDER` trains on MNIST and on the JPEG copy of CIFAR-10, which are FOLDER/MNIST and
FOLDER/cifar10-jpeg, and writes mixer/weights/amounts.json, which chapter 13 draws. It takes about ten minutes on one
core. A run that stands there already is not repeated.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from record import SEEDS, choose, fill, load
from torch import nn

from mixer import MLPMixer, Trainer, evaluate
from mixer.cli.release import JPEG_COPY
from mixer.convolution import SmallCNN
from mixer.data import DataSet
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe

RECORD = WEIGHTS / "amounts.json"
DATA = {"MNIST": "MNIST", "photographs": JPEG_COPY}
AMOUNTS = {"MNIST": (100, 300, 1000, 3000, 10000), "photographs": (100, 1000, 10000)}
N_STEPS, N_TEST, RECIPE = 400, 5000, dict(batch_size=32, lr=3e-3, warm_up=0.1)
N_CHANNEL_CNN = {"MNIST": 9, "photographs": 10}  # about as many parameters as the Mixer


def make(network: str, name: str, data: DataSet) -> nn.Module:
    """A new network for the images of a data set."""
    C_in, H, W = data.image_shape
    if network == "CNN":
        return SmallCNN(N_CHANNEL_CNN[name], n_output=10, n_image_channel=C_in)
    if network == "linear layer":
        return nn.Sequential(nn.Flatten(), nn.Linear(C_in * H * W, 10))
    sizes = dict(n_layers=2, n_channel=32, n_hidden=64, patch_size=4, norm="channels")
    return MLPMixer(**sizes, n_output=10, image_size=(H, W), n_image_channel=C_in)


def learn(network: nn.Module, data: DataSet, n_steps: int, seed: int, **recipe) -> Trainer:
    """Train for exactly so many steps, whatever the number of images; nothing is validated."""
    trainer = Trainer(network, data, choose_recipe("seed", n_epochs=n_steps, **recipe), seed, "cpu", "fp32")
    trainer.n_steps = n_steps  # for the learning rate; an epoch has at least one step

    def stop_at_last(n_images: int) -> None:
        trainer.stop = trainer.step == n_steps

    trainer.after_step = stop_at_last
    while not trainer.stop:
        trainer.train_epoch()
    return trainer


def tested(network: nn.Module, data: DataSet, n: int) -> float:
    """The accuracy on the first test images."""
    return evaluate(network, data, data.test.at(torch.arange(n)))["accuracy"]


def run(load: Callable[[str], DataSet], data: str, network: str, n_train: int, seed: int) -> dict:
    """The accuracy of a network that learned from the first `n_train` images, and the seconds of the processor."""
    images, start = load(data), time.process_time()
    torch.manual_seed(seed)
    made = make(network, data, images)
    trainer = learn(made, images.first(n_train), N_STEPS, seed, **RECIPE)
    return dict(
        n_parameters=sum(p.numel() for p in made.parameters()),
        n_steps=trainer.step,
        test_accuracy=tested(made, images, N_TEST),
        seconds=round(time.process_time() - start, 1),
    )


def jobs(names: Iterable[str], seeds: Iterable[int]) -> Iterator[dict]:
    """What is to be run, each by its settings."""
    for name in names:
        for seed in seeds:
            for n_train in AMOUNTS[name]:
                for network in ("Mixer", "CNN", "linear layer"):
                    yield dict(data=name, network=network, n_train=n_train, seed=seed)


def main() -> None:
    options = choose(__doc__, DATA)
    torch.set_num_threads(1)

    @cache
    def load_by_name(name: str) -> DataSet:
        if name == "photographs":
            return load("folder", options.folder / "cifar10-jpeg")
        return load("mnist", options.folder)

    head = dict(
        command="python benchmarks/amounts.py data",
        data=DATA,
        torch=torch.__version__,
        recipe=dict(optimiser="adam", n_steps=N_STEPS, n_test=N_TEST, **RECIPE),
        seeds=SEEDS,
        hardware=hardware(torch.device("cpu"), torch.float32),
    )
    fill(RECORD, head, jobs(options.names, options.seeds), partial(run, load_by_name))


if __name__ == "__main__":
    main()
