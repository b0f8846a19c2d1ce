"""Checkpoints: one safetensors file with the weights and everything needed to use them.

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
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from mixer.config import MixerConfig, check_float32, check_kind, check_same, check_unchanged, kinds
from mixer.data import normalise, pixel_order
from mixer.model import MLPMixer
from mixer.picture import read_image

FORMAT = "mixer-checkpoint-1"
UNFINISHED = ".unfinished"  # ending of a file that is being written, or whose writer was killed


def save(path: str | Path, model: MLPMixer, metadata: dict | None = None, extra: dict[str, Tensor] | None = None):
    """Write a model to one safetensors file; a kill at any moment leaves the previous file whole.

    Args:
        path: the file to write; its folder is made if it is not there.
        model: its weights and its configuration are saved.
        metadata: what else to keep, as JSON: data set, mean, std, class_names, command, metrics …
        extra: further tensors by name, for instance the state of an optimiser.

    Raises:
        ValueError: `load` would not give this model, a file cannot hold an extra tensor or its name, or the metadata
            are no JSON; nothing is written then.
    """
    check_loadable(model)
    if any(name.split(".")[0] == "model" or name == "__metadata__" for name in extra or {}):
        raise ValueError(
            "the names of extra tensors must not be model or __metadata__ or begin with model.; choose others"
        )
    for name, t in (extra or {}).items():
        if t.layout != torch.strided or t.is_meta or t.dtype in (torch.complex32, torch.complex128):
            kind = f"{t.dtype}, {t.layout} and on {t.device}"
            raise ValueError(f"the extra tensor {name} is {kind}; give a dense one of real numbers, not on meta")
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    layout = dict(memory_format=torch.contiguous_format)  # also of a single number, whose stride may be any
    tensors = {name: t.detach().cpu().clone(**layout) for name, t in {**weights, **(extra or {})}.items()}
    try:
        header = json.dumps({**(metadata or {}), "config": model.config}, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata cannot be written as JSON ({error}); give numbers, texts and lists") from error
    digest = _digest(tensors, header)
    payload = serialise(tensors, {"format": FORMAT, "mixer": header, "sha256": digest})
    write_whole(Path(path), payload)


def load(path: str | Path) -> tuple[MLPMixer, dict]:
    """A ready model (float32, on the CPU, in evaluation mode) and its metadata, in one call.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        ValueError: the file is truncated, altered, or not a checkpoint of this package.
    """
    tensors, metadata = read(path)
    try:
        return assembled(MixerConfig(**metadata["config"]), grouped(tensors).get("model", {})), metadata
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold the model that its header describes ({error})") from error


def assembled(config: MixerConfig, weights: dict[str, Tensor]) -> MLPMixer:
    """The model of a configuration with these weights, by its names, in float32 and evaluation mode.

    Raises:
        ValueError: they are not the weights of this model; nothing of its size was made.
    """
    of_layer = {"mlp": 6, "none": 0}.get(config.token_mixing, 2) + 6 * (config.channel_mixing == "mlp")  # or more
    if of_layer * (config.n_layers - 1) > len(weights) or config.n_parameters >= 2**63:  # bounds the time to make it
        n_there = sum(tensor.numel() for tensor in weights.values())
        raise ValueError(
            f"{config.n_layers:,} layers of {config.n_parameters:,} numbers in all, but there are {len(weights):,} "
            f"tensors of {n_there:,} numbers"
        )
    with torch.device("meta"):  # takes no memory
        model = MLPMixer(**config.as_dict())
    check_same(kinds(weights), kinds(model.state_dict()))
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model.eval()


def check_loadable(model: MLPMixer) -> None:
    """Raise ValueError unless the model is the one that its configuration makes, apart from its numbers."""
    check_kind(model, MLPMixer)
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise ValueError("the model is on the meta device, where it has no weights; load some before it is saved")
    try:
        check_unchanged(model, MLPMixer)
    except ValueError as error:
        raise ValueError(f"a model changed in this way could not be loaded again: {error}") from error


@torch.no_grad()
def classify(model: MLPMixer, about: dict, picture: str | Path) -> dict[str, float]:
    """The probability of each class for one picture, the most probable class first.

    The picture is prepared as the images of the training were, by what the metadata of the checkpoint say. A model of
    grey images sees it in grey. Where no background is named, it is black for grey images, as in MNIST, else white.

    Args:
        model, about: what `load_checkpoint` gives.
        picture: the path of an image file.

    Raises:
        ValueError: the metadata do not say how to prepare a picture or do not fit the model, or it is not float32.
        OSError: the picture cannot be read.
    """
    if not hasattr(model, "patches"):
        raise ValueError(f"the model is a {type(model).__name__}; give an MLPMixer, as load_checkpoint does")
    check_float32(model)
    C, H, W = model.image_shape
    if missing := {"mean", "std", "class_names"} - about.keys():
        raise ValueError(f"the checkpoint lacks {', '.join(sorted(missing))}; save it again with these in its metadata")
    n_output = model.config["n_output"]
    if C not in (1, 3) or not _fits(about, C, n_output):
        raise ValueError(
            f"a model of {C} channels and {n_output} outputs takes no picture; it must have 1 or 3 channels, and its "
            f"metadata a mean and a std above 0 for each of them, and for each output a name of its own in class_names"
        )
    background = about.get("background") or ("black" if C == 1 else "white")
    images = torch.from_numpy(read_image(picture, (H, W), background, "L" if C == 1 else "RGB"))[None]  # [1, C, H, W]
    order = pixel_order(about.get("shuffle", "none"), (H, W), model.patches.patch_size)
    images = normalise(images, about["mean"], about["std"], order)
    shares = model(images.to(next(model.parameters()).device)).softmax(dim=1)[0].tolist()
    return dict(sorted(zip(about["class_names"], shares, strict=True), key=lambda share: -share[1]))


def _fits(about: dict, n_channel: int, n_output: int) -> bool:
    """Whether metadata have a mean and a standard deviation for each channel, and a name for each output."""
    mean, std, names = about["mean"], about["std"], about["class_names"]
    if not all(isinstance(values, list | tuple) for values in (mean, std, names)):
        return False
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in [*mean, *std]):
        return False
    return len(mean) == len(std) == n_channel and min(std) > 0 and len({*map(str, names)}) == len(names) == n_output


def read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """All tensors of a checkpoint by name, and its metadata, after the SHA-256 was checked. Raises as `load` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        path.open("rb").close()  # safe_open says of every file that it cannot open that there is none
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}); make it readable, or choose another") from error
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") == FORMAT:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dictionary)
                sha256 = _digest(tensors, header.get("mixer", ""))
    except (SafetensorError, LookupError, MemoryError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of this package")
    if sha256 != header.get("sha256"):
        raise ValueError(f"{path} was damaged or altered: its contents do not match the SHA-256 in its header")
    try:
        metadata = dict(json.loads(header["mixer"]))
    except (KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} has a header that is not a dictionary in JSON ({error})") from error
    options = metadata.get("options")
    if isinstance(options, dict):  # where runs of earlier versions alone said how they shuffled pixels
        metadata.setdefault("shuffle", options.get("shuffle", "none"))
    return tensors, metadata


def digest(path: str | Path) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def snapshots(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The token-mixing weights along a training run: step → weights by name, from the tensors of a checkpoint.

    The names are those of the model, for instance "layers.0.token_mixing.fc1.weight". Empty if there are none; raises
    ValueError if a name tells no step.
    """
    found = {}
    for key, tensor in tensors.items():
        if key.startswith("snapshot."):
            _, step, *name = key.split(".", 2)
            if not step.isdecimal() or len(step) > 18 or not name:
                raise ValueError(f"{key} does not name a weight of a step; the checkpoint's snapshots are damaged")
            found.setdefault(int(step), {})[name[0]] = tensor
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
        ValueError: the path is not UTF-8, and so could not be read again, or names no file.
    """
    if not path.name:
        raise ValueError(f"the path {str(path)!r} names no file; give one, for instance model.safetensors")
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
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # of the new file, as where it could not be made
            temporary.unlink()


def unwritable(path: Path, error: OSError) -> OSError:
    """An error that names the file and what to do."""
    return OSError(f"{path} cannot be written ({error.strerror}); make room, or choose another folder")
