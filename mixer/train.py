"""The command `python train.py`: train a Mixer on a data set and leave a checkpoint and a history.

`torchrun --nproc-per-node 2 train.py …` trains in two processes, each with its own GPU or its own share of the CPU.
"""

import argparse
import itertools
import json
import os
import platform
import shlex
import signal
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from mixer import checkpoint, data
from mixer.model import GELUS, NORMS, MLPMixer
from mixer.training import (
    PRECISIONS,
    RECIPES,
    Trainer,
    choose_device,
    choose_recipe,
    evaluate,
    memory_of,
    rank_and_count,
)

CHECKPOINT, HISTORY = "checkpoint.safetensors", "history.jsonl"
COMMON = dict(dataset="digits", norm=NORMS[0], gelu=GELUS[0], seed=1, recipe="seed", device="auto", precision="auto")
COMMON |= dict(shuffle="none", n_hidden_token=None, n_hidden_channel=None)
PLACE = dict(data_dir="data", image_size=None, num_threads=None, compile=False, tensorboard=False)
BY_DATA_SET = {
    "digits": dict(patch_size=2, n_layers=3, n_channel=48, n_hidden=64, batch_size=64, n_epochs=30, lr=3e-3),
    "mnist": dict(patch_size=2, n_layers=2, n_channel=20, n_hidden=64),
    "cifar10": dict(patch_size=4, n_layers=2, n_channel=20, n_hidden=64),
    "cifar100": dict(patch_size=4, n_layers=6, n_channel=128, n_hidden=128),
    "folder": dict(patch_size=4, n_layers=4, n_channel=64, n_hidden=128),
}
MODEL_OPTIONS = (
    "n_layers",
    "n_channel",
    "n_hidden",
    "n_hidden_token",
    "n_hidden_channel",
    "patch_size",
    "norm",
    "gelu",
)
RECIPE_OPTIONS = ("n_epochs", "batch_size", "lr", "cutmix", "drop_path", "random_augment")
FREE_ON_RESUME = ("n_epochs", "device", "precision", "data_dir", "num_threads", "compile", "tensorboard")
N_SNAPSHOTS = 12  # of the token-mixing weights, kept in every run


def one_line(message: object) -> str:
    """What an error says, in one line, also where it quotes an option that has several."""
    return " ".join(str(message).splitlines())


class OneSentenceParser(argparse.ArgumentParser):
    """A parser that answers a bad option with one sentence."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {one_line(message)}; --help lists the options\n")


def whole(text: str) -> int:
    """A whole number of at least 1 that torch can hold as a size."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1 and below 2³¹")
    return number


