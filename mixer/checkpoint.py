"""Checkpoints: one safetensors file with the weights and everything needed to use them.

Nothing in a checkpoint is executed on loading. Its header holds the model's configuration, the data set with its
normalisation and class names, the command, the metrics, and a SHA-256 over all of it and over the weights, so that a
damaged or altered file is noticed.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from mixer.model import MLPMixer

FORMAT = "mixer-checkpoint-1"


def save(path: str | Path, model: MLPMixer, metadata: dict | None = None, extra: dict[str, Tensor] | None = None):
    """Write a model to one safetensors file; a kill at any moment leaves the previous file whole.

    Args:
        path: the file to write; its folder is made if it is not there.
        model: its weights and its configuration are saved.
        metadata: what else to keep, as JSON: data set, mean, std, class_names, command, metrics …
        extra: further tensors by name, for instance the state of an optimiser.
    """
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in {**weights, **(extra or {})}.items()}
    header = json.dumps({"config": model.config, **(metadata or {})}, ensure_ascii=False, sort_keys=True)
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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (file is no dictionary)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from error
    text = header.get("mixer", "")
    if _digest(tensors, text) != header.get("sha256"):
        raise ValueError(f"{path} was damaged or altered: its contents do not match the SHA-256 in its header")
    return tensors, json.loads(text)


def _digest(tensors: dict[str, Tensor], header: str) -> str:
    """The SHA-256, in hexadecimal, of the header and of every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def write_whole(path: Path, payload: bytes) -> None:
    """Replace a file in one step, so that whoever looks finds the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    with temporary.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
