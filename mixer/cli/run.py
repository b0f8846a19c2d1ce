"""A run and its folder: start or resume it, train, and leave a checkpoint and a history after every epoch."""

import itertools
import json
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from mixer import checkpoint, data
from mixer.cli.options import Options, resolve
from mixer.devices import choose_device, hardware, join_processes, memory_of, rank_and_count
from mixer.model import MLPMixer
from mixer.training import Trainer, evaluate

CHECKPOINT, HISTORY = "checkpoint.safetensors", "history.jsonl"
N_SNAPSHOTS = 12  # of the token-mixing weights, kept in every run


def next_free(dataset: str) -> Path:
    """Make the folder of a new run that was given none: one that no other run has used, even if both start at once."""
    for number in itertools.count(1):
        folder = Path("runs", dataset if number == 1 else f"{dataset}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            pass


def usable(out: Path) -> Path:
    """Make the folder that --out names for a new run.

    Raises:
        ValueError: it holds a run already.
        OSError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {out} cannot be made a folder ({error.strerror}); choose another") from error
    history = out / HISTORY
    if (out / CHECKPOINT).exists() or (history.exists() and history.stat().st_size):
        raise ValueError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
    return out


def resume_folder(given: dict) -> Path | None:
    """The folder to resume from, or None to start a new run."""
    if "resume" not in given:
        return None
    named = given["resume"] or given.get("out")
    if not named:
        raise ValueError("--resume needs the folder of the run: --resume FOLDER")
    folder = Path(named)
    if given["resume"] and Path(given.get("out", folder)) != folder:
        raise ValueError(f"--resume {folder} goes on in its own folder; leave out --out {given['out']}")
    if (folder / CHECKPOINT).is_file():
        return folder
    if given["resume"]:
        raise ValueError(f"{folder} holds no {CHECKPOINT} to resume from")
    print(f"{folder} holds no checkpoint yet: starting from the beginning")
    return None


def read_history(path: Path, n_epochs: int) -> list[dict]:
    """The records of the first epochs of a history; a last line cut short by a kill is left out.

    Raises:
        ValueError: another line is damaged.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if record["epoch"] <= n_epochs:
                records.append(record)
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise ValueError(f"{path} is damaged in line {number}; repair it or move it away") from error
    return records


def check_memory(sizes: dict, batch_size: int, device: torch.device) -> None:
    """Raise ValueError if a training step needs more memory than the device has.

    A lower bound in float32: every parameter with its gradient and Adam's two means, and of every layer what its
    backward pass needs.
    """
    with torch.device("meta"):  # takes no memory
        model = MLPMixer(**{**sizes, "n_layers": 1})
    n_layers, T, C, config = sizes["n_layers"], model.n_tokens, model.config["n_channel"], model.config
    n_parameters = model.n_parameters + (n_layers - 1) * sum(p.numel() for p in model.layers.parameters())
    activations = 6 * T * C + 2 * C * config["n_hidden_token"] + 2 * T * config["n_hidden_channel"]  # of one image
    needed = 4 * (4 * n_parameters + batch_size * n_layers * activations)
    there = memory_of(device)
    if needed > there:
        raise ValueError(
            f"a model of {n_parameters:,} parameters with {batch_size} images per step needs at least "
            f"{needed / 2**30:,.1f} GiB, and {device} has {there / 2**30:,.1f} GiB; choose smaller sizes"
        )


class Run:
    """A training run and its folder: its trainer, its snapshots, and what the checkpoint says of it.

    Args:
        given: the options that were given, by name.
        command: the command in words.

    Raises:
        ValueError: the options contradict one another or the run to resume, or the data are others than it began with.
        OSError: the folder or the data cannot be used.
    """

    def __init__(self, given: dict, command: str):
        folder = resume_folder(given)
        tensors, stored = read_run(folder)
        options = resolve({k: v for k, v in given.items() if k not in ("out", "resume")}, stored["options"])
        options.device = join_processes(options.device)
        self.is_first = rank_and_count()[0] == 0  # the first process alone writes and prints
        self.out = folder
        if folder is None and self.is_first and "out" in given:
            self.out = usable(Path(given["out"]))
        if options.num_threads:
            torch.set_num_threads(options.num_threads)
        self.is_new, self.options, self.command = folder is None, options, stored.get("command", command)
        self.metrics = {name: value for name, value in stored["metrics"].items() if not name.startswith("test")}
        self.snapshots = checkpoint.snapshots(tensors)
        self.trainer = self.make_trainer(tensors, stored)
        if self.trainer.epoch > options.n_epochs:
            raise ValueError(
                f"--n_epochs is {options.n_epochs}, but the run has done {self.trainer.epoch} epochs already"
            )

    def make_trainer(self, tensors: dict, stored: dict) -> Trainer:
        """A trainer at its first step, or where the run to resume stopped."""
        options = self.options
        images = data.load(options.dataset, options.data_dir, options.image_size)
        images = images.shuffled(options.shuffle, options.patch_size)
        if stored.get("fingerprint", images.fingerprint) != images.fingerprint:
            raise ValueError(f"the images in {options.data_dir} are not those that the run in {self.out} began with")
        recipe = options.make_recipe()
        if self.is_new:
            sizes = options.sizes(images.image_shape, len(images.class_names))
            check_memory(sizes, min(recipe.batch_size, len(images.train)), choose_device(options.device))
            torch.manual_seed(options.seed)
            model = MLPMixer(**sizes)
        else:
            model, _ = checkpoint.load(self.out / CHECKPOINT)
        trainer = Trainer(model, images, recipe, options.seed, options.device, options.precision, options.compile)
        if not self.is_new:
            trainer.load_state(checkpoint.grouped(tensors), stored)
        return trainer

    def train(self) -> int:
        """Train to the end, or to Ctrl-C, saving after every epoch; returns the exit status."""
        trainer, images = self.trainer, self.trainer.data
        if not self.is_first:
            list(trainer)
            return 0
        history = read_history(self.out / HISTORY, trainer.epoch) if self.out else []
        self.out = self.out or next_free(self.options.dataset)
        sizes = (
            f"{len(images.train):,} training, {len(images.validation):,} validation, {len(images.test):,} test images"
        )
        print(f"{images.name}: {sizes}, {len(images.class_names)} classes")
        words = hardware(trainer.device, trainer.dtype)
        print(f"MLPMixer: {trainer.model.extra_repr()}; {words}; run in {self.out}", flush=True)
        checkpoint.write_whole(self.out / HISTORY, "".join(json.dumps(record) + "\n" for record in history).encode())
        if self.is_new:
            self.take_snapshot()
            self.save()
        with progress_bar(trainer) as move, stopped_by_ctrl_c(trainer), tensorboard(self.out, self.options) as write:
            trainer.after_step = lambda n_images: (self.take_snapshot(), move(n_images))
            for self.metrics in trainer:
                with (self.out / HISTORY).open("a") as file:
                    file.write(json.dumps(self.metrics) + "\n")
                self.save()
                tqdm.write(describe(self.metrics, self.options.n_epochs))
                write(self.metrics)
            return self.finish() if trainer.finished else self.pause()

    def pause(self) -> int:
        """Save in the middle of an epoch."""
        self.save()
        again = shlex.join(["python", "train.py", "--resume", str(self.out)])
        print(f"stopped in epoch {self.trainer.epoch + 1}, saved; go on with: {again}")
        return 130

    def finish(self) -> int:
        """Evaluate the model on the test images, once."""
        test = evaluate(self.trainer.model, self.trainer.data, self.trainer.data.test, self.trainer.dtype)
        self.metrics |= {"test_loss": test["loss"], "test_accuracy": test["accuracy"]}
        self.save()
        print(f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}; weights in {self.out / CHECKPOINT}")
        return 0

    def take_snapshot(self) -> None:
        """Keep the token-mixing weights of this step if it is one of N_SNAPSHOTS, which are closer at first."""
        trainer, last = self.trainer, N_SNAPSHOTS - 1
        if trainer.step in {round(trainer.n_steps * (i / last) ** 2) for i in range(N_SNAPSHOTS)}:
            weights = trainer.model.state_dict().items()
            self.snapshots[trainer.step] = {name: w.half() for name, w in weights if "token_mixing.fc" in name}

    def save(self) -> None:
        """Write the checkpoint, from which the model can be used and the run resumed."""
        groups, numbers = self.trainer.state()
        groups["snapshot"] = {f"{step}.{name}": w for step, kept in self.snapshots.items() for name, w in kept.items()}
        images, options = self.trainer.data, vars(self.options)
        about = dict(data_set=images.name, mean=images.mean, std=images.std, class_names=images.class_names)
        about |= dict(command=self.command, options=options, fingerprint=images.fingerprint, metrics=self.metrics)
        about |= dict(shuffle=options["shuffle"], torch=torch.__version__, **numbers)
        about |= dict(hardware=hardware(self.trainer.device, self.trainer.dtype))
        checkpoint.save(self.out / CHECKPOINT, self.trainer.model, about, checkpoint.flattened(groups))


def read_run(folder: Path | None) -> tuple[dict, dict]:
    """The tensors and the metadata that the run to resume has stored; for a new run, nothing.

    Raises:
        ValueError: the checkpoint is damaged, or holds a model and no run.
    """
    if folder is None:
        return {}, {"options": {}, "metrics": {}}
    tensors, stored = checkpoint.read(folder / CHECKPOINT)
    if not {"options", "metrics", "command", "fingerprint", "step", "seconds", "scaler"} <= stored.keys():
        raise ValueError(f"{folder / CHECKPOINT} holds a model but no run; it can be loaded, not resumed")
    return tensors, stored


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
def stopped_by_ctrl_c(trainer: Trainer) -> Iterator[None]:
    """A context in which Ctrl-C ends the training after the step under way; a second Ctrl-C does not wait."""

    def stop(*_):
        trainer.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.getsignal(signal.SIGINT)
    if trainer.n_processes == 1:  # several would not stop after the same step
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
