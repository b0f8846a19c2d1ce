"""The figures of the chapters, in one style: colour-blind-safe, and readable on a light and on a dark page.

A function that takes axes draws on them; the others whose names begin with `draw_` make a new figure and return it.
Weights use a diverging map centred on 0.
"""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from IPython.display import SVG
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, safe for colour-blind
WEIGHTS = "RdBu_r"
LINE = "#7d8694"
ARROW = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
BOXES = {  # fill and edge of each kind of box, as in the picture of the architecture
    "data": ("#e6e9ee", LINE),
    "part": ("#cdeee3", COLOURS[2]),
    "tokens": ("#cfe6f5", COLOURS[0]),
    "channels": ("#fbdfcb", COLOURS[1]),
    "sum": ("white", LINE),
}


def set_style() -> None:
    """Use the style of the book for all figures that follow."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 10,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "font.size": 10,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "savefig.facecolor": "white",
            "svg.hashsalt": "mlp-mixer-book",  # the same names in a drawing each time
        }
    )


def draw_image(axes: Axes, image: Tensor, **options) -> None:
    """Draw one image [C, H, W] on axes, grey or colour, without ticks."""
    picture = image.detach().cpu()
    axes.imshow(picture[0] if len(picture) == 1 else picture.permute(1, 2, 0), **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def grid_of_axes(n: int, n_columns: int, size: float) -> tuple[Figure, list[Axes]]:
    """A figure with n axes in rows of n_columns, each `size` inches wide, and the unused ones blank."""
    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    height = size * n_rows + 0.3
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(size * n_columns, height), squeeze=False)
    for blank in axes.flat[n:]:
        blank.axis("off")
    return figure, list(axes.flat[:n])


def draw_images(images: Tensor, titles: Sequence[str] = (), n_columns: int = 10, size: float = 0.8) -> Figure:
    """Images [n, C, H, W] side by side: uint8, or float, grey scaled to each image's own range, colours in [0, 1]."""
    figure, axes = grid_of_axes(len(images), n_columns, size)
    for i, (ax, image) in enumerate(zip(axes, images, strict=True)):
        draw_image(ax, image, **({"vmin": 0, "vmax": 255} if image.dtype == torch.uint8 else {}))
        ax.set_title(titles[i] if i < len(titles) else "")
    return figure


def draw_weights(maps: Tensor, titles: Sequence[str] = (), n_columns: int = 10, size: float = 0.8) -> Figure:
    """Maps of weights [n, rows, columns], red above 0 and blue below, each scaled to its own largest weight."""
    figure, axes = grid_of_axes(len(maps), n_columns, size)
    for i, (ax, weights) in enumerate(zip(axes, maps.detach().cpu(), strict=True)):
        limit = weights.abs().max().item() or 1.0
        draw_image(ax, weights[None], cmap=WEIGHTS, vmin=-limit, vmax=limit)
        ax.set_title(titles[i] if i < len(titles) else "")
    return figure


def draw_patches(image: Tensor, patch_size: int, size: float = 5.0) -> Figure:
    """An image [C, H, W] with the borders of its patches, numbered in row-major order."""
    figure, axes = plt.subplots(figsize=(size, size * image.shape[1] / image.shape[2]))
    draw_image(axes, image)
    _, H, W = image.shape
    for i, top in enumerate(range(0, H, patch_size)):
        for j, left in enumerate(range(0, W, patch_size)):
            corner = (left - 0.5, top - 0.5)
            axes.add_patch(plt.Rectangle(corner, patch_size, patch_size, fill=False, color="white", linewidth=1))
            number = i * (W // patch_size) + j
            style = {"color": "white", "ha": "center", "va": "center", "fontsize": 10}
            box = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}
            axes.text(left + patch_size / 2 - 0.5, top + patch_size / 2 - 0.5, number, bbox=box, **style)
    return figure


