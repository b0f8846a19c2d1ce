"""A reader's own images: folders and files of all kinds, and one picture by a trained model."""

import copy
import math
import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from mixer import classify, data, folder, load_checkpoint, load_data, predict, shipped_weights, to_convolution
from mixer.cli import main

ROOT = Path(__file__).parents[2]


def test_folder_in_memory_and_streamed_agree(tmp_path, monkeypatch, write_folder):
    write_folder(tmp_path)
    whole = data.load("folder", tmp_path, image_size=8)
    monkeypatch.setattr(data, "MEMORY_LIMIT", 100)
    streamed = data.load("folder", tmp_path, image_size=8)
    assert isinstance(streamed.train, folder.StreamedSplit)
    assert whole.image_shape == streamed.image_shape == (3, 8, 8)
    assert whole.class_names == streamed.class_names == ["ant", "bee"]
    assert whole.mean == streamed.mean
    assert not torch.equal(whole.train.labels, whole.train.labels.sort().values)  # the classes are mixed
    few = [images.first(3).train for images in (whole, streamed)]
    assert torch.equal(few[0].labels, few[1].labels)
    assert torch.equal(few[0].images, next(few[1].batches(torch.arange(3), 3))[0])
    for part in ("train", "validation", "test"):
        one, two = getattr(whole, part), getattr(streamed, part)
        order = torch.randperm(len(one))
        assert torch.equal(one.labels, two.labels)
        for (images, labels), (others, other_labels) in zip(one.batches(order, 4), two.batches(order, 4), strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, other_labels)


def test_folder_keeps_the_pixels_of_images_that_fit(tmp_path, write_folder, loaded):
    write_folder(tmp_path, size=(8, 8))
    loaded = data.load("folder", tmp_path, image_size=8)
    pixels = np.array(Image.open(tmp_path / "test" / "ant" / "0.png"))
    assert np.array_equal(loaded.test.images[0].permute(1, 2, 0).numpy(), pixels)


def test_a_size_of_numpy_gives_the_same_data_set(tmp_path, write_folder):
    one, other = (data.load("folder", write_folder(tmp_path / str(i)), image_size=i) for i in (8, np.int64(9)))
    assert (one.image_shape, repr(other.image_shape)) == ((3, 8, 8), "(3, 9, 9)")


def test_folder_that_is_not_one(tmp_path, write_folder):
    with pytest.raises(ValueError, match=r"laid out as train/<class>/… and test/<class>/…"):
        data.load("folder", tmp_path)
    write_folder(tmp_path)
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "wasp")
    with pytest.raises(ValueError, match="they differ in bee, wasp"):
        data.load("folder", tmp_path)


def test_folder_with_a_file_that_is_no_image(tmp_path, write_folder):
    write_folder(tmp_path)
    broken = tmp_path / "train" / "bee" / "9.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"9\.png cannot be read as an image"):
        data.load("folder", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + b"\x00" * 30, b"II*\x00" + b"\xff" * 40])
def test_every_kind_of_damaged_image_is_named(tmp_path, content, write_folder):
    write_folder(tmp_path)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(content)
    with pytest.raises(OSError, match=r"0\.png cannot be read as an image \([^\n]+\); repair it"):
        data.load("folder", tmp_path)


def test_a_damaged_image_of_a_streamed_folder_is_named(tmp_path, monkeypatch, write_folder):
    monkeypatch.setattr(data, "MEMORY_LIMIT", 100)
    write_folder(tmp_path)
    streamed = data.load("folder", tmp_path)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"^[^\n]*0\.png cannot be read as an image[^\n]*$"):
        list(streamed.test.batches(torch.arange(12), 4))


def test_a_picture_too_large_for_memory_is_not_called_damaged(tmp_path, monkeypatch, write_folder):
    def lack_memory(*_):
        raise MemoryError

    write_folder(tmp_path)
    monkeypatch.setattr("mixer.picture.drawn", lack_memory)
    with pytest.raises(MemoryError):
        load_data("folder", tmp_path)


