"""ValleyExplorer: the loss after a short run of training against the learning rate, each run trained in the page."""

import math

import numpy as np
import traitlets

from mixer.data import DataSet
from mixer.widgets.figure import Engine, LiveFigure, check_choice, check_trainable

RATES = [float(f"{digit}e{power}") for power in range(-4, 2) for digit in (1, 2, 5)]  # as in rates.js
OPTIMISERS = ["sgd", "adam"]
N_IMAGES = 500
LARGEST = 200_000  # bytes of images: the page holds them as they are
PATCH_SIZE = 2
FIRST_SEED = 1
MOST_SEED = 2**31 - 1
LOSSES = (0.05, 10.0)  # the ends of the axis of the still picture, as in valley.js
INKS = {"adam": (0, 114, 178), "sgd": (213, 94, 0)}


class ValleyExplorer(LiveFigure):
    """The learning-rate valley: the loss after a short run against the learning rate, for two optimisers.

    Every dot is a run that the engine trains in the page: a Mixer of 2 layers, 16 channels, 32 hidden units and the
    patch size 2, on the first 500 training images, 4 epochs in batches of 20. The loss is that of the same images after
    the last step. Beside the dots stands the loss of each batch in the run of the chosen rate. Random numbers are the
    engine's own, so the same seed gives the same run in every browser.

    Traits: `optimiser`, "sgd", which is plain gradient descent, or "adam"; `lr`, the chosen learning rate, one of 1, 2
    and 5 times a power of ten from 0.0001 to 50; `seed`, that of the runs to come; `losses`, one [optimiser, seed, lr,
    loss] for each run, where the loss is None if it was no longer a number. The run of the chosen rate is trained at
    once, the others by a button.

    Args:
        data: a data set in memory whose first 500 training images have at most 200 kB, for instance the digits.

    Raises:
        ValueError: the images are too large or cannot be cut into patches of 2×2, or a trait has a wrong value.
    """

    MODULE = "valley.js"
    engine = Engine()
    images = traitlets.Bytes().tag(sync=True)
    labels = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    n_output = traitlets.Int().tag(sync=True)
    mean = traitlets.List(traitlets.Float()).tag(sync=True)
    std = traitlets.List(traitlets.Float()).tag(sync=True)
    optimiser = traitlets.Unicode("sgd").tag(sync=True)
    lr = traitlets.Float(1e-3).tag(sync=True)
    seed = traitlets.Int(FIRST_SEED).tag(sync=True)
    losses = traitlets.List().tag(sync=True)

    def __init__(self, data: DataSet):
        check_images(data)
        images, labels = data.train.images[:N_IMAGES], data.train.labels[:N_IMAGES]
        super().__init__(
            images=images.cpu().contiguous().numpy().tobytes(),
            labels=labels.cpu().numpy().astype(np.uint8).tobytes(),
            shape=list(data.image_shape),
            n_output=len(data.class_names),
            mean=list(data.mean),
            std=list(data.std),
        )

    @traitlets.validate("optimiser")
    def _check_optimiser(self, proposal):
        return check_choice("optimiser", proposal.value, OPTIMISERS)

    @traitlets.validate("lr")
    def _check_lr(self, proposal):
        return check_choice("lr", proposal.value, RATES)

    @traitlets.validate("seed")
    def _check_seed(self, proposal):
        return check_choice("seed", proposal.value, range(FIRST_SEED, MOST_SEED + 1))

    @traitlets.validate("losses")
    def _check_losses(self, proposal):
        for run in proposal.value:
            if not is_run(run):
                raise ValueError(f"losses has {run!r}; a run is [optimiser, seed, lr, loss], with a loss of 0 or more")
        return proposal.value

    def still(self) -> tuple[np.ndarray, str]:
        """The dots of the runs that are there, between two axes, and a line at the chosen rate."""
        picture = np.full((160, 320, 3), 255, np.uint8)
        picture[:, :2] = picture[-2:] = 0
        across, down = share(self.lr, RATES[0], RATES[-1]), 0
        picture[::4, 10 + int(300 * across)] = 0
        for optimiser, _, lr, loss in self.losses:
            across = share(lr, RATES[0], RATES[-1])
            down = 1 - share(LOSSES[1] if loss is None else loss, *LOSSES)
            x, y = 10 + int(300 * across), 8 + int(140 * down)
            picture[y - 2 : y + 3, x - 2 : x + 3] = INKS[optimiser]
        runs = (
            f"{len(self.losses)} runs, a dot for each" if self.losses else "no dot yet: each is a run that is to come"
        )
        words = f"The loss after a run of training against the learning rate, from {RATES[0]} to {RATES[-1]:g}, {runs}."
        return picture, words


def share(value: float, low: float, high: float) -> float:
    """The place of a value on a logarithmic axis, from 0 to 1; beyond its ends, the end."""
    return math.log(min(max(value, low), high) / low) / math.log(high / low)


def is_run(run) -> bool:
    """Whether a run is [optimiser, seed, lr, loss], with values that can be."""
    if not isinstance(run, (list, tuple)) or len(run) != 4:
        return False
    optimiser, seed, lr, loss = run
    right = optimiser in OPTIMISERS and isinstance(seed, int) and FIRST_SEED <= seed <= MOST_SEED and lr in RATES
    return right and (loss is None or (isinstance(loss, (int, float)) and 0 <= loss < math.inf))


def check_images(data: DataSet) -> None:
    """Raise ValueError unless the page can hold and train on the images of a data set."""
    _, H, W = data.image_shape
    if not hasattr(data.train, "images"):  # streamed
        raise ValueError(f"the images of {data.name} are too many for a page; give at most {LARGEST:,} bytes of them")
    n_bytes = data.train.images[:N_IMAGES].numel()
    if n_bytes > LARGEST:
        raise ValueError(f"the images of {data.name} have {n_bytes:,} bytes; the page takes at most {LARGEST:,}")
    if H % PATCH_SIZE or W % PATCH_SIZE:
        raise ValueError(f"image {H}×{W} is not divisible into {PATCH_SIZE}×{PATCH_SIZE} patches")
    check_trainable(data)
