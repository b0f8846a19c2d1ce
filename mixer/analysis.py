"""What token mixing learned: its weights as maps on the grid of patches, how they pair up, how smooth they are.

A row of W₁ has one weight per patch, so it can be drawn as a map of the image: where a hidden unit looks. A column of
W₂ is a map too: where the unit writes its answer. Source: paper, section 3.5 and figure 5.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mixer.model import MLPMixer, TokenMixingMLP


def difference(one: Tensor, other: Tensor, bound: float = 1e-5) -> str:
    """The largest difference of two tensors in words that are the same on every CPU, whatever its rounding.

    "largest difference below 1e-5" where it is below the bound, else the power of ten below it: "largest difference
    above 0.1". Tensors that are equal to the last bit have, with the bound 0, "largest difference 0".

    Raises:
        ValueError: the shapes differ, or there are no real numbers to compare.
    """
    if one.shape != other.shape:
        raise ValueError(f"the shapes are {list(one.shape)} and {list(other.shape)}; compare tensors of one shape")
    if one.is_complex() or other.is_complex() or not one.numel():
        raise ValueError(f"the tensors are {one.dtype} and {other.dtype} {list(one.shape)}; compare some real numbers")
    largest = (one.double() - other.double()).abs().max().item()
    if largest < bound:
        words = f"below {bound:g}"
    elif 0 < largest < math.inf:
        words = f"above {10.0 ** math.floor(math.log10(largest)):g}"
    else:
        words = f"{largest:g}"
    return f"largest difference {words.replace('e-0', 'e-')}"


def token_maps(model: MLPMixer, layer: int, weights: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """The input maps (rows of W₁) and output maps (columns of W₂) of a token-mixing MLP.

    Args:
        model: which model.
        layer: which of its layers, counted from 0.
        weights: take the weights from here instead, by the model's names, for instance from a snapshot.

    Shapes: two tensors [n_hidden_token, rows, columns], on the grid of patches.

    Raises:
        ValueError: there is no such layer, or its token mixing has no hidden units.
    """
    if not 0 <= layer < len(model.layers):
        raise ValueError(f"layer is {layer}; this model has the layers 0 to {len(model.layers) - 1}")
    block = model.layers[layer].token_mixing
    if not isinstance(block, TokenMixingMLP):
        raise ValueError(f"{type(block).__name__} has no hidden units; choose a model whose token_mixing is mlp")
    weights = model.state_dict() if weights is None else weights
    name = f"layers.{layer}.token_mixing"
    first, second = weights[f"{name}.fc1.weight"], weights[f"{name}.fc2.weight"]
    return first.float().unflatten(1, model.grid), second.float().T.unflatten(1, model.grid)


def neighbour_correlation(maps: Tensor) -> float:
    """How alike neighbouring weights are, from -1 to 1: about 0 for noise, near 1 for smooth maps.

    The correlation of the weights of maps [n, rows, columns] with their neighbours to the right and below, the mean of
    each map being subtracted first.
    """
    maps = maps - maps.mean(dim=(1, 2), keepdim=True)
    left, right = maps[:, :, :-1], maps[:, :, 1:]
    upper, lower = maps[:, :-1], maps[:, 1:]
    products = (left * right).sum() + (upper * lower).sum()
    squares = ((left**2).sum() + (upper**2).sum()) * ((right**2).sum() + (lower**2).sum())
    return (products / squares.sqrt().clamp_min(1e-12)).item()


def mean_frequency(maps: Tensor) -> Tensor:
    """The mean spatial frequency of each map [n, rows, columns] → [n], in cycles per patch, weighted by power.

    0 is a constant map. The finest stripes along an axis have 0.5, the finest chequerboard √(0.5² + 0.5²) = 0.71.
    """
    _, rows, columns = maps.shape
    vertical = torch.fft.fftfreq(rows, device=maps.device)[:, None]
    horizontal = torch.fft.fftfreq(columns, device=maps.device)[None, :]
    frequency = (vertical**2 + horizontal**2).sqrt()  # [rows, columns]
    power = torch.fft.fft2(maps).abs() ** 2
    return (power * frequency).sum(dim=(1, 2)) / power.sum(dim=(1, 2)).clamp_min(1e-12)


def opposite_pairs(maps: Tensor) -> list[tuple[int, int, float]]:
    """Pair the two most opposite of the maps [n, rows, columns], then the two most opposite of the rest, and so on.

    Returns (unit, unit, cosine similarity); -1 is an exact inverse. Every unit stands in one pair, save the last one of
    an odd number. Figure 5 of the paper shows maps beside the one closest to their inverse; that each stands in one
    pair only is a rule of this book.
    """
    directions = F.normalize(maps.flatten(1), dim=1)
    cosines = directions @ directions.T
    cosines.fill_diagonal_(torch.inf)
    pairs = []
    for _ in range(len(maps) // 2):
        first, second = divmod(cosines.argmin().item(), len(maps))
        pairs.append((first, second, cosines[first, second].item()))
        cosines[[first, second]] = torch.inf
        cosines[:, [first, second]] = torch.inf
    return pairs
