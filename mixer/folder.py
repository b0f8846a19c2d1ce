"""Folders of the reader's own images: found, read into memory, or streamed from the disk."""

import operator
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from mixer.picture import colour, read_image

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
JUNK = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin")
END_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGTERM") if hasattr(signal, name)
]  # Windows lacks one
WORKER_START = "fork" if sys.platform == "linux" else None  # what Python 3.14 prefers imports torch anew in each worker


class ImageFiles:
    """Image files with a label [N] int64 each, by class in the order of the classes' names, and how they are read."""

    def __init__(self, root: Path, classes: dict[str, list[Path]], image_size: int, background: str):
        self.root, self.size, self.background = root, (image_size, image_size), background
        self.files = [file for files in classes.values() for file in files]
        self.labels = torch.tensor([label for label, files in enumerate(classes.values()) for _ in files])

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: list[int]) -> np.ndarray:
        """The images at `indices`, uint8 [B, 3, image_size, image_size]."""
        return np.stack([read_image(self.files[i], self.size, self.background) for i in indices])

    def read_all(self) -> Tensor:
        """All of them, uint8 [N, 3, image_size, image_size]."""
        images = torch.empty(len(self), 3, *self.size, dtype=torch.uint8)
        for i in tqdm(range(len(images)), desc="reading images", delay=1, leave=False):
            images[i] = torch.from_numpy(self.read([i])[0])
        return images