def any_seed(text: str) -> int:
    """A whole number that torch takes as a seed."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0 and below 2⁶³")
    return number


def by_data_set(option: str) -> str:
    """The defaults of an option, for its help."""
    return ", ".join(f"{name} {defaults[option]}" for name, defaults in BY_DATA_SET.items())


def make_parser() -> argparse.ArgumentParser:
    """The options; one that is not given stays absent, so that a resumed run can tell it from a default."""
    parser = OneSentenceParser(
        prog="train.py",
        description="Train an MLP-Mixer. Without options: on the handwritten digits of scikit-learn, in seconds.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset", choices=data.NAMES, help="what to train on (default: digits)")
    add("--data_dir", help="folder of the downloads, or for folder the one that holds train/ and test/ (default: data)")
    add("--image_size", type=whole, help="side in pixels to which the images of folder are resized (default: 32)")
    add("--patch_size", type=whole, help=f"side of a patch in pixels (default: {by_data_set('patch_size')})")
    add("--n_layers", type=whole, help=f"mixer layers (default: {by_data_set('n_layers')})")
    add("--n_channel", type=whole, help=f"features per token (default: {by_data_set('n_channel')})")
    add("--n_hidden", type=whole, help=f"hidden units of each MLP (default: {by_data_set('n_hidden')})")
    add("--n_hidden_token", type=whole, help="hidden units of the token-mixing MLPs (default: n_hidden)")
    add("--n_hidden_channel", type=whole, help="hidden units of the channel-mixing MLPs (default: n_hidden)")
    add("--norm", choices=NORMS, help="axes of LayerNorm (default: tokens_channels; the paper's is channels)")
    add("--gelu", choices=GELUS, help="exact GELU or its tanh approximation (default: erf)")
    shuffles = "the patches and the pixels in them, or all pixels"
    add("--shuffle", choices=data.SHUFFLES, help=f"one fixed new order for {shuffles} (default: none)")
    add("--recipe", choices=RECIPES, help="how to train (default: seed, which is Adam at a constant rate)")
    epochs = f"digits {BY_DATA_SET['digits']['n_epochs']}, otherwise {RECIPES['seed'].n_epochs}"
    add("--n_epochs", type=whole, help=f"passes over the training images (default: {epochs})")
    batch = ", ".join(f"{name} {recipe.batch_size}" for name, recipe in RECIPES.items())
    batch = f"digits {BY_DATA_SET['digits']['batch_size']}, otherwise by recipe: {batch}"
    add("--batch_size", type=whole, help=f"images per step (default: {batch})")
    rates = ", ".join(f"{name} {recipe.lr}" for name, recipe in RECIPES.items())
    rates = f"digits {BY_DATA_SET['digits']['lr']}, otherwise by recipe: {rates}"
    add("--lr", type=float, help=f"highest learning rate, per step (default: {rates})")
    add("--cutmix", type=float, help="share of the batches that CutMix changes (default: 0; for long runs)")
    add("--drop_path", type=float, help="chance to skip the last block, stochastic depth (default: 0; for long runs)")
    add("--random_augment", action="store_true", help="change the images by RandAugment too (for long runs)")
    add("--seed", type=any_seed, help="of the initial weights, the order of images and their augmentation (default: 1)")
    add("--device", help="auto, cpu, cuda, cuda:1 … or mps (default: auto, the fastest there is)")
    add("--precision", choices=["auto", *PRECISIONS], help="of matrix products (default: auto, by device)")
    add("--num_threads", type=whole, help="threads on the CPU (default: as many as torch chooses)")
    switch = argparse.BooleanOptionalAction  # a run that is resumed where one of them cannot work can do without it
    add("--compile", action=switch, help="let torch.compile translate the model: slow to start, then faster")
    add("--tensorboard", action=switch, help="also write the history for TensorBoard, into the folder of the run")
    add("--out", help="folder of the run (default: runs/DATASET, or the next free runs/DATASET-2 …)")
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="continue the run in FOLDER, or without a name in that of --out, with the options it was started with",
    )
    return parser


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


def resolve(given: dict, stored: dict) -> dict:
    """All options of a run: those given, then those of the run to resume, then the defaults.

    Raises:
        ValueError: an option contradicts the run to resume.
    """
    for name, value in given.items():
        if name in stored and name not in FREE_ON_RESUME and stored[name] != value:
            raise ValueError(
                f"--{name} is {value}, but the run to resume has {stored[name]}; leave it out or start a new run"
            )
    options = {**COMMON, **PLACE, **stored, **given}
    return {**BY_DATA_SET[options["dataset"]], **options}


def check_memory(sizes: dict, batch_size: int, device: torch.device) -> None:
    """Raise ValueError if a training step needs more memory than the device has.

    A lower bound in float32: every parameter with its gradient and Adam's two means, and of every layer what its
    backward pass needs.
    """
    with torch.device("meta"):  # takes no memory
        model = MLPMixer(**{**sizes, "n_layers": 1})
    n_layers, T, C, config = sizes["n_layers"], model.n_tokens, model.config["n_channel"], model.config
    n_parameters = model.n_parameters + (n_layers - 1) * sum(p.numel() for p in model.layers.parameters())
    kept = 6 * T * C + 2 * C * config["n_hidden_token"] + 2 * T * config["n_hidden_channel"]  # numbers per image
    needed = 4 * (4 * n_parameters + batch_size * n_layers * kept)
    there = memory_of(device)
    if needed > there:
        raise ValueError(
            f"a model of {n_parameters:,} parameters with {batch_size} images per step needs at least "
            f"{needed / 2**30:,.1f} GiB, and {device} has {there / 2**30:,.1f} GiB; choose smaller sizes"
        )


def make_trainer(options: dict, folder: Path | None) -> Trainer:
    """A trainer at its first step, or where the run in `folder` stopped."""
    images = data.load(options["dataset"], options["data_dir"], options["image_size"])
    images = images.shuffled(options["shuffle"], options["patch_size"])
    recipe = choose_recipe(options["recipe"], **{k: options[k] for k in RECIPE_OPTIONS if k in options})
    if folder is None:
        C, H, W = images.image_shape
        sizes = {name: options[name] for name in MODEL_OPTIONS}
        sizes |= dict(n_output=len(images.class_names), image_size=(H, W), n_image_channel=C)
        check_memory(sizes, min(recipe.batch_size, len(images.train)), choose_device(options["device"]))
        torch.manual_seed(options["seed"])
        model = MLPMixer(**sizes)
    else:
        model, metadata = checkpoint.load(folder / CHECKPOINT)
        if images.fingerprint != metadata["fingerprint"]:
            raise ValueError(f"the images in {options['data_dir']} are not those that the run in {folder} began with")
    trainer = Trainer(
        model,
        images,
        recipe,
        options["seed"],
        options["device"],
        options["precision"],
        progress=rank_and_count()[0] == 0,
        compile=options["compile"],
        n_snapshots=N_SNAPSHOTS,
    )
    if folder is not None:
        trainer.load_state(*checkpoint.read(folder / CHECKPOINT))
    return trainer


def save(out: Path, trainer: Trainer, run: dict, metrics: dict) -> None:
    """Write the checkpoint of a run, from which it can be used and resumed.

    `run` holds the command, its options and the fingerprint of the data.
    """
    tensors, numbers = trainer.state()
    images = trainer.data
    about = dict(data_set=images.name, mean=images.mean, std=images.std, class_names=images.class_names)
    about |= {**run, "shuffle": run["options"]["shuffle"], "metrics": metrics}
    about |= {"torch": torch.__version__, "hardware": hardware(trainer)}
    checkpoint.save(out / CHECKPOINT, trainer.model, {**about, **numbers}, tensors)


def hardware(trainer: Trainer) -> str:
    """What a run computes on, in words."""
    if trainer.device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.device)
    else:
        name = f"{os.cpu_count()}-core {platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
        name += f", threads: {torch.get_num_threads()}" if trainer.device.type == "cpu" else f", {trainer.device.type}"
    count = f", processes: {trainer.n_processes}" if trainer.n_processes > 1 else ""
    return f"{name}{count}, {str(trainer.dtype).removeprefix('torch.')}"


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


def read_run(folder: Path | None) -> dict:
    """What the run to resume has stored; for a new run, nothing.

    Raises:
        ValueError: the checkpoint holds a model and no run.
    """
    if folder is None:
        return {"options": {}, "metrics": {}}
    _, stored = checkpoint.read(folder / CHECKPOINT)
    if not {"options", "metrics", "command", "fingerprint", "step", "seconds", "scaler"} <= stored.keys():
        raise ValueError(f"{folder / CHECKPOINT} holds a model but no run; it can be loaded, not resumed")
    return stored


def describe(record: dict, n_epochs: int) -> str:
    return (
        f"epoch {record['epoch']:3}/{n_epochs}  loss {record['train_loss']:.4f}  "
        f"accuracy {record['train_accuracy']:.1%}  validation {record['validation_accuracy']:.1%}  "
        f"{record['images_per_second']:,.0f} images/s"
    )


def open_tensorboard(out: Path):
    """A writer of TensorBoard's files into a folder.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs a package that is not here; install it (pip install tensorboard), or --no-tensorboard"
        ) from error
    return SummaryWriter(str(out))


