"""Other ways to mix tokens, each in the place of `TokenMixingMLP`: how much of a Mixer is in its token mixing?

All blocks take a table X [B, n_tokens, n_channel] and give X + f(LN(X)) in the same shape, where f moves numbers
between tokens and treats all channels alike, save in `ShiftMixing`; `NoMixing` gives X. They are chosen by name, for
instance `MLPMixer(…, token_mixing="shift")`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixer.config import check_options, check_positive
from mixer.model import TOKEN_MIXINGS, TokenMixingMLP, layer_norm

Grid = tuple[int, int] | None


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """A parameter drawn evenly from ±1/sqrt(fan_in), as those of nn.Linear are."""
    return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


class NoMixing(nn.Module):
    """X itself: no update, no norm and no parameters; also in the place of channel mixing.

    Shapes: [B, n_tokens, n_channel] → the same. Arguments as in `TokenMixing`.
    """

    def __init__(self, n_tokens, n_channel, n_hidden, norm="tokens_channels", gelu="erf", eps=1e-5, grid: Grid = None):
        super().__init__()
        check_positive(n_tokens=n_tokens, n_channel=n_channel, n_hidden=n_hidden)
        check_options(norm, gelu, eps)

    def forward(self, x: Tensor) -> Tensor:
        return x


class RandomMixing(TokenMixingMLP):
    """`TokenMixingMLP` whose weights and biases stay as they were drawn; its norm learns.

    It tells what the rest of the network makes of any mixing at all. Shapes and arguments: as `TokenMixing`.
    """

    def __init__(self, *args, grid: Grid = None, **options):
        super().__init__(*args, **options)
        self.fc1.requires_grad_(False)
        self.fc2.requires_grad_(False)


class LowRankMixing(TokenMixingMLP):
    """X + W₂·(W₁·LN(X) + b₁) + b₂ along the tokens: `TokenMixingMLP` without GELU, a matrix of rank n_hidden.

    Shapes and arguments: as `TokenMixing`; W₁ is [n_hidden, n_tokens], W₂ [n_tokens, n_hidden].
    """

    def __init__(self, *args, grid: Grid = None, **options):
        super().__init__(*args, **options)
        self.gelu = nn.Identity()


class TokenMixing(nn.Module):
    """What the other blocks are: LayerNorm, an update, and the sum with the input.

    Shapes: [B, n_tokens, n_channel] → the same.

    Args:
        n_tokens, n_channel: the size of the table of tokens.
        n_hidden: hidden units; blocks without any ignore it.
        norm, gelu, eps: as in `MixerConfig`; blocks without GELU ignore `gelu`.
        grid: the number of patches down and across; blocks that do not know places ignore it.
    """

    def __init__(
        self, n_tokens, n_channel, n_hidden=1, norm="tokens_channels", gelu="erf", eps=1e-5, grid: Grid = None
    ):
        super().__init__()
        self.n_tokens, n_channel, _ = check_positive(n_tokens=n_tokens, n_channel=n_channel, n_hidden=n_hidden)
        check_options(gelu=gelu)
        self.norm = layer_norm(self.n_tokens, n_channel, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(self.norm(x))


class LinearMixing(TokenMixing):
    """X + W·LN(X) + b along the tokens, one linear layer with W [n_tokens, n_tokens].

    Shapes and arguments: as `TokenMixing`. Source: Touvron et al. 2023, "ResMLP", section 2.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.fc = nn.Linear(self.n_tokens, self.n_tokens)

    def update(self, x: Tensor) -> Tensor:
        return self.fc(x.transpose(1, 2)).transpose(1, 2)  # [B, n_tokens, n_channel]


class GridMixing(TokenMixing):
    """What blocks on the grid are: f works on one map [rows, columns] for each channel.

    Shapes and arguments: as `TokenMixing`. Raises ValueError if the grid does not have n_tokens places.
    """

    def __init__(self, *args, grid: Grid = None, **options):
        super().__init__(*args, **options)
        self.grid = tuple(check_positive(rows=grid[0], columns=grid[1])) if grid else None
        if not grid or math.prod(self.grid) != self.n_tokens:
            raise ValueError(f"grid is {grid}; it must be the (rows, columns) of {self.n_tokens} tokens")

    def update(self, x: Tensor) -> Tensor:
        maps = x.transpose(1, 2).unflatten(2, self.grid)  # [B, n_channel, rows, columns]
        return self.mix(maps).flatten(2).transpose(1, 2)  # [B, n_tokens, n_channel]

    def extra_repr(self) -> str:
        return f"grid={self.grid}"


