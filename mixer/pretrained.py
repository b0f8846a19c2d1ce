"""Weights that others trained: those that come with the package, timm's, and the official ones."""

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mixer import checkpoint
from mixer.checkpoint import assembled
from mixer.config import MixerConfig, check_mlps, check_positive, check_unchanged, patch_grid
from mixer.model import MLPMixer

WEIGHTS = Path(__file__).parent / "weights"
TIMM_NAMES = {
    "stem": "per_patch",
    "proj": "linear",
    "blocks": "layers",
    "norm1": "token_mixing.norm",
    "mlp_tokens": "token_mixing",
    "norm2": "channel_mixing.norm",
    "mlp_channels": "channel_mixing",
    "norm": "output.norm",
    "head": "output.linear",
}
OFFICIAL_NAMES = {
    "stem": "per_patch.linear",
    "MixerBlock": "layers",
    "LayerNorm_0": "token_mixing.norm",
    "LayerNorm_1": "channel_mixing.norm",
    "Dense_0": "fc1",
    "Dense_1": "fc2",
    "pre_head_layer_norm": "output.norm",
    "head": "output.linear",
    "kernel": "weight",
    "scale": "weight",
}
WRAPPERS = ("module", "_orig_mod", "model")  # parts of names, by DataParallel, torch.compile and many a training loop
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")  # of a training checkpoint; a running mean first
HEAD = ("output.linear.weight", "output.linear.bias")
RESIZINGS = ("nearest", "bilinear", "bicubic")
MOST_ARRAYS, MOST_BYTES = 10_000, 2**26  # in an .npz file; more bytes only in a file of a fourth of them


def shipped(name: str) -> Path:
    """The file of weights that come with the package, by name, for instance "digits-1" or "mnist".

    Raises:
        ValueError: no weights of this name are shipped.
    """
    path = WEIGHTS / f"{name}.safetensors"
    names = sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))
    if name not in names:
        raise ValueError(f"weights {name!r} are not shipped; choose one of {', '.join(names)}")
    return path


def load_pretrained(name: str) -> tuple[MLPMixer, dict]:
    """A model that comes with the package, by name, and its metadata, as `mixer.checkpoint.load` gives them.

    Raises:
        ValueError: no weights of this name are shipped.
    """
    return checkpoint.load(shipped(name))


def enlarged(model: MLPMixer, factor: int, mode: str = "nearest") -> MLPMixer:
    """The Mixer for images that are `factor` times as high and as wide, with patches of the same size.

    Whatever belongs to a token is resized as a map on the patch grid: the input maps, which are divided by factor²
    because a sum now has so many more terms, the output maps with their biases, and a LayerNorm over the whole table.
    With "nearest" every number is copied, and a table whose tokens are all repeated gives the same logits as before.
    The number of hidden units stays; the paper enlarges it as well (section 3, appendix C).

    Args:
        model: a Mixer whose tokens are mixed by MLPs.
        factor: a whole number of at least 1.
        mode: "nearest", "bilinear" or "bicubic", as in `torch.nn.functional.interpolate`.

    Raises:
        ValueError: the mode or the factor is not one of these, or the model was changed.
    """
    (K,) = check_positive(factor=factor)
    if mode not in RESIZINGS:
        raise ValueError(f"mode is {mode!r}; choose one of {', '.join(RESIZINGS)}")
    check_mlps(model.sizes, "enlarged")
    check_unchanged(model, MLPMixer)

    def resize(columns: Tensor) -> Tensor:  # [n_tokens, n] → [n_tokens · factor², n]
        maps = columns.T.unflatten(1, model.grid)[None]  # [1, n, rows, columns]
        return F.interpolate(maps, scale_factor=K, mode=mode)[0].flatten(1).T

    weights = dict(model.state_dict())
    for name, values in weights.items():
        if name.endswith("token_mixing.fc1.weight"):
            weights[name] = resize(values.T).T / K**2  # [n_hidden_token, n_tokens · factor²]
        elif name.endswith("token_mixing.fc2.bias"):
            weights[name] = resize(values[:, None])[:, 0]
        elif name.endswith("token_mixing.fc2.weight") or ("norm" in name and values.dim() == 2):
            weights[name] = resize(values)
    _, height, width = model.image_shape
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn are replaced
        larger = MLPMixer(**{**model.config, "image_size": (K * height, K * width)}).to(next(model.parameters()))
    larger.load_state_dict(weights)
    return larger.train(model.training)


def from_timm(weights: dict, gelu: str = "erf", n_output: int | None = None, image_size=None) -> MLPMixer:
    """An `MLPMixer` from the state_dict of one of timm's `mixer_*` models, which then gives the same logits.

    Args:
        weights: tensors by timm's names, for instance `timm.create_model("mixer_b16_224").state_dict()`, also with the
            prefixes of DataParallel or torch.compile, or inside of a training checkpoint's dictionary.
        gelu: "erf" as timm computes it, or "tanh" as the official code does.
        n_output: classes of a fresh head of zeros, instead of the one that is there or is missing.
        image_size: side in pixels, or (height, width); None takes square images, if the number of tokens is a square.

    Raises:
        ValueError: the weights are not those of a Mixer, or do not tell its sizes alone.
    """
    while isinstance(weights, dict) and (inner := [name for name in ENTRIES if isinstance(weights.get(name), dict)]):
        weights = weights[inner[0]]
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        some = ", ".join(map(str, [*weights][:5])) if isinstance(weights, dict) else type(weights).__name__
        raise ValueError(f"these are not the weights of a Mixer ({some}); give tensors by name, as state_dict() does")
    named = [(_rename(str(name).split("."), TIMM_NAMES), t) for name, t in weights.items() if name != "n_averaged"]
    return _mixer(named, gelu, n_output, image_size)


