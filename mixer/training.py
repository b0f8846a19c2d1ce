"""Training and evaluation: one step, the loop, and the history that it leaves.

The order of the images and the random changes of every step follow from the seed and the number of the step alone, so
a run that was interrupted anywhere continues exactly where it stopped.
"""

import copy
import math
import operator
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixer.config import check_float32, check_positive
from mixer.data import DataSet, Split, check_split
from mixer.devices import autocast, choose_device, choose_precision, rank_and_count
from mixer.recipe import Recipe, choose_recipe, lr_factor, make_optimisers
from mixer.regularisation import change_images, default_generator_seeded, seeded, stochastic_depth


@torch.no_grad()
def move_mean(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running mean of a model's weights towards them; buffers, such as BatchNorm's statistics, are copied."""
    for own, weight in zip(mean.parameters(), model.parameters(), strict=True):
        own.lerp_(weight, 1 - decay)
    for own, buffer in zip(mean.buffers(), model.buffers(), strict=True):
        own.copy_(buffer)


class Trainer:
    """One training run: the model, its optimisers, and how far they have come.

    Iterate over it to train; each finished epoch gives its record, a dictionary with the keys epoch, train_loss,
    train_accuracy, validation_loss, validation_accuracy, lr, seconds and images_per_second. Losses use the
    natural logarithm, accuracies go from 0 to 1; those of training are measured on the batches as the model learns from
    them.

    With the recipe's `ema` the model that is given holds the running mean of the weights at every moment, and a copy of
    it, `learner`, is what the optimisers change. Started by torchrun, every process takes its part of each batch.

    Args:
        model: the network; it is moved to the device.
        data: the data set.
        recipe: how to train.
        seed: fixes the order of the images and their random changes.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        compile: whether torch.compile translates the model for the training steps.

    Raises:
        ValueError: the device or the precision is not known or not there, no weight can learn, a weight is not float32,
            or the images and labels are not those that the model takes.
        TypeError: the seed is no integer.
        FloatingPointError: while it trains, the loss is no longer a number.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        seed: int = 1,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
    ):
        if not (torch.is_grad_enabled() and any(p.requires_grad and not p.is_inference() for p in model.parameters())):
            raise ValueError(
                "no weight can learn: train outside no_grad and inference_mode, with model.requires_grad_()"
            )
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.model = model.to(self.device)
        self.learner = copy.deepcopy(self.model) if recipe.ema else self.model
        self.data = data.to(self.device)
        for split in (data.train, data.validation, data.test):
            check_split(split, data, model)
        self.recipe, self.seed = recipe, operator.index(seed)
        self.steps_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        self.n_steps = recipe.n_epochs * self.steps_per_epoch  # of the whole run
        self.step = 0
        self.stop = False  # True ends the training after the step under way
        self.after_step: Callable[[int], None] = lambda n_images: None  # what else happens after a step of n images
        self.seconds = 0.0  # of training, over all epochs
        self.sums = torch.zeros(2, device=self.device)  # loss and correct answers of the epoch under way
        self.optimisers = make_optimisers(self.learner, recipe, fused=self.device.type in ("cpu", "cuda"))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.rank, self.n_processes = rank_and_count()
        self.all_sums = torch.zeros(self.n_processes, 2, device=self.device)  # of each process, when last gathered
        self.network = self.learner if self.n_processes == 1 else nn.parallel.DistributedDataParallel(self.learner)
        if compile:
            self.network = torch.compile(self.network)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.n_epochs

    def learning_rate(self, step: int) -> float:
        """The rate at a step: constant, or a linear warm-up followed by half a cosine."""
        return self.recipe.lr * lr_factor(step, self.n_steps, self.recipe.warm_up)

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from one batch, uint8 images [B, C_in, H, W]; returns its summed loss and correct answers, [2].

        Every process changes the whole batch alike and then learns from its part of it, so that several processes see
        what one would have seen. Which blocks an image skips, each process draws for itself.
        """
        recipe, own = self.recipe, slice(self.rank, None, self.n_processes)
        with default_generator_seeded(self.seed, 2, self.step):
            images, targets = change_images(images, labels, self.data, recipe, seeded(self.seed, 1, self.step))
        with default_generator_seeded(self.seed, 3, self.step, self.rank), autocast(self.device, self.dtype):
            loss, logits = self.loss(self.data.normalise(images[own]), targets[own])
        self.update(loss * (self.n_processes / len(labels)))
        self.step += 1
        if self.learner is not self.model:
            move_mean(self.model, self.learner, min(recipe.ema, self.step / (self.step + 9)))  # faster at first
        return torch.stack([loss.detach().float(), (logits.argmax(dim=1) == labels[own]).sum().float()])

    def loss(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The summed loss of normalised images [B, C_in, H, W], and their logits [B, n_output].

        Targets are labels [B], or weights of the classes [B, n_class].
        """
        logits = self.network(images)
        if targets.dim() == 2:  # of cutmix, one column for each class; a model may have other outputs
            targets = F.pad(targets, (0, logits.shape[1] - targets.shape[1]))
        return F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing, reduction="sum"), logits

    def update(self, loss: Tensor) -> None:
        """Change the weights by the gradient of a loss, at this step's learning rates."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = group["highest_lr"] * lr_factor(self.step, self.n_steps, self.recipe.warm_up)
        self.scaler.scale(loss).backward()
        if self.recipe.clip is not None or self.scaler.is_enabled():
            for optimiser in self.optimisers:
                self.scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(self.learner.parameters(), self.recipe.clip or math.inf)
            if self.scaler.is_enabled() and not norm.isfinite():  # of float16 in one optimiser: then none takes a step
                self.learner.zero_grad()
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()

    def train_epoch(self) -> None:
        """Take the steps that the epoch under way still lacks, until `stop` is set."""
        n_done = self.step % self.steps_per_epoch
        if n_done == 0:
            self.sums.zero_()
        order = torch.randperm(len(self.data.train), generator=seeded(self.seed, 0, self.epoch))
        order = order[n_done * self.recipe.batch_size :]
        self.learner.train()
        with stochastic_depth(self.learner, self.recipe.drop_path):
            for images, labels in self.data.train.batches(order, self.recipe.batch_size):
                self.sums += self.train_step(images, labels)
                self.after_step(len(labels))
                if self.device.type == "cpu" or self.step % 16 == 0:  # reading a number lets a GPU wait
                    self.check_finite(self.sums[0].item())
                if self.agree_to_stop():
                    return

    def check_finite(self, loss: float) -> None:
        """Raise FloatingPointError if the loss of the epoch under way is no longer a number."""
        if not math.isfinite(loss):
            epoch = (self.step - 1) // self.steps_per_epoch + 1
            raise FloatingPointError(f"the loss is no longer a number in epoch {epoch}; choose a smaller lr")

    def agree_to_stop(self) -> bool:
        """Whether `stop` is set, in this process or in one that trains with it; all get the same answer.

        `stop` itself is only read: a signal that sets it while the processes agree counts at the next step.
        """
        if self.n_processes == 1:
            return self.stop
        flag = torch.tensor(float(self.stop), device=self.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def gather_sums(self) -> None:
        """Collect the sums of all processes in `all_sums`."""
        if self.n_processes > 1:
            torch.distributed.all_gather(list(self.all_sums), self.sums)
        else:
            self.all_sums = self.sums[None].clone()

    def __iter__(self) -> Iterator[dict[str, float]]:
        n_train = len(self.data.train)
        while not self.finished and not self.agree_to_stop():
            epoch, start = self.epoch + 1, time.perf_counter()
            n_before = self.step % self.steps_per_epoch * self.recipe.batch_size
            self.train_epoch()
            self.gather_sums()  # also in the middle of an epoch, so that the first process can save them
            loss, n_correct = self.all_sums.sum(dim=0).tolist()  # waits for the device
            seconds = time.perf_counter() - start
            self.seconds += seconds
            if self.epoch < epoch:
                return
            validation = evaluate(self.model, self.data, self.data.validation, self.dtype)
            self.check_finite(loss + validation["loss"])
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


@torch.no_grad()
def predict(
    model: nn.Module,
    data: DataSet,
    split: Split,
    batch_size: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The logits [N, n_output] of a whole split, in float32; each module is left in the mode it was in.

    Args:
        model, data, split: the network, the data set that normalises the images, and which of them.
        batch_size: images at once; by default 1000, on a CPU 250. With 1000 a layer needs so much memory that a CPU's
            system fetches and clears it anew for each batch, which can take as long as the answers.
        dtype: of the matrix products, under autocast.

    Raises:
        ValueError: a weight is not float32, or the batch size is not a whole number of at least 1.
    """
    check_float32(model)
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = 250 if device.type == "cpu" else 1000
    (batch_size,) = check_positive(batch_size=batch_size)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    logits = []
    try:
        with autocast(device, dtype):
            for images, _ in split.to(device).batches(torch.arange(len(split)), batch_size):
                logits.append(model(data.normalise(images)).float())
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    return torch.cat(logits)


def evaluate(model: nn.Module, data: DataSet, split: Split, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """The mean cross-entropy (natural logarithm) and the accuracy (from 0 to 1) of a model on a split of a data set.

    Raises:
        ValueError: the images and labels are not those that the model takes, or a weight is not float32.
    """
    check_split(split, data, model)
    logits = predict(model, data, split, dtype=dtype)
    labels = split.labels.to(logits.device)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": accuracy.item()}


def fit(
    model: nn.Module,
    data: DataSet,
    recipe: str = "seed",
    seed: int = 1,
    device: str = "auto",
    precision: str = "auto",
    **changes,
) -> list[dict[str, float]]:
    """Train a model and return its history, one record per epoch (see `Trainer`).

    Args:
        model, data, seed, device, precision: as in `Trainer`.
        recipe: a name from RECIPES.
        changes: fields of `Recipe` to change, for instance `n_epochs=5`.

    Raises:
        ValueError: the recipe is unknown, or a value is out of range.
        FloatingPointError: the loss is no longer a number.
    """
    return list(Trainer(model, data, choose_recipe(recipe, **changes), seed, device, precision))
