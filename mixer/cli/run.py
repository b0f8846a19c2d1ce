"""A run: start or resume it, train, and leave a checkpoint and a history after every epoch."""

import json
import math
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from mixer import checkpoint, data
from mixer.cli.folder import (
    CHECKPOINT,
    HISTORY,
    append_record,
    holds_run,
    locked,
    named_folder,
    next_free,
    read_history,
)
from mixer.cli.options import Options, resolve
from mixer.cli.state import restore, state_of
from mixer.config import MixerConfig, check_same, kinds
from mixer.devices import choose_device, hardware, join_processes, memory_of
from mixer.model import MLPMixer
from mixer.recipe import RECIPES
from mixer.training import Trainer, evaluate

N_SNAPSHOTS = 12  # of the token-mixing weights, kept in every run


def check_memory(sizes: dict, batch_size: int, device: torch.device, optimiser: str = "adam") -> None:
    """Raise ValueError if a training step needs more memory than the device has.

    A lower bound in float32: every parameter with its gradient and Adam's two means, unless some do not learn, and of
    every layer what its backward pass needs, which for other mixings is at least a table.
    """
    config = MixerConfig(**sizes)
    T, C, n_parameters = config.n_tokens, config.n_channel, config.n_parameters
    mlp, other = 3 * T * C + 2 * C * config.n_hidden_token, T * C  # of one image
    token_mixing = {"mlp": mlp, "none": 0}.get(config.token_mixing, other)
    channel_mixing = (3 * T * C + 2 * T * config.n_hidden_channel) * (config.channel_mixing == "mlp")
    n_copies = 1 if config.token_mixing == "random" else 2 if optimiser == "sgd" else 4
    needed = 4 * (n_copies * n_parameters + batch_size * config.n_layers * (token_mixing + channel_mixing))
    there = memory_of(device)
    if needed > there:
        raise ValueError(
            f"a model of {n_parameters:,} parameters with {batch_size} images per step needs at least "
            f"{needed / 2**30:,.1f} GiB, and {device} has {there / 2**30:,.1f} GiB; choose smaller sizes"
        )


def kept_weights(model: MLPMixer) -> dict[str, torch.Tensor]:
    """The token-mixing weights of a model by name, in float16; a norm's are left out."""
    weights = {name: weight for name, weight in model.state_dict().items() if ".token_mixing." in name}
    return {name: weight.half() for name, weight in weights.items() if ".norm." not in name}


def check_snapshots(snapshots: dict[int, dict], expected: dict, step: int) -> None:
    """Raise ValueError unless stored snapshots are weights with these names and shapes, of steps up to this one."""
    shapes = kinds(expected)
    for taken, weights in snapshots.items():
        if taken > step:
            raise ValueError(f"there is a snapshot of step {taken}, but the run has come to step {step} only")
        check_same(kinds(weights), {name: shapes.get(name, "left out") for name in weights})