def test_sixteen_bits_per_pixel_keep_their_greys(tmp_path, write_folder):
    write_folder(tmp_path)
    ramp = np.tile(np.linspace(0, 65535, 8).astype(np.uint16), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "test" / "ant" / "0.png")
    image = data.load("folder", tmp_path, image_size=8).test.images[0]
    assert image[0, 0].tolist() == (ramp[0] // 257).tolist()


def test_a_class_without_images_and_a_single_image_are_said(tmp_path, write_folder):
    write_folder(tmp_path, n=1)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match="for the classes cat"):
        data.load("folder", tmp_path)
    write_folder(tmp_path / "one", classes=("ant",), n=1)
    with pytest.raises(ValueError, match="there is only 1 training image"):
        data.load("folder", tmp_path / "one")


# --- what is transparent ---

GREY = np.array([[0, 200, 200, 0]] * 4, dtype=np.uint8)  # black strokes left and right
OPAQUE = np.array([[255, 0, 0, 255]] * 4, dtype=np.uint8)
INDEXED = Image.fromarray((OPAQUE == 0).astype(np.uint8), "P")
INDEXED.putpalette([0, 0, 0, 9, 9, 9])


def png(bits, colour, rows, key=b""):
    """A PNG file whose pixels of the colour `key` are transparent, by hand: Pillow writes few of its kinds."""
    pieces = [(b"IHDR", struct.pack(">IIBBBBB", 4, len(rows), bits, colour, 0, 0, 0))]
    pieces += [(b"tRNS", key)] if key else []
    pieces += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in pieces]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(bits, rows, width=4, sample_format=1, photometric=1, extra=None):
    """A TIFF file of one strip, by hand."""
    pixels = b"".join(rows)
    n = len(bits) if isinstance(bits, tuple) else 1
    tags = [(256, 3, 1, width), (257, 3, 1, len(rows)), (259, 3, 1, 1), (262, 3, 1, photometric), (277, 3, 1, n)]
    tags += [(278, 3, 1, len(rows)), (279, 4, 1, len(pixels)), (273, 4, 1, 16), (339, 3, 1, sample_format)]
    tags += [(338, 3, 1, extra)] if extra else []
    tags += [(258, 3, n, 8 if n > 1 else bits)]
    depths = struct.pack("<4H", *(bits if n > 1 else (0, 0, 0, 0)))
    entries = [
        struct.pack("<HHI", t, k, c) + (struct.pack("<HH", v, 0) if k == 3 else struct.pack("<I", v))
        for t, k, c, v in sorted(tags)
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 16 + len(pixels)) + depths + pixels + directory


RGBA = Image.merge("RGBA", [Image.fromarray(a) for a in (GREY, GREY, GREY, OPAQUE)])
TRANSPARENT = {
    "RGBA.png": encoded(RGBA, "PNG"),
    "LA.png": encoded(RGBA.convert("LA"), "PNG"),
    "P.png": encoded(INDEXED, "PNG", transparency=1),
    "P, alphas.png": encoded(INDEXED, "PNG", transparency=b"\xff\x00"),
    "RGBA.webp": encoded(RGBA, "WEBP", lossless=True),
    "RGBA.TIFF": encoded(RGBA, "TIFF"),
    "LA.tif": encoded(RGBA.convert("LA"), "TIFF"),
    "premultiplied.tif": tiff((8, 8, 8, 8), [(b"\0\0\0\xff" + bytes(8) + b"\0\0\0\xff")] * 4, photometric=2, extra=1),
    "1 bit.png": png(1, 0, [b"\x60"] * 4, b"\0\1"),
    "2 bits.png": png(2, 0, [b"\x14"] * 4, b"\0\1"),
    "4 bits.png": png(4, 0, [b"\x01\x10"] * 4, b"\0\1"),
    "8 bits.png": png(8, 0, [b"\0\1\1\0"] * 4, b"\0\1"),
    "16 bits.png": png(16, 0, [b"\0\0\x80\1\x80\1\0\0"] * 4, b"\x80\1"),
    "colours.png": png(8, 2, [b"\0\0\0\1\2\3\1\2\3\0\0\0"] * 4, b"\0\1\0\2\0\3"),
    "deep colours.png": png(16, 2, [bytes(6) + b"\x80\1\x70\2\x60\3" * 2 + bytes(6)] * 4, b"\x80\1\x70\2\x60\3"),
}