def from_official(path: str | Path, n_output: int | None = None, image_size=None) -> MLPMixer:
    """An `MLPMixer` from an official `.npz` file; it expects images normalised with mean and std 0.5.

    The file may also be a training checkpoint, with its weights under `opt/target/`. Source of the names:
    google-research/vision_transformer, `models_mixer.py`. The arguments are those of `from_timm`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its weights are not those of a Mixer, or do not tell its sizes alone.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [member.file_size for member in archive.infolist()]
        if len(sizes) > MOST_ARRAYS or sum(sizes) > max(MOST_BYTES, 4 * Path(path).stat().st_size):
            raise ValueError(f"{len(sizes):,} arrays of {sum(sizes):,} bytes unpacked, more than any Mixer's weights")
        with np.load(path, allow_pickle=False) as file:
            inner = [name for name in file.files if name.startswith("opt/target/")]
            named = [_official(name.removeprefix("opt/target/"), file[name]) for name in inner or file.files]
    except MemoryError:
        raise
    except Exception as error:  # zipfile, its decompressors and NumPy raise errors of many types for a damaged file
        raise ValueError(f"{path} is damaged or not an .npz file of arrays ({error})") from error
    return _mixer(named, "tanh", n_output, image_size)


def _official(name: str, array: np.ndarray) -> tuple[str, Tensor]:
    """A parameter's name in this package and its tensor in torch's layout, from those of an official file."""
    if array.dtype == "V2":  # as NumPy without a bfloat16 of its own reads one
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    if name.endswith("kernel"):
        tensor = tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.T  # HWIO → OIHW, or in × out → out × in
    return _rename(name.replace("MixerBlock_", "MixerBlock/").split("/"), OFFICIAL_NAMES), tensor


def _rename(parts: list[str], names: dict[str, str]) -> str:
    """A parameter's name in this package, from the parts of its name elsewhere."""
    return ".".join(names.get(part, part) for part in parts if part not in WRAPPERS)


def _mixer(named: list[tuple[str, Tensor]], gelu: str, n_output: int | None, image_size) -> MLPMixer:
    """The model that weights under this package's names describe; the per-patch kernel is still [C, C_in, P, P]."""
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in named}
    if len(weights) < len(named):
        raise ValueError("several of these weights have one name without its prefixes; choose those of one model")
    if any(tensor.is_meta for tensor in weights.values()):
        raise ValueError("these weights are on the meta device, and so have no values; load them on another")
    n_channel, n_image_channel, P, _ = _shape(weights, "per_patch.linear.weight", 4)
    n_hidden_token, n_tokens = _shape(weights, "layers.0.token_mixing.fc1.weight", 2)
    n_hidden_channel, _ = _shape(weights, "layers.0.channel_mixing.fc1.weight", 2)
    if n_output is not None:
        (n_output,) = check_positive(n_output=n_output)
        zeros = weights["per_patch.linear.weight"].new_zeros
        weights |= {HEAD[0]: zeros(n_output, n_channel), HEAD[1]: zeros(n_output)}
    elif not weights.keys() & set(HEAD):
        raise ValueError("these weights have no head; give n_output, the number of classes, for a fresh one")
    config = MixerConfig(
        len({name.split(".")[1] for name in weights if name.startswith("layers.")}),
        n_channel,
        n_hidden_channel,
        _shape(weights, HEAD[0], 2)[0],
        _image_size(image_size, n_tokens, P),
        P,
        n_image_channel,
        n_hidden_token,
        norm="channels",
        gelu=gelu,
        eps=1e-6,
    )
    weights["per_patch.linear.weight"] = weights["per_patch.linear.weight"].flatten(1)
    try:
        return assembled(config, weights)
    except ValueError as error:
        raise ValueError(f"these are not the weights of a Mixer: {error}") from error


def _shape(weights: dict[str, Tensor], name: str, n_axes: int) -> torch.Size:
    """The shape of a weight, if it is there and has so many axes; ValueError otherwise."""
    there = list(weights[name].shape) if name in weights else "missing"
    if name not in weights or len(there) != n_axes:
        raise ValueError(f"these are not the weights of a Mixer: {name} is {there} and should have {n_axes} axes")
    return weights[name].shape


def _image_size(image_size, n_tokens: int, P: int) -> int | tuple[int, int]:
    """The size of the images that so many patches fill: the one that is given, or that of a square."""
    side = math.isqrt(n_tokens)
    if image_size is None and side**2 != n_tokens:
        raise ValueError(
            f"these are not the weights of a Mixer with square images: {n_tokens} patches of {P}×{P}; give image_size"
        )
    if image_size is not None and math.prod(patch_grid(image_size, P)) != n_tokens:
        raise ValueError(
            f"image_size {image_size} does not hold the {n_tokens} patches of {P}×{P} pixels of these weights"
        )
    return side * P if image_size is None else image_size
