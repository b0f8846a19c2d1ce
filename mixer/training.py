"""Training and evaluation: recipes, the loop, and the history that it leaves.

The order of the images and the augmentation of every step follow from the seed and the number of the step alone, so a
run that was interrupted anywhere continues exactly where it stopped.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from mixer.data import FLIPPABLE, DataSet, Split, StreamedSplit, augment
from mixer.model import check_positive

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        n_epochs: passes over the training images.
        batch_size: images per step.
        lr: the (highest) learning rate.
        weight_decay: AdamW's decay of the weights of linear layers; 0 gives Adam.
        warm_up: share of the steps in which the rate rises from 0, after which it falls along a cosine to 0;
            None keeps the rate constant.
        label_smoothing: share of the target spread evenly over all classes.
        clip: the largest norm of the gradient; None leaves it as it is.
        padding: pixels of the padded crop; 0 leaves the images as they are, flip included.
    """

    n_epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float | None = None
    label_smoothing: float = 0.0
    clip: float | None = None
    padding: int = 0

    def __post_init__(self):
        check_positive(n_epochs=self.n_epochs, batch_size=self.batch_size)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr is {self.lr}; it must be a positive number, for instance 0.001")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be a number of at least 0")
        if self.warm_up is not None and not 0 <= self.warm_up <= 1:
            raise ValueError(f"warm_up is {self.warm_up}; it must be a share from 0 to 1, or None")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be a share from 0 to below 1")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; it must be a positive number, or None")
        if not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"padding is {self.padding}; it must be a whole number of pixels of at least 0")


RECIPES = {
    "seed": Recipe(),
    "strong": Recipe(lr=3e-3, batch_size=128, weight_decay=0.05, warm_up=0.1, label_smoothing=0.1, clip=1.0, padding=2),
}


