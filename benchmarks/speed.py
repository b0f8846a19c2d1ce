"""Training speed beside two other implementations: `make benchmark` prints the tables.

Everything is measured in one process, in turns, so that whatever else the machine does falls on all alike. Times are
medians; the spread is half the distance between the quartiles, as a share of the median.
"""

import argparse
import platform
import statistics
import time

import mixer  # isort: skip  (before timm: it makes torchvision importable beside a CPU-only torch)
import mlp_mixer_pytorch
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from timm.models.mlp_mixer import MlpMixer
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mixer.cli.options import BY_DATA_SET
from mixer.data import DataSet, Split
from mixer.devices import autocast, choose_device, choose_precision
from mixer.recipe import RECIPES, Muon, Recipe, make_optimisers
from mixer.training import Trainer

SIZES = dict(image_size=32, patch_size=4, n_channel=128, n_hidden_token=256, n_hidden_channel=256, n_layers=8)
BATCH = 128


def make_ours(image_size, patch_size, n_channel, n_hidden_token, n_hidden_channel, n_layers, n_image_channel=3):
    hidden = dict(n_hidden_token=n_hidden_token, n_hidden_channel=n_hidden_channel)
    sizes = (n_layers, n_channel, 1, 10, image_size, patch_size, n_image_channel)
    return mixer.MLPMixer(*sizes, **hidden, norm="channels")


def make_timm(image_size, patch_size, n_channel, n_hidden_token, n_hidden_channel, n_layers, n_image_channel=3):
    ratio = (n_hidden_token / n_channel, n_hidden_channel / n_channel)
    sizes = dict(img_size=image_size, patch_size=patch_size, num_blocks=n_layers, embed_dim=n_channel)
    return MlpMixer(num_classes=10, mlp_ratio=ratio, in_chans=n_image_channel, **sizes)


