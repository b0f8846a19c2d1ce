"""The shipped weights: how each model is trained, and how its finished runs become one file.

`make weights` trains them all anew, or goes on where it was stopped; `python -m mixer.cli.release --data_dir FOLDER
NAME …` does so for some. MNIST is taken from FOLDER, and the JPEG copy of CIFAR-10 from FOLDER/cifar10-jpeg.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mixer import MLPMixer, checkpoint, data
from mixer.cli import main as train
from mixer.cli.folder import CHECKPOINT, HISTORY
from mixer.pretrained import WEIGHTS
from mixer.training import evaluate

SEEDS = (1, 2, 3)
RUNS = Path("runs", "weights")
RECORDED = ("epoch", "validation_loss", "validation_accuracy", "seconds")  # of a run's history, for figures and records


@dataclass(frozen=True)
class Release:
    """How a shipped model is trained.

    Attributes:
        data: the images, in words.
        options: of the command `python train.py`.
        shipped: the seeds whose weights are shipped; all SEEDS are trained, to know the spread.
    """

    data: str
    options: str
    shipped: tuple[int, ...] = (1,)


JPEG_COPY = "CIFAR-10 (JPEG copy: quality 75, chroma subsampled, and so lossy)"
CIFAR = "--dataset folder --data_dir data/cifar10-jpeg --recipe strong --patch_size 4 --n_layers 4 --n_channel 96"
CIFAR += " --n_hidden_token 48 --n_hidden_channel 192 --norm channels --n_epochs 20 --precision fp32"
MNIST = "--dataset mnist --recipe strong --norm channels --n_epochs 20"
RELEASES = {
    "digits": Release(
        "the digits of scikit-learn",
        "--dataset digits --recipe strong --affine 1 --n_epochs 30 --precision fp32",
        SEEDS,
    ),
    "mnist": Release(
        "MNIST",
        f"{MNIST} --weight_decay 0.05 --patch_size 4 --n_layers 4 --n_channel 64 --n_hidden_token 64"
        " --n_hidden_channel 256",
    ),
    "mnist-14x14": Release(
        "MNIST",
        f"{MNIST} --affine 1 --patch_size 2 --n_layers 2 --n_channel 48 --n_hidden_token 40 --n_hidden_channel 96",
    ),
    "cifar10-jpeg": Release(JPEG_COPY, CIFAR),
    "cifar10-jpeg-shuffled": Release(
        f"{JPEG_COPY}, all pixels of every image in one fixed random order", f"{CIFAR} --shuffle global"
    ),
}


def run_folder(name: str, seed: int) -> Path:
    return RUNS / f"{name}-{seed}"


def located(options: str, data_dir: Path) -> list[str]:
    """The options as a list, with the data in another folder than `data`."""
    words = [
        str(data_dir / word.removeprefix("data/")) if word.startswith("data/") else word for word in options.split()
    ]
    return words if "--data_dir" in words else [*words, "--data_dir", str(data_dir)]


def train_run(name: str, options: str, seed: int, data_dir: Path) -> None:
    """Train a model with a seed, by the options of `python train.py`, or go on where the run was stopped.

    Raises:
        RuntimeError: the run did not come to its end; its own sentence was printed before.
    """
    place = ["--out", str(run_folder(name, seed)), "--resume"]
    if train([*located(options, data_dir), "--seed", str(seed), *place]):
        raise RuntimeError(f"the run of {name} with seed {seed} did not finish")


def load_run(name: str, seed: int) -> tuple[MLPMixer, dict]:
    """The model of a finished run, with its weights rounded as they are shipped, and what is stored about the run."""
    model, about = checkpoint.load(run_folder(name, seed) / CHECKPOINT)
    return model.half().float(), about


def measure(name: str, seed: int, images: data.DataSet) -> dict:
    """The accuracies of one finished run, with its weights as they are shipped."""
    model, about = load_run(name, seed)
    shares = {part: evaluate(model, images, getattr(images, part))["accuracy"] for part in ("validation", "test")}
    return {"seed": seed, **{f"{part}_accuracy": share for part, share in shares.items()}, "seconds": about["seconds"]}


def pack(name: str, data_dir: Path) -> None:
    """Write the shipped files of a model from its finished runs."""
    release = RELEASES[name]
    _, about = checkpoint.load(run_folder(name, SEEDS[0]) / CHECKPOINT)
    chosen = about["options"]
    place = data_dir / "cifar10-jpeg" if chosen["dataset"] == "folder" else data_dir
    images = data.load(chosen["dataset"], place).shuffled(chosen["shuffle"], chosen["patch_size"])
    seeds = [measure(name, seed, images) for seed in SEEDS]
    for seed in release.shipped:
        tensors, about = checkpoint.read(run_folder(name, seed) / CHECKPOINT)
        model, _ = checkpoint.load(run_folder(name, seed) / CHECKPOINT)
        kept = ("data_set", "mean", "std", "class_names", "background", "hardware", "torch", "seconds")
        metadata = {key: about[key] for key in kept}
        metadata |= dict(data=release.data, shuffle=chosen["shuffle"], n_epochs=chosen["n_epochs"])
        metadata |= dict(command=f"python train.py {release.options} --seed {seed}", seed=seed, seeds=seeds)
        lines = (run_folder(name, seed) / HISTORY).read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        metadata |= dict(n_parameters=model.n_parameters, history=[{k: r[k] for k in RECORDED} for r in history])
        snapshots = {key: t for key, t in tensors.items() if key.startswith("snapshot.")}
        label = f"{name}-{seed}" if len(release.shipped) > 1 else name
        file = WEIGHTS / f"{label}.safetensors"
        checkpoint.save(file, model.half(), metadata, snapshots)
        print(f"{file}: {file.stat().st_size:,} bytes")


def main(argv: list[str] | None = None) -> int:
    """Train and pack the models that are named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mixer.cli.release", description="Train the shipped weights anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all of {', '.join(RELEASES)})")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets (default: data)")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(RELEASES):
        parser.error(f"{', '.join(sorted(unknown))} is not shipped; choose from {', '.join(RELEASES)}")
    for name in options.names or RELEASES:
        try:
            for seed in SEEDS:
                train_run(name, RELEASES[name].options, seed, options.data_dir)
        except RuntimeError as error:
            print(f"release: {error}", file=sys.stderr)
            return 2
        pack(name, options.data_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
