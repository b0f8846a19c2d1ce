"""Base class of the live figures: an anywidget that is also alive in a page without a kernel.

A figure is one class here and one ES module beside it. With a kernel it is an ipywidgets widget, whose traits later
cells read and set. Without one, `text/html` in its output holds the state, the same module and a still picture, and a
small script gives the module a model made from that state.
"""

import base64
import html
import io
import json
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from mixer.data import DataSet
from mixer.widgets.modules import join

FOLDER = Path(__file__).parent
NO_SCRIPTS = "This is a still picture. Where scripts run, in the built book or in Jupyter, the figure is alive."


def source(name: str) -> str:
    """A file of this folder as text."""
    return (FOLDER / name).read_text(encoding="utf-8")


class LiveFigure(anywidget.AnyWidget):
    """A figure that is alive with a kernel and without one.

    A subclass names its module in `MODULE`, declares its state as traits tagged `sync=True`, and gives a still picture.
    """

    MODULE = ""
    _css = source("figure.css")

    def __init_subclass__(cls, **options):
        if "MODULE" in cls.__dict__:  # not in the subclasses that ipywidgets makes for single objects
            cls._esm = join(FOLDER, cls.MODULE)
        super().__init_subclass__(**options)

    def still(self) -> tuple[np.ndarray, str]:
        """A picture of the state, uint8 [rows, columns, 3], and what is to be seen on it, in words."""
        raise NotImplementedError

    def state(self) -> dict:
        """The traits of this figure by name, as JSON; bytes become {"base64": text}."""
        inherited = {*anywidget.AnyWidget.class_trait_names(), "_esm", "_css", "_anywidget_id"}
        values = {name: getattr(self, name) for name in self.trait_names(sync=True) if name not in inherited}
        return {k: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for k, v in values.items()}

    def to_html(self) -> str:
        """The figure for a page without a kernel; nothing in the state can end the script that holds it."""
        payload = json.dumps({"state": self.state(), "module": self._esm, "css": self._css}, sort_keys=True)
        payload = payload.replace("<", "\\u003c")
        pixels, words = self.still()
        picture = base64.b64encode(png(pixels)).decode()
        size = "width: 100%; max-width: 40rem; image-rendering: pixelated"
        return (
            f'<div class="mixer-figure"><div class="mixer-still"><img style="{size}" alt="{html.escape(words)}" '
            f'src="data:image/png;base64,{picture}"><p>{NO_SCRIPTS}</p></div>\n'
            f'<script type="application/json">{payload}</script>\n<script>{source("host.js")}</script></div>'
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        data, about = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self.to_html()}, about


def png(pixels: np.ndarray) -> bytes:
    """An uint8 picture [rows, columns, 3] as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def colours(values: np.ndarray, limit: float) -> np.ndarray:
    """Weights [rows, columns] as colours, uint8 [rows, columns, 3]: blue below 0, red above, white at 0."""
    shares = np.clip(np.asarray(values) / (limit or 1.0), -1, 1) / 2 + 0.5
    return matplotlib.colormaps["RdBu_r"](shares, bytes=True)[..., :3]


def sheet(maps: np.ndarray, n_columns: int) -> np.ndarray:
    """Maps [n, rows, columns], each scaled to its own largest weight, side by side as one uint8 picture."""
    n, rows, columns = maps.shape
    n_rows = -(-n // n_columns)
    picture = np.full((n_rows * (rows + 1) - 1, n_columns * (columns + 1) - 1, 3), 255, np.uint8)
    for i, values in enumerate(maps):
        top, left = i // n_columns * (rows + 1), i % n_columns * (columns + 1)
        picture[top : top + rows, left : left + columns] = colours(values, np.abs(values).max())
    return picture


class Engine(traitlets.Bytes):
    """The compiled engine, which computes in the page what a Mixer does; synced to the page."""

    def __init__(self):
        super().__init__((FOLDER / "engine.wasm").read_bytes())
        self.tag(sync=True)


class Choice(traitlets.Int):
    """A whole number that a validator of the figure keeps within what there is to choose from; synced both ways."""

    def __init__(self, default: int = 0, **options):
        super().__init__(default, **options)
        self.tag(sync=True)


def check_choice(name: str, value: int, allowed: range | list[int]) -> int:
    """The value, if it is allowed.

    Raises:
        ValueError: it is not; the sentence says what is.
    """
    if value not in allowed:
        some = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(f"{name} is {value}; choose from {some}")
    return value


def check_image(image: Tensor, largest: int) -> None:
    """Check the image of a figure, of at most so many numbers.

    Raises:
        ValueError: it is not uint8 [C_in, H, W] with 1 or 3 channels, or too large.
    """
    if image.dtype != torch.uint8 or image.dim() != 3 or len(image) not in (1, 3):
        got = f"{image.dtype} {list(image.shape)}"
        raise ValueError(f"the image is {got}; it must be uint8 [C_in, H, W] with 1 or 3 channels")
    if image.numel() > largest:
        raise ValueError(f"the image has {image.numel():,} numbers; resize it to {largest:,} at the most")


def check_finite(*tensors: Tensor) -> None:
    """Raise ValueError unless every number is finite."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError(
            "a weight of the model is not a finite number, or too large for float16; train it anew with a smaller lr"
        )


def check_trainable(data: DataSet) -> None:
    """Raise ValueError unless the engine of a page can train on images of so many channels and classes."""
    if (C := data.image_shape[0]) > 3:
        raise ValueError(f"the images of {data.name} have {C} channels; a page takes at most 3")
    if not 2 <= len(data.class_names) <= 256:
        raise ValueError(f"{data.name} has {len(data.class_names)} classes; a page takes from 2 to 256")
