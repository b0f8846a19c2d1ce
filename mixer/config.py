"""The sizes and options of a Mixer: what is allowed, and what follows from them, before anything is built."""

import math
import operator
import reprlib
from dataclasses import asdict, dataclass

NORMS = ("tokens_channels", "channels")
GELUS = ("erf", "tanh")
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


def check_options(norm: str = NORMS[0], gelu: str = GELUS[0], eps: float = 1e-5) -> None:
    """Raise ValueError unless these are options of a Mixer."""
    for name, value, allowed in (("norm", norm, NORMS), ("gelu", gelu, GELUS)):
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

    def __post_init__(self):
        values = vars(self)  # where a frozen object can still be completed
        for name in ("n_hidden_token", "n_hidden_channel"):
            values[name] = self.n_hidden if values[name] is None else values[name]
        sizes = {name: size for name, size in values.items() if name.startswith("n_")}
        values.update(zip(sizes, check_positive(**sizes), strict=True))
        rows, columns = patch_grid(self.image_size, self.patch_size)
        values["patch_size"] = P = operator.index(self.patch_size)
        values["image_size"] = (rows * P, columns * P) if isinstance(self.image_size, tuple | list) else rows * P
        check_options(self.norm, self.gelu, self.eps)

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
        """The number of trainable numbers in the model."""
        T, C = self.n_tokens, self.n_channel
        norm = 2 * C * (T if self.norm == "tokens_channels" else 1)
        token_mixing = norm + (T + 1) * self.n_hidden_token + (self.n_hidden_token + 1) * T
        channel_mixing = norm + (C + 1) * self.n_hidden_channel + (self.n_hidden_channel + 1) * C
        per_patch = (self.n_image_channel * self.patch_size**2 + 1) * C
        return per_patch + self.n_layers * (token_mixing + channel_mixing) + norm + (C + 1) * self.n_output

    def as_dict(self) -> dict:
        """Every field by name, as JSON keeps it: an image_size of two numbers is a list."""
        size = self.image_size
        return asdict(self) | {"image_size": size if isinstance(size, int) else list(size)}
