"""CostExplorer: where the parameters and the multiply-adds of a Mixer lie, as its sizes change."""

import numpy as np
import traitlets

from mixer.config import MixerConfig, check_mlps
from mixer.widgets.figure import LiveFigure

KEYS = ("n_layers", "n_channel", "n_hidden", "n_output", "image_size", "patch_size", "n_image_channel")
KEYS += ("n_hidden_token", "n_hidden_channel", "norm")
LIMITS = dict(n_layers=64, n_channel=4096, n_hidden_token=16384, n_hidden_channel=16384, image_size=1024)
LIMITS |= dict(n_tokens=65536, n_image_channel=64, n_output=65536)  # the page counts exactly up to these
MOST_SETTINGS = 32
IMAGENET = dict(image_size=224, n_image_channel=3, n_output=1000, norm="channels")
SETTINGS = {  # by default; the Mixers of the paper's table 1
    f"Mixer-{name}": dict(
        n_layers=n, n_channel=C, n_hidden=4 * C, n_hidden_token=C // 2, patch_size=int(name[2:]), **IMAGENET
    )
    for name, n, C in [
        ("B/16", 12, 768),
        ("B/32", 12, 768),
        ("S/16", 8, 512),
        ("S/32", 8, 512),
        ("L/16", 24, 1024),
        ("L/32", 24, 1024),
        ("H/14", 32, 1280),
    ]
}
INKS = [(0, 158, 115), (0, 114, 178), (213, 94, 0), (150, 150, 150), (204, 121, 167)]  # of the five blocks, in order


class CostExplorer(LiveFigure):
    """Parameters and multiply-adds of a Mixer, block by block, for sizes that can be changed.

    Beside them stand the multiply-adds of self-attention of the same width in the place of token mixing. The page
    counts by itself; no model is built.

    Traits: `sizes`, the arguments of the `MLPMixer` that is counted, by name; `setting`, the name of the sizes that it
    began with and is compared with.

    Args:
        settings: arguments of `MLPMixer` by a name; the first is shown first. By default the Mixers of the paper
            (Tolstikhin et al., 2021, table 1), Mixer-B/16 first.

    Raises:
        ValueError: the sizes are those of no Mixer with MLPs on square images, or too large; or there are no settings,
            or more than 32.
    """

    MODULE = "cost.js"
    settings = traitlets.List().tag(sync=True)  # of [name, sizes]
    sizes = traitlets.Dict().tag(sync=True)
    setting = traitlets.Unicode().tag(sync=True)

    def __init__(self, settings: dict[str, dict] | None = None):
        settings = SETTINGS if settings is None else settings
        if not 1 <= len(settings) <= MOST_SETTINGS:
            raise ValueError(f"there are {len(settings)} settings; give 1 to {MOST_SETTINGS}")
        pairs = [[str(name), check_sizes(sizes)] for name, sizes in settings.items()]
        super().__init__(settings=pairs, setting=pairs[0][0], sizes=dict(pairs[0][1]))

    @property
    def n_parameters(self) -> int:
        """The number of parameters of an `MLPMixer` of these sizes."""
        return MixerConfig(**self.sizes).n_parameters

    @property
    def n_multiply_adds(self) -> int:
        """The multiply-adds of its linear layers for one image."""
        return sum(costs(self.sizes)[1].values())

    @traitlets.validate("sizes")
    def _check_sizes(self, proposal):
        return check_sizes(proposal.value)

    @traitlets.validate("setting")
    def _check_setting(self, proposal):
        names = [name for name, _ in self.settings]
        if proposal.value not in names:
            raise ValueError(f"setting is {proposal.value!r}; choose from {', '.join(names)}")
        return proposal.value

    def still(self) -> tuple[np.ndarray, str]:
        """Two bars, of the parameters and of the multiply-adds, each divided among the blocks."""
        width, words = 400, []
        picture = np.full((70, width, 3), 255, np.uint8)
        for top, what, counts in zip((0, 40), ("parameters", "multiply-adds"), costs(self.sizes), strict=True):
            total = sum(counts.values())
            ends = np.round(np.cumsum([0, *counts.values()]) * width / total).astype(int)
            for ink, start, end in zip(INKS, ends[:-1], ends[1:], strict=True):
                picture[top : top + 30, start:end] = ink
            shares = ", ".join(f"{name} {n / total:.1%}" for name, n in counts.items())
            words.append(f"{total:,} {what}: {shares}")
        return picture, f"Two bars for the sizes of {self.setting}. {'. '.join(words)}."


def check_sizes(sizes: dict) -> dict:
    """The arguments of a Mixer by name, completed.

    Raises:
        ValueError: they are those of no Mixer with MLPs on square images, or too large.
    """
    try:
        config = MixerConfig(**sizes)
    except TypeError:
        raise ValueError(f"the sizes are {', '.join(sizes) or 'none'}; a Mixer has {', '.join(KEYS)}") from None
    check_mlps(config, "a figure of the costs")
    if not isinstance(config.image_size, int):
        raise ValueError(f"image_size is {config.image_size}; give one number, the side of a square")
    for name, most in LIMITS.items():
        if getattr(config, name) > most:
            raise ValueError(f"{name} is {getattr(config, name):,}; the figure counts up to {most:,}")
    return {name: value for name, value in config.as_dict().items() if name in KEYS}


def costs(sizes: dict) -> tuple[dict[str, int], dict[str, int]]:
    """The parameters and the multiply-adds of each block; biases, GELU, LayerNorm and the mean are not computed."""
    config = MixerConfig(**sizes)
    S, C, n = config.n_tokens, config.n_channel, config.n_layers
    D_S, D_C, n_pixels = config.n_hidden_token, config.n_hidden_channel, config.n_image_channel * config.patch_size**2
    parameters = {
        "per_patch": n_pixels * C + C,
        "token_mixing": n * (2 * S * D_S + D_S + S),
        "channel_mixing": n * (2 * C * D_C + D_C + C),
        "norm": (2 * n + 1) * 2 * C * (S if config.norm == "tokens_channels" else 1),
        "output": C * config.n_output + config.n_output,
    }
    multiply_adds = {
        "per_patch": S * n_pixels * C,
        "token_mixing": n * C * 2 * S * D_S,
        "channel_mixing": n * S * 2 * C * D_C,
        "norm": 0,
        "output": C * config.n_output,
    }
    return parameters, multiply_adds
