"""TokenMixingExplorer: the hidden units of token mixing as maps on the grid of patches, over the training."""

from pathlib import Path

import numpy as np
import torch
import traitlets
from torch import Tensor

from mixer import analysis, checkpoint
from mixer.config import check_images
from mixer.data import normalise, pixel_order
from mixer.model import MLPMixer
from mixer.widgets.figure import Choice, LiveFigure, check_choice, check_finite, sheet

Source = MLPMixer | str | Path
ORDERS = ["norm", "frequency", "opposite"]
FULL_COLOUR = 0.99  # the share of a layer's weights that the scale of colours spans; the few beyond have its ends
N_TOP = 4  # images kept for each unit
NO_SNAPSHOTS = 0  # the only step of a model whose training was not recorded


class TokenMixingExplorer(LiveFigure):
    """The hidden units of token mixing as maps: where each looks, where it writes, what excites it, how it grew.

    A unit's input map is its row of W₁, its output map its column of W₂. Maps are stored as int8 with one scale for
    each model, step, layer and matrix; a weight is off by at most 1/254 of the largest weight of its matrix. The
    colours of a layer have one scale, and the units one order, those of the last step: so growth is seen, and maps stay
    in their places, while the training is played.

    Traits: `layer`; `unit`, a hidden unit of it; `step`, one of `steps`; `label`, which model; `order`, "norm" (largest
    input map first), "frequency" (lowest mean spatial frequency first) or "opposite" (in pairs of units with opposite
    input maps, the most opposite pair first).

    Args:
        models: a checkpoint, an `MLPMixer`, or a dictionary of them by label. All need the same grid of patches and the
            same numbers of layers and hidden units. A slider over the training is there for checkpoints that hold
            snapshots.
        images: uint8 [n, C_in, H, W], among which to look for those that excite each unit of the trained model most;
            the images found are stored in the page. It takes checkpoints, as they know how to normalise images.
        n_steps: keep only so many snapshots, the first and the last among them, for a smaller page.

    Raises:
        ValueError: a model is none of these, has no hidden units, or does not match the others; the images do not fit
            the models, or a model does not say how to normalise them; n_steps is less than 2.
    """

    MODULE = "explorer.js"
    numbers = traitlets.Bytes().tag(sync=True)
    geometry = traitlets.Dict().tag(sync=True)
    layer = Choice(0)
    unit = Choice(0)
    step = Choice(0)
    label = traitlets.Unicode().tag(sync=True)
    order = traitlets.Unicode("norm").tag(sync=True)

    def __init__(self, models: Source | dict[str, Source], images: Tensor | None = None, n_steps: int | None = None):
        models = models if isinstance(models, dict) else {"model": models}
        loaded = {label: load_model(label, model) for label, model in models.items()}
        check_alike({label: model for label, (model, _, _) in loaded.items()})
        self._arrays, entries = {}, []
        for i, (label, (model, snapshots, about)) in enumerate(loaded.items()):
            steps = thinned(list(snapshots), n_steps)
            arrays = stored_weights(model, [snapshots[step] for step in steps])
            self._arrays |= {f"{i}.{name}": array for name, array in arrays.items()}
            order = pixel_order(about.get("shuffle", "none"), model.image_shape[1:], model.patches.patch_size)
            entries.append({"label": label, "steps": steps, "pixel_order": None if order is None else order.tolist()})
        rows, columns = model.grid
        n_units = model.config["n_hidden_token"]
        geometry = {
            "rows": rows,
            "columns": columns,
            "n_layers": len(model.layers),
            "n_units": n_units,
            "n_columns": min(n_units + n_units % 2, max(8, min(16, 2 * round(n_units**0.5 / 2)))),
            "models": entries,
            "images": None if images is None else self._excite(loaded, images),
            "sections": [[name, array.dtype.name, list(array.shape)] for name, array in self._arrays.items()],
        }
        numbers = b"".join(array.tobytes() for array in self._arrays.values())
        first = entries[0]
        super().__init__(numbers=numbers, geometry=geometry, label=first["label"], step=first["steps"][-1])

    def _excite(self, loaded: dict, images: Tensor) -> dict:
        """Store the images that excite the units most, and say which they are."""
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4 or not len(images):
            got = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images are {got}; they must be uint8 [n, C_in, H, W], at least one of them")
        for i, (label, (model, _, about)) in enumerate(loaded.items()):
            self._arrays |= {f"{i}.{k}": array for k, array in excitations(label, model, about, images).items()}
        names = [f"{i}.chosen" for i in range(len(loaded))]
        used = np.unique(np.concatenate([self._arrays[name].flatten() for name in names]))
        for name in names:
            self._arrays[name] = np.searchsorted(used, self._arrays[name]).astype(np.uint16)
        self._arrays["images"] = images.cpu().numpy()[used]
        return {"used": used.tolist(), "shape": list(images.shape[1:]), "n_top": min(N_TOP, len(images))}

    @property
    def _model(self) -> int:
        return [entry["label"] for entry in self.geometry["models"]].index(self.label)

    @property
    def steps(self) -> list[int]:
        """The training steps of the model that is shown; [0] if its training was not recorded."""
        return self.geometry["models"][self._model]["steps"]

    @property
    def n_units(self) -> int:
        """The hidden units of a layer's token mixing."""
        return self.geometry["n_units"]

    def maps(self) -> tuple[Tensor, Tensor]:
        """The input and output maps that are shown, as they are stored: two tensors [n_units, rows, columns]."""
        at = self.steps.index(self.step), self.layer
        maps, scales = (torch.from_numpy(self._arrays[f"{self._model}.{name}"][at]) for name in ("maps", "scales"))
        maps = (maps * scales).unflatten(2, (self.geometry["rows"], self.geometry["columns"]))
        return maps[0], maps[1]

    @traitlets.validate("layer")
    def _check_layer(self, proposal):
        return check_choice("layer", proposal.value, range(self.geometry["n_layers"]))

    @traitlets.validate("unit")
    def _check_unit(self, proposal):
        return check_choice("unit", proposal.value, range(self.n_units))

    @traitlets.validate("label")
    def _check_label(self, proposal):
        return check_choice("label", proposal.value, [entry["label"] for entry in self.geometry["models"]])

    @traitlets.observe("label")
    def _keep_step(self, _):
        if self.step not in self.steps:
            self.step = self.steps[-1]

    @traitlets.validate("step")
    def _check_step(self, proposal):
        return check_choice("step", proposal.value, self.steps)

    @traitlets.validate("order")
    def _check_order(self, proposal):
        return check_choice("order", proposal.value, ORDERS)

    def still(self) -> tuple[np.ndarray, str]:
        units = self._arrays[f"{self._model}.orders"][self.layer, ORDERS.index(self.order)]
        picture = sheet(self.maps()[0].numpy()[units], self.geometry["n_columns"])
        rows, columns = self.geometry["rows"], self.geometry["columns"]
        return picture, (
            f"The input maps of the {self.n_units} hidden units of token mixing in layer {self.layer}, each {rows} by "
            f"{columns} weights: red where a unit adds the patch, blue where it subtracts it."
        )


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


