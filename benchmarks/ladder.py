"""How fast a Mixer learns, from the recipe "seed" downwards, one ingredient more in every row.

`python benchmarks/ladder.py FOLDER` trains on MNIST, which is FOLDER/MNIST, and on the JPEG copy of CIFAR-10 in
FOLDER/cifar10-jpeg. It writes mixer/weights/ladder.json, ladder-longer.json and ladder-photographs.json, which the page
of records draws. The first takes about 40 minutes of one core, the others some hours; names of ladders and --seeds
choose a part, so that two can run side by side. A run that stands there already is not repeated. The last row of the
first and the third is the loop that most tutorials show: timm's Mixer of the same sizes behind a DataLoader of PIL
images.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from record import SEEDS, choose, fill, load
from speed import PictureFiles, make_timm
from torch import nn
from torch.utils.data import DataLoader

from mixer import MLPMixer, Trainer, evaluate
from mixer.cli.release import JPEG_COPY
from mixer.data import PHOTOGRAPHS, DataSet, Split
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe, predict

PER_EPOCH = 3  # how often an epoch is validated
LOOP = "timm, DataLoader of PIL images"


def begin_as_identity(trainer: Trainer) -> None:
    """Set the last linear layer of every mixing MLP to zero, so that the untrained layers change nothing."""
    for network in (trainer.model, trainer.learner):
        for layer in network.layers:
            for block in (layer.token_mixing, layer.channel_mixing):
                nn.init.zeros_(block.fc2.weight)
                nn.init.zeros_(block.fc2.bias)


@torch.no_grad()
def whiten(trainer: Trainer) -> None:
    """Let the per-patch layer begin as a whitening of patches, turned at random into its channels.

    The filters come from the covariance of the patches of 5,000 training images, with 0.01 added to its eigenvalues;
    the outputs are as large as with PyTorch's own initialisation.
    """
    images = trainer.data.normalise(trainer.data.train.images[:5000])
    patches = trainer.model.patches(images).flatten(0, 1)  # [N, n_pixels]
    values, vectors = torch.linalg.eigh(patches.T.cov())
    own = trainer.model.per_patch.linear.weight  # [n_channel, n_pixels]
    filters = torch.linalg.qr(torch.randn_like(own))[0] @ (vectors / (values + 0.01).sqrt()).T
    filters *= (patches @ own.T).std() / (patches @ filters.T).std()
    for network in (trainer.model, trainer.learner):
        linear = network.per_patch.linear
        linear.weight.copy_(filters)
        linear.bias.copy_(-filters @ patches.mean(dim=0))


def let_muon_train_all(trainer: Trainer) -> None:
    """Move the weights of the per-patch layer and of the head from AdamW to Muon."""
    muon, adam = trainer.optimisers
    matrices, _ = adam.param_groups
    settings = {name: value for name, value in muon.param_groups[0].items() if name != "params"}
    muon.add_param_group({**settings, "params": matrices["params"]})
    matrices["params"] = []


@dataclass(frozen=True)
class Ladder:
    """What is trained, and on what.

    Attributes:
        record: the name of the file that is written.
        data: the images, in words.
        load: how they are loaded from a folder.
        sizes: of the Mixer.
        n_epochs, batch_size: of every run.
        ingredients: what each row adds to the one before: fields of the recipe, and the precision.
        tried: what is added to the last of these rows alone: changes of the trainer before it starts.
        beside_timm: whether the loop around timm comes last.
    """

    record: str
    data: str
    load: Callable[[Path], DataSet]
    sizes: dict
    n_epochs: int
    batch_size: int
    ingredients: dict[str, dict]
    tried: dict[str, Callable[[Trainer], None]] = field(default_factory=dict)
    beside_timm: bool = True

    def rows(self) -> tuple[str, ...]:
        return (*self.ingredients, *self.tried, *[LOOP] * self.beside_timm)

    def settings(self, row: str) -> dict:
        """The fields of the recipe, and the precision, that a row has."""
        names = list(self.ingredients)
        names = names[: names.index(row) + 1] if row in names else names
        return {setting: value for name in names for setting, value in self.ingredients[name].items()}


LADDERS = {
    "mnist": Ladder(
        record="ladder.json",
        data="MNIST",
        load=partial(load, "mnist"),
        sizes=dict(n_layers=3, n_channel=48, n_hidden_token=48, n_hidden_channel=96, patch_size=4),
        n_epochs=3,
        batch_size=128,
        ingredients={
            "seed": {},
            "lr 0.003, warm-up and cosine": dict(lr=3e-3, warm_up=0.1),
            "weight decay 0.2": dict(weight_decay=0.2),
            "label smoothing 0.1": dict(label_smoothing=0.1),
            "gradients clipped to norm 1": dict(clip=1.0),
            "running mean of the weights": dict(ema=0.998),
            "Muon for the mixing MLPs": dict(muon_lr=0.02),
            "random turns and shifts": dict(affine=0.5),
        },
    ),
    "longer": Ladder(  # the first row and the last, with the sizes of the shipped model and long enough for 99 %
        record="ladder-longer.json",
        data="MNIST",
        load=partial(load, "mnist"),
        sizes=dict(n_layers=4, n_channel=64, n_hidden_token=64, n_hidden_channel=256, patch_size=4),
        n_epochs=6,
        batch_size=256,
        ingredients={
            "seed": {},
            "strong, weight decay 0.05": dict(
                lr=3e-3,
                warm_up=0.1,
                weight_decay=0.05,
                label_smoothing=0.1,
                clip=1.0,
                ema=0.998,
                muon_lr=0.02,
                affine=0.75,
            ),
        },
        beside_timm=False,
    ),
    "photographs": Ladder(
        record="ladder-photographs.json",
        data=JPEG_COPY,
        load=lambda folder: load("folder", folder / "cifar10-jpeg"),
        sizes=dict(n_layers=4, n_channel=96, n_hidden_token=48, n_hidden_channel=192, patch_size=4),
        n_epochs=4,
        batch_size=256,
        ingredients={
            "seed": {},
            "bfloat16": dict(precision="bf16"),
            "lr 0.003, warm-up and cosine": dict(lr=3e-3, warm_up=0.1),
            "crops and mirror images": dict(padding=4, flip=True),
            "decay, smoothing, clipping": dict(weight_decay=0.2, label_smoothing=0.1, clip=1.0),
            "running mean of the weights": dict(ema=0.998),
            "Muon for the mixing MLPs": dict(muon_lr=0.02),
        },
        tried={
            "Muon for all matrices": let_muon_train_all,
            "whitened per-patch layer": whiten,
            "blocks that begin at zero": begin_as_identity,
        },
    ),
}


class Watch:
    """The curve of a run: images seen, seconds of the processor without those of validation, and accuracy."""

    def __init__(self, network: nn.Module, data: DataSet, n_epochs: int):
        self.network, self.data, self.curve, self.n_seen = network, data, [], 0
        self.every, self.n_images = -(-len(data.train) // PER_EPOCH), n_epochs * len(data.train)
        self.start = time.process_time()

    def see(self, n_images: int) -> None:
        """Count images that were learned from; a few times in an epoch, validate."""
        self.n_seen += n_images
        if self.n_seen < min(self.every * (len(self.curve) + 1), self.n_images):
            return
        paused = time.process_time()
        accuracy = evaluate(self.network, self.data, self.data.validation)["accuracy"]
        self.curve.append([self.n_seen, round(paused - self.start, 2), round(accuracy, 4)])
        self.network.train()
        self.start += time.process_time() - paused


def learn(ladder: Ladder, data: DataSet, row: str, seed: int) -> Watch:
    """Train our Mixer by what a row has."""
    C_in, H, W = data.image_shape
    network = MLPMixer(
        **ladder.sizes, n_hidden=1, n_output=10, image_size=(H, W), n_image_channel=C_in, norm="channels"
    )
    settings = ladder.settings(row)
    precision = settings.pop("precision", "fp32")
    recipe = choose_recipe("seed", batch_size=ladder.batch_size, n_epochs=ladder.n_epochs, **settings)
    trainer = Trainer(network, data, recipe, seed, "cpu", precision)
    if row in ladder.tried:
        ladder.tried[row](trainer)
    return finish(trainer)


def finish(trainer: Trainer) -> Watch:
    """Let a trainer train to its end, and watch it."""
    watch = Watch(trainer.model, trainer.data, trainer.recipe.n_epochs)
    trainer.after_step = watch.see
    while not trainer.finished:
        trainer.train_epoch()
    return watch


def loop(ladder: Ladder, data: DataSet, seed: int) -> Watch:
    """Train timm's Mixer of the same sizes as the recipe "seed" does, by the usual loop."""
    C_in, H, _ = data.image_shape
    network = make_timm(H, **ladder.sizes, n_image_channel=C_in)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0)
    pictures = PictureFiles(data.train.images, data.train.labels, data.mean, data.std)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(pictures, ladder.batch_size, shuffle=True, generator=order)
    watch = Watch(network, data, ladder.n_epochs)
    for _ in range(ladder.n_epochs):
        for images, labels in loader:
            loss = F.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            watch.see(len(labels))
    return watch


