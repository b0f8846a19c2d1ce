"""The paper's figure 4, small: a Mixer and a CNN on photographs, on shuffled patches, and on shuffled pixels.

`python benchmarks/shuffles.py FOLDER` trains both on the JPEG copy of CIFAR-10 in FOLDER and writes
mixer/weights/shuffles.json, which chapter 8 draws. A run that stands there already is not repeated.
"""

from functools import partial

import torch
from record import choose, fill, load

from mixer import MLPMixer, Trainer, evaluate, load_checkpoint, shipped_weights
from mixer.cli.release import JPEG_COPY
from mixer.convolution import SmallCNN
from mixer.data import SHUFFLES
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe

RECORD = WEIGHTS / "shuffles.json"
SEED, N_EPOCHS = 1, 6
CONFIG = load_checkpoint(shipped_weights("cifar10-jpeg"))[0].config
NETWORKS = {"Mixer": lambda: MLPMixer(**CONFIG), "CNN": lambda: SmallCNN(24, n_output=10, n_image_channel=3)}


def run(images, network: str, shuffle: str) -> dict:
    """Train one network on images in one order: its accuracies, from 0 to 1, and the seconds that it took."""
    torch.manual_seed(SEED)
    made = NETWORKS[network]()
    images = images.shuffled(shuffle, CONFIG["patch_size"])
    trainer = Trainer(made, images, choose_recipe("strong", n_epochs=N_EPOCHS), SEED, "cpu", "fp32")
    history = list(trainer)
    return dict(
        n_parameters=sum(p.numel() for p in made.parameters()),
        validation_accuracy=[record["validation_accuracy"] for record in history],
        test_accuracy=evaluate(made, images, images.test)["accuracy"],
        seconds=round(trainer.seconds, 1),
        hardware=hardware(trainer.device, trainer.dtype),
    )


def main() -> None:
    options = choose(__doc__, seeds=(SEED,))
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/shuffles.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        seed=SEED,
    )
    jobs = [dict(network=network, shuffle=shuffle) for shuffle in SHUFFLES for network in NETWORKS]
    fill(RECORD, head, jobs, partial(run, load("folder", options.folder)))


if __name__ == "__main__":
    main()
