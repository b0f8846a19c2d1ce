"""The options of the command: one dataclass, from which the parser and its help follow."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from mixer import data
from mixer.config import CHANNEL_MIXINGS, GELUS, NORMS, TOKEN_MIXINGS, MixerConfig
from mixer.devices import PRECISIONS
from mixer.recipe import OPTIMISERS, RECIPES, Recipe, choose_recipe

BY_DATA_SET = {
    "digits": dict(patch_size=2, n_layers=3, n_channel=48, n_hidden=64, batch_size=64, lr=3e-3, recipe="strong"),
    "mnist": dict(patch_size=2, n_layers=2, n_channel=20, n_hidden=64),
    "cifar10": dict(patch_size=4, n_layers=2, n_channel=20, n_hidden=64),
    "cifar100": dict(patch_size=4, n_layers=6, n_channel=128, n_hidden=128),
    "folder": dict(patch_size=4, n_layers=4, n_channel=64, n_hidden=128),
}


def integer(text: str, low: int, end: int, end_in_words: str) -> int:
    """The integer that a text names, from `low` to below `end`."""
    try:
        if low <= int(text) < end:
            return int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {low} and below {end_in_words}")


def positive_int(text: str) -> int:
    """An integer of at least 1 that torch can hold as a size."""
    return integer(text, 1, 2**31, "2³¹")


def any_seed(text: str) -> int:
    """An integer that torch takes as a seed."""
    return integer(text, 0, 2**63, "2⁶³")


def option(kind: Callable | tuple, help: str, default=None, shown: str | None = None, free: bool = False):
    """A field of `Options`.

    Args:
        kind: reads the option's text; a tuple names all choices, and bool makes a switch.
        help: what it is, without the default.
        default: its value where BY_DATA_SET has none; None leaves it to the recipe or the model.
        shown: the default in words, where the value does not say it.
        free: whether a resumed run may change it.
    """
    return field(default=default, metadata=dict(kind=kind, help=help, shown=shown, free=free))


SHUFFLING = "one fixed new order for the patches and the pixels in them, or all pixels"


def reads_as(kind: Callable | tuple, value: object) -> bool:
    """Whether an option of this kind can have a value; one that was read from a file may be anything."""
    if isinstance(kind, tuple):
        return value in kind
    if kind is bool:
        return type(value) is bool
    try:
        return kind(str(value)) == value or (kind is float and value != value)  # the recipe refuses nan
    except (ValueError, argparse.ArgumentTypeError):
        return False


@dataclass
class Options:
    """What a run was told, by the names of the command's options."""

    dataset: str = option(data.NAMES, "what to train on", "digits")
    data_dir: str = option(str, "folder of the downloads, or the one that holds train/ and test/", "data", free=True)
    image_size: int = option(positive_int, "side in pixels to which the images of folder are resized", shown="32")
    background: str = option(str, "colour behind transparent pixels of folder", shown="white")
    n_train: int = option(positive_int, "training images to learn from, the first of them", shown="all")
    patch_size: int = option(positive_int, "side of a patch in pixels")
    n_layers: int = option(positive_int, "mixer layers")
    n_channel: int = option(positive_int, "features per token")
    n_hidden: int = option(positive_int, "hidden units of each MLP")
    n_hidden_token: int = option(positive_int, "hidden units of the token-mixing MLPs", shown="n_hidden")
    n_hidden_channel: int = option(positive_int, "hidden units of the channel-mixing MLPs", shown="n_hidden")
    norm: str = option(NORMS, "axes of LayerNorm", NORMS[0], f"{NORMS[0]}; the paper's is {NORMS[1]}")
    gelu: str = option(GELUS, "exact GELU or its tanh approximation", GELUS[0])
    token_mixing: str = option(TOKEN_MIXINGS, "how tokens are mixed; the API reference explains each", "mlp")
    channel_mixing: str = option(CHANNEL_MIXINGS, "how the channels of each token are mixed, or not", "mlp")
    shuffle: str = option(data.SHUFFLES, SHUFFLING, "none")
    recipe: str = option(tuple(RECIPES), "how to train", "seed", "digits strong, otherwise seed: Adam at one rate")
    n_epochs: int = option(positive_int, "passes over the training images", shown="20", free=True)
    batch_size: int = option(positive_int, "images per step")
    optimiser: str = option(tuple(OPTIMISERS), "AdamW, or plain descent, of all that Muon does not train", shown="adam")
    lr: float = option(float, "highest learning rate, per step")
    warm_up: float = option(float, "share of the steps with a rising rate, before half a cosine", shown="by recipe")
    weight_decay: float = option(float, "decay of the weights, as in AdamW", shown="by recipe")
    label_smoothing: float = option(float, "share of the target spread over all classes", shown="by recipe")
    affine: float = option(float, "how far digits are turned, scaled and shifted at random", shown="by recipe")
    cutmix: float = option(float, "share of the batches that CutMix changes", shown="0; for long runs")
    drop_path: float = option(float, "chance to skip the last block, stochastic depth", shown="0; for long runs")
    random_augment: bool = option(bool, "change the images by RandAugment too", shown="no; for long runs")
    seed: int = option(any_seed, "of the initial weights, the order of images and their augmentation", 1)
    device: str = option(str, "auto, cpu, cuda, cuda:1 … or mps", "auto", "auto, the fastest there is", free=True)
    precision: str = option(("auto", *PRECISIONS), "of matrix products", "auto", "auto, by device", free=True)
    num_threads: int = option(positive_int, "threads on the CPU", shown="as many as torch chooses", free=True)
    compile: bool = option(bool, "let torch.compile translate the model: slow to start, then faster", False, free=True)
    tensorboard: bool = option(bool, "also write the history for TensorBoard into the run's folder", False, free=True)

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not reads_as(one.metadata["kind"], value):
                raise ValueError(f"--{one.name} is {value!r}, which it cannot be; --help says what it can be")

    def named(self, owner: Callable) -> dict:
        """The options that are arguments of a model or a recipe and have a value."""
        names = inspect.signature(owner).parameters
        return {name: value for name, value in vars(self).items() if name in names and value is not None}

    def make_recipe(self) -> Recipe:
        """The recipe with what these options change in it, which they then name in full."""
        recipe = choose_recipe(self.recipe, **self.named(Recipe))
        for name in vars(self).keys() & vars(recipe).keys():
            setattr(self, name, getattr(recipe, name))
        return recipe

    def sizes(self, image_shape: tuple[int, int, int], n_output: int) -> dict:
        """The arguments of the model for images [C_in, H, W] of n_output classes."""
        C, H, W = image_shape
        return {**self.named(MixerConfig), "n_output": n_output, "image_size": (H, W), "n_image_channel": C}