def test_accuracies(network: nn.Module, data: DataSet) -> dict[str, float]:
    """The accuracy on the test images; of photographs also that of the mean answer to an image and its mirror image."""
    logits = {"test_accuracy": predict(network, data, data.test)}
    if data.name in PHOTOGRAPHS:
        mirrored = Split(data.test.images.flip(3), data.test.labels)
        logits["mirrored_test_accuracy"] = logits["test_accuracy"] + predict(network, data, mirrored)
    right = {name: found.argmax(dim=1) == data.test.labels for name, found in logits.items()}
    return {name: round(found.float().mean().item(), 4) for name, found in right.items()}


def run(ladder: Ladder, data: DataSet, row: str, seed: int) -> dict:
    """The curve of a run, and the accuracies of its end on the test images."""
    torch.manual_seed(seed)
    watch = loop(ladder, data, seed) if row == LOOP else learn(ladder, data, row, seed)
    n_parameters = sum(p.numel() for p in watch.network.parameters())
    return dict(n_parameters=n_parameters, curve=watch.curve, **test_accuracies(watch.network, data))


def make(ladder: Ladder, folder: Path, seeds: list[int]) -> None:
    """Make the runs that the record of a ladder lacks."""
    head = dict(
        command="python benchmarks/ladder.py data",
        data=ladder.data,
        torch=torch.__version__,
        sizes=ladder.sizes,
        n_epochs=ladder.n_epochs,
        batch_size=ladder.batch_size,
        ingredients=ladder.ingredients,
        tried=[*ladder.tried],
        seeds=SEEDS,
        hardware=hardware(torch.device("cpu"), torch.float32),
    )
    jobs = [dict(row=row, seed=seed) for seed in seeds for row in ladder.rows()]
    fill(WEIGHTS / ladder.record, head, jobs, partial(run, ladder, ladder.load(folder)))


def main() -> None:
    options = choose(__doc__, LADDERS)
    torch.set_num_threads(1)
    for name in options.names:
        make(LADDERS[name], options.folder, options.seeds)


if __name__ == "__main__":
    main()
