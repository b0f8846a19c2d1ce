"""FilterExplorer: a filter of the per-patch layer, moved over an image."""

import math

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from torch import Tensor

from mixer.config import patch_grid
from mixer.data import normalise
from mixer.widgets.figure import Choice, LiveFigure, check_choice, check_finite, check_image, colours

LARGEST = 96 * 96 * 3  # numbers in an image
MOST_FILTERS = 32  # each has a button of its own


class FilterExplorer(LiveFigure):
    """A filter moved over an image: pixels times weights, their sum plus the bias, and the map of all such numbers.

    A filter is one row of the weight of a per-patch layer. With the patch size as the stride the numbers are those of
    one channel of the tokens; with stride 1 the filter stands at every pixel where it fits.

    Traits: `filter`, the index of the chosen one; `row` and `column`, the upper left pixel of the patch, multiples of
    `stride`, which is the patch size or 1.

    Args:
        image: uint8 [C_in, H, W], grey or colour.
        weight: [n_filters, C_in · P²], rows of the weight of a `PerPatchMLP`, each in the order (channel, row, column).
        bias: [n_filters], the bias of each.
        mean, std: of each colour channel, by which the layer's images are normalised, as `mixer.data.normalise` does.
        names: of the filters; by default "filter 0" and so on.

    Raises:
        ValueError: the image is not such a tensor or too large, the weight fits no square patch that divides it, there
            are more than 32 filters, or another size or number is wrong.
    """

    MODULE = "filter.js"
    image = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)  # of the image, [C_in, H, W]
    weight = traitlets.Bytes().tag(sync=True)  # float32 [n_filters, C_in · P²]
    bias = traitlets.Bytes().tag(sync=True)  # float32 [n_filters]
    patch_size = traitlets.Int().tag(sync=True)
    mean = traitlets.List(traitlets.Float()).tag(sync=True)
    std = traitlets.List(traitlets.Float()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    filter = Choice(0)
    row = Choice(0)
    column = Choice(0)
    stride = Choice(1)

    def __init__(self, image: Tensor, weight: Tensor, bias: Tensor, mean: list, std: list, names: list | None = None):
        P = patch_side(image, weight)
        weight, bias = weight.detach().float().cpu(), bias.detach().float().cpu()
        names = [f"filter {i}" for i in range(len(weight))] if names is None else list(names)
        check_lengths(image, weight, bias, mean, std, names)
        check_finite(weight, bias)
        _, H, W = image.shape
        rows, columns = patch_grid((H, W), P)
        super().__init__(
            image=image.cpu().contiguous().numpy().tobytes(),
            shape=list(image.shape),
            weight=weight.contiguous().numpy().tobytes(),
            bias=bias.contiguous().numpy().tobytes(),
            patch_size=P,
            mean=[float(m) for m in mean],
            std=[float(s) for s in std],
            names=names,
            stride=P,
            row=(rows - 1) // 2 * P,
            column=(columns - 1) // 2 * P,
        )

    @property
    def channel_map(self) -> Tensor:
        """What the chosen filter gives at every place, [rows, columns], computed by PyTorch's convolution."""
        pixels = torch.frombuffer(bytearray(self.image), dtype=torch.uint8).view(1, *self.shape)
        x = normalise(pixels, self.mean, self.std)  # [1, C_in, H, W]
        kernels = torch.frombuffer(bytearray(self.weight), dtype=torch.float32)
        kernel = kernels.view(-1, self.shape[0], self.patch_size, self.patch_size)[self.filter, None]
        bias = torch.frombuffer(bytearray(self.bias), dtype=torch.float32)[self.filter, None]
        return F.conv2d(x, kernel, bias, stride=self.stride)[0, 0]  # [rows, columns]

    @property
    def number(self) -> float:
        """What the chosen filter gives at the chosen place, bias included."""
        return self.channel_map[self.row // self.stride, self.column // self.stride].item()

    @traitlets.validate("filter")
    def _check_filter(self, proposal):
        return check_choice("filter", proposal.value, range(len(self.names)))

    @traitlets.validate("stride")
    def _check_stride(self, proposal):
        return check_choice("stride", proposal.value, sorted({1, self.patch_size}))

    @traitlets.observe("stride")
    def _keep_place(self, _):
        self.row -= self.row % self.stride
        self.column -= self.column % self.stride

    @traitlets.validate("row", "column")
    def _check_place(self, proposal):
        name = proposal.trait.name
        side = self.shape[1 if name == "row" else 2]
        last = side - self.patch_size
        if proposal.value not in range(0, last + 1, self.stride):
            steps = f", in steps of {self.stride}" if self.stride > 1 else ""
            raise ValueError(f"{name} is {proposal.value}; choose from 0 to {last}{steps}")
        return proposal.value

    def still(self) -> tuple[np.ndarray, str]:
        """The image beside the map of the chosen filter."""
        C, H, W = self.shape
        image = np.frombuffer(self.image, np.uint8).reshape(C, H, W).transpose(1, 2, 0)
        numbers = self.channel_map
        large = F.interpolate(numbers[None, None], size=(H, W))[0, 0]  # [H, W], each number as a square
        right = colours(large.numpy(), numbers.abs().max().item())
        gap = np.full((H, 4, 3), 255, np.uint8)
        rows, columns = numbers.shape
        words = (
            f"An image of {H} by {W} pixels, and beside it what the filter {self.names[self.filter]!r} gives at "
            f"{rows} by {columns} places: red above 0, blue below."
        )
        return np.ascontiguousarray(np.concatenate([np.broadcast_to(image, (H, W, 3)), gap, right], axis=1)), words


def patch_side(image: Tensor, weight: Tensor) -> int:
    """The side of a patch, by the image and the number of weights of a filter.

    Raises:
        ValueError: the image or the weight is not such.
    """
    check_image(image, LARGEST)
    C, H, W = image.shape
    P = math.isqrt(weight.shape[-1] // C)
    if weight.dim() != 2 or weight.shape[1] != C * P**2 or not weight.numel():
        got = list(weight.shape)
        raise ValueError(f"the weight is {got}; it must be [n_filters, {C}·P²] for patches of P×P pixels")
    patch_grid((H, W), P)
    return P


def check_lengths(image: Tensor, weight: Tensor, bias: Tensor, mean: list, std: list, names: list[str]) -> None:
    """Raise ValueError unless there is a bias and a name for each filter, and a mean and a std for each colour."""
    n = len(weight)
    if n > MOST_FILTERS:
        raise ValueError(f"there are {n} filters; choose {MOST_FILTERS} at the most, for instance weight[:16]")
    for what, got, expected in (("bias", bias, n), ("names", names, n), ("mean", mean, len(image))):
        if len(got) != expected:
            raise ValueError(f"{what} has {len(got)} entries; it must have {expected}")
    if not all(math.isfinite(m) for m in mean):
        raise ValueError(f"mean is {list(mean)}; its entries must be finite numbers")
    if len(std) != len(image) or not all(0 < s < math.inf for s in std):
        raise ValueError(f"std is {list(std)}; it must have {len(image)} entries above 0")