def make_mlp_mixer_pytorch(image_size, patch_size, n_channel, n_hidden_token, n_hidden_channel, n_layers):
    n_tokens = (image_size // patch_size) ** 2  # its two factors belong to tokens and channels in this order
    factors = dict(expansion_factor=n_hidden_token / n_tokens, expansion_factor_token=n_hidden_channel / n_channel)
    sizes = dict(image_size=image_size, patch_size=patch_size, dim=n_channel, depth=n_layers)
    return mlp_mixer_pytorch.MLPMixer(channels=3, num_classes=10, **sizes, **factors)


MAKERS = {"mixer": make_ours, "timm": make_timm, "mlp-mixer-pytorch": make_mlp_mixer_pytorch}


def synchronise(device):
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def training_step(model, dtype, device, image_size):
    """A function that takes one step: forward, backward, update."""
    model = model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randn(BATCH, 3, image_size, image_size, device=device)
    labels = torch.randint(0, 10, (BATCH,), device=device)

    def step():
        with autocast(device, dtype):
            loss = F.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def matmul_floor(sizes, dtype, device):
    """A function that does only the matrix products of one step: one forward, two backward, for each linear layer."""
    n_tokens = (sizes["image_size"] // sizes["patch_size"]) ** 2
    C, D_S, D_C = sizes["n_channel"], sizes["n_hidden_token"], sizes["n_hidden_channel"]
    rows_in_out = [(BATCH * n_tokens, 3 * sizes["patch_size"] ** 2, C)]
    for _ in range(sizes["n_layers"]):
        rows_in_out += [(BATCH * C, n_tokens, D_S), (BATCH * C, D_S, n_tokens)]
        rows_in_out += [(BATCH * n_tokens, C, D_C), (BATCH * n_tokens, D_C, C)]
    data = {shape: [torch.randn(*s, device=device, dtype=dtype) for s in shapes(*shape)] for shape in set(rows_in_out)}

    def products():
        for shape in rows_in_out:
            x, weight, gradient = data[shape]
            x @ weight
            gradient @ weight.T
            x.T @ gradient

    return products


def shapes(rows, n_in, n_out):
    return (rows, n_in), (n_in, n_out), (rows, n_out)


def race(runners, rounds, device):
    """The seconds of each runner, measured in turns after a warm-up: name → list."""
    for run in runners.values():
        run()
    times = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            times[name].append(time.perf_counter() - start)
    return times


def report(title, times, against):
    """Print medians and spreads, and how many times faster than the reference each is."""
    print(f"\n{title}")
    reference = statistics.median(times[against])
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        spread = (high - low) / 2 / median
        print(f"  {name:30}{median * 1e3:9.1f} ms  ± {spread:4.0%}  {reference / median:6.2f} × {against}")


class PictureFiles(Dataset):
    """Decoded images as a usual DataLoader loop meets them: one PIL image, transformed, at a time."""

    def __init__(self, images, labels, mean, std, augmentation=()):
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images]
        self.labels = labels.tolist()
        self.transform = transforms.Compose([*augmentation, transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.pictures[i]), self.labels[i]


def grey_sizes(side, patch_size, n_layers, n_channel, n_hidden_token, n_hidden_channel, **_):
    """The sizes of a model for grey images of so many pixels a side, out of its configuration."""
    sizes = dict(image_size=side, patch_size=patch_size, n_layers=n_layers, n_channel=n_channel, n_image_channel=1)
    return sizes | dict(n_hidden_token=n_hidden_token, n_hidden_channel=n_hidden_channel)


def default_sizes(data_set, side):
    """The sizes of the model that the command trains on a data set of grey images, unless it is told others."""
    options = BY_DATA_SET[data_set]
    return grey_sizes(side, **options, n_hidden_token=options["n_hidden"], n_hidden_channel=options["n_hidden"])


AFFINE = transforms.RandomAffine(15, (0.1, 0.1), (0.85, 1.15), (-11.3, 11.3), transforms.InterpolationMode.BILINEAR)
PHOTOGRAPH = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
TURNED = (dict(affine=1.0), [AFFINE])  # two words for the same changes of an image
SHIPPED = mixer.load_checkpoint(mixer.shipped_weights("mnist"))[0].config
TASKS = {  # the data set, how many images, the sizes of the model, and how the images are changed
    "photographs": ("cifar10", 2560, SIZES, dict(padding=4, flip=True), PHOTOGRAPH),
    "MNIST, the shipped model": ("mnist", 2560, grey_sizes(28, **SHIPPED), *TURNED),
    "MNIST, the command's model": ("mnist", 2560, default_sizes("mnist", 28), *TURNED),
    "digits, the command's model": ("digits", 1294, default_sizes("digits", 8), *TURNED),
}


def epochs(data_set, n_images, sizes, changes, augmentation, device):
    """Two functions that train for one epoch and validate, data included: ours, and a DataLoader loop around timm."""
    side, colours = sizes["image_size"], sizes.get("n_image_channel", 3)
    images = torch.randint(0, 256, (n_images, colours, side, side), dtype=torch.uint8)
    labels = torch.randint(0, 10, (n_images,))
    few = Split(images[: n_images // 9], labels[: n_images // 9])
    mean, std = [0.5] * colours, [0.25] * colours
    data = DataSet(data_set, Split(images, labels), few, few, [str(i) for i in range(10)], mean, std, images.shape[1:])
    model = make_ours(**sizes)
    recipe = Recipe(n_epochs=1, batch_size=BATCH, **changes)
    theirs = make_timm(**sizes).to(device)
    optimiser = torch.optim.AdamW(theirs.parameters())
    loader = DataLoader(PictureFiles(images, labels, mean, std, augmentation), BATCH, shuffle=True)
    held_out = DataLoader(PictureFiles(few.images, few.labels, mean, std), BATCH)

    def ours():
        list(Trainer(model, data, recipe, device=device.type))

    def loop():
        theirs.train()
        for x, y in loader:
            loss = F.cross_entropy(theirs(x.to(device)), y.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        theirs.eval()
        with torch.no_grad():
            return sum((theirs(x.to(device)).argmax(dim=1) == y.to(device)).sum().item() for x, y in held_out)

    return {"mixer": ours, "DataLoader loop around timm": loop}


def step_tables(device, rounds):
    """The same architecture in three implementations, in float32 and in bfloat16, and our default.

    A CPU without instructions for bfloat16 is many times slower with it, so there it is left out.
    """
    default = choose_precision("auto", device)
    formats = {"float32": torch.float32, "bfloat16 autocast": torch.bfloat16}
    if device.type == "cpu" and default == torch.float32:
        del formats["bfloat16 autocast"]
    for title, dtype in formats.items():
        runners = {name: training_step(make(**SIZES), dtype, device, 32) for name, make in MAKERS.items()}
        runners["matrix products alone"] = matmul_floor(SIZES, dtype, device)
        report(f"A step in {title}", race(runners, rounds, device), "timm")
    name = f"mixer, its default ({str(default).removeprefix('torch.')})"
    runners = {name: training_step(make_ours(**SIZES), default, device, 32)}
    runners["timm"] = training_step(make_timm(**SIZES), torch.float32, device, 32)
    report("A step in our default precision against float32", race(runners, rounds, device), "timm")


def growth_table(device, rounds):
    """How a step's time grows with each size, beside the matrix products alone."""
    print("\nHow a step of mixer grows, in its default precision")
    dtype = choose_precision("auto", device)
    small = {**SIZES, "n_layers": 2}
    changes = {"2 layers": {}, "4 layers": {"n_layers": 4}, "256 channels": {"n_channel": 256}}
    changes |= {"256 tokens (patch 2)": {"patch_size": 2}, "image 64×64 (256 tokens)": {"image_size": 64}}
    for name, change in changes.items():
        sizes = {**small, **change}
        runners = {"step": training_step(make_ours(**sizes), dtype, device, sizes["image_size"])}
        runners["floor"] = matmul_floor(sizes, dtype, device)
        step, floor = (statistics.median(times) for times in race(runners, rounds, device).values())
        print(f"  {name:28}{step * 1e3:9.1f} ms, matrix products alone {floor * 1e3:8.1f} ms, {step / floor:5.2f} ×")


def muon_tables(device, rounds):
    """A step of Muon alone, for the matrices of shipped models: ours, and PyTorch's."""
    for name in ("digits-1", "mnist", "cifar10-jpeg"):
        model = mixer.load_checkpoint(mixer.shipped_weights(name))[0].to(device)
        matrices = make_optimisers(model, RECIPES["strong"], fused=False)[0].param_groups[0]["params"]
        for weight in matrices:
            weight.grad = torch.randn_like(weight)
        optimisers = {"mixer, float32": Muon(matrices), "torch, bfloat16": torch.optim.Muon(matrices)}
        times = race({name: optimiser.step for name, optimiser in optimisers.items()}, rounds, device)
        report(f"A step of Muon for the {len(matrices)} matrices of {name}", times, "torch, bfloat16")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="turns of each runner (default: 11)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    options = parser.parse_args()
    device = choose_device(options.device)
    versions = {"torch": torch, "torchvision": torchvision, "timm": timm}
    print(", ".join(f"{name} {module.__version__}" for name, module in versions.items()), end="; ")
    print(f"Python {platform.python_version()}, {platform.machine()}, {device}, {torch.get_num_threads()} threads")
    print(f"{SIZES}, batch {BATCH}")
    torch.manual_seed(0)
    step_tables(device, options.rounds)
    muon_tables(device, options.rounds)
    for title, task in TASKS.items():
        times = race(epochs(*task, device), 3, device)
        report(f"An epoch with its validation, data included: {title}", times, "DataLoader loop around timm")
    growth_table(device, options.rounds)


if __name__ == "__main__":
    main()
