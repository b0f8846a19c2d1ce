"""The engine of the live figures, compiled natively, and what PyTorch and the generator's source give beside it."""

import ctypes
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixer
from mixer.recipe import lr_factor

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


FIELDS = ["image_size", "patch_size", "n_channel", "n_hidden_token", "n_hidden_channel", "n_layers", "n_output"]
FIELDS += ["n_image_channel"]
MEAN, STD = [0.5, 0.4, 0.6], [0.25, 0.3, 0.2]  # of the images


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
        self.table("recipe", 18, real=np.float32)[6:] = [*values.values(), affine, *MEAN, *STD]

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


@pytest.fixture(scope="session")
def make():
    """A function: a model with weights of every size, seven images and their labels."""

    def made(sizes, real=torch.float32, **options):
        torch.manual_seed(0)
        model = mixer.MLPMixer(n_hidden=1, **dict(zip(FIELDS, sizes, strict=True)), **options).to(real)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        images = torch.randint(0, 256, (7, *model.image_shape), dtype=torch.uint8)
        return model, images, torch.randint(0, model.config["n_output"], (7,))

    return made


@pytest.fixture(scope="session")
def scale():
    """The mean and the standard deviation of each channel of the images."""
    return {"mean": MEAN, "std": STD}


def normalised(images, real):
    mean, std = (torch.tensor(values, dtype=real)[: images.shape[1], None, None] for values in (MEAN, STD))
    return (images.to(real) / 255 - mean) / std


@pytest.fixture(scope="session")
def torch_pass():
    """A function: the logits of a model, its loss, and the gradient of each parameter."""

    def passed(model, images, labels):
        logits = model(normalised(images, torch.float64))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss.backward()
        return logits, loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]

    return passed


@pytest.fixture(scope="session")
def torch_steps():
    """A generator: learning rate and loss of each step of training a model on batches, lists of indices of images.

    SGD decays the weights after the gradient is clipped, as AdamW does.
    """

    def steps(model, images, labels, batches, n_steps, by_sgd, lr, weight_decay, warm_up, clip, label_smoothing):
        linear = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
        own = {id(p) for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in ("kernel", "down", "across")}
        decayed = [p for p in model.parameters() if id(p) in linear | own]
        others = [p for p in model.parameters() if id(p) not in linear | own]
        groups = [dict(params=decayed, weight_decay=weight_decay), dict(params=others, weight_decay=0.0)]
        optimiser = (torch.optim.SGD if by_sgd else torch.optim.AdamW)(groups, lr=lr)
        for step, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = lr * lr_factor(step, n_steps, warm_up)
            logits = model(normalised(images[batch], torch.float32))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            yield group["lr"], loss.item()

    return steps


@pytest.fixture(scope="session")
def pcg32():
    """A generator: the numbers of 32 bits of pcg32. Source: M. O'Neill, 2014."""

    def numbers(seed: int, stream: int):
        state, step = 0, stream << 1 | 1
        for i in count():
            old, state = state, (state * 6364136223846793005 + step) % 2**64
            if i == 0:
                state = (state + seed) % 2**64
            if i > 1:
                mixed, turn = (old >> 18 ^ old) >> 27 & 0xFFFFFFFF, old >> 59
                yield (mixed >> turn | mixed << (-turn & 31)) & 0xFFFFFFFF

    return numbers


@pytest.fixture(scope="session")
def check_gradients():
    """A function: fails unless the gradients of all parameters, one after the other, are those of PyTorch, to 1e-4."""

    def check(model, gradients, found, about=""):
        largest = max(g.abs().max().item() for g in gradients)
        found = torch.tensor(found).split([p.numel() for p in model.parameters()])
        for (name, _), gradient, own in zip(model.named_parameters(), gradients, found, strict=True):
            # A gradient whose parts cancel is known to the rounding of these parts, which the largest one bounds.
            difference = (gradient.flatten() - own).abs().max().item()
            assert difference <= max(1e-4 * gradient.abs().max().item(), 1e-5 * largest), (name, about)

    return check
