"""The engine of the live figures, compiled natively, and a network to try it on."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mixer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "mixer/widgets/engine/engine.c"
MIXINGS = list(mixer.TOKEN_MIXINGS)
TABLES = ["sizes", "recipe", "images", "labels", "pixel_order", "params", "grads", "patches", "logits", "probabilities"]
TABLES += ["pooled", "influence", "shares", "losses", "stream", "hidden"]


def compiler(*arguments: str | Path) -> None:
    """Run the C compiler that `make compiler` puts into _build."""
    folder = ROOT / "_build/compiler"
    assert (folder / "ziglang").is_dir(), "there is no C compiler; get it with make compiler"
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import runpy; runpy.run_module('ziglang', alter_sys=True)"
    subprocess.run([sys.executable, "-c", code, "cc", *map(str, arguments)], check=True)


class Native:
    """The engine compiled for this machine, in float64 or float32."""

    def __init__(self, library: Path, real):
        self.c, self.real = ctypes.CDLL(str(library)), real
        self.c.address.restype, self.c.loss.restype, self.c.rate.restype = (
            ctypes.c_void_p,
            ctypes.c_double,
            ctypes.c_double,
        )

    def table(self, name: str, n: int, i: int = 0, real=None) -> np.ndarray:
        """A table of the engine, as a view of its memory."""
        address = self.c.address(TABLES.index(name), i)
        return np.ctypeslib.as_array(
            (ctypes.c_char * (n * np.dtype(real or self.real).itemsize)).from_address(address)
        ).view(real or self.real)

    def configure(self, config: dict, batch: int) -> int:
        """The number of parameters of a network."""
        size = config["image_size"]
        H, W = (size, size) if isinstance(size, int) else size
        names = ["n_channel", "n_hidden_token", "n_hidden_channel", "n_layers", "n_output"]
        self.table("sizes", 14, real=np.int32)[:] = [
            batch,
            config["n_image_channel"],
            H,
            W,
            config["patch_size"],
            *(config[name] for name in names),
            config["norm"] == "channels",
            config["gelu"] == "tanh",
            MIXINGS.index(config["token_mixing"]),
            config["channel_mixing"] == "mlp",
        ]
        self.table("sizes", 15, real=np.float32)[14] = config["eps"]
        self.n_parameters = self.c.configure()
        return self.n_parameters

    def set_recipe(
        self, seed=1, n_train=8, batch_size=8, n_steps=100, by_sgd=0, random_changes=0, affine=1.0, **floats
    ):
        """How to train."""
        values = dict(lr=1e-3, weight_decay=0.0, label_smoothing=0.0, warm_up=-1.0, clip=0.0) | floats
        self.table("recipe", 6, real=np.int32)[:] = [n_train, batch_size, n_steps, by_sgd, seed, random_changes]
        self.table("recipe", 18, real=np.float32)[6:] = [*values.values(), affine, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]

    def put(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """The data set, uint8 [N, C, H, W] and [N]."""
        assert self.c.prepare(len(images))
        self.table("images", images.numel(), real=np.uint8)[:] = images.numpy().ravel()
        self.table("labels", len(labels), real=np.uint8)[:] = labels.numpy()
        self.n_images = len(images)

    @property
    def params(self) -> np.ndarray:
        return self.table("params", self.n_parameters)

    @property
    def grads(self) -> np.ndarray:
        return self.table("grads", self.n_parameters)


@pytest.fixture(scope="session", params=["float64", "float32"])
def native(request, tmp_path_factory) -> Native:
    """The engine in both precisions."""
    return compiled(tmp_path_factory, request.param)


@pytest.fixture(scope="session")
def native64(tmp_path_factory) -> Native:
    return compiled(tmp_path_factory, "float64")


def compiled(tmp_path_factory, real: str) -> Native:
    library = tmp_path_factory.mktemp("engine") / f"{real}.so"
    options = ["-DDOUBLE"] if real == "float64" else []
    compiler("-O2", "-ffp-contract=off", "-shared", "-fPIC", *options, "-o", library, SOURCE)
    return Native(library, np.dtype(real))
