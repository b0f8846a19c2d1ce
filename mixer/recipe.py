"""Recipes: how to train, the learning rate of every step, and the optimisers."""

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from mixer.config import check_positive
from mixer.mixing import TokenMixing

OPTIMISERS = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are those of the recipe "seed"."""

    n_epochs: int = 20  #: passes over the training images
    batch_size: int = 256  #: images per step, of all processes together
    lr: float = 1e-3  #: the (highest) learning rate of the optimiser
    optimiser: str = "adam"  #: what trains all that Muon does not, "adam", or "sgd" without momentum
    weight_decay: float = 0.0  #: decay of the weights of linear layers, as in AdamW; 0 gives Adam
    warm_up: float | None = None  #: share of the steps with a rising rate, before half a cosine; None keeps it constant
    label_smoothing: float = 0.0  #: share of the target spread evenly over all classes
    clip: float | None = None  #: the largest norm of the gradient; None leaves it as it is
    padding: int = 0  #: pixels of the padded crop of photographs; 0 leaves it out
    flip: bool = False  #: whether half of the photographs are mirrored
    affine: float = 0.0  #: how far other images, such as digits, are turned, scaled, sheared and shifted
    random_augment: bool = False  #: whether torchvision's RandAugment changes the images
    cutmix: float = 0.0  #: share of the batches in which a box of each image is replaced by another image's
    drop_path: float = 0.0  #: the chance to skip the last block (stochastic depth), which grows from 0 block by block
    ema: float = 0.0  #: decay of the running mean of the weights, which is what is evaluated and kept; 0 keeps none
    muon_lr: float | None = None  #: the highest rate of Muon for the weights of the mixing MLPs; None leaves Muon out

    def __post_init__(self):
        check_positive(n_epochs=self.n_epochs, batch_size=self.batch_size)
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser is {self.optimiser!r}; choose one of {', '.join(OPTIMISERS)}")
        for names, is_allowed, allowed in RANGES:
            for name in names.split():
                value = getattr(self, name)
                if value is None and name in ("warm_up", "clip", "muon_lr"):
                    continue
                if not isinstance(value, Real) or isinstance(value, bool) or not is_allowed(value):
                    raise ValueError(f"{name} is {value!r}; it must be {allowed}")
        for name in ("flip", "random_augment"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be True or False")


RANGES = (
    ("lr muon_lr clip", lambda x: 0 < x < math.inf, "a positive number, for instance 0.001"),
    ("weight_decay affine", lambda x: 0 <= x < math.inf, "a number of at least 0"),
    ("warm_up cutmix", lambda x: 0 <= x <= 1, "a share from 0 to 1"),
    ("label_smoothing drop_path ema", lambda x: 0 <= x < 1, "a share from 0 to below 1"),
    ("padding", lambda x: isinstance(x, Integral) and x >= 0, "a whole number of pixels of at least 0"),
)
STRONG = dict(weight_decay=0.2, warm_up=0.1, label_smoothing=0.1, clip=1.0, padding=4, flip=True, affine=0.75)
#: The recipes by name: "seed" is Adam at one rate; "strong" has a schedule, decay, random changes and Muon.
RECIPES = {"seed": Recipe(), "strong": Recipe(lr=3e-3, ema=0.998, muon_lr=0.02, **STRONG)}


def choose_recipe(name: str, **changes) -> Recipe:
    """A recipe by name, with some of its fields changed.

    Raises:
        ValueError: the name is unknown, or a value is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is not known; choose one of {', '.join(RECIPES)}")
    if unknown := changes.keys() - vars(RECIPES[name]).keys():
        raise ValueError(f"{', '.join(unknown)} is not part of a recipe; choose from {', '.join(vars(RECIPES[name]))}")
    return replace(RECIPES[name], **changes)


def lr_factor(step: int, n_steps: int, warm_up: float | None) -> float:
    """The learning rate of a step divided by the highest: a linear warm-up, then half a cosine; or always 1."""
    if warm_up is None:
        return 1.0
    n_warm_up = max(1, round(n_steps * warm_up))
    if step < n_warm_up:
        return (step + 1) / n_warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, n_steps - n_warm_up)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The parameters that learn: weights of linear layers, convolutions and other token mixings decay, no others do."""
    decayed = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    others = [p for m in model.modules() if isinstance(m, TokenMixing) for p in m.parameters(recurse=False)]
    decayed = [p for p in decayed + [p for p in others if p.dim() == 2] if p.requires_grad]
    ids = {id(p) for p in decayed}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in ids]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def orthogonalise(matrices: Tensor, coefficients: tuple[float, float, float], n_steps: int, eps: float) -> Tensor:
    """Matrices [N, rows, columns] with their directions kept and their singular values made about equal to 1.

    Newton-Schulz iteration; source: K. Jordan and others, "Muon" (2024).
    """
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if is_tall else matrices  # the smaller of the two products with itself
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # no singular value above 1
    for _ in range(n_steps):
        square = found @ found.mT
        found = a * found + torch.baddbmm(square, square, square, beta=b, alpha=c) @ found
    return found.mT if is_tall else found


class Muon(torch.optim.Muon):
    """PyTorch's Muon, but the step is computed with float32, and for all matrices of one shape at once.

    PyTorch's own computes them one by one and with bfloat16, for which a processor without instructions for that format
    takes 4 to 15 times as long (`make benchmark`).
    """

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for shape in dict.fromkeys(weight.shape for weight in weights):
                self.move([weight for weight in weights if weight.shape == shape], group)

    def move(self, weights: list[Tensor], group: dict) -> None:
        """Take the step of weights of one shape [rows, columns], with the settings of their group."""
        directions = []
        for weight in weights:
            mean = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            mean.lerp_(weight.grad, 1 - group["momentum"])
            directions.append(weight.grad.lerp(mean, group["momentum"]))  # Nesterov's
        steps = orthogonalise(torch.stack(directions), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = weights[0].shape
        lr = group["lr"] * math.sqrt(max(1, rows / columns))
        for weight, step in zip(weights, steps, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=lr)


def make_optimisers(model: nn.Module, recipe: Recipe, fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW or SGD for all parameters that learn; or Muon for the weights of the mixing MLPs, and that for the rest."""
    decayed, others = parameter_groups(model, recipe.weight_decay)
    optimisers = []
    if recipe.muon_lr is not None:
        hidden = [w for name, w in model.named_parameters() if name.startswith("layers.") and name.endswith("weight")]
        ids = {id(w) for w in hidden if w.dim() == 2}
        mixing = [w for w in decayed["params"] if id(w) in ids]
        decayed["params"] = [w for w in decayed["params"] if id(w) not in ids]
        if mixing:  # the convolutional twin has no matrices
            optimisers = [Muon(mixing, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)]
    optimisers.append(OPTIMISERS[recipe.optimiser]([decayed, others], lr=recipe.lr, fused=fused))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["highest_lr"] = group["lr"]
    return optimisers