def default_of(one: "field") -> str:
    """The default of an option, for its help."""
    by_data_set = {dataset: values[one.name] for dataset, values in BY_DATA_SET.items() if one.name in values}
    found = ", ".join(f"{dataset} {value}" for dataset, value in by_data_set.items())
    by_recipe = {name: getattr(recipe, one.name, None) for name, recipe in RECIPES.items()}
    said_by_recipe = "by recipe: " + ", ".join(
        f"{name} {'none' if value is None else value}" for name, value in by_recipe.items()
    )
    if one.metadata["shown"] == "by recipe":
        return said_by_recipe
    if one.metadata["shown"] or not found:
        return one.metadata["shown"] or ("no" if one.metadata["kind"] is bool else str(one.default))
    if len(by_data_set) == len(BY_DATA_SET):
        return found
    if len(set(by_recipe.values())) == 1:
        return f"{found}, otherwise {by_recipe['seed']}"
    return f"{found}, otherwise {said_by_recipe}"


class OneSentenceParser(argparse.ArgumentParser):
    """A parser that answers a bad option with one sentence."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {one_line(message)}; --help lists the options\n")


def one_line(message: object) -> str:
    """What an error says, in one line, also where it quotes an option that has several."""
    return " ".join(str(message).splitlines())


def make_parser() -> argparse.ArgumentParser:
    """The options; one that is not given stays absent, so that a resumed run can tell it from a default."""
    parser = OneSentenceParser(
        prog="train.py",
        description="Train an MLP-Mixer. Without options: on the handwritten digits of scikit-learn, in seconds.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for one in fields(Options):
        kind = one.metadata["kind"]
        reading = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
        if kind is bool:  # a run that is resumed where --compile cannot work can do without it
            reading = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{one.name}", help=f"{one.metadata['help']} (default: {default_of(one)})", **reading)
    folder = "folder of the run (default: runs/DATASET, or the next free runs/DATASET-2 …)"
    parser.add_argument("--out", help=folder)
    resume = "continue the run in FOLDER, or if none is named that of out, with the options it was started with"
    parser.add_argument("--resume", nargs="?", const="", metavar="FOLDER", help=resume)
    return parser


def resolve(given: dict, stored: dict) -> Options:
    """All options of a run: those given, then those of the run to resume, then the defaults.

    Raises:
        ValueError: an option contradicts the run to resume.
    """
    free = {one.name for one in fields(Options) if one.metadata["free"]}
    if stored:  # a run that does not name a way of mixing or an optimiser is from before there were others
        stored = dict(token_mixing="mlp", channel_mixing="mlp", optimiser="adam") | stored
    if unknown := stored.keys() - {one.name for one in fields(Options)}:
        raise ValueError(f"the run to resume has options that are not known here: {', '.join(sorted(unknown))}")
    Options(**stored)  # each is a value that it can be
    for name, value in given.items():
        lowered = name == "lr" and name in stored and value < stored[name]  # as a run that diverged needs it
        if name in stored and name not in free and stored[name] != value and not lowered:
            raise ValueError(
                f"--{name} is {value}, but the run to resume has {stored[name]}; leave it out or start a new run"
            )
    known = {name: value for name, value in {**stored, **given}.items() if value is not None}
    if given.get("affine") and known.get("dataset") in data.PHOTOGRAPHS:
        raise ValueError("--affine turns digits, and photographs are cropped and mirrored in its place; leave it out")
    return Options(**{**BY_DATA_SET.get(known.get("dataset", "digits"), {}), **known})