def finish(trainer: Trainer, out: Path, run: dict, metrics: dict) -> int:
    """Train to the end, or to Ctrl-C, saving after every epoch; returns the exit status."""

    def stop(*_):
        trainer.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    writer = open_tensorboard(out) if run["options"]["tensorboard"] else None
    before = signal.getsignal(signal.SIGINT)
    if trainer.n_processes == 1:  # several would not stop after the same step
        signal.signal(signal.SIGINT, stop)
    try:
        for metrics in trainer:
            with (out / HISTORY).open("a") as file:
                file.write(json.dumps(metrics) + "\n")
            save(out, trainer, run, metrics)
            tqdm.write(describe(metrics, trainer.recipe.n_epochs))
            for name, value in metrics.items() if writer else ():
                writer.add_scalar(name, value, metrics["epoch"])
        if not trainer.finished:
            save(out, trainer, run, metrics)
            again = shlex.join(["python", "train.py", "--resume", str(out)])
            print(f"stopped in epoch {trainer.epoch + 1}, saved; go on with: {again}")
            return 130
        test = evaluate(trainer.model, trainer.data, trainer.data.test, trainer.dtype)
        metrics = {**metrics, "test_loss": test["loss"], "test_accuracy": test["accuracy"]}
        save(out, trainer, run, metrics)
    finally:
        signal.signal(signal.SIGINT, before)
        if writer:
            writer.close()
    print(f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}; weights in {out / CHECKPOINT}")
    return 0


