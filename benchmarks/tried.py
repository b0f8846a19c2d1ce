"""What else might help a Mixer on photographs: rows that add one thing each to the recipe "strong".

`python benchmarks/tried.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER, for as long as the second ladder and
with three seeds, and writes mixer/weights/tried.json, which the page of records reads. All runs compute with float32.
A run takes 9 to 18 minutes of one core, the teacher 27; with names and --seeds some are made alone, so that two can run
side by side. A run that stands there already is not repeated.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from ladder import finish, test_accuracies
from record import SEEDS, choose, fill, load
from shuffles import NETWORKS
from torch import Tensor, nn
from torch.func import functional_call

from mixer import Trainer
from mixer.cli.release import JPEG_COPY
from mixer.data import DataSet, Split
from mixer.devices import hardware
from mixer.pretrained import WEIGHTS
from mixer.recipe import choose_recipe
from mixer.regularisation import seeded

N_EPOCHS = 4
SEED = 1  # of the teacher
TEACHER_FILE = Path("runs/teacher.pt")
RHO = 0.05  # how far SAM moves the weights
TEACHER = dict(n_epochs=8, label_smoothing=0.0)  # changes of the recipe "strong"
SHARE, TEMPERATURE = 0.5, 2.0  # of the teacher in the loss, and of both softmaxes


@dataclass
class InTurns(Split):
    """A split that mirrors each image every second time it is read; `mirrored` [N] tells which come mirrored next."""

    mirrored: Tensor

    def batches(self, indices, batch_size):
        for index, (images, labels) in zip(
            indices.split(batch_size), super().batches(indices, batch_size), strict=True
        ):
            now = self.mirrored[index]
            self.mirrored[index] = ~now
            yield torch.where(now.view(-1, 1, 1, 1), images.flip(3), images), labels


def mirror_in_turns(trainer: Trainer) -> None:
    """Mirror each image in every second epoch, and not at random.

    Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
    """
    train = trainer.data.train
    mirrored = torch.rand(len(train), generator=seeded(trainer.seed, 3)) < 0.5
    trainer.data = replace(trainer.data, train=InTurns(train.images, train.labels, mirrored))
    trainer.recipe = replace(trainer.recipe, flip=False)


def look_around(trainer: Trainer) -> None:
    """Take the gradient where the loss is highest nearby.

    Source: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization".
    """
    plain, network, weights = trainer.loss, trainer.network, dict(trainer.learner.named_parameters())

    def loss(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradients = torch.autograd.grad(plain(images, targets)[0], [*weights.values()])
        scale = RHO / torch.nn.utils.get_total_norm(gradients)
        moved = {name: weight + scale * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}
        trainer.network = partial(functional_call, network, moved)
        found = plain(images, targets)
        trainer.network = network
        return found

    trainer.loss = loss


def make_teacher(data: DataSet) -> nn.Module:
    """The CNN of chapter 8, trained once for all runs: its weights stay in TEACHER_FILE."""
    torch.manual_seed(SEED)
    teacher = NETWORKS["CNN"]()
    if not TEACHER_FILE.exists():
        list(Trainer(teacher, data, choose_recipe("strong", **TEACHER), SEED, "cpu", "fp32"))
        TEACHER_FILE.parent.mkdir(exist_ok=True)
        torch.save(teacher.state_dict(), TEACHER_FILE)
    teacher.load_state_dict(torch.load(TEACHER_FILE))
    return teacher.eval()


def learn_from_teacher(trainer: Trainer) -> dict:
    """Take half of the loss from the answers of a CNN.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".
    """
    teacher, plain = make_teacher(trainer.data), trainer.loss

    def loss(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        from_labels, logits = plain(images, targets)
        with torch.no_grad():
            answers = F.log_softmax(teacher(images) / TEMPERATURE, dim=1)
        own = F.log_softmax(logits / TEMPERATURE, dim=1)
        from_teacher = TEMPERATURE**2 * F.kl_div(own, answers, reduction="sum", log_target=True)
        return (1 - SHARE) * from_labels + SHARE * from_teacher, logits

    trainer.loss = loss
    return {f"teacher_{name}": found for name, found in test_accuracies(teacher, trainer.data).items()}


ROWS = {
    "strong": lambda trainer: None,
    "mirror images in turns": mirror_in_turns,
    "SAM": look_around,
    "a CNN as teacher": learn_from_teacher,
}


def run(images: DataSet, row: str, seed: int) -> dict:
    """Train with what a row adds: the curve, the accuracies of its end, and what is known about the row's teacher."""
    torch.manual_seed(seed)
    network = NETWORKS["Mixer"]()
    trainer = Trainer(network, images, choose_recipe("strong", n_epochs=N_EPOCHS), seed, "cpu", "fp32")
    about = ROWS[row](trainer) or {}
    watch = finish(trainer)
    accuracies = test_accuracies(network, images)
    return dict(curve=watch.curve, **accuracies, **about, hardware=hardware(trainer.device, trainer.dtype))


def main() -> None:
    options = choose(__doc__, ROWS)
    torch.set_num_threads(1)
    images = load("folder", options.folder)
    head = dict(
        command="python benchmarks/tried.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        rho=RHO,
        teacher=TEACHER,
        share_of_teacher=SHARE,
        temperature=TEMPERATURE,
        seeds=SEEDS,
    )
    jobs = [dict(row=row, seed=seed) for seed in options.seeds for row in options.names]
    fill(WEIGHTS / "tried.json", head, jobs, partial(run, images))


if __name__ == "__main__":
    main()
