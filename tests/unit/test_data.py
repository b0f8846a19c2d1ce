"""Each data set in its real format, the splits, the augmentation, and folders of all kinds."""

import gzip
import hashlib
import http.server
import json
import os
import pickle
import runpy
import socket
import struct
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import datasets

from mixer import data, regularisation

ROOT = Path(__file__).parents[2]

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data"


def test_digits():
    digits = data.load("digits")
    parts = [digits.train, digits.validation, digits.test]
    assert [len(part) for part in parts] == [1294, 144, 359]
    assert digits.image_shape == (1, 8, 8)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() == 255
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    originals = {(tuple(row), label) for row, label in zip(pixels.astype(int).tolist(), labels, strict=True)}
    ours = set()
    for part in parts:
        grey = (part.images.flatten(1).double() * 16 / 255).round().int().tolist()
        ours |= {(tuple(row), label) for row, label in zip(grey, part.labels.tolist(), strict=True)}
    assert ours == originals  # nothing is lost by the scaling, and no image is in two splits


def test_splits_are_disjoint_and_fixed():
    kept, held = data.held_out(100)
    assert len(held) == 10
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert torch.equal(held, data.held_out(100)[1])


def test_mean_and_std_are_of_the_training_images():
    digits = data.load("digits")
    pixels = digits.train.images.double() / 255
    assert digits.mean == pytest.approx([pixels.mean().item()], abs=1e-6)
    assert digits.std == pytest.approx([pixels.std(correction=0).item()], abs=1e-6)
    normalised = digits.normalise(digits.train.images)
    assert normalised.dtype == torch.float32
    assert abs(normalised.mean()) < 1e-4
    assert abs(normalised.std() - 1) < 1e-3


def test_colour_channels_are_normalised_one_by_one():
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    images[0, 1] = 255
    result = data.normalise(images, [0.0, 0.5, 0.25], [1.0, 0.25, 0.5])
    assert result[0, :, 0, 0].tolist() == [0.0, 2.0, -0.5]


def crop(image, down, right):
    """The image shifted by whole pixels, its edge repeated, by loops."""
    _, H, W = image.shape
    result = torch.empty_like(image)
    for row in range(H):
        for column in range(W):
            result[:, row, column] = image[:, min(max(row + down, 0), H - 1), min(max(column + right, 0), W - 1)]
    return result


