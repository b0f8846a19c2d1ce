"""Images as one uint8 tensor: loading, splitting, batching and augmentation.

`load(name)` gives a `DataSet` with three splits. A split hands out batches of uint8 images, already on the device;
`augment` and `normalise` then work on whole batches.
"""

import hashlib
import importlib.util
import math
import signal
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, library
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from mixer.model import ImageToPatches

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
PHOTOGRAPHS = ("cifar10", "cifar100", "folder")  # mirrored, a horse is a horse; a digit is not
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0  # the same held-out images for every training seed
SHUFFLES = ("none", "patches", "global")
MEMORY_LIMIT = 2 * 1024**3  # bytes of uint8 images; a larger folder streams from disk
WORKER_START = "fork" if sys.platform == "linux" else None  # what Python 3.14 prefers imports torch anew in each worker


def _declare_torchvision_operators() -> None:
    """Make torchvision importable beside a CPU-only torch.

    The torchvision wheel on PyPI is compiled for CUDA. Beside a CPU build of torch its operators do not load, and its
    import fails because `nms` is missing, although data sets and transforms need no such operator. Declaring the two
    names is enough. Where the operators load, this declares nothing.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or hasattr(torch.ops.torchvision, "nms"):
        return
    for compiled in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(compiled)
            return
        except OSError:
            pass
    for name in ("nms", "qnms"):
        library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declare_torchvision_operators()


@dataclass
class Split:
    """Images [N, C, H, W] uint8 in memory, with their labels [N] int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its images and labels on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels at `indices` [n], in this order, in batches of at most `batch_size`."""
        for index in indices.to(self.labels.device).split(batch_size):
            yield self.images[index], self.labels[index]


@dataclass
class StreamedSplit:
    """A split too large for memory: files on disk, decoded by worker processes while the model trains.

    `files` is an ImageFolder whose items are (uint8 image [C, H, W], label); `indices` chooses among them.
    """

    files: Dataset
    indices: Tensor
    device: torch.device | str = "cpu"
    n_workers: int = 2

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """The labels [N] int64, known without decoding an image."""
        return torch.tensor(self.files.targets, device=self.device)[self.indices]

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """The same split with its batches delivered to a device."""
        return StreamedSplit(self.files, self.indices, device, self.n_workers)

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels at `indices` [n], in this order, in batches of at most `batch_size`."""
        chosen = [batch.tolist() for batch in self.indices[indices.cpu()].split(batch_size)]
        loader = DataLoader(
            self.files,
            batch_sampler=chosen,
            num_workers=self.n_workers,
            worker_init_fn=_ignore_interrupt,
            multiprocessing_context=WORKER_START if self.n_workers else None,
        )
        try:
            for images, labels in loader:
                yield images.to(self.device), labels.to(self.device)
        except OSError as error:  # from a worker it comes with the worker's traceback in front
            raise OSError(str(error).strip().splitlines()[-1].removeprefix("OSError: ")) from None


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the process that trains, which still needs its workers to finish the step under way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass
class DataSet:
    """Three splits and what one must know to use them.

    Attributes:
        train, validation, test: the splits; validation is held out of the training images, fixed by SPLIT_SEED.
        class_names: one name per label.
        mean, std: per image channel, of the training images scaled to [0, 1].
        pixel_order: where each pixel that a model sees comes from, [H·W], or None if every pixel stays in its place.
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

    @property
    def fingerprint(self) -> str:
        """A short text that differs when the images or labels do, by which a resumed run knows its data again."""
        facts = [self.name, self.class_names, self.mean, self.std, self.image_shape]
        if self.pixel_order is not None:
            facts.append(self.pixel_order.tolist())
        sha = hashlib.sha256(repr(facts).encode(errors="surrogateescape"))
        for split in (self.train, self.validation, self.test):
            sha.update(split.labels.cpu().numpy().tobytes())
            if isinstance(split, Split):
                sha.update(split.images.cpu().numpy().tobytes())
        return sha.hexdigest()

    def normalise(self, images: Tensor) -> Tensor:
        """What a model takes: [B, C, H, W] uint8 → float32, with mean 0 and standard deviation 1 per channel."""
        images = normalise(images, self.mean, self.std)
        if self.pixel_order is None:
            return images
        return images.flatten(2)[:, :, self.pixel_order.to(images.device)].view_as(images)


def normalise(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """Scale uint8 images [B, C, H, W] to [0, 1], subtract the mean and divide by the standard deviation."""
    mean = torch.tensor(mean, device=images.device).view(-1, 1, 1)
    std = torch.tensor(std, device=images.device).view(-1, 1, 1)
    return (images.float() / 255 - mean) / std


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
        return _permutation(H * W)
    cut = ImageToPatches(patch_size)
    patches = cut(torch.arange(H * W).view(1, 1, H, W))  # [1, n_tokens, P²]
    _, n_tokens, n_pixels = patches.shape
    patches = patches[:, _permutation(n_tokens)][:, :, _permutation(n_pixels)]
    return cut.inverse(patches, (H, W)).flatten()


def augment(
    images: Tensor,
    generator: torch.Generator,
    padding: int = 0,
    flip: bool = False,
    affine: float = 0.0,
) -> Tensor:
    """Change each image of a batch a little, at random: crop, mirror, and turn.

    Shapes: [B, C, H, W] → the same; uint8, or with `affine` float32 of the same scale.

    Args:
        images: uint8 images.
        generator: where the random numbers come from, on the CPU.
        padding: pixels by which the edge is repeated on each side, before a piece of the old size is cut out.
        flip: whether to mirror half of the images.
        affine: 1 turns by up to 15°, scales by up to 15 %, shears by up to 0.2 and shifts by up to a tenth of the
            image; other numbers do so in proportion, and 0 not at all.
    """
    B, C, H, W = images.shape
    device = images.device
    down, right = torch.randint(0, 2 * padding + 1, (2, B, 1), generator=generator).to(device) - padding
    rows = (torch.arange(H, device=device) + down).clamp(0, H - 1)  # [B, H]
    columns = (torch.arange(W, device=device) + right).clamp(0, W - 1)  # [B, W]
    if flip:
        mirrored = (torch.rand(B, 1, generator=generator) < 0.5).to(device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(B, device=device).view(B, 1, 1, 1)
    channel = torch.arange(C, device=device).view(1, C, 1, 1)
    images = images[image, channel, rows.view(B, 1, H, 1), columns.view(B, 1, 1, W)]
    if not affine:
        return images
    angle, scale, shear, *shift = affine * (2 * torch.rand(5, B, generator=generator) - 1)
    angle, scale = math.radians(15) * angle, 1 + 0.15 * scale
    across = torch.stack([angle.cos() * scale, shear * 0.2 - angle.sin() * scale, 0.2 * shift[0]], dim=1)
    downwards = torch.stack([angle.sin() * scale, angle.cos() * scale, 0.2 * shift[1]], dim=1)
    maps = torch.stack([across, downwards], dim=1).to(device)  # [B, 2, 3], on coordinates from -1 to 1
    places = F.affine_grid(maps, images.shape, align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)


def random_augment(images: Tensor) -> Tensor:
    """RandAugment by torchvision (two random changes of colour or shape), drawn anew for every eighth of a batch.

    Shapes: [B, C, H, W] uint8 → the same. The random numbers are those of torch's default generator.
    """
    from torchvision.transforms import v2

    change = v2.RandAugment(num_ops=2, magnitude=9, fill=128)
    return torch.cat([change(part) for part in images.chunk(8)])


def cutmix(images: Tensor, labels: Tensor, n_class: int) -> tuple[Tensor, Tensor]:
    """CutMix by torchvision: a box of each image is replaced by another image's, and the targets in proportion.

    Shapes: [B, C, H, W], [B] → [B, C, H, W], [B, n_class]. The random numbers are those of torch's default generator.
    """
    from torchvision.transforms import v2

    return v2.CutMix(num_classes=n_class)(images, labels)


def load(name: str = "digits", data_dir: str | Path = "data", image_size: int | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        name: "digits" (inside scikit-learn, no download), "mnist", "cifar10", "cifar100" (downloaded by torchvision,
            which checks their MD5 sums), or "folder" (your own images, train/<class>/… and test/<class>/…).
        data_dir: where downloads are kept, or the folder that holds train/ and test/.
        image_size: side in pixels to which the images of a folder are resized, 32 if not given.

    Raises:
        ValueError: the name is unknown, or the folder is not laid out as it must be.
        OSError: a download failed, or an image cannot be read.
    """
    if name not in NAMES:
        raise ValueError(f"data set {name!r} is not known; choose one of {', '.join(NAMES)}")
    if image_size is not None and name != "folder":
        raise ValueError(f"image_size applies to the data set folder alone, and {name} has its own; leave it out")
    if name == "digits":
        return _digits()
    if name == "folder":
        return _folder(Path(data_dir), 32 if image_size is None else image_size)
    return _torchvision(name, Path(data_dir))