@pytest.fixture(scope="session")
def loaded(write_folder):
    def make(folder, name, content, **options):
        """The image [3, 4, 4] that a file gives as the first of a folder's test images."""
        if not (folder / "train").exists():
            write_folder(folder, size=(4, 4))
        (folder / "test" / "ant" / "0.png").unlink(missing_ok=True)
        for old in (folder / "test" / "ant").glob("0 *"):
            old.unlink()
        (folder / "test" / "ant" / f"0 {name}").write_bytes(content)
        return data.load("folder", folder, image_size=4, **options).test.images[0]

    return make


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_show_the_background(tmp_path, name, loaded):
    on_white = loaded(tmp_path, name, TRANSPARENT[name])
    assert on_white.tolist() == [[[0, 255, 255, 0]] * 4] * 3
    on_orange = loaded(tmp_path, name, TRANSPARENT[name], background="#ff8000")
    assert on_orange[:, 0].tolist() == [[0, 255, 255, 0], [0, 128, 128, 0], [0, 0, 0, 0]]


def test_a_picture_that_vanishes_on_its_background_is_refused(tmp_path, loaded):
    with pytest.raises(OSError, match=r"0 x\.png .*on the background #000000 it is one plain colour; choose another"):
        loaded(tmp_path, "x.png", TRANSPARENT["1 bit.png"], background="black")
    blank = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert loaded(tmp_path, "x.png", encoded(blank, "PNG")).unique().tolist() == [255]


def test_a_bitmap_with_transparency_is_refused(tmp_path, loaded):
    """Pillow drops it, and black strokes would be all that is left."""
    strokes = np.zeros((4, 4, 4), np.uint8)
    strokes[:, 1:3, 3] = 255
    with pytest.raises(OSError, match="its fourth channel, perhaps transparency, cannot be read: save it as PNG"):
        loaded(tmp_path, "x.bmp", encoded(Image.fromarray(strokes), "BMP"))
    strokes[..., 3] = 255
    assert loaded(tmp_path, "x.bmp", encoded(Image.fromarray(strokes + 7), "BMP")).unique().tolist() == [7]


@pytest.mark.parametrize("background", ["", "no colour", "#ff00", "#ff000080", 7])
def test_a_background_that_is_no_opaque_colour(tmp_path, background):
    with pytest.raises(ValueError, match=r"^background is .*; it must be a colour, as white, black or #ff8800$"):
        data.load("folder", tmp_path, background=background)


def test_a_background_for_other_data_sets_is_refused():
    with pytest.raises(ValueError, match="background applies to the data set folder alone, and this is digits"):
        data.load("digits", background="white")


# --- how pixels are stored ---