def draw_table(table: Tensor, rows: str, columns: str, title: str = "", size: float = 4.0) -> Figure:
    """A table of numbers [rows, columns] as a heat map centred on 0, with the names of its two axes."""
    figure, axes = plt.subplots(figsize=(size, max(1.2, min(2 * size, size * table.shape[0] / table.shape[1])) + 0.6))
    limit = table.abs().max().item() or 1.0
    shown = axes.imshow(table.detach().cpu(), cmap=WEIGHTS, vmin=-limit, vmax=limit, aspect="auto")
    axes.set(xlabel=columns, ylabel=rows, title=title)
    figure.colorbar(shown, ax=axes)
    return figure


def draw_history(history: Sequence[dict], size: float = 4.0) -> Figure:
    """Loss and accuracy of a training run, epoch by epoch, on the training and the validation images."""
    figure, axes = plt.subplots(1, 2, figsize=(2 * size, 0.75 * size))
    epochs = [record["epoch"] for record in history]
    for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for part, line in (("train", "-"), ("validation", "--")):
            ax.plot(epochs, [record[f"{part}_{quantity}"] for record in history], line, label=part)
        ax.set(xlabel="epoch", ylabel=quantity)
        ax.legend()
    return figure


def draw_confusion(counts: Tensor, class_names: Sequence[str], size: float = 4.5) -> Figure:
    """A confusion matrix [n_class, n_class], row the true class and column the predicted one, with its counts."""
    figure, axes = plt.subplots(figsize=(size, size))
    counts = counts.cpu()
    axes.imshow(counts.float().sqrt(), cmap="Blues")
    for true, row in enumerate(counts.tolist()):
        for predicted, count in enumerate(row):
            colour = "white" if count > counts.max() / 3 else "black"
            axes.text(predicted, true, count or "", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(class_names))
    axes.set(xticks=ticks, yticks=ticks, xlabel="predicted class", ylabel="true class")
    axes.set_xticklabels(class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_yticklabels(class_names)
    return figure


def draw_flow(
    axes: Axes, boxes: Sequence[tuple[str, str]], notes: Sequence[str] = (), arrows: Sequence[str] = ()
) -> None:
    """Boxes at 0, 1, 2, … in a row, with a note below each, joined by arrows with words above them.

    Args:
        axes: where to draw; the row stands at height 0.
        boxes: the words in each box, and its kind, a key of BOXES.
        notes: the words below each box.
        arrows: the words above each arrow.
    """
    axes.set_aspect("equal")
    axes.axis("off")
    half = [0.16 if kind == "sum" else 0.2 if arrows else 0.39 for _, kind in boxes]  # of the width of each
    for i, (words, kind) in enumerate(boxes):
        (fill, edge), height = BOXES[kind], 0.16 if kind == "sum" else 0.29
        style = f"round,pad=0,rounding_size={height if kind == 'sum' else 0.05}"
        corner, width = (i - half[i], -height), 2 * half[i]
        axes.add_patch(FancyBboxPatch(corner, width, 2 * height, style, facecolor=fill, edgecolor=edge))
        axes.text(i, -0.01, words, ha="center", va="center", fontsize=8.5)
        axes.text(i, -0.38, notes[i] if notes else "", ha="center", va="top", fontsize=8)
    for i in range(1, len(boxes)):
        axes.annotate("", (i - half[i], 0), (i - 1 + half[i - 1], 0), arrowprops=ARROW)
        axes.text(i - 0.5, 0.08, arrows[i - 1] if arrows else "", ha="center", va="bottom", fontsize=8)


def draw_detour(axes: Axes, start: float, end: float, height: float, words: str = "") -> None:
    """An arrow around the boxes of a row: from `start` to `height`, along, and back to the row at `end`."""
    axes.plot([start, start, end, end], [0, height, height, 0.8 * height], color=LINE, linewidth=1.5, zorder=0)
    axes.annotate("", (end, 0.5 * height), (end, 0.9 * height), arrowprops=ARROW)
    axes.text((start + end) / 2, height + 0.04, words, ha="center", va="bottom", fontsize=8)


def as_svg(figure: Figure) -> SVG:
    """A drawing as SVG, which stays sharp at every size; the figure is closed."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
    return SVG(file.getvalue())
