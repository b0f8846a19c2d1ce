"""MNIST, CIFAR-10 and CIFAR-100 by torchvision: downloaded once, and checked before they are used."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from mixer.devices import make_torchvision_importable

Arrays = tuple[Tensor, Tensor]  # images [N, C_in, H, W] uint8 and labels [N] int64


def fetch(name: str, data_dir: Path) -> tuple[list[Arrays], list[str]]:
    """The training and the test part of a data set, and the names of its classes.

    Raises:
        OSError: a download failed, or a file is damaged.
    """
    make_torchvision_importable()
    from torchvision import datasets

    if name == "mnist":
        raw = data_dir / "MNIST" / "raw"
        archives = {raw / file: md5 for file, md5 in datasets.MNIST.resources}
        _download(name, datasets.MNIST, data_dir, archives, [archive.with_suffix("") for archive in archives])
        return [_mnist(raw, part) for part in ("train", "t10k")], [str(digit) for digit in range(10)]
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    parts = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    files = {data_dir / source.base_folder / file: md5 for file, md5 in parts}
    _download(name, source, data_dir, {data_dir / source.filename: source.tgz_md5}, files)
    try:
        train, test = (source(data_dir, train=is_train) for is_train in (True, False))
    except RuntimeError as error:
        raise _damage(name, _altered(files)[0], "has another MD5 sum than the published file") from error
    return [_cifar(part.data, part.targets) for part in (train, test)], list(train.classes)


def _download(name: str, source: type, data_dir: Path, archives: dict[Path, str], files: list[Path]) -> None:
    """Download a data set unless its files are there; of several processes, one does so and the others wait."""
    lock = data_dir / f".{name}.lock"
    if all(file.is_file() for file in files) and not lock.exists():  # with it, they may be under way
        return
    altered = _altered(archives)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(lock), _unpacked_inside():
            if not all(file.is_file() for file in files):
                source(data_dir, download=True)
    except tarfile.TarError as error:
        raise _damage(name, next(iter(archives)), f"cannot be unpacked: {error}") from error
    except Exception as error:  # torchvision raises many kinds, for a network that fails and for damaged files
        if all(file.is_file() for file in files):
            return  # in a folder that is read-only, or some are damaged, which is said when they are read
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        reason = f"{altered[0]} is damaged, {reason}" if altered else reason
        raise OSError(
            f"{name} is not in {data_dir} and its download failed ({reason}); check the network, name the folder that "
            f"has it with data_dir, or use the data set digits, which needs no download"
        ) from error


@contextmanager
def _unpacked_inside() -> Iterator[None]:
    """Refuse what an archive would unpack outside its folder, as Python does by itself from 3.14 on.

    Python 3.11.0 to 3.11.3 cannot; there torchvision's comparison of the archive's MD5 sum has to do.
    """
    if not hasattr(tarfile, "data_filter"):
        yield
        return
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


def _altered(files: dict[Path, str]) -> list[Path]:
    """The files that are there and have another MD5 sum."""
    from torchvision.datasets.utils import check_integrity

    return [file for file, md5 in files.items() if file.is_file() and not check_integrity(file, md5)]


def _damage(name: str, file: Path, reason: str) -> OSError:
    return OSError(f"{name} in {file.parent} is damaged ({file.name} {reason}); delete it to have it downloaded again")


def _cifar(pixels, labels: list[int]) -> Arrays:
    """A part of CIFAR, from pixels [N, H, W, C]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _mnist(raw: Path, part: str) -> Arrays:
    """A part of MNIST, whose unpacked files have no checksum; what they hold is checked instead."""
    files = [raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte"]
    images, labels = (_idx(file, n_dims) for file, n_dims in zip(files, (3, 1), strict=True))
    pixels = images.flatten(1)
    if images.shape[1:] != (28, 28) or (pixels.amin(dim=1) == pixels.amax(dim=1)).any():
        raise _damage("mnist", files[0], "has images that are blank, or not of 28×28 pixels")
    if labels.max() > 9 or labels.min() == labels.max() or len(labels) != len(images):
        found = f"{len(labels)} labels from {labels.min()} to {labels.max()} for {len(images)} images"
        raise _damage("mnist", files[1], f"has {found}; they must be the digits 0 to 9, one for each image")
    return images.unsqueeze(1), labels.long()


def _idx(file: Path, n_dims: int) -> Tensor:
    """A file of MNIST, uint8 with so many dimensions."""
    from torchvision.datasets import mnist

    try:
        numbers = mnist.read_sn3_pascalvincent_tensor(str(file))
    except Exception as error:  # torchvision raises many kinds
        raise _damage("mnist", file, "is cut short, or not of its format") from error
    if numbers.dtype != torch.uint8 or numbers.dim() != n_dims or not len(numbers):
        raise _damage("mnist", file, f"holds {numbers.dtype} {list(numbers.shape)}, not bytes of {n_dims} dimensions")
    return numbers
