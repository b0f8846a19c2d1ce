"""MLP-Mixer, block by block, in the order in which the data flow.

Read this file from top to bottom: an image is cut into patches, every patch becomes a token, the layers mix the
tokens (across positions) and the channels (within a position) in turn, and the mean token is classified.
Source: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", section 2 and appendix E.
"""

from torch import Tensor, nn

NORMS = ("tokens_channels", "channels")
GELUS = ("erf", "tanh")


def check_positive(**sizes: int) -> None:
    """Raise ValueError unless every size is a whole number of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be a whole number of at least 1")


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """The number of patches down and across an image.

    Args:
        image_size: the side in pixels, or (height, width).
        patch_size: the side of a patch in pixels.

    Raises:
        ValueError: a size is not positive, or the image does not divide into whole patches.
    """
    pair = isinstance(image_size, tuple | list) and len(image_size) == 2
    height, width = image_size if pair else (image_size, image_size)
    check_positive(height=height, width=width, patch_size=patch_size)
    if height % patch_size or width % patch_size:
        allowed = [str(p) for p in range(1, min(height, width) + 1) if height % p == 0 and width % p == 0]
        raise ValueError(
            f"image {height}×{width} is not divisible into {patch_size}×{patch_size} patches; "
            f"choose patch_size {', '.join(allowed)}"
        )
    return height // patch_size, width // patch_size


def check_images(image: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless the images have the shape [B, C_in, H, W] that a model was made for."""
    if image.dim() != 4 or tuple(image.shape[1:]) != image_shape:
        expected = ", ".join(str(n) for n in image_shape)
        raise ValueError(f"images have shape {list(image.shape)}; this model takes [B, {expected}]")
    if not image.is_floating_point():
        raise ValueError(f"images are {image.dtype}; normalise them first, for instance with data.normalise(images)")


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
        check_positive(patch_size=patch_size)
        self.patch_size = patch_size

    def forward(self, image: Tensor) -> Tensor:
        if image.dim() != 4:
            raise ValueError(f"images have shape {list(image.shape)}; they must be [B, C_in, H, W]")
        B, C, H, W = image.shape
        P = self.patch_size
        rows, columns = patch_grid((H, W), P)
        x = image.reshape(B, C, rows, P, columns, P)
        x = x.permute(0, 2, 4, 1, 3, 5)  # [B, rows, columns, C, P, P]
        return x.reshape(B, rows * columns, C * P * P)  # [B, n_tokens, n_pixels]

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

    Shapes: [B, n_tokens, n_pixels] → [B, n_tokens, n_channel].
    Source: paper, section 2 ("per-patch fully-connected").
    """

    def __init__(self, n_pixels: int, n_channel: int):
        super().__init__()
        check_positive(n_pixels=n_pixels, n_channel=n_channel)
        self.linear = nn.Linear(n_pixels, n_channel)

    def forward(self, patches: Tensor) -> Tensor:
        return self.linear(patches)


def layer_norm(n_tokens: int, n_channel: int, norm: str, eps: float) -> nn.LayerNorm:
    """The LayerNorm of a table of tokens, over both axes ("tokens_channels") or over each token ("channels")."""
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; choose one of {', '.join(NORMS)}")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise ValueError(f"eps is {eps!r}; it must be a small positive number, for instance 1e-5")
    return nn.LayerNorm([n_tokens, n_channel] if norm == "tokens_channels" else n_channel, eps=eps)


def gelu_layer(gelu: str) -> nn.GELU:
    """GELU, exact ("erf") or in the approximation of the official weights ("tanh")."""
    if gelu not in GELUS:
        raise ValueError(f"gelu is {gelu!r}; choose one of {', '.join(GELUS)}")
    return nn.GELU(approximate="none" if gelu == "erf" else "tanh")


class TokenMixingMLP(nn.Module):
    """Mix across positions: U = X + W₂·gelu(W₁·LN(X)) along the token axis, the same for every channel.

    Shapes: [B, n_tokens, n_channel] → the same. Source: paper, section 2, equation 1, first line.

    Args:
        n_tokens, n_channel: the size of the table of tokens.
        n_hidden: hidden units; each is one weighted sum over all positions.
        norm: the LayerNorm's axes, "tokens_channels" or "channels".
        gelu: "erf" or "tanh".
        eps: what LayerNorm adds to the variance.
    """

    def __init__(
        self,
        n_tokens: int,
        n_channel: int,
        n_hidden: int,
        norm: str = "tokens_channels",
        gelu: str = "erf",
        eps: float = 1e-5,
    ):
        super().__init__()
        check_positive(n_tokens=n_tokens, n_channel=n_channel, n_hidden=n_hidden)
        self.norm = layer_norm(n_tokens, n_channel, norm, eps)
        self.fc1 = nn.Linear(n_tokens, n_hidden)
        self.gelu = gelu_layer(gelu)
        self.fc2 = nn.Linear(n_hidden, n_tokens)

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden activations, [B, n_tokens, n_channel] → [B, n_channel, n_hidden]."""
        x = self.norm(x).transpose(1, 2)  # [B, n_channel, n_tokens]
        return self.gelu(self.fc1(x))  # [B, n_channel, n_hidden]

    def update(self, hidden: Tensor) -> Tensor:
        """What the block adds to its input, [B, n_channel, n_hidden] → [B, n_tokens, n_channel]."""
        return self.fc2(hidden).transpose(1, 2)  # [B, n_tokens, n_channel]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(self.hidden(x))