def choose_device(device: str = "auto") -> torch.device:
    """The device by name, or with "auto" the best there is: cuda, then mps, then cpu.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is not known; choose auto, cpu, cuda, cuda:0 … or mps") from None
    n_there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}.get(chosen.type, 0)
    if (chosen.index or 0) >= n_there:
        raise ValueError(f"device {device!r} is not on this machine; choose auto or cpu")
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products by name, or with "auto" the fastest that the device computes natively.

    That is bfloat16 on a GPU from Ampere on, float16 on an older one (which only emulates bfloat16), bfloat16 on a
    CPU with AMX tiles or AVX-512 BF16, and float32 elsewhere.

    Raises:
        ValueError: the name is unknown, or float16 is asked for off a GPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if device.type == "cpu" and native else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not known; choose auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs a cuda device, and this is {device.type}; choose fp32 or bf16")
    return PRECISIONS[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which matrix products are computed in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose state follows from these numbers, so that no state needs saving."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def predict(
    model: nn.Module,
    data: DataSet,
    split: Split | StreamedSplit,
    batch_size: int = 1000,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The logits [N, n_output] of a whole split, in float32; the model is left in the mode it was in."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    try:
        with autocast(device, dtype):
            for images, _ in split.to(device).batches(torch.arange(len(split)), batch_size):
                logits.append(model(data.normalise(images)).float())
    finally:
        model.train(was_training)
    return torch.cat(logits)


def evaluate(
    model: nn.Module, data: DataSet, split: Split | StreamedSplit, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """The mean cross-entropy (in nats) and the accuracy (from 0 to 1) of a model on a split of a data set."""
    logits = predict(model, data, split, dtype=dtype)
    labels = split.labels.to(logits.device)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": accuracy.item()}


class Trainer:
    """One training run: the model, its optimiser, and how far they have come.

    Iterate over it to train; each finished epoch gives its record, a dictionary with the keys epoch, train_loss,
    train_accuracy, validation_loss, validation_accuracy, lr, seconds and images_per_second. Losses are in nats,
    accuracies from 0 to 1; those of training are measured on the batches as the model learns from them.

    Args:
        model: the network; it is moved to the device.
        data: the data set.
        recipe: how to train.
        seed: fixes the order of the images and their augmentation.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        progress: whether to show a bar.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        seed: int = 1,
        device: str = "auto",
        precision: str = "auto",
        progress: bool = False,
    ):
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.model = model.to(self.device)
        self.data = data.to(self.device)
        self.recipe = recipe
        self.seed = seed
        self.progress = progress
        self.stop = False  # set it to True from a signal handler: the run pauses after the step under way
        self.steps_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        self.step = 0
        self.sums = torch.zeros(2, device=self.device)  # loss and correct answers of the epoch under way
        fused = self.device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=recipe.lr, fused=fused)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.n_epochs

    def learning_rate(self, step: int) -> float:
        """The rate of a step: constant, or a linear warm-up followed by half a cosine."""
        if self.recipe.warm_up is None:
            return self.recipe.lr
        n_steps = self.recipe.n_epochs * self.steps_per_epoch
        n_warm_up = max(1, round(n_steps * self.recipe.warm_up))
        if step < n_warm_up:
            return self.recipe.lr * (step + 1) / n_warm_up
        return self.recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, n_steps - n_warm_up)))

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch, uint8 images [B, C, H, W]; returns its summed loss and correct answers, [2]."""
        if self.recipe.padding:
            flip = self.data.name in FLIPPABLE
            images = augment(images, seeded(self.seed, 1, self.step), self.recipe.padding, flip)
        with autocast(self.device, self.dtype):
            logits = self.model(self.data.normalise(images))
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        n_correct = (logits.argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().float() * len(labels), n_correct.float()])

    def train_epoch(self, bar: tqdm) -> None:
        """Take the steps that the epoch under way still lacks, until `stop` is set."""
        n_done = self.step % self.steps_per_epoch
        if n_done == 0:
            self.sums.zero_()
        order = torch.randperm(len(self.data.train), generator=seeded(self.seed, 0, self.epoch))
        order = order[n_done * self.recipe.batch_size :]
        self.model.train()
        n_images = len(self.data.train) - len(order)
        shown = time.perf_counter()
        for images, labels in self.data.train.batches(order, self.recipe.batch_size):
            self.sums += self.train_step(images, labels)
            n_images += len(labels)
            bar.update(len(labels))
            if time.perf_counter() - shown > 0.5:
                loss, n_correct = self.sums.tolist()
                bar.set_postfix(loss=f"{loss / n_images:.3f}", accuracy=f"{n_correct / n_images:.1%}")
                shown = time.perf_counter()
            if self.stop:
                return

    def __iter__(self) -> Iterator[dict[str, float]]:
        n_train = len(self.data.train)
        n_done = self.epoch * n_train + self.step % self.steps_per_epoch * self.recipe.batch_size
        total = self.recipe.n_epochs * n_train
        with tqdm(
            total=total, initial=n_done, unit=" images", unit_scale=True, disable=not self.progress, leave=False
        ) as bar:
            while not self.finished and not self.stop:
                epoch = self.epoch + 1
                bar.set_description(f"epoch {epoch}/{self.recipe.n_epochs}")
                start = time.perf_counter()
                n_before = self.step % self.steps_per_epoch * self.recipe.batch_size
                self.train_epoch(bar)
                if self.epoch < epoch:
                    return
                loss, n_correct = self.sums.tolist()  # waits for the device
                seconds = time.perf_counter() - start
                validation = evaluate(self.model, self.data, self.data.validation, self.dtype)
                if not math.isfinite(loss + validation["loss"]):
                    raise FloatingPointError(f"the loss is no longer a number in epoch {epoch}; choose a smaller lr")
                yield {
                    "epoch": epoch,
                    "train_loss": loss / n_train,
                    "train_accuracy": n_correct / n_train,
                    "validation_loss": validation["loss"],
                    "validation_accuracy": validation["accuracy"],
                    "lr": self.learning_rate(self.step - 1),
                    "seconds": round(seconds, 3),
                    "images_per_second": round((n_train - n_before) / seconds, 1),
                }

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """What resuming needs beside the weights: tensors by name, and numbers."""
        tensors = {"sums": self.sums}
        for i, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": value for name, value in values.items()}
        return tensors, {"step": self.step, "scaler": self.scaler.state_dict()}

    def load_state(self, tensors: dict[str, Tensor], numbers: dict) -> None:
        """Continue from what `state` gave; the weights are the model's own."""
        optimiser = self.optimiser.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, i, key = name.split(".")
                optimiser["state"].setdefault(int(i), {})[key] = value
        self.optimiser.load_state_dict(optimiser)
        self.scaler.load_state_dict(numbers["scaler"])
        self.sums = tensors["sums"].to(self.device)
        self.step = numbers["step"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters for an optimiser: the weights of linear layers and convolutions decay, all others do not."""
    decayed = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ids = {id(p) for p in decayed}
    others = [p for p in model.parameters() if id(p) not in ids]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def fit(
    model: nn.Module,
    data: DataSet,
    recipe: str = "seed",
    seed: int = 1,
    device: str = "auto",
    precision: str = "auto",
    progress: bool = False,
    **changes,
) -> list[dict[str, float]]:
    """Train a model and return its history, one record per epoch (see `Trainer`).

    Args:
        model, data, seed, device, precision, progress: as in `Trainer`.
        recipe: a name from RECIPES.
        changes: fields of `Recipe` to change, for instance `n_epochs=5`.

    Raises:
        ValueError: the recipe is unknown, or a value is out of range.
        FloatingPointError: the loss is no longer a number.
    """
    return list(Trainer(model, data, choose_recipe(recipe, **changes), seed, device, precision, progress))


def choose_recipe(name: str, **changes) -> Recipe:
    """A recipe by name, with some of its fields changed.

    Raises:
        ValueError: the name is unknown, or a value is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is not known; choose one of {', '.join(RECIPES)}")
    if unknown := changes.keys() - vars(RECIPES[name]).keys():
        raise ValueError(f"{', '.join(unknown)} is not part of a recipe; choose from {', '.join(vars(RECIPES[name]))}")
    return replace(RECIPES[name], **changes)