def train(given: dict, command: str) -> int:
    """Train as the options say; returns the exit status."""
    folder = resume_folder(given)
    stored = read_run(folder)
    options = resolve({k: v for k, v in given.items() if k not in ("out", "resume")}, stored["options"])
    options["device"] = join_processes(options["device"])
    is_first = rank_and_count()[0] == 0
    out = usable(Path(given["out"])) if is_first and folder is None and "out" in given else folder
    if options["num_threads"]:
        torch.set_num_threads(options["num_threads"])

    trainer = make_trainer(options, folder)
    options |= {name: getattr(trainer.recipe, name) for name in RECIPE_OPTIONS}
    if trainer.epoch > options["n_epochs"]:
        raise ValueError(f"--n_epochs is {options['n_epochs']}, but the run has done {trainer.epoch} epochs already")
    if not is_first:
        list(trainer)  # the first process alone writes and prints
        return 0
    history = read_history(out / HISTORY, trainer.epoch) if out else []
    out = out or next_free(options["dataset"])
    images = trainer.data
    sizes = f"{len(images.train):,} training, {len(images.validation):,} validation, {len(images.test):,} test images"
    print(f"{images.name}: {sizes}, {len(images.class_names)} classes")
    print(f"MLPMixer: {trainer.model.extra_repr()}; {hardware(trainer)}; run in {out}", flush=True)

    run = dict(command=stored.get("command", command), options=options, fingerprint=images.fingerprint)
    metrics = {name: value for name, value in stored["metrics"].items() if not name.startswith("test")}
    checkpoint.write_whole(out / HISTORY, "".join(json.dumps(record) + "\n" for record in history).encode())
    if folder is None:
        save(out, trainer, run, metrics)
    return finish(trainer, out, run, metrics)


def join_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns the device of this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    return f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else device


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence about what was wrong, or 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without → or é shows a question mark
    given = vars(make_parser().parse_args(argv))
    try:
        return train(given, shlex.join(["python", "train.py", *argv]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"train.py: {one_line(error)}", file=sys.stderr)
        return 2
    except (MemoryError, torch.OutOfMemoryError):
        print("train.py: there is not enough memory for these sizes; choose smaller ones", file=sys.stderr)
        return 2
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = one_line(getattr(error, "inner_exception", error))
        mend = "leave --compile out, or resume with --no-compile"
        print(f"train.py: torch.compile does not work on this machine ({reason}); {mend}", file=sys.stderr)
        return 2
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