class AverageMixing(GridMixing):
    """The mean of the 3×3 patches around each, as far as they are on the grid, minus the patch itself.

    Only the norm has parameters. Shapes and arguments: as `TokenMixing`.
    Source: Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision" (PoolFormer), section 3.2.
    """

    def mix(self, maps: Tensor) -> Tensor:
        """[B, n_channel, rows, columns] → the same."""
        return F.avg_pool2d(maps, kernel_size=3, stride=1, padding=1, count_include_pad=False) - maps


class ShiftMixing(GridMixing):
    """A quarter of the channels from each neighbour: left, right, above, below; at the edge, the patch's own value.

    Channel c belongs to quarter floor(4c / n_channel). Only the norm has parameters. Shapes and arguments: as
    `TokenMixing`. Source: Yu et al. 2021, "S²-MLP: Spatial-Shift MLP Architecture for Vision".
    """

    def mix(self, maps: Tensor) -> Tensor:
        """[B, n_channel, rows, columns] → the same."""
        left, right, above, below = maps.tensor_split([-(-q * maps.shape[1] // 4) for q in (1, 2, 3)], dim=1)
        left = torch.cat([left[..., :1], left[..., :-1]], dim=3)
        right = torch.cat([right[..., 1:], right[..., -1:]], dim=3)
        above = torch.cat([above[..., :1, :], above[..., :-1, :]], dim=2)
        below = torch.cat([below[..., 1:, :], below[..., -1:, :]], dim=2)
        return torch.cat([left, right, above, below], dim=1)


class ToeplitzMixing(GridMixing):
    """One kernel for all places, so a weight depends only on where one patch lies seen from the other: a convolution.

    f(Z)[t, c] = bias + Σ_s kernel[row(s) − row(t) + rows − 1, column(s) − column(t) + columns − 1] · Z[s, c].
    The kernel is [2·rows − 1, 2·columns − 1], the bias [1]. Shapes and arguments: as `TokenMixing`.
    Source: paper, section 1, on convolutions of a full receptive field whose kernel all channels share.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        rows, columns = self.grid
        self.kernel = uniform(2 * rows - 1, 2 * columns - 1, fan_in=self.n_tokens)
        self.bias = uniform(1, fan_in=self.n_tokens)

    def mix(self, maps: Tensor) -> Tensor:
        """[B, n_channel, rows, columns] → the same."""
        rows, columns = self.grid
        images = maps.flatten(0, 1)[:, None]  # [B·n_channel, 1, rows, columns]
        mixed = F.conv2d(images, self.kernel[None, None], self.bias, padding=(rows - 1, columns - 1))
        return mixed.view(maps.shape)


class KroneckerMixing(GridMixing):
    """down · M · acrossᵀ + bias for the map M [rows, columns] of a channel: along columns, then along rows.

    `down` is [rows, rows], `across` [columns, columns], `bias` [n_tokens]; as one matrix on tokens, down ⊗ across.
    Shapes and arguments: as `TokenMixing`. Hou et al. 2021, "Vision Permutator", also mix along each axis by itself.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        rows, columns = self.grid
        self.down = uniform(rows, rows, fan_in=rows)
        self.across = uniform(columns, columns, fan_in=columns)
        self.bias = uniform(self.n_tokens, fan_in=self.n_tokens)

    def mix(self, maps: Tensor) -> Tensor:
        """[B, n_channel, rows, columns] → the same."""
        return self.down @ maps @ self.across.T + self.bias.view(self.grid)


TOKEN_MIXINGS |= dict(linear=LinearMixing, none=NoMixing, random=RandomMixing, average=AverageMixing)
TOKEN_MIXINGS |= dict(shift=ShiftMixing, toeplitz=ToeplitzMixing, low_rank=LowRankMixing, kronecker=KroneckerMixing)