def thinned(steps: list[int], n_steps: int | None) -> list[int]:
    """So many of the steps, evenly spread, the first and the last among them; all if there are no more."""
    if n_steps is None:
        return steps
    if not isinstance(n_steps, int) or n_steps < 2:
        raise ValueError(f"n_steps is {n_steps!r}; it must be a whole number of at least 2, or None for all snapshots")
    if n_steps >= len(steps):
        return steps
    return [steps[round(i * (len(steps) - 1) / (n_steps - 1))] for i in range(n_steps)]


def quantised(values: Tensor, n_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as int8, and the float32 scales that give them back; the last `n_dims` axes share one scale."""
    scales = values.abs().amax(dim=tuple(range(-n_dims, 0)), keepdim=True).clamp_min(1e-12) / 127
    return (values / scales).round().to(torch.int8).numpy(), scales.numpy()


def stored_weights(model: MLPMixer, snapshots: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The maps of a model at all steps, and the orders of its units at the last.

    Shapes: "maps" [n_steps, n_layers, 2, n_units, n_tokens] int8; "scales" the same with 1 for the last two; "limits",
    the weights drawn in full colour, [n_layers, 2]; "biases" of the hidden units [n_steps, n_layers, n_units]; "orders"
    [n_layers, 3, n_units].
    """
    layers = range(len(model.layers))
    pairs = [[torch.stack(analysis.token_maps(model, i, weights)) for i in layers] for weights in snapshots]
    maps = torch.stack([torch.stack(step) for step in pairs]).cpu().flatten(4)
    check_finite(maps)
    names = [f"layers.{i}.token_mixing.fc1.bias" for i in layers]
    biases = torch.stack([torch.stack([weights[name] for name in names]) for weights in snapshots])
    numbers, scales = quantised(maps, 2)
    limits = maps[-1].abs().flatten(2).quantile(FULL_COLOUR, dim=2).clamp_min(1e-12)
    last = torch.from_numpy(numbers[-1, :, 0] * scales[-1, :, 0]).unflatten(2, model.grid)
    orders = np.stack([unit_orders(inputs) for inputs in last])
    return {
        "maps": numbers,
        "scales": scales,
        "limits": limits.numpy(),
        "biases": biases.cpu().float().numpy(),
        "orders": orders,
    }


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
    numbers, scales = quantised(contributions, 1)
    return {
        "chosen": chosen.numpy(),
        "channels": channels.numpy().astype(np.uint16),
        "pre_activations": pre_activations.numpy(),
        "contributions": numbers,
        "contribution_scales": scales,
    }
