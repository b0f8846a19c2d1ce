"""MLP-Mixer, block by block, in the order in which the data flow.

Read mixer/model.py from top to bottom: an image is cut into patches, every patch becomes a token, the layers mix the
tokens (across positions) and the channels (within a position) in turn, and the mean token is classified.
Source: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", section 2 and appendix E.
"""

import inspect

from torch import Tensor, fx, nn

from mixer.config import (
    MixerConfig,
    check_divisible,
    check_images,
    check_options,
    check_positive,
    current_config,
    patch_grid,
)

fx.wrap("check_images")  # a traced graph holds these calls and not their comparisons
fx.wrap("check_divisible")


class ImageToPatches(nn.Module):
    """Cut images into non-overlapping square patches, each flattened to one row of pixels.

    Patches come in row-major order; inside a patch the pixels are ordered (channel, row, column), which is the order
    of a Conv2d kernel. No parameters. Source: paper, section 2.

    Shapes: [B, C_in, H, W] → [B, n_tokens, n_pixels], n_tokens = (H/P)·(W/P), n_pixels = C_in·P².

    Raises:
        ValueError: the input is not four-dimensional, or does not divide into whole patches.
    """

    def __init__(self, patch_size: int):
        super().__init__()
        (self.patch_size,) = check_positive(patch_size=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        check_divisible(image, self.patch_size)
        x = image.unflatten(3, (-1, self.patch_size)).unflatten(2, (-1, self.patch_size))  # [B, C, rows, P, columns, P]
        x = x.permute(0, 2, 4, 1, 3, 5)  # [B, rows, columns, C, P, P]
        return x.flatten(3).flatten(1, 2)  # [B, n_tokens, n_pixels]

    def inverse(self, patches: Tensor, image_size: int | tuple[int, int]) -> Tensor:
        """Put patches back together: [B, n_tokens, n_pixels] → [B, C_in, H, W], the exact inverse of forward.

        Raises:
            ValueError: the patches do not fill an image of this size.
        """
        P = self.patch_size
        rows, columns = patch_grid(image_size, P)
        B, n_tokens, n_pixels = patches.shape
        if n_tokens != rows * columns or n_pixels % P**2:
            raise ValueError(
                f"{n_tokens} patches of {n_pixels} numbers do not fill an image of {rows * P}×{columns * P} pixels; "
                f"it takes {rows * columns} patches of a multiple of {P**2} numbers"
            )
        x = patches.reshape(B, rows, columns, n_pixels // P**2, P, P)
        x = x.permute(0, 3, 1, 4, 2, 5)  # [B, C, rows, P, columns, P]
        return x.reshape(B, n_pixels // P**2, rows * P, columns * P)  # [B, C_in, H, W]

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}"


class PerPatchMLP(nn.Module):
    """One linear layer that turns the pixels of a patch into a token, the same for every patch.

    Shapes: [B, n_tokens, n_pixels] → [B, n_tokens, n_channel]. Source: paper, section 2 ("per-patch fully-connected").
    """

    def __init__(self, n_pixels: int, n_channel: int):
        super().__init__()
        self.linear = nn.Linear(*check_positive(n_pixels=n_pixels, n_channel=n_channel))

    def forward(self, patches: Tensor) -> Tensor:
        return self.linear(patches)


def layer_norm(n_tokens: int, n_channel: int, norm: str, eps: float) -> nn.LayerNorm:
    """LayerNorm of a table of tokens, over both axes ("tokens_channels") or over each token ("channels")."""
    check_options(norm=norm, eps=eps)
    return nn.LayerNorm([n_tokens, n_channel] if norm == "tokens_channels" else n_channel, eps=eps)


def gelu_layer(gelu: str) -> nn.GELU:
    """GELU, exact ("erf") or in the approximation of the official weights ("tanh")."""
    check_options(gelu=gelu)
    return nn.GELU(approximate="none" if gelu == "erf" else "tanh")


class MixingMLP(nn.Module):
    """What both mixing blocks are: LayerNorm, two linear layers with GELU between, and the sum with the input.

    Shapes: [B, n_tokens, n_channel] → the same.

    Args:
        n_tokens, n_channel: the size of the table of tokens.
        n_hidden: hidden units; each is one weighted sum along the axis that is mixed.
        norm, gelu, eps: as in `MixerConfig`.
    """

    axis: int  # of the table [n_tokens, n_channel], along which the block mixes

    def __init__(self, n_tokens: int, n_channel: int, n_hidden: int, norm="tokens_channels", gelu="erf", eps=1e-5):
        super().__init__()
        *table, n_hidden = check_positive(n_tokens=n_tokens, n_channel=n_channel, n_hidden=n_hidden)
        self.norm = layer_norm(*table, norm, eps)
        self.fc1 = nn.Linear(table[self.axis], n_hidden)
        self.gelu = gelu_layer(gelu)
        self.fc2 = nn.Linear(n_hidden, table[self.axis])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(self.hidden(x))


class TokenMixingMLP(MixingMLP):
    """Mix across positions: U = X + W₂·gelu(W₁·LN(X)) along the token axis, the same for every channel.

    Shapes and arguments: as `MixingMLP`. Source: paper, section 2, equation 1, first line.
    """

    axis = 0

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden activations, [B, n_tokens, n_channel] → [B, n_channel, n_hidden]."""
        x = self.norm(x).transpose(1, 2)  # [B, n_channel, n_tokens]
        return self.gelu(self.fc1(x))  # [B, n_channel, n_hidden]

    def update(self, hidden: Tensor) -> Tensor:
        """What the block adds to its input, [B, n_channel, n_hidden] → [B, n_tokens, n_channel]."""
        return self.fc2(hidden).transpose(1, 2)  # [B, n_tokens, n_channel]


class ChannelMixingMLP(MixingMLP):
    """Mix within a position: Y = U + W₄·gelu(W₃·LN(U)) along the channel axis, the same for every token.

    Shapes and arguments: as `MixingMLP`. Source: paper, section 2, equation 1, second line.
    """

    axis = 1

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden activations, [B, n_tokens, n_channel] → [B, n_tokens, n_hidden]."""
        return self.gelu(self.fc1(self.norm(x)))

    def update(self, hidden: Tensor) -> Tensor:
        """What the block adds to its input, [B, n_tokens, n_hidden] → [B, n_tokens, n_channel]."""
        return self.fc2(hidden)


#: The blocks that mix tokens, by name; `mixer.mixing` adds others to it.
TOKEN_MIXINGS = {"mlp": TokenMixingMLP}


class MixerLayer(nn.Module):
    """Token mixing, then channel mixing: [B, n_tokens, n_channel] → the same. Source: paper, section 2, figure 1.

    `options` are `norm`, `gelu` and `eps`, as in `MixerConfig`; `grid`, (rows, columns), is for other mixings alone.
    """

    def __init__(
        self,
        n_tokens: int,
        n_channel: int,
        n_hidden_token: int,
        n_hidden_channel: int,
        token_mixing: str = "mlp",
        channel_mixing: str = "mlp",
        grid: tuple[int, int] | None = None,
        **options,
    ):
        super().__init__()
        check_options(token_mixing=token_mixing, channel_mixing=channel_mixing)
        other = {} if token_mixing == "mlp" else {"grid": grid}
        self.token_mixing = TOKEN_MIXINGS[token_mixing](n_tokens, n_channel, n_hidden_token, **other, **options)
        make = ChannelMixingMLP if channel_mixing == "mlp" else TOKEN_MIXINGS[channel_mixing]
        self.channel_mixing = make(n_tokens, n_channel, n_hidden_channel, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixing(self.token_mixing(x))


class OutputMLP(nn.Module):
    """LayerNorm, the mean over tokens, one linear layer: [B, n_tokens, n_channel] → [B, n_output] logits.

    Source: paper, section 2 ("global average pooling … linear classifier"), appendix E.
    """

    def __init__(self, n_tokens: int, n_channel: int, n_output: int, norm: str = "tokens_channels", eps: float = 1e-5):
        super().__init__()
        *table, n_output = check_positive(n_tokens=n_tokens, n_channel=n_channel, n_output=n_output)
        self.norm = layer_norm(*table, norm, eps)
        self.linear = nn.Linear(table[1], n_output)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).mean(dim=1)  # [B, n_channel]
        return self.linear(x)  # [B, n_output]


class MLPMixer(nn.Module):
    """The whole network: images [B, C_in, H, W] → logits [B, n_output]. Source: paper, section 2.

    The arguments are those of `MixerConfig`, in the same order; it says which are refused.
    """

    __signature__ = inspect.signature(MixerConfig)

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.sizes = sizes = MixerConfig(*args, **kwargs)
        self.grid, self.n_tokens, self.image_shape = sizes.grid, sizes.n_tokens, sizes.image_shape
        T, C, hidden = self.n_tokens, sizes.n_channel, (sizes.n_hidden_token, sizes.n_hidden_channel)
        options = dict(norm=sizes.norm, gelu=sizes.gelu, eps=sizes.eps, grid=sizes.grid)
        options |= dict(token_mixing=sizes.token_mixing, channel_mixing=sizes.channel_mixing)

        self.patches = ImageToPatches(sizes.patch_size)
        self.per_patch = PerPatchMLP(sizes.n_image_channel * sizes.patch_size**2, C)
        self.layers = nn.ModuleList(MixerLayer(T, C, *hidden, **options) for _ in range(sizes.n_layers))
        self.output = OutputMLP(T, C, sizes.n_output, sizes.norm, sizes.eps)

    @property
    def config(self) -> dict:
        """The arguments of such a model by name, as JSON keeps them, with the layers and classes that it has now."""
        return current_config(self)

    def forward(self, image: Tensor) -> Tensor:
        check_images(image, self.image_shape)
        x = self.per_patch(self.patches(image))  # [B, n_tokens, n_channel]
        for layer in self.layers:
            x = layer(x)  # [B, n_tokens, n_channel]
        return self.output(x)  # [B, n_output]

    def forward_intermediates(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and every result on the way to them by name.

        Names and shapes: "patches" [B, n_tokens, n_pixels]; "tokens" [B, n_tokens, n_channel]; for each layer i
        "layers.i.token_mixing.hidden" [B, n_channel, n_hidden_token], "layers.i.channel_mixing.hidden"
        [B, n_tokens, n_hidden_channel], for blocks that have hidden units, and the residual stream after each of the
        two blocks, "layers.i.token_mixing" and "layers.i.channel_mixing" [B, n_tokens, n_channel].
        """
        check_images(image, self.image_shape)
        results = {"patches": self.patches(image)}
        x = results["tokens"] = self.per_patch(results["patches"])  # [B, n_tokens, n_channel]
        for i, layer in enumerate(self.layers):
            for name, block in layer.named_children():
                if isinstance(block, MixingMLP):
                    hidden = results[f"layers.{i}.{name}.hidden"] = block.hidden(x)
                    x = x + block.update(hidden)  # [B, n_tokens, n_channel]
                else:
                    x = block(x)  # [B, n_tokens, n_channel]
                results[f"layers.{i}.{name}"] = x
        return self.output(x), results

    @property
    def n_parameters(self) -> int:
        """The number of numbers in the model, also those that do not learn."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        C, H, W = self.image_shape
        return f"{C}×{H}×{W} image → {self.n_tokens} tokens, {self.n_parameters:,} parameters"
