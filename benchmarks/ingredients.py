"""What the ingredients of the recipe "strong" buy at full length: photographs learned without one of them, or any.

`python benchmarks/ingredients.py FOLDER` trains on the JPEG copy of CIFAR-10 in FOLDER, as long as the shipped models,
with three seeds, and writes mixer/weights/ingredients.json, which chapter 6 reads. The runs with all ingredients are
those of the Mixer in full.json. A run takes a quarter of an hour of one core with native bfloat16; with names and
--seeds some are made alone, so that two can run side by side. A run that stands there already is not repeated.
"""

import torch
from full import N_EPOCHS, run
from record import SEEDS, choose, fill, load

from mixer.cli.release import JPEG_COPY
from mixer.pretrained import WEIGHTS
from mixer.recipe import RECIPES

INGREDIENTS = {  # fields of the recipe that are left out
    "weight decay": ["weight_decay"],
    "warm-up, cosine": ["warm_up"],
    "label smoothing": ["label_smoothing"],
    "clipping": ["clip"],
    "random changes": ["padding", "flip"],
    "running mean": ["ema"],
    "Muon": ["muon_lr"],
    "any of them": [name for name, value in vars(RECIPES["strong"]).items() if value != getattr(RECIPES["seed"], name)],
}


def main() -> None:
    options = choose(__doc__, INGREDIENTS)
    torch.set_num_threads(1)
    images = load("folder", options.folder)
    head = dict(
        command="python benchmarks/ingredients.py data/cifar10-jpeg",
        data=JPEG_COPY,
        torch=torch.__version__,
        recipe="strong",
        n_epochs=N_EPOCHS,
        ingredients=INGREDIENTS,
        seeds=SEEDS,
    )
    jobs = [dict(without=name, seed=seed) for seed in options.seeds for name in options.names]

    def run_without(without: str, seed: int) -> dict:
        off = {field: getattr(RECIPES["seed"], field) for field in INGREDIENTS[without]}
        return run(images, "Mixer", seed, **off)

    fill(WEIGHTS / "ingredients.json", head, jobs, run_without)


if __name__ == "__main__":
    main()