@dataclass
class StreamedSplit:
    """A split too large for memory: the files at `indices`, read by worker processes while the model trains."""

    files: ImageFiles
    indices: Tensor
    device: torch.device | str = "cpu"
    n_workers: int = 2

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """The labels [N] int64, known without reading an image."""
        return self.files.labels[self.indices].to(self.device)

    def content(self) -> bytes:
        """The name and size of every file, to detect changed images; the place of the folder may change."""
        paths = [self.files.files[i] for i in self.indices.tolist()]
        return repr([(str(path.relative_to(self.files.root)), path.stat().st_size) for path in paths]).encode()

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """The same split with its batches delivered to a device."""
        return replace(self, device=device)

    def at(self, indices: Tensor) -> "StreamedSplit":
        """The split of the images at `indices` [n], in this order."""
        return replace(self, indices=self.indices[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels at `indices` [n], in this order, in batches of at most `batch_size`.

        Raises:
            OSError: an image cannot be read, or a worker process has ended.
        """
        chosen = [batch.tolist() for batch in self.indices[indices.cpu()].split(batch_size)]
        workers = dict(num_workers=self.n_workers, worker_init_fn=_ignore_signals, generator=torch.Generator())
        workers |= dict(multiprocessing_context=WORKER_START if self.n_workers else None)
        batches = _received(DataLoader(chosen, batch_size=None, collate_fn=self._read, **workers))
        for batch in chosen:
            try:
                images = next(batches)
            except RuntimeError as error:
                raise OSError(
                    f"a process that reads the images in {self.files.root} has ended, perhaps for lack of memory; "
                    f"close other programs, or choose a smaller batch_size or image_size"
                ) from error
            if isinstance(images, OSError):
                raise images
            yield torch.from_numpy(images).to(self.device), self.files.labels[batch].to(self.device)

    def _read(self, indices: list[int]) -> np.ndarray | OSError:
        """What a worker sends: an array, which needs no shared memory, or an error, which raised is a traceback."""
        try:
            return self.files.read(indices)
        except OSError as error:
            return error


def _received(loader: DataLoader) -> Iterator[np.ndarray | OSError]:
    """What the workers of a loader send.

    torch's handler of SIGCHLD, which raises at any line of this process, is taken out again. In its place the workers
    are looked at before each batch: half a batch of one that was killed would be waited for without end. Workers that
    are not forked import torch for seconds before `_ignore_signals` runs, and inherit that signals are ignored.

    Raises:
        RuntimeError: a worker has ended.
    """
    ignored = [] if WORKER_START == "fork" else END_SIGNALS
    changed = ignored + [signal.SIGCHLD] * hasattr(signal, "SIGCHLD")  # Windows has none
    before = {number: signal.getsignal(number) for number in changed} if current_thread() is main_thread() else {}
    try:
        for number in before.keys() & set(ignored):
            signal.signal(number, signal.SIG_IGN)
        batches = iter(loader)
    finally:
        for number, handler in before.items():
            if handler is not None:  # as of a handler that is not Python's
                signal.signal(number, handler)
    workers = getattr(batches, "_workers", [])  # of a loader that reads in this process there are none
    Finalize(batches, lambda: [worker.kill() for worker in workers], exitpriority=0)  # Python's end waits for them
    while all(worker.is_alive() for worker in workers):
        yield next(batches)
    raise RuntimeError("a worker has ended")


def _ignore_signals(worker: int) -> None:
    """Leave what ends a run or its terminal to the process that trains, which still needs its workers."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def open_folder(path: Path, image_size: int, background: str) -> tuple[ImageFiles, ImageFiles, list[str]]:
    """The images below `path` in train/<class>/… and in test/<class>/…, and the names of the classes.

    Args:
        path: the folder that holds train and test.
        image_size: the side in pixels to which images are resized.
        background: the colour behind transparent pixels, by name or as #rrggbb.

    Warns:
        UserWarning: files were left out.

    Raises:
        ValueError: the folder is not laid out so, or an argument is out of range.
        OSError: a folder cannot be listed.
    """
    if isinstance(image_size, bool) or not hasattr(image_size, "__index__") or not 1 <= image_size <= 4096:
        raise ValueError(f"image_size is {image_size}; it must be a whole number of pixels from 1 to 4096")
    background = colour(background)
    found, left_out = find_images(path)
    names, test_names = (list(classes) for classes in found)
    if names != test_names:
        differing = ", ".join(sorted(set(names) ^ set(test_names)))
        raise ValueError(f"train and test in {path} do not have the same classes; they differ in {differing}")
    if left_out and int(os.environ.get("RANK", 0)) == 0:  # of the processes of torchrun, one says it
        some = ", ".join(str(file.relative_to(path)) for file in left_out[:10])
        some += f" and {len(left_out) - 10} more" if left_out[10:] else ""
        warnings.warn(
            f"{len(left_out)} of the files in {path} are not used: {some}; "
            f"images lie in the folder of a class and end in {', '.join(ENDINGS)}",
            stacklevel=4,
        )
    train, test = (ImageFiles(path, classes, operator.index(image_size), background) for classes in found)
    return train, test, names


def find_images(root: Path) -> tuple[list[dict[str, list[Path]]], list[Path]]:
    """The images of train and of test by class, and all other files in both.

    Raises:
        ValueError: the folder is not laid out as it must be, or a class has no images.
        OSError: a folder cannot be listed.
    """
    layout = (
        "a data set of your own is laid out as train/<class>/… and test/<class>/…, where data_dir is what holds both"
    )
    tops = [root / "train", root / "test"]
    for top in tops:
        if not top.is_dir():
            raise ValueError(f"{top} is not a folder; {layout}")
    real = [top.resolve() for top in tops]
    seen = {folder for top in real for folder in (top, *top.parents)}
    found, left_out = [], []
    for top in tops:
        classes, empty = {}, []
        for path in listed(top):
            files = walk(path, seen, real)
            is_class = path.is_dir()
            images = [f for f in files if is_class and f.suffix.lower() in ENDINGS and f.is_file()]
            others = sorted(set(files) - set(images))
            left_out += others
            if is_class:
                classes[path.name] = images
                kinds = ", ".join(sorted({file.suffix or file.name for file in others}))
                empty += [] if images else [f"{path.name} ({kinds} alone)" if kinds else path.name]
        if empty or not classes:
            missing = f"no images for the classes {', '.join(empty)}" if empty else "no folder of a class"
            raise ValueError(f"{top} holds {missing}; {layout}, and images end in {', '.join(ENDINGS)}")
        found.append(classes)
    return found, left_out


def walk(path: Path, seen: set[Path], tops: list[Path]) -> list[Path]:
    """The files in a folder and below it, sorted; or the path itself if it is no folder.

    Each real folder is entered once, so that links multiply no images. A link that leads into or above `tops`, the
    folders of the data set itself, is given in place of what it holds.
    """
    files, waiting = [], [path]
    while waiting:
        path = waiting.pop()
        real = path.resolve() if path.is_dir() else None
        leads_back = real in seen or (path.is_symlink() and any(real.is_relative_to(top) for top in tops if real))
        if real is None or leads_back:
            files.append(path)
        else:
            seen.add(real)
            waiting += listed(path)
    return sorted(files, key=lambda file: (str(file.parent), file.name))


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what systems and tools leave there.

    Raises:
        OSError: it cannot be listed.
    """
    try:
        return sorted(p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in JUNK)
    except OSError as error:
        raise OSError(f"{folder} cannot be listed ({error.strerror}); make it readable or take it away") from error
