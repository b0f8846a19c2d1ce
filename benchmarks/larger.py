"""A larger Mixer trained on photographs for as long as the shipped one, and asked for its answer to shifted views.

`python benchmarks/larger.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER with three seeds and writes
mixer/weights/larger.json, which the page of records reads. A run takes about an hour of one core with float32; with
--seeds some are made alone, so that two can run side by side. What stands there is not repeated.
"""

import torch
from full import N_EPOCHS, train
from ladder import let_muon_train_all
from record import SEEDS, choose, fill, load
from torch import Tensor, nn

from mixer import MLPMixer, Trainer
from mixer.cli.release import JPEG_COPY
from mixer.data import DataSet, Split
from mixer.pretrained import WEIGHTS
from mixer.recipe import choose_recipe
from mixer.training import predict

SIZES = dict(n_layers=4, n_channel=128, n_hidden_token=64, n_hidden_channel=256, patch_size=4)
BATCH_SIZE = 128
PLACES = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Images [N, C, H, W] moved by some pixels; where nothing comes in, the edge is repeated."""
    H, W = images.shape[2:]
    rows, columns = (torch.arange(H) - down).clamp(0, H - 1), (torch.arange(W) - right).clamp(0, W - 1)
    return images[:, :, rows][:, :, :, columns]


def nine_views(network: nn.Module, data: DataSet, images: Tensor) -> Tensor:
    """The logits [9, N, n_output] for images and their eight shifts by one pixel, straight and slanting."""
    labels = torch.zeros(len(images), dtype=torch.int64)  # no answer depends on them
    return torch.stack([predict(network, data, Split(shifted(images, *place), labels)) for place in PLACES])


def view_accuracies(network: nn.Module, data: DataSet) -> dict[str, float]:
    """The accuracies, from 0 to 1, of the mean answer over nine views, and over these and their mirror images.

    "agreement" is the share of the test images to which all nine views get one answer.
    """
    found = {}
    for part in ("validation", "test"):
        images, labels = getattr(data, part).images, getattr(data, part).labels
        views = nine_views(network, data, images)
        nine = views.mean(dim=0)
        answers = {"nine_views": nine, "eighteen_views": nine + nine_views(network, data, images.flip(3)).mean(dim=0)}
        for name, logits in answers.items():
            found[f"{name}_{part}_accuracy"] = round((logits.argmax(dim=1) == labels).float().mean().item(), 4)
    classes = views.argmax(dim=2)  # [9, N], of the test images
    return found | {"agreement": round((classes == classes[0]).all(dim=0).float().mean().item(), 4)}


def run(images: DataSet, seed: int) -> dict:
    """Train with a seed: what `train` and `view_accuracies` find."""
    torch.manual_seed(seed)
    network = MLPMixer(**SIZES, n_hidden=1, n_output=10, image_size=(32, 32), n_image_channel=3, norm="channels")
    recipe = choose_recipe("strong", n_epochs=N_EPOCHS, batch_size=BATCH_SIZE)
    trainer = Trainer(network, images, recipe, seed, "cpu", "fp32")
    let_muon_train_all(trainer)
    return train(trainer) | view_accuracies(network, images)


def main() -> None:
    options = choose(__doc__)
    torch.set_num_threads(1)
    images = load("folder", options.folder)
    head = dict(
        command="python benchmarks/larger.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        sizes=SIZES,
        n_epochs=N_EPOCHS,
        batch_size=BATCH_SIZE,
        seeds=SEEDS,
    )
    fill(WEIGHTS / "larger.json", head, [dict(seed=seed) for seed in options.seeds], lambda seed: run(images, seed))


if __name__ == "__main__":
    main()
