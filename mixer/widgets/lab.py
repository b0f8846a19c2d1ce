"""TrainingLab: a Mixer that is trained in the page, from settings that the reader chooses."""

from dataclasses import fields

import numpy as np
import torch
import traitlets

from mixer import checkpoint
from mixer.config import MixerConfig
from mixer.data import SHUFFLES, DataSet, permutation
from mixer.model import MLPMixer
from mixer.recipe import Recipe
from mixer.widgets.figure import Engine, LiveFigure, check_trainable, sheet

LARGEST = 500_000  # bytes of images: the page holds them as they are
SETTINGS = dict(
    patch_size=2,
    n_layers=2,
    n_channel=32,
    n_hidden=64,
    norm="tokens_channels",
    token_mixing="mlp",
    channel_mixing="mlp",
    shuffle="none",
    n_train=100_000,
    affine=0.0,
    optimiser="adam",
    lr=3e-3,
    batch_size=64,
    weight_decay=0.0,
    label_smoothing=0.0,
    warm_up=None,
    n_epochs=20,
    seed=1,
)
RANGES = dict(lr=(1e-6, 100), affine=(0, 2), weight_decay=(0, 10), label_smoothing=(0, 0.9))  # as in settings.js
LIMITS = dict(n_layers=8, n_channel=256, n_hidden=512, n_epochs=500, batch_size=4096, seed=2**31 - 1)
OWN_SIZES = (8, 16, 28)  # sides in pixels to which the reader's own images can be cut, as in own.js


