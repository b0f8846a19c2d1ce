"""Pictures of the reader's own, read from their files.

Each is set upright, drawn on a background colour where it is transparent, cut to its middle and resized.
"""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")  # nothing else is opened, whatever a file's name says
TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), start=2))  # EXIF orientation → Image.Transpose
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of a TIFF file
KEY_SCALES = {"'L;2'": 85, "'L;4'": 17}  # of grey values with 2 and 4 bits, which Pillow scales to 8


def colour(background: str) -> str:
    """An opaque colour as #rrggbb.

    Raises:
        ValueError: it is not one.
    """
    try:
        red, green, blue = ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"background is {background!r}; it must be a colour, as white, black or #ff8800") from None
    return f"#{red:02x}{green:02x}{blue:02x}"


def read_image(path: str | Path, size: tuple[int, int], background: str, mode: str = "RGB") -> np.ndarray:
    """The middle of one image file at the size (H, W): uint8 [3, H, W], or [1, H, W] in the mode "L".

    Raises:
        OSError: it is not a regular file, or not an image that can be read.
        MemoryError: it is too large.
    """
    reason = None if Path(path).is_file() else "it is no file"
    try:
        if not reason:
            with warnings.catch_warnings(action="ignore"), opened(path) as image:
                picture = upright(drawn(image, background), image).convert(mode)
    except UnidentifiedImageError:
        reason = f"it is none of {', '.join(FORMATS)}"
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason:
        raise OSError(f"{path} cannot be read as an image ({reason}); repair it or take it out of the folder")
    H, W = size
    if picture.size != (W, H):
        picture = ImageOps.fit(picture, (W, H), Image.Resampling.BICUBIC)
    return np.array(picture).reshape(H, W, -1).transpose(2, 0, 1)  # [C, H, W]


def opened(path: str | Path) -> Image.Image:
    """The image of a file, of one of FORMATS; where a PNG file is damaged in its EXIF data, without these."""
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        before, name, after = Path(path).read_bytes().partition(b"eXIf")  # a chunk: length, name, data, checksum
        if not name:
            raise
        length = int.from_bytes(before[-4:], "big")
        return Image.open(BytesIO(before[:-4] + after[length + 4 :]), formats=FORMATS)


def upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """A picture turned as the EXIF data of its file ask for; where these are damaged, as it is."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises many kinds
        turn = None
    return picture if turn is None else picture.transpose(turn)


def drawn(image: Image.Image, background: str) -> Image.Image:
    """A file's image with 8 bits per channel, its transparent pixels on the background.

    Raises:
        ValueError: the range of its values is not known, or nothing in it stands out from the background.
    """
    picture = eight_bits(image)
    if picture.mode not in ("LA", "PA", "RGBA") and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    result = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert("RGB")
    if is_plain(result) and not is_plain(picture):
        raise ValueError(f"on the background {background} it is one plain colour; choose another background")
    return result


def is_plain(picture: Image.Image) -> bool:
    """Whether all pixels are alike."""
    return all(low == high for low, high in picture.getextrema())


def eight_bits(image: Image.Image) -> Image.Image:
    """A file's image with 8 bits per channel, and with its transparent colour, if it has one, on the same scale.

    Raises:
        ValueError: the range of its values is not known.
    """
    stored = str(image.tile[:1])  # the layout of the pixels in the file, until they are read
    if "BGRX" in stored:  # of 32 bits, whose fourth channel Pillow leaves out
        image.fp.seek(image.tile[0][2])  # the offset; before Pillow 11 it has no name
        fourth = np.frombuffer(image.fp.read(4 * image.width * image.height), np.uint8)[3::4]
        if fourth.min() != fourth.max():
            raise ValueError("its fourth channel, perhaps transparency, cannot be read: save it as PNG")
    image.load()
    tags, key = getattr(image, "tag_v2", {}), image.info.get("transparency")
    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if (image.mode[0] in "IF" and not is_deep) or set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:
        raise ValueError("its values are fractions, signed or of 32 bits: save it with 8 or 16 bits per channel")
    picture = image
    if is_deep:
        values = np.asarray(image).astype(np.int64)
        grey = values * 255 // (4095 if "I;12" in stored else 65535)
        grey = 255 - grey if tags.get(PHOTOMETRIC) == 0 else grey  # 0 is white: up to 8 bits, Pillow minds it
        picture = Image.fromarray(grey.astype(np.uint8))
        if key is not None:
            picture.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    elif isinstance(key, tuple) and ";16" in stored:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int):
        image.info["transparency"] = key * max([scale for name, scale in KEY_SCALES.items() if name in stored] or [1])
    if ";16" in stored or "65535" in stored:
        brightest = max(high for _, high in picture.convert("RGB").getextrema())
        is_cut = 0 < values.max() < 257 if is_deep else is_plain(picture)  # of colours Pillow drops the low byte
        if 0 < brightest <= 16 or (brightest == 0 and is_cut):
            raise ValueError("its 16 bits hold values of 12 bits or fewer, which are nearly black: scale them to 65535")
    return picture
