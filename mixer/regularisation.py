"""Regularisation: random changes of images and of the network while it trains, each reproducible from its seed.

Images are changed on their device, in whole batches, uint8 [B, C_in, H, W]; the random numbers come from the CPU, and
so are the same on every device.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixer.data import PHOTOGRAPHS, DataSet


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose state follows from these numbers, so that no state needs saving."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(seed)


@contextmanager
def default_generator_seeded(*numbers: int) -> Iterator[None]:
    """A context in which torch's default generator on the CPU follows from these numbers; after it, nothing changed."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(seeded(*numbers).get_state())
        yield


def augment(
    images: Tensor,
    generator: torch.Generator,
    padding: int = 0,
    flip: bool = False,
    affine: float = 0.0,
) -> Tensor:
    """Change each image of a batch a little, at random: crop, mirror, and turn.

    Shapes: [B, C_in, H, W] → the same; uint8, or with `affine` float32 of the same scale.

    Args:
        images: uint8 images.
        generator: where the random numbers come from, on the CPU.
        padding: pixels by which the edge is repeated on each side, before a piece of the old size is cut out.
        flip: whether to mirror half of the images.
        affine: 1 turns by up to 15°, scales by up to 15 %, shears by up to 0.2 and shifts by up to a tenth of the
            image; other numbers do so in proportion, and 0 not at all.

    Raises:
        ValueError: the padding is negative.
    """
    if padding < 0:
        raise ValueError(f"padding is {padding}; it must be a number of pixels of at least 0")
    B, C, H, W = images.shape
    device = images.device
    down, right = torch.randint(0, 2 * padding + 1, (2, B, 1), generator=generator).to(device) - padding
    rows = (torch.arange(H, device=device) + down).clamp(0, H - 1)  # [B, H]
    columns = (torch.arange(W, device=device) + right).clamp(0, W - 1)  # [B, W]
    if flip:
        mirrored = (torch.rand(B, 1, generator=generator) < 0.5).to(device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(B, device=device).view(B, 1, 1, 1)
    channel = torch.arange(C, device=device).view(1, C, 1, 1)
    images = images[image, channel, rows.view(B, 1, H, 1), columns.view(B, 1, 1, W)]
    return sampled(images.float(), random_maps(B, affine, generator).to(device)) if affine else images


def random_maps(n: int, affine: float, generator: torch.Generator) -> Tensor:
    """n random affine maps [n, 2, 3] of coordinates from -1 to 1, of the strength that `augment` explains."""
    angle, scale, shear, *shift = affine * (2 * torch.rand(5, n, generator=generator) - 1)
    angle, scale = math.radians(15) * angle, 1 + 0.15 * scale
    across = torch.stack([angle.cos() * scale, shear * 0.2 - angle.sin() * scale, 0.2 * shift[0]], dim=1)
    downwards = torch.stack([angle.sin() * scale, angle.cos() * scale, 0.2 * shift[1]], dim=1)
    return torch.stack([across, downwards], dim=1)


def sampled(images: Tensor, maps: Tensor) -> Tensor:
    """Images [B, C_in, H, W] at places that `maps` [B, 2, 3] give, in coordinates from -1 to 1; the edge is repeated.

    On MPS, where PyTorch 2.9 has no "border", the places are moved to the middle of the edge pixels.
    """
    places = F.affine_grid(maps, images.shape, align_corners=False)  # [B, H, W, 2]
    if images.device.type != "mps":
        return F.grid_sample(images, places, padding_mode="border", align_corners=False)
    return F.grid_sample(images, within(places), padding_mode="zeros", align_corners=False)


def within(places: Tensor) -> Tensor:
    """Places [B, H, W, 2] in coordinates from -1 to 1, those outside moved to the middle of the pixels at the edge."""
    _, H, W, _ = places.shape
    most = 1 - 1 / torch.tensor([W, H], device=places.device)
    return places.clamp(-most, most)


def random_augment(images: Tensor) -> Tensor:
    """RandAugment by torchvision (two random changes of colour or shape), drawn anew for every eighth of a batch.

    Shapes: [B, C_in, H, W] uint8 → the same. The random numbers are those of torch's default generator.
    """
    from torchvision.transforms import v2

    change = v2.RandAugment(num_ops=2, magnitude=9, fill=128)
    return torch.cat([change(part) for part in images.chunk(8)])


def cutmix(images: Tensor, labels: Tensor, n_class: int) -> tuple[Tensor, Tensor]:
    """CutMix by torchvision: a box of each image is replaced by another image's, and the targets in proportion.

    Shapes: [B, C_in, H, W], [B] → [B, C_in, H, W], [B, n_class]. Random numbers: torch's default generator.
    """
    from torchvision.transforms import v2

    return v2.CutMix(num_classes=n_class)(images, labels)


def change_images(images: Tensor, labels: Tensor, data: DataSet, recipe, generator: torch.Generator):
    """A batch as a recipe changes it, and its targets: labels [B], or weights of classes [B, n_class]."""
    if recipe.random_augment:
        images = random_augment(images)
    changes = (recipe.padding, recipe.flip, 0.0) if data.name in PHOTOGRAPHS else (0, False, recipe.affine)
    if any(changes):
        images = augment(images, generator, *changes)
    if recipe.cutmix and torch.rand(()) < recipe.cutmix:
        return cutmix(images, labels, len(data.class_names))
    return images, labels


@contextmanager
def stochastic_depth(model: nn.Module, rate: float) -> Iterator[None]:
    """A context in which images skip mixing blocks at random while the model trains.

    The chance grows evenly from block to block, up to `rate` at the last.
    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth". Raises ValueError if the model has no layers.
    """
    hooks = []
    if rate:
        if not hasattr(model, "layers"):
            raise ValueError("drop_path skips the blocks of mixer layers; choose 0 for a network without layers")
        blocks = [block for layer in model.layers for block in (layer.token_mixing, layer.channel_mixing)]
        shares = [(i + 1) / len(blocks) for i in range(len(blocks))]
        hooks = [b.register_forward_hook(partial(_skip, rate * s)) for b, s in zip(blocks, shares, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _skip(rate: float, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    if not block.training:
        return output
    (x,) = inputs
    chance = torch.rand(len(x), *[1] * (x.dim() - 1))  # one number per image, for tables and for maps
    kept = (chance >= rate).to(x.device) / (1 - rate)  # the mean of the update stays the same
    return x + kept * (output - x)
