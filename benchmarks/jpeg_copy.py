"""The JPEG copy of CIFAR-10, from which the photographs' models and stored runs have learned.

`python benchmarks/jpeg_copy.py FOLDER` downloads CIFAR-10 to FOLDER unless it is there, and writes its images as
FOLDER/cifar10-jpeg/train/CLASS/0000.jpg and so on, and those of the test: quality 75 and colour at half the resolution,
which is what Pillow does if nothing is said. In the copy of the stored runs the images of a class may be numbered in
another order; with another order a seed draws other validation images and batches.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

from mixer.downloads import fetch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the data")
    folder = parser.parse_args().folder
    copy = folder / "cifar10-jpeg"
    if copy.exists():
        sys.exit(f"jpeg_copy: {copy} is there already; delete it to have it made anew")
    try:
        parts, names = fetch("cifar10", folder)
    except OSError as error:
        sys.exit(f"jpeg_copy: {error}")
    for part, (images, labels) in zip(("train", "test"), parts, strict=True):
        for name in names:
            (copy / part / name).mkdir(parents=True)
        counts = Counter()
        for image, label in zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True):
            Image.fromarray(image).save(copy / part / names[label] / f"{counts[label]:04}.jpg", quality=75)
            counts[label] += 1


if __name__ == "__main__":
    main()
