"""The sizes and options of a Mixer: what is allowed, what follows from them, and whether a network still has them."""

import math
import operator
import reprlib
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

NORMS = ("tokens_channels", "channels")
GELUS = ("erf", "tanh")
TOKEN_MIXINGS = ("mlp", "linear", "none", "random", "average", "shift", "toeplitz", "low_rank", "kronecker")
CHANNEL_MIXINGS = ("mlp", "none")
MOST_LAYERS, MOST = 10_000, 2**31 - 1  # of layers, and of every other size


def check_positive(**sizes: int) -> list[int]:
    """The sizes as Python's integers; scalars of numpy and torch, for instance `labels.max() + 1`, are integers too.

    Raises:
        ValueError: a size is not a whole number of at least 1, or too large for any model.
    """
    checked = []
    for name, size in sizes.items():
        is_scalar = getattr(size, "ndim", 0) == 0 and "bool" not in str(getattr(size, "dtype", type(size)))
        try:
            checked.append(operator.index(size) if is_scalar else 0)
        except (TypeError, RuntimeError):  # a fraction or a text; a tensor on the meta device, which has no value
            checked.append(0)
        most = MOST_LAYERS if name == "n_layers" else MOST
        if checked[-1] < 1:
            raise ValueError(f"{name} is {reprlib.repr(size)}; it must be a whole number of at least 1")
        if checked[-1] > most:
            raise ValueError(f"{name} is {checked[-1]:,}; it must be a whole number of at most {most:,}")
    return checked