class ChannelMixingMLP(nn.Module):
    """Mix within a position: Y = U + W₄·gelu(W₃·LN(U)) along the channel axis, the same for every token.

    Shapes: [B, n_tokens, n_channel] → the same. Source: paper, section 2, equation 1, second line.
    The arguments are those of `TokenMixingMLP`.
    """

    def __init__(
        self,
        n_tokens: int,
        n_channel: int,
        n_hidden: int,
        norm: str = "tokens_channels",
        gelu: str = "erf",
        eps: float = 1e-5,
    ):
        super().__init__()
        check_positive(n_tokens=n_tokens, n_channel=n_channel, n_hidden=n_hidden)
        self.norm = layer_norm(n_tokens, n_channel, norm, eps)
        self.fc1 = nn.Linear(n_channel, n_hidden)
        self.gelu = gelu_layer(gelu)
        self.fc2 = nn.Linear(n_hidden, n_channel)

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden activations, [B, n_tokens, n_channel] → [B, n_tokens, n_hidden]."""
        return self.gelu(self.fc1(self.norm(x)))

    def update(self, hidden: Tensor) -> Tensor:
        """What the block adds to its input, [B, n_tokens, n_hidden] → [B, n_tokens, n_channel]."""
        return self.fc2(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(self.hidden(x))


class MixerLayer(nn.Module):
    """Token mixing, then channel mixing: [B, n_tokens, n_channel] → the same. Source: paper, section 2, figure 1.

    `options` are `norm`, `gelu` and `eps`, as in `TokenMixingMLP`.
    """

    def __init__(self, n_tokens: int, n_channel: int, n_hidden_token: int, n_hidden_channel: int, **options):
        super().__init__()
        self.token_mixing = TokenMixingMLP(n_tokens, n_channel, n_hidden_token, **options)
        self.channel_mixing = ChannelMixingMLP(n_tokens, n_channel, n_hidden_channel, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixing(self.token_mixing(x))


class OutputMLP(nn.Module):
    """LayerNorm, the mean over tokens, one linear layer: [B, n_tokens, n_channel] → [B, n_output] logits.

    Source: paper, section 2 ("global average pooling … linear classifier"), appendix E.
    """

    def __init__(self, n_tokens: int, n_channel: int, n_output: int, norm: str = "tokens_channels", eps: float = 1e-5):
        super().__init__()
        check_positive(n_tokens=n_tokens, n_channel=n_channel, n_output=n_output)
        self.norm = layer_norm(n_tokens, n_channel, norm, eps)
        self.linear = nn.Linear(n_channel, n_output)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).mean(dim=1)  # [B, n_channel]
        return self.linear(x)  # [B, n_output]


class MLPMixer(nn.Module):
    """The whole network: images [B, C_in, H, W] → logits [B, n_output]. Source: paper, section 2.

    Args:
        n_layers: mixer layers in a row.
        n_channel: features per token.
        n_hidden: hidden units of both MLPs of every layer, unless overridden.
        n_output: classes.
        image_size: side of the image in pixels, or (height, width).
        patch_size: side of a patch in pixels; it must divide the image.
        n_image_channel: channels of the image, 1 for grey, 3 for colour.
        n_hidden_token, n_hidden_channel: absolute sizes that override n_hidden for one kind of MLP.
        norm: "tokens_channels" normalises the whole table jointly; "channels" each token alone, as the paper does.
        gelu: "erf" is exact; "tanh" is the approximation that the official weights need.
        eps: what LayerNorm adds to the variance; the official weights need 1e-6.

    Raises:
        ValueError: a size is not positive, the image does not divide into patches, or an option is unknown.
    """

    def __init__(
        self,
        n_layers: int,
        n_channel: int,
        n_hidden: int,
        n_output: int,
        image_size: int | tuple[int, int],
        patch_size: int,
        n_image_channel: int,
        n_hidden_token: int | None = None,
        n_hidden_channel: int | None = None,
        norm: str = "tokens_channels",
        gelu: str = "erf",
        eps: float = 1e-5,
    ):
        super().__init__()
        check_positive(n_layers=n_layers, n_channel=n_channel, n_hidden=n_hidden, n_image_channel=n_image_channel)
        n_hidden_token = n_hidden if n_hidden_token is None else n_hidden_token
        n_hidden_channel = n_hidden if n_hidden_channel is None else n_hidden_channel
        check_positive(n_hidden_token=n_hidden_token, n_hidden_channel=n_hidden_channel)
        self.grid = patch_grid(image_size, patch_size)
        self.config = dict(
            n_layers=n_layers,
            n_channel=n_channel,
            n_hidden=n_hidden,
            n_output=n_output,
            image_size=image_size if isinstance(image_size, int) else list(image_size),
            patch_size=patch_size,
            n_image_channel=n_image_channel,
            n_hidden_token=n_hidden_token,
            n_hidden_channel=n_hidden_channel,
            norm=norm,
            gelu=gelu,
            eps=eps,
        )
        self.image_shape = (n_image_channel, self.grid[0] * patch_size, self.grid[1] * patch_size)
        self.n_tokens = self.grid[0] * self.grid[1]

        self.patches = ImageToPatches(patch_size)
        self.per_patch = PerPatchMLP(n_image_channel * patch_size**2, n_channel)
        self.layers = nn.ModuleList(
            MixerLayer(self.n_tokens, n_channel, n_hidden_token, n_hidden_channel, norm=norm, gelu=gelu, eps=eps)
            for _ in range(n_layers)
        )
        self.output = OutputMLP(self.n_tokens, n_channel, n_output, norm=norm, eps=eps)

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
        [B, n_tokens, n_hidden_channel], and the residual stream after each of the two blocks,
        "layers.i.token_mixing" and "layers.i.channel_mixing" [B, n_tokens, n_channel].
        """
        check_images(image, self.image_shape)
        results = {"patches": self.patches(image)}
        x = results["tokens"] = self.per_patch(results["patches"])  # [B, n_tokens, n_channel]
        for i, layer in enumerate(self.layers):
            for name, block in layer.named_children():
                hidden = results[f"layers.{i}.{name}.hidden"] = block.hidden(x)
                x = results[f"layers.{i}.{name}"] = x + block.update(hidden)  # [B, n_tokens, n_channel]
        return self.output(x), results

    @property
    def n_parameters(self) -> int:
        """The number of trainable numbers in the model."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        C, H, W = self.image_shape
        return f"{C}×{H}×{W} image → {self.n_tokens} tokens, {self.n_parameters:,} parameters"
