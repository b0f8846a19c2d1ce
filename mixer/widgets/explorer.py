"""TokenMixingExplorer: the hidden units of token mixing as maps on the grid of patches, over the training."""

import bisect
import zlib

import numpy as np
import torch
import traitlets
from torch import Tensor

from mixer.data import pixel_order
from mixer.model import MLPMixer
from mixer.widgets.figure import Choice, Engine, LiveFigure, check_choice, sheet
from mixer.widgets.library import (
    N_TOP,
    Source,
    check_alike,
    excitations,
    history_of,
    load_model,
    network_of,
    stored_weights,
    thinned,
)

STORED = ("maps", "scales")
ORDERS = ["norm", "frequency", "opposite"]


class TokenMixingExplorer(LiveFigure):
    """The hidden units of token mixing as maps: where each looks, where it writes, what excites it, how it grew.

    A unit's input map is its row of W₁, its output map its column of W₂. Maps are stored as int8 with one scale for
    each model, layer and matrix; a weight is off by at most 1/126 of the largest that its matrix has at any step. The
    colours of a layer have one scale, and the units one order, those of the last step: so growth is seen, and maps stay
    in their places, while the training is played. Between two snapshots the weights are interpolated linearly, which
    is a choice of the display: the run went another way from the one to the other.

    A model of grey images whose checkpoint names its classes also reads what is drawn in the page, with the weights
    shown at the last step and its others as float16.

    Traits: `layer`; `unit`, a hidden unit of it; `step`, a training step up to the last of `steps`; `label`, which
    model; `order`, "norm" (largest input map first), "frequency" (lowest mean spatial frequency first) or "opposite"
    (in pairs of units with opposite input maps, the most opposite pair first).

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
    engine = Engine()  # empty where no model can read drawings
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
        for label, (model, snapshots, about) in loaded.items():
            entries.append(self._store(label, model, thinned(snapshots, n_steps), about))
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
        arrays = (np.diff(a, axis=0, prepend=a[:1] * 0) if ".maps" in k else a for k, a in self._arrays.items())
        numbers = zlib.compress(b"".join(array.tobytes() for array in arrays), 9)  # of maps, the differences in time
        first, reads = entries[0], any(entry["network"] for entry in entries)
        engine = {} if reads else {"engine": b""}
        super().__init__(numbers=numbers, geometry=geometry, label=first["label"], step=first["steps"][-1], **engine)

    def _store(self, label: str, model: MLPMixer, snapshots: dict[int, dict[str, Tensor]], about: dict) -> dict:
        """Store the numbers of a model, and say what else the page must know of it."""
        network, weights = network_of(model, about)
        arrays = stored_weights(model, list(snapshots.values())) | ({"network": weights} if network else {})
        n_before = len({name.split(".")[0] for name in self._arrays})
        self._arrays |= {f"{n_before}.{name}": array for name, array in arrays.items()}
        order = pixel_order(about.get("shuffle", "none"), model.image_shape[1:], model.patches.patch_size)
        return {
            "label": label,
            "steps": list(snapshots),
            "pixel_order": None if order is None else order.tolist(),
            "history": history_of(about, max(snapshots)),
            "network": network,
        }

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
        after = bisect.bisect_left(self.steps, self.step)
        before = after if self.steps[after] == self.step else after - 1
        share = (self.step - self.steps[before]) / max(1, self.steps[after] - self.steps[before])
        maps, scales = (torch.from_numpy(self._arrays[f"{self._model}.{name}"][:, self.layer]) for name in STORED)
        maps = torch.lerp(maps[before].float(), maps[after].float(), share) * scales[0]
        maps = maps.unflatten(2, (self.geometry["rows"], self.geometry["columns"]))
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
        self.step = min(self.step, self.steps[-1])

    @traitlets.validate("step")
    def _check_step(self, proposal):
        return check_choice("step", proposal.value, range(self.steps[-1] + 1))

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
