"""Images as one uint8 tensor: loading, splitting, batching and normalisation.

`load(name)` gives a `DataSet` with three splits. A split hands out batches of uint8 images, already on the device;
`normalise` and the changes of `mixer.regularisation` then work on whole batches.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixer.config import check_float32
from mixer.downloads import fetch
from mixer.folder import StreamedSplit, open_folder
from mixer.model import ImageToPatches

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
PHOTOGRAPHS = ("cifar10", "cifar100", "folder")  # data sets whose images may be mirrored and cropped
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0  # the same held-out images for every training seed
SHUFFLES = ("none", "patches", "global")
MEMORY_LIMIT = 2 * 1024**3  # bytes of uint8 images; a larger folder streams from disk


@dataclass
class Split:
    """Images [N, C_in, H, W] uint8 in memory, with their labels [N] int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its images and labels on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def at(self, indices: Tensor) -> "Split":
        """The split of the images at `indices` [n], in this order."""
        return Split(self.images[indices], self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels at `indices` [n], in this order, in batches of at most `batch_size`."""
        for index in indices.to(self.labels.device).split(batch_size):
            yield self.images[index], self.labels[index]

    def content(self) -> bytes:
        """All pixels, to detect changed images."""
        return self.images.cpu().numpy().tobytes()


@dataclass
class DataSet:
    """Three splits and their metadata.

    Attributes:
        train, validation, test: the splits; validation is held out of the training images, fixed by SPLIT_SEED.
        class_names: one name per label.
        mean, std: per image channel, of the training images scaled to [0, 1].
        pixel_order: where each pixel that a model sees comes from, [H·W], or None if every pixel stays in its place.
        background: the colour behind transparent pixels, as #rrggbb; None where the images have none.
    """

    name: str
    train: Split | StreamedSplit
    validation: Split | StreamedSplit
    test: Split | StreamedSplit
    class_names: list[str]
    mean: list[float]
    std: list[float]
    image_shape: tuple[int, int, int]
    pixel_order: Tensor | None = None
    background: str | None = None

    def to(self, device: torch.device | str) -> "DataSet":
        """The same data set with its splits on a device."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **splits)

    def shuffled(self, shuffle: str, patch_size: int = 1) -> "DataSet":
        """The same data set with the pixels of every image in another order when they are normalised.

        See `pixel_order` for the orders. The images themselves stay as they are, to be drawn and augmented.
        """
        _, H, W = self.image_shape
        return replace(self, pixel_order=pixel_order(shuffle, (H, W), patch_size))

    def first(self, n_train: int) -> "DataSet":
        """The same data set with its first training images alone; raises ValueError if there are not so many."""
        if isinstance(n_train, float) or n_train not in range(1, len(self.train) + 1):
            there = f"{len(self.train):,}, the number of training images of {self.name}"
            raise ValueError(f"n_train is {n_train}; choose from 1 to {there}")
        return replace(self, train=self.train.at(torch.arange(n_train)))

    @property
    def fingerprint(self) -> str:
        """A hash to detect changed data."""
        facts = [self.name, self.class_names, self.mean, self.std, self.image_shape]
        if self.pixel_order is not None:
            facts.append(self.pixel_order.tolist())
        sha = hashlib.sha256(repr(facts).encode(errors="surrogateescape"))
        for split in (self.train, self.validation, self.test):
            sha.update(split.labels.cpu().numpy().tobytes())
            sha.update(split.content())
        return sha.hexdigest()

    def normalise(self, images: Tensor) -> Tensor:
        """What a model takes: [B, C_in, H, W] uint8 → float32, with mean 0 and standard deviation 1 per channel."""
        return normalise(images, self.mean, self.std, self.pixel_order)


def check_split(split: Split, data: DataSet, model: torch.nn.Module) -> None:
    """Raise ValueError unless a model can learn from a split of a data set, or be tested on it."""
    labels, images = split.labels, getattr(split, "images", None)  # a streamed split reads its images as they must be
    shape = tuple(getattr(model, "image_shape", data.image_shape))
    found = data.image_shape if images is None else images.shape[1:]
    if tuple(found) != shape or (images is not None and images.dtype != torch.uint8):
        kind = "uint8" if images is None else str(images.dtype).removeprefix("torch.")
        raise ValueError(f"the images are {kind} [N, *{list(found)}]; here they must be uint8 [N, *{list(shape)}]")
    n_images = len(split) if images is None else len(images)
    if not 1 <= n_images == len(labels):
        raise ValueError(
            f"a split has {n_images} images and {len(labels)} labels; it needs one label for each, and one image"
        )
    n_class = min(len(data.class_names), getattr(model, "config", {}).get("n_output", len(data.class_names)))
    if labels.dtype != torch.int64 or (
        labels.device.type != "meta" and not 0 <= labels.min() <= labels.max() < n_class
    ):
        span = f"{labels.dtype} from {labels.min().item()} to {labels.max().item()}"
        raise ValueError(f"the labels of a split are {span}; they must be torch.int64 from 0 to {n_class - 1}")
    check_float32(model)


def normalise(images: Tensor, mean: list[float], std: list[float], order: Tensor | None = None) -> Tensor:
    """Scale uint8 images [B, C_in, H, W] to [0, 1], subtract the mean, divide by the standard deviation, reorder.

    `order` is that of `pixel_order`.
    """
    mean = torch.tensor(mean, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    std = torch.tensor(std, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    images = (images.float() / 255 - mean) / std
    return images if order is None else images.flatten(2)[:, :, order.to(images.device)].view_as(images)


def pixel_order(shuffle: str, image_size: tuple[int, int], patch_size: int = 1) -> Tensor | None:
    """One fixed order of the pixels of an image, the same for all images: [H·W] int64, or None for "none".

    "patches" shuffles the patches, and the pixels within each patch alike; "global" shuffles all pixels.
    Source: paper, section 3.4.

    Raises:
        ValueError: the name is unknown, or the image does not divide into patches.
    """
    if shuffle not in SHUFFLES:
        raise ValueError(f"shuffle is {shuffle!r}; choose one of {', '.join(SHUFFLES)}")
    H, W = image_size
    if shuffle == "none":
        return None
    if shuffle == "global":
        return permutation(H * W)
    cut = ImageToPatches(patch_size)
    patches = cut(torch.arange(H * W).view(1, 1, H, W))  # [1, n_tokens, P²]
    _, n_tokens, n_pixels = patches.shape
    patches = patches[:, permutation(n_tokens)][:, :, permutation(n_pixels)]
    return cut.inverse(patches, (H, W)).flatten()


def load(
    name: str = "digits",
    data_dir: str | Path = "data",
    image_size: int | None = None,
    background: str | None = None,
) -> DataSet:
    """Load a data set by name.

    Args:
        name: "digits" (inside scikit-learn, no download), "mnist", "cifar10", "cifar100" (downloaded by torchvision,
            which checks their MD5 sums), or "folder" (your own images, train/<class>/… and test/<class>/…).
        data_dir: where downloads are kept, or the folder that holds train/ and test/.
        image_size: side in pixels to which the images of a folder are resized, 32 if not given.
        background: the colour behind transparent pixels of a folder's images, white if not given.

    Raises:
        ValueError: the name is unknown, or the folder is not laid out as it must be.
        OSError: a download failed, or an image cannot be read.
    """
    if name not in NAMES:
        raise ValueError(f"data set {name!r} is not known; choose one of {', '.join(NAMES)}")
    options = {"image_size": image_size, "background": background}
    options = {option: value for option, value in options.items() if value is not None}
    if name == "folder":
        return _folder(Path(data_dir), **options)
    if options:
        raise ValueError(
            f"{next(iter(options))} applies to the data set folder alone, and this is {name}; leave it out"
        )
    if name == "digits":
        return _digits()
    splits, class_names = fetch(name, Path(data_dir))
    return in_memory(name, *(Split(*split) for split in splits), class_names)


def permutation(n: int) -> Tensor:
    """The numbers below n in an order that is always the same: [n] int64."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))


def held_out(n: int) -> tuple[Tensor, Tensor]:
    """Indices of n training images: those to train on, and those held out for validation."""
    if n < 2:
        raise ValueError(f"there is only {n} training image; it takes at least 2, as one is held out for validation")
    n_validation = max(1, round(n * VALIDATION_SHARE))
    shuffled = permutation(n)
    return shuffled[n_validation:].sort().values, shuffled[:n_validation].sort().values


def in_memory(name: str, train: Split, test: Split, class_names: list[str]) -> DataSet:
    """Hold out the validation images and measure mean and standard deviation on the rest."""
    kept, held = held_out(len(train))
    train, validation = train.at(kept), train.at(held)
    mean, std = mean_and_std(train.images)
    return DataSet(name, train, validation, test, class_names, mean, std, tuple(train.images.shape[1:]))


def mean_and_std(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 images [N, C_in, H, W], scaled to [0, 1], exact in integers."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten().int(), minlength=256).double()
        share /= share.sum()
        mean.append(round((share @ values).item(), 6))
        std.append(round(max(((share @ values**2) - (share @ values) ** 2).item(), 1e-12) ** 0.5, 6))
    return mean, std


def _digits() -> DataSet:
    """The 1,797 handwritten digits of scikit-learn, 8×8 pixels; a fifth of them is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(pixels * 255 / 16).astype(np.uint8)).view(-1, 1, 8, 8)  # grey values 0 to 16
    labels = torch.from_numpy(labels).long()
    shuffled = permutation(len(labels))
    n_test = len(labels) // 5
    test, train = shuffled[:n_test].sort().values, shuffled[n_test:].sort().values
    splits = (Split(images, labels).at(chosen) for chosen in (train, test))
    return in_memory("digits", *splits, [str(digit) for digit in range(10)])


def _folder(path: Path, image_size: int = 32, background: str = "white") -> DataSet:
    """The reader's own images as RGB, cut to squares; those of training in one fixed order that mixes the classes."""
    train, test, class_names = open_folder(path, image_size, background)
    image_size, _ = train.size  # as Python's integer
    if (len(train) + len(test)) * 3 * image_size**2 <= MEMORY_LIMIT:
        images = in_memory("folder", *(Split(part.read_all(), part.labels) for part in (train, test)), class_names)
        mixed = images.train.at(permutation(len(images.train)))
        return replace(images, train=mixed, background=train.background)
    kept, held = held_out(len(train))
    kept = kept[permutation(len(kept))]
    sample = kept[:1000].tolist()  # enough images to measure the mean and standard deviation
    mean, std = mean_and_std(torch.from_numpy(train.read(sample)))
    splits = StreamedSplit(train, kept), StreamedSplit(train, held), StreamedSplit(test, torch.arange(len(test)))
    shape = (3, image_size, image_size)
    return DataSet("folder", *splits, class_names, mean, std, shape, background=train.background)
