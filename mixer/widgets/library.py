"""What TokenMixingExplorer stores: maps over the training, networks that read drawings, images that excite units."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixer import analysis, checkpoint
from mixer.config import check_images
from mixer.data import normalise, pixel_order
from mixer.model import MLPMixer
from mixer.widgets.figure import check_finite

Source = MLPMixer | str | Path
FULL_COLOUR = 0.99  # the share of a layer's weights that the scale of colours spans; the few beyond have its ends
LEVELS = 63  # of the weights on either side of 0: with more, twelve snapshots would not fit into a page
N_TOP = 4  # images kept for each unit
NO_SNAPSHOTS = 0  # the only step of a model whose training was not recorded
LARGEST, MOST_LAYERS = 500_000, 32  # parameters and layers of a network that reads drawings in the page


def load_model(label: str, model: Source) -> tuple[MLPMixer, dict[int, dict[str, Tensor]], dict]:
    """A model, its token-mixing weights by training step, and the metadata of its checkpoint (empty without one)."""
    if not isinstance(label, str) or not label:
        raise ValueError(f"the label {label!r} is no text; give each model a name")
    if isinstance(model, MLPMixer):
        return model, {NO_SNAPSHOTS: model.state_dict()}, {}
    if not isinstance(model, str | Path):
        raise ValueError(
            f"model {label!r} is of type {type(model).__name__}; give an MLPMixer or the path of a checkpoint"
        )
    loaded, about = checkpoint.load(model)
    snapshots = checkpoint.snapshots(checkpoint.read(model)[0])
    return loaded, snapshots or {NO_SNAPSHOTS: loaded.state_dict()}, about


def check_alike(models: dict[str, MLPMixer]) -> None:
    """Raise ValueError unless there are models and their token mixing has the same sizes."""
    if not models:
        raise ValueError("models is empty; give at least one")
    sizes = {
        label: "a {}×{} grid of patches, n_layers {} and n_hidden_token {}".format(
            *model.grid, len(model.layers), model.config["n_hidden_token"]
        )
        for label, model in models.items()
    }
    (first, expected), *others = sizes.items()
    for label, size in others:
        if size != expected:
            raise ValueError(f"model {label!r} has {size}, but {first!r} has {expected}; explore them one by one")


def thinned(snapshots: dict[int, dict], n_steps: int | None) -> dict[int, dict]:
    """So many of the snapshots, evenly spread, the first and the last among them; all if there are no more."""
    if n_steps is None:
        return snapshots
    if not isinstance(n_steps, int) or n_steps < 2:
        raise ValueError(f"n_steps is {n_steps!r}; it must be a whole number of at least 2, or None for all snapshots")
    if n_steps >= len(snapshots):
        return snapshots
    steps = list(snapshots)
    return {
        step: snapshots[step] for step in (steps[round(i * (len(steps) - 1) / (n_steps - 1))] for i in range(n_steps))
    }


def history_of(about: dict, last_step: int) -> list[list[float]] | None:
    """Pairs of a training step and the validation loss at it, if the metadata of a checkpoint hold its history."""
    history = about.get("history")
    return history and [[last_step * r["epoch"] / history[-1]["epoch"], r["validation_loss"]] for r in history]


def quantised(values: Tensor, axes: tuple[int, ...], levels: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as int8, and the float32 scales that give them back, which the numbers along these axes share."""
    scales = values.abs().amax(dim=axes, keepdim=True).clamp_min(1e-12) / levels
    return (values / scales).round().to(torch.int8).numpy(), scales.numpy()