@pytest.mark.parametrize("flip", [False, True])
def test_augment_gives_every_crop_and_nothing_else(flip):
    image = torch.arange(2 * 3 * 4, dtype=torch.uint8).view(1, 2, 3, 4)
    allowed = [crop(image[0], down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    if flip:
        allowed += [crop(image[0], down, right).flip(2) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    allowed = {tuple(a.flatten().tolist()) for a in allowed}
    results = regularisation.augment(image.expand(500, -1, -1, -1), torch.Generator().manual_seed(0), 1, flip)
    assert {tuple(r.flatten().tolist()) for r in results} == allowed


def test_augment_draws_each_image_anew_and_follows_its_generator():
    images = data.load("digits").train.images[:64]
    once, again = (regularisation.augment(images, torch.Generator().manual_seed(3), 2, True) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, regularisation.augment(images, torch.Generator().manual_seed(4), 2, True))


def test_batches_come_in_the_order_asked_for():
    digits = data.load("digits")
    order = torch.tensor([5, 3, 8, 0, 2])
    batches = list(digits.train.batches(order, 2))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([images for images, _ in batches]), digits.train.images[order])
    assert torch.equal(torch.cat([labels for _, labels in batches]), digits.train.labels[order])


# --- the torchvision formats, as small archives in the real layout ---


def idx(array):
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(source, monkeypatch, address):
    """Small archives of MNIST where torchvision looks for them: what they hold."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 30, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 10, dtype=np.uint8),
    }
    resources = []
    for name, array in arrays.items():
        (source / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        resources.append((f"{name}.gz", hashlib.md5((source / f"{name}.gz").read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return arrays


def test_mnist_from_its_own_archives(tmp_path, served, monkeypatch):
    arrays = write_mnist(served[0], monkeypatch, served[1])
    mnist = data.load("mnist", tmp_path)
    assert (tmp_path / "MNIST" / "raw").is_dir()
    assert mnist.image_shape == (1, 28, 28)
    assert np.array_equal(mnist.test.images[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    assert np.array_equal(mnist.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert (len(mnist.train), len(mnist.validation)) == (27, 3)
    assert mnist.class_names == list("0123456789")


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("damage", ["zeros", "partly zeros", "labels of 200", "labels of one kind", "cut", "empty"])
def test_a_damaged_file_of_mnist_is_named(tmp_path, served, monkeypatch, part, damage):
    """Files that were unpacked already, of which torchvision knows no checksum."""
    write_mnist(served[0], monkeypatch, served[1])
    data.load("mnist", tmp_path)
    kind = "labels-idx1" if "labels" in damage else "images-idx3"
    file = tmp_path / "MNIST" / "raw" / f"{part}-{kind}-ubyte"
    content = bytearray(file.read_bytes())
    start = {"partly zeros": len(content) - 900, "labels of 200": len(content) - 1}.get(
        damage, 8 if "labels" in damage else 16
    )
    content[start:] = bytes([200 if damage == "labels of 200" else 0]) * (len(content) - start)
    file.write_bytes({"cut": content[:-1], "empty": b""}.get(damage, content))
    with pytest.raises(OSError, match=rf"^mnist in [^\n]* is damaged \({file.name} [^\n]*\); delete it to have it"):
        data.load("mnist", tmp_path)


PROGRAM = """
import sys
from mixer import load_data
from torchvision import datasets
datasets.MNIST.mirrors, datasets.MNIST.resources = [sys.argv[2]], eval(sys.argv[3])
print("ready", flush=True)
input()
print(len(load_data("mnist", sys.argv[1]).train))
"""


@pytest.mark.slow
def test_of_several_processes_one_downloads_and_the_others_wait(tmp_path, served, monkeypatch):
    write_mnist(served[0], monkeypatch, served[1])
    asked = []
    monkeypatch.setattr("http.server.SimpleHTTPRequestHandler.do_GET", counting(asked))
    data.load("mnist", tmp_path / "alone")
    alone, asked[:] = sorted(asked), []
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), served[1], repr(datasets.MNIST.resources)]
    options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(program, env=environment, **options) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        printed, errors = process.communicate(timeout=200)
        assert printed == "27\n", errors
    assert sorted(asked) == alone


def test_a_data_set_in_a_folder_that_is_read_only_is_read(tmp_path, served, monkeypatch):
    write_mnist(served[0], monkeypatch, served[1])
    data.load("mnist", tmp_path)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("mixer.downloads.FileLock", refuse)
    assert len(data.load("mnist", tmp_path).train) == 27


def counting(asked):
    """A handler of a request that notes its path."""
    get = http.server.SimpleHTTPRequestHandler.do_GET

    def noted(self):
        asked.append(self.path)
        get(self)

    return noted


def test_a_download_with_the_wrong_checksum_is_refused(tmp_path, served, monkeypatch):
    source, address = served
    name = "train-images-idx3-ubyte.gz"
    (source / name).write_bytes(gzip.compress(b"not the images"))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, "0" * 32)])
    with pytest.raises(OSError, match=r"mnist is not in .* and its download failed"):
        data.load("mnist", tmp_path)


def write_cifar(served, source, monkeypatch):
    """A small CIFAR archive where torchvision looks for it, with rows of 3,072 bytes: its test part and classes."""
    rng = np.random.default_rng(1)
    key, names = source.meta["key"].replace("_names", "s"), source.meta["key"]
    classes = [f"class {i}" for i in range(100 if "fine" in key else 10)]
    parts, sums = {}, {}
    for part in [*source.train_list, *source.test_list]:
        n = 20 if part in source.train_list else 8
        rows = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        parts[part[0]] = {"data": rows, key: rng.integers(0, len(classes), n).tolist()}
    parts[source.meta["filename"]] = {names: classes}
    file = served[0] / source.filename
    with tarfile.open(file, "w:gz") as archive:
        for name, content in parts.items():
            payload = pickle.dumps(content)
            sums[name] = hashlib.md5(payload).hexdigest()
            info = tarfile.TarInfo(f"{source.base_folder}/{name}")
            info.size = len(payload)
            archive.addfile(info, BytesIO(payload))
    monkeypatch.setattr(source, "url", served[1] + source.filename)
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(file.read_bytes()).hexdigest())
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(source, attribute, [[part, sums[part]] for part, _ in getattr(source, attribute)])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": sums[source.meta["filename"]]})
    return parts[source.test_list[0][0]], classes


@pytest.mark.parametrize(("name", "source"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar_from_its_own_archive(tmp_path, served, monkeypatch, name, source):
    test, classes = write_cifar(served, source, monkeypatch)
    loaded = data.load(name, tmp_path)
    assert loaded.image_shape == (3, 32, 32)
    assert loaded.class_names == classes
    assert np.array_equal(loaded.test.images.flatten(1).numpy(), test["data"])
    assert loaded.test.labels.tolist() == test["fine_labels" if name == "cifar100" else "labels"]
    n_train = 20 * len(source.train_list)
    assert len(loaded.train) + len(loaded.validation) == n_train


def test_a_damaged_file_of_cifar_is_named(tmp_path, served, monkeypatch):
    write_cifar(served, datasets.CIFAR10, monkeypatch)
    archive = served[0] / datasets.CIFAR10.filename
    data.load("cifar10", tmp_path)
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        file = tmp_path / datasets.CIFAR10.base_folder / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(OSError, match=rf"^cifar10 in [^\n]* is damaged \({name} [^\n]*\); delete it to have it"):
            data.load("cifar10", tmp_path)
        file.write_bytes(whole)
    file.unlink()
    (tmp_path / archive.name).write_bytes(b"half a file")
    archive.rename(archive.with_name("gone"))
    with pytest.raises(
        OSError, match=rf"its download failed \([^\n]*{archive.name} is damaged, [^\n]*\); check the net"
    ):
        data.load("cifar10", tmp_path)


def test_an_archive_is_not_unpacked_outside_its_folder(tmp_path, monkeypatch):
    archive = tmp_path / "inside" / datasets.CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.addfile(tarfile.TarInfo("../outside"), BytesIO())
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(OSError, match=r"cifar10 in .* is damaged \(.*outside the destination"):
        data.load("cifar10", archive.parent)
    assert not (tmp_path / "outside").exists()


def test_an_early_python_3_11_whose_archives_have_no_filter_downloads(tmp_path, served, monkeypatch):
    write_mnist(served[0], monkeypatch, served[1])
    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.delattr(tarfile.TarFile, "extraction_filter")
    assert len(data.load("mnist", tmp_path).train) == 27


def test_the_script_of_the_jpeg_copy_writes_every_image_once(tmp_path, served, monkeypatch):
    write_cifar(served, datasets.CIFAR10, monkeypatch)
    script = ROOT / "benchmarks" / "jpeg_copy.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    original = data.load("cifar10", tmp_path)
    for part, splits in {"train": [original.train, original.validation], "test": [original.test]}.items():
        labels = torch.cat([split.labels for split in splits])
        for label, name in enumerate(original.class_names):
            files = sorted((tmp_path / "cifar10-jpeg" / part / name).iterdir())
            assert [file.name for file in files] == [f"{i:04}.jpg" for i in range((labels == label).sum())]
    label = original.test.labels[0].item()
    copy = Image.open(tmp_path / "cifar10-jpeg" / "test" / original.class_names[label] / "0000.jpg")
    apart = np.asarray(copy).astype(int) - original.test.images[0].permute(1, 2, 0).numpy()
    assert 0 < np.abs(apart).mean() < 60  # noise, of which JPEG keeps a part
    with pytest.raises(SystemExit, match="is there already; delete it"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_no_network_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(
        OSError, match=rf"{name} is not in {tmp_path} and its download failed .* use the data set digits"
    ):
        data.load(name, tmp_path)


@pytest.mark.skipif(not SHARED_MNIST.is_dir(), reason="the real MNIST is not beside the project")
def test_the_real_mnist():
    mnist = data.load("mnist", SHARED_MNIST)
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (54_000, 6_000, 10_000)
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist.mean == pytest.approx([0.1307], abs=1e-3)
    assert mnist.std == pytest.approx([0.3081], abs=1e-3)


def test_the_fingerprint_tells_data_sets_apart():
    digits = data.load("digits")
    assert digits.fingerprint == data.load("digits").fingerprint
    digits.test.images[0, 0, 0, 0] += 1
    assert digits.fingerprint != data.load("digits").fingerprint


def test_the_first_training_images_are_those_of_the_whole():
    digits = data.load("digits")
    few = digits.first(100)
    assert torch.equal(few.train.images, digits.train.images[:100])
    assert torch.equal(few.train.labels, digits.train.labels[:100])
    assert (few.mean, few.std) == (digits.mean, digits.std)
    assert len(few.validation) == len(digits.validation) and len(few.test) == len(digits.test)
    assert digits.first(len(digits.train)).fingerprint == digits.fingerprint != few.fingerprint
    for n_train in (0, 1295, 5.0):
        with pytest.raises(ValueError, match=f"n_train is {n_train}; choose from 1 to 1,294"):
            digits.first(n_train)


def test_bad_arguments():
    with pytest.raises(ValueError, match="data set 'imagenet' is not known; choose one of digits, mnist"):
        data.load("imagenet")
    with pytest.raises(ValueError, match="image_size applies to the data set folder alone"):
        data.load("digits", image_size=16)
    for size in (0, True, 8.0):
        with pytest.raises(ValueError, match=f"image_size is {size}; it must be a whole number of pixels from 1 to"):
            data.load("folder", "anywhere", image_size=size)


def test_affine_changes_are_small_differ_by_image_and_follow_their_generator():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 10:18, 12:16] = 255
    images = image.expand(300, -1, -1, -1)
    once, again = (regularisation.augment(images, torch.Generator().manual_seed(3), affine=1.0) for _ in range(2))
    assert torch.equal(once, again) and once.dtype == torch.float32
    assert not torch.equal(once[0], once[1])
    mass = once.sum(dim=(1, 2, 3)) / image.sum()
    assert 0.6 < mass.min() < mass.max() < 1.6  # scales of 0.85 to 1.15, squared, and the shear
    rows = (once * torch.arange(28.0).view(28, 1)).sum(dim=(1, 2, 3)) / once.sum(dim=(1, 2, 3)) - 13.5
    assert 2 < rows.abs().max() < 4  # a tenth of 28 pixels, and what scaling adds
    same = regularisation.augment(image, torch.Generator(), affine=1e-9)
    assert torch.allclose(same, image.float(), atol=1e-3)


def test_places_moved_within_an_image_give_what_a_repeated_edge_does():
    """As MPS samples, whose zeros beyond the edge are then never met."""
    images, places = 255 * torch.rand(2, 1, 5, 9), 3 * torch.rand(2, 5, 9, 2) - 1.5
    expected = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    found = F.grid_sample(images, regularisation.within(places), padding_mode="zeros", align_corners=False)
    assert torch.allclose(found, expected, atol=1e-3)


def test_images_are_normalised_to_float32_by_numbers_of_numpy():
    images = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    for scalar in (np.float64(0.5), np.float32(0.5)):
        found = data.normalise(images, [scalar], [scalar])
        assert found.dtype == torch.float32 and torch.equal(found, torch.ones(1, 1, 2, 2))


def test_a_record_that_goes_on_elsewhere_says_so(tmp_path):
    path, fill = tmp_path / "record.json", runpy.run_path(str(ROOT / "benchmarks" / "record.py"))["fill"]

    def go_on(torch, n_epochs, n_seeds):
        head = dict(torch=torch, n_epochs=n_epochs, sizes=(1, 2))
        fill(path, head, [dict(seed=seed) for seed in range(n_seeds)], lambda seed: dict(found=10 * seed))
        return json.loads(path.read_text())

    go_on("2.13", 3, 1)
    expected = [dict(seed=0, found=0), dict(seed=1, found=10, torch="2.14")]
    assert go_on("2.14", 3, 2) == dict(torch="2.13", n_epochs=3, sizes=[1, 2], runs=expected)
    with pytest.raises(SystemExit, match=r"record\.json was made with another n_epochs; move it away"):
        go_on("2.13", 9, 3)


def test_a_negative_padding_is_refused():
    with pytest.raises(ValueError, match=r"^padding is -1; it must be"):
        regularisation.augment(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.Generator(), padding=-1)


@pytest.mark.parametrize("channels", [1, 3])
def test_random_augment_changes_images_and_keeps_their_kind(channels):
    images = torch.randint(
        0, 256, (64, channels, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.manual_seed(0)
    changed = regularisation.random_augment(images)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    parts = zip(changed.chunk(8), images.chunk(8), strict=True)
    assert sum(not torch.equal(part, original) for part, original in parts) >= 5


def test_cutmix_mixes_targets_as_it_mixes_pixels():
    images = (torch.arange(4, dtype=torch.uint8) * 50).view(4, 1, 1, 1).expand(4, 1, 20, 20)
    torch.manual_seed(0)
    mixed, targets = regularisation.cutmix(images.contiguous(), torch.arange(4), 4)
    assert mixed.dtype == torch.uint8 and targets.shape == (4, 4)
    for i in range(4):
        shares = torch.stack([(mixed[i] == value * 50).float().mean() for value in range(4)])
        assert torch.allclose(targets[i], shares, atol=1e-6)


def test_patches_keep_together_when_they_are_shuffled():
    order = data.pixel_order("patches", (8, 12), 4)
    assert sorted(order.tolist()) == list(range(96))
    patches = order.view(2, 4, 3, 4).permute(0, 2, 1, 3).reshape(6, 16)
    homes = patches // 12 // 4 * 3 + patches % 12 // 4
    assert (homes == homes[:, :1]).all()  # every new patch holds the pixels of one old patch
    assert sorted(homes[:, 0].tolist()) == list(range(6)) != homes[:, 0].tolist()
    within = patches // 12 % 4 * 4 + patches % 12 % 4
    assert (within == within[0]).all() and within[0].tolist() != list(range(16))
    everywhere = data.pixel_order("global", (8, 12))
    assert sorted(everywhere.tolist()) == list(range(96)) != everywhere.tolist()
    assert data.pixel_order("none", (8, 12)) is None
    with pytest.raises(ValueError, match="shuffle is 'rows'; choose one of none, patches, global"):
        data.pixel_order("rows", (8, 12))


def test_shuffled_pixels_are_what_a_model_sees():
    digits = data.load("digits")
    mixed = digits.shuffled("global")
    images = digits.test.images[:5]
    plain, seen = digits.normalise(images), mixed.normalise(images)
    assert torch.equal(seen.flatten(2), plain.flatten(2)[:, :, mixed.pixel_order])
    assert torch.equal(mixed.test.images, digits.test.images)
    assert mixed.fingerprint != digits.fingerprint == digits.shuffled("none").fingerprint