def _permutation(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))


def _held_out(n: int) -> tuple[Tensor, Tensor]:
    """Indices of n training images: those to train on, and those held out for validation."""
    if n < 2:
        raise ValueError(f"there is only {n} training image; it takes at least 2, as one is held out for validation")
    n_validation = max(1, round(n * VALIDATION_SHARE))
    shuffled = _permutation(n)
    return shuffled[n_validation:].sort().values, shuffled[:n_validation].sort().values


def _in_memory(name: str, train: Split, test: Split, class_names: list[str]) -> DataSet:
    """Hold out the validation images and measure mean and standard deviation on the rest."""
    kept, held = _held_out(len(train))
    validation = Split(train.images[held], train.labels[held])
    train = Split(train.images[kept], train.labels[kept])
    mean, std = _mean_and_std(train.images)
    return DataSet(name, train, validation, test, class_names, mean, std, tuple(train.images.shape[1:]))


def _mean_and_std(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 images [N, C, H, W], scaled to [0, 1], exact in integers."""
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
    shuffled = _permutation(len(labels))
    n_test = len(labels) // 5
    test, train = shuffled[:n_test].sort().values, shuffled[n_test:].sort().values
    splits = (Split(images[chosen], labels[chosen]) for chosen in (train, test))
    return _in_memory("digits", *splits, [str(digit) for digit in range(10)])


@contextmanager
def _unpacked_inside() -> Iterator[None]:
    """Refuse what an archive would unpack outside its folder, as Python does by itself from 3.14 on."""
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


def _torchvision(name: str, data_dir: Path) -> DataSet:
    """MNIST, CIFAR-10 or CIFAR-100 by torchvision, downloaded into `data_dir` if they are not there."""
    from torchvision import datasets

    source = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    splits = []
    for is_train in (True, False):
        try:
            with _unpacked_inside():
                part = source(data_dir, train=is_train, download=True)
        except Exception as error:  # torchvision raises many kinds, for a network that fails and for damaged files
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if isinstance(error, OSError) or "download" in reason or "not found" in reason:
                raise OSError(
                    f"{name} is not in {data_dir} and its download failed ({reason}); "
                    f"check the network, name the folder that has it with data_dir, or use the data set digits, "
                    f"which needs no download"
                ) from error
            raise OSError(
                f"{name} in {data_dir} is damaged ({reason}); delete it to have it downloaded again"
            ) from error
        images = torch.as_tensor(part.data)  # [N, H, W] or [N, H, W, C]
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        splits.append(Split(images, torch.as_tensor(part.targets)))
        if len(images) != len(splits[-1]):
            raise OSError(f"{name} in {data_dir} is damaged: it has {len(images)} images and {len(splits[-1])} labels")
    class_names = [str(digit) for digit in range(10)] if name == "mnist" else list(part.classes)
    return _in_memory(name, *splits, class_names)


def _read_image(file: str, image_size: int) -> Tensor:
    """One image file as a uint8 tensor [3, image_size, image_size]."""
    try:
        image = ImageOps.exif_transpose(Image.open(file))
        if image.mode.startswith("I"):  # 16 bits per pixel
            image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
        image = image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(
            f"{file} cannot be read as an image ({reason}); repair it or take it out of the folder"
        ) from error
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _image_folder(path: Path, image_size: int) -> Dataset:
    """The ImageFolder at a path; its items are (uint8 image [3, image_size, image_size], label)."""
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(path, loader=partial(_read_image, image_size=image_size))
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0].split(". Supported")[0]
        raise ValueError(
            f"{path} is not a folder with one sub-folder of images per class ({reason}); a data set of your own is "
            f"laid out as train/<class>/… and test/<class>/…, and data_dir names the folder that holds train and test"
        ) from error


def _folder(path: Path, image_size: int) -> DataSet:
    """Images of the reader's own, as RGB, the shorter side resized to `image_size` and the middle cropped."""
    if not isinstance(image_size, int) or not 1 <= image_size <= 4096:
        raise ValueError(f"image_size is {image_size}; it must be a whole number of pixels from 1 to 4096")
    train, test = (_image_folder(path / part, image_size) for part in ("train", "test"))
    if train.classes != test.classes:
        differing = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise ValueError(f"train and test in {path} do not have the same classes; they differ in {differing}")
    if (len(train) + len(test)) * 3 * image_size**2 <= MEMORY_LIMIT:
        return _in_memory("folder", _decode(train), _decode(test), train.classes)
    kept, held = _held_out(len(train))
    sample = kept[_permutation(len(kept))[:1000]]  # enough images to measure the mean and standard deviation
    mean, std = _mean_and_std(torch.stack([train[i][0] for i in sample.tolist()]))
    splits = StreamedSplit(train, kept), StreamedSplit(train, held), StreamedSplit(test, torch.arange(len(test)))
    return DataSet("folder", *splits, train.classes, mean, std, (3, image_size, image_size))


def _decode(files: Dataset) -> Split:
    """Read a whole ImageFolder into memory."""
    images = torch.empty(len(files), *files[0][0].shape, dtype=torch.uint8)
    for i, (image, _) in enumerate(tqdm(files, desc="reading images", delay=1, leave=False)):
        images[i] = image
    return Split(images, torch.tensor(files.targets))
