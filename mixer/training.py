"""Training and evaluation: recipes, the loop, and the history that it leaves.

The order of the images and the augmentation of every step follow from the seed and the number of the step alone, so a
run that was interrupted anywhere continues exactly where it stopped.
"""

import copy
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from mixer import checkpoint
from mixer.data import PHOTOGRAPHS, DataSet, Split, StreamedSplit, augment, cutmix, random_augment
from mixer.model import check_positive

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        n_epochs: passes over the training images.
        batch_size: images per step, of all processes together.
        lr: the (highest) learning rate of Adam.
        weight_decay: decay of the weights of linear layers, as in AdamW; 0 gives Adam.
        warm_up: share of the steps in which the rate rises from 0, after which it falls along a cosine to 0;
            None keeps the rate constant.
        label_smoothing: share of the target spread evenly over all classes.
        clip: the largest norm of the gradient; None leaves it as it is.
        padding: pixels of the padded crop of photographs; 0 leaves it out.
        flip: whether half of the photographs are mirrored.
        affine: how far other images, such as digits, are turned, scaled, sheared and shifted; see
            `mixer.data.augment`.
        random_augment: whether torchvision's RandAugment changes the images.
        cutmix: share of the batches in which a box of each image is replaced by another image's, by torchvision.
        drop_path: stochastic depth: the chance that an image skips the last block; it grows from 0 block by block.
        ema: how much of the running mean of the weights stays in every step, for instance 0.999; the mean is what is
            evaluated and kept. 0 keeps the weights themselves.
        muon_lr: the highest rate of Muon, which then trains the weights of the mixing MLPs; None leaves all to Adam.
    """

    n_epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float | None = None
    label_smoothing: float = 0.0
    clip: float | None = None
    padding: int = 0
    flip: bool = False
    affine: float = 0.0
    random_augment: bool = False
    cutmix: float = 0.0
    drop_path: float = 0.0
    ema: float = 0.0
    muon_lr: float | None = None

    def __post_init__(self):
        check_positive(n_epochs=self.n_epochs, batch_size=self.batch_size)
        for name in ("lr", "muon_lr", "clip"):
            value = getattr(self, name)
            if value is None and name != "lr":
                continue
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a positive number, for instance 0.001")
        for name in ("weight_decay", "affine"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of at least 0")
        for name in ("warm_up", "cutmix"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be a share from 0 to 1")
        for name in ("label_smoothing", "drop_path", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share from 0 to below 1")
        if not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"padding is {self.padding}; it must be a whole number of pixels of at least 0")


RECIPES = {
    "seed": Recipe(),
    "strong": Recipe(
        lr=3e-3,
        weight_decay=0.2,
        warm_up=0.1,
        label_smoothing=0.1,
        clip=1.0,
        padding=4,
        flip=True,
        affine=1.0,
        ema=0.998,
        muon_lr=0.02,
    ),
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


def memory_of(device: torch.device) -> float:
    """The memory of a device in bytes; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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


