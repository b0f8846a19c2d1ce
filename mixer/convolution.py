"""The same network as convolutions, with weights carried over both ways; and a plain CNN to compare with.

Every block of `mixer.model` has a twin here that computes the same function with `nn.Conv2d` on feature maps
[B, n_channel, rows, columns] instead of tables of tokens [B, n_tokens, n_channel].
Source: paper, sections 1 and 2.
"""

import inspect

import torch
from torch import Tensor, fx, nn

from mixer.config import (
    MixerConfig,
    check_images,
    check_mlps,
    check_options,
    check_positive,
    check_same,
    check_unchanged,
    current_config,
)
from mixer.model import MLPMixer, gelu_layer

fx.wrap("check_images")  # as in mixer.model


class MapLayerNorm(nn.LayerNorm):
    """LayerNorm on feature maps [B, n_channel, rows, columns], jointly over everything or over channels alone.

    The weight and bias have the shape [n_channel, rows, columns] or [n_channel].
    """

    def __init__(self, n_channel: int, grid: tuple[int, int], norm: str, eps: float):
        check_options(norm=norm, eps=eps)
        super().__init__([n_channel, *grid] if norm == "tokens_channels" else n_channel, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.normalized_shape) == 3:
            return super().forward(x)
        return super().forward(x.movedim(1, 3)).movedim(3, 1)  # LayerNorm works on the last axis


