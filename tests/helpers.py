"""Small data sets and models for the tests."""

import numpy as np
import torch
from PIL import Image

from mixer import MLPMixer
from mixer.data import DataSet, Split

SIZES = dict(n_layers=1, n_channel=6, n_hidden=5, n_output=3, image_size=4, patch_size=2, n_image_channel=1)


def small_model(seed: int = 0, **changes) -> MLPMixer:
    torch.manual_seed(seed)
    return MLPMixer(**{**SIZES, **changes})


def small_data(n: int = 40, name: str = "small") -> DataSet:
    """Grey 4×4 images of three classes, told apart by the row that is bright."""
    generator = torch.Generator().manual_seed(7)
    splits = []
    for size in (n, 12, 12):
        labels = torch.randint(0, 3, (size,), generator=generator)
        images = torch.randint(0, 60, (size, 1, 4, 4), generator=generator, dtype=torch.uint8)
        images[torch.arange(size), 0, labels] += 150
        splits.append(Split(images, labels))
    return DataSet(name, *splits, ["top", "second", "third"], [0.3], [0.25], (1, 4, 4))


def write_folder(path, classes=("ant", "bee"), n=6, size=(12, 10)):
    rng = np.random.default_rng(2)
    for part in ("train", "test"):
        for i, name in enumerate(classes):
            (path / part / name).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
                pixels[..., i] += 150
                Image.fromarray(pixels).save(path / part / name / f"{k}.png")
    return path