@contextmanager
def default_generator_seeded(*numbers: int) -> Iterator[None]:
    """A context in which torch's default generator on the CPU follows from these numbers; after it, nothing changed."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(seeded(*numbers).get_state())
        yield


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

    With the recipe's `ema` the model that is given holds the running mean of the weights at every moment, and a copy of
    it, `learner`, is what the optimiser changes. Started by torchrun, every process takes its share of each batch.

    Args:
        model: the network; it is moved to the device.
        data: the data set.
        recipe: how to train.
        seed: fixes the order of the images and their augmentation.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        progress: whether to show a bar.
        compile: whether torch.compile translates the model for the training steps.
        n_snapshots: copies of the token-mixing weights to keep along the way; see `snapshots`.
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
        compile: bool = False,
        n_snapshots: int = 0,
    ):
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.model = model.to(self.device)
        self.learner = copy.deepcopy(self.model) if recipe.ema else self.model
        self.data = data.to(self.device)
        self.recipe = recipe
        self.seed = seed
        self.progress = progress
        self.stop = False  # set it to True from a signal handler: the run pauses after the step under way
        self.steps_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        self.step = 0
        self.seconds = 0.0  # of training, over all epochs
        self.sums = torch.zeros(2, device=self.device)  # loss and correct answers of the epoch under way
        self.optimisers = make_optimisers(self.learner, recipe, fused=self.device.type in ("cpu", "cuda"))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.rank, self.n_processes = rank_and_count()
        self.network = self.learner  # what a step calls
        if self.n_processes > 1:
            self.network = nn.parallel.DistributedDataParallel(self.network)
        if compile:
            self.network = torch.compile(self.network)
        self.n_snapshots = n_snapshots
        self.snapshots = {}  # step → the token-mixing weights by name, float16

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.n_epochs

    @property
    def n_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.recipe.n_epochs * self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """Adam's rate at a step: constant, or a linear warm-up followed by half a cosine."""
        return self.recipe.lr * self.rate_share(step)

    def rate_share(self, step: int) -> float:
        """The learning rate of a step, as a share of the highest."""
        if self.recipe.warm_up is None:
            return 1.0
        n_warm_up = max(1, round(self.n_steps * self.recipe.warm_up))
        if step < n_warm_up:
            return (step + 1) / n_warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, self.n_steps - n_warm_up)))

    def augmented(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as the recipe changes it, and its targets: labels [B], or shares of classes [B, n_output]."""
        recipe = self.recipe
        if recipe.random_augment:
            images = random_augment(images)
        photographs = self.data.name in PHOTOGRAPHS
        changes = (recipe.padding, recipe.flip, 0.0) if photographs else (0, False, recipe.affine)
        if any(changes):
            images = augment(images, seeded(self.seed, 1, self.step), *changes)
        if recipe.cutmix and torch.rand(()) < recipe.cutmix:
            return cutmix(images, labels, len(self.data.class_names))
        return images, labels

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch, uint8 images [B, C, H, W]; returns its summed loss and correct answers, [2].

        Every process changes the whole batch alike and then learns from its share of it, so that several processes
        see what one would have seen.
        """
        with default_generator_seeded(self.seed, 2, self.step):
            images, targets = self.augmented(images, labels)
            share = slice(self.rank, None, self.n_processes)
            with autocast(self.device, self.dtype):
                logits = self.network(self.data.normalise(images[share]))
                smoothing = self.recipe.label_smoothing
                loss = F.cross_entropy(logits, targets[share], label_smoothing=smoothing, reduction="sum")
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["highest_lr"] * self.rate_share(self.step)
            optimiser.zero_grad()
        self.scaler.scale(loss * (self.n_processes / len(labels))).backward()
        if self.recipe.clip is not None:
            for optimiser in self.optimisers:
                self.scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(self.learner.parameters(), self.recipe.clip)
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self.step += 1
        self.follow()
        n_correct = (logits.argmax(dim=1) == labels[share]).sum()
        return torch.stack([loss.detach().float(), n_correct.float()])

    @torch.no_grad()
    def follow(self) -> None:
        """Move the running mean of the weights, faster in the first steps, and take a snapshot if one is due."""
        if self.learner is not self.model:
            kept = min(self.recipe.ema, self.step / (self.step + 9))
            for mean, weight in zip(self.model.parameters(), self.learner.parameters(), strict=True):
                mean.lerp_(weight, 1 - kept)
            for own, buffer in zip(self.model.buffers(), self.learner.buffers(), strict=True):
                own.copy_(buffer)  # for instance the running statistics of BatchNorm
        last = max(1, self.n_snapshots - 1)
        if self.step in {round(self.n_steps * (i / last) ** 2) for i in range(self.n_snapshots)}:
            weights = self.model.state_dict().items()
            self.snapshots[self.step] = {name: w.half() for name, w in weights if "token_mixing.fc" in name}

    def train_epoch(self, bar: tqdm) -> None:
        """Take the steps that the epoch under way still lacks, until `stop` is set."""
        n_done = self.step % self.steps_per_epoch
        if n_done == 0:
            self.sums.zero_()
        if self.step == 0:
            self.follow()
        order = torch.randperm(len(self.data.train), generator=seeded(self.seed, 0, self.epoch))
        order = order[n_done * self.recipe.batch_size :]
        self.learner.train()
        n_images = len(self.data.train) - len(order)
        shown = time.perf_counter()
        for images, labels in self.data.train.batches(order, self.recipe.batch_size):
            with stochastic_depth(self.learner, self.recipe.drop_path):
                self.sums += self.train_step(images, labels)
            n_images += len(labels)
            bar.update(len(labels))
            if time.perf_counter() - shown > 0.5:
                loss, share = (self.sums * self.n_processes / n_images).tolist()
                bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{share:.1%}")
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
                if self.epoch == epoch and self.n_processes > 1:
                    torch.distributed.all_reduce(self.sums)
                loss, n_correct = self.sums.tolist()  # waits for the device
                seconds = time.perf_counter() - start
                self.seconds += seconds
                if self.epoch < epoch:
                    return
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
        """What resuming needs beside the weights of the model: tensors by name, and numbers."""
        tensors = {"sums": self.sums}
        if self.learner is not self.model:
            tensors |= {f"learner.{name}": weight for name, weight in self.learner.state_dict().items()}
        for k, optimiser in enumerate(self.optimisers):
            for i, values in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{k}.{i}.{name}": value for name, value in values.items()}
        for step, weights in self.snapshots.items():
            tensors |= {f"snapshot.{step}.{name}": weight for name, weight in weights.items()}
        return tensors, {"step": self.step, "seconds": self.seconds, "scaler": self.scaler.state_dict()}

    def load_state(self, tensors: dict[str, Tensor], numbers: dict) -> None:
        """Continue from what `state` gave; the weights of the model are its own."""
        learner = {name.removeprefix("learner."): t for name, t in tensors.items() if name.startswith("learner.")}
        self.learner.load_state_dict(learner or self.model.state_dict())
        states = [optimiser.state_dict() for optimiser in self.optimisers]
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, k, i, key = name.split(".")
                states[int(k)]["state"].setdefault(int(i), {})[key] = value
        for optimiser, state in zip(self.optimisers, states, strict=True):
            optimiser.load_state_dict(state)
        if numbers["scaler"]:  # empty after steps in another precision than fp16, which need no scale
            self.scaler.load_state_dict(numbers["scaler"])
        self.sums = tensors["sums"].to(self.device)
        self.step, self.seconds = numbers["step"], numbers["seconds"]
        self.snapshots = checkpoint.snapshots(tensors)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters for an optimiser: the weights of linear layers and convolutions decay, all others do not."""
    decayed = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ids = {id(p) for p in decayed}
    others = [p for p in model.parameters() if id(p) not in ids]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def make_optimisers(model: nn.Module, recipe: Recipe, fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters; or Muon for the weights of the mixing MLPs, and AdamW for the rest."""
    decayed, others = parameter_groups(model, recipe.weight_decay)
    optimisers = []
    if recipe.muon_lr is not None:
        hidden = [w for name, w in model.named_parameters() if name.startswith("layers.") and name.endswith("weight")]
        ids = {id(w) for w in hidden if w.dim() == 2}
        mixing = [w for w in decayed["params"] if id(w) in ids]
        decayed["params"] = [w for w in decayed["params"] if id(w) not in ids]
        if mixing:  # the convolutional twin has no matrices
            optimisers = [torch.optim.Muon(mixing, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)]
    optimisers.append(torch.optim.AdamW([decayed, others], lr=recipe.lr, fused=fused))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["highest_lr"] = group["lr"]
    return optimisers


@contextmanager
def stochastic_depth(model: nn.Module, rate: float) -> Iterator[None]:
    """A context in which images skip mixing blocks at random while the model trains.

    The chance grows evenly from block to block, up to `rate` at the last.
    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """
    hooks = []
    if rate:
        blocks = [block for layer in model.layers for block in (layer.token_mixing, layer.channel_mixing)]
        shares = [(i + 1) / len(blocks) for i in range(len(blocks))]
        hooks = [b.register_forward_hook(partial(_skip, rate * s)) for b, s in zip(blocks, shares, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _skip(rate: float, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    if not block.training:
        return output
    (x,) = inputs
    chance = torch.rand(len(x), *[1] * (x.dim() - 1))  # one number per image, for tables and for maps
    kept = (chance >= rate).to(x.device) / (1 - rate)  # the mean of the update stays the same
    return x + kept * (output - x)


def rank_and_count() -> tuple[int, int]:
    """The number of this process and how many train together: 0 and 1, unless torch.distributed was started."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


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
