"""Other token mixings on photographs: thirteen kinds trained alike, three seeds each.

`python benchmarks/mixings.py FOLDER` trains them on the JPEG copy of CIFAR-10 in FOLDER and writes
mixer/weights/mixings.json, which chapter 12 draws. A run that stands there already is not repeated.
"""

from functools import partial

import torch
import torch.nn.functional as F
from record import SEEDS, choose, fill, load
from torch import Tensor, nn

from mixer import TOKEN_MIXINGS, MLPMixer, Trainer, evaluate
from mixer.cli.release import JPEG_COPY
from mixer.devices import hardware
from mixer.mixing import GridMixing, TokenMixing
from mixer.pretrained import WEIGHTS
from mixer.training import choose_recipe

RECORD = WEIGHTS / "mixings.json"
N_TRAIN = 10_000
CHANGES = dict(n_epochs=2, batch_size=100, lr=3e-3, warm_up=0.1)  # of the recipe "seed"
SIZES = dict(n_layers=2, n_channel=32, n_hidden=64, n_output=10, image_size=32, patch_size=8, n_image_channel=3)
N_RANK, N_HEAD = 4, 16  # hidden units of low rank; numbers in a query, so that attention is as large as the MLP


class Gated(TokenMixing):
    """X + LN(X) ⊙ (W·LN(X) + b) along the tokens; W begins near 0 and b at 1. Source: Liu et al. 2021, section 2.1."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.fc = nn.Linear(self.n_tokens, self.n_tokens)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.ones_(self.fc.bias)

    def update(self, x: Tensor) -> Tensor:
        return x * self.fc(x.transpose(1, 2)).transpose(1, 2)  # [B, n_tokens, n_channel]


class Local(GridMixing):
    """A 3×3 kernel of its own for each channel, zeros beyond the edge. Source: Trockman and Kolter 2023, ConvMixer."""

    def __init__(self, n_tokens, n_channel, *args, **options):
        super().__init__(n_tokens, n_channel, *args, **options)
        self.mix = nn.Conv2d(n_channel, n_channel, kernel_size=3, padding=1, groups=n_channel)


class Attention(TokenMixing):
    """Self-attention with one head. Source: Vaswani et al. 2017, section 3.2.1."""

    def __init__(self, n_tokens, n_channel, *args, **options):
        super().__init__(n_tokens, n_channel, *args, **options)
        self.qkv, self.out = nn.Linear(n_channel, 3 * N_HEAD), nn.Linear(N_HEAD, n_channel)

    def update(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=2)  # [B, n_tokens, N_HEAD] each
        return self.out(F.scaled_dot_product_attention(query, key, value))  # [B, n_tokens, n_channel]


class PlacedAttention(Attention):
    """`Attention` to tokens to which a learned vector for each place is added."""

    def __init__(self, n_tokens, n_channel, *args, **options):
        super().__init__(n_tokens, n_channel, *args, **options)
        self.places = nn.Parameter(0.6 * torch.randn(n_tokens, n_channel))

    def update(self, x: Tensor) -> Tensor:
        return super().update(x + self.places)


OTHERS = {"gated": Gated, "local": Local, "attention": Attention, "attention with places": PlacedAttention}
KINDS = (*TOKEN_MIXINGS, *OTHERS)


def make_model(kind: str, seed: int) -> MLPMixer:
    """A Mixer whose token mixing is of this kind."""
    torch.manual_seed(seed)
    changes = dict(n_hidden_token=N_RANK) if kind == "low_rank" else {}
    model = MLPMixer(**SIZES, **changes, norm="channels", token_mixing="none" if kind in OTHERS else kind)
    for layer in model.layers:
        if kind in OTHERS:
            layer.token_mixing = OTHERS[kind](model.n_tokens, SIZES["n_channel"], norm="channels", grid=model.grid)
    return model


def run(images, token_mixing: str, seed: int) -> dict:
    """Train one model: its accuracies, from 0 to 1, and the seconds that the training took."""
    model = make_model(token_mixing, seed)
    trainer = Trainer(model, images, choose_recipe("seed", **CHANGES), seed, precision="fp32")
    history = list(trainer)
    return dict(
        n_parameters=sum(p.numel() for p in model.parameters()),
        n_learned=sum(p.numel() for p in model.parameters() if p.requires_grad),
        train_accuracy=history[-1]["train_accuracy"],
        validation_accuracy=[record["validation_accuracy"] for record in history],
        test_accuracy=evaluate(model, images, images.test)["accuracy"],
        seconds=round(trainer.seconds, 1),
        hardware=hardware(trainer.device, trainer.dtype),
    )


def main() -> None:
    options = choose(__doc__, KINDS)
    torch.set_num_threads(1)
    head = dict(
        command="python benchmarks/mixings.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="seed",
        changes=CHANGES,
        n_train=N_TRAIN,
        sizes=SIZES,
        norm="channels",
        n_rank=N_RANK,
        n_head=N_HEAD,
        seeds=SEEDS,
    )
    jobs = [dict(token_mixing=kind, seed=seed) for seed in options.seeds for kind in options.names]
    fill(RECORD, head, jobs, partial(run, load("folder", options.folder).first(N_TRAIN)))


if __name__ == "__main__":
    main()
