"""Checkpoints: one safetensors file with the weights and everything needed to use them; and official weights.

Nothing in a checkpoint is executed on loading. Its header holds the model's configuration, the data set with its
normalisation and class names, the command, the metrics, and a SHA-256 over all of it and over the weights, so that a
damaged or altered file is noticed.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from mixer.model import MLPMixer

FORMAT = "mixer-checkpoint-1"
UNFINISHED = ".unfinished"  # ending of a file that is being written, or whose writer was killed
WEIGHTS = Path(__file__).parent / "weights"


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


def save(path: str | Path, model: MLPMixer, metadata: dict | None = None, extra: dict[str, Tensor] | None = None):
    """Write a model to one safetensors file; a kill at any moment leaves the previous file whole.

    Args:
        path: the file to write; its folder is made if it is not there.
        model: its weights and its configuration are saved.
        metadata: what else to keep, as JSON: data set, mean, std, class_names, command, metrics …
        extra: further tensors by name, for instance the state of an optimiser.

    Raises:
        ValueError: the model is not an MLPMixer, or an extra tensor has the name of a weight.
    """
    if not isinstance(model, MLPMixer):
        raise ValueError(f"a {type(model).__name__} cannot be saved, only an MLPMixer; see from_convolution for a twin")
    if any(name.startswith("model.") for name in extra or {}):
        raise ValueError("the names of extra tensors must not begin with model.; those are the weights")
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in {**weights, **(extra or {})}.items()}
    header = json.dumps({**(metadata or {}), "config": model.config}, sort_keys=True)
    digest = _digest(tensors, header)
    payload = serialise(tensors, {"format": FORMAT, "mixer": header, "sha256": digest})
    write_whole(Path(path), payload)


def load(path: str | Path) -> tuple[MLPMixer, dict]:
    """A ready model (float32, on the CPU, in evaluation mode) and its metadata, in one call.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, altered, or not a checkpoint of this package.
    """
    tensors, metadata = read(path)
    weights = {name.removeprefix("model."): t.float() for name, t in tensors.items() if name.startswith("model.")}
    try:
        with torch.device("meta"):
            model = MLPMixer(**metadata["config"])
        model.load_state_dict(weights, assign=True)
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} does not hold the model that its header describes ({reason})") from error
    return model.requires_grad_().eval(), metadata


def read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """All tensors of a checkpoint by name, and its metadata, after the SHA-256 was checked. Raises as `load` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"{path} is a safetensors file, but not a checkpoint of this package")
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from error
    text = header.get("mixer", "")
    if _digest(tensors, text) != header.get("sha256"):
        raise ValueError(f"{path} was damaged or altered: its contents do not match the SHA-256 in its header")
    metadata = json.loads(text)
    if isinstance(metadata.get("options"), dict):  # where runs of earlier versions alone said how they shuffled pixels
        metadata.setdefault("shuffle", metadata["options"].get("shuffle", "none"))
    return tensors, metadata


def digest(path: str | Path) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def snapshots(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The token-mixing weights along a training run: step → weights by name, from the tensors of a checkpoint.

    The names are those of the model, for instance "layers.0.token_mixing.fc1.weight". Empty if there are none.
    """
    found = {}
    for key, tensor in tensors.items():
        if key.startswith("snapshot."):
            _, step, name = key.split(".", 2)
            found.setdefault(int(step), {})[name] = tensor
    return dict(sorted(found.items()))


def flattened(groups: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Groups of tensors as a checkpoint stores them, under "group.name"."""
    return {f"{group}.{name}" if name else group: t for group, named in groups.items() for name, t in named.items()}


def grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The groups of a checkpoint's tensors, for instance "model", each by name: the inverse of `flattened`."""
    groups = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tensor
    return groups


def _digest(tensors: dict[str, Tensor], header: str) -> str:
    """The SHA-256, in hexadecimal, of the header and of every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def write_whole(path: Path, payload: bytes) -> None:
    """Replace a file in one step, so that whoever looks finds the old one or the new one, never a part.

    The new file has the mode of the old one. What is unfinished has a name of its own in every call.

    Raises:
        OSError: the file cannot be written; the old one is whole.
        ValueError: the path is not UTF-8, and so could not be read again.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {str(path)!r} is not UTF-8, and could not be read again; choose another") from None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); make room, or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


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


def from_timm(weights: dict[str, Tensor], gelu: str = "erf") -> MLPMixer:
    """An `MLPMixer` from the state_dict of one of timm's `mixer_*` models, which then gives the same logits.

    Args:
        weights: tensors by timm's names, for instance `timm.create_model("mixer_b16_224").state_dict()`.
        gelu: "erf" as timm computes it, or "tanh" as the official code does.

    Raises:
        ValueError: the weights are not those of a Mixer with square images.
    """
    return _official_mixer({_rename(name.split("."), TIMM_NAMES): t for name, t in weights.items()}, gelu)


def from_official(path: str | Path) -> MLPMixer:
    """An `MLPMixer` from an official `.npz` file; it expects images normalised with mean and std 0.5.

    Source of the names: google-research/vision_transformer, `models_mixer.py`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its weights are not those of a Mixer with square images.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or not an .npz file of arrays ({error})") from error
    renamed = {}
    for name, array in arrays.items():
        if name.endswith("kernel"):
            array = array.permute(3, 2, 0, 1) if array.dim() == 4 else array.T  # HWIO → OIHW, or in × out → out × in
        parts = name.replace("MixerBlock_", "MixerBlock/").split("/")
        renamed[_rename(parts, OFFICIAL_NAMES)] = array
    return _official_mixer(renamed, "tanh")


def _rename(parts: list[str], names: dict[str, str]) -> str:
    """A parameter's name in this package, from the parts of its name elsewhere."""
    return ".".join(names.get(part, part) for part in parts)


def _official_mixer(weights: dict[str, Tensor], gelu: str) -> MLPMixer:
    """The model that weights under this package's names describe; the per-patch kernel is still [C, C_in, P, P]."""
    try:
        kernel, token, channel, head = (
            weights[f"{name}.weight"]
            for name in (
                "per_patch.linear",
                "layers.0.token_mixing.fc1",
                "layers.0.channel_mixing.fc1",
                "output.linear",
            )
        )
        n_channel, n_image_channel, patch_size, _ = kernel.shape
        side = math.isqrt(token.shape[1])
        layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
        with torch.device("meta"):
            model = MLPMixer(
                n_layers=len(layers),
                n_channel=n_channel,
                n_hidden=channel.shape[0],
                n_hidden_token=token.shape[0],
                n_output=head.shape[0],
                image_size=side * patch_size,
                patch_size=patch_size,
                n_image_channel=n_image_channel,
                norm="channels",
                gelu=gelu,
                eps=1e-6,
            )
        flat = {**weights, "per_patch.linear.weight": kernel.flatten(1)}
        model.load_state_dict({name: t.float().clone().contiguous() for name, t in flat.items()}, assign=True)
    except KeyError as error:
        raise ValueError(f"these are not the weights of a Mixer: {error.args[0]} is missing") from error
    except (ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"these are not the weights of a Mixer with square images: {reason}") from error
    return model.requires_grad_().eval()