class PerPatchConv(nn.Module):
    """`ImageToPatches` and `PerPatchMLP` as one convolution whose kernel and stride are the patch size.

    Shapes: [B, C_in, H, W] → [B, n_channel, rows, columns].
    """

    def __init__(self, n_image_channel: int, n_channel: int, patch_size: int):
        super().__init__()
        self.linear = nn.Conv2d(n_image_channel, n_channel, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(image)


class TokenMixingConv(nn.Module):
    """`TokenMixingMLP` as convolutions: each channel is an image of its own, and all share the weights.

    Conv2d(1 → n_hidden) with a kernel that covers the whole map gives one number per hidden unit; after GELU,
    a 1×1 Conv2d gives one number per position, which is laid out as a map again.

    Shapes: [B, n_channel, rows, columns] → the same.
    """

    def __init__(self, n_channel: int, grid: tuple[int, int], n_hidden: int, norm: str, gelu: str, eps: float):
        super().__init__()
        self.norm = MapLayerNorm(n_channel, grid, norm, eps)
        self.fc1 = nn.Conv2d(1, n_hidden, kernel_size=grid)
        self.gelu = gelu_layer(gelu)
        self.fc2 = nn.Conv2d(n_hidden, grid[0] * grid[1], kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        B, C, rows, columns = x.shape
        maps = self.norm(x).reshape(B * C, 1, rows, columns)
        hidden = self.gelu(self.fc1(maps))  # [B·C, n_hidden, 1, 1]
        update = self.fc2(hidden)  # [B·C, n_tokens, 1, 1]
        return x + update.reshape(B, C, rows, columns)


class ChannelMixingConv(nn.Module):
    """`ChannelMixingMLP` as two 1×1 convolutions with GELU between: [B, n_channel, rows, columns] → the same."""

    def __init__(self, n_channel: int, grid: tuple[int, int], n_hidden: int, norm: str, gelu: str, eps: float):
        super().__init__()
        self.norm = MapLayerNorm(n_channel, grid, norm, eps)
        self.fc1 = nn.Conv2d(n_channel, n_hidden, kernel_size=1)
        self.gelu = gelu_layer(gelu)
        self.fc2 = nn.Conv2d(n_hidden, n_channel, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.gelu(self.fc1(self.norm(x))))


class OutputConv(nn.Module):
    """`OutputMLP` as the mean over positions and a 1×1 convolution: [B, n_channel, rows, columns] → [B, n_output]."""

    def __init__(self, n_channel: int, grid: tuple[int, int], n_output: int, norm: str, eps: float):
        super().__init__()
        self.norm = MapLayerNorm(n_channel, grid, norm, eps)
        self.linear = nn.Conv2d(n_channel, n_output, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).mean(dim=(2, 3), keepdim=True)  # [B, n_channel, 1, 1]
        return self.linear(x).flatten(1)  # [B, n_output]


class ConvMixerLayer(nn.Module):
    """`MixerLayer` as convolutions: [B, n_channel, rows, columns] → the same."""

    def __init__(self, n_channel: int, grid: tuple[int, int], n_hidden_token: int, n_hidden_channel: int, **options):
        super().__init__()
        self.token_mixing = TokenMixingConv(n_channel, grid, n_hidden_token, **options)
        self.channel_mixing = ChannelMixingConv(n_channel, grid, n_hidden_channel, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixing(self.token_mixing(x))


class ConvolutionalMixer(nn.Module):
    """The convolutional twin of `MLPMixer`: images [B, C_in, H, W] → logits [B, n_output].

    The arguments are those of `MixerConfig`, with MLPs alone; `model.config` holds them by name. The parameters have
    the same names as the Mixer's and the same numbers in other shapes, so `to_convolution` and `from_convolution` only
    reshape.
    """

    __signature__ = inspect.signature(MixerConfig)

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.sizes = sizes = MixerConfig(*args, **kwargs)
        check_mlps(sizes, "the convolutional twin")
        self.grid, self.image_shape = sizes.grid, sizes.image_shape
        C, hidden = sizes.n_channel, (sizes.n_hidden_token, sizes.n_hidden_channel)
        options = dict(norm=sizes.norm, gelu=sizes.gelu, eps=sizes.eps)

        self.per_patch = PerPatchConv(sizes.n_image_channel, C, sizes.patch_size)
        self.layers = nn.ModuleList(ConvMixerLayer(C, self.grid, *hidden, **options) for _ in range(sizes.n_layers))
        self.output = OutputConv(C, self.grid, sizes.n_output, sizes.norm, sizes.eps)

    @property
    def config(self) -> dict:
        """The arguments of such a network by name, with the layers and classes that it has now."""
        return current_config(self)

    def forward(self, image: Tensor) -> Tensor:
        check_images(image, self.image_shape)
        x = self.per_patch(image)  # [B, n_channel, rows, columns]
        for layer in self.layers:
            x = layer(x)  # [B, n_channel, rows, columns]
        return self.output(x)  # [B, n_output]


def carry_over(values: Tensor, shape: torch.Size) -> Tensor:
    """Give a parameter of one twin the shape that it has in the other.

    A LayerNorm over the whole table is [n_tokens, n_channel] in the Mixer and [n_channel, rows, columns] in its twin,
    which is a transpose; every other parameter keeps the order of its numbers.
    """
    if values.dim() == 2 and len(shape) == 3:
        values = values.T
    elif values.dim() == 3 and len(shape) == 2:
        values = values.flatten(1).T
    return values.reshape(shape)


def copy_weights(source: nn.Module, target: nn.Module) -> nn.Module:
    """Load the weights of a block or a network into its twin, in either direction.

    Returns the target, on the source's device, in its dtype and mode.

    Raises:
        ValueError: the two are not twins; it names the first part that does not fit.
    """
    check_same(_counts(source), _counts(target))
    shapes = {name: p.shape for name, p in target.state_dict().items()}
    weights = {name: carry_over(p, shapes[name]).clone() for name, p in source.state_dict().items()}
    first = next(source.parameters())
    target.to(device=first.device, dtype=first.dtype).load_state_dict(weights)
    return target.train(source.training)


def _counts(network: nn.Module) -> dict[str, str]:
    """How many numbers each parameter holds, and each GELU, by name, which twins have in common."""
    parts = network.named_modules(remove_duplicate=False)  # a layer may be there twice
    gelus = {name: repr(part) for name, part in parts if name.endswith("gelu")}
    return {name: f"{p.numel()} numbers" for name, p in network.state_dict().items()} | gelus


def to_convolution(model: MLPMixer) -> ConvolutionalMixer:
    """The convolutional twin of a Mixer, with the same weights and so the same outputs.

    Another number of layers or classes is followed; raises ValueError if a module was changed in any other way, or if
    tokens or channels are not mixed by MLPs.
    """
    check_unchanged(model, MLPMixer)
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn are replaced
        return copy_weights(model, ConvolutionalMixer(**model.config))


def from_convolution(twin: ConvolutionalMixer) -> MLPMixer:
    """The Mixer of a convolutional twin, with the same weights and so the same outputs. Raises as `to_convolution`."""
    check_unchanged(twin, ConvolutionalMixer)
    with torch.random.fork_rng(devices=[]):
        return copy_weights(twin, MLPMixer(**twin.config))


class SmallCNN(nn.Module):
    """A plain convolutional network of comparable size, to hold a Mixer against.

    Three stages of 3×3 convolutions, each followed by BatchNorm and ReLU. The second and the third stage begin with
    stride 2, which halves the map, and double the channels. Then the mean over all positions and one linear layer.

    Shapes: [B, C_in, H, W] → [B, n_output], for every H and W.
    """

    def __init__(self, n_channel: int, n_output: int, n_image_channel: int):
        check_positive(n_channel=n_channel, n_output=n_output, n_image_channel=n_image_channel)
        super().__init__()
        widths = [n_channel, 2 * n_channel, 2 * n_channel, 4 * n_channel, 4 * n_channel]
        stages, before = [], n_image_channel
        for i, width in enumerate(widths):
            conv = nn.Conv2d(before, width, kernel_size=3, stride=2 if i in (1, 3) else 1, padding=1, bias=False)
            stages += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.stages = nn.Sequential(*stages)
        self.output = nn.Linear(before, n_output)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.stages(image)  # [B, 4 · n_channel, H / 4, W / 4]
        return self.output(maps.mean(dim=(2, 3)))  # [B, n_output]