class Run:
    """A training run and its folder: its trainer, its snapshots, and what the checkpoint says of it.

    Args:
        given: the options that were given, by name.
        command: the command in words.

    Raises:
        ValueError: the options contradict one another or the run to resume, or the data are others than it began with.
        OSError: the folder or the data cannot be used.
    """

    def __init__(self, given: dict, command: str, open_folders: ExitStack):
        self.is_first = int(os.environ.get("RANK", 0)) == 0  # of the processes of torchrun: it alone writes and prints
        self.out = named_folder(given)
        if self.out and self.is_first:
            open_folders.enter_context(locked(self.out))
        self.is_new = self.out is None or not holds_run(self.out, "resume" in given, self.is_first)
        tensors, stored = ({}, {"options": {}, "metrics": {}}) if self.is_new else read_run(self.out / CHECKPOINT)
        self.options = resolve({k: v for k, v in given.items() if k not in ("out", "resume")}, stored["options"])
        self.device = join_processes(self.options.device)
        set_threads(self.options.num_threads)
        self.command, self.snapshots = stored.get("command", command), checkpoint.snapshots(tensors)
        self.metrics = {name: value for name, value in stored["metrics"].items() if not name.startswith("test")}
        self.trainer = self.make_trainer(tensors, stored)
        if self.trainer.step > self.trainer.n_steps:
            n_begun = -(-self.trainer.step // self.trainer.steps_per_epoch)
            raise ValueError(f"--n_epochs is {self.options.n_epochs}, but the run has come to epoch {n_begun} already")
        self.made_with = dict(torch=torch.__version__, hardware=hardware(self.trainer.device, self.trainer.dtype))
        if self.trainer.finished:  # a run that only evaluates anew was not made by this process
            self.made_with |= {name: stored[name] for name in self.made_with if name in stored}
        if self.out is None and self.is_first:
            self.out = next_free(self.options.dataset)
            open_folders.enter_context(locked(self.out))

    def make_trainer(self, tensors: dict, stored: dict) -> Trainer:
        """A trainer at its first step, or where the run to resume stopped."""
        options = self.options
        images = data.load(options.dataset, options.data_dir, options.image_size, options.background)
        images = images.first(options.n_train) if options.n_train else images
        images = images.shuffled(options.shuffle, options.patch_size)
        self.fingerprint = images.fingerprint  # of the images as the run began with them, even if they change
        if stored.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise ValueError(f"the images in {options.data_dir} are not those that the run in {self.out} began with")
        recipe = options.make_recipe()
        sizes = options.sizes(images.image_shape, len(images.class_names))
        n_at_once = min(recipe.batch_size, len(images.train))
        check_memory(sizes, n_at_once, choose_device(self.device), recipe.optimiser)
        torch.manual_seed(options.seed)
        model = MLPMixer(**sizes)
        trainer = Trainer(model, images, recipe, options.seed, self.device, options.precision, options.compile)
        if not self.is_new:
            restore(trainer, checkpoint.grouped(tensors), stored)
            check_snapshots(self.snapshots, kept_weights(model), trainer.step)
        return trainer

    def train(self) -> int:
        """Train to the end, or to a signal, saving after every epoch; returns the exit status."""
        with stopped_by_signals(self.trainer) as signals:
            try:
                self.train_first() if self.is_first else list(self.trainer)
            except FloatingPointError as error:
                if not self.is_first:
                    raise
                lower = min(self.options.lr / 10, RECIPES[self.options.recipe].lr)
                again = f"--resume {shlex.quote(str(self.out))} --lr {lower:g}"
                raise FloatingPointError(f"{error}, for instance {again}, which goes on from the last epoch") from error
        return 0 if self.trainer.finished else 128 + (signals[0] if signals else signal.SIGINT)

    def train_first(self) -> None:
        """Train as the first process, which writes and prints."""
        trainer, images, n_epochs = self.trainer, self.trainer.data, self.options.n_epochs
        splits = f"{len(images.train):,} training, {len(images.validation):,} validation, {len(images.test):,} test"
        print(f"{images.name}: {splits} images, {len(images.class_names)} classes")
        words = hardware(trainer.device, trainer.dtype)
        print(f"MLPMixer: {trainer.model.extra_repr()}; {words}; run in {self.out}", flush=True)
        history = read_history(self.out / HISTORY, trainer.epoch, self.metrics)
        checkpoint.write_whole(self.out / HISTORY, "".join(json.dumps(record) + "\n" for record in history).encode())
        if self.is_new:
            self.take_snapshot()
            self.save()
        with progress_bar(trainer) as move, tensorboard(self.out, self.options) as write:
            trainer.after_step = lambda n_images: (self.take_snapshot(), move(n_images))
            for self.metrics in trainer:
                append_record(self.out / HISTORY, self.metrics)
                self.save()
                tqdm.write(describe(self.metrics, n_epochs))
                write(self.metrics)
        self.finish() if trainer.finished else self.pause()

    def pause(self) -> None:
        """Save in the middle of an epoch."""
        self.save()
        again = shlex.join(["python", "train.py", "--resume", str(self.out)])
        print(f"stopped in epoch {self.trainer.epoch + 1}, saved; go on with: {again}")

    def finish(self) -> None:
        """Evaluate the model on the test images, once; the result is printed even if it cannot be saved."""
        test = evaluate(self.trainer.model, self.trainer.data, self.trainer.data.test, self.trainer.dtype)
        self.metrics |= {"test_loss": test["loss"], "test_accuracy": test["accuracy"]}
        print(f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}; weights in {self.out / CHECKPOINT}")
        self.save()

    def take_snapshot(self) -> None:
        """Keep the token-mixing weights of this step if it is one of N_SNAPSHOTS, which are closer at first."""
        trainer, last = self.trainer, N_SNAPSHOTS - 1
        if trainer.step in {round(trainer.n_steps * (i / last) ** 2) for i in range(N_SNAPSHOTS)}:
            self.snapshots[trainer.step] = kept_weights(trainer.model)

    def save(self) -> None:
        """Write the checkpoint, from which the model can be used and the run resumed.

        Raises:
            FloatingPointError: a weight is no longer a number; the checkpoint stays as it was.
        """
        groups, numbers = state_of(self.trainer)
        if not all(tensor.isfinite().all() for named in groups.values() for tensor in named.values()):
            self.trainer.check_finite(math.nan)
        groups.pop("model")
        groups["snapshot"] = {f"{step}.{name}": w for step, kept in self.snapshots.items() for name, w in kept.items()}
        images, options = self.trainer.data, vars(self.options)
        about = dict(data_set=images.name, mean=images.mean, std=images.std, class_names=images.class_names)
        about |= dict(command=self.command, options=options, fingerprint=self.fingerprint, metrics=self.metrics)
        about |= dict(shuffle=options["shuffle"], background=images.background, **self.made_with, **numbers)
        checkpoint.save(self.out / CHECKPOINT, self.trainer.model, about, checkpoint.flattened(groups))


def read_run(path: Path) -> tuple[dict, dict]:
    """The tensors and the metadata of a checkpoint that a run has written.

    Raises:
        ValueError: the checkpoint is damaged, or holds a model and no run.
    """
    tensors, stored = checkpoint.read(path)
    kinds = dict(options=dict, metrics=dict, command=str, fingerprint=str, step=int, seconds=float, scaler=dict)
    for name, kind in kinds.items():
        if name not in stored:
            raise ValueError(f"{path} holds a model but no run; it can be loaded, not resumed")
        if not isinstance(stored[name], kind):
            raise ValueError(f"{path} is damaged: its {name} is {stored[name]!r}; start a new run")
    return tensors, stored


def set_threads(num_threads: int | None) -> None:
    """Let torch compute on so many threads of the CPU.

    Raises:
        ValueError: they are more than the system might start.
    """
    most = 16 * (os.cpu_count() or 1)
    if num_threads and num_threads > most:
        raise ValueError(f"--num_threads is {num_threads}; choose from 1 to {most}, 16 for each core of this machine")
    if num_threads:
        torch.set_num_threads(num_threads)


def describe(record: dict, n_epochs: int) -> str:
    """A record of the history in one line."""
    return (
        f"epoch {record['epoch']:3}/{n_epochs}  loss {record['train_loss']:.4f}  "
        f"accuracy {record['train_accuracy']:.1%}  validation {record['validation_accuracy']:.1%}  "
        f"{record['images_per_second']:,.0f} images/s"
    )


@contextmanager
def progress_bar(trainer: Trainer) -> Iterator[Callable[[int], None]]:
    """A bar over all images of a run; gives the function that moves it by the images of a step."""
    n_train, per_epoch, batch_size = len(trainer.data.train), trainer.steps_per_epoch, trainer.recipe.batch_size
    n_done = trainer.epoch * n_train + trainer.step % per_epoch * batch_size
    n_all = trainer.recipe.n_epochs * n_train

    def move(n_images: int) -> None:
        epoch, step = divmod(trainer.step - 1, per_epoch)
        bar.set_description(f"epoch {epoch + 1}/{trainer.recipe.n_epochs}", refresh=False)
        if bar.update(n_images):  # shown anew, every half second
            n_seen = min((step + 1) * batch_size, n_train)
            loss, accuracy = (trainer.sums * trainer.n_processes / n_seen).tolist()
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")

    with tqdm(total=n_all, initial=n_done, unit=" images", unit_scale=True, leave=False, mininterval=0.5) as bar:
        yield move


@contextmanager
def stopped_by_signals(trainer: Trainer) -> Iterator[list[int]]:
    """A context in which Ctrl-C, SIGTERM and SIGHUP end the training after the step under way; gives those that came.

    A second one does not wait, save under torchrun, which sends each process another when the first one stops.
    """
    came, before = [], {}

    def stop(number, _):
        trainer.stop = True
        came.append(number)
        if trainer.n_processes == 1:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            before[number] = signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def tensorboard(out: Path, options: Options) -> Iterator[Callable[[dict], None]]:
    """A function that writes a record of the history for TensorBoard, if the options ask for it.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    if not options.tensorboard:
        yield lambda record: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs a package that is not here; install it (pip install tensorboard), or --no-tensorboard"
        ) from error
    with SummaryWriter(str(out)) as writer:
        yield lambda record: [writer.add_scalar(name, value, record["epoch"]) for name, value in record.items()]