RAMP = np.array([[0, 21845, 43690, 65535]] * 4, dtype=np.uint16)
EIGHT = [0, 85, 170, 255]
STORED = {
    "12 bits.tif": tiff(12, [b"\x00\x05\x55\xaa\xaf\xff"] * 4),
    "16 bits.png": encoded(Image.fromarray(RAMP), "PNG"),
    "16 bits.tif": encoded(Image.fromarray(RAMP), "TIFF"),
    "16 bits, the high byte first.tif": encoded(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "16 bits, white is 0.tif": tiff(16, list(65535 - RAMP), photometric=0),
    "16 bits.pgm": b"P5 4 4 65535\n" + RAMP.astype(">u2").tobytes(),
    "12 bits.pgm": b"P5 4 4 4095\n" + (RAMP // 16).astype(">u2").tobytes(),
    "4 bits.pgm": b"P2 4 4 15\n" + b"0 5 10 15\n" * 4,
    "CMYK.tif": encoded(Image.fromarray((RAMP // 257).astype(np.uint8)).convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", STORED)
def test_values_are_scaled_by_their_range(tmp_path, name, loaded):
    assert loaded(tmp_path, name, STORED[name]).tolist() == [[EIGHT] * 4] * 3


FRACTIONS = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
UNKNOWN = {
    "fractions.tif": encoded(Image.fromarray(FRACTIONS), "TIFF"),
    "32 bits.tif": encoded(Image.fromarray((FRACTIONS * 1e6).astype(np.int32)), "TIFF"),
    "32 bits, no sign.tif": tiff(32, list((FRACTIONS * 4e9).astype(np.uint32))),
    "signed 16 bits.tif": tiff(16, list(RAMP), sample_format=2),
    "signed 8 bits.tif": tiff(8, [b"\x80\xff\0\x7f"] * 4, sample_format=2),
    "fractions.ppm": b"Pf 4 4 -1.0\n" + FRACTIONS.tobytes(),
    "12 of 16 bits.png": encoded(Image.fromarray(RAMP // 16), "PNG"),
    "12 of 16 bits.tif": encoded(Image.fromarray(RAMP // 16), "TIFF"),
    "12 of 16 bits.pgm": b"P5 4 4 65535\n" + (RAMP // 16).astype(">u2").tobytes(),
    "12 of 16 bits.ppm": b"P6 4 4 65535\n" + (RAMP // 16).astype(">u2").repeat(3).tobytes(),
    "8 of 16 bits.png": encoded(Image.fromarray(RAMP // 257), "PNG"),
    "8 of 16 bits.pgm": b"P5 4 4 65535\n" + (RAMP // 257).astype(">u2").tobytes(),
    "8 of 16 bits, colours.png": png(16, 2, [(row // 257).astype(">u2").repeat(3).tobytes() for row in RAMP]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_values_of_unknown_range_are_refused(tmp_path, name, loaded):
    with pytest.raises(OSError, match=rf"^[^\n]*0 {re.escape(name)} cannot be read as an image \([^\n]*bits[^\n]*$"):
        loaded(tmp_path, name, UNKNOWN[name])


def test_what_is_black_with_16_bits_is_no_value_of_unknown_range(tmp_path, loaded):
    assert loaded(tmp_path, "x.png", encoded(Image.fromarray(0 * RAMP), "PNG")).unique().tolist() == [0]
    ink = png(16, 6, [b"".join(struct.pack(">4H", 0, 0, 0, alpha) for alpha in row) for row in RAMP])
    assert loaded(tmp_path, "x.png", ink)[0, 0].tolist() == EIGHT[::-1]


def test_an_animation_gives_its_first_frame(tmp_path, loaded):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for kind in ("PNG", "WEBP", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert loaded(tmp_path, f"x.{kind.lower()}", content)[:, 0, 0].tolist() == [255, 0, 0]


# --- EXIF ---


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path, kind, orientation, loaded):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2], pixels[:, :2] = pixels[:2] + 200, pixels[:, :2] + 55
    upright = Image.fromarray(pixels)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # what the camera undoes
    turned = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(quality=100, subsampling=0) if kind == "JPEG" else dict(lossless=True)
    image = loaded(tmp_path, f"x.{kind.lower()}", encoded(turned, kind, exif=exif, **options))
    assert (image.int() - torch.from_numpy(pixels).permute(2, 0, 1).int()).abs().max() < 40


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"garbage", b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40])
def test_damaged_exif_hides_no_sound_pixels(tmp_path, kind, exif, loaded):
    picture = Image.new("RGB", (4, 4), (200, 100, 0))
    content = encoded(picture, kind, exif=b"Exif\0\0" + exif, **dict(lossless=True) if kind == "WEBP" else {})
    with warnings.catch_warnings(action="error"):
        image = loaded(tmp_path, f"x.{kind.lower()}", content)
    assert (image[:, 0, 0].int() - torch.tensor([200, 100, 0])).abs().max() < 4


def test_a_flipped_bit_in_the_exif_of_a_png_file_hides_no_sound_pixels(tmp_path, loaded):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encoded(Image.new("RGB", (4, 4), (200, 100, 0)), "PNG", exif=exif))
    content[content.index(b"eXIf") + 9] ^= 1
    assert loaded(tmp_path, "x.png", bytes(content))[:, 0, 0].tolist() == [200, 100, 0]


def test_exif_damaged_elsewhere_still_turns_the_picture(tmp_path, loaded):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(exif.tobytes())
    content[14:16] = b"\2\0" if content[6:8] == b"II" else b"\0\2"  # one more entry, which is cut short
    picture = Image.fromarray(np.array([[0, 0, 255, 255]] * 4, np.uint8))
    image = loaded(tmp_path, "x.png", encoded(picture, "PNG", exif=bytes(content)))
    assert image[0, :, 0].tolist() == [0, 0, 255, 255]


# --- what lies in a folder ---


def test_what_systems_leave_in_folders_is_left_out(tmp_path, write_folder):
    write_folder(tmp_path, size=(8, 8))
    clean = data.load("folder", tmp_path, image_size=8)
    picture = (tmp_path / "test" / "ant" / "0.png").read_bytes()
    places = [tmp_path / "train", tmp_path / "test", tmp_path / "train" / "ant", tmp_path / "test" / "bee"]
    for place in places:
        for junk in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".hidden", "$RECYCLE.BIN"):
            (place / junk).mkdir()
            (place / junk / "0.png").write_bytes(picture)
        for file in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
            (place / file).write_bytes(b"not a picture")
    with warnings.catch_warnings(action="error"):
        assert data.load("folder", tmp_path, image_size=8).fingerprint == clean.fingerprint


def test_endings_in_capitals_and_folders_in_folders_are_read(tmp_path, write_folder):
    write_folder(tmp_path)
    clean = data.load("folder", tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "bee" / "more").mkdir()
        for k in range(3, 6):
            old = tmp_path / part / "bee" / f"{k}.png"
            old.rename(old.parent / "more" / f"{k}.PNG")
    assert data.load("folder", tmp_path).fingerprint == clean.fingerprint


def test_a_class_of_unread_files_is_named_with_the_endings_that_are_read(tmp_path, write_folder):
    write_folder(tmp_path)
    for file in (tmp_path / "train" / "bee").iterdir():
        file.rename(file.with_suffix(".gif"))
    with pytest.raises(
        ValueError, match=r"^[^\n]*train holds no images for the classes bee \(\.gif alone\)[^\n]*$"
    ) as told:
        data.load("folder", tmp_path)
    assert "images end in .jpg, .jpeg, .png" in str(told.value) and ".webp" in str(told.value)


def test_single_files_that_are_not_used_are_counted_and_named_once(tmp_path, capsys, write_folder):
    write_folder(tmp_path)
    for name in ("ant/notes.txt", "bee/x.gif", "stray.png"):
        (tmp_path / "train" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"^3 of the files in [^\n]* are not used: [^\n]*$") as told:
        data.load("folder", tmp_path)
    (sentence,) = [str(warning.message) for warning in told]
    assert all(f"train/{name}" in sentence for name in ("ant/notes.txt", "bee/x.gif", "stray.png"))
    assert (
        main(["--dataset", "folder", "--data_dir", str(tmp_path), "--n_epochs", "1", "--out", str(tmp_path / "r")]) == 0
    )
    said = [line for line in capsys.readouterr().err.splitlines() if "are not used" in line]
    assert said == [f"warning: {sentence}"]


def test_links_and_pipes_neither_hang_nor_multiply_images(tmp_path, write_folder):
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    write_folder(images)
    elsewhere.mkdir()
    (images / "train" / "bee").rename(elsewhere / "bee")
    (images / "train" / "bee").symlink_to(elsewhere / "bee")  # a class may lie elsewhere
    clean = data.load("folder", images)
    for name, target in {"here": ".", "up": "..", "top": "../..", "test": "../../test/ant", "root": "/"}.items():
        (images / "train" / "ant" / name).symlink_to(target)
    (elsewhere / "bee" / "again").symlink_to(elsewhere)
    (images / "train" / "ant" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(images / "train" / "ant" / "pipe.png")
    with pytest.warns(UserWarning, match="^8 of the files in .* are not used: ") as told:
        assert data.load("folder", images).fingerprint == clean.fingerprint
    assert "pipe.png" in str(told[0].message)


def test_what_is_not_a_promised_format_reaches_no_interpreter(tmp_path, monkeypatch, loaded):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("the interpreter was called"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    for file in (content, encoded(Image.new("P", (4, 4)), "GIF")):
        with pytest.raises(OSError, match=r"0 x\.png cannot be read as an image \(it is none of JPEG, PNG, BMP"):
            loaded(tmp_path, "x.png", file)


# --- streamed ---


@pytest.mark.slow
def test_a_streamed_split_works_where_processes_start_anew(tmp_path, write_folder):
    """As on macOS and Windows, where what a worker needs is pickled; on macOS Ctrl-C may come before it can heed it."""
    write_folder(tmp_path)
    code = """
import multiprocessing, sys, threading, torch
from mixer import data, folder, load_data

def end_workers():
    while not (workers := multiprocessing.active_children()):
        pass
    for worker in workers:
        worker.terminate()

if __name__ == "__main__":
    folder.WORKER_START = "spawn"
    whole = load_data("folder", sys.argv[1]).test.images
    data.MEMORY_LIMIT = 100
    threading.Thread(target=end_workers).start()
    images = torch.cat([images for images, _ in load_data("folder", sys.argv[1]).test.batches(torch.arange(12), 5)])
    print(torch.equal(images, whole))
"""
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout == "True\n", done.stderr


def test_a_streaming_process_that_is_killed_is_said(tmp_path, monkeypatch, write_folder):
    write_folder(tmp_path)
    monkeypatch.setattr("mixer.data.MEMORY_LIMIT", 100)
    streamed = data.load("folder", tmp_path)
    monkeypatch.setattr("mixer.folder.read_image", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match=r"^a process that reads the images in [^\n]* has ended"):
        list(streamed.test.batches(torch.arange(12), 4))


@pytest.fixture
def begun(tmp_path, monkeypatch, write_folder):
    """The batches of a streamed split, of which one has been taken."""
    monkeypatch.setattr("mixer.data.MEMORY_LIMIT", 100)
    streamed = data.load("folder", write_folder(tmp_path), image_size=64)
    batches = streamed.test.batches(torch.arange(12), 2)
    next(batches)
    return batches


def test_a_process_that_is_killed_between_two_batches_is_said_at_the_next(begun):
    """Neither at another line, nor never: the queue may hold the half of a batch that was being sent."""
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(OSError, match=r"^a process that reads the images in [^\n]* has ended"):
        next(begun)


def test_a_signal_to_all_processes_leaves_those_that_read_images_alive(begun):
    next(begun)  # from the second process: now both have begun, and know which signals to ignore
    for worker in multiprocessing.active_children():
        worker.terminate()
    assert sum(len(labels) for _, labels in begun) == 8


@pytest.mark.slow
def test_a_program_ends_before_it_has_taken_all_batches(tmp_path, write_folder):
    code = """
import sys, torch
from mixer import data
data.MEMORY_LIMIT = 100
batches = data.load("folder", sys.argv[1]).test.batches(torch.arange(12), 2)
next(batches)
"""
    command = [sys.executable, "-c", code, write_folder(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0


def test_streaming_changes_no_state_of_the_process(tmp_path, monkeypatch, write_folder):
    monkeypatch.setattr("mixer.data.MEMORY_LIMIT", 100)
    streamed = data.load("folder", write_folder(tmp_path), image_size=8)
    handler, numbers = signal.getsignal(signal.SIGCHLD), torch.get_rng_state()
    batches = streamed.test.batches(torch.arange(12), 4)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert torch.equal(torch.get_rng_state(), numbers)


def test_streamed_images_that_change_or_move_are_told_apart(tmp_path, monkeypatch, write_folder):
    monkeypatch.setattr("mixer.data.MEMORY_LIMIT", 100)
    before = data.load("folder", write_folder(tmp_path / "one")).fingerprint
    (tmp_path / "one").rename(tmp_path / "two")
    assert data.load("folder", tmp_path / "two").fingerprint == before
    Image.new("RGB", (50, 50)).save(tmp_path / "two" / "test" / "ant" / "0.png")
    assert data.load("folder", tmp_path / "two").fingerprint != before


# --- one picture, by a trained model ---


@pytest.mark.parametrize("shuffle", ["none", "patches", "global"])
def test_a_new_picture_is_prepared_as_in_training(tmp_path, shuffle, write_folder):
    """On pictures that are not square, are turned, and are transparent, over a background that is not the default."""
    write_folder(tmp_path, n=20, size=(30, 21))
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (tmp_path / "test" / "bee").iterdir():
        picture = Image.open(path).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path, exif=exif)
    options = ["--dataset", "folder", "--data_dir", tmp_path, "--image_size", 8, "--background", "#004080"]
    run = ["--n_epochs", 3, "--batch_size", 8, "--precision", "fp32", "--shuffle", shuffle, "--out", tmp_path / "run"]
    assert main([str(word) for word in options + run]) == 0
    model, about = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    images = load_data("folder", tmp_path, image_size=8, background="#004080").shuffled(shuffle, 4)
    expected = predict(model, images, images.test).softmax(dim=1)
    files = [path for name in ("ant", "bee") for path in sorted((tmp_path / "test" / name).iterdir())]
    for path, shares in zip(files, expected.tolist(), strict=True):
        found = classify(model, about, path)
        assert [found[name] for name in ("ant", "bee")] == pytest.approx(shares, abs=1e-6)
        assert list(found.values()) == pytest.approx(sorted(shares, reverse=True), abs=1e-6)


def test_a_model_of_grey_images_sees_a_picture_in_grey(tmp_path):
    model, about = load_checkpoint(shipped_weights("digits-1"))
    digits = load_data("digits")
    expected = predict(model, digits, digits.test).softmax(dim=1)
    for i in range(5):
        grey = Image.fromarray(digits.test.images[i, 0].numpy())
        ink = Image.new("LA", (8, 8), (255, 0))
        ink.putalpha(grey)
        for name, picture in {"grey": grey, "colour": grey.convert("RGB"), "ink": ink}.items():
            picture.save(tmp_path / f"{name}.png")
            found = classify(model, about, tmp_path / f"{name}.png")
            assert [found[name] for name in digits.class_names] == pytest.approx(expected[i].tolist(), abs=1e-5)


def test_what_cannot_be_classified_is_refused_in_a_sentence(tmp_path):
    model, about = load_checkpoint(shipped_weights("digits-1"))
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(OSError, match=r"^[^\n]*nowhere\.png cannot be read as an image \(it is no file\)"):
        classify(model, about, tmp_path / "nowhere.png")
    bad = [{"mean": [0.5] * 3}, {"mean": 0.5}, {"mean": [math.nan]}, {"std": [0]}, {"std": ["1"]}, {"std": None}]
    bad += [{"class_names": names} for names in (["one"], ["one"] * 10, "0123456789")]
    for changes in bad:
        with pytest.raises(
            ValueError, match=r"metadata a mean and a std above 0 for each of them, and for each output"
        ):
            classify(model, {**about, **changes}, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"^the model is a ConvolutionalMixer; give an MLPMixer"):
        classify(to_convolution(model), about, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"weights of float16; make them float32 with model\.float\(\)"):
        classify(copy.deepcopy(model).half(), about, tmp_path / "x.png")
    del about["mean"], about["std"]
    with pytest.raises(ValueError, match=r"^the checkpoint lacks mean, std; save it again with these in its metadata$"):
        classify(model, about, tmp_path / "x.png")
