"""ConvolutionTwin: one hidden unit of token mixing as a row of W1 and as a convolution kernel."""

from pathlib import Path

import numpy as np
import torch
import traitlets
from torch import Tensor

from mixer.checkpoint import load
from mixer.config import check_mlps
from mixer.data import normalise
from mixer.widgets.figure import Choice, Engine, LiveFigure, check_choice, check_finite, sheet


class ConvolutionTwin(LiveFigure):
    """One hidden unit of token mixing, drawn as a row of W1 and as a kernel that covers the whole map.

    Product by product, the two add up to the same number; with the bias and through GELU it is the unit's activation.
    Beside them slides a kernel of 3×3, cut out of the unit's own. A shift moves the maps of LN(X) by whole patches on a
    ring: the answers of the small kernel move along, what token mixing writes does not.

    Traits: `unit`, the hidden unit; `channel`, the channel that it reads; `example`, the image; `n_added`, how many
    products are added so far, from 0 to n_tokens; `down` and `right`, the shift in patches.

    Args:
        path: a checkpoint with the mean and std of its data, as the training command writes it.
        images: uint8 [n, C_in, H, W], as they come from the data set; the first is shown first.
        layer: whose token mixing, counted from 0.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint or the images are not such, or there is no such layer.
    """

    MODULE = "twin.js"
    engine = Engine()
    images = traitlets.Bytes().tag(sync=True)  # uint8 [n, C_in, H, W]
    normed = traitlets.Bytes().tag(sync=True)  # LN(X), float32 [n, n_channel, n_tokens]
    W1 = traitlets.Bytes().tag(sync=True)  # float32 [n_hidden_token, n_tokens]
    b1 = traitlets.Bytes().tag(sync=True)  # float32 [n_hidden_token]
    W2 = traitlets.Bytes().tag(sync=True)  # float32 [n_tokens, n_hidden_token]
    b2 = traitlets.Bytes().tag(sync=True)  # float32 [n_tokens]
    shape = traitlets.List(traitlets.Int()).tag(sync=True)  # of an image, [C_in, H, W]
    grid = traitlets.List(traitlets.Int()).tag(sync=True)  # of the patches, [rows, columns]
    counts = traitlets.Dict().tag(sync=True)  # how many values each of the six traits below can have
    layer = traitlets.Int().tag(sync=True)
    gelu = traitlets.Unicode().tag(sync=True)
    unit = Choice(0)
    channel = Choice(0)
    example = Choice(0)
    n_added = Choice(0)
    down = Choice(0)
    right = Choice(0)

    def __init__(self, path: str | Path, images: Tensor, layer: int = 0):
        model, metadata = load(path)
        check_mlps(model.sizes, "a figure of the convolutional twin")
        check_choice("layer", layer, range(len(model.layers)))
        if metadata.get("shuffle", "none") != "none" or not {"mean", "std"} <= metadata.keys():
            raise ValueError(f"{path} lacks mean and std or shuffles pixels; choose one that train.py wrote unshuffled")
        if images.dtype != torch.uint8 or images.shape[1:] != model.image_shape or not len(images):
            expected = ", ".join(map(str, model.image_shape))
            raise ValueError(f"the images are {images.dtype} {list(images.shape)}; they must be uint8 [n, {expected}]")
        check_finite(*model.parameters())
        images = images.cpu()
        with torch.no_grad():
            _, results = model.forward_intermediates(normalise(images, metadata["mean"], metadata["std"]))
            x = results[f"layers.{layer - 1}.channel_mixing" if layer else "tokens"]  # [n, n_tokens, n_channel]
            block = model.layers[layer].token_mixing
            normed = block.norm(x).transpose(1, 2)  # [n, n_channel, n_tokens]
        self._fc1, self._gelu = block.fc1, block.gelu
        n, n_channel, _ = normed.shape
        rows, columns = model.grid
        W1 = block.fc1.weight
        super().__init__(
            images=as_bytes(images),
            normed=as_bytes(normed),
            W1=as_bytes(W1),
            b1=as_bytes(block.fc1.bias),
            W2=as_bytes(block.fc2.weight),
            b2=as_bytes(block.fc2.bias),
            shape=list(model.image_shape),
            grid=list(model.grid),
            counts=dict(
                unit=len(W1), channel=n_channel, example=n, n_added=model.n_tokens + 1, down=rows, right=columns
            ),
            layer=layer,
            gelu=model.config["gelu"],
            unit=W1.norm(dim=1).argmax().item(),  # the largest weights make the clearest picture
            n_added=model.n_tokens // 2,
        )

    @property
    def activation(self) -> float:
        """The activation of the unit on this channel of this image, shifted as shown, by the model's own layers."""
        with torch.no_grad():
            return self._gelu(self._fc1(self._channel().flatten()))[self.unit].item()

    def _channel(self) -> Tensor:
        """The map of LN(X) that is shown, shifted, [rows, columns]."""
        normed = torch.frombuffer(bytearray(self.normed), dtype=torch.float32).view(
            -1, self.counts["channel"], *self.grid
        )
        return normed[self.example, self.channel].roll((self.down, self.right), (0, 1))

    @traitlets.validate("unit", "channel", "example", "n_added", "down", "right")
    def _check(self, proposal):
        name = proposal.trait.name
        return check_choice(name, proposal.value, range(self.counts[name]))

    def still(self) -> tuple[np.ndarray, str]:
        rows, columns = self.grid
        values = self._channel().numpy()
        weights = np.frombuffer(self.W1, np.float32).reshape(-1, rows, columns)[self.unit]
        words = (
            f"Three maps of {rows} by {columns}: channel {self.channel} of an image, the kernel of hidden unit "
            f"{self.unit}, and their products, which add up to the unit's answer."
        )
        return sheet(np.stack([values, weights, values * weights]), 3), words


def as_bytes(numbers: Tensor) -> bytes:
    """The numbers of a tensor in order, as they lie in memory."""
    return numbers.detach().contiguous().numpy().tobytes()
