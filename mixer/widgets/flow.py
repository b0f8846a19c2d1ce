"""MixerFlow: a Mixer that computes in the page what is drawn there, with every table on the way to the answer."""

from pathlib import Path

import numpy as np
import torch
import traitlets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mixer import checkpoint
from mixer.config import check_mlps
from mixer.data import normalise
from mixer.model import MLPMixer
from mixer.widgets.figure import Choice, Engine, LiveFigure, check_choice, check_finite

MOST_LAYERS = 32  # of the engine
LARGEST = 500_000  # parameters: the page holds them as float16, 1 MB
MOST_IMAGES = 40  # stored images, each with a small picture of its own


class MixerFlow(LiveFigure):
    """A grey image on its way through a Mixer: patches, tokens, both MLPs of every layer, the mean, the probabilities.

    The model itself runs in the page, with its weights rounded to float16. The figure also shows what one token is
    about to be mixed from. With h = W₁·LN(X) + b₁, the token-mixing MLP changes channel c of token t by
    Σᵤ W₂[t,u]·gelu(h[c,u]) + b₂[t]. The derivative of that with respect to LN(X)[s,c] is
    J[t,s,c] = Σᵤ W₂[t,u]·gelu′(h[c,u])·W₁[u,s]. The influence of token s on token t is the mean over c of its size.

    Traits: `image`, the H·W grey values on the board as bytes; `example`, which stored image that is, -1 for another;
    `layer` and `token`, what is looked at; `mixing`, for each layer whether its token mixing is on; `order`, which
    patch of the image stands at each place, 0 to n_tokens - 1 unless they are shuffled; `probabilities`, one for each
    class, which follow `image`, `mixing` and `order`.

    Args:
        path: the checkpoint of a model of grey images.
        images: the stored images to choose from, uint8 [n, 1, H, W]; the first is on the board at first.
        labels: the class of each stored image, n whole numbers, if known.

    Raises:
        FileNotFoundError: there is no checkpoint at `path`.
        ValueError: the checkpoint cannot be shown, or the images or the labels do not fit it.
    """

    MODULE = "flow.js"
    engine = Engine()
    config = traitlets.Dict().tag(sync=True)
    tensors = traitlets.List().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    mean = traitlets.Float().tag(sync=True)
    std = traitlets.Float().tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    labels = traitlets.List(traitlets.Int()).tag(sync=True)
    image = traitlets.CBytes().tag(sync=True)
    example = Choice(0)
    layer = Choice(0)
    token = Choice(0)
    mixing = traitlets.List(traitlets.Bool()).tag(sync=True)
    order = traitlets.List(traitlets.Int()).tag(sync=True)
    probabilities = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(self, path: str | Path, images: Tensor, labels: Tensor | list[int] | None = None):
        model, about = checkpoint.load(path)
        check_model(path, model, about)
        check_images(images, model)
        labels = [int(label) for label in ([] if labels is None else labels)]
        check_labels(labels, len(images), about["class_names"])
        self._model = model.half().float()  # the numbers that the page has
        check_finite(*self._model.parameters())
        tensors = self._model.state_dict()
        stored = images.cpu().contiguous().numpy()
        rows, columns = model.grid
        super().__init__(
            config=model.config,
            tensors=[[name, list(tensor.shape)] for name, tensor in tensors.items()],
            weights=b"".join(tensor.half().numpy().astype("<f2").tobytes() for tensor in tensors.values()),
            mean=about["mean"][0],
            std=about["std"][0],
            class_names=about["class_names"],
            images=stored.tobytes(),
            labels=labels,
            image=stored[0].tobytes(),
            token=rows // 2 * columns + columns // 2,
            mixing=[True] * len(model.layers),
            order=list(range(model.n_tokens)),
        )

    @property
    def predicted(self) -> str:
        """The name of the class with the highest probability."""
        return self.class_names[int(np.argmax(self.probabilities))]

    @traitlets.validate("image")
    def _check_image(self, proposal):
        n_pixels = self._n_pixels
        if len(proposal.value) != n_pixels:
            raise ValueError(f"image has {len(proposal.value)} bytes; give {n_pixels}, one grey value for each pixel")
        return proposal.value

    @traitlets.validate("example")
    def _check_example(self, proposal):
        return check_choice("example", proposal.value, range(-1, len(self.images) // self._n_pixels))

    @traitlets.validate("layer")
    def _check_layer(self, proposal):
        return check_choice("layer", proposal.value, range(len(self._model.layers)))

    @traitlets.validate("token")
    def _check_token(self, proposal):
        return check_choice("token", proposal.value, range(self.n_tokens))

    @traitlets.validate("mixing")
    def _check_mixing(self, proposal):
        n_layers = len(self._model.layers)
        if len(proposal.value) != n_layers:
            raise ValueError(f"mixing has {len(proposal.value)} values; give {n_layers}, True or False for each layer")
        return proposal.value

    @traitlets.validate("order")
    def _check_order(self, proposal):
        if sorted(proposal.value) != list(range(self.n_tokens)):
            raise ValueError(f"order is {proposal.value}; give each number from 0 to {self.n_tokens - 1} once")
        return proposal.value

    @traitlets.observe("example")
    def _show_example(self, _):
        if self.example >= 0:
            self.image = self._stored(self.example)

    @traitlets.observe("image")
    def _leave_example(self, _):
        if self.example >= 0 and self.image != self._stored(self.example):
            self.example = -1

    @traitlets.observe("image", "mixing", "order")
    def _predict(self, _):
        self.probabilities = self._tables()[-1].softmax(dim=1)[0].tolist()

    @property
    def n_tokens(self) -> int:
        """Into how many patches an image is cut."""
        return self._model.n_tokens

    @property
    def _n_pixels(self) -> int:
        _, H, W = self._model.image_shape
        return H * W

    def _stored(self, example: int) -> bytes:
        return self.images[example * self._n_pixels : (example + 1) * self._n_pixels]

    @torch.no_grad()
    def _tables(self) -> list[Tensor]:
        """The tokens, the table after each layer, all [1, n_tokens, n_channel], and the logits [1, n_output]."""
        pixels = torch.frombuffer(bytearray(self.image), dtype=torch.uint8).view(1, *self._model.image_shape)
        patches = self._model.patches(normalise(pixels, [self.mean], [self.std]))[:, self.order]
        x = self._model.per_patch(patches)  # [1, n_tokens, n_channel]
        tables = [x]
        for layer, on in zip(self._model.layers, self.mixing, strict=True):
            x = layer(x) if on else layer.channel_mixing(x)  # [1, n_tokens, n_channel]
            tables.append(x)
        return [*tables, self._model.output(x)]

    def still(self) -> tuple[np.ndarray, str]:
        *tables, _ = self._tables()
        _, H, W = self._model.image_shape
        figure = Figure(figsize=(8, 1.9), dpi=80, layout="constrained")  # 640 pixels, as wide as the page shows it
        panels = figure.subplots(1, len(tables) + 2)
        panels[0].imshow(np.frombuffer(self.image, np.uint8).reshape(H, W), cmap="gray", vmin=0, vmax=255)
        panels[0].set_title("image", fontsize=9)
        for i, (panel, table) in enumerate(zip(panels[1:], tables, strict=False)):
            limit = table.abs().max().item()
            panel.imshow(table[0], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
            panel.set_title(f"layer {i - 1}" if i else "tokens", fontsize=9)
        for panel in panels[:-1]:
            panel.set(xticks=[], yticks=[])
        panels[-1].barh(range(len(self.class_names)), self.probabilities, color="#0072b2")
        panels[-1].set_yticks(range(len(self.class_names)), [name[:12] for name in self.class_names], parse_math=False)
        panels[-1].set(xlim=(0, 1), xticks=[0, 1])
        panels[-1].invert_yaxis()
        panels[-1].tick_params(labelsize=7)
        panels[-1].set_title("probabilities", fontsize=9)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        words = (
            f"An image of {H} by {W} pixels, its tokens, the table after each of {len(self.mixing)} layers, and a bar "
            f"for the probability of each class; the model says {self.predicted} ({max(self.probabilities):.1%})."
        )
        return np.asarray(canvas.buffer_rgba())[..., :3].copy(), words


def check_model(path: str | Path, model: MLPMixer, about: dict) -> None:
    """Raise ValueError unless the model of a checkpoint can run in a page on images that a reader draws."""
    if model.image_shape[0] != 1:
        raise ValueError(f"the model of {path} takes {model.image_shape[0]} image channels; choose one of grey images")
    check_mlps(model.sizes, f"a page that shows the model of {path}")
    if model.n_parameters > LARGEST:
        raise ValueError(f"the model of {path} has {model.n_parameters:,} parameters; a page takes up to {LARGEST:,}")
    if len(model.layers) > MOST_LAYERS:
        raise ValueError(f"the model of {path} has {len(model.layers)} layers; a page takes up to {MOST_LAYERS}")
    missing = [key for key in ("mean", "std", "class_names") if not about.get(key)]
    if missing:
        raise ValueError(f"{path} does not say its {', '.join(missing)}; save it with them, as train.py does")
    if len(about["class_names"]) != model.config["n_output"]:
        n, n_output = len(about["class_names"]), model.config["n_output"]
        raise ValueError(f"{path} names {n} classes, but its model has {n_output} outputs; save it with {n_output}")
    if about.get("shuffle", "none") != "none":
        raise ValueError(f"the model of {path} was trained on shuffled pixels; choose one that was not")


def check_images(images: Tensor, model: MLPMixer) -> None:
    """Raise ValueError unless the stored images are uint8 [n, 1, H, W] of the model's size, and not too many."""
    if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != model.image_shape:
        expected = ", ".join(str(n) for n in model.image_shape)
        got = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"the images are {got}; for this model they must be uint8 [n, {expected}]")
    if not 1 <= len(images) <= MOST_IMAGES:
        raise ValueError(f"there are {len(images)} images; choose from 1 to {MOST_IMAGES} of them")


def check_labels(labels: list[int], n_images: int, class_names: list[str]) -> None:
    """Raise ValueError unless there are no labels, or one class for each image."""
    if labels and len(labels) != n_images:
        raise ValueError(f"there are {len(labels)} labels for {n_images} images; give one for each, or none")
    for label in labels:
        check_choice("a label", label, range(len(class_names)))