def check_options(norm=NORMS[0], gelu=GELUS[0], eps=1e-5, token_mixing="mlp", channel_mixing="mlp") -> None:
    """Raise ValueError unless these are options of a Mixer."""
    mixings = (("token_mixing", token_mixing, TOKEN_MIXINGS), ("channel_mixing", channel_mixing, CHANNEL_MIXINGS))
    for name, value, allowed in (("norm", norm, NORMS), ("gelu", gelu, GELUS), *mixings):
        if value not in allowed:
            raise ValueError(f"{name} is {reprlib.repr(value)}; choose one of {', '.join(allowed)}")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise ValueError(f"eps is {reprlib.repr(eps)}; it must be a small positive number, for instance 1e-5")


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """The number of patches down and across an image.

    Args:
        image_size: the side in pixels, or (height, width).
        patch_size: the side of a patch in pixels.

    Raises:
        ValueError: a size is not positive, or the image does not divide into whole patches.
    """
    if isinstance(image_size, tuple | list) and len(image_size) == 2:
        H, W, P = check_positive(height=image_size[0], width=image_size[1], patch_size=patch_size)
    else:
        H, P = check_positive(image_size=image_size, patch_size=patch_size)
        W = H
    if H % P or W % P:
        common = math.gcd(H, W)
        divisors = {d for p in range(1, math.isqrt(common) + 1) if common % p == 0 for d in (p, common // p)}
        nearest = sorted(sorted(divisors, key=lambda d: (abs(d - P), d))[:8])
        raise ValueError(
            f"image {H}×{W} is not divisible into {P}×{P} patches; choose patch_size {', '.join(map(str, nearest))}"
        )
    return H // P, W // P


def check_images(image: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless the images have the shape [B, C_in, H, W] that a model was made for."""
    if torch.jit.is_tracing():  # sizes are tensors then
        return
    if image.dim() != 4 or image.shape[1:] != image_shape:
        expected = ", ".join(str(n) for n in image_shape)
        raise ValueError(f"images have shape {list(image.shape)}; this model takes [B, {expected}]")
    if not image.is_floating_point():
        raise ValueError(f"images are {image.dtype}; normalise them first, for instance with data.normalise(images)")


def check_divisible(image: Tensor, patch_size: int) -> None:
    """Raise ValueError unless the images [B, C_in, H, W] divide into patches."""
    if torch.jit.is_tracing():
        return
    if image.dim() != 4:
        raise ValueError(f"images have shape {list(image.shape)}; they must be [B, C_in, H, W]")
    H, W = image.shape[2:]
    if not H * W or H % patch_size or W % patch_size:
        patch_grid((H, W), patch_size)


@dataclass(frozen=True)
class MixerConfig:
    """The sizes and options of a Mixer, in the order of its arguments.

    Raises:
        ValueError: a size is not positive, the image does not divide into patches, or an option is unknown.
    """

    n_layers: int  #: mixer layers in a row
    n_channel: int  #: features per token
    n_hidden: int  #: hidden units of both MLPs of every layer, unless overridden
    n_output: int  #: classes
    image_size: int | tuple[int, int]  #: side of the image in pixels, or (height, width)
    patch_size: int  #: side of a patch in pixels; it must divide the image
    n_image_channel: int  #: channels of the image, 1 for grey, 3 for colour
    n_hidden_token: int | None = None  #: absolute size that overrides n_hidden for token mixing
    n_hidden_channel: int | None = None  #: absolute size that overrides n_hidden for channel mixing
    norm: str = NORMS[0]  #: "tokens_channels" normalises the whole table jointly; "channels" each token, as the paper
    gelu: str = GELUS[0]  #: "erf" is exact; "tanh" is the approximation that the official weights need
    eps: float = 1e-5  #: what LayerNorm adds to the variance; the official weights need 1e-6
    token_mixing: str = "mlp"  #: one of TOKEN_MIXINGS; see `mixer.mixing`
    channel_mixing: str = "mlp"  #: "none" leaves it out

    def __post_init__(self):
        values = vars(self)  # where a frozen object can still be completed
        for name in ("n_hidden_token", "n_hidden_channel"):
            values[name] = self.n_hidden if values[name] is None else values[name]
        sizes = {name: size for name, size in values.items() if name.startswith("n_")}
        values.update(zip(sizes, check_positive(**sizes), strict=True))
        rows, columns = patch_grid(self.image_size, self.patch_size)
        values["patch_size"] = P = operator.index(self.patch_size)
        values["image_size"] = (rows * P, columns * P) if isinstance(self.image_size, tuple | list) else rows * P
        check_options(self.norm, self.gelu, self.eps, self.token_mixing, self.channel_mixing)

    @property
    def grid(self) -> tuple[int, int]:
        """The number of patches down and across."""
        return patch_grid(self.image_size, self.patch_size)

    @property
    def n_tokens(self) -> int:
        """The number of patches."""
        return math.prod(self.grid)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image, (C_in, H, W)."""
        return self.n_image_channel, *(n * self.patch_size for n in self.grid)

    @property
    def n_parameters(self) -> int:
        """The number of numbers in the model, also those that do not learn."""
        T, C, (rows, columns) = self.n_tokens, self.n_channel, self.grid
        norm = 2 * C * (T if self.norm == "tokens_channels" else 1)
        mlp = norm + (T + 1) * self.n_hidden_token + (self.n_hidden_token + 1) * T
        of_token_mixing = {
            "none": 0,
            "linear": norm + (T + 1) * T,
            "average": norm,
            "shift": norm,
            "toeplitz": norm + (2 * rows - 1) * (2 * columns - 1) + 1,
            "kronecker": norm + rows**2 + columns**2 + T,
        }
        channel_mixing = norm + (C + 1) * self.n_hidden_channel + (self.n_hidden_channel + 1) * C
        layer = of_token_mixing.get(self.token_mixing, mlp) + channel_mixing * (self.channel_mixing == "mlp")
        per_patch = (self.n_image_channel * self.patch_size**2 + 1) * C
        return per_patch + self.n_layers * layer + norm + (C + 1) * self.n_output

    def as_dict(self) -> dict:
        """Every field by name, as JSON keeps it: an image_size of two numbers is a list."""
        size = self.image_size
        return asdict(self) | {"image_size": size if isinstance(size, int) else list(size)}


def current_config(network: nn.Module) -> dict:
    """The arguments of a Mixer or its twin by name, as JSON keeps them, with the layers and classes that it has now."""
    layers, head = getattr(network, "layers", None), getattr(getattr(network, "output", None), "linear", None)
    n_layers = len(layers) if isinstance(layers, nn.ModuleList | nn.Sequential) else network.sizes.n_layers
    n_output = getattr(head, "out_features", getattr(head, "out_channels", network.sizes.n_output))
    return replace(network.sizes, n_layers=n_layers, n_output=n_output).as_dict()


def check_float32(network: nn.Module) -> None:
    """Raise ValueError unless all weights are float32, as normalised images are."""
    dtypes = {str(p.dtype).removeprefix("torch.") for p in network.parameters()} - {"float32"}
    if dtypes:
        raise ValueError(f"the model has weights of {', '.join(sorted(dtypes))}; make them float32 with model.float()")


def check_mlps(sizes: MixerConfig, what: str) -> None:
    """Raise ValueError unless tokens and channels are mixed by MLPs, as whatever is named takes for granted."""
    if (sizes.token_mixing, sizes.channel_mixing) != ("mlp", "mlp"):
        raise ValueError(
            f"{what} takes a Mixer with MLPs alone, but token_mixing is {sizes.token_mixing} and channel_mixing is "
            f"{sizes.channel_mixing}; choose a model that has mlp for both"
        )


def check_kind(network: nn.Module, kind: type[nn.Module]) -> None:
    """Raise ValueError unless the network is of this class and has its forward, naming what a wrapper holds."""
    if isinstance(network, kind) and type(network).forward is kind.forward:
        return
    inner = [name for name in ("module", "_orig_mod") if isinstance(getattr(network, name, None), nn.Module)]
    mend = f"give its .{inner[0]}" if inner else "see to_convolution and from_convolution for twins"
    raise ValueError(f"{_title(type(network))} cannot be saved or converted, only {kind.__name__}; {mend}")


def check_unchanged(network: nn.Module, kind: type[nn.Module]) -> None:
    """Raise ValueError, naming the first difference, unless `kind` makes this network from its configuration.

    The numbers in it may be others. Hooks are not looked at; they are no part of a network's state.
    """
    check_kind(network, kind)
    with torch.device("meta"):  # takes no memory
        made = kind(**network.config)
    check_same(_parts(network), _parts(made))
    check_same(kinds(network.state_dict()), kinds(made.state_dict()))


def _parts(network: nn.Module) -> dict[str, str]:
    """Class and options of every module by name, and which of its methods were replaced."""
    found = {}
    for name, part in network.named_modules(remove_duplicate=False):
        listed = name == "layers" and type(part) is nn.Sequential  # runs as a ModuleList does here
        text = f"{'ModuleList' if listed else _title(type(part))}({part.extra_repr()})" if name else "as it was made"
        replaced = [attribute for attribute in vars(part) if callable(getattr(type(part), attribute, None))]
        found[name or "the network"] = f"{text}, but for its {', '.join(replaced)}," if replaced else text
    return found


def _title(kind: type) -> str:
    """The name of a class, with its module where that is neither torch's nor this package's."""
    is_known = kind.__module__.startswith(("torch.nn.", "mixer."))
    return kind.__qualname__ if is_known else f"{kind.__module__}.{kind.__qualname__}"


def kinds(tensors: dict[str, Tensor]) -> dict[str, str]:
    """The shape of every tensor by name, with its type unless that is a usual one for weights."""
    usual = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return {name: f"{'' if t.dtype in usual else t.dtype} {list(t.shape)}".strip() for name, t in tensors.items()}


def check_same(found: dict[str, str], expected: dict[str, str]) -> None:
    """Raise ValueError, naming the first difference, unless the two are equal."""
    for name in {**expected, **found}:
        there, wanted = found.get(name, "missing"), expected.get(name, "left out")
        if there != wanted:
            raise ValueError(f"{name} is {there} and should be {wanted}")