class TrainingLab(LiveFigure):
    """A laboratory: settings, a run of training in the page, and everything that it learns, while it learns.

    Training is done by the engine in the page, in float32 on one core, with random numbers of its own; so the same
    settings give the same run in every browser, and another one than `mixer.training.fit` gives.

    Traits: `settings`, by the names of `MixerConfig` and `Recipe`, and n_train and shuffle; `running`, whether it
    trains; `step`, the steps taken; `history`, one record per epoch, as `Trainer` gives them; `runs`, the runs that
    were kept, each with its settings and history, and at its end test_loss and test_accuracy, and of the reader's own
    images their number among the sets that were trained on; their maps of token mixing stay in the page. `weights`, the
    parameters as float32, sent at a pause and at the end, and `trained`, the settings of their run. `own`, empty, or
    the shape, the class names and so on of the reader's own images, while the page trains on these; the images
    themselves stay in the page.

    Settings can also come by an address that ends in `#lab=` and their JSON, or by a link in the page to one. Of
    several laboratories in a page the first takes those of the address; a link means the next one below it.

    Args:
        data: a data set in memory of at most 500 kB of images, for instance the digits.
        settings: what to change in the settings that the figure begins with.

    Raises:
        ValueError: the data set is too large, or a setting is unknown or cannot work.
    """

    MODULE = "lab.js"
    engine = Engine()
    images = traitlets.Bytes().tag(sync=True)
    labels = traitlets.Bytes().tag(sync=True)
    counts = traitlets.List(traitlets.Int()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    mean = traitlets.List(traitlets.Float()).tag(sync=True)
    std = traitlets.List(traitlets.Float()).tag(sync=True)
    data_name = traitlets.Unicode().tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    patch_sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    orders = traitlets.Dict().tag(sync=True)  # the fixed order of n patches or pixels, by n
    limits = traitlets.Dict().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    history = traitlets.List(traitlets.Dict()).tag(sync=True)
    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    weights = traitlets.Bytes(b"").tag(sync=True)
    trained = traitlets.Dict().tag(sync=True)  # the settings of the run that they are of
    own = traitlets.Dict().tag(sync=True)

    def __init__(self, data: DataSet, **settings):
        splits = [data.train, data.validation, data.test]
        check_data(data)
        _, H, W = data.image_shape
        cuts = [(h, w, p) for h, w in ((H, W), *((S, S) for S in OWN_SIZES)) for p in patch_sizes(h, w)]
        lengths = {n for h, w, p in cuts for n in (h // p * (w // p), p * p)}
        super().__init__(
            images=b"".join(split.images.cpu().contiguous().numpy().tobytes() for split in splits),
            labels=b"".join(split.labels.cpu().numpy().astype(np.uint8).tobytes() for split in splits),
            counts=[len(split) for split in splits],
            shape=list(data.image_shape),
            mean=list(data.mean),
            std=list(data.std),
            data_name=data.name,
            class_names=list(data.class_names),
            patch_sizes=patch_sizes(H, W),
            orders={str(n): permutation(n).tolist() for n in sorted(lengths)},
            limits=LIMITS | {"n_train": len(data.train)},
            settings=settings,
        )

    @traitlets.validate("settings")
    def _check_settings(self, proposal) -> dict:
        """The settings in full."""
        settings = {**SETTINGS, **(self.settings or {}), **proposal.value}
        settings = {name: v.item() if isinstance(v, np.generic) else v for name, v in settings.items()}
        if unknown := settings.keys() - SETTINGS.keys():
            raise ValueError(f"{', '.join(sorted(unknown))} is no setting; choose from {', '.join(SETTINGS)}")
        if settings["shuffle"] not in SHUFFLES:
            raise ValueError(f"shuffle is {settings['shuffle']!r}; choose one of {', '.join(SHUFFLES)}")
        n_train = self._seen()["n_train"]
        self._config(settings)
        Recipe(**{one.name: settings[one.name] for one in fields(Recipe) if one.name in settings})
        if settings["n_train"] == SETTINGS["n_train"]:  # all that there are
            settings["n_train"] = n_train
        for name, most in (LIMITS | {"n_train": n_train}).items():
            if not isinstance(settings[name], int) or not 1 <= settings[name] <= most:
                raise ValueError(f"{name} is {settings[name]!r}; in a page it is a whole number from 1 to {most:,}")
        for name, (least, most) in RANGES.items():
            if not least <= settings[name] <= most:
                raise ValueError(f"{name} is {settings[name]!r}; in a page it is a number from {least:g} to {most:g}")
        return settings

    def _seen(self) -> dict:
        """Facts of the images that the page trains on: the reader's own, or those of the data set."""
        facts = {name: getattr(self, name) for name in ("shape", "class_names", "mean", "std")}
        return self.own or facts | dict(data_set=self.data_name, n_train=self.counts[0])

    def _config(self, settings: dict) -> MixerConfig:
        """The sizes and options of the model that the settings name."""
        facts = self._seen()
        C, H, W = facts["shape"]
        sizes = dict(n_output=len(facts["class_names"]), image_size=H if H == W else (H, W), n_image_channel=C)
        return MixerConfig(
            **sizes, **{one.name: settings[one.name] for one in fields(MixerConfig) if one.name in settings}
        )

    def model(self) -> MLPMixer:
        """The model of the run whose weights the page sent last, as it was then: at a pause, or at the end.

        Raises:
            ValueError: nothing has been trained yet.
        """
        config = self._config(self.trained or self.settings)
        if len(self.weights) != 4 * config.n_parameters:
            raise ValueError("there is no trained model of these settings yet; press Train, or set running to True")
        model, at = MLPMixer(**config.as_dict()), 0
        numbers = torch.from_numpy(np.frombuffer(self.weights, "<f4").copy())
        for parameter in model.state_dict().values():
            parameter.copy_(numbers[at : at + parameter.numel()].view(parameter.shape))
            at += parameter.numel()
        return model.eval()

    def save(self, path) -> None:
        """Write the model to a checkpoint that `load_checkpoint` reads; raises as `model` and `save_checkpoint` do."""
        facts = self._seen()
        names = ("data_set", "mean", "std", "class_names", "background")
        about = {name: facts[name] for name in names if name in facts}
        checkpoint.save(path, self.model(), about | {"shuffle": (self.trained or self.settings)["shuffle"]})

    def still(self) -> tuple[np.ndarray, str]:
        _, H, W = self.shape
        n = min(40, self.counts[0])
        images = np.frombuffer(self.images, np.uint8)[: n * self.shape[0] * H * W].reshape(n, -1, H, W)[:, 0]
        words = f"{n} of the {self.counts[0]:,} training images of {self.data_name}, from which a Mixer learns."
        return sheet(images.astype(np.float32) / 255, 10), words


def patch_sizes(H: int, W: int) -> list[int]:
    """The patch sizes that divide an image of H by W pixels."""
    return [p for p in range(1, min(H, W) + 1) if H % p == 0 and W % p == 0]


def check_data(data: DataSet) -> None:
    """Raise ValueError unless a page can hold a data set."""
    splits = [data.train, data.validation, data.test]
    n_bytes = sum(split.images.numel() if hasattr(split, "images") else LARGEST + 1 for split in splits)
    if n_bytes > LARGEST:
        raise ValueError(f"the images of {data.name} are too many for a page; give at most {LARGEST:,} bytes of them")
    check_trainable(data)