def stored_weights(model: MLPMixer, snapshots: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The maps of a model at all steps, and the orders of its units at the last.

    Shapes: "maps" [n_steps, n_layers, 2, n_units, n_tokens] int8, "scales" the same with 1 for n_steps and for the last
    two; "limits", the weights drawn in full colour, [n_layers, 2]; "biases" of the hidden units [n_steps, n_layers,
    n_units]; "orders" [n_layers, 3, n_units].
    """
    layers = range(len(model.layers))
    pairs = [[torch.stack(analysis.token_maps(model, i, weights)) for i in layers] for weights in snapshots]
    maps = torch.stack([torch.stack(step) for step in pairs]).cpu().flatten(4)
    check_finite(maps)
    names = [f"layers.{i}.token_mixing.fc1.bias" for i in layers]
    biases = torch.stack([torch.stack([weights[name] for name in names]) for weights in snapshots])
    numbers, scales = quantised(maps, (0, 3, 4), LEVELS)
    limits = maps[-1].abs().flatten(2).quantile(FULL_COLOUR, dim=2).clamp_min(1e-12)
    last = torch.from_numpy(numbers[-1, :, 0] * scales[0, :, 0]).unflatten(2, model.grid)
    orders = np.stack([unit_orders(inputs) for inputs in last])
    return {
        "maps": numbers,
        "scales": scales,
        "limits": limits.numpy(),
        "biases": biases.cpu().float().numpy(),
        "orders": orders,
    }


def network_of(model: MLPMixer, about: dict) -> tuple[dict | None, np.ndarray]:
    """What the page needs to let a model read drawings, and its weights as float16; None if it cannot.

    The weights are all but the matrices of token mixing, which the page has as maps, one after the other. A drawing is
    grey, so a model of colour images reads none; nor does one that does not say how to normalise images.
    """
    config, names = model.config, about.get("class_names")
    fits = model.image_shape[0] == 1 and model.n_parameters <= LARGEST and len(model.layers) <= MOST_LAYERS
    kinds = {config["token_mixing"], config["channel_mixing"]}
    if not fits or kinds != {"mlp"} or not {"mean", "std"} <= about.keys() or len(names or []) != config["n_output"]:
        return None, np.zeros(0, np.float16)
    matrices = {f"layers.{i}.token_mixing.fc{k}.weight" for i in range(len(model.layers)) for k in (1, 2)}
    rest = [tensor.flatten() for name, tensor in model.state_dict().items() if name not in matrices]
    weights = torch.cat(rest).cpu().half()
    check_finite(weights)
    about = {"mean": about["mean"][0], "std": about["std"][0], "class_names": names}
    return {"config": config, **about}, weights.numpy().astype("<f2")


def unit_orders(maps: Tensor) -> np.ndarray:
    """The units in each order of ORDERS, by their input maps [n_units, rows, columns]: uint16 [3, n_units]."""
    by_norm = maps.flatten(1).norm(dim=1).argsort(descending=True, stable=True).tolist()
    by_frequency = analysis.mean_frequency(maps).argsort(stable=True).tolist()
    paired = [unit for first, second, _ in analysis.opposite_pairs(maps) for unit in (first, second)]
    alone = sorted(set(range(len(maps))) - set(paired))
    return np.array([by_norm, by_frequency, paired + alone], np.uint16)


@torch.inference_mode()
def excitations(label: str, model: MLPMixer, about: dict, images: Tensor) -> dict[str, np.ndarray]:
    """The images on which each hidden unit is most excited, the first most of all, and what the patches contribute.

    A unit's excitation on an image is its highest pre-activation among the channels. A patch contributes its weight in
    W₁ times its normalised value in that channel; the contributions and the bias add up to the pre-activation.

    Shapes, n_top being N_TOP or the number of images if that is less: "chosen" images, "channels" and "pre_activations"
    [n_layers, n_units, n_top]; "contributions" [n_layers, n_units, n_top, n_tokens] int8; "contribution_scales",
    their scales, the same with 1 for the last.
    """
    if "mean" not in about or "std" not in about:
        raise ValueError(f"model {label!r} does not say how to normalise images; give a checkpoint with mean and std")
    check_images(images.float(), model.image_shape)
    order = pixel_order(about.get("shuffle", "none"), model.image_shape[1:], model.patches.patch_size)
    seen = images.cpu() if order is None else images.cpu().flatten(2)[:, :, order].view_as(images)
    _, results = model.forward_intermediates(normalise(seen, about["mean"], about["std"]))
    found = {"chosen": [], "channels": [], "pre_activations": [], "contributions": []}
    for i, layer in enumerate(model.layers):
        mlp = layer.token_mixing
        x = results[f"layers.{i - 1}.channel_mixing" if i else "tokens"]
        x = mlp.norm(x).transpose(1, 2)  # [B, n_channel, n_tokens]
        highest, channels = mlp.fc1(x).max(dim=1)  # [B, n_units]
        pre_activations, chosen = highest.topk(min(N_TOP, len(images)), dim=0)  # [n_top, n_units]
        channels = channels.gather(0, chosen)
        contributions = mlp.fc1.weight * x[chosen, channels]  # [n_top, n_units, n_tokens]
        for name, value in zip(found, (chosen, channels, pre_activations, contributions), strict=True):
            found[name].append(value.transpose(0, 1))
    chosen, channels, pre_activations, contributions = (torch.stack(values) for values in found.values())
    numbers, scales = quantised(contributions, (-1,), LEVELS // 4)  # seen as colours only
    return {
        "chosen": chosen.numpy(),
        "channels": channels.numpy().astype(np.uint16),
        "pre_activations": pre_activations.numpy(),
        "contributions": numbers,
        "contribution_scales": scales,
    }
